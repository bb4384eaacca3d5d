"""The synthetic street: same question, same answer; labels that say what the picture shows; boxes that fit."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES
from pipeline.frame import Box
from pipeline.scene.canvas import CAMERA_HEIGHT, CLASS
from pipeline.scene.cover import Cover
from pipeline.scene.drive import SyntheticScene
from pipeline.scene.street import Road, World

SMALL = (320, 180)
THINGS = [info.id for info in CITYSCAPES_CLASSES if info.thing]
DRIVING = range(300_000_000, 500_000_000)
PARKED = range(100_000_000, 300_000_000)


def _eroded(mask: NDArray[np.bool_], by: int = 2) -> NDArray[np.bool_]:
    square = np.ones((2 * by + 1, 2 * by + 1), np.uint8)
    return cv2.erode(mask.astype(np.uint8), square, borderValue=0).astype(bool)


def test_a_frame_depends_on_nothing_but_its_index() -> None:
    one, other = SyntheticScene(*SMALL, seed=4), SyntheticScene(*SMALL, seed=4)
    forwards = [one.frame(index) for index in (0, 7, 31)]
    backwards = [other.frame(index) for index in (31, 7, 0)][::-1]
    for (picture, label, boxes), (picture2, label2, boxes2) in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(picture, picture2)
        np.testing.assert_array_equal(label, label2)
        assert boxes == boxes2


def test_frames_are_the_callers_to_keep() -> None:
    scene = SyntheticScene(*SMALL)
    picture, label, _ = scene.frame(0)
    kept = picture.copy(), label.copy()
    picture[:], label[:] = 0, 0
    again = scene.frame(0)
    np.testing.assert_array_equal(again[0], kept[0])
    np.testing.assert_array_equal(again[1], kept[1])


def test_the_same_moment_at_another_rate() -> None:
    slow, fast = SyntheticScene(*SMALL, fps=Fraction(25)), SyntheticScene(*SMALL, fps=50)
    np.testing.assert_array_equal(slow.frame(20)[0], fast.frame(40)[0])


def test_seeds_make_different_towns() -> None:
    pictures = [SyntheticScene(*SMALL, seed=seed).frame(0)[0].astype(int) for seed in (0, 1, 2)]
    assert np.abs(pictures[0] - pictures[1]).mean() > 5
    assert np.abs(pictures[1] - pictures[2]).mean() > 5


@pytest.mark.seconds
@pytest.mark.parametrize(("size", "seed", "index"), [(SMALL, 0, 0), (SMALL, 5, 333), ((960, 540), 2, 40)])
def test_a_picture_alone_is_that_of_the_frame(size: tuple[int, int], seed: int, index: int) -> None:
    scene = SyntheticScene(*size, seed=seed)
    np.testing.assert_array_equal(scene.picture(index), scene.frame(index)[0])


@pytest.mark.seconds
@pytest.mark.parametrize("seed", [0, 2, 3])
def test_what_is_left_out_is_not_seen(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = SyntheticScene(641, 360, seed=seed)
    for index in (0, 77, 400):
        picture, label, boxes = scene.frame(index)
        with monkeypatch.context() as blind:
            blind.setattr(Cover, "add", lambda *_: None)
            all_of_it, labelled, all_boxes = scene.frame(index)
        assert boxes == all_boxes
        # what is cut elsewhere is rounded otherwise along its rim
        assert (label != labelled).mean() < 2e-4
        assert (np.abs(picture.astype(int) - all_of_it).max(2) > 2).mean() < 5e-3


_EDGES = st.tuples(st.floats(-60, 200), st.floats(-60, 150), st.floats(0, 120))


@given(
    walls=st.lists(st.tuples(_EDGES, _EDGES), max_size=6),
    region=st.tuples(st.integers(-9, 140), st.integers(-9, 70), st.integers(0, 70), st.integers(0, 70)),
)
def test_only_what_walls_cover_is_hidden(
    walls: list[tuple[tuple[float, float, float], tuple[float, float, float]]], region: tuple[int, int, int, int]
) -> None:
    width, height = 133, 75
    cover, covered = Cover(width, height), np.zeros((height, width), bool)
    v, u = np.mgrid[:height, :width] + 0.5
    for (u1, top1, tall1), (u2, top2, tall2) in walls:
        cover.add((u1, top1, top1 + tall1), (u2, top2, top2 + tall2))
        if abs(u1 - u2) > 1e-3:
            share = (u - u1) / (u2 - u1)
            top, end = top1 + share * (top2 - top1), top1 + tall1 + share * (top2 + tall2 - top1 - tall1)
            covered |= (share >= 0) & (share <= 1) & (v >= top) & (v <= end)
    x1, y1, wide, tall = region
    asked = np.zeros_like(covered)
    asked[max(y1, 0) : max(y1 + tall, 0), max(x1, 0) : max(x1 + wide, 0)] = True
    left, top, right, bottom = cover.visible(x1, y1, x1 + wide, y1 + tall) or (0, 0, 0, 0)
    seen = np.zeros_like(covered)
    seen[top:bottom, left:right] = True
    assert not (seen & ~asked).any()
    assert not (asked & ~seen & ~covered).any()


@settings(max_examples=30, deadline=None)
@given(
    width=st.integers(16, 240),
    height=st.integers(16, 240),
    seed=st.integers(0, 2),
    traffic=st.integers(0, 16),
    index=st.integers(0, 100_000),
)
def test_any_size(width: int, height: int, seed: int, traffic: int, index: int) -> None:
    picture, label, boxes = SyntheticScene(width, height, seed=seed, traffic=traffic).frame(index)
    assert picture.shape == (height, width, 3)
    assert label.shape == (height, width)
    assert picture.dtype == label.dtype == np.uint8
    assert label.max() < len(CITYSCAPES_CLASSES)
    for box in boxes:
        assert 0 <= box.x1 < box.x2 <= width
        assert 0 <= box.y1 < box.y2 <= height
        assert box.class_id in THINGS
        assert box.label == CITYSCAPES_CLASSES[box.class_id].name
    assert len({box.track for box in boxes}) == len(boxes)


@pytest.mark.seconds
@pytest.mark.parametrize("seed", [0, 1, 3])
@pytest.mark.parametrize("size", [SMALL, (960, 540)])
def test_every_pixel_of_a_class_looks_like_it(seed: int, size: tuple[int, int]) -> None:
    scene = SyntheticScene(*size, seed=seed)
    for index in (0, 90):
        picture, label, _ = scene.frame(index)
        r, g, b = (picture[..., channel].astype(int) for channel in range(3))
        sky = _eroded(label == CLASS["sky"])
        assert sky.sum() > 0.01 * sky.size
        assert (b[sky] >= r[sky] - 4).mean() > 0.99
        assert g[sky].min() > 120
        road = _eroded(label == CLASS["road"])
        assert np.abs(r - b)[road].mean() < 12
        assert np.median(g[road]) < 120
        green = _eroded(label == CLASS["vegetation"])
        if green.any():
            assert (g[green] >= b[green]).mean() > 0.9
            assert np.median(g[green] - b[green]) > 15


@pytest.mark.seconds
def test_a_label_edge_is_a_picture_edge() -> None:
    """Along the border of the sky the picture changes far more than inside it or beside it."""
    picture, label, _ = SyntheticScene(960, 540, seed=1).frame(0)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    steep = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    sky = label == CLASS["sky"]
    border = sky & ~_eroded(sky, 1)
    border[0], border[:, 0], border[:, -1] = False, False, False
    assert np.median(steep[border]) > 8 * np.median(steep[_eroded(sky, 4)])


def _inside(box: Box, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask[int(box.y1) : int(box.y2), int(box.x1) : int(box.x2)]


@pytest.mark.parametrize("index", range(0, 250, 50))
def test_boxes_hold_all_things_and_fit(index: int) -> None:
    _, label, boxes = SyntheticScene(640, 360, seed=1).frame(index)
    for class_id in THINGS:
        mine = [box for box in boxes if box.class_id == class_id]
        mask = label == class_id
        covered = np.zeros_like(mask)
        for box in mine:
            part = _inside(box, mask)
            assert part[0].any(), box
            assert part[-1].any(), box
            assert part[:, 0].any(), box
            assert part[:, -1].any(), box
            _inside(box, covered)[:] = True
        assert not (mask & ~covered).any()


def test_a_thing_that_stands_alone_has_the_box_of_its_component() -> None:
    alone = 0
    scene = SyntheticScene(640, 360, seed=1)
    for index in range(0, 200, 20):
        _, label, boxes = scene.frame(index)
        for class_id in THINGS:
            mask = (label == class_id).astype(np.uint8)
            _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
            for x, y, width, height, area in stats[1:].tolist():
                touching = [
                    box
                    for box in boxes
                    if box.class_id == class_id
                    and box.x1 < x + width + 1
                    and box.x2 > x - 1
                    and box.y1 < y + height + 1
                    and box.y2 > y - 1
                ]
                if len(touching) == 1 and area > 0.3 * width * height and area > 40:
                    box = touching[0]
                    outer = (min(box.x1, x), min(box.y1, y), max(box.x2, x + width), max(box.y2, y + height))
                    assert (box.x1, box.y1, box.x2, box.y2) == outer
                    alone += (box.x2 - box.x1, box.y2 - box.y1) == (width, height)
    assert alone > 20


@pytest.mark.seconds
def test_objects_keep_their_number_their_class_and_their_place() -> None:
    scene = SyntheticScene(640, 360, seed=2)
    before = {box.track: box for box in scene.frame(0)[2]}
    survivors = followed = 0
    for index in range(1, 50):
        now = {box.track: box for box in scene.frame(index)[2]}
        for track in before.keys() & now.keys():
            a, b = before[track], now[track]
            assert a.class_id == b.class_id
            if (a.x2 - a.x1) * (a.y2 - a.y1) < 150:
                continue
            across = min(a.x2, b.x2) - max(a.x1, b.x1)
            down = min(a.y2, b.y2) - max(a.y1, b.y1)
            followed += 1
            survivors += across > 0 and down > 0
        assert len(before.keys() & now.keys()) >= 0.7 * min(len(before), len(now))
        before = now
    assert followed > 200
    assert survivors > 0.99 * followed


def test_without_traffic_nothing_drives() -> None:
    quiet, busy = SyntheticScene(*SMALL, traffic=0), SyntheticScene(*SMALL, traffic=12)
    assert not any(box.track in DRIVING for index in (0, 50, 100) for box in quiet.frame(index)[2])
    assert sum(box.track in DRIVING for box in busy.frame(0)[2]) >= 6


def test_what_is_parked_comes_nearer() -> None:
    scene = SyntheticScene(640, 360, seed=3)
    earlier = {box.track: box for box in scene.frame(0)[2] if box.track in PARKED}
    later = {box.track: box for box in scene.frame(15)[2]}
    growth = [
        (later[track].y2 - later[track].y1) / (box.y2 - box.y1)
        for track, box in earlier.items()
        if track in later and box.x1 > 0 and box.x2 < 640
    ]
    assert len(growth) >= 3
    assert np.median(growth) > 1.05


def test_the_road_passes_under_the_camera() -> None:
    """The ground of one frame, moved by the camera's own way on, is the ground of the next."""
    scene = SyntheticScene(640, 360, seed=5, traffic=0)
    now, label, _ = scene.frame(100)
    then = scene.frame(101)[0]
    moved = scene.world.camera(101 / 25) - scene.world.camera(100 / 25)
    v, u = np.mgrid[240:330, 200:440].astype(np.float32)
    assert (label[240:330, 200:440] == CLASS["road"]).mean() > 0.95
    z = scene.focal * CAMERA_HEIGHT / (v + 0.5 - scene.horizon)
    x = (u + 0.5 - 320) * z / scene.focal
    nearer = z - np.float32(moved)
    map_x = scene.focal * x / nearer + 320 - 0.5
    map_y = scene.focal * CAMERA_HEIGHT / nearer + scene.horizon - 0.5
    seen = cv2.remap(then, map_x.astype(np.float32), map_y.astype(np.float32), cv2.INTER_LINEAR).astype(int)
    inside = map_y < 358
    here = now[240:330, 200:440].astype(int)
    still = then[240:330, 200:440].astype(int)
    assert np.abs(seen - here)[inside].mean() < 0.7 * np.abs(still - here)[inside].mean()


@given(seed=st.integers(0, 50), s=st.floats(0, 5000), ahead=st.floats(0, 200))
def test_the_bend_is_the_heading_added_up(seed: int, s: float, ahead: float) -> None:
    road = Road(seed)
    steps = np.linspace(0, ahead, 2001)
    turned = np.array([road.heading(s + step) for step in steps.tolist()]) - road.heading(s)
    assert float(road.bend(s, np.array(ahead))) == pytest.approx(float(np.trapezoid(turned, steps)), abs=1e-3)


def test_the_camera_drives_at_town_speed() -> None:
    world = World(seed=9, traffic=0)
    places = np.array([world.camera(time) for time in np.arange(0, 600, 0.5).tolist()])
    speeds = np.diff(places) / 0.5
    assert speeds.min() > 8
    assert speeds.max() < 13
