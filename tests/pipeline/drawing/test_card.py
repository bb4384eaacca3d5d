from __future__ import annotations

import numpy as np
import pytest

from pipeline.drawing.card import card_text, offline_card
from pipeline.pictures.planes import plane
from pipeline.state import SourceState, StateChange
from tests.pipeline.sample_pictures import noise, planes

LINES = ("camera offline since 12:03:10 UTC", "reconnecting")
AT = 1763726590.4


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (None, ("no picture since 12:03:10 UTC", "")),
        (SourceState.CONNECTING, ("camera offline since 12:03:10 UTC", "connecting")),
        (SourceState.STALLED, LINES),
        (SourceState.BACKING_OFF, LINES),
        (SourceState.PAUSED, ("camera paused since 12:03:10 UTC", "")),
        (SourceState.FAILED, ("camera offline since 12:03:10 UTC", "given up")),
    ],
)
def test_what_the_card_says(change: SourceState | None, lines: tuple[str, str]) -> None:
    assert card_text(AT, None if change is None else StateChange("a", change)) == lines


@pytest.mark.parametrize("pixel_format", ["yuv420p", "nv12", "yuvj420p", "yuv444p", "yuv422p"])
def test_the_last_picture_is_dimmed_under_the_text(pixel_format: str) -> None:
    last = noise(pixel_format, 322, 180)
    before = planes(last)
    card = offline_card(last, 0, 0, LINES)
    assert (card.width, card.height, card.format.name) == (322, 180, pixel_format)
    assert all(np.array_equal(a, b) for a, b in zip(before, planes(last), strict=True)), "it is shared: left alone"
    floor = 0 if pixel_format == "yuvj420p" else 16
    top = plane(card, 0)[:30].astype(float)
    assert np.abs(top - (before[0][:30] * 0.3 + floor * 0.7)).max() <= 0.5
    for index in range(1, len(before)):
        assert np.abs(plane(card, index).astype(float) - (before[index] * 0.3 + 128 * 0.7)).max() <= 0.5
    # The dimmed noise is below 90. How many pixels a letter has differs between OpenCV 4 and 5.
    assert (plane(card, 0)[70:130] > 200).sum() > 100, "bright letters in the middle"


def test_without_a_picture_it_is_black() -> None:
    card = offline_card(None, 640, 360, LINES)
    assert (card.width, card.height) == (640, 360)
    assert (plane(card, 0)[:100] == 16).all()
    assert (plane(card, 1) == 128).all()
    assert (plane(card, 0)[140:240] > 200).any()


def test_what_cannot_be_drawn_on_is_converted() -> None:
    assert offline_card(noise("yuv444p", 64, 36).reformat(format="rgb24"), 0, 0, LINES).format.name == "yuv420p"
