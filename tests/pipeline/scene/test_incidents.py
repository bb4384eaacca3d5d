"""What the synthetic drive stages, and where it says that things are."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.scene.canvas import CAMERA_HEIGHT
from pipeline.scene.drive import SyntheticScene
from pipeline.scene.incidents import INCIDENTS, LENGTH, moving_time, staged

LEAD, OVERTAKER, CROSSING = 300_000_000, 310_000_000, 910_000_000
FPS = 10


def scene() -> SyntheticScene:
    return SyntheticScene(320, 180, FPS, seed=3, traffic=2, incidents=True)


def test_incidents_come_in_turn_and_without_them_nothing_changes() -> None:
    assert [staged(k * LENGTH + 1).incident for k in range(5)] == [*INCIDENTS, "approach"]
    quiet, same = SyntheticScene(320, 180, seed=3), SyntheticScene(320, 180, seed=3, incidents=False)
    np.testing.assert_array_equal(quiet.picture(40), same.picture(40))


def test_the_vehicle_ahead_comes_near_and_its_speed_is_that_of_its_distance() -> None:
    drive = scene()
    places = [drive.places(index)[LEAD] for index in range(int(LENGTH) * FPS)]
    distance = np.array([place.distance for place in places])
    assert distance.max() > 35
    assert 3 < distance.min() < 8
    assert min(place.contact for place in places) < 1.5
    closing = np.array([place.closing for place in places])
    np.testing.assert_allclose(closing[1:-1], -(distance[2:] - distance[:-2]) / 2 * FPS, atol=0.5)


def test_somebody_cuts_in_and_somebody_crosses() -> None:
    drive = scene()
    cutting = [drive.places(index).get(OVERTAKER) for index in range(20 * FPS, 40 * FPS)]
    across = [place.across for place in cutting if place is not None and 5 < place.distance < 12]
    assert min(across) < -2
    assert abs(across[-1]) < 1.5
    crossing = [drive.places(index).get(CROSSING) for index in range(40 * FPS, 60 * FPS)]
    nearest = min((place for place in crossing if place is not None), key=lambda place: abs(place.across))
    assert nearest.distance == pytest.approx(14, abs=1.5)


def test_the_car_stands_and_goes_on_as_before() -> None:
    times = np.arange(0, 80, 0.1)
    speed = np.diff([moving_time(time) for time in times]) / 0.1
    assert speed.max() == pytest.approx(1)
    assert (speed < 1e-6).sum() * 0.1 == pytest.approx(6, abs=0.3)
    assert speed[0] == pytest.approx(1)
    assert speed[-1] == pytest.approx(1)


def test_boxes_stand_where_the_places_say() -> None:
    drive = SyntheticScene(640, 360, FPS, seed=3, traffic=2)
    _, _, boxes = drive.frame(50)
    (box,) = (box for box in boxes if box.track == LEAD)
    place = drive.places(50)[LEAD]
    # The wheels touch the road some 0.7 m before the rear end.
    assert drive.focal * CAMERA_HEIGHT / (box.y2 - drive.horizon) - 0.7 == pytest.approx(place.distance, rel=0.06)
