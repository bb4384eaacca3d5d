"""The road ahead on a road made by arithmetic: distances, contacts, events, and none where nothing happens."""

from __future__ import annotations

from collections.abc import Callable

import av
import numpy as np
import pytest

from pipeline.analysis.ahead.happenings import Finding, finding_of, marks
from pipeline.analysis.ahead.stage import AheadOptions
from pipeline.frame import Analysis
from pipeline.pictures.planes import plane
from tests.pipeline.analysis.ahead.road import (
    FPS,
    KNOWN,
    PARKED,
    Place,
    Thing,
    drive,
    events,
    still_picture,
    straight,
)


def between(start: float, end: float, first: float, last: float) -> Callable[[float], float]:
    return lambda time: float(np.interp(time, (start, end), (first, last)))


# Distances and contacts -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("noise", [0.0, 0.04])
def test_distances_within_forty_metres(noise: float) -> None:
    away = Thing(1, lambda time: (22 + 16 * np.sin(0.3 * time), 0.1))
    found = drive([away, *PARKED], 40, noise=noise)
    off = [
        abs(finding.lead.distance_m - away.at(time)[0]) / away.at(time)[0]
        for time, finding in found
        if time > 3 and finding.lead is not None and finding.lead.track == 1 and finding.lead.distance_m is not None
    ]
    assert len(off) > 0.8 * 37 * FPS
    assert np.median(off) < 0.1


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_contacts_of_one_to_four_seconds(noise: float) -> None:
    nearing = Thing(1, straight(60, speed=8.0))
    found = drive([nearing, *PARKED], 6.8, noise=noise)
    off = []
    for time, finding in found:
        true = (60 - 8.0 * time) / 8.0
        if 1 <= true <= 4:
            assert finding.lead is not None
            assert finding.lead.contact_s is not None
            off.append(abs(finding.lead.contact_s - true))
    assert np.median(off) < 0.25
    assert np.mean(np.array(off) < 0.5) > 0.9


def test_without_the_camera_there_is_no_distance_and_there_are_contacts() -> None:
    found = drive([Thing(1, straight(40, speed=8.0)), *PARKED], 4, AheadOptions())
    leads = [finding.lead for _, finding in found if finding.lead is not None]
    assert leads
    assert all(lead.distance_m is None for lead in leads)
    assert leads[-1].contact_s == pytest.approx(1.0, abs=0.3)


def test_the_lead_vehicle_is_the_nearest_in_the_own_lane() -> None:
    things = [
        Thing(1, straight(30)), Thing(2, straight(15)), Thing(3, straight(8, 3.5)), Thing(4, straight(9, -3.6)),
        Thing(5, straight(6, 0.2), "person", 0.5, 1.75),
    ]  # fmt: skip
    found = drive([*things, *PARKED], 5)
    assert {finding.lead.track for time, finding in found if time > 2 and finding.lead is not None} == {2}


def test_what_hides_the_foot_takes_the_distance() -> None:
    def before(time: float) -> Place | None:
        return (9.0, 0.4) if time > 3 else None

    found = drive([Thing(1, straight(14)), Thing(2, before, "person", 1.0, 1.7), *PARKED], 4)
    told = {time > 3 for time, finding in found if time > 1.5 and finding.lead and finding.lead.distance_m is not None}
    assert told == {False}


# Events ---------------------------------------------------------------------------------------------------------------
@pytest.mark.seconds
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_nothing_happens_in_quiet_driving(noise: float) -> None:
    """A minute of a street with parked cars, oncoming ones, one ahead, people on the pavement, and a cyclist that is
    overtaken; `python -m tests.benchmarks.ahead quiet` drives for ten."""
    lead = Thing(1, lambda time: (20 + 5 * np.sin(0.25 * time), 0.2 * np.sin(0.4 * time)))
    oncoming = [Thing(100 + k, lambda time, k=k: (60 * k + 80 - 20 * time, -3.4)) for k in range(20)]
    walking = [
        Thing(200 + k, lambda time, k=k: (37 * k + 30 - 11.2 * time, 5.4 if k % 2 else -8.6), "person", 0.6, 1.7)
        for k in range(20)
    ]
    cyclists = [Thing(300 + k, lambda time, k=k: (70 * k + 50 - 6 * time, 1.9), "rider", 0.6, 1.7) for k in range(5)]
    found = drive([lead, *PARKED, *oncoming, *walking, *cyclists], 60, noise=noise)
    assert sum(finding.lead is not None for _, finding in found) > 0.8 * len(found)
    assert events(found) == []


def test_closing_in_on_the_vehicle_ahead() -> None:
    gap = between(3, 6.5, 35, 5)
    found = drive([Thing(1, lambda time: (gap(time), 0.0)), *PARKED], 9)
    (event,) = events(found)
    assert (event.kind, event.tracks) == ("approach", (1,))
    assert 3.5 < event.start < event.peak < 7
    assert event.end is not None
    assert event.figures["contact_s"] < event.figures["contact_limit_s"] == 2.5
    assert event.confidence > 0.95
    assert "contact in" in event.text


