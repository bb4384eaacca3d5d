from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import roadlens
from numpy.typing import NDArray

from engines.engine import Prediction
from pipeline.analysis.fuse import FuseOptions, Fuser
from pipeline.analysis.ignore import IgnoreOptions
from pipeline.analysis.own_car import SETTLED, OwnCar
from pipeline.config import Config, StreamConfig
from pipeline.frame import Rect
from tests.pipeline.analysis.test_fuse import UNET, frame

UInt8 = NDArray[np.uint8]
CROP = Rect(0, 0, 640, 360)
HEIGHT, WIDTH, BONNET = 100, 200, 20
CLIP = Path(__file__).parents[4] / "shared/data/footage/highway_1280x720_25fps_h264_4s.mp4"


def class_map(*, seen: bool, rows: int = BONNET, columns: slice = slice(None), lift: int = 0) -> UInt8:
    """A road, and of a bonnet over the lower rows what the segmenter sees."""
    result = np.zeros((HEIGHT, WIDTH), np.uint8)
    if seen:
        result[HEIGHT - rows - lift : HEIGHT - lift, columns] = 255
    return result


def shown(looks: list[UInt8], rate: float = 10, crop: Rect = CROP, start: float = 0.0) -> list[UInt8]:
    kept = OwnCar()
    return [kept.fill(look, None, crop, start + index / rate)[0] for index, look in enumerate(looks)]


def share(found: UInt8) -> float:
    """Of the bonnet that has no class."""
    return float((found[-BONNET:] == 255).mean())


def test_what_was_the_own_car_in_most_looks_is_it_in_all() -> None:
    looks = [class_map(seen=index % 4 != 3) for index in range(40)]
    assert [share(look) for look in looks].count(0.0) == 10
    assert {share(found) for found in shown(looks)[3:]} == {1.0}


def test_a_part_that_is_seldom_seen_is_told_by_its_neighbours() -> None:
    """The sun leaves a part of it in four looks of five; what is left often enough reaches it."""
    left = slice(0, WIDTH // 2)
    looks = [class_map(seen=True, columns=slice(None) if index % 5 == 0 else left) for index in range(30)]
    assert {share(found) for found in shown(looks)[10:]} == {1.0}


def test_hardly_more_than_the_bonnet_is_taken() -> None:
    road = shown([class_map(seen=True) for _ in range(30)])[-1][:-BONNET]
    assert 0 < (road == 255).mean() <= 2 / (HEIGHT - BONNET)


@pytest.mark.parametrize(
    "looks",
    [
        [class_map(seen=index % 10 == 0) for index in range(60)],
        [class_map(seen=True, lift=10) if index % 2 else class_map(seen=False) for index in range(60)],
    ],
    ids=["seldom", "does not reach the lower edge"],
)
def test_what_is_no_bonnet_is_not_kept(looks: list[UInt8]) -> None:
    for look, found in zip(looks[1:], shown(looks)[1:], strict=True):
        np.testing.assert_array_equal(found, look)


def test_a_camera_that_was_turned_is_seen_as_it_is_now_after_a_while() -> None:
    looks = [class_map(seen=index < 50) for index in range(50 + round(SETTLED * 10) + 1)]
    found = shown(looks)
    assert share(found[51]) == 1.0
    assert share(found[-1]) == 0.0


@pytest.mark.parametrize("start", [3.0, 4.7, 7.3])
def test_it_does_not_matter_when_it_began(start: float) -> None:
    """A resumed run looks again at as much as `SETTLED` says, and shows what it would have shown."""
    random = np.random.default_rng(1)
    looks = [np.where(random.random((HEIGHT, WIDTH)) < 0.3, 255, class_map(seen=True, rows=9)) for _ in range(150)]
    looks = [look.astype(np.uint8) for look in looks]
    first, settled = round(start * 10), round(SETTLED * 10)
    whole, resumed = shown(looks)[first + settled :], shown(looks[first:], start=start)[settled:]
    for a, b in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_crop_and_a_jump_in_time_begin_anew() -> None:
    kept, bonnet, road = OwnCar(), class_map(seen=True), class_map(seen=False)
    for index in range(10):
        kept.fill(bonnet, None, CROP, index / 10)
    assert share(kept.fill(road, None, Rect(0, 20, 640, 340), 1.1)[0]) == 0.0
    for index in range(10):
        kept.fill(bonnet, None, CROP, 2 + index / 10)
    assert share(kept.fill(road, None, CROP, 100.0)[0]) == 0.0


def test_what_was_added_is_not_sure_and_nothing_given_is_written_to() -> None:
    kept, bonnet, road = OwnCar(), class_map(seen=True), class_map(seen=False)
    for index in range(5):
        kept.fill(bonnet, None, CROP, index / 10)
    sure = np.full_like(road, 200)
    found, confidence = kept.fill(road, sure, CROP, 0.5)
    assert confidence is not None
    assert {*np.unique(confidence[found == 255])} == {0}
    assert {*np.unique(confidence[found != 255])} == {200}
    assert not road.any()
    assert {*np.unique(sure)} == {200}


@pytest.mark.parametrize("own_car", [True, False])
def test_areas_leave_it_out(own_car: bool) -> None:
    fuser, area = Fuser([UNET], FuseOptions(), own_car=own_car), {}
    for index in range(10):
        seen = np.zeros((32, 64), np.uint8)
        seen[24:] = 0 if index == 9 else 255
        area = fuser.fuse(frame(index), "file", {"unet": Prediction(class_map=seen)}).area
    assert area["road"] == (pytest.approx(22 / 32) if own_car else 1.0)


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.skipif(not CLIP.exists(), reason="no development data beside the checkout")
def test_of_a_real_clip_the_whole_bonnet_is_left_out() -> None:
    """The lowest 5 % of its pictures are the bonnet, over the whole width."""

    def left_out(*, own_car: bool) -> float:
        stream = StreamConfig(str(CLIP), ignore=IgnoreOptions(own_car=own_car))
        maps = [analysis.class_map for analysis in roadlens.analyse(config=Config((stream,)))]
        return float(np.mean([class_map[-len(class_map) // 20 :] == 255 for class_map in maps]))

    assert left_out(own_car=False) < 0.9
    assert left_out(own_car=True) > 0.95
