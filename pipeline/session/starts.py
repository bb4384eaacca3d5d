"""Where each stream of a run begins: at its first frame, or where all outputs of an interrupted run are whole."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.errors import UsageError
from pipeline.files import earlier_name, partial_name, source_name, stopped_name
from pipeline.messages.jsonlines import complete_lines, read_lines
from pipeline.messages.recording import RecordedStream, interrupted, recorded_streams, recorded_track
from pipeline.outputs.fragments import ResumePoint
from pipeline.outputs.mp4 import VideoWriter
from pipeline.session.files import RunFiles
from pipeline.session.sidecar import check_made_of, write_side_car

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Start:
    """Where a stream begins: frame, track number, and the recording to go on with."""

    frame: int = 0
    track: int = 1
    video: ResumePoint | None = None
    complete: bool = False


class Resumption:
    """Where the streams of an interrupted run go on.

    Args:
        files: the run's files; those of a stream are claimed before it starts.
    """

    def __init__(self, files: RunFiles) -> None:
        self._files, self._mcap = files, files.mcap
        self._recorded: dict[str, RecordedStream] | None = None

    def start(self, stream: str, made_of: Sequence[str]) -> Start:
        """Where a stream goes on: as far as all its files are whole.

        Args:
            stream: its id.
            made_of: fingerprints of its source.

        Raises:
            UsageError: there is nothing that could go on, or it was made of other footage.
            OutputError: a recording cannot be read.
        """
        outputs = self._files.outputs[stream]
        anchor = self._files.anchor(stream)
        if anchor is None:
            raise UsageError(
                "--resume goes on with files; give the -o, --jsonl and --mcap of the run that was interrupted"
            )
        self._check_made_of(stream, anchor, made_of)
        recorded = self._recorded_of(stream)
        if outputs and all(p.exists() and not partial_name(p).exists() for p in outputs):
            if recorded is not None and not recorded.ended and not self._recording_is_complete:
                raise UsageError(
                    f"{self._mcap} lacks the end of the stream {stream!r}, whose other files are complete; leave out "
                    "--mcap, or run without --resume"
                )
            return Start(complete=True)
        if not outputs and (self._recording_is_complete or (recorded is not None and recorded.ended)):
            return Start(complete=True)
        if self._recording_is_complete:
            raise UsageError(f"{self._mcap} is complete, but the stream {stream!r} is not; give --mcap another name")
        return self._go_on(stream, None if recorded is None else recorded.frames)

    def _go_on(self, stream: str, recorded: int | None) -> Start:
        """The point up to which every output of a stream is whole."""
        video = next((p for p in self._files.outputs[stream] if p.suffix.lower() == ".mp4"), None)
        lines = next((p for p in self._files.outputs[stream] if p.suffix.lower() == ".jsonl"), None)
        counts = [] if recorded is None else [recorded]
        if lines is not None:
            counts.append(complete_lines(partial_name(lines)) if partial_name(lines).exists() else 0)
        whole = min(counts, default=None)
        if video is None:
            frame, point = whole or 0, None
        else:
            point = VideoWriter.resume_point(video, whole)
            frame = point.frames if point is not None else 0
        track = 1
        if lines is not None and frame:
            kept = zip(read_lines(partial_name(lines)), range(frame), strict=False)
            track = 1 + max((b.track for m, _ in kept for b in m.boxes if b.track is not None), default=0)
        elif recorded is not None and frame and self._mcap is not None:
            track = 1 + recorded_track(interrupted(self._mcap) or self._mcap, stream, frame)
        if frame:
            log.info("%s: going on at frame %d", stream, frame)
        else:
            log.info("%s: nothing to resume; starting at the first frame", stream)
        return Start(frame, track, point)

    def _check_made_of(self, stream: str, anchor: Path, made_of: Sequence[str]) -> None:
        """See that what is there was made of this source, and give what was stopped its partial names again."""
        outputs = self._files.outputs[stream]
        partial = [n for p in outputs for n in (partial_name(p), earlier_name(p)) if n.exists()]
        if self._mcap is not None and not outputs and interrupted(self._mcap) is not None:
            partial.append(self._mcap)
        marker = stopped_name(anchor)
        again = [p for p in outputs if p.exists() and not partial_name(p).exists()] if marker.exists() else []
        if again:
            check_made_of(marker, again[0], made_of)
        if partial:
            check_made_of(source_name(anchor), partial[0], made_of)
        if again:
            write_side_car(source_name(anchor), made_of)
            for path in again:
                path.replace(partial_name(path))
            marker.unlink()

    @property
    def _recording_is_complete(self) -> bool:
        return self._mcap is not None and self._mcap.exists() and interrupted(self._mcap) is None

    def _recorded_of(self, stream: str) -> RecordedStream | None:
        """What the interrupted run's recording holds of a stream; None where the run has no recording."""
        if self._mcap is None:
            return None
        if self._recorded is None:
            found = interrupted(self._mcap)
            self._recorded = {} if found is None else recorded_streams(found)
        return self._recorded.get(stream, RecordedStream())
