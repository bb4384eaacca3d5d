"""Which decoder a stream gets: the GPU's (NVDEC), whose pictures stay in GPU memory, or the CPU's; found by trying.

FFmpeg lists NVDEC on every machine. Whether it is there shows when a context is made; whether it takes a stream (its
codec, profile and size, and one decoder more) shows with the first picture, which FFmpeg decodes on the CPU if not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import av
import av.error
from av.codec.hwaccel import HWAccel
from av.container import InputContainer

from engines.cuda.probe import lacking
from engines.loading import Degraded
from pipeline.picture import on_device

Decode = Literal["auto", "cpu", "cuda"]
"""`auto` is NVDEC where the models run on a GPU and it is there."""


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
        """`av.open` for reading an address or a file object, with the decoder in use.

        Raises:
            FFmpegError, OSError, ValueError: as `av.open`.
        """
        # Tags of cameras and players are in all sorts of encodings, and none is worth refusing the pictures.
        options = {"metadata_errors": "replace"} | options
        if self.decoder == "cuda":
            try:
                accelerator = HWAccel("cuda", self._gpu, allow_software_fallback=True, is_hw_owned=True)
                return cast("InputContainer", av.open(address, "r", hwaccel=accelerator, **options))
            except (av.error.FFmpegError, RuntimeError):
                missing = self._probe()
                if missing is None:  # not the decoder's fault
                    raise
                self._fall_back(*missing)
        return cast("InputContainer", av.open(address, "r", **options))

    def check(self, image: av.VideoFrame) -> None:
        """Look at the first picture of a container: on the CPU, NVDEC did not take it."""
        if self.decoder == "cuda" and not on_device(image):
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
    try:
        # A context for a codec that every NVDEC has.
        av.CodecContext.create("h264", "r", hwaccel=HWAccel("cuda", gpu, is_hw_owned=True))
    except (av.error.FFmpegError, RuntimeError, NotImplementedError) as failed:
        return "nvdec", f"FFmpeg finds no NVDEC ({getattr(failed, 'strerror', None) or failed})"
    return None
