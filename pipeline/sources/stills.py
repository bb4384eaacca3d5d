"""Folders of pictures as footage: one frame a picture."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import av
import av.error

from engines.errors import SourceError
from pipeline.contracts import AudioPacket, SourceCounts, StreamInfo
from pipeline.frame import Frame, Mode
from pipeline.pictures.exif import orientation, taken
from pipeline.sources.clips import open_clip
from pipeline.sources.normalizer import Normalizer
from pipeline.sources.recording.when import beginning
from pipeline.sources.trips.makers import recorded_at

Noted = TypeVar("Noted")

log = logging.getLogger(__name__)


class ImageSource:
    """A folder of pictures as a stream: one frame a file in natural order, `rate` frames a second.

    Args:
        stream_id: id of the stream.
        paths: the pictures, in order.
        rate: frames a second of the timeline the pictures are laid on.
        monotonic: monotonic clock in seconds.
    """

    mode: Mode = "file"

    def __init__(
        self,
        stream_id: str,
        paths: Sequence[Path],
        rate: Fraction = Fraction(25),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id, self.paths, self.rate = stream_id, tuple(paths), rate
        self.address = f"{paths[0].parent} ({len(paths)} pictures)"
        self.counts = SourceCounts()
        self._monotonic = monotonic
        self._normalize = Normalizer(stream_id)

    def open(self) -> StreamInfo:
        for path in self.paths:
            image = self._read(path)
            if image is not None:
                upright = self._normalize(image, matrix=_noted(orientation, path))
                self.counts = SourceCounts(own_outputs=self.counts.own_outputs, left_out=self.counts.left_out)
                return replace(StreamInfo.of(upright, 1 / self.rate, self.rate, len(self.paths)), moving=False)
        raise SourceError(f"none of the {len(self.paths)} pictures in {self.paths[0].parent} can be read")

    def _read(self, path: Path) -> av.VideoFrame | None:
        try:
            container, video = open_clip(path)
            with container:
                return next(container.decode(video))
        except (SourceError, av.error.FFmpegError, StopIteration) as error:
            reason = str(error) if isinstance(error, SourceError) else f"{path} holds no picture that can be decoded"
            self.counts.skipped_clips.append((path.name, reason))
            log.warning("%s: picture skipped: %s", self.id, reason)
            return None

    def __iter__(self) -> Iterator[Frame | AudioPacket]:
        index = 0
        for path in self.paths:
            image = self._read(path)
            if image is not None:
                upright = self._normalize(image, matrix=_noted(orientation, path))
                recorded = beginning(path, [{"date": _noted(taken, path) or ""}], 0, recorded_at)
                yield Frame(
                    self.id, index, index, 1 / self.rate, recorded.at, self._monotonic(), upright, 1, recorded.by
                )
                index += 1

    def close(self) -> None:
        """Nothing stays open between pictures."""


def _noted(what: Callable[[Path], Noted | None], path: Path) -> Noted | None:
    """What a picture notes of itself; the picture was read already."""
    try:
        return what(path)
    except OSError:
        return None
