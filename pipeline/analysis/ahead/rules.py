"""What of the objects ahead is evidence of an event. Each rule asks for several things: false alarms are worse than
misses.

Thresholds were chosen on the development footage (motorways, films of towns, rain, snow, a fixed camera) and on the
synthetic drive: `python -m tests.benchmarks.ahead` prints what they find and miss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.analysis.ahead.cases import Evidence, beyond
from pipeline.analysis.ahead.course import Course
from pipeline.analysis.ahead.ground import OVERHANG, Ground, Measure
from pipeline.analysis.ahead.growth import LEAST_LOOKS, SPANS, Growth, Size, growth
from pipeline.analysis.ahead.options import AheadValues
from pipeline.frame import Box

OWN_LANE = 1.3
"""Metres from where the camera drives within which the middle of the lead vehicle is."""

KEEPS_LANE = 1.7
"""The same of the one that was the lead vehicle before."""

_OUTSIDE = 2.2
"""Metres across at which the middle of a vehicle that then cuts in must have been: half a lane and most of a car."""

_PATH = 1.2
"""Metres from where the camera drives within which the feet of a person in the path are: half a car and a step."""

_SURE = 1.64
"""Standard deviations to spare: passed by chance once in twenty."""

_VEHICLE_TALL, _PERSON_TALL = (0.9, 4.8), (1.0, 2.4)
"""Metres. What seems to be of another height does not stand on this road: it is a reflection, a poster, a mistake, or
the horizon is elsewhere."""

_SMALL = 0.045
"""Height over that of the picture below which a box says too little of growth."""

_TALL, _MIRRORS = 1.5, 2.3
"""Metres that a car is high, and that its mirrors, where it is widest, are before its rear end."""

_GROWN_EVERY = 0.07
"""Seconds; a fit takes as long as all the rest of a look."""

_CROSSING = 2.6
"""Width over height beyond which a vehicle is seen from the side."""

_FAR = 40.0
"""Metres beyond which nobody is in the path yet."""

_BESIDE = 1.5
"""Metres from where the camera drives that what contact is near with must be at contact."""

_CUT_IN_SECONDS = 3.0
"""Seconds that cutting in may take."""


class Seen(NamedTuple):
    """An object at this look.

    Attributes:
        course: where it was.
        across: metres to the right of where the camera drives.
        roughly: metres ahead, by a camera as most are where nothing is known of this one.
        box: its box.
    """

    course: Course
    across: Measure
    roughly: float
    box: Box


def stands(seen: Seen, ground: Ground) -> bool:
    """Whether it can be what it is said to be, on this road."""
    look = seen.course.newest
    low, high = _VEHICLE_TALL if seen.course.vehicle else _PERSON_TALL
    tall = ground.tall(look)
    return (low <= tall or look.over) and (tall <= high or look.under)


def in_reach(seen: Seen) -> bool:
    """Whether it is worth measuring how somebody comes nearer."""
    return abs(seen.across.value) < 2 and seen.roughly < _FAR


def lead_of(all_seen: Sequence[Seen], ground: Ground, before: int | None) -> Seen | None:
    """The nearest vehicle in the own lane.

    Args:
        all_seen: what is ahead.
        ground: the road.
        before: track of the one that it was at the look before.
    """
    found = None
    for seen in all_seen:
        course, look = seen.course, seen.course.newest
        within = KEEPS_LANE if course.track == before else OWN_LANE
        if (
            not course.vehicle
            or course.looks < 3
            or abs(seen.across.value) > within
            or seen.across.sigma > KEEPS_LANE
            or look.wide > _CROSSING * look.tall
            or not stands(seen, ground)
        ):
            continue
        if found is None or look.y2 > found.course.newest.y2:
            found = seen
    return found


def grown(course: Course, ground: Ground) -> Growth | None:
    """How fast an object grows; None where that cannot be told. Found out anew after a few hundredths of a second.

    The sides of a person swing with the stride, those of what the picture's edge cuts off grow with nothing.
    """
    look = course.newest
    if look.over or look.under or look.tall < _SMALL * ground.size[1] or course.seen < 0.3:
        return None
    if look.time - course.grown[0] < _GROWN_EVERY:
        return course.grown[1]
    table = course.table(look.time - SPANS[-1])
    whole = np.flatnonzero(table[:, 6:].any(1))
    table = table[int(whole[-1]) + 1 :] if len(whole) else table
    metre = look.tall / ground.focal / _TALL
    """One over the distance in metres, about."""
    sizes = [Size(table[:, 4] - table[:, 2], OVERHANG * metre if course.vehicle else 0.0)]
    if course.vehicle and not table[:, 5].any():
        sizes.append(Size(table[:, 3] - table[:, 1], _MIRRORS * metre if course.label == "car" else 0.0))
    course.grown = look.time, growth(table[:, 0], *sizes) if len(table) >= LEAST_LOOKS else None
    return course.grown[1]


def approach(seen: Seen, grows: Growth | None, distance: Measure | None, options: AheadValues) -> Evidence | None:
    """Evidence that contact with the lead vehicle is near."""
    limit = 1 / options.contact
    if grows is None or grows.least(_SURE) < limit or grows.rate * grows.span < 0.12:
        return None
    if abs(across_at_contact := _across_in(seen, grows.contact)) > _BESIDE:
        return None
    figures = {
        "contact_s": grows.contact,
        "contact_sigma_s": grows.contact_sigma,
        "contact_limit_s": options.contact,
        "growth_per_s": grows.rate,
        "growth_sigma_per_s": grows.sigma,
        "across_m": seen.across.value,
        "across_at_contact_m": across_at_contact,
        "across_limit_m": _BESIDE,
        **_metres(distance),
    }
    ahead = "" if distance is None else f", {distance.value:.0f} m ahead"
    text = f"{seen.course.label} {seen.course.track}: contact in {grows.contact:.1f} s{ahead}"
    return Evidence(grows.rate, beyond(grows.rate, limit, grows.sigma), figures, text)


def person(seen: Seen, grows: Growth | None, distance: Measure | None, options: AheadValues) -> Evidence | None:
    """Evidence that somebody is in the path and contact is near."""
    limit = 1 / options.person_contact
    inside = abs(seen.across.value) + seen.across.sigma < _PATH + 0.4 and abs(seen.across.value) < _PATH
    if grows is None or not inside or grows.least(1.0) < limit:
        return None
    figures = {
        "across_m": seen.across.value,
        "across_sigma_m": seen.across.sigma,
        "path_m": _PATH,
        "contact_s": grows.contact,
        "contact_sigma_s": grows.contact_sigma,
        "contact_limit_s": options.person_contact,
        **_metres(distance),
    }
    likely = beyond(grows.rate, limit, grows.sigma) * beyond(_PATH, abs(seen.across.value), seen.across.sigma)
    ahead = "" if distance is None else f", {distance.value:.0f} m ahead"
    text = f"{seen.course.label} {seen.course.track} in the path: contact in {grows.contact:.1f} s{ahead}"
    return Evidence(grows.rate, likely, figures, text)


def cut_in(seen: Seen, others: Sequence[Seen], distance: Measure | None, options: AheadValues) -> Evidence | None:
    """Evidence that a vehicle has come into the own lane from beside it, close ahead.

    Something else must have stayed where it was meanwhile: where everything moves across, the own car does.
    """
    metres = seen.roughly if distance is None else distance.value
    course, now = seen.course, seen.course.newest.time
    if metres > options.cut_in_distance or abs(seen.across.value) > OWN_LANE or len(course.across) < 6:
        return None
    lately = [entry for entry in course.across if entry[0] >= now - _CUT_IN_SECONDS]
    side = math.copysign(1.0, max(lately, key=lambda entry: abs(entry[1]))[1])
    outside = [entry for entry in lately if side * entry[1] - entry[2] > _OUTSIDE - 0.5 and side * entry[1] > _OUTSIDE]
    if len(outside) < 3:
        return None
    was = outside[-1]
    moved = side * (was[1] - seen.across.value)
    stayed = [shift for other in others if (shift := _shift(other, was[0])) is not None]
    if not stayed or sorted(side * -shift for shift in stayed)[len(stayed) // 2] > 0.35 * moved:
        return None
    figures = {
        "across_before_m": was[1],
        "across_m": seen.across.value,
        "across_sigma_m": seen.across.sigma,
        "lane_m": OWN_LANE,
        "took_s": now - was[0],
        "ahead_m": metres,
        "ahead_limit_m": options.cut_in_distance,
        **_metres(distance),
    }
    likely = beyond(OWN_LANE + 0.5, abs(seen.across.value), seen.across.sigma) * beyond(side * was[1], 1.7, was[2])
    return Evidence(-metres, likely, figures, f"{course.label} {course.track} cuts in {metres:.0f} m ahead")


def _across_in(seen: Seen, seconds: float) -> float:
    """Metres to the right at which it will be, if it goes on as in the last second: what the road's bend brings into
    the straight ahead goes out of it again."""
    now = seen.course.newest.time
    lately = np.array([entry[:2] for entry in seen.course.across if entry[0] >= now - 1.0])
    time = lately[:, 0] - lately[:, 0].mean()
    spread = float(time @ time)
    slope = float(time @ lately[:, 1]) / spread if spread > 0 else 0.0
    return float(lately[:, 1].mean()) + slope * (now + seconds - float(lately[:, 0].mean()))


def _shift(other: Seen, since: float) -> float | None:
    """Metres by which an object has moved to the right since a time; None where it was not seen then, or too far."""
    if other.roughly > 60:
        return None
    then = next((entry for entry in other.course.across if entry[0] >= since - 0.2), None)
    return None if then is None or then[0] > since + 0.2 else other.across.value - then[1]


def _metres(distance: Measure | None) -> dict[str, float]:
    return {} if distance is None else {"distance_m": distance.value, "distance_sigma_m": distance.sigma}
