"""Live video for browsers: the H.264 that a stream's outputs are given anyway, as fragments of MP4 for Media Source
Extensions. Nothing is encoded for a viewer, however many there are.

    live output ─► mux, in memory (a fragment a picture) ─► each viewer's own bounded queue, in its event loop

A viewer begins with the description of the track and a key frame. One that is too slow loses what waits for it and
goes on with the next key frame, so that nobody sees old pictures and nobody waits. A fragment goes out with the picture
after it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Self

import av
import msgspec

from pipeline.outputs.encoded import TIME_BASE, EncodedPicture, EncodedVideo, add_video, as_packet

LONGEST_WAIT = 1.0
"""Seconds of video that may wait for a viewer."""

# Without skip_trailer FFmpeg remembers where each fragment lies, for an index at the end: 100 MB a day at 25 a second.
_FRAGMENTED = {"movflags": "empty_moov+default_base_moof+frag_every_frame+skip_trailer", "flush_packets": "1"}


class VideoDescription(msgspec.Struct, frozen=True):
    """What a browser must know of a track: its type, as `MediaSource.addSourceBuffer` takes it, and size in pixels."""

    mime: str
    width: int
    height: int


class _Written:
    """A file that FFmpeg writes to, of which the bytes are taken away."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


class _Muxer:
    """MP4 of one run of pictures, from a key frame on.

    Attributes:
        description: of the track.
        head: the boxes in front of all fragments.
    """

    def __init__(self, video: EncodedVideo, first: EncodedPicture) -> None:
        self._written = _Written()
        self._container = av.open(self._written, "w", format="mp4", options=_FRAGMENTED)
        self._stream = add_video(self._container, video)
        self._start, self._key = first.pts, True
        self._container.mux([as_packet(first, self._stream, self._start)])
        self.head = self._written.taken()
        place = self.head.index(b"avcC") + 5  # behind the version: profile, compatibility and level (ISO 14496-15)
        mime = f'video/mp4; codecs="avc1.{self.head[place : place + 3].hex()}"'
        self.description = VideoDescription(mime, video.width, video.height)

    def add(self, picture: EncodedPicture) -> tuple[bytes, bool]:
        """The fragment of the picture before, and whether decoding can begin with it."""
        key, self._key = self._key, picture.key
        self._container.mux([as_packet(picture, self._stream, self._start)])
        return self._written.taken(), key

    def close(self) -> None:
        self._container.close()


class BrowserView:
    """A destination of a live output that hands the video on to browsers.

    Args:
        stream: id of the stream.
    """

    name = "view"

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self._viewers: set[BrowserViewer] = set()
        self._lock = threading.Lock()
        self._video: EncodedVideo | None = None
        self._muxer: _Muxer | None = None
        self._want_key: Callable[[], None] = lambda: None
        self._over = False

    # From the live output -------------------------------------------------------------------------------------------
    def begin(self, video: EncodedVideo, want_key: Callable[[], None]) -> None:
        self._video, self._want_key = video, want_key

    def put(self, picture: EncodedPicture, wait: bool) -> None:  # noqa: ARG002  # nobody here is waited for
        """Give viewers a picture; without any it costs nothing."""
        with self._lock:
            if not self._viewers or self._video is None:
                self._end_run()
                return
            if self._muxer is None:
                if picture.key:
                    self._muxer = _Muxer(self._video, picture)
                else:
                    self._want_key()
                return
            fragment, key = self._muxer.add(picture)
            for viewer in self._viewers:
                viewer.offer(self._muxer.description, self._muxer.head, fragment, key, picture.duration)

    def end(self) -> None:
        self.close()

    def join(self, timeout: float) -> bool:  # noqa: ARG002  # it has no thread
        return True

    def close(self) -> None:
        """The stream is over: viewers are told. Twice is allowed."""
        with self._lock:
            self._over = True
            self._end_run()
            for viewer in self._viewers:
                viewer.finish()

    def _end_run(self) -> None:
        if self._muxer is not None:
            self._muxer.close()
            self._muxer = None

    # Watching -------------------------------------------------------------------------------------------------------
    def watch(self) -> BrowserViewer:
        """Watch from the next key frame on, which is asked for. To be called from the event loop that reads it.

        Returns:
            A context manager; while it is not closed, pictures are kept for it.
        """
        viewer = BrowserViewer(self, asyncio.get_running_loop(), self._want_key)
        with self._lock:
            self._viewers.add(viewer)
            if self._over:
                viewer.finish()
        self._want_key()
        return viewer

    def leave(self, viewer: BrowserViewer) -> None:
        """`viewer` watches no more."""
        with self._lock:
            self._viewers.discard(viewer)

    @property
    def viewers(self) -> int:
        """How many watch."""
        with self._lock:
            return len(self._viewers)


class BrowserViewer:
    """One browser. From `BrowserView.watch`; its coroutine is for one event loop, `offer` and `finish` for any thread.

    Attributes:
        dropped: fragments that it was too slow for.
    """

    def __init__(self, view: BrowserView, loop: asyncio.AbstractEventLoop, want_key: Callable[[], None]) -> None:
        self.dropped = 0
        self._view, self._loop, self._want_key = view, loop, want_key
        self._waiting: deque[VideoDescription | bytes] = deque()
        self._span = 0.0
        self._spans: deque[float] = deque()
        self._head = b""
        self._needs_key, self._over = True, False
        self._changed = asyncio.Event()

    def offer(self, description: VideoDescription, head: bytes, fragment: bytes, key: bool, duration: int) -> None:
        """A fragment, and what stands in front of all of its run."""
        with suppress(RuntimeError):  # the loop may have been closed meanwhile
            self._loop.call_soon_threadsafe(self._take, description, head, fragment, key, float(duration * TIME_BASE))

    def finish(self) -> None:
        """Nothing more comes."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        self._over = True
        self._changed.set()

    def _take(self, description: VideoDescription, head: bytes, fragment: bytes, key: bool, seconds: float) -> None:
        if self._span > LONGEST_WAIT:
            self.dropped += len(self._spans)
            # The head, if it still waits, belongs to what comes, too.
            kept = [item for item in self._waiting if isinstance(item, VideoDescription) or item is self._head]
            self._waiting, self._spans, self._span = deque(kept), deque(), 0.0
            self._needs_key = True
            self._want_key()
        if self._needs_key and not key:
            self.dropped += 1
            return
        self._needs_key = False
        if head is not self._head:
            self._head = head
            self._waiting += (description, head)
        self._waiting.append(fragment)
        self._spans.append(seconds)
        self._span += seconds
        self._changed.set()

    async def next_async(self, timeout: float) -> VideoDescription | bytes | None:  # noqa: ASYNC109  # as the views have it
        """What comes next: a description, then the head of its video, then its fragments; None after `timeout` seconds
        without any, or at the end (`over` tells them apart).
        """
        if not self._waiting and not self._over:
            self._changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), timeout)
        if not self._waiting:
            return None
        item = self._waiting.popleft()
        if isinstance(item, bytes) and item is not self._head:
            self._span -= self._spans.popleft()
        return item

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self._over and not self._waiting

    def close(self) -> None:
        """Watch no more. Twice is allowed."""
        self._view.leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
