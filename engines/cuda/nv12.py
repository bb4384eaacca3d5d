"""Pictures in GPU memory as the decoder left them: NV12 planes → the model inputs of a whole batch in one launch, and
overlays blended on the planes.

Everything runs on the calling thread's current stream of the planes' device, which is the default stream unless told
otherwise: FFmpeg decodes on that stream too, so that nothing has to be waited for. The kernels are Triton's
(`engines.cuda.kernels`); without Triton, and for planes in host memory, the same functions in plain torch operations
give the same picture within rounding.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TILE = 32
"""Luma pixels along the side of a tile of ink; its chroma has half as many."""

TILE_BYTES = TILE * TILE * 11 // 4
"""Bytes a tile: light and cover of the luma, then light (interleaved Cb, Cr) and cover of the chroma."""

_LUMA_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
"""Kr and Kb of ITU-R BT.601-7, BT.709-6 and BT.2020-2."""

OutOfMemory = torch.OutOfMemoryError
"""What the functions here raise where the GPU has no room."""

_BLOCK, _INTERPRETED_BLOCK = 256, 4096
"""Pixels a program of the kernels works on; interpreted, a program costs the same however many they are."""


class DeviceArray(Protocol):
    """An array in any memory that can be handed over without a copy."""

    def __dlpack__(self) -> object: ...


@dataclass(frozen=True, slots=True, eq=False)
class Nv12:
    """A picture of 4:2:0 planes in one memory.

    Attributes:
        luma: (H, W) uint8; a row's pixels are next to each other, rows may be further apart.
        chroma: (⌈H/2⌉, ⌈W/2⌉, 2) uint8, Cb and Cr.
        matrix: `bt601`, `bt709` or `bt2020`.
        full_range: whether the levels use 0 to 255, else 16 to 235 and 16 to 240.
    """

    luma: Tensor
    chroma: Tensor
    matrix: str = "bt709"
    full_range: bool = False

    @classmethod
    def borrow(cls, luma: DeviceArray, chroma: DeviceArray, matrix: str, full_range: bool) -> Nv12:
        """Planes that another library holds, without a copy; they are freed when the last of both lets go.

        PyAV refuses the stream that torch would hand it. None is needed: see the module.
        """
        return cls(_from_dlpack(luma), _from_dlpack(chroma), matrix, full_range)

    def cropped(self, left: int, top: int, right: int, bottom: int) -> Nv12:
        """A part of the picture, without a copy; pixels, the right and bottom edges exclusive, all of them even."""
        luma = self.luma[top:bottom, left:right]
        chroma = self.chroma[top // 2 : (bottom + 1) // 2, left // 2 : (right + 1) // 2]
        return Nv12(luma, chroma, self.matrix, self.full_range)

    @classmethod
    def empty_like(cls, other: Nv12) -> Nv12:
        """A picture of the same size, device and colours in one piece of memory, `whole`, its content undefined."""
        height, width = other.luma.shape
        half_height, half_width = (height + 1) // 2, (width + 1) // 2
        memory = torch.empty((height + half_height, 2 * half_width), dtype=torch.uint8, device=other.luma.device)
        return cls.in_one_piece(memory, height, width, other.matrix, other.full_range)

    @classmethod
    def in_one_piece(cls, memory: Tensor, height: int, width: int, matrix: str, full_range: bool) -> Nv12:
        """Views of (H + ⌈H/2⌉, 2 · ⌈W/2⌉) uint8 memory."""
        chroma = memory[height:].view((height + 1) // 2, (width + 1) // 2, 2)
        return cls(memory[:height, :width], chroma, matrix, full_range)


def _from_dlpack(array: DeviceArray) -> Tensor:
    tensor: Tensor = torch.from_dlpack(array.__dlpack__())  # type: ignore[attr-defined]  # torch's stubs leave it out
    return tensor


def coefficients(matrix: str, full_range: bool) -> tuple[float, float, float, float, float, float]:
    """Luma level of black, gain of the luma, and what a level of Cr adds to red, of Cb and of Cr to green, of Cb to
    blue: RGB levels 0 to 255 from YCbCr levels whose chroma is centred on 0."""
    kr, kb = _LUMA_WEIGHTS[matrix]
    black, gain, chroma = (0.0, 1.0, 1.0) if full_range else (16.0, 255 / 219, 255 / 224)
    kg = 1 - kr - kb
    red, blue = 2 * (1 - kr), 2 * (1 - kb)
    return black, gain, chroma * red, -chroma * blue * kb / kg, -chroma * red * kr / kg, chroma * blue


def uses_kernels(device: torch.device) -> bool:
    """Whether Triton's kernels do the work on a device: on GPUs where Triton can be imported, and on the CPU where it
    interprets (`TRITON_INTERPRET=1`)."""
    if device.type == "cuda":
        return kernel_fault(device) is None
    return (
        device.type == "cpu"
        and os.environ.get("TRITON_INTERPRET") == "1"
        and importlib.util.find_spec("triton") is not None
    )


def kernel_fault(device: torch.device) -> str | None:
    """Why Triton's kernels do not run on a GPU, as a clause; None where they do.

    Found by running all of them once: Triton wants a C compiler and Python's headers on the machine, and says so no
    sooner. From then on all are compiled. Several threads may ask; one finds out, and the others wait for it.
    """
    if device not in _faults:
        with _finding_faults:
            if device not in _faults:
                _faults[device] = _fault(device)
    return _faults[device]


_faults: dict[torch.device, str | None] = {}
_finding_faults = threading.Lock()


def _fault(device: torch.device) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    gray = torch.full((3, 2), 128, dtype=torch.uint8, device=device)
    try:
        picture = Nv12.in_one_piece(gray, 2, 2, "bt709", False)
        _inputs_by_kernel([picture], 1, 1)
        palette = Palette(torch.zeros((4, 256), dtype=torch.uint8, device=device))
        _blend_by_kernel(picture, picture, torch.zeros((1, 1), dtype=torch.uint8, device=device), palette, 0.0)
        places = torch.zeros(1, dtype=torch.int32, device=device)
        _compose_by_kernel(picture, places, torch.zeros((1, TILE_BYTES), dtype=torch.uint8, device=device))
        arrived(device)
    except OutOfMemory:
        raise
    except Exception as error:  # noqa: BLE001  # a compiler's exceptions are of all kinds
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"Triton compiles no kernels here ({said[-1].rstrip('.') if said else type(error).__name__})"
    return None


def _block(device: torch.device) -> int:
    return _BLOCK if device.type == "cuda" else _INTERPRETED_BLOCK


def _kernels() -> ModuleType:
    from engines.cuda import kernels  # Triton takes a second to import

    return kernels


# Model inputs -------------------------------------------------------------------------------------------------------
def network_inputs(pictures: Sequence[Nv12], height: int, width: int) -> Tensor:
    """The whole pictures squashed to a model's size, in one launch however many they are and whatever their sizes.

    Args:
        pictures: one or more on one device.
        height, width: of the model's input.

    Returns:
        (N, height, width, 3) uint8 RGB on the pictures' device, not yet computed: ordered on the current stream.

    A picture that shrinks by two or more, in either direction, is averaged over the area of each pixel; else it is
    resampled bilinearly, widened when shrinking. That is what FFmpeg does in `pipeline.pictures.inputs.network_input`.
    """
    device = pictures[0].luma.device
    if not uses_kernels(device):
        return torch.stack([_network_input(picture, height, width) for picture in pictures])
    return _inputs_by_kernel(pictures, height, width)


def _inputs_by_kernel(pictures: Sequence[Nv12], height: int, width: int) -> Tensor:
    device = pictures[0].luma.device
    kernels = _kernels()
    table = _uploaded(torch.tensor([_row(p, height, width, kernels.FRACTION_BITS) for p in pictures]), device)
    output = torch.empty((len(pictures), height, width, 3), dtype=torch.uint8, device=device)
    block = _block(device)
    grid = (-(-height * width // block), len(pictures))
    with _current(device):
        kernels.network_input[grid](table, output, height, width, kernels.FIELDS, kernels.FRACTION_BITS, block)
    return output


def _row(picture: Nv12, height: int, width: int, fraction_bits: int) -> list[int]:
    luma, chroma = picture.luma, picture.chroma
    own_height, own_width = luma.shape
    levels = coefficients(picture.matrix, picture.full_range)
    return [
        luma.data_ptr(), luma.stride(0), chroma.data_ptr(), chroma.stride(0), own_height, own_width,
        int(_averages(own_height, own_width, height, width)), *(round(c * (1 << fraction_bits)) for c in levels),
    ]  # fmt: skip


def _averages(own_height: int, own_width: int, height: int, width: int) -> bool:
    return own_width >= 2 * width or own_height >= 2 * height


def _network_input(picture: Nv12, height: int, width: int) -> Tensor:
    own_height, own_width = picture.luma.shape
    area = _averages(own_height, own_width, height, width)

    def resampled(plane: Tensor) -> Tensor:
        rows = _weights(plane.shape[0], height, area, plane.device)
        columns = _weights(plane.shape[1], width, area, plane.device)
        return rows @ plane.float() @ columns.T

    black, gain, red_cr, green_cb, green_cr, blue_cb = coefficients(picture.matrix, picture.full_range)
    level = (resampled(picture.luma) - black) * gain
    cb, cr = (resampled(picture.chroma[..., channel]) - 128 for channel in (0, 1))
    rgb = torch.stack([level + red_cr * cr, level + green_cb * cb + green_cr * cr, level + blue_cb * cb], -1)
    return (rgb + 0.5).clamp(0, 255).to(torch.uint8)


@functools.lru_cache(maxsize=64)
def _weights(own: int, count: int, area: bool, device: torch.device) -> Tensor:
    """(count, own) float32: how much each of `own` pixels counts in each of `count`."""
    index = torch.arange(own, dtype=torch.float64)
    place = torch.arange(count, dtype=torch.float64)[:, None]
    scale = own / count
    if area and own > count:
        upper, lower = torch.minimum(index + 1, (place + 1) * scale), torch.maximum(index, place * scale)
        weights = (upper - lower).clamp(min=0)
    else:
        support = max(1.0, scale)
        reach = -(-own // count)
        # Pixels beyond the edge are the edge's again.
        beyond = torch.arange(-reach, own + reach, dtype=torch.float64)
        spread = (1 - (beyond - ((place + 0.5) * scale - 0.5)).abs() / support).clamp(min=0)
        weights = torch.zeros(count, own, dtype=torch.float64)
        weights.index_add_(1, beyond.clamp(0, own - 1).long(), spread)
    return (weights / weights.sum(1, keepdim=True)).float().to(device)


# Overlays -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, eq=False)
class Palette:
    """The colours of a stream's classes on its device: (4, 256) uint8, rows Y, Cb, Cr and whether it is shown."""

    table: Tensor

    @classmethod
    def of(cls, levels: NDArray[np.uint8], shown: NDArray[np.uint8], device: torch.device) -> Palette:
        """From (3, 256) Y, Cb, Cr levels and (256,) 0 for classes that leave the picture as it is."""
        return cls(torch.cat([torch.from_numpy(levels), torch.from_numpy(shown)[None]]).to(device))


