from __future__ import annotations

import asyncio
import threading
import time
from fractions import Fraction

import cv2
import numpy as np
import pytest

from pipeline.frame import Analysis, Frame
from pipeline.outputs.snapshots import LiveView, LiveViewOptions
from pipeline.pictures.jpeg import encode_jpeg
from tests.pipeline.sample_pictures import of_color
from tests.pipeline.scripted_source import gray_image

DEADLINE = 30.0


def seen(index: int, stream: str = "a", at: float | None = None, level: int | None = None) -> Analysis:
    image = gray_image(16 + index % 200 if level is None else level, 64, 36)
    arrived = index / 25 if at is None else at
    return Analysis(Frame(stream, index, index, Fraction(1, 25), 1e9 + index, arrived, image, 1), "live")


@pytest.fixture
def view() -> LiveView:
    return LiveView()


@pytest.mark.parametrize("rgb", [(255, 0, 0), (0, 255, 0), (30, 60, 200), (128, 128, 128)])
@pytest.mark.parametrize("pixel_format", ["rgb24", "yuv420p", "nv12", "yuvj444p"])
def test_a_jpeg_shows_the_pictures_colours(rgb: tuple[int, int, int], pixel_format: str) -> None:
    from pipeline.pictures.conversion import converted

    image = of_color(rgb, 64, 32)
    if pixel_format != "rgb24":
        image = converted(image, pixel_format)
    jpeg, width, height = encode_jpeg(image, quality=95)
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded.shape == (height, width, 3) == (32, 64, 3)
    assert np.abs(decoded[..., ::-1].reshape(-1, 3).mean(axis=0) - rgb).max() < 6


def test_a_wide_picture_is_shrunk_and_keeps_its_shape() -> None:
    _, width, height = encode_jpeg(gray_image(50, 640, 360), max_width=160)
    assert (width, height) == (160, 90)


def test_nothing_is_encoded_while_nobody_watches(view: LiveView) -> None:
    for index in range(50):
        view.consume(seen(index))
    assert not any(t.name == "live view" for t in threading.enumerate())


def test_a_snapshot_is_the_newest_picture(view: LiveView) -> None:
    assert view.snapshot("a") is None
    view.consume(seen(1))
    view.consume(seen(2))
    picture = view.snapshot("a")
    assert picture is not None
    assert (picture.stream, picture.index, picture.captured_at) == ("a", 2, 1e9 + 2)
    assert view.snapshot("a") is picture, "encoded once"


def test_all_viewers_get_the_same_bytes(view: LiveView) -> None:
    with view.watch("a") as one, view.watch("a") as other:
        assert view.viewers("a") == 2
        view.consume(seen(7))
        pictures = [one.next(DEADLINE), other.next(DEADLINE)]
        assert pictures[0] is pictures[1]
        assert pictures[0] is not None
        assert one.next(timeout=0.01) is None, "never the same twice"
        assert not one.over
    assert view.viewers("a") == 0
    view.close()


def test_a_slow_viewer_gets_the_newest(view: LiveView) -> None:
    with view.watch("a") as viewer:
        view.consume(seen(0))
        assert viewer.next(DEADLINE)
        for index in range(1, 40):
            view.consume(seen(index))
        indices: list[int] = []
        while not indices or indices[-1] != 39:
            picture = viewer.next(DEADLINE)
            assert picture is not None
            indices.append(picture.index)
        assert indices == sorted(set(indices))
    view.close()


def test_one_who_comes_late_sees_the_newest_at_once(view: LiveView) -> None:
    view.consume(seen(3))
    with view.watch("a") as viewer:
        picture = viewer.next(DEADLINE)
        assert picture is not None
        assert picture.index == 3
    view.close()


def test_a_rate_is_kept() -> None:
    view = LiveView(LiveViewOptions(rate=5))
    with view.watch("a") as viewer:
        got = []
        for index in range(50):  # 2 s at 25 frames/s, fed as fast as they are taken
            view.consume(seen(index))
            picture = viewer.next(DEADLINE if index % 5 == 0 else 0.001)
            got += [] if picture is None else [picture.index]
    view.close()
    assert got == list(range(0, 50, 5))


def test_the_end_of_a_stream_ends_its_viewers_and_no_others(view: LiveView) -> None:
    ended: list[str] = []

    def watch(stream: str) -> None:
        with view.watch(stream) as viewer:
            for _ in viewer:
                pass
            ended.append(stream)

    threads = [threading.Thread(target=watch, args=(s,), daemon=True) for s in ("a", "b")]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + DEADLINE
    while view.viewers("a") + view.viewers("b") < 2:
        assert time.monotonic() < deadline
    view.consume(seen(0, "a"))
    view.end("a", "complete", 0)
    threads[0].join(DEADLINE)
    assert ended == ["a"]
    view.close()
    threads[1].join(DEADLINE)
    assert ended == ["a", "b"]
    with view.watch("a") as viewer:
        assert viewer.next(0.01) is None
        assert viewer.over


@pytest.mark.parametrize("watched", [False, True])
def test_the_last_picture_of_an_ended_stream_stays_until_it_is_forgotten_or_begins_anew(
    view: LiveView, watched: bool
) -> None:
    if watched:
        view.watch("a").close()
    view.consume(seen(3))
    view.end("a", "complete", 0)
    view.end("a")  # as it is when the stream is then removed
    last = view.snapshot("a")
    assert last is not None
    assert last.index == 3
    with view.watch("a") as viewer:
        assert viewer.next(0.01) is None, "it is no live picture"
    assert view.snapshot("a") is last
    view.consume(seen(0))
    newer = view.snapshot("a")
    assert newer is not None
    assert newer.index == 0
    view.end("a")
    view.forget("a")
    assert view.snapshot("a") is None


def test_asynchronous_viewers(view: LiveView) -> None:
    async def watch(count: int) -> list[int]:
        found = []
        with view.watch("a") as viewer:
            async for picture in viewer:
                found.append(picture.index)
                if len(found) == count:
                    break
        return found

    async def main() -> list[list[int]]:
        watchers = [asyncio.create_task(watch(5)) for _ in range(3)]
        index = 0
        while not all(w.done() for w in watchers):
            view.consume(seen(index))
            index += 1
            await asyncio.sleep(0.005)
        return [w.result() for w in watchers]

    for found in asyncio.run(asyncio.wait_for(main(), DEADLINE)):
        assert found == sorted(set(found))
        assert len(found) == 5
    assert view.viewers("a") == 0
    view.close()


def test_one_who_comes_back_does_not_begin_with_an_old_picture(view: LiveView) -> None:
    with view.watch("a") as viewer:
        view.consume(seen(0))
        assert viewer.next(DEADLINE)
    view.consume(seen(1))
    with view.watch("a") as viewer:
        picture = viewer.next(DEADLINE)
        assert picture is not None
        assert picture.index == 1
    view.close()


def test_an_asynchronous_viewer_is_told_of_the_end(view: LiveView) -> None:
    async def main() -> int:
        begun = asyncio.Event()

        async def watch() -> int:
            with view.watch("a") as viewer:
                assert await viewer.next_async(timeout=0.01) is None
                begun.set()
                return len([p async for p in viewer])

        task = asyncio.create_task(watch())
        await begun.wait()
        await asyncio.get_running_loop().run_in_executor(None, view.close)
        return await task

    assert asyncio.run(asyncio.wait_for(main(), DEADLINE)) == 0
