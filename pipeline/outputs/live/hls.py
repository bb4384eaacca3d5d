"""HLS on disk: short fragmented-MP4 segments and a playlist over a sliding window, for any web server to serve.

A player is a few segments, that is seconds, behind. Who needs less takes the live view.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import av
import av.error
import msgspec
from av.container import OutputContainer
from av.video.stream import VideoStream

from engines.containers import in_words, local
from engines.errors import OutputError
from pipeline.outputs.encoded import add_video, as_packet
from pipeline.outputs.live.destination import QueuedOutput, explained, make_writable
from pipeline.state import OutputObserver, OutputState

log = logging.getLogger(__name__)

PLAYLIST = "index.m3u8"

_OURS = re.compile(r"\d{8}T\d{6}(-[0-9a-f]{8})?-(\d+\.m4s|init\.mp4)(\.tmp)?|index\.m3u8(\.tmp)?")
_NUMBER = re.compile(r"%[\dd]")
_QUEUE_SECONDS = 10.0
_PAUSE = 2.0
_LOOK_SECONDS = 0.5

_LEAST_FREE = 2 << 20
"""Bytes of free disk below which no segment is begun."""


class HlsOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """HLS on disk.

    Attributes:
        folder: each stream has a folder of its own in it: `<folder>/<stream>/index.m3u8`.
        segment_seconds: shortest length of a segment; it ends with the next key frame.
        window: segments in the playlist; a few more stay on disk for players that are behind.
    """

    folder: Path
    segment_seconds: Annotated[float, msgspec.Meta(gt=0, le=60)] = 1.0
    window: Annotated[int, msgspec.Meta(ge=3, le=10_000)] = 6


def is_hls_name(name: str) -> bool:
    """Whether a file's name is one that HLS writes, replaces and removes."""
    return _OURS.fullmatch(name) is not None


def hls_file(options: HlsOptions, stream: str, name: str) -> tuple[Path, str] | None:
    """A file of a stream's HLS, for a server: its path and media type; None where there is none of that name.

    >>> hls_file(HlsOptions(Path("hls")), "cam", "../secret") is None
    True
    """
    path = options.folder / stream / name
    if not is_hls_name(name) or name.endswith(".tmp") or path.is_symlink() or not path.is_file():
        return None
    return path, "application/vnd.apple.mpegurl" if name == PLAYLIST else "video/mp4"


def remove_hls(options: HlsOptions, stream: str) -> None:
    """Remove what HLS wrote of a stream that is gone: nobody shall watch what has been taken away."""
    folder = options.folder / stream
    try:
        for path in folder.iterdir():
            if is_hls_name(path.name):
                path.unlink(missing_ok=True)
        folder.rmdir()
    except OSError as error:  # something else is in the folder, or it was never made
        log.debug("%s stays: %s", folder, error)


class Hls(QueuedOutput):
    """A destination of a live output that writes HLS.

    Args:
        stream: id of the stream.
        options: where to, and how.
        dropped: told how many pictures were dropped, and why.
        observe: told of every change of state.
        wall_clock: Unix time in seconds.

    Attributes:
        folder: of this stream.
        playlist: what players open.

    Raises:
        OutputError: the folder cannot be made or written.
    """

    name = "hls"

    def __init__(
        self,
        stream: str,
        options: HlsOptions,
        dropped: Callable[[int, str], None] = lambda _count, _reason: None,
        observe: OutputObserver = lambda _change: None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(stream, self.name, _QUEUE_SECONDS, dropped, observe, wall_clock)
        self.options = options
        self.folder = options.folder / stream
        self.playlist = self.folder / PLAYLIST
        if _NUMBER.search(str(self.folder)) is not None:
            raise OutputError(
                f"{self.folder} cannot hold HLS: FFmpeg takes the % in it for the place of a segment's number; give a "
                "folder without a % in front of a digit or d"
            )
        with explained("HLS", self.folder):
            make_writable(self.folder)
            self._clear()
            self.playlist.unlink(missing_ok=True)  # an earlier run's: a player must not find it

    def _clear(self) -> None:
        """Remove what an earlier run has left, or this one before a pause, all but the playlist."""
        for path in self.folder.iterdir():
            if is_hls_name(path.name) and path != self.playlist:
                path.unlink()

    def _work(self) -> str:
        while not self._closed.is_set() and not self._queue.over:
            try:
                self._write()
            except (OSError, av.error.FFmpegError) as error:
                reason = f"{self.folder} cannot be written: {in_words(error)}"
                log.warning("%s: HLS pauses: %s", self.stream, reason)
                self._say(OutputState.PAUSED, reason)
                self._queue.rest()
                self._closed.wait(_PAUSE)
                self._queue.resume()
        return ""

    def _write(self) -> None:
        picture = self._queue.get()
        if picture is None:
            return
        self._check_space()
        container, video = self._open()
        try:
            self._say(OutputState.RUNNING)
            looked = time.monotonic()
            while picture is not None and not self._closed.is_set():
                container.mux([as_packet(picture, video)])
                if time.monotonic() - looked >= _LOOK_SECONDS:
                    looked = time.monotonic()
                    self._check_space()
                    self._check_written()
                picture = self._queue.get()
        except BaseException:
            with suppress(OSError, av.error.FFmpegError):
                container.close()
            raise
        container.close()
        self._check_written()

    def _check_space(self) -> None:
        """See that there is room: FFmpeg's HLS takes no notice of a disk that takes nothing, and writes empty segments.

        Raises:
            OSError: there is none.
        """
        if shutil.disk_usage(self.folder).free < _LEAST_FREE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _check_written(self) -> None:
        """See that no segment is empty, as where a quota is used up.

        Raises:
            OSError: one is.
        """
        for path in self.folder.glob("*.m4s"):
            with suppress(FileNotFoundError):  # FFmpeg removes those that have left the window
                if is_hls_name(path.name) and path.stat().st_size == 0:
                    raise OSError(errno.ENOSPC, f"{path.name} is empty: {os.strerror(errno.ENOSPC)}")

    def _open(self) -> tuple[OutputContainer, VideoStream]:
        self._clear()
        # A name of its own for every run: caches on the way keep segments for long, and a clock may be set back.
        run = f"{datetime.fromtimestamp(self._wall(), UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        container = av.open(
            local(self.playlist),
            "w",
            format="hls",
            options={
                "hls_time": str(self.options.segment_seconds),
                "hls_list_size": str(self.options.window),
                "hls_delete_threshold": "3",
                "hls_segment_type": "fmp4",
                "hls_fmp4_init_filename": f"{run}-init.mp4",
                "hls_segment_filename": f"{local(self.folder)}/{run}-%06d.m4s",
                "hls_flags": "delete_segments+independent_segments+program_date_time+temp_file",
            },
        )
        return container, add_video(container, self._video)