@dataclass(frozen=True, slots=True, eq=False)
class Ink:
    """Lines, fills and letters drawn on the CPU, as the tiles of the picture that they touch.

    Attributes:
        places: (K,) int32: row of tiles · tiles in a row + column, `TILE` × `TILE` luma pixels each.
        tiles: (K, TILE_BYTES) uint8: light (colour times cover) and cover of each pixel, see `TILE_BYTES`.
    """

    places: NDArray[np.int32]
    tiles: NDArray[np.uint8]


def blended(picture: Nv12, class_map: Tensor | NDArray[np.uint8], palette: Palette, opacity: float) -> Nv12:
    """A new picture: the given one with the colours of its classes over it.

    Args:
        picture: the picture, not written to.
        class_map: (h, w) uint8 class ids of any size, the whole picture squashed into it. Their colours are enlarged
            bilinearly; where the nearest class is not shown, the picture stays as it is.
        palette: colours, on the picture's device.
        opacity: of the colours, 0 to 1.
    """
    device = picture.luma.device
    ids = _uploaded(class_map if isinstance(class_map, Tensor) else torch.from_numpy(class_map), device).contiguous()
    result = Nv12.empty_like(picture)
    if not uses_kernels(device):
        result.luma.copy_(_blended(picture.luma, ids, palette.table[0], palette.table[3], opacity))
        for channel in (0, 1):
            colours = palette.table[1 + channel]
            plane = _blended(picture.chroma[..., channel], ids, colours, palette.table[3], opacity)
            result.chroma[..., channel].copy_(plane)
        return result
    _blend_by_kernel(picture, result, ids, palette, opacity)
    return result


