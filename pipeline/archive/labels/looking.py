"""Frames of an archive looked at again: decoded whole by their number, and told by the archive's own models, each
picture for itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

import engines
from engines.classes import ClassInfo
from engines.engine import Engine
from engines.errors import RoadlensError, UsageError
from engines.loading import in_tenths
from pipeline.analysis.components import ComponentOptions
from pipeline.analysis.fuse import FuseOptions, Fuser
from pipeline.analysis.tracking import TrackingOptions
from pipeline.archive.find.originals import original, pictures_of
from pipeline.archive.indexer import FAULTS
from pipeline.archive.labels.alike import difference_hash
from pipeline.archive.labels.disagreement import Disagreement
from pipeline.archive.labels.hardness import Candidate
from pipeline.archive.labels.labelled import label_set
from pipeline.archive.labels.models import files_of
from pipeline.archive.reading import Archive
from pipeline.archive.terms import Terms
from pipeline.frame import Analysis, Box, Frame
from pipeline.pictures.picture import Picture

UInt8 = NDArray[np.uint8]

QUALITY = 95
"""Of pictures as JPEG: what labels are drawn on is to look as the camera's."""


@dataclass(frozen=True, slots=True)
class Looked:
    """A frame that was looked at.

    Attributes:
        candidate: which.
        jpeg: the whole picture, in a file.
        width, height: of it, in pixels.
        hash: of `difference_hash`.
        packed: the class map at its model's size, as PNG; None without a segmenter.
        boxes: road users.
        doubt: 1 less the mean confidence of the pixels; that of the candidate where the model gives none.
        disagreement: with the second model; None without one.
    """

    candidate: Candidate
    jpeg: Path
    width: int
    height: int
    hash: int
    packed: bytes | None
    boxes: tuple[Box, ...]
    doubt: float
    disagreement: float | None

    @property
    def class_map(self) -> UInt8 | None:
        """(h, w) uint8 class ids at the model's size."""
        if self.packed is None:
            return None
        return np.asarray(cv2.imdecode(np.frombuffer(self.packed, np.uint8), cv2.IMREAD_UNCHANGED), np.uint8)


@dataclass(slots=True)
class Missed:
    """What could not be looked at.

    Attributes:
        clips: why, by the path of a clip.
        frames: of clips that can be read, how many frames that are not to be decoded.
    """

    clips: dict[str, str] = field(default_factory=dict)
    frames: int = 0


class Looker:
    """The models of an archive, and another one to compare with. A context manager that closes the engines.

    Args:
        terms: of the archive.
        models: names or files of its models, where those that come with roadlens are others.
        second: name or file of the model to compare with; empty for none.
        device: what they run on.
        say: told how far an engine is that is being built.

    Attributes:
        classes: that labels have.
        mapped: whether a model gives a class map.

    Raises:
        ModelError: a model of the archive is not there, or cannot be used.
        UsageError: the second one has nothing in common with it.
    """

    def __init__(
        self, terms: Terms, models: Sequence[str], second: str, device: str, say: Callable[[str], None]
    ) -> None:
        files = files_of(terms, models)
        observe = in_tenths(say)
        options = terms.options
        self._fuse = FuseOptions(
            msgspec.convert(options.get("boxes") or {}, ComponentOptions),
            msgspec.convert(options.get("tracking") or {}, TrackingOptions),
            options.get("min_score"),
        ).of_stills()
        self._second: Engine | None = None
        self._disagreement: Disagreement | None = None
        with ExitStack() as stack:

            def load(model: Path | str, precision: engines.Precision) -> Engine:
                engine = engines.load(model, device, precision, max_batch=1, observe=observe)
                stack.callback(engine.close)
                return engine

            self._engines = [
                load(file, known.precision)  # type: ignore[arg-type]  # checked by engines.load
                for file, known in zip(files, terms.models, strict=True)
            ]
            specs = [engine.spec for engine in self._engines]
            self.classes: tuple[ClassInfo, ...] = label_set(specs)
            mapped = next((spec.classes for spec in specs if "class_map" in spec.outputs), None)
            self.mapped = mapped is not None
            if second:
                self._second = load(second, "auto")
                self._disagreement = _disagreement(mapped, self._second, second)
            self._stack = stack.pop_all()

    def look(self, archive: Archive, wanted: Sequence[Candidate], folder: Path, missed: Missed) -> Iterator[Looked]:
        """Look at frames, clip by clip.

        Args:
            archive: of them.
            wanted: which.
            folder: where their pictures are put.
            missed: what cannot be looked at is told here.
        """
        clips: dict[str, list[Candidate]] = defaultdict(list)
        for candidate in wanted:
            clips[candidate.clip].append(candidate)
        for candidates in clips.values():
            by_frame = {candidate.frame: candidate for candidate in candidates}
            for frame in _frames(archive, candidates, missed):
                yield self._looked(frame, by_frame[frame.index], folder)

    def _looked(self, frame: Frame, candidate: Candidate, folder: Path) -> Looked:
        analysis = self._analysed(frame)
        jpeg, width, height = Picture.of(frame.image).jpeg(QUALITY)
        path = folder / f"{candidate.clip}-{candidate.frame}.jpg"
        path.write_bytes(jpeg)
        doubt = candidate.doubt if analysis.confidence is None else 1 - float(analysis.confidence.mean()) / 255
        packed, disagreement = None, None
        if analysis.class_map is not None:
            packed = cv2.imencode(".png", analysis.class_map)[1].tobytes()
            if self._disagreement is not None and self._second is not None:
                spec = self._second.spec
                other = _told(self._second, Picture.of(frame.image).network_input(spec.height, spec.width)).class_map
                assert other is not None  # seen to when it was loaded
                disagreement = round(self._disagreement.of(analysis.class_map, other), 6)
        return Looked(
            candidate, path, width, height, difference_hash(frame.image), packed, analysis.boxes, round(doubt, 6),
            disagreement,
        )  # fmt: skip

    def _analysed(self, frame: Frame) -> Analysis:
        picture = Picture.of(frame.image)
        inputs = {(e.spec.height, e.spec.width) for e in self._engines}
        made = {size: picture.network_input(*size) for size in inputs}
        told = {e.spec.name: _told(e, made[e.spec.height, e.spec.width]) for e in self._engines}
        # Another one for each picture: nothing of the one before is to be seen in it.
        return Fuser([e.spec for e in self._engines], self._fuse).fuse(frame, "file", told, made)

    def close(self) -> None:
        """Let go of the engines. Twice is allowed."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _frames(archive: Archive, candidates: Sequence[Candidate], missed: Missed) -> Iterator[Frame]:
    """The frames of candidates of one clip; what is wrong with it is told to `missed`."""
    found = 0
    try:
        with original(archive, candidates[0].clip) as path:
            for frame in pictures_of(path, {candidate.frame for candidate in candidates}):
                found += 1
                yield frame
    except FAULTS as error:
        said = str(error) if isinstance(error, RoadlensError) else f"{type(error).__name__}: {error}"
        missed.clips[candidates[0].path] = said
    else:
        missed.frames += len(candidates) - found


def _told(engine: Engine, image: UInt8) -> engines.Prediction:
    return engine.submit([image]).result()[0]


def _disagreement(classes: Sequence[ClassInfo] | None, second: Engine, name: str) -> Disagreement:
    if classes is None:
        raise UsageError("--second compares class maps, and no model of this archive gives one; leave it out")
    if "class_map" not in second.spec.outputs:
        raise UsageError(f"--second compares class maps, and {name} gives none; name a segmenter")
    return Disagreement(classes, second.spec.classes)
