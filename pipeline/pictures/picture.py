"""Pictures, wherever they lie: in host memory, or in that of the GPU which decoded them.

FFmpeg has one type for both, which is what sources, stages and sinks hand each other (`Frame.image`). Here alone is it
looked at where the pixels lie; whoever wants something of a picture has it from `Picture.of(image)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import av
import cv2

from engines.errors import DeviceError
from engines.loading import Degraded
from pipeline.pictures.hdr import TRANSFERS
from pipeline.pictures.inputs import Crop, network_input
from pipeline.pictures.jpeg import encode_jpeg
from pipeline.pictures.planes import UInt8, copy_properties, pixel_format, plane

if TYPE_CHECKING:  # torch
    from engines.cuda.nv12 import Nv12


class Picture(ABC):
    """A picture of FFmpeg's, and what can be had of it. It is never written to.

    Attributes:
        image: FFmpeg's picture. One in GPU memory has no planes to look at.
        in_gpu_memory: whether its pixels lie where NVDEC left them.

    >>> picture = Picture.of(av.VideoFrame(64, 48, "yuv420p"))
    >>> picture.in_gpu_memory, picture.on_host() is picture.image, picture.network_input(24, 32).shape
    (False, True, (24, 32, 3))
    """

    __slots__ = ("image",)
    in_gpu_memory: bool

    def __init__(self, image: av.VideoFrame) -> None:
        self.image = image

    @staticmethod
    def of(image: av.VideoFrame) -> Picture:
        """The picture, as where it lies says."""
        return DevicePicture(image) if _in_gpu_memory(image) else HostPicture(image)

    @property
    @abstractmethod
    def workable(self) -> bool:
        """Whether it can be drawn on and made a model input where it lies."""

    @abstractmethod
    def on_host(self) -> av.VideoFrame:
        """The picture in host memory: itself, or a download of it."""

    @abstractmethod
    def network_input(self, height: int, width: int, crop: Crop | None = None) -> UInt8:
        """The whole picture, or a part of it, squashed to a model's size: (height, width, 3) uint8 RGB, in host
        memory."""

    @abstractmethod
    def luma(self, height: int, width: int) -> UInt8:
        """The brightness of the whole picture, squashed to a size: (height, width) uint8, in host memory."""

    @abstractmethod
    def for_device_encoder(self) -> av.VideoFrame | None:
        """Another frame of the same picture in GPU memory, without a copy: the shared one has times of its own. None
        where there is nothing for an encoder there.

        Raises:
            DeviceError: FFmpeg takes no pictures of this GPU's memory.
        """

    def jpeg(self, quality: int = 80, max_width: int = 0) -> tuple[bytes, int, int]:
        """The picture as a JPEG, and its width and height: see `encode_jpeg`."""
        return encode_jpeg(self.on_host(), quality, max_width)


class HostPicture(Picture):
    """A picture in host memory."""

    __slots__ = ()
    in_gpu_memory = False

    @property
    def workable(self) -> bool:
        return True

    def on_host(self) -> av.VideoFrame:
        return self.image

    def network_input(self, height: int, width: int, crop: Crop | None = None) -> UInt8:
        return network_input(self.image, height, width, crop)

    def luma(self, height: int, width: int) -> UInt8:
        full = plane(self.image, 0)
        # Averaging over every second row of every second column is a third cheaper, and motion does not mind.
        step = max(1, min(full.shape[0] // (2 * height), full.shape[1] // (2 * width)))
        return cast("UInt8", cv2.resize(full[::step, ::step], (width, height), interpolation=cv2.INTER_AREA))

    def for_device_encoder(self) -> av.VideoFrame | None:
        return None


class DevicePicture(Picture):
    """A picture in GPU memory. NV12 of even size, which is what cameras send, is worked on there by the kernels of
    `engines.cuda`; any other is downloaded."""

    __slots__ = ()
    in_gpu_memory = True

    @property
    def workable(self) -> bool:
        image = self.image
        return pixel_format(image) == "nv12" and image.width % 2 == 0 and image.height % 2 == 0

    def on_host(self) -> av.VideoFrame:
        image = self.image
        if self.workable:
            from pipeline.pictures import device  # torch

            return device.downloaded(device.borrowed(image), image)
        result = image.reformat(format=pixel_format(image))
        copy_properties(image, result)
        return result

    def network_input(self, height: int, width: int, crop: Crop | None = None) -> UInt8:
        return cast("UInt8", network_inputs([self.image], height, width, crops=[crop])[0])

    def luma(self, height: int, width: int) -> UInt8:
        return cast("UInt8", cv2.cvtColor(self.network_input(height, width), cv2.COLOR_RGB2GRAY))

    def for_device_encoder(self) -> av.VideoFrame | None:
        if not self.workable:
            return None
        from pipeline.pictures import device  # torch

        return device.as_frame(device.borrowed(self.image), self.image)


def _in_gpu_memory(image: av.VideoFrame) -> bool:
    return image.format.name == "cuda"


def network_inputs(
    images: Sequence[av.VideoFrame],
    height: int,
    width: int,
    stay: bool = False,
    degraded: Callable[[Degraded], None] = lambda _what: None,
    crops: Sequence[Crop | None] = (),
) -> list[Any]:
    """`Picture.network_input` of several pictures, or of a part of each; those in GPU memory are all converted in one
    launch.

    Where they may `stay`, their inputs lie in GPU memory, too: as PyTorch's tensors of the same shape and type. Where
    the GPU has no room they are made on the CPU, and `degraded` is told. HDR is tone-mapped on the CPU.
    """
    pictures, parts = [Picture.of(image) for image in images], crops or [None] * len(images)
    there = [p.in_gpu_memory and p.workable and p.image.color_trc not in TRANSFERS for p in pictures]
    made: list[Any] = []
    if any(there):
        from pipeline.pictures import device  # torch

        waiting = [(p.image, crop) for p, crop, by_gpu in zip(pictures, parts, there, strict=True) if by_gpu]
        try:
            made = device.network_inputs(waiting, height, width, stay)
        except device.OutOfMemory:
            degraded(device.no_room("model inputs"))
            there = [False] * len(there)
    done = iter(made)
    return [
        next(done) if by_gpu else network_input(picture.on_host(), height, width, crop)
        for picture, crop, by_gpu in zip(pictures, parts, there, strict=True)
    ]


@dataclass(slots=True, eq=False)
class Target:
    """Where the pictures of one stream are drawn, and in which memory what was drawn is handed on.

    Attributes:
        degraded: told where a GPU had no room and the CPU drew, and once where FFmpeg takes none of its pictures.
        stay: whether those who encode take pictures in GPU memory; asked for every one.
    """

    degraded: Callable[[Degraded], None] = lambda _what: None
    stay: Callable[[], bool] = lambda: False
    _takes_frames: bool = True

    def drawn(
        self,
        image: av.VideoFrame,
        by_gpu: Callable[[Nv12], Nv12],
        by_cpu: Callable[[av.VideoFrame], av.VideoFrame],
    ) -> av.VideoFrame:
        """A new picture, drawn where the given one lies.

        Args:
            image: left as it is.
            by_gpu: draws on new planes in GPU memory, given the picture's.
            by_cpu: draws a new picture in host memory, given one there.
        """
        picture = Picture.of(image)
        if picture.in_gpu_memory and picture.workable:
            from pipeline.pictures import device  # torch

            try:
                return self._delivered(by_gpu(device.borrowed(image)), image)
            except device.OutOfMemory:
                self.degraded(device.no_room("overlays"))
        return by_cpu(picture.on_host())

    def _delivered(self, drawn: Nv12, like: av.VideoFrame) -> av.VideoFrame:
        """What was drawn, as a frame in GPU memory where it may stay and FFmpeg takes it, else in host memory."""
        from pipeline.pictures import device  # torch

        if self._takes_frames and self.stay():
            try:
                return device.as_frame(drawn, like)
            except DeviceError:
                self._takes_frames = False
                self.degraded(device.no_frames())
        return device.downloaded(drawn, like)
