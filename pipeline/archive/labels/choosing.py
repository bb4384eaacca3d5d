"""Which of the frames that were looked at are exported: the hardest, few of a clip, no near-duplicates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.archive.labels.alike import near
from pipeline.archive.labels.looking import Looked

DOUBT = 2
"""How often doubt counts: it says most of where a model is wrong (`tests/benchmarks/hard_frames.py`)."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is exported.

    Attributes:
        pictures: with their scores, the hardest first.
        near_duplicates: frames left out that nearly show one that was chosen.
        crowded: frames left out because enough of their clip were chosen.
    """

    pictures: tuple[tuple[Looked, float], ...]
    near_duplicates: int
    crowded: int


def choose(looked: Sequence[Looked], limit: int, per_clip: int) -> Chosen:
    """Choose among frames that were looked at.

    The score is the mean of the ranks, each 0 to 1, of what is rare, what flickers, doubt, which counts twice, and,
    with a second model, disagreement.

    Args:
        looked: the frames.
        limit: how many at most.
        per_clip: how many of one clip at most.
    """
    scored = sorted(
        zip(looked, scores(looked), strict=True),
        key=lambda pair: (-pair[1], pair[0].candidate.clip, pair[0].candidate.frame),
    )
    chosen: list[tuple[Looked, float]] = []
    counts: Counter[str] = Counter()
    duplicates = crowded = 0
    for each, score in scored:
        if len(chosen) == limit:
            break
        if any(near(each.hash, other.hash) for other, _ in chosen):
            duplicates += 1
        elif counts[each.candidate.clip] == per_clip:
            crowded += 1
        else:
            counts[each.candidate.clip] += 1
            chosen.append((each, score))
    return Chosen(tuple(chosen), duplicates, crowded)


def scores(looked: Sequence[Looked]) -> list[float]:
    """How hard each frame is beside the others, 0 to 1."""
    parts = [
        (1, [each.candidate.rare for each in looked]), (1, [each.candidate.flicker for each in looked]),
        (DOUBT, [each.doubt for each in looked]),
    ]  # fmt: skip
    if any(each.disagreement is not None for each in looked):
        parts.append((1, [each.disagreement or 0.0 for each in looked]))
    mean = np.average([ranks(part) for _, part in parts], axis=0, weights=[weight for weight, _ in parts])
    return [round(float(score), 6) for score in mean]


def ranks(values: Sequence[float]) -> list[float]:
    """The share of the other values that each is above.

    >>> ranks([3.0, 1.0, 1.0])
    [1.0, 0.0, 0.0]
    """
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") / max(len(values) - 1, 1)).tolist()  # type: ignore[no-any-return]
