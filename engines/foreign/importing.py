"""The whole way of an import: open, look, ask, build, check, write."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from engines.classes import ClassInfo
from engines.errors import ModelError, SourceError
from engines.foreign.building import Plan, Way, build, ways
from engines.foreign.checking import Check, check, drawn_streets, takes_several
from engines.foreign.detectors import find_boxes, refuse
from engines.foreign.forms import BoxForm, Form, PeakForm, PixelForm
from engines.foreign.labels import known_classes
from engines.foreign.opening import Foreign, open_foreign
from engines.foreign.original import Original, Output, require_onnxruntime
from engines.foreign.picture import PictureInput, UInt8, find_picture
from engines.foreign.segmenters import find_pixels, ids_of_channels, strange_ids
from engines.foreign.told import Finding, Ledger
from engines.spec import GraphPrecision, ModelSpec, read_spec
from engines.squash import squash
from engines.tools.quantize import write_model

if TYPE_CHECKING:
    import onnx

IMPORT_KEY = "roadlens.import"
"""The key in the ONNX file's `metadata_props` under which stands where a model came from, and what was found in it."""

_BATCHES: dict[Way, str] = {
    "as it is": "any number of pictures at once",
    "opened": "one picture: opened for any number",
    "one by one": "one picture: a loop runs it on each",
}

_LOOKED_AT = 4
"""Pictures on which outputs are looked at before anything is built."""


class Statement(msgspec.Struct, frozen=True):
    """What the file is to say about itself; empty where nobody says."""

    name: str
    version: str = "1"
    licence: str = ""
    author: str = ""
    training_data: str = ""


class Import(msgspec.Struct, frozen=True):
    """What came of an import.

    Attributes:
        output: the file.
        spec: what it says about itself.
        findings: what was found, and how it is known.
        warnings: what may be wrong, a sentence each.
        batches: how it takes several pictures.
        check: how it compares with the original.
        author: of the model, empty where nobody says.
    """

    output: str
    spec: ModelSpec
    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]
    batches: Way
    check: Check
    author: str

    @property
    def unsure(self) -> list[Finding]:
        """What nobody said and the file does not show."""
        return [finding for finding in self.findings if finding.how in {"assumed", "convention"}]


def import_model(
    path: Path,
    output: Path,
    ledger: Ledger,
    statement: Statement,
    frames: Iterable[UInt8] | None = None,
    *,
    classes: str | None = None,
    confidence: bool = False,
    count: int = 8,
) -> Import:
    """Make a model file of the house out of a foreign ONNX file.

    Args:
        path: of the foreign file.
        output: the file to write, replaced in one step.
        ledger: with what was told; what is found is noted in it as it is found, also where the import ends early.
        statement: what the file is to say about itself; a licence and an author in the file's metadata are taken over.
        frames: (h, w, 3) uint8 RGB pictures of any size to look at and to check with; None for drawn streets.
        classes: see `known_classes`.
        confidence: whether a segmenter is to give it, too.
        count: most pictures.

    Raises:
        UsageError: onnxruntime is not installed, a question is open, or what was told does not fit.
        ModelError: no such file, or a model that cannot be imported; the sentence says why.
        SourceError: there is no picture.
        CheckFailed: the built model does not say what the original says; nothing is written.
        OutputError: the file cannot be written.
    """
    require_onnxruntime()
    foreign = open_foreign(path, ledger)
    ledger.classes = known_classes(classes, foreign.notes, ledger.told.task == "detection")
    if ledger.classes is not None:
        ledger.find("classes", _names(ledger.classes), "told" if classes else "graph")
    picture = find_picture(foreign, ledger)
    if picture is None:
        if ledger.classes is None:
            ledger.ask("the names of its classes (--classes FILE)")
        ledger.require_answers(str(path))
    assert picture is not None
    pictures = _pictures(frames, picture, count)
    original = Original(foreign, picture)
    outputs = original.outputs(pictures[:_LOOKED_AT])
    warnings = _numbers(outputs)
    form = _form(outputs, picture, foreign, ledger)
    assert ledger.classes is not None
    if classes is None and not isinstance(form, PixelForm):
        ledger.classes = tuple(msgspec.structs.replace(info, thing=True) for info in ledger.classes)
    plan = Plan(picture, form, _ids(form, ledger), confidence and isinstance(form, PixelForm), _most(form, ledger))
    warnings += _strange(outputs, plan, ledger)
    spec = _spec(foreign, plan, ledger, statement)
    model, way = _built(foreign, plan, spec, pictures)
    ledger.find("batches", _BATCHES[way], "graph")
    result = check(model, spec, plan, original, pictures)
    warnings += _doubles(result)
    author = _sign(model, foreign, statement, ledger)
    write_model(model, output)
    return Import(str(output), read_spec(output), tuple(ledger.findings), tuple(warnings), way, result, author)


def _pictures(frames: Iterable[UInt8] | None, picture: PictureInput, count: int) -> list[UInt8]:
    height, width = picture.inner_height, picture.inner_width
    if frames is None:
        return drawn_streets(min(count, _LOOKED_AT), height, width)
    pictures = [squash(frame, height, width) for frame in islice(frames, count)]
    if not pictures:
        raise SourceError("There are no frames to check with; give footage or a folder of images.")
    return pictures if len(pictures) > 1 else pictures * 2


