"""Files of weights that torch wrote."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor

from engines.errors import ModelError

NOT_TORCH = (RuntimeError, EOFError, LookupError, ValueError, pickle.UnpicklingError)
"""What `torch.load` raises for a file that torch did not write: whatever is no archive it reads as a pickle."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a file that torch wrote: the whole of it, or what stands under `state_dict`.

    Raises:
        ModelError: the file is missing or unreadable, or holds something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"there is no weights file {path}; give a state dict that torch.save wrote") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); give a state dict that torch.save wrote") from None
    except NOT_TORCH:
        raise ModelError(f"{path} is not a readable weights file; give a state dict that torch.save wrote") from None
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{path} holds no weights: wanted is a state dict, a mapping of names to tensors")
    return state
