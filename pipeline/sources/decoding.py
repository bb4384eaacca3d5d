"""Which decoder a stream gets: the GPU's (NVDEC), whose pictures stay in GPU memory, or the CPU's; found by trying.

FFmpeg lists NVDEC on every machine. Whether it is there shows when a context is made; whether it takes a stream (its
codec, profile and size, and one decoder more) shows with the first picture, which FFmpeg decodes on the CPU if not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import av
import av.error
from av.codec.hwaccel import HWAccel
from av.container import InputContainer

from engines.containers import in_words, open_container
from engines.cuda.context import make_current
from engines.cuda.probe import has_library, lacking
from engines.errors import DeviceError
from engines.loading import Degraded
from pipeline.pictures.picture import Picture

Decode = Literal["auto", "cpu", "cuda"]
"""`auto` is NVDEC where the models run on a GPU and it is there."""

NVCUVID = "libnvcuvid.so.1"
"""What FFmpeg opens when the first picture comes, not when the context is made."""


class Decoding:
    """How the footage of one stream is decoded.

    Args:
        stream: its id.
        wanted: `cuda` for NVDEC, `cpu`; `auto` for NVDEC where there is an NVIDIA driver.
        gpu: CUDA's number of the GPU that decodes.
        degraded: told once what could not be had.
        probe: what NVDEC lacks here, as a word and a clause.

    Attributes:
        decoder: what is used, `cuda` or `cpu`.
    """

    def __init__(
        self,
        stream: str,
        wanted: Decode = "cpu",
        gpu: int = 0,
        degraded: Callable[[Degraded], None] = lambda _what: None,
        probe: Callable[[], tuple[str, str] | None] | None = None,
    ) -> None:
        self.stream, self.decoder, self._gpu, self._degraded = stream, "cpu", gpu, degraded
        self._probe = probe or (lambda: without_nvdec(gpu))
        if wanted == "cpu":
            return
        missing = self._probe()
        if missing is None:
            self.decoder = "cuda"
        elif wanted == "cuda" or missing[0] != "driver":
            self._fall_back(*missing)

    def open(self, address: Any, **options: Any) -> InputContainer:
        """`engines.containers.open_container` of an address or a file object, with the decoder in use.

        Raises:
            FFmpegError, OSError, ValueError: as `av.open`.
        """
        if self.decoder == "cuda":
            try:
                return open_container(address, hwaccel=accelerator(self._gpu), **options)
            except (av.error.FFmpegError, RuntimeError, DeviceError):
                missing = self._probe()
                if missing is None:  # not the decoder's fault
                    raise
                self._fall_back(*missing)
        return open_container(address, **options)

    def check(self, image: av.VideoFrame) -> None:
        """Look at the first picture of a container: on the CPU, NVDEC did not take it."""
        if self.decoder == "cuda" and not Picture.of(image).in_gpu_memory:
            self._fall_back("nvdec", f"NVDEC does not take this {image.width}×{image.height} stream")

    def _fall_back(self, lacks: str, reason: str) -> None:
        self.decoder = "cpu"
        sentence = f"{self.stream}: {reason}; it is decoded on the CPU."
        self._degraded(Degraded(self.stream, "nvdec", "cpu", lacks, sentence))


def without_nvdec(gpu: int = 0) -> tuple[str, str] | None:
    """What is lacking for NVDEC, as a word and a clause; None where it is there."""
    missing = lacking()
    if missing is not None:
        return missing
    if not has_library(NVCUVID):
        return "nvdec", (
            f"the driver's library for decoding, {NVCUVID}, is missing (a container needs "
            "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video)"
        )
    try:
        # A context for a codec that every NVDEC has. By default PyAV 19 would take the CPU's decoder in silence.
        av.CodecContext.create("h264", "r", hwaccel=accelerator(gpu, fallback=False))
    except (av.error.FFmpegError, RuntimeError, NotImplementedError, DeviceError) as failed:
        return "nvdec", f"FFmpeg finds no NVDEC ({in_words(failed)})"
    return None


def accelerator(gpu: int, fallback: bool = True) -> HWAccel:
    """NVDEC whose pictures stay in GPU memory, in the context that PyTorch and TensorRT work in.

    FFmpeg takes the context of the thread that opens the container, so that must be the calling one.

    Args:
        gpu: CUDA's number of it.
        fallback: let FFmpeg decode on the CPU what NVDEC does not take.

    Raises:
        DeviceError: the driver gives no context.
    """
    make_current(gpu)
    return HWAccel(
        "cuda", gpu, allow_software_fallback=fallback, is_hw_owned=True,
        options={"primary_ctx": "0", "current_ctx": "1"},
    )  # fmt: skip
