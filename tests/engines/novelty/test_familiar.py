"""What is familiar travels in the model file or beside it; files without it work, wrong ones are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from engines import bundled
from engines.errors import ModelError, OutputError
from engines.graphs.lowered import lowered
from engines.novelty.distance import fit
from engines.novelty.familiar import Familiar, place_of, write_beside
from engines.spec import SCHEMA, SPEC_KEY, figure_names, read_spec
from tests.engines.tiny_models import CONV, LOCALIZER, SEGMENTER, bits_model, conv_model, corners_model, save

NAMES = figure_names(SEGMENTER)


def familiar(source: str = "made up", names: tuple[str, ...] = NAMES) -> Familiar:
    rows = np.random.default_rng(0).uniform(0, 1, (120, len(names)))
    return fit(rows, names, source)


def test_the_figures_of_a_model_are_its_classes_and_its_confidence() -> None:
    assert (NAMES[:2], NAMES[-2:], len(NAMES)) == (("class 0", "class 1"), ("class 7", "mean confidence"), 9)
    assert figure_names(msgspec.structs.replace(SEGMENTER, outputs={"class_map": "map"})) == NAMES[:-1]
    assert figure_names(LOCALIZER) == ()


def test_it_is_read_back_from_the_model_file_and_goes_into_files_made_of_it(tmp_path: Path) -> None:
    spec = msgspec.structs.replace(CONV, familiar=familiar(names=figure_names(CONV)))
    path = save(conv_model(), spec, tmp_path / "m.onnx")
    assert read_spec(path) == spec
    half = lowered(path, "fp16")
    onnx.save(half, tmp_path / "half.onnx")
    assert read_spec(tmp_path / "half.onnx").familiar == spec.familiar


def test_what_lies_beside_counts_for_the_model_and_its_twins(tmp_path: Path) -> None:
    inside = msgspec.structs.replace(SEGMENTER, familiar=familiar("inside"))
    path = save(bits_model(), inside, tmp_path / "m.onnx")
    twin = save(bits_model(), msgspec.structs.replace(SEGMENTER, precision="int8"), tmp_path / "m.int8.onnx")
    before = path.read_bytes()
    assert write_beside(path, familiar("beside")) == tmp_path / "m.familiar.json"
    assert place_of(twin) == place_of(tmp_path / "m.fp8.onnx") == place_of(path)
    for each in (path, twin):
        assert read_spec(each).familiar == familiar("beside")
    assert path.read_bytes() == before  # by which it is known
    assert sorted(each.name for each in tmp_path.iterdir()) == ["m.familiar.json", "m.int8.onnx", "m.onnx"]


def test_files_from_before_it_was_there_are_read_without_it(tmp_path: Path) -> None:
    path = save(bits_model(), SEGMENTER, tmp_path / "m.onnx")
    model = onnx.load(path)
    (prop,) = (prop for prop in model.metadata_props if prop.key == SPEC_KEY)
    plain = json.loads(prop.value)
    assert plain.pop("familiar") is None
    prop.value = json.dumps(plain | {"schema": 2})
    onnx.save(model, path)
    spec = read_spec(path)
    assert (spec.familiar, spec.schema) == (None, 2)
    spec = msgspec.structs.replace(spec, familiar=familiar())
    assert read_spec(save(bits_model(), spec, path)).schema == SCHEMA  # those who do not know it say so


def without(key: str) -> str:
    plain = msgspec.to_builtins(familiar())
    del plain[key]
    return json.dumps(plain)


def changed(**changes: Any) -> str:
    return json.dumps(msgspec.to_builtins(familiar()) | changes)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "cannot be read"),
        ("", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (without("means"), "missing required field `means`"),
        (changed(more=1), "unknown field `more`"),
        (changed(pictures=3), "`int` >= 100"),
        (changed(spreads=[2.0] * 9), "`float` <= 1.0"),
        (changed(means=[0.5] * 8), r"it has (8, 9, 36) means, spreads and correlations where (9, 9, 36) are wanted"),
        (changed(figures=["road", *NAMES[1:]]), "it is of another model: `road` is none of its figures"),
        (changed(figures=NAMES[:-1]), "it is of another model: figures are lacking in it"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_sentence(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    path = save(bits_model(), SEGMENTER, tmp_path / "m.onnx")
    place_of(path).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelError, match=re.escape(sentence)) as raised:
        read_spec(path)
    said = str(raised.value)
    assert said.startswith(str(place_of(path)))
    assert "take it away" in said
    assert "\n" not in said


def test_a_model_without_a_class_map_has_none(tmp_path: Path) -> None:
    path = save(corners_model(), LOCALIZER, tmp_path / "m.onnx")
    write_beside(path, familiar())
    with pytest.raises(ModelError, match="the model gives no class map"):
        read_spec(path)


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_beside(tmp_path / "absent" / "m.onnx", familiar())


def test_those_of_the_bundled_models_are_of_their_training_pictures() -> None:
    for name in ("cityscapes-unet", "cityscapes-pspnet", bundled.DEFAULT):
        known = read_spec(bundled.resolve(name)).familiar
        assert known is not None
        assert (known.pictures, known.figures[0], known.figures[-1]) == (600, "road", "mean confidence")
        assert 1.5 < known.limit < 2.5
