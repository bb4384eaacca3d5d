"""The clips that an archive was made of, as they stand now: the file of one, and a picture of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import av.error

from engines.containers import exact, why_unread
from engines.errors import SourceError
from pipeline.archive.inputs.content import is_there
from pipeline.archive.inputs.stores import is_store, local_copy
from pipeline.archive.reading import Archive
from pipeline.frame import Frame
from pipeline.pictures.conversion import display_matrix, oriented
from pipeline.sources.clips import ClipSource, open_clip
from pipeline.sources.decoding import Decoding


class GoneError(SourceError):
    """A clip is not where it was indexed any more, as cameras write over their oldest. What it showed stays."""


@contextmanager
def original(archive: Archive, clip: str) -> Iterator[Path]:
    """The file of a clip: itself, wherever its content was found, or a copy of what is in a store, which goes behind
    the block.

    Raises:
        GoneError: it is not there any more, or another one is in its place.
        SourceError: it cannot be had.
    """
    state = archive.state.clips[clip]
    places = {state.known.path: state.known.version, **state.places}
    for place, version in places.items():
        if not is_store(place) and is_there(Path(place), clip, state.known.bytes, version):
            with local_copy(place) as path:
                yield path
            return
    stored = next(filter(is_store, places), None)
    if stored is None:
        raise GoneError(_gone(state.known.path))
    with local_copy(stored) as path:
        if path.stat().st_size != state.known.bytes:
            raise GoneError(f"another clip is at {stored} now; `roadlens archive` indexes that one")
        yield path


def _gone(path: str) -> str:
    if Path(path).exists():
        return f"another clip is at {path} now; `roadlens archive` indexes that one"
    return f"{path} is not there any more; put its card or disk back where it was"


def picture_at(path: Path, seconds: float) -> av.VideoFrame:
    """The picture of a clip that is shown so many seconds behind its first one, upright, in its own pixel format.

    Raises:
        SourceError: it cannot be read, or has none there.
    """
    try:
        container, video = open_clip(path)
        with container:
            base = exact(video.time_base, Fraction(1))
            wanted = (video.start_time or 0) + round(seconds / base)
            if seconds > 0:
                container.seek(max(wanted, 0), stream=video)
            chosen: av.VideoFrame | None = None
            for image in container.decode(video):
                if chosen is not None and (image.pts or 0) > wanted:
                    break
                chosen = image
            if chosen is None:
                raise SourceError(f"{path} has no picture at {seconds:.1f} s that can be decoded")
            return oriented(chosen, *display_matrix(chosen))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read: {why_unread(error)}") from None


def pictures_of(path: Path, numbers: Collection[int]) -> Iterator[Frame]:
    """The frames of a clip that have certain numbers, as an archive counts them, in order.

    All pictures before the last one are decoded: what a number says can be found out by counting alone.

    Args:
        path: of the clip.
        numbers: of each how many frames were decoded before it.

    Raises:
        SourceError: it cannot be read.
    """
    left = len(numbers)
    with ClipSource("clip", [path], decoding=Decoding("clip", "cpu")) as source:
        source.open()
        for item in source:
            if isinstance(item, Frame) and item.index in numbers:
                yield item
                left -= 1
                if not left:
                    return


def codec_of(path: Path) -> str:
    """What FFmpeg calls the codec of a clip's pictures, such as `h264`.

    Raises:
        SourceError: it cannot be read.
    """
    container, video = open_clip(path)
    with container:
        return str(video.codec_context.name)
