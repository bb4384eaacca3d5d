"""The lead vehicle: the rule on drawn label maps with known answers, the views, and the task's figures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.errors import UsageError
from training.catalogue import open_task, read_recipe
from training.data.augmentation import random_photometry
from training.data.lead_vehicle import (
    CITYSCAPES_CORRIDOR,
    LARGEST_ZOOM,
    LeadVehicles,
    find_lead_vehicle,
    large_enough,
    load_lead_vehicles,
)  # fmt: skip
from training.recipe import Augmentation
from training.tasks.lead_vehicle import LeadVehicleViews

PAIRS = Path(__file__).parents[4] / "shared" / "data" / "cityscapes_pairs"

ROAD, BUILDING, CAR, TRUCK, BUS, PERSON = 0, 2, 13, 14, 15, 11
Rectangle = tuple[int, int, int, int, int]


def street(*vehicles: Rectangle) -> NDArray[np.uint8]:
    """A 256×256 label map: houses above the horizon, road below, and rectangles (class, x1, y1, x2, y2)."""
    label = np.full((256, 256), BUILDING, np.uint8)
    label[107:] = ROAD
    for class_id, x1, y1, x2, y2 in vehicles:
        label[y1:y2, x1:x2] = class_id
    return label


AHEAD = (CAR, 112, 100, 152, 150)


@pytest.mark.parametrize(
    ("vehicles", "wanted"),
    [
        pytest.param((), None, id="an empty road"),
        pytest.param((AHEAD,), AHEAD, id="a car ahead"),
        pytest.param(((TRUCK, 110, 60, 160, 150),), (TRUCK, 110, 60, 160, 150), id="a truck ahead"),
        pytest.param(((BUS, 110, 60, 160, 150),), (BUS, 110, 60, 160, 150), id="a bus ahead"),
        pytest.param(((PERSON, 112, 100, 152, 150),), None, id="a person is no vehicle"),
        pytest.param(((CAR, 190, 100, 240, 160),), None, id="parked at the right"),
        pytest.param(((CAR, 10, 100, 60, 160),), None, id="in the lane to the left"),
        pytest.param(((CAR, 10, 90, 100, 190), AHEAD), AHEAD, id="a larger one beside the road"),
        pytest.param((AHEAD, (CAR, 128, 104, 138, 118)), AHEAD, id="the one ahead hides another"),
        pytest.param(((CAR, 130, 100, 136, 110),), None, id="too far away"),
        pytest.param(((CAR, 112, 60, 152, 100),), None, id="above the horizon"),
        pytest.param(((CAR, 20, 100, 240, 135),), None, id="a row of cars that cross"),
    ],
)
def test_the_lead_vehicle_is_the_one_in_the_corridor(vehicles: tuple[Rectangle, ...], wanted: Rectangle | None) -> None:
    found = find_lead_vehicle(street(*vehicles))
    if wanted is None:
        assert found is None
        return
    assert found is not None
    assert found.class_id == wanted[0]
    assert found.box * 256 == pytest.approx(wanted[1:])
    assert found.area == pytest.approx((wanted[3] - wanted[1]) * (wanted[4] - wanted[2]) / 256**2)


def test_touching_vehicles_are_taken_apart_where_their_feet_jump() -> None:
    """A row parked at the left, nearer and touching the car ahead: one component, two vehicles."""
    found = find_lead_vehicle(street((CAR, 20, 90, 110, 190), (CAR, 110, 100, 150, 150)))
    assert found is not None
    assert found.box * 256 == pytest.approx([110, 100, 150, 150])


def test_hairs_of_a_blurred_label_do_not_stretch_the_box() -> None:
    label = street(AHEAD)
    label[120:122, 152:240] = CAR
    label[30:100, 130] = CAR
    found = find_lead_vehicle(label)
    assert found is not None
    assert found.box * 256 == pytest.approx(AHEAD[1:])


def test_a_class_map_of_another_size_gives_the_same_box() -> None:
    small = find_lead_vehicle(street(AHEAD))
    large = find_lead_vehicle(cv2.resize(street(AHEAD), (512, 384), interpolation=cv2.INTER_NEAREST_EXACT))
    assert small is not None
    assert large is not None
    assert large.box == pytest.approx(small.box, abs=1 / 128)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 230), st.integers(0, 230), st.integers(3, 200), st.integers(3, 200), st.sampled_from([13, 14, 15])
)
def test_whatever_is_found_lies_in_the_picture_and_is_large_enough(
    x: int, y: int, width: int, height: int, class_id: int
) -> None:
    found = find_lead_vehicle(street((class_id, x, y, min(x + width, 256), min(y + height, 256))))
    if found is not None:
        assert np.all((found.box >= 0) & (found.box <= 1))
        assert large_enough(found.box, found.area)
        foot = CITYSCAPES_CORRIDOR.offset(float(found.box[0] + found.box[2]) / 2, float(found.box[3]))
        assert abs(foot) <= 1


def test_offsets_are_counted_in_half_widths_of_the_corridor() -> None:
    corridor = CITYSCAPES_CORRIDOR
    assert corridor.offset(corridor.vanishing_x, 0.3) == float("inf")
    assert corridor.offset(corridor.bottom_x, 1.0) == pytest.approx(0)
    assert corridor.offset(corridor.bottom_x + corridor.half_width, 1.0) == pytest.approx(1)


@pytest.fixture
def data() -> LeadVehicles:
    """Four pictures; in the second a white block is the vehicle ahead, in the third one that is a little too small."""
    photos = np.zeros((4, 64, 64, 3), np.uint8)
    boxes = np.zeros((4, 4), np.float32)
    boxes[1], boxes[2] = (0.4, 0.4, 0.6, 0.6), (0.48, 0.42, 0.53, 0.42 + CITYSCAPES_CORRIDOR.min_height / 1.3)
    x1, y1, x2, y2 = np.rint(boxes[1] * 64).astype(int)
    photos[1, y1:y2, x1:x2] = 255
    boxes[1] = np.array([x1, y1, x2, y2]) / 64
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    present = np.array([False, True, False, False])
    return LeadVehicles(photos, ("a", "b", "c", "d"), boxes, areas, present, "drawn")


def test_a_view_keeps_the_box_on_the_vehicle(data: LeadVehicles) -> None:
    views = LeadVehicleViews(data, 0.45, Augmentation(scale=(0.85, LARGEST_ZOOM), aspect=0.2, photometry=0.0))
    for seed in range(40):
        photo, box, present = views(1, np.random.default_rng(seed))
        assert present
        bright = photo[..., 0] > 127
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        seen = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / 64
        assert box == pytest.approx(seen, abs=1.1 / 64)


def test_what_a_view_makes_large_enough_counts(data: LeadVehicles) -> None:
    near = LeadVehicleViews(data, 0.0, Augmentation(scale=(1.5, 1.5), aspect=0.0, photometry=0.0))
    far = LeadVehicleViews(data, 0.0, Augmentation(scale=(0.9, 0.9), aspect=0.0, photometry=0.0))
    flags = [[bool(views(2, np.random.default_rng(seed))[2]) for seed in range(10)] for views in (near, far)]
    assert all(flags[0])
    assert not any(flags[1])


def test_pictures_without_a_vehicle_give_way_as_often_as_is_asked_for(data: LeadVehicles) -> None:
    views = LeadVehicleViews(data, 0.45, Augmentation(scale=(1.0, 1.0), aspect=0.0, photometry=0.0))
    shown = [views(index % 4, np.random.default_rng(index))[2] for index in range(1200)]
    assert np.mean(shown) == pytest.approx(0.45, abs=0.05)


def test_a_view_is_a_function_of_its_random_state(data: LeadVehicles) -> None:
    views = LeadVehicleViews(data, 0.45, Augmentation())
    first, second = (views(1, np.random.default_rng(7)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert random_photometry(data.photos[1], np.random.default_rng(0), 0.0).shape == (64, 64, 3)


def test_figures_of_answers_that_are_known(data: LeadVehicles) -> None:
    task = open_task(read_recipe("lead-vehicle"))
    boxes = np.broadcast_to(np.array([0.4, 0.4, 0.6, 0.5], np.float32), (4, 1, 4))
    scores = np.array([[0.1], [0.9], [0.2], [0.6]], np.float32)
    rows = task.measure({"boxes": boxes, "scores": scores}, data, range(4))
    assert rows[:, 0].tolist() == [0, 1, 0, 0]
    found = task.scores(rows)
    assert found["presence_ap"] == 1
    half = 0.1 / float(data.boxes[1][3] - data.boxes[1][1])  # the box found is that much of the true one, sides equal
    assert found["mean_iou"] == pytest.approx(half, abs=0.1)
    assert found["accuracy"] == pytest.approx(0.75)
    assert found["detection_ap_75"] == 0


def test_the_network_of_the_recipe_says_one_box_and_one_score() -> None:
    import torch

    task = open_task(read_recipe("lead-vehicle", ["encoder_weights=null", "frozen_stages=0"]))
    model = task.build_model().eval()
    assert sum(parameter.numel() for parameter in model.parameters()) * 4 < 5e6
    with torch.inference_mode():
        outputs = task.predict(model, torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
    assert outputs["boxes"].shape == (2, 1, 4)
    assert outputs["scores"].shape == (2, 1)
    # Nothing learnt yet: nothing is claimed.
    assert float(outputs["scores"].max()) < 0.1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["height=250"], "height and width are multiples of 16 with 4 encoder stages, 250×256 is not"),
        (["encoder_stages=3", "grid_stride=16"], "3 encoder stages end at stride 8, and grid_stride = 16 is coarser"),
    ],
)
def test_a_grid_that_does_not_come_out_even_is_refused(changes: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        open_task(read_recipe("lead-vehicle", changes)).check()


def test_a_loss_is_finite_with_and_without_vehicles() -> None:
    import torch

    task = open_task(read_recipe("lead-vehicle", ["encoder_weights=null", "frozen_stages=0"]))
    model = task.build_model()
    pictures = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    boxes = torch.tensor([[0.4, 0.4, 0.6, 0.6], [0.0, 0.0, 0.0, 0.0]])
    for present in ([True, False], [False, False]):
        loss = task.loss(model, (pictures, boxes, torch.tensor(present)), 0)
        loss.backward()
        assert torch.isfinite(loss)
        assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_pairs_are_read_at_the_size_that_is_asked_for(pairs_folder: Path) -> None:
    found = load_lead_vehicles(pairs_folder, "val", 64, 96)
    assert found.photos.shape == (4, 64, 96, 3)
    assert found.boxes.shape == (4, 4)
    assert found.names == tuple(sorted(found.names, key=lambda name: int(name.split(".")[0])))


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.skipif(not PAIRS.is_dir(), reason="the Cityscapes pairs are not beside this checkout")
def test_about_a_fifth_of_the_pairs_have_a_lead_vehicle() -> None:
    dev = load_lead_vehicles(PAIRS, "dev", 256, 256)
    assert len(dev) == 148
    assert int(dev.present.sum()) == 32
