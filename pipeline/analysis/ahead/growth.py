"""Time to contact from how fast something grows in the picture: no calibration, no distance, no speed.

At a constant speed the distance to something falls in a straight line, and one over its size in the picture is
proportional to the distance. So one over the size is fitted by a straight line over the last moments, robustly, and
where the line meets zero there is contact (Lee, "A theory of visual control of braking", Perception 5, 1976: τ is size
over its rate of change). Contact is that of the lens with the near end, so that of the own bumper comes earlier.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

SPANS = (0.6, 1.2, 2.0)
"""Seconds that are looked back on; the longer ones only where the shorter say too little, for within a longer time the
speed is less likely constant."""

LEAST_LOOKS = 5
_SURE = 0.1
"""Standard deviation of a contact, over the contact, that is good enough not to look back further."""

_HUBER = 1.5
"""Standard deviations from which on a look counts less (Huber, 1964)."""

_FLOOR = 0.004
"""Least share of a size by which looks are taken to be wrong."""

_PIXEL = 0.35
"""Pixels, likewise: edges lie on a grid."""

_DEEP_SIGMA = 0.4
"""Share of `Size.deep` by which it may be wrong."""

_LIKE = 0.8
"""Most of an error that is taken to be the one of the look before again."""


class Growth(NamedTuple):
    """How fast something grows.

    Attributes:
        rate: share of its size a second; one over the seconds to contact where it is positive.
        sigma: standard deviation of the rate.
        span: seconds looked back on.
        looks: how many looks that were.
    """

    rate: float
    sigma: float
    span: float
    looks: int

    @property
    def contact(self) -> float:
        """Seconds to contact; infinite where it does not come nearer."""
        return 1.0 / self.rate if self.rate > 0 else math.inf

    @property
    def contact_sigma(self) -> float:
        """Standard deviation of the seconds to contact, as far as it is small against them."""
        return self.sigma / self.rate**2 if self.rate > 0 else math.inf

    def least(self, deviations: float) -> float:
        """The rate that is passed with as many standard deviations to spare."""
        return self.rate - deviations * self.sigma


class Size(NamedTuple):
    """A size of something in the picture.

    Attributes:
        pixels: (N,) float64, positive.
        deep: how much farther away what has this size is than the near end, as a share of the distance: a car is as
            wide as its mirrors.
    """

    pixels: Float
    deep: float = 0.0


def growth(times: Float, *sizes: Size) -> Growth | None:
    """How fast something grows now; None where it was not looked at often or long enough.

    Args:
        times: (N,) float64 seconds, growing.
        sizes: such as height and width. Where they disagree, so much the less sure is what is said.
    """
    ago = times - times[-1]
    looked = ago >= -np.array(SPANS)[:, None] - 1e-6
    looks = looked.sum(1)
    spans = -ago[len(times) - looks]
    enough = (looks >= LEAST_LOOKS) & (spans >= 0.6 * np.array(SPANS))
    if not enough.any():
        return None
    looked, looks, spans = looked[enough], looks[enough], spans[enough].tolist()
    rates, variances = _fitted(ago, sizes, looked, looks)
    found = None
    for place, span in enumerate(spans):
        agreed = _agreed(rates[:, place], variances[:, place], span, int(looks[place]))
        found = agreed or found
        if agreed is not None and agreed.sigma < _SURE * abs(agreed.rate):
            break
    return found


def _agreed(rates: Float, variances: Float, span: float, looks: int) -> Growth | None:
    """What all sizes say together."""
    fitted = list(zip(rates.tolist(), variances.tolist(), strict=True))
    if not all(math.isfinite(variance) for _, variance in fitted):
        return None
    whole = sum(1 / variance for _, variance in fitted)
    rate = sum(rate / variance for rate, variance in fitted) / whole
    apart = sum((own - rate) ** 2 / variance for own, variance in fitted)
    # More apart than they should be: then each is less sure than it seems (Birge's ratio).
    return Growth(rate, math.sqrt(max(apart / max(len(fitted) - 1, 1), 1.0) / whole), span, looks)


def _fitted(ago: Float, sizes: tuple[Size, ...], looked: Bool, looks: NDArray[np.intp]) -> tuple[Float, Float]:
    """Rates of growth at time 0 and their variances, infinite where there is none, (sizes, spans): all of the fits at
    once, for the time goes into the calls.

    Args:
        ago: (N,) seconds, the last one 0.
        sizes: of N looks each.
        looked: (spans, N): which looks each fit has.
        looks: (spans,): how many that are.
    """
    pixels = np.array([size.pixels for size in sizes])
    deep = np.array([[size.deep] for size in sizes])
    middle = pixels[:, -1:]
    inverse = (middle / pixels)[:, None]  # (sizes, 1, N)
    likely = looked / (inverse * inverse)  # errors are a share of the size
    floor = np.maximum(_FLOOR, _PIXEL / middle)[..., None]
    powers = np.stack((np.ones_like(ago), ago, ago * ago), 1)
    outside, centre = np.where(looked, 0.0, np.inf), (looks // 2)[:, None]
    weight = likely
    for _ in range(2):
        s0, s1, s2 = np.moveaxis(weight @ powers, 2, 0)
        y0, y1 = np.moveaxis((weight * inverse) @ powers[:, :2], 2, 0)
        spread = np.maximum(s0 * s2 - s1 * s1, 1e-12)
        at_now, slope = (s2 * y0 - s1 * y1) / spread, (s0 * y1 - s1 * y0) / spread
        wrong = (inverse - at_now[..., None] - slope[..., None] * ago) / inverse
        apart = np.abs(wrong)
        ranked = np.sort(apart + outside, 2)
        noise = np.maximum(
            1.4826 * np.take_along_axis(ranked, np.broadcast_to(centre, (*ranked.shape[:2], 1)), 2), floor
        )
        weight = likely * np.minimum(1.0, _HUBER * noise / np.maximum(apart, 1e-9))
    safe = np.where(at_now > 0, at_now, np.inf)
    rate = -slope / safe
    # d rate = -(d slope + rate d at_now) / at_now
    variance = noise[..., 0] ** 2 * (s0 + rate * rate * s2 - 2 * rate * s1) / spread / (safe * safe)
    variance = np.where(at_now > 0, variance * _stretch(wrong * looked), np.inf)
    # The near end is nearer than what has this size, so that its contact is, by `deep` or about as much.
    return rate * (1 + deep), variance * (1 + deep) ** 2 + (_DEEP_SIGMA * deep * rate) ** 2


def _stretch(wrong: Float) -> Float:
    """By how much errors that are like the ones before them make a mean less sure: (1 + ρ) / (1 − ρ)."""
    square = np.maximum((wrong * wrong).sum(2), 1e-30)
    like = np.clip((wrong[..., 1:] * wrong[..., :-1]).sum(2) / square, 0.0, _LIKE)
    stretch: Float = (1 + like) / (1 - like)
    return stretch