def _blend_by_kernel(picture: Nv12, result: Nv12, ids: Tensor, palette: Palette, opacity: float) -> None:
    height, width = picture.luma.shape
    block = _block(picture.luma.device)
    luma_programs = -(-height * width // block)
    chroma_programs = -(-result.chroma.numel() // block)
    with _current(picture.luma.device):
        _kernels().blend[(luma_programs + chroma_programs,)](
            *_addresses(picture), *_addresses(result), height, width, ids, *ids.shape, palette.table, float(opacity),
            luma_programs, block,
        )  # fmt: skip


def _addresses(picture: Nv12) -> tuple[int, int, int, int]:
    luma, chroma = picture.luma, picture.chroma
    return luma.data_ptr(), luma.stride(0), chroma.data_ptr(), chroma.stride(0)


def _blended(plane: Tensor, ids: Tensor, colours: Tensor, shown: Tensor, opacity: float) -> Tensor:
    (height, width), (own_height, own_width) = plane.shape, ids.shape

    def between(count: int, own: int) -> tuple[Tensor, Tensor, Tensor]:
        place = ((2 * torch.arange(count, device=ids.device) + 1) * own - count).clamp(min=0)
        low = (place // (2 * count)).clamp(max=own - 1)
        return low, (low + 1).clamp(max=own - 1), (place % (2 * count)).float() / (2 * count)

    top, below, down = between(height, own_height)
    left, right, across = between(width, own_width)
    levels = colours[ids.long()].float()
    upper = levels[top][:, left] + (levels[top][:, right] - levels[top][:, left]) * across
    lower = levels[below][:, left] + (levels[below][:, right] - levels[below][:, left]) * across
    colour = upper + (lower - upper) * down[:, None]
    original = plane.float()
    mixed = (original + (colour - original) * opacity + 0.5).to(torch.uint8)
    rows = torch.arange(height, device=ids.device) * own_height // height
    columns = torch.arange(width, device=ids.device) * own_width // width
    return torch.where(shown[ids[rows][:, columns].long()] != 0, mixed, plane)


def copied(picture: Nv12) -> Nv12:
    """A new picture with the same content, in one piece of memory."""
    result = Nv12.empty_like(picture)
    result.luma.copy_(picture.luma)
    result.chroma.copy_(picture.chroma)
    return result


def compose(picture: Nv12, ink: Ink) -> None:
    """Draw ink on a picture of one's own, in place: where it covers a pixel by c, light + (1 − c) · pixel."""
    if not len(ink.places):
        return
    device = picture.luma.device
    places = _uploaded(torch.from_numpy(ink.places), device)
    tiles = _uploaded(torch.from_numpy(ink.tiles), device)
    tiles_across = -(-picture.luma.shape[1] // TILE)
    if uses_kernels(device):
        _compose_by_kernel(picture, places, tiles)
        return
    size = TILE * TILE
    _composed(picture.luma[..., None], tiles[:, :size], tiles[:, size : 2 * size], places, tiles_across, TILE)
    light, cover = tiles[:, 2 * size : 2 * size + size // 2], tiles[:, 2 * size + size // 2 :]
    _composed(picture.chroma, light, cover, places, tiles_across, TILE // 2)


def _compose_by_kernel(picture: Nv12, places: Tensor, tiles: Tensor) -> None:
    height, width = picture.luma.shape
    with _current(picture.luma.device):
        _kernels().compose[(len(places),)](
            *_addresses(picture), height, width, places, tiles, -(-width // TILE), TILE
        )  # fmt: skip


def _composed(plane: Tensor, light: Tensor, cover: Tensor, places: Tensor, across: int, side: int) -> None:
    height, width, channels = plane.shape
    inside = torch.arange(side, device=plane.device)
    y = ((places // across)[:, None] * side + inside)[:, :, None].expand(-1, -1, side)
    x = ((places % across)[:, None] * side + inside)[:, None, :].expand(-1, side, -1)
    here = (y < height) & (x < width)
    y, x = y[here].long(), x[here].long()
    kept = 1 - cover.reshape(-1, side, side)[here].float() / 255
    level = plane[y, x].float() * kept[:, None] + light.reshape(-1, side, side, channels)[here].float() + 0.5
    plane[y, x] = level.clamp(max=255).to(torch.uint8)


# Memory -------------------------------------------------------------------------------------------------------------
def _uploaded(array: Tensor, device: torch.device) -> Tensor:
    """The array on a device. Host memory goes through pinned memory, which torch pools and keeps until it is copied."""
    if array.device == device:
        return array
    if device.type == "cuda" and array.device.type == "cpu":
        array = array.pin_memory()
    return array.to(device, non_blocking=True)


def downloaded(picture: Nv12) -> NDArray[np.uint8]:
    """The picture in host memory, (H + ⌈H/2⌉, 2 · ⌈W/2⌉) uint8: rows of luma, then of interleaved chroma.

    The memory is pinned and pooled by torch. The calling thread sleeps until the copy is done; others run on.
    """
    height, width = picture.luma.shape
    half_height, half_width = (height + 1) // 2, (width + 1) // 2
    on_gpu = picture.luma.device.type == "cuda"
    memory = torch.empty((height + half_height, 2 * half_width), dtype=torch.uint8, pin_memory=on_gpu)
    host = Nv12.in_one_piece(memory, height, width, picture.matrix, picture.full_range)
    whole = _whole(picture)
    if whole is not None:
        memory.copy_(whole, non_blocking=True)
    else:
        host.luma.copy_(picture.luma, non_blocking=True)
        host.chroma.copy_(picture.chroma, non_blocking=True)
    arrived(picture.luma.device)
    return memory.numpy()


def array_on_host(array: Tensor) -> NDArray[np.uint8]:
    """A uint8 array in pinned, pooled host memory, of the same shape; waits as `downloaded` does."""
    host = torch.empty(array.shape, dtype=torch.uint8, pin_memory=array.device.type == "cuda")
    host.copy_(array, non_blocking=True)
    arrived(array.device)
    return host.numpy()


def arrived(device: torch.device) -> None:
    """Sleep until what was queued is done: a spinning thread would take a decoder's core."""
    if device.type == "cuda":
        done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # torch's stubs leave it out
        done.record(torch.cuda.current_stream(device))
        done.synchronize()


def _whole(picture: Nv12) -> Tensor | None:
    """The one piece of memory that both planes are views of; None where they are not."""
    height = picture.luma.shape[0]
    rows, stride = height + picture.chroma.shape[0], 2 * picture.chroma.shape[1]
    follows = picture.chroma.data_ptr() == picture.luma.data_ptr() + height * stride
    if not follows or (height > 1 and picture.luma.stride(0) != stride) or not picture.chroma.is_contiguous():
        return None
    if picture.luma.untyped_storage().data_ptr() != picture.chroma.untyped_storage().data_ptr():
        return None
    return picture.luma.as_strided((rows, stride), (stride, 1))


def _current(device: torch.device) -> torch.cuda.device:
    """Triton launches on the current device, whatever its arguments' is."""
    return torch.cuda.device(device if device.type == "cuda" else -1)
