"""The newest picture of every stream for people who watch: JPEG, encoded once however many watch, only while they do.

The emit thread of a stream leaves a reference here and goes on; one thread of the view encodes what somebody waits
for. A viewer always gets the newest picture and never one twice, so that a slow one skips pictures and holds up nobody.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Self

import av
import msgspec

from pipeline.frame import Analysis
from pipeline.pictures.picture import Picture

log = logging.getLogger(__name__)


class LiveViewOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pictures that viewers get.

    Attributes:
        quality: of the JPEG, 1 to 100.
        max_width: pixels; wider pictures are shrunk to it. 0 for no limit.
        rate: most pictures a second. 0 for every one that comes.
    """

    quality: Annotated[int, msgspec.Meta(ge=1, le=100)] = 80
    max_width: Annotated[int, msgspec.Meta(ge=0, le=16384)] = 1280
    rate: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0


@dataclass(frozen=True, slots=True)
class ViewPicture:
    """A picture as viewers get it.

    Attributes:
        stream: id of the stream.
        index: of the frame in its stream.
        captured_at: wall clock of the frame's capture, Unix seconds.
        arrived_at: monotonic clock at which the frame left the decoder, seconds.
        width, height: of the JPEG, in pixels.
        jpeg: the picture, JFIF, upright.
    """

    stream: str
    index: int
    captured_at: float
    arrived_at: float
    width: int
    height: int
    jpeg: bytes


@dataclass(slots=True, eq=False)
class _Taken:
    """A picture left by the emit thread, and its JPEG once somebody wanted it."""

    stream: str
    index: int
    captured_at: float
    arrived_at: float
    image: av.VideoFrame
    encoded: ViewPicture | None = None


@dataclass(slots=True, eq=False)
class _View:
    newest: _Taken | None = None
    shown: ViewPicture | None = None
    last: ViewPicture | None = None
    wanted: bool = False
    last_wanted: float = float("-inf")
    viewers: set[Viewer] = field(default_factory=set)
    encoding: threading.Lock = field(default_factory=threading.Lock)


