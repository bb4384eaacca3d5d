"""Segmented recording: overlaid video cut at key frames into files, kept by age, total size and free disk.

A segment is written at `<name>.partial.mp4`, fragmented, so that it plays whatever kills the process, and gets its
final name in one step when it is whole. A disk that fills up pauses the recording and nothing else.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import av
import av.error
import msgspec
from av.container import OutputContainer
from av.video.stream import VideoStream

from engines.containers import in_words, local
from engines.errors import OutputError
from pipeline.files import partial_name
from pipeline.outputs.encoded import TIME_BASE, EncodedPicture, add_video, as_packet
from pipeline.outputs.fragments import cut_torn_tail, whole_fragments
from pipeline.outputs.live.destination import QueuedOutput, explained, make_writable
from pipeline.outputs.naming import TimedNames, times_of
from pipeline.provenance import MARK, MARK_KEY
from pipeline.state import OutputObserver, OutputState

log = logging.getLogger(__name__)

_QUEUE_SECONDS = 10.0
_LEAST_FREE = 64 << 20
"""Bytes of free disk below which nothing is recorded; the rest of the machine needs them more."""
_CHECK_SECONDS = 1.0
_RESUME_FACTOR = 2
"""Recording goes on once twice `_LEAST_FREE` is free, so that it does not flap."""

FRAGMENTED = {
    "movflags": "empty_moov+default_base_moof+frag_keyframe+frag_discont",
    "frag_duration": "1000000",
    "flush_packets": "1",
}
"""Options of FFmpeg's MP4 muxer: fragments of a second, each on the disk as soon as it is whole."""


class RecordingOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Overlaid video recorded without end.

    Attributes:
        folder: each stream has a folder of its own in it, its files named by the UTC time they begin at, this machine's
            clock's; when the camera says that the first picture was captured is in the file's `description`.
        segment_seconds: length of a file; it ends with the next key frame.
        segment_megabytes: greatest size of a file in 10⁶ bytes, exceeded by at most one group of pictures; 0 for none.
        keep_hours: files older than this are removed; 0 for never.
        keep_gigabytes: the oldest files are removed so that a stream's files take no more, in 10⁹ bytes; 0 for all.
        keep_free_gigabytes: the oldest files are removed so that this much disk stays free, in 10⁹ bytes; 0 for never.
    """

    folder: Path
    segment_seconds: Annotated[float, msgspec.Meta(gt=0)] = 300.0
    segment_megabytes: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    keep_hours: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    keep_gigabytes: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    keep_free_gigabytes: Annotated[float, msgspec.Meta(ge=0)] = 0.0


def free_bytes(folder: Path) -> int:
    """Free disk at a folder."""
    return shutil.disk_usage(folder).free


class Recording(QueuedOutput):
    """A destination of a live output that records it in segments.

    Args:
        stream: id of the stream.
        options: where to, and what is kept.
        dropped: told how many pictures were dropped, and why.
        observe: told of every change of state.
        wall_clock: Unix time in seconds.
        free: free bytes of the disk that a folder is on.

    Attributes:
        folder: of this stream.

    Raises:
        OutputError: the folder cannot be made or written.
    """

    name = "recording"

    def __init__(
        self,
        stream: str,
        options: RecordingOptions,
        dropped: Callable[[int, str], None] = lambda _count, _reason: None,
        observe: OutputObserver = lambda _change: None,
        wall_clock: Callable[[], float] = time.time,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        super().__init__(stream, self.name, _QUEUE_SECONDS, dropped, observe, wall_clock)
        self.options, self._free = options, free
        self.folder = options.folder / stream
        self._names = TimedNames(stream)
        self._checked_at = float("-inf")
        with explained("recordings", self.folder):
            make_writable(self.folder)
            self._rescue()

    def _rescue(self) -> None:
        """Give what a killed run left its final name, cut to what plays."""
        for partial in self._files():
            if partial.stem.endswith(".partial"):
                _finish(partial)

    def _files(self) -> list[Path]:
        """Segments of this stream, whole or not, oldest first."""
        return sorted((p for p in self.folder.iterdir() if self._names.ours(p.name)), key=lambda p: p.name)

    # The thread -----------------------------------------------------------------------------------------------------
    def _work(self) -> str:
        while not self._closed.is_set() and not self._queue.over:
            try:
                self._record()
            except (OSError, av.error.FFmpegError, OutputError) as error:
                self._pause(self._why(error))
        return ""

    def _why(self, error: OSError | av.error.FFmpegError | OutputError) -> str:
        if isinstance(error, OutputError):
            return str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return f"no space is left in {self.folder}"
        return f"{self.folder} cannot be written: {in_words(error)}"

    def _pause(self, reason: str) -> None:
        """Rest until there is space; what comes meanwhile is dropped and counted."""
        log.warning("%s: recording pauses: %s", self.stream, reason)
        self._say(OutputState.PAUSED, reason)
        self._queue.rest()
        while not self._closed.wait(_CHECK_SECONDS) and not self._queue.over:
            with suppress(OSError):
                self._retain()
                if self._free(self.folder) >= _RESUME_FACTOR * _LEAST_FREE:
                    log.info("%s: recording goes on", self.stream)
                    break
        self._queue.resume()

    def _check_space(self) -> None:
        """Once a second: remove what need not be kept, and see that there is space.

        Raises:
            OutputError: the disk is too full.
        """
        if time.monotonic() - self._checked_at < _CHECK_SECONDS:
            return
        self._checked_at = time.monotonic()
        self._retain()
        free = self._free(self.folder)
        if free < _LEAST_FREE:
            raise OutputError(f"the disk of {self.folder} has {free >> 20} MB left; free some space")

    def _record(self) -> None:
        """Write segments until there is nothing more to write."""
        picture = self._queue.get()
        while picture is not None and not self._closed.is_set():
            self._check_space()
            picture = self._segment(picture)

    def _segment(self, first: EncodedPicture) -> EncodedPicture | None:
        """Write one file from a key frame on; the key frame that the next begins with, or None at the end."""
        partial = partial_name(self._names.next(self.folder, first.at))
        container, video = self._open(partial, first)
        size, picture = 0, first
        longest, largest = self.options.segment_seconds / TIME_BASE, self.options.segment_megabytes * 1e6
        try:
            self._say(OutputState.RUNNING)
            while True:
                container.mux([as_packet(picture, video, first.pts)])
                size += len(picture.data)
                self._check_space()
                following = self._queue.get()
                if following is None or self._closed.is_set():
                    return None
                if following.key and (following.pts - first.pts >= longest or (largest and size >= largest)):
                    return following
                picture = following
        finally:
            with suppress(OSError, av.error.FFmpegError):
                container.close()
            _finish(partial)

    def _open(self, partial: Path, first: EncodedPicture) -> tuple[OutputContainer, VideoStream]:
        container = av.open(local(partial), "w", format="mp4", options=FRAGMENTED)
        container.metadata.update({MARK_KEY: MARK, **times_of(first.at, first.captured_at)})
        return container, add_video(container, self._video)

    # What is kept ---------------------------------------------------------------------------------------------------
    def _retain(self) -> None:
        """Remove the oldest whole segments until what is kept is within its limits."""
        options = self.options
        files: list[tuple[Path, os.stat_result]] = []
        for path in self._files():
            with suppress(FileNotFoundError):  # somebody else may remove files, too
                files.append((path, path.stat()))
        total = sum(s.st_size for _, s in files)
        now = self._wall()
        for path, status in files:
            if path.stem.endswith(".partial"):
                continue
            old = options.keep_hours and now - status.st_mtime > options.keep_hours * 3600
            much = options.keep_gigabytes and total > options.keep_gigabytes * 1e9
            if not (old or much or (options.keep_free_gigabytes and self._is_tight())):
                return
            path.unlink(missing_ok=True)
            total -= status.st_size
            log.info("%s: recording %s removed to keep within its limits", self.stream, path.name)

    def _is_tight(self) -> bool:
        return self._free(self.folder) < self.options.keep_free_gigabytes * 1e9


def _finish(partial: Path) -> None:
    """Give a segment its final name, cut to what plays; one with nothing in it goes."""
    if not partial.exists():
        return
    if whole_fragments(partial) == 0:
        partial.unlink()
        return
    cut_torn_tail(partial)
    partial.replace(partial.with_name(partial.name.replace(".partial.mp4", ".mp4")))
