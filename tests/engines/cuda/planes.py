"""Pictures put where a test wants them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from engines.cuda.nv12 import Nv12


def uploaded(
    luma: NDArray[np.uint8], chroma: NDArray[np.uint8], matrix: str, full_range: bool, device: torch.device | str
) -> Nv12:
    """A picture in host memory, luma (H, W) and chroma (⌈H/2⌉, ⌈W/2⌉, 2) uint8, on a device, in one copy."""
    height, width = luma.shape
    device = torch.device(device)
    memory = torch.empty(
        (height + chroma.shape[0], 2 * chroma.shape[1]), dtype=torch.uint8, pin_memory=device.type == "cuda"
    )
    host = Nv12.in_one_piece(memory, height, width, matrix, full_range)
    host.luma.numpy()[:] = luma
    host.chroma.numpy()[:] = chroma
    return Nv12.in_one_piece(memory.to(device, non_blocking=True), height, width, matrix, full_range)
