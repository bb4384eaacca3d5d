"""What the destinations of a live output have in common: a queue of compressed pictures, a thread that empties it."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from engines.containers import in_words
from engines.errors import OutputError
from pipeline.files import probe
from pipeline.outputs.encoded import EncodedPicture, EncodedVideo
from pipeline.outputs.live.queue import PictureQueue
from pipeline.state import OutputChange, OutputObserver, OutputState

log = logging.getLogger(__name__)


class QueuedOutput(ABC):
    """A destination of a live output; `_work`, in a thread of its own, sends or writes what is queued.

    Args:
        stream: id of the stream.
        name: of this output within its stream.
        queue_seconds: greatest span of pictures that wait.
        dropped: told how many pictures were dropped, and why.
        observe: told of every change of state.
        wall_clock: Unix time in seconds.
    """

    def __init__(
        self,
        stream: str,
        name: str,
        queue_seconds: float,
        dropped: Callable[[int, str], None],
        observe: OutputObserver,
        wall_clock: Callable[[], float],
    ) -> None:
        self.stream, self.name = stream, name
        self._queue_seconds = queue_seconds
        self._dropped, self._observe, self._wall = dropped, observe, wall_clock
        self._queue = PictureQueue(queue_seconds)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{name} {stream}", daemon=True)

    def begin(self, video: EncodedVideo, want_key: Callable[[], None]) -> None:
        self._video = video
        self._queue = PictureQueue(self._queue_seconds, dropped=self._dropped, want_key=want_key)
        self._thread.start()

    def put(self, picture: EncodedPicture, wait: bool) -> None:
        self._queue.put(picture, wait)

    def end(self) -> None:
        self._queue.end()

    def join(self, timeout: float) -> bool:
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def close(self) -> None:
        self._closed.set()
        self._queue.end()

    def _run(self) -> None:
        try:
            reason = self._work()
        except Exception as error:  # an output's failure is its own, whatever it is
            log.exception("%s: %s failed", self.stream, self.name)
            reason = f"it failed: {type(error).__name__}"
        self._queue.rest()
        self._say(OutputState.CLOSED, reason)

    @abstractmethod
    def _work(self) -> str:
        """Send or write until `_closed` is set or the queue is over; why it ended before that, or nothing."""

    def _say(self, state: OutputState, reason: str = "") -> None:
        self._observe(OutputChange(self.stream, self.name, state, reason, self._wall()))


def make_writable(folder: Path) -> None:
    """Make a folder and see that files can be written to it.

    Raises:
        OSError: it cannot be made, or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    probe(folder)


@contextmanager
def explained(what: str, folder: Path) -> Iterator[None]:
    """Turns the system's error into a sentence: `what` cannot be written to the folder.

    Raises:
        OutputError: the body raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"{what} cannot be written to {folder}: {in_words(error)}") from None


class Destination(Protocol):
    """Where compressed pictures go. It has a thread of its own; none of these calls waits, but for `put` if told to."""

    name: str

    def begin(self, video: EncodedVideo, want_key: Callable[[], None]) -> None:
        """Start; `want_key` asks the encoder for a key frame."""
        ...

    def put(self, picture: EncodedPicture, wait: bool) -> None:
        """Take a picture; where there is no room, wait or drop."""
        ...

    def end(self) -> None:
        """Nothing more comes: write what is queued, then stop."""
        ...

    def join(self, timeout: float) -> bool:
        """Wait until it has stopped; False when it has not within `timeout` seconds."""
        ...

    def close(self) -> None:
        """Stop now."""
        ...