class LiveView:
    """A sink, shared by all streams, that keeps the newest overlaid picture of each for viewers.

    Args:
        options: what viewers get.

    Example:
        >>> view = LiveView()
        >>> with view.watch("drive") as viewer:  # doctest: +SKIP
        ...     for picture in viewer:
        ...         send(picture.jpeg)
    """

    name = "live_view"

    def __init__(self, options: LiveViewOptions | None = None) -> None:
        self.options = options or LiveViewOptions()
        self._views: dict[str, _View] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    # The sink -------------------------------------------------------------------------------------------------------
    def consume(self, analysis: Analysis) -> None:
        """Keep the picture; somebody who watches gets it soon."""
        frame = analysis.frame
        image = frame.image if analysis.picture is None else analysis.picture
        taken = _Taken(frame.stream, frame.index, frame.captured_at, frame.arrived_at, image)
        with self._changed:
            view = self._views.setdefault(frame.stream, _View())
            view.newest, view.last = taken, None
            period = 1 / self.options.rate if self.options.rate else 0.0
            # A tenth of tolerance, or a limit at the stream's own rate would lose every other picture to jitter.
            if view.viewers and frame.arrived_at - view.last_wanted >= 0.9 * period:
                self._want(view)

    def end(self, stream: str, reason: str = "", dropped: int | None = None) -> None:  # noqa: ARG002  # the sinks' protocol
        """The stream is over: those who watch it are told. Its last picture can still be had, as JPEG."""
        with self._changed:
            view = self._views.get(stream)
            taken = None if view is None else view.newest
        last = None if view is None or taken is None else self._encoded(view, taken)
        with self._changed:
            view = self._views.pop(stream, None)
            viewers = list(view.viewers) if view is not None else []
            for viewer in viewers:
                viewer.over = True
            last = last or (None if view is None else view.last)
            if last is not None and not self._closed:
                self._views[stream] = _View(last=last)
            self._changed.notify_all()
        for viewer in viewers:
            viewer.wake()

    def forget(self, stream: str) -> None:
        """The stream is gone, and so is its last picture."""
        with self._changed:
            view = self._views.get(stream)
            if view is not None:
                view.last = None
                if view.newest is None and not view.viewers:
                    del self._views[stream]

    def close(self) -> None:
        """End all views. Twice is allowed."""
        with self._changed:
            self._closed = True
            thread = self._thread
            self._changed.notify_all()
        for stream in list(self._views):
            self.end(stream)
        if thread is not None:
            thread.join(2.0)

    # Watching -------------------------------------------------------------------------------------------------------
    def watch(self, stream: str) -> Viewer:
        """Watch a stream, from its newest picture on; one that has not begun is waited for.

        Returns:
            A context manager and iterator; while it is not closed, pictures are encoded.
        """
        with self._changed:
            view = self._views.setdefault(stream, _View())
            viewer = Viewer(self, stream)
            viewer.over = self._closed
            view.viewers.add(viewer)
            if view.newest is not None:
                self._want(view)
        return viewer

    def viewers(self, stream: str) -> int:
        """How many watch a stream now."""
        with self._changed:
            view = self._views.get(stream)
            return 0 if view is None else len(view.viewers)

    def snapshot(self, stream: str) -> ViewPicture | None:
        """The newest picture of a stream, encoded here where nobody watches; None before the first."""
        with self._changed:
            view = self._views.get(stream)
            taken, last = (None, None) if view is None else (view.newest, view.last)
        return last if view is None or taken is None else self._encoded(view, taken)

    def leave(self, viewer: Viewer) -> None:
        """`viewer` watches no more."""
        with self._changed:
            view = self._views.get(viewer.stream)
            if view is not None:
                view.viewers.discard(viewer)
                if not view.viewers:
                    view.shown = None  # whoever comes next must not begin with an old picture
                if not view.viewers and view.newest is None and view.last is None:
                    del self._views[viewer.stream]
            self._changed.notify_all()

    def newer(self, stream: str, than: ViewPicture | None) -> ViewPicture | None:
        """The newest encoded picture of a stream if it is another than `than`."""
        with self._changed:
            view = self._views.get(stream)
            return None if view is None or view.shown is than else view.shown

    def wait_newer(self, viewer: Viewer, than: ViewPicture | None, timeout: float | None) -> ViewPicture | None:
        """Wait for a picture other than `than`; None when the stream is over or `timeout` seconds passed."""
        with self._changed:
            self._changed.wait_for(lambda: viewer.over or self.newer(viewer.stream, than) is not None, timeout)
            return None if viewer.over else self.newer(viewer.stream, than)

    # Encoding -------------------------------------------------------------------------------------------------------
    def _want(self, view: _View) -> None:
        """Have the newest picture of a view encoded; the lock is held."""
        view.wanted = True
        if view.newest is not None:
            view.last_wanted = view.newest.arrived_at
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._encode_all, name="live view", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _encode_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or any(v.wanted for v in self._views.values()))
                if self._closed:
                    return
                work = [(v, v.newest) for v in self._views.values() if v.wanted]
                for view, _ in work:
                    view.wanted = False
            for view, taken in work:
                if taken is None:
                    continue
                try:
                    picture = self._encoded(view, taken)
                except Exception:
                    log.exception("%s: a picture for the live view could not be encoded", taken.stream)
                    continue
                with self._changed:
                    view.shown = picture if view.viewers else None
                    viewers = list(view.viewers)
                    self._changed.notify_all()
                for viewer in viewers:
                    viewer.wake()

    def _encoded(self, view: _View, taken: _Taken) -> ViewPicture:
        with view.encoding:
            if taken.encoded is None:
                jpeg, width, height = Picture.of(taken.image).jpeg(self.options.quality, self.options.max_width)
                taken.encoded = ViewPicture(
                    taken.stream, taken.index, taken.captured_at, taken.arrived_at, width, height, jpeg
                )
            return taken.encoded


class Viewer:
    """One who watches a stream, by blocking or by asynchronous iteration. From `LiveView.watch`.

    Iteration ends when the stream is over. Close it, or leave its `with` block: pictures are encoded until then.

    Attributes:
        stream: id of the stream.
        over: whether nothing more will come.
    """

    def __init__(self, view: LiveView, stream: str) -> None:
        self.stream, self.over = stream, False
        self._view = view
        self._last: ViewPicture | None = None
        self._wake: Callable[[], None] | None = None

    def next(self, timeout: float | None = None) -> ViewPicture | None:
        """The newest picture, once it is another than the last one.

        Args:
            timeout: seconds to wait; None for ever.

        Returns:
            None when there was none in that time, or when the stream is over (`over` tells them apart).
        """
        picture = self._view.wait_newer(self, self._last, timeout)
        self._last = picture or self._last
        return picture

    async def next_async(self, timeout: float | None = None) -> ViewPicture | None:  # noqa: ASYNC109  # as `next` has it
        """`next` for an event loop: nothing blocks."""
        loop, woken = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop may have been closed meanwhile
                loop.call_soon_threadsafe(woken.set)

        self._wake = wake
        try:
            async with asyncio.timeout(timeout):
                while not self.over:
                    woken.clear()
                    picture = self._view.newer(self.stream, self._last)
                    if picture is not None:
                        self._last = picture
                        return picture
                    await woken.wait()
        except TimeoutError:
            return None
        finally:
            self._wake = None
        return None

    def wake(self) -> None:
        """Something has changed; called by the view, from its threads."""
        wake = self._wake
        if wake is not None:
            wake()

    def __iter__(self) -> Iterator[ViewPicture]:
        while (picture := self.next()) is not None:
            yield picture

    async def __aiter__(self) -> AsyncIterator[ViewPicture]:
        while (picture := await self.next_async()) is not None:
            yield picture

    def close(self) -> None:
        """Watch no more. Twice is allowed."""
        self.over = True
        self._view.leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
