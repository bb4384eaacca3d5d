"""HLS on disk: short fragmented-MP4 segments and a playlist over a sliding window, for any web server to serve.

A player is a few segments, that is seconds, behind. Who needs less takes the live view.
"""

from __future__ import annotations

import logging
import re
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

from pipeline.encoder import add_video, as_packet
from pipeline.output_state import OutputObserver, OutputState
from pipeline.queued_output import QueuedOutput, explained, make_writable, reason_of

log = logging.getLogger(__name__)

PLAYLIST = "index.m3u8"

_OURS = re.compile(r"\d{8}T\d{6}-(\d+\.m4s|init\.mp4)(\.tmp)?|index\.m3u8(\.tmp)?")
_QUEUE_SECONDS = 10.0
_PAUSE = 2.0


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


def hls_file(options: HlsOptions, stream: str, name: str) -> tuple[Path, str] | None:
    """A file of a stream's HLS, for a server: its path and media type; None where there is none of that name.

    >>> hls_file(HlsOptions(Path("hls")), "cam", "../secret") is None
    True
    """
    path = options.folder / stream / name
    if not _OURS.fullmatch(name) or name.endswith(".tmp") or not path.is_file():
        return None
    return path, "application/vnd.apple.mpegurl" if name == PLAYLIST else "video/mp4"


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
        with explained("HLS", self.folder):
            make_writable(self.folder)
            self._clear()
            self.playlist.unlink(missing_ok=True)  # an earlier run's: a player must not find it

    def _clear(self) -> None:
        """Remove what an earlier run has left, or this one before a pause, all but the playlist."""
        for path in self.folder.iterdir():
            if _OURS.fullmatch(path.name) and path != self.playlist:
                path.unlink()

    def _work(self) -> str:
        while not self._closed.is_set() and not self._queue.over:
            try:
                self._write()
            except (OSError, av.error.FFmpegError) as error:
                reason = f"{self.folder} cannot be written: {reason_of(error)}"
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
        container, video = self._open()
        try:
            self._say(OutputState.RUNNING)
            while picture is not None and not self._closed.is_set():
                container.mux([as_packet(picture, video)])
                picture = self._queue.get()
        finally:
            with suppress(OSError, av.error.FFmpegError):
                container.close()

    def _open(self) -> tuple[OutputContainer, VideoStream]:
        self._clear()
        run = f"{datetime.fromtimestamp(self._wall(), UTC):%Y%m%dT%H%M%S}"
        # A name of its own for every run: caches on the way keep segments for long.
        folder = str(self.folder).replace("%", "%%")
        container = av.open(
            str(self.playlist),
            "w",
            format="hls",
            options={
                "hls_time": str(self.options.segment_seconds),
                "hls_list_size": str(self.options.window),
                "hls_delete_threshold": "3",
                "hls_segment_type": "fmp4",
                "hls_fmp4_init_filename": f"{run}-init.mp4",
                "hls_segment_filename": f"{folder}/{run}-%06d.m4s",
                "hls_flags": "delete_segments+independent_segments+program_date_time+temp_file",
            },
        )
        return container, add_video(container, self._video)
