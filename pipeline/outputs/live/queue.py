"""Compressed pictures waiting for an output: bounded, and never a stream that cannot be decoded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from pipeline.outputs.encoded import TIME_BASE, EncodedPicture


class PictureQueue:
    """A queue between the encoder and the thread of one output.

    When it is full the newest wins: what stands before the newest key frame is dropped, and where there is none, all is
    dropped up to the next one, which is asked for. So whatever comes out begins with a key frame, and goes on with one
    after a gap.

    Args:
        max_seconds: greatest span of what waits.
        max_bytes: greatest size of what waits.
        dropped: told how many pictures were dropped, and why: `slow` or `not_connected`.
        want_key: asks the encoder for a key frame.
    """

    def __init__(
        self,
        max_seconds: float,
        max_bytes: int = 32 << 20,
        dropped: Callable[[int, str], None] = lambda _count, _reason: None,
        want_key: Callable[[], None] = lambda: None,
    ) -> None:
        self._span, self._max_bytes = round(max_seconds / TIME_BASE), max_bytes
        self._dropped, self._want_key = dropped, want_key
        self._waiting: deque[EncodedPicture] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._needs_key = True
        self._resting = False
        self._ended = False

    def put(self, picture: EncodedPicture, wait: bool = False) -> None:
        """Add a picture.

        Args:
            picture: later than the last one.
            wait: wait for room rather than drop; for files, which are never dropped from.
        """
        count, reason = 0, "slow"
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._ended or self._resting or not self._full(picture))
            if self._ended or self._resting:
                count, reason = 1, "not_connected"
            elif self._needs_key and not picture.key:
                count = 1
            else:
                if self._full(picture):
                    count = self._make_room(picture)
                if self._needs_key and not picture.key:
                    count += 1
                else:
                    self._needs_key = False
                    self._waiting.append(picture)
                    self._bytes += len(picture.data)
                    self._changed.notify_all()
            asks = self._needs_key and not self._resting and not self._ended
        if count:
            self._dropped(count, reason)
        if asks:
            self._want_key()

    def _full(self, picture: EncodedPicture) -> bool:
        if not self._waiting:
            return False
        return picture.pts - self._waiting[0].pts > self._span or self._bytes + len(picture.data) > self._max_bytes

    def _make_room(self, picture: EncodedPicture) -> int:
        """Drop what stands before the newest key frame, counting `picture` as the last one; how many that were."""
        newest = next((i for i in range(len(self._waiting) - 1, 0, -1) if self._waiting[i].key), None)
        if picture.key or newest is None:
            newest, self._needs_key = len(self._waiting), not picture.key
        for _ in range(newest):
            self._bytes -= len(self._waiting.popleft().data)
        return newest

    def get(self, timeout: float | None = None) -> EncodedPicture | None:
        """The oldest picture; None when there was none for `timeout` seconds, or when all is over (see `over`)."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended, timeout)
            if not self._waiting:
                return None
            picture = self._waiting.popleft()
            self._bytes -= len(picture.data)
            self._changed.notify_all()
            return picture

    @property
    def over(self) -> bool:
        """Whether nothing more will come out."""
        with self._changed:
            return self._ended and not self._waiting

    def rest(self) -> None:
        """Drop what waits and what comes, until `resume`."""
        with self._changed:
            count = len(self._waiting)
            self._waiting.clear()
            self._bytes = 0
            self._resting = self._needs_key = True
            self._changed.notify_all()
        if count:
            self._dropped(count, "not_connected")

    def resume(self) -> None:
        """Take pictures again, from the next key frame on, which is asked for."""
        with self._changed:
            self._resting = False
        self._want_key()

    def end(self) -> None:
        """Nothing more comes; what waits can still be taken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
