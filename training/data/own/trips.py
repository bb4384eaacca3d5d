"""Pictures of one trip look alike: what is held out is whole trips, never frames out of the middle of one."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from engines.errors import UsageError
from training.data.own.layout import Part

_NUMBER = re.compile(r"^(.*?)[\s_.-]*(?:frame|img|image|f|s)?[\s_.-]*\d+(?:[_-](?:leftImg8bit|rgb))?$", re.IGNORECASE)

GAP = 0.05
"""Share of the pictures of a single trip that is left out between what is trained on and what is held out."""


def trips_of(stems: Sequence[str], folders: Sequence[tuple[str, ...]], pattern: str = "") -> tuple[list[str], str]:
    """The trip of each picture, and in a clause how trips were told.

    Args:
        stems: names of the pictures without their ending.
        folders: of each picture, those that say neither a part nor a role.
        pattern: regular expression whose first group, in a stem, is the trip; empty to find out.

    Raises:
        UsageError: a pattern that is none, has no group, or does not fit a picture.
    """
    if pattern:
        return [_by_pattern(pattern, stem) for stem in stems], f"by the pattern {pattern!r}"
    if len(set(folders)) > 1:
        return ["/".join(names) for names in folders], "by folder"
    prefixes = [found[1] if (found := _NUMBER.match(stem)) else stem for stem in stems]
    number = len(set(prefixes))
    if number == len(stems) > 1:
        return list(stems), "each picture for itself, since no two names share what stands before a number"
    if number == 1:
        return prefixes, "as one, since all names are alike but for a number"
    return prefixes, "by what stands in a name before the number of the frame"


def _by_pattern(pattern: str, stem: str) -> str:
    try:
        found = re.search(pattern, stem)
    except re.error as error:
        raise UsageError(f"trips = {pattern!r} is no regular expression ({error}); give one such as '^(.*)_'") from None
    if found is None or not found.groups():
        raise UsageError(
            f"trips = {pattern!r} finds no group in the name {stem!r}; give a pattern whose first group is the trip, "
            "such as '^(.*)_'"
        )
    return str(found[1])


def hold_out(trips: Sequence[str], share: float, seed: int) -> tuple[list[Part | None], str]:
    """Which pictures are held out (`val`), and in a clause how they were chosen.

    Whole trips, drawn by the seed until the share is as near as it gets; of a single trip its last pictures, with some
    left out between (None).

    Args:
        trips: of each picture, in order.
        share: of the pictures that are to be held out.
        seed: of the draw.

    Returns:
        Parts, one a picture; a single picture is trained on and held out.
    """
    counts, total = Counter(trips), len(trips)
    if total == 1:
        return ["train"], "there is a single picture, which is trained on"
    if len(counts) == 1:
        held = min(max(1, round(total * share)), total - 1)
        between = min(math.ceil(GAP * total), total - held - 1) if total > 4 else 0
        parts: list[Part | None] = ["train"] * (total - held - between)
        parts += [None] * between
        parts += ["val"] * held
        return parts, (
            f"they are of one trip, so its last {held} in order are held out and the {between} before them left out: "
            "neighbours look alike, and the figures are better than on another road"
        )
    names = sorted(counts)
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    chosen: set[str] = set()
    held = 0
    for name in order:
        more = held + counts[name]
        if len(chosen) + 1 < len(names) and (not chosen or abs(more - share * total) < abs(held - share * total)):
            chosen.add(name)
            held = more
    return ["val" if trip in chosen else "train" for trip in trips], (
        f"{len(chosen)} of {len(names)} trips are held out by seed {seed}"
    )
