"""What a run was trained on, as a short text that tells other data apart."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np

from training.task import Samples


def fingerprint(data: Samples) -> str:
    """A digest of a split in memory: names, pixels and everything else that its dataclass holds.

    How its protocol is worded says nothing of the data and is left out. Of an object that is no dataclass names and
    pixels count.
    """
    digest = hashlib.blake2b(digest_size=16)
    whole: object = data
    if dataclasses.is_dataclass(whole):
        _add(digest, whole)
    else:
        _add(digest, tuple(data.names))
        _add(digest, data.photos)
    return digest.hexdigest()


def _add(digest: Any, value: object) -> None:
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            if field.name != "protocol":
                digest.update(field.name.encode())
                _add(digest, getattr(value, field.name))
    elif isinstance(value, (tuple, list)):
        digest.update(f"{len(value)}".encode())
        for item in value:
            _add(digest, item)
    elif value is None or isinstance(value, (str, bytes, bool, int, float)):
        digest.update(repr(value).encode())
