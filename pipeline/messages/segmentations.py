"""Which pixels are an object's, as COCO's compressed run lengths: what pycocotools reads and writes, without it.

Runs go column by column from the top left, outside first. Of each run but the first three what it is longer than the
one before the last is written, in groups of five bits from the lowest, six to a character from `0` on, of which the
highest says that another follows (cocoapi, `maskApi.c`, `rleToString`).
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from pipeline.messages.headers import MessageError, SegmentationMessage

_FIRST = 48
"""The character of no bits."""
_MORE, _SIGN, _BITS = 32, 16, 31
_MOST_GROUPS = 7
"""Characters of a run: 35 bits."""


def encode_segmentations(owners: NDArray[np.uint16], count: int) -> list[str]:
    """The pixels of each object in a map of instances.

    Args:
        owners: (h, w) uint16, 0 for pixels of nobody, n for those of the n-th object.
        count: of objects.

    Returns:
        The counts of each, empty where it has no pixel.
    """
    flat = np.ascontiguousarray(owners.T).ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    ends = np.append(starts[1:], flat.size)
    order = np.argsort(flat[starts], kind="stable")
    order = order[flat[starts[order]] > 0]
    pieces = np.bincount(flat[starts[order]], minlength=count + 1)[1:]
    # Of an object where each of its pieces begins and ends, then the end of the map; the runs lie between.
    lengths = np.where(pieces > 0, 2 * pieces + 1, 0)
    last = np.cumsum(lengths)[pieces > 0] - 1
    turns = np.empty(int(lengths.sum()), np.int64)
    turns[last] = flat.size
    turns[np.delete(np.arange(turns.size), last)] = np.stack([starts[order], ends[order]], 1).ravel()
    places = np.arange(turns.size) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    runs = np.diff(turns, prepend=0)
    runs[places == 0] = turns[places == 0]
    written = _written(runs, places)
    # Where an object has the last pixel nothing follows.
    written[last[runs[last] == 0]] = b""
    bounds = itertools.pairwise([0, *np.cumsum(lengths).tolist()])
    return [b"".join(written[first:end]).decode("ascii") for first, end in bounds]


def decode_segmentation(segmentation: SegmentationMessage) -> NDArray[np.bool_]:
    """The pixels of an object, (h, w) bool.

    Raises:
        MessageError: the counts are none, or do not add up to the grid.
    """
    height, width = segmentation.size
    runs = _read(segmentation.counts)
    if (runs < 0).any() or int(runs.sum()) != height * width:
        raise MessageError(f"the runs of a segmentation do not add up to its {width}×{height} pixels")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(width, height).T


def _written(runs: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.bytes_]:
    """The characters of each run, given which of its object it is, from 0."""
    left = runs.copy()
    left[2:][places[2:] > 2] -= runs[:-2][places[2:] > 2]
    groups = np.zeros((left.size, _MOST_GROUPS), np.uint8)
    going_on = np.ones(left.size, np.bool_)
    for place in range(_MOST_GROUPS):
        bits = left & _BITS
        left >>= 5
        used = going_on
        # What is left is nothing but the sign that the highest bit tells already.
        going_on = used & (left != np.where(bits & _SIGN, -1, 0))
        groups[:, place] = np.where(used, bits + _MORE * going_on + _FIRST, 0)
        if not going_on.any():
            break
    return groups.view(f"S{_MOST_GROUPS}").ravel()


def _read(counts: str) -> NDArray[np.int64]:
    codes = np.frombuffer(counts.encode("utf-8"), np.uint8).astype(np.int64) - _FIRST
    last = codes & _MORE == 0
    if not len(codes) or not last[-1] or codes.min() < 0 or codes.max() >= 2 * _MORE:
        raise MessageError("the runs of a segmentation are not as COCO writes them")
    ends = np.flatnonzero(last)
    firsts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - firsts + 1
    if lengths.max() > _MOST_GROUPS:
        raise MessageError("a segmentation has a run that is longer than any")
    places = np.arange(len(codes)) - np.repeat(firsts, lengths)
    runs = np.add.reduceat((codes & _BITS) << 5 * places, firsts)
    runs -= np.where(codes[ends] & _SIGN, 1 << 5 * lengths, 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