def _form(outputs: Sequence[Output], picture: PictureInput, foreign: Foreign, ledger: Ledger) -> Form:
    """What the outputs are."""
    take, task = ledger.told.take, ledger.told.task
    wants_pixels = task == "segmentation" or "class_map" in take
    form: Form | None = None
    if not wants_pixels:
        form = find_boxes(outputs, picture, ledger)
    if form is None and task != "detection" and not ledger.questions:
        form = find_pixels(outputs, picture, ledger)
    if ledger.classes is None:
        ledger.ask("the names of its classes (--classes FILE)")
    if form is None and all("classes" in question for question in ledger.questions) and ledger.classes is not None:
        raise refuse(outputs, foreign.path)
    ledger.require_answers(str(foreign.path))
    assert form is not None
    return form


def _ids(form: Form, ledger: Ledger) -> tuple[int, ...]:
    """Class ids of what the model counts; empty where it gives ids."""
    if isinstance(form, PixelForm):
        return ids_of_channels(form, ledger)
    assert ledger.classes is not None
    ids = tuple(info.id for info in ledger.classes)
    if isinstance(form, BoxForm) and form.labels is not None:
        return ()
    return ids


def _most(form: Form, ledger: Ledger) -> int:
    most = ledger.told.most
    if isinstance(form, BoxForm) and form.batched and form.rows is not None:
        return min(most, form.rows)
    return min(most, form.classes * form.height * form.width) if isinstance(form, PeakForm) else most


def _numbers(outputs: Sequence[Output]) -> list[str]:
    """What is not a number in the original's own outputs."""
    wrong = {output.name: int((~np.isfinite(output.values)).sum()) for output in outputs if output.is_float}
    return [
        f"`{name}` has {number} values on the pictures that are no numbers (NaN or infinite); is the scaling of pixels "
        "right?"
        for name, number in wrong.items()
        if number
    ]


def _doubles(result: Check) -> list[str]:
    """What should have been suppressed."""
    if not result.doubles:
        return []
    doubt = "boxes on the pictures cover a likelier one of their class, which it seems not to suppress; give --nms 0.6"
    return [f"{result.doubles} {doubt}"]


def _strange(outputs: Sequence[Output], plan: Plan, ledger: Ledger) -> list[str]:
    """Classes that the model says and nobody named."""
    form = plan.form
    if isinstance(form, PixelForm) and form.kind == "map":
        strange = strange_ids(outputs, form, ledger)
    elif isinstance(form, BoxForm) and form.labels is not None:
        by_name = {output.name: output for output in outputs}
        labels = np.concatenate(
            [form.labels.taken({form.labels.output: a}).ravel() for a in by_name[form.labels.output].answers]
        )
        taken_off = 1 if form.background == "first" else 0
        known = {info.id + taken_off for info in ledger.classes or ()} | ({0} if taken_off else set())
        strange = sorted({int(label) for label in labels} - known)
    else:
        return []
    if not strange:
        return []
    said = ", ".join(str(number) for number in strange[:8])
    return [
        f"on the pictures it says classes that are not named: {said}; name them (--classes), or give ids in the file."
    ]


def _built(foreign: Foreign, plan: Plan, spec: ModelSpec, pictures: Sequence[UInt8]) -> tuple[onnx.ModelProto, Way]:
    """The first way of taking several pictures that works."""
    why: str | None = None
    several = [*pictures[:3]] if len(pictures) > 1 else [*pictures] * 2
    for way in ways(plan):
        model = build(foreign.model, plan, spec, way)
        why = takes_several(model, several)
        if why is None:
            return model, way
    raise ModelError(f"{foreign.path} cannot be built upon: ONNX Runtime does not take what came of it ({why}).")


def _spec(foreign: Foreign, plan: Plan, ledger: Ledger, statement: Statement) -> ModelSpec:
    assert ledger.classes is not None
    notes = foreign.notes
    return ModelSpec(
        name=statement.name, version=statement.version,
        task="segmentation" if isinstance(plan.form, PixelForm) else "localization",
        height=plan.picture.inner_height, width=plan.picture.inner_width, classes=ledger.classes, outputs={},
        min_score=ledger.told.min_score, precision=_precision(foreign.model), training_data=statement.training_data,
        licence=statement.licence or notes.get("license", notes.get("licence", "")),
    )  # fmt: skip


def _precision(model: onnx.ModelProto) -> GraphPrecision:
    """What most of the weights are in, or int8 for a graph with quantisers."""
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        return "int8"
    sizes = {1: 0, 10: 0, 16: 0}
    for weight in model.graph.initializer:
        if weight.data_type in sizes:
            sizes[weight.data_type] += int(np.prod(weight.dims))
    names: dict[int, GraphPrecision] = {1: "fp32", 10: "fp16", 16: "bf16"}
    return names[max(sizes, key=lambda kind: sizes[kind])]


def _sign(model: onnx.ModelProto, foreign: Foreign, statement: Statement, ledger: Ledger) -> str:
    """Note in the file whose it is, and where it came from; the author is returned."""
    author = statement.author or foreign.notes.get("author", "")
    notes = {entry.key: entry for entry in model.metadata_props}
    if author:
        if "author" in notes:
            model.metadata_props.remove(notes["author"])
        model.metadata_props.add(key="author", value=author)
    source = {
        "file": foreign.path.name,
        "sha256": hashlib.sha256(foreign.path.read_bytes()).hexdigest(),
        "findings": [msgspec.structs.asdict(finding) for finding in ledger.findings],
    }
    model.metadata_props.add(key=IMPORT_KEY, value=msgspec.json.encode(source).decode())
    return author


def _names(classes: Sequence[ClassInfo]) -> str:
    names = [info.name for info in classes]
    return f"{len(names)}: {', '.join(names[:6])}{' …' if len(names) > 6 else ''}"
