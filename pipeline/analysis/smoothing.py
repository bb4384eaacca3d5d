"""Temporal smoothing of class maps: a pixel whose class wavers while its picture stands still keeps its class.

Each pixel has a class that it shows and a trust in it, from nothing to full. A look that agrees adds to the trust, one
that does not takes from it, in proportion to the time since the look before and to the segmenter's confidence; when no
trust is left the class seen now is shown, with half trust. As in OctoMap's clamping update policy (Hornung et al.,
Autonomous Robots 34, 2013) full trust is a bound, so that what was seen for an hour is given up no later than what was
seen for a moment, and the lag is bounded. A disagreement weighs the more the more the picture itself
has changed there: what moves is taken at once, what flickers on a still picture is not. Labels handed on as far as the
pictures look alike are Miksik et al., "Efficient Temporal Consistency for Streaming Video Scene Analysis" (ICRA 2013),
for the case in which nothing is known of the motion; a weight that grows with disagreement is what
workadventure#6565 does to keep moving edges crisp, one that falls with the network's uncertainty what MediaPipe's
SegmentationSmoothingCalculator does.

Motion is not compensated: OpenCV's fastest optical flow (DIS, 0.44 ms at 256×256) takes three times as long as all of
this. Under a moving camera much of the picture changes, and there the smoothing gives way by itself; where too much of
it has changed at once (a cut, a swing of the camera), or nothing was seen for a while (a camera that was away), it
begins anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]

LONGEST_GAP = 0.5
"""Seconds between two looks beyond which the earlier one says nothing of the later one."""

SETTLED = 4.0
"""Seconds after which it does not matter when it began: on the development footage no pixel differs from then on, after
half the time at most four of 65,536 do, and at the first look one to two thousand."""

LEAST_WEIGHT = 0.3
"""What the least sure look counts, where a certain one counts 1: so the lag has a bound."""

_REACH = 7
"""Pixels of the square over which a change of the picture is averaged. At 3 regions go over to another class in shreds:
on synthetic drives outlines are a tenth longer than the segmenter's, at 7 three hundredths."""

_MOVED = 24
"""Grey levels beyond which a pixel's picture is another one."""

_CUT = 0.4
"""Share of the picture that is another one, or of another class, after a cut. In the development footage 0.30 and 0.24
were the most from frame to frame, and pictures of different footage differed in 0.55 and 0.33 at least."""


class SmoothingOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How class maps are smoothed over time.

    Attributes:
        hold: seconds for which a fully trusted class must be contradicted, with certainty and on a still picture,
            before another one is shown; the least sure contradiction takes 3.3 times as long.
        motion: grey levels by which a pixel's picture changes from look to look that double a contradiction's weight;
            more for a noisy camera.
    """

    hold: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.12
    motion: Annotated[float, msgspec.Meta(gt=0, le=255)] = 4.0


@dataclass(slots=True)
class _Shown:
    """What was shown last, how far it is trusted (255 = fully), and the picture (grey) and time of the look."""

    class_map: UInt8
    trust: UInt8
    grey: UInt8
    time: float


class TemporalSmoother:
    """Smooths the class maps of one stream, look by look in order.

    A class is shown only where it was seen, and at most `hold` / `LEAST_WEIGHT` seconds longer than it was. Looks
    further apart than `LONGEST_GAP` are shown as they are.

    Args:
        options: how.

    >>> smoother = TemporalSmoother(SmoothingOptions(hold=0.12))
    >>> picture, class_map = np.full((8, 8, 3), 90, np.uint8), np.zeros((8, 8), np.uint8)
    >>> def show(index: int, seen: int) -> int:
    ...     class_map[4, 4] = seen
    ...     return int(smoother.smooth(class_map, None, picture, index / 25)[0][4, 4])
    >>> [show(index, seen) for index, seen in enumerate([0, 0, 0, 13, 0, 13, 0, 0, 13, 13, 13])]
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13]
    """

    def __init__(self, options: SmoothingOptions) -> None:
        self.options = options
        self._shown: _Shown | None = None

    def smooth(
        self, class_map: UInt8, confidence: UInt8 | None, picture: UInt8, time: float
    ) -> tuple[UInt8, UInt8 | None]:
        """What is to be shown of a look.

        Args:
            class_map: (h, w) uint8 class ids, as seen.
            confidence: (h, w) uint8, 255 = certain, or None: then every look counts as certain.
            picture: (h, w, 3) uint8 RGB: the model's input.
            time: of the look, seconds.

        Returns:
            The class map to show, (h, w) uint8, and the confidence in it, (h, w) uint8 or None. Where the class shown
            is not the one seen with the probability p, its own is at most p and at most 1 − p: the lesser is given.
            The arrays are the given ones or new, and not written to later.
        """
        grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
        before, shown, trust = self._shown, class_map, None
        if before is not None and 0 < time - before.time <= LONGEST_GAP:
            change = np.asarray(cv2.blur(cv2.absdiff(grey, before.grey), (_REACH, _REACH)), np.uint8)
            contradicted = np.asarray(cv2.compare(class_map, before.class_map, cv2.CMP_NE), np.uint8)
            if not _cut(change, contradicted):
                shown, trust = self._weighed(before, class_map, confidence, change, contradicted, time - before.time)
        if trust is None:
            trust = np.full(class_map.shape, 128, np.uint8)
        self._shown = _Shown(shown.copy(), trust, grey, time)  # what is given out is not ours any more
        return shown, _bounded(confidence, shown, class_map)

    def _weighed(
        self, before: _Shown, seen: UInt8, confidence: UInt8 | None, change: UInt8, contradicted: UInt8, elapsed: float
    ) -> tuple[UInt8, UInt8]:
        """The class map to show and the trust in it. All by OpenCV in bytes that saturate: a tenth of the time of
        floats, and NumPy's `maximum` of bytes takes ten times OpenCV's."""
        share = elapsed / self.options.hold
        least = min(math.ceil(255 * LEAST_WEIGHT * share), 255)  # rounded up: the lag has its bound at any frame rate
        if confidence is None:
            weight = np.full_like(seen, min(max(round(255 * share), least), 255))
        else:
            sure = cv2.convertScaleAbs(confidence, alpha=share)
            weight = np.asarray(cv2.max(sure, np.full_like(seen, least)), np.uint8)
        against = cv2.add(weight, cv2.multiply(weight, change, scale=1 / self.options.motion))
        replaced = cv2.bitwise_and(cv2.compare(against, before.trust, cv2.CMP_GE), contradicted)
        trust = cv2.add(before.trust, weight)
        cv2.copyTo(cv2.subtract(before.trust, against), contradicted, trust)
        half = cv2.bitwise_and(replaced, np.full_like(seen, 128))
        trust = cv2.bitwise_or(trust, half)  # where it was replaced none was left
        shown = before.class_map.copy()
        cv2.copyTo(seen, replaced, shown)
        return shown, np.asarray(trust, np.uint8)


def _cut(change: UInt8, contradicted: UInt8) -> bool:
    """Whether too much has changed for pixels to be compared."""
    another = max(cv2.countNonZero(np.asarray(change > _MOVED).view(np.uint8)), cv2.countNonZero(contradicted))
    return another > _CUT * change.size


def _bounded(confidence: UInt8 | None, shown: UInt8, seen: UInt8) -> UInt8 | None:
    """The confidence in what is shown."""
    if confidence is None or shown is seen:
        return confidence
    result = confidence.copy()
    cv2.copyTo(cv2.min(confidence, cv2.bitwise_not(confidence)), cv2.compare(shown, seen, cv2.CMP_NE), result)
    return result
