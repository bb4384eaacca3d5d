"""Bars and panels: found over time, given back, and never made of a night or a sky."""

from __future__ import annotations

from collections.abc import Callable

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.analysis.margin_watch import MarginWatch
from pipeline.analysis.margins import Margins, find_margins
from pipeline.frame import Rect
from pipeline.pictures.planes import plane

UInt8 = NDArray[np.uint8]
WIDTH, HEIGHT = 320, 180
ROAD = np.random.default_rng(3).integers(30, 220, (HEIGHT, WIDTH * 2), np.uint8)


def road(index: int) -> UInt8:
    """A picture that moves."""
    return cv2.blur(ROAD, (5, 5))[:, 7 * index % WIDTH :][:, :WIDTH].copy()


def letterbox(index: int) -> UInt8:
    luma = road(index)
    luma[:24] = luma[-24:] = 16
    return luma


def pillarbox(index: int) -> UInt8:
    luma = road(index)
    luma[:, :40] = luma[:, -40:] = 16
    return luma


def windowbox(index: int) -> UInt8:
    luma = letterbox(index)
    luma[:, :30] = luma[:, -30:] = 16
    return luma


def panel(index: int) -> UInt8:
    """With writing, of which the numbers change, and a curve that grows."""
    luma = road(index)
    luma[:, 220:] = 34
    cv2.putText(luma, f"MSE {index}", (226, 60), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 200)
    cv2.line(luma, (230, 150), (231 + 4 * index, 150 - 2 * index), 180)
    luma[:52, :] = 16
    cv2.putText(luma, "Category: rain", (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 220)
    cv2.putText(luma, f"Frame {index}", (8, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 220)
    return luma


def night(index: int) -> UInt8:
    """Black, and lights that come out of the distance."""
    luma = np.full((HEIGHT, WIDTH), 16, np.uint8)
    for k in range(12):
        away = 10 + (13 * k + 9 * index) % 120
        place = (round(160 + away * np.cos(k)), round(100 - 0.7 * away * abs(np.sin(k))))
        cv2.circle(luma, place, 1 + away // 16, 180, -1)
    cv2.fillPoly(luma, [np.array([(120, 110), (200, 110), (300, 179), (20, 179)])], 60 + 9 * (index % 5))
    return luma


def clear_sky(index: int) -> UInt8:
    """One level all over, above a horizon that nods."""
    luma = road(index)
    luma[: 70 + 3 * (index % 4)] = 210
    return luma


WHOLE = Rect(0, 0, WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("picture", "crop"),
    [
        (road, WHOLE),
        (letterbox, Rect(0, 24, WIDTH, HEIGHT - 24)),
        (pillarbox, Rect(40, 0, WIDTH - 40, HEIGHT)),
        (windowbox, Rect(30, 24, WIDTH - 30, HEIGHT - 24)),
        (panel, Rect(0, 52, 220, HEIGHT)),
        (night, WHOLE),
        (clear_sky, WHOLE),
    ],
)
def test_what_is_cut_off(picture: Callable[[int], UInt8], crop: Rect) -> None:
    watch = MarginWatch(WIDTH, HEIGHT)
    found = [watch.watch(gray(picture(index)), index / 4).crop for index in range(20)]
    assert found[-1] == crop
    assert found[0] == WHOLE  # one frame says nothing


def test_a_panel_along_a_part_of_an_edge_is_a_polygon() -> None:
    watch = MarginWatch(WIDTH, HEIGHT)
    for index in range(8):
        luma = road(index)
        luma[:40, :160] = 16
        margins = watch.watch(gray(luma), index / 4)
    assert margins.crop == WHOLE
    (polygon,) = margins.panels
    assert {(round(x, -1), round(y, -1)) for x, y in polygon} == {(0, 0), (160, 0), (160, 40), (0, 40)}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("level", [16, 128, 235])
def test_where_nothing_is_seen_nothing_is_cut_off(level: int) -> None:
    """A camera that is covered, or faces a wall."""
    plain = np.full((72, 128), level, np.uint8)
    assert find_margins(plain, plain) == Margins(Rect(0, 0, 128, 72))


def test_a_dark_beginning_is_no_bar() -> None:
    watch = MarginWatch(WIDTH, HEIGHT)
    for index in range(12):
        margins = watch.watch(gray(np.full((HEIGHT, WIDTH), 16, np.uint8)), index / 4)
    assert margins.crop == WHOLE


def test_bars_are_given_back_as_soon_as_something_is_seen_in_them() -> None:
    watch = MarginWatch(WIDTH, HEIGHT)
    for index in range(12):
        margins = watch.watch(gray(letterbox(index)), index / 4)
    assert margins.crop != WHOLE
    assert watch.watch(gray(road(12)), 3.0).crop == WHOLE


def test_pictures_from_all_over_a_recording_tell_before_its_first_frame() -> None:
    watch = MarginWatch(WIDTH, HEIGHT)
    watch.learn(gray(pillarbox(index)) for index in range(6))
    assert watch.margins.crop == Rect(40, 0, WIDTH - 40, HEIGHT)


def test_large_pictures_are_thinned_and_no_line_of_a_bar_is_left() -> None:
    watch = MarginWatch(2 * 1280, 96)
    for index in range(6):
        luma = cv2.resize(road(index), (2560, 96))
        luma[:, :301] = luma[:, -301:] = 16
        margins = watch.watch(gray(luma), index / 4)
    assert 301 <= margins.crop.x1 <= 304
    assert 2560 - 304 <= margins.crop.x2 <= 2560 - 301


def gray(luma: UInt8) -> av.VideoFrame:
    image = av.VideoFrame(luma.shape[1], luma.shape[0], "yuv420p")
    for index in (1, 2):
        plane(image, index)[:] = 128
    plane(image, 0)[:] = luma
    return image
