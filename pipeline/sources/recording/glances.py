"""A few pictures from all over a recording, ahead of reading it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import av.error

from pipeline.pictures.conversion import blendable_format, converted, display_matrix, oriented
from pipeline.pictures.planes import CHROMA_SHIFT

_CLIPS, _SEEKS = 3, 6
"""Clips of a trip that are looked into, and places in each."""

_IN_A_ROW, _EVERY = 96, 8
"""Frames decoded from a clip's beginning where it has too few key frames, and of which one is taken."""

_LARGE = 1920 * 1080
"""Pixels from which on fewer are decoded."""


def glances(paths: Sequence[Path]) -> Iterator[av.VideoFrame]:
    """Pictures of some of the clips, upright, in 8-bit YUV, in host memory; none of a clip that cannot be read.

    They are key frames, which are had by one seek each, and where a clip has few of them some from its beginning.
    """
    if not paths:
        return
    chosen = list(dict.fromkeys(paths[k * (len(paths) - 1) // max(1, _CLIPS - 1)] for k in range(_CLIPS)))
    for path in chosen:
        try:
            with av.open(str(path)) as container:
                yield from _of_clip(container)
        except (av.error.FFmpegError, OSError, ValueError, IndexError):
            continue  # whoever reads it says what is wrong with it


def _of_clip(container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
    stream = container.streams.video[0]
    stream.codec_context.skip_frame = "NONKEY"
    times: set[int | None] = set()
    start, length = container.start_time or 0, container.duration or 0
    for k in range(_SEEKS if length > 0 else 0):
        container.seek(start + (2 * k + 1) * length // (2 * _SEEKS), backward=True)
        image = next(container.decode(stream), None)
        if image is not None and image.pts not in times:
            times.add(image.pts)
            yield _upright(image)
    if len(times) == _SEEKS:
        return
    stream.codec_context.skip_frame = "DEFAULT"
    container.seek(start)
    for index, image in enumerate(container.decode(stream)):
        if index % _EVERY == 0:
            yield _upright(image)
        if index >= _IN_A_ROW * min(1.0, _LARGE / (image.width * image.height)):
            break


def _upright(image: av.VideoFrame) -> av.VideoFrame:
    image = oriented(image, *display_matrix(image))
    if image.format.name in CHROMA_SHIFT:
        return image
    return converted(image, blendable_format(image.format.name, image.width, image.height))
