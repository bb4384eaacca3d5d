"""What viewers of a live output see while the camera is away: its last picture, dimmed, and since when."""

from __future__ import annotations

from datetime import UTC, datetime

import av
import cv2
import numpy as np

from pipeline.pictures.colors import Colorimetry
from pipeline.pictures.conversion import converted
from pipeline.pictures.planes import CHROMA_SHIFT, UInt8, copy_properties, plane
from pipeline.state import SourceState, StateChange

_DIMMED = 0.3
_FONT = cv2.FONT_HERSHEY_SIMPLEX

_SAYS = {
    SourceState.CONNECTING: "connecting",
    SourceState.STALLED: "reconnecting",
    SourceState.BACKING_OFF: "reconnecting",
    SourceState.FAILED: "given up",
    SourceState.ENDED: "ended",
}


def card_text(since: float, change: StateChange | None) -> tuple[str, str]:
    """The two lines of a card.

    Args:
        since: wall clock, Unix seconds, of the last picture or the change.
        change: what is known of the source; None where only its pictures stay away.

    >>> card_text(1763726590, None)
    ('no picture since 12:03:10 UTC', '')
    """
    clock = f"{datetime.fromtimestamp(since, UTC):%H:%M:%S} UTC"
    if change is not None and change.state is SourceState.PAUSED:
        return f"camera paused since {clock}", ""
    if change is None:
        # The camera may be there and this machine too busy: what is not known is not said.
        return f"no picture since {clock}", ""
    return f"camera offline since {clock}", _SAYS.get(change.state, "")


def offline_card(last: av.VideoFrame | None, width: int, height: int, lines: tuple[str, str]) -> av.VideoFrame:
    """A new picture: `last` dimmed, two lines of text in the middle, drawn in YUV.

    Args:
        last: the newest picture there was, any size and format, left as it is; None for a black card.
        width, height: of the card where there is no last picture, in pixels, even.
        lines: a large and a small one, ASCII.
    """
    if last is not None and last.format.name not in CHROMA_SHIFT:
        last = converted(last, "yuv420p")
    if last is None:
        card = av.VideoFrame(width, height, "yuv420p")
        floor = 16
    else:
        card = av.VideoFrame(last.width, last.height, last.format.name)
        copy_properties(last, card)
        floor = 0 if Colorimetry.of(last).full_range else 16
    for index in range(len(card.planes)):
        target, neutral = plane(card, index), floor if index == 0 else 128
        if last is None:
            target[:] = neutral
        else:
            # Towards black and grey: level · 0.3 + neutral · 0.7.
            levels = np.rint(np.arange(256) * _DIMMED + neutral * (1 - _DIMMED)).astype(np.uint8)
            cv2.LUT(plane(last, index), levels, dst=target)
    _write(plane(card, 0), lines)
    return card


def _write(luma: UInt8, lines: tuple[str, str]) -> None:
    height, width = luma.shape
    baseline = round(height * 0.5)
    for line, share in zip(lines, (0.62, 0.32), strict=True):
        if not line:
            continue
        (natural, _), _ = cv2.getTextSize(line, _FONT, 1.0, 1)
        size = min(share * width / natural, height / 240)
        thickness = max(1, round(size * 2))
        (text_width, text_height), _ = cv2.getTextSize(line, _FONT, size, thickness)
        cv2.putText(luma, line, ((width - text_width) // 2, baseline), _FONT, size, (225,), thickness, cv2.LINE_AA)
        baseline += round(text_height * 2)
