"""Video for browsers: what comes plays from its first byte on, and nobody waits for a slow viewer."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterable
from fractions import Fraction

import av
import pytest

from pipeline.contracts import StreamInfo
from pipeline.outputs.encoded import EncodedPicture
from pipeline.outputs.live.browser import BrowserView, BrowserViewer, VideoDescription, _Muxer
from pipeline.outputs.live.encoder import LiveEncoder, LiveEncoderOptions
from tests.footage import write_clip

FRAMES = 60


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> tuple[LiveEncoder, list[EncodedPicture]]:
    path = tmp_path_factory.mktemp("view") / "clip.mp4"
    write_clip(path, frames=FRAMES, size=(160, 96))
    with av.open(str(path)) as container:
        images = list(container.decode(video=0))
    info = StreamInfo.of(images[0], Fraction(1, 90_000), Fraction(25), None)
    encoder = LiveEncoder(info, LiveEncoderOptions(key_frame_seconds=0.4))
    return encoder, [p for i, image in enumerate(images) for p in encoder.encode(image, i * 3600, float(i))]


async def taken(viewer: BrowserViewer) -> tuple[VideoDescription, bytes]:
    """All that waits: the description, and the bytes behind it."""
    description, data = None, b""
    while (item := await viewer.next_async(0.05)) is not None:
        if isinstance(item, VideoDescription):
            assert description is None
            description = item
        else:
            data += item
    assert description is not None
    return description, data


def put_all(view: BrowserView, pictures: Iterable[EncodedPicture]) -> None:
    for picture in pictures:
        view.put(picture, wait=False)


def played(data: bytes) -> list[av.VideoFrame]:
    with av.open(io.BytesIO(data)) as container:
        return list(container.decode(video=0))


@pytest.mark.seconds
def test_what_a_viewer_gets_plays_from_a_key_frame_on(encoded: tuple[LiveEncoder, list[EncodedPicture]]) -> None:
    encoder, pictures = encoded
    asked: list[bool] = []

    async def watch() -> None:
        view = BrowserView("cam")
        view.begin(encoder.video, lambda: asked.append(True))
        put_all(view, pictures[:5])
        with view.watch() as viewer:
            assert view.viewers == 1
            assert asked, "a key frame is asked for"
            put_all(view, pictures[5:30])
            description, data = await taken(viewer)
        keys = [i for i, p in enumerate(pictures[:30]) if p.key and i >= 5]
        frames = played(data)
        assert len(frames) == 30 - keys[0] - 1, "each goes out with the one after it"
        assert frames[0].pts == 0
        assert (description.width, description.height) == (160, 96)
        profile = encoder._context.profile
        assert description.mime.startswith('video/mp4; codecs="avc1.'), profile
        assert view.viewers == 0
        view.put(pictures[30], wait=False)
        assert view._muxer is None, "for nobody nothing is done"

    asyncio.run(watch())


def test_nothing_is_remembered_of_what_has_been_sent(encoded: tuple[LiveEncoder, list[EncodedPicture]]) -> None:
    """An index at the end would list every fragment, and until then be kept in memory: for days, on a wall."""
    encoder, pictures = encoded
    muxer = _Muxer(encoder.video, pictures[0])
    for picture in pictures[1:]:
        muxer.add(picture)
    muxer.close()
    assert len(muxer._written.taken()) <= len(pictures[-1].data) + 200, "the last fragment, and no more"


def test_viewers_come_and_go_and_each_plays(encoded: tuple[LiveEncoder, list[EncodedPicture]]) -> None:
    encoder, pictures = encoded

    async def watch() -> None:
        view = BrowserView("cam")
        view.begin(encoder.video, lambda: None)
        with view.watch() as first:
            put_all(view, pictures[:20])
            with view.watch() as second:
                put_all(view, pictures[20:40])
                for viewer in (first, second):
                    assert len(played((await taken(viewer))[1])) > 5
            view.close()
            assert await first.next_async(1.0) is None
            assert first.over

    asyncio.run(watch())


def test_a_slow_viewer_goes_on_with_a_key_frame_and_keeps_little(
    encoded: tuple[LiveEncoder, list[EncodedPicture]],
) -> None:
    encoder, pictures = encoded

    async def watch() -> None:
        view = BrowserView("cam")
        view.begin(encoder.video, lambda: None)
        with view.watch() as viewer:
            put_all(view, pictures[:50])  # two seconds, and nobody reads
            await asyncio.sleep(0)
            assert viewer.dropped > 10
            assert len(viewer._waiting) < 40
            _, data = await taken(viewer)
            frames = played(data)
            assert frames
            assert frames[0].key_frame

    asyncio.run(watch())
