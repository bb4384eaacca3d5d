"""Masks as polygons that give the same pixels again."""

from __future__ import annotations

from collections import defaultdict

import cv2
import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
Ring = NDArray[np.int32]


def outlines(mask: UInt8) -> list[Ring]:
    """A polygon for each 8-connected part of a mask, largest first.

    A polygon goes through the centres of the pixels at the part's edge, and into each hole and back by a row of pixels
    of the part: filled with its outline (`cv2.fillPoly`) it covers the part's pixels and no other.

    Args:
        mask: (H, W) uint8, 0 outside.

    Returns:
        Of each (n, 2) int32 x and y in pixels, n ≥ 3; a part that is a line or a pixel has corners twice.
    """
    rings, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    parents = [int(node[3]) for node in tree[0]] if rings else []
    outer: dict[int, Ring] = {}
    holes: dict[int, list[Ring]] = defaultdict(list)
    for place, (ring, parent) in enumerate(zip(rings, parents, strict=True)):
        points = np.asarray(ring[:, 0], np.int32)
        if parent < 0:
            outer[place] = points
        else:
            holes[parent].append(points)
    joined = [_corners(_with_holes(outer[place], holes[place])) for place in outer]
    return sorted(joined, key=lambda ring: -abs(cv2.contourArea(ring)))


def _with_holes(ring: Ring, holes: list[Ring]) -> Ring:
    """One ring of an outline and those around its holes: each hole is joined along its row, to the left, to what is met
    there first. What lies further left was joined before."""
    for hole in sorted(holes, key=lambda points: (points[:, 0].min(), points[:, 1].min())):
        start = int(np.lexsort((hole[:, 1], hole[:, 0]))[0])
        x, y = hole[start]
        beside = np.flatnonzero((ring[:, 1] == y) & (ring[:, 0] <= x))
        at = int(beside[ring[beside, 0].argmax()])
        around = np.concatenate([hole[start:], hole[: start + 1]])
        ring = np.concatenate([ring[: at + 1], around, ring[at:]])
    return ring


def _corners(ring: Ring) -> Ring:
    """The ring without points that lie on the way from the one before to the one behind."""
    if len(ring) < 3:
        return np.concatenate([ring, np.repeat(ring[-1:], 3 - len(ring), axis=0)])
    before, behind = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    kept = ring[(before != behind).any(axis=1)]
    return kept if len(kept) >= 3 else np.concatenate([kept, np.repeat(kept[-1:], 3 - len(kept), axis=0)])
