"""A cadence that follows the content: how many frames may pass until a model has to look again.

Nothing in a picture says how far a network's answer will have changed a few frames on: most of what changes is the
network's own wavering. But each look shows how far the look before it, carried to this frame, agrees with it, and how
that falls with the distance is much alike in all footage: with a power of it. So the cadence is the longest one for
which the agreement of all frames, those looked at and those between, stays above what was asked for, as far as the
looks so far tell.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

LONGEST = 8
"""Frames from look to look at most."""

FARTHEST = 2 * LONGEST
"""Frames of a live stream to which a look is carried at most where the engine does not keep up."""

LAG = 3
"""Looks after which what they taught decides: a decoder runs ahead of the network by as many."""

_GROWTH = {"map": 0.7, "boxes": 0.4}
"""Power of the distance with which disagreement grows. Boxes waver most of the way from one frame to the next: in the
development footage they disagree 1.4 to 2.2 times as much over four frames as over one."""

_NEWEST = 0.25
"""Weight of the newest look in the estimate."""

_MARGIN = {"map": 0.8, "boxes": 0.9}
"""Share of the disagreement allowed that is aimed at. Boxes are between two looks, which agrees more than being carried
from one of them does; but the fewer looks there are, the less they are steadied."""

Every = int | Literal["auto"]
"""A cadence: 1 looks at every frame, n at every n-th, `auto` as often as the content asks for."""

Bound = Annotated[float, msgspec.Meta(ge=0.5, lt=1)]


class CarryingOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands between the frames that a model looks at.

    Attributes:
        by: `motion` carries class map, confidence and boxes along with the picture; `repeat` shows the last class map
            again, and boxes where their tracks should be.
        agreement: with `every: auto`, share of the pixels outside a band of 2 pixels along the edges of classes that
            are to be as they were if every frame was looked at, over all frames.
        box_agreement: with `every: auto`, mean IoU of boxes with those that there were if every frame was looked at.
    """

    by: Literal["motion", "repeat"] = "motion"
    agreement: Bound = 0.98
    box_agreement: Bound = 0.9


class Cadence:
    """How far apart the looks of one model may be, in one stream.

    Args:
        options: what agreement is wanted.
        both: whether frames between are carried to from the nearer of two looks, and not from the one before alone.

    >>> cadence = Cadence(CarryingOptions(), both=True)
    >>> [cadence.learn(1, {"map": 0.995}) for _ in range(4)]
    [2, 2, 2, 2]
    >>> cadence.learn(2, {"map": 0.80})
    1
    """

    def __init__(self, options: CarryingOptions, both: bool) -> None:
        self._allowed = {"map": 1 - options.agreement, "boxes": 1 - options.box_agreement}
        self._costs = {
            what: [0.0, 0.0, *(_cost(gap, growth, both) for gap in range(2, LONGEST + 1))]
            for what, growth in _GROWTH.items()
        }
        self._steps: dict[str, float] = {}

    def learn(self, gap: int, agreement: dict[str, float]) -> int:
        """How many frames on to look again, by what a look says of the one before.

        Args:
            gap: frames from the one to the other.
            agreement: of what was carried so far with what was seen, 0 to 1, of `map` and `boxes`; nothing where the
                two have nothing to do with each other.
        """
        for what, share in agreement.items():
            step = (1 - share) / gap ** _GROWTH[what]
            before = self._steps.get(what, step)
            self._steps[what] = max(before + _NEWEST * (step - before), 0.0)
        best = 1
        for longer in range(2, min(LONGEST, gap + 1) + 1):
            expected = {what: step * self._costs[what][longer] for what, step in self._steps.items()}
            if all(share <= _MARGIN[what] * self._allowed[what] for what, share in expected.items()):
                best = longer
        return best


def _cost(gap: int, growth: float, both: bool) -> float:
    """Mean disagreement of the frames of a cycle, looked at and between, where that of neighbours is 1."""
    distances = (min(place, gap - place) if both else place for place in range(1, gap))
    return float(sum(float(distance) ** growth for distance in distances)) / gap
