"""FFmpeg's pictures in GPU memory, handed to the kernels of `engines.cuda` and back without a copy.

Imported only once there is such a picture: the kernels' module brings torch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, cast

import av
import av.error
from av.video.frame import CudaContext

from engines.containers import in_words
from engines.cuda import nv12
from engines.cuda.context import make_current
from engines.cuda.nv12 import Nv12
from engines.errors import DeviceError
from engines.loading import Degraded
from pipeline.pictures.colors import Colorimetry
from pipeline.pictures.planes import copy_properties

OutOfMemory = nv12.OutOfMemory


def no_room(what: str) -> Degraded:
    """What is said where the GPU has no room for a step, named by a noun."""
    return Degraded("", what, "cpu", "memory", f"The GPU has no room for {what}; the CPU does it meanwhile.")


def borrowed(image: av.VideoFrame) -> Nv12:
    """The planes of an NV12 picture, in whatever memory, without a copy. Those of a decoder are read only."""
    colors = Colorimetry.of(image)
    luma, chroma = image.planes
    return Nv12.borrow(
        cast("nv12.DeviceArray", luma), cast("nv12.DeviceArray", chroma), colors.matrix, colors.full_range
    )


def downloaded(picture: Nv12, like: av.VideoFrame) -> av.VideoFrame:
    """The picture in host memory, NV12, with the time and colour properties of `like`. Its size is even."""
    rows, height = nv12.downloaded(picture), picture.luma.shape[0]
    result = av.VideoFrame.from_dlpack((rows[:height], rows[height:]), format="nv12")
    copy_properties(like, result)
    return result


def as_frame(picture: Nv12, like: av.VideoFrame) -> av.VideoFrame:
    """The picture as a frame of FFmpeg's where it lies, without a copy, with the time and colour properties of `like`;
    its size is even. The picture must not be drawn on any more.

    It waits until the picture is drawn (the thread sleeps): an encoder asks no stream of PyTorch's.

    Raises:
        DeviceError: FFmpeg takes no pictures of this GPU's memory. `downloaded` is what is left then.
    """
    device = picture.luma.device
    nv12.arrived(device)
    context = _context(device.index or 0) if device.type == "cuda" else None
    try:
        if context is not None:
            make_current(context.device_id)
        result = av.VideoFrame.from_dlpack((picture.luma, picture.chroma), format="nv12", cuda_context=context)
    except av.error.FFmpegError as error:
        raise DeviceError(f"FFmpeg takes no pictures of the GPU's memory ({in_words(error)}).", "ffmpeg") from None
    copy_properties(like, result)
    return result


def no_frames() -> Degraded:
    """What is said where FFmpeg takes no pictures of a GPU's memory."""
    sentence = "FFmpeg takes no pictures of the GPU's memory; each is downloaded for the outputs."
    return Degraded("", "frames in gpu memory", "download", "ffmpeg", sentence)


@functools.cache
def _context(gpu: int) -> CudaContext:
    """FFmpeg's hold on a GPU: the context that is the thread's at its first frame, which is the primary one, PyTorch's
    too. FFmpeg would not retain that by itself, see `engines.cuda.context`. One for all: an encoder takes frames of the
    context that it was opened with."""
    return CudaContext(device_id=gpu, primary_ctx=False, current_ctx=True)


def network_inputs(
    images: Sequence[tuple[av.VideoFrame, tuple[int, int, int, int] | None]],
    height: int,
    width: int,
    stay: bool = False,
) -> list[Any]:
    """Model inputs of pictures in GPU memory, or of a part of each (x1, y1, x2, y2; even), (height, width, 3) uint8 RGB
    each; a launch a GPU.

    They are arrays in host memory, or where they `stay` tensors on the pictures' GPU, ordered on its current stream.
    """
    pictures = [borrowed(image) if crop is None else borrowed(image).cropped(*crop) for image, crop in images]
    results: dict[int, Any] = {}
    for device in {picture.luma.device for picture in pictures}:
        places = [k for k, picture in enumerate(pictures) if picture.luma.device == device]
        batch = nv12.network_inputs([pictures[k] for k in places], height, width)
        results |= zip(places, batch if stay else nv12.array_on_host(batch), strict=True)
    return [results[k] for k in range(len(images))]