def test_a_parked_car_at_the_side_is_no_approach() -> None:
    assert events(drive([Thing(1, straight(60, 2.9, 12.0)), *PARKED], 5)) == []


def test_cutting_in() -> None:
    across = between(4, 6, 3.4, 0.1)
    found = drive([Thing(1, lambda time: (11.0, across(time))), *PARKED], 9)
    (event,) = events(found)
    assert (event.kind, event.tracks) == ("cut_in", (1,))
    assert 4.5 < event.start < 6.5
    assert event.figures["across_before_m"] > event.figures["lane_m"]


def test_the_own_change_of_lane_is_no_cutting_in() -> None:
    shift = between(4, 6, 0.0, 3.5)
    beside = [Thing(k, lambda time, k=k: (11.0 + 9 * k, 3.5 * (k % 3) - shift(time))) for k in range(1, 6)]
    assert [event for event in events(drive(beside, 9)) if event.kind == "cut_in"] == []


def test_somebody_in_the_path() -> None:
    def crossing(time: float) -> Place | None:
        return 45 - 9.0 * time, 1.4 * (4.0 - time)

    found = drive([Thing(1, crossing, "person", 0.6, 1.75), *PARKED], 4.8)
    (event,) = events(found)
    assert (event.kind, event.tracks) == ("person_in_path", (1,))
    assert abs(event.figures["across_m"]) < event.figures["path_m"]


def test_who_stands_has_nobody_in_the_path() -> None:
    def crossing(time: float) -> Place | None:
        return 9.0 - 0.5 * time, 1.4 * (5.0 - time)

    found = drive([Thing(1, crossing, "person", 0.6, 1.75)], 9, notes=lambda _time: {"speed": 0.0})
    assert [event.kind for event in events(found)] == ["standstill"]


# The own car ----------------------------------------------------------------------------------------------------------
def test_hard_braking_where_the_speed_is_known() -> None:
    speed = between(5, 7.5, 14.0, 0.0)
    found = drive([], 12, notes=lambda time: {"speed": speed(time)})
    braking, standing = events(found)
    assert (braking.kind, standing.kind) == ("hard_braking", "standstill")
    assert 5 < braking.start < braking.peak < 7.6
    assert braking.figures["braking_mps2"] == pytest.approx(5.6, rel=0.1)
    assert standing.start == pytest.approx(7.5, abs=0.2)
    assert standing.end is None


def test_gentle_braking_is_none() -> None:
    speed = between(3, 9, 14.0, 0.5)
    assert events(drive([], 12, notes=lambda time: {"speed": speed(time)})) == []


def _street(time: float) -> av.VideoFrame:
    """A picture with edges everywhere that moves until 4 s and from 9 s on; with noise, as cameras have it."""
    moved = time if time < 4 else 4.0 if time < 9 else time - 5
    image, random = still_picture(), np.random.default_rng(round(time * 100))
    luma = plane(image, 0)
    columns = np.arange(luma.shape[1]) + 40 * moved
    luma[:] = np.clip(128 + 60 * np.sign(np.sin(columns / 9)) + random.normal(0, 3, luma.shape), 0, 255)
    return image


@pytest.mark.seconds
def test_standing_is_seen_in_the_pictures() -> None:
    (event,) = events(drive([], 12, pictures=_street))
    assert event.kind == "standstill"
    assert event.start == pytest.approx(4, abs=0.5)
    assert event.end == pytest.approx(9, abs=0.5)


# How it travels -------------------------------------------------------------------------------------------------------
def test_an_event_that_was_not_asked_for_is_none() -> None:
    gap = between(3, 6.5, 35, 5)
    only = AheadOptions(events=("standstill",))
    assert events(drive([Thing(1, lambda time: (gap(time), 0.0)), *PARKED], 9, only)) == []


def test_where_no_model_looked_the_last_finding_holds_and_an_end_is_told_once() -> None:
    stage = KNOWN.stage()
    from tests.pipeline.fake_analysis import analysis

    def at(index: int, *, looked: bool) -> Finding:
        said = analysis(index, boxes=(), models=("m",) if looked else (), notes={"speed": 0.0 if index < 120 else 5.0})
        return finding_of(stage.process(said).notes)

    found = [at(index, looked=index % 2 == 0) for index in range(140)]
    ends = [event for finding in found for event in finding.events if event.end is not None]
    assert [event.kind for event in ends] == ["standstill"]
    assert found[101].events == found[100].events != ()


def test_the_mark_of_the_lead_vehicle() -> None:
    found = drive([Thing(7, straight(40, speed=8.0)), *PARKED], 3)
    said = Analysis.__dataclass_fields__  # the note is plain JSON, and so comes back from any reader
    assert "notes" in said
    lead = found[-1][1].lead
    assert lead is not None
    words = marks({"ahead": {"lead": {"track": 7, "label": "car", "across_m": 0.0, "contact_s": lead.contact_s}}})
    assert words == {7: f"{lead.contact_s:.1f} s"}
