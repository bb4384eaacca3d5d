"""The stage that looks at the road ahead: it finds the lead vehicle and events, and notes both.

It looks at the frames at which a model looked, at tracked boxes only; between them the last finding holds. A speed of
the own car is what another stage, before it, notes as `speed`: metres a second.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from pipeline.analysis.ahead.cases import Case, Evidence
from pipeline.analysis.ahead.course import PEOPLE, VEHICLES, Course
from pipeline.analysis.ahead.ground import Ground, Measure
from pipeline.analysis.ahead.growth import Growth
from pipeline.analysis.ahead.happenings import NOTE, Event, Finding, Happening, Lead, noted
from pipeline.analysis.ahead.motion import Speeds, Stillness
from pipeline.analysis.ahead.options import AheadValues
from pipeline.analysis.ahead.rules import Seen, approach, cut_in, grown, in_reach, lead_of, person, stands
from pipeline.frame import Analysis, Box

SPEED = "speed"
"""Name of the note with the speed of the own car."""

SETTLED = 5.0
"""Seconds of footage that a resumed run looks at again: then courses and cases are what they were. The horizon is found
again, and may be a few rows elsewhere."""

FORGOTTEN = 1.5
"""Seconds after which a track that is not seen any more is forgotten."""

_LONGEST_GAP = 1.0
"""Seconds without a look, or a step backwards, after which everything begins anew but what is known of the camera."""


CUT_IN_LATELY = 1.5
"""Seconds in the own lane for which a vehicle may be one that cuts in."""

LONGEST_CONTACT = 20.0
"""Seconds beyond which a contact is no news."""

_Found = dict[tuple[Happening, tuple[int, ...]], Evidence | None]


class _Measured(NamedTuple):
    """The lead vehicle with its figures."""

    seen: Seen
    growth: Growth | None
    distance: Measure | None


class AheadStage:
    """Looks at the road ahead of one stream; see the module."""

    name = "ahead"

    def __init__(self, options: AheadValues) -> None:
        self.options = options
        self._ground: Ground | None = None
        self._courses: dict[int, Course] = {}
        self._cases: dict[tuple[Happening, tuple[int, ...]], Case] = {}
        self._still, self._speeds = Stillness(), Speeds(options.braking)
        self._lead: int | None = None
        self._led_since = -math.inf
        self._time = -math.inf
        self._finding = Finding()

    def process(self, analysis: Analysis) -> Analysis:
        """Note what is ahead."""
        if analysis.models:
            self._finding = self._look(analysis)
        else:  # nobody looked; an event that has ended has done so once
            going_on = tuple(event for event in self._finding.events if event.end is None)
            self._finding = replace(self._finding, events=going_on)
        if self._finding.lead is not None or self._finding.events:
            analysis.notes[NOTE] = noted(self._finding)
        return analysis

    def remember(self, analysis: Analysis) -> None:
        """Look at a frame before the first that is given out."""
        if analysis.models:
            self._finding = self._look(analysis)

    # One look -------------------------------------------------------------------------------------------------------
    def _look(self, analysis: Analysis) -> Finding:
        frame = analysis.frame
        image, time = frame.image, frame.time
        if self._ground is None or self._ground.size != (image.width, image.height):
            self._ground = Ground(self.options, image.width, image.height)
            self._begin_anew()
        elif not 0 < time - self._time < _LONGEST_GAP:
            self._begin_anew()
        self._time = time
        seen = self._seen(analysis, self._ground)
        lead = self._measured(lead_of(seen, self._ground, self._lead), seen, self._ground)
        track = None if lead is None else lead.seen.course.track
        if track != self._lead:
            self._lead, self._led_since = track, self._time
        evidence = {**self._own(analysis), **self._of_lead(lead, seen), **self._of_people(seen, self._ground)}
        if ("standstill", ()) in self._cases and self._cases["standstill", ()].event is not None:
            # Who stands closes in on nobody.
            evidence = {key: found for key, found in evidence.items() if key[0] not in ("approach", "person_in_path")}
        events = tuple(self._judged(evidence, frame.index))
        words = "; ".join(event.text for event in events if event.end is None)
        return Finding(lead=None if lead is None else _as_lead(lead), events=events, text=words or None)

    def _begin_anew(self) -> None:
        self._courses.clear()
        self._lead = None
        self._still = Stillness()

    def _seen(self, analysis: Analysis, ground: Ground) -> list[Seen]:
        """The vehicles and people of this look; and what they tell of the road is learned."""
        width, height = ground.size
        boxes = [
            box for box in analysis.boxes
            if box.track is not None and box.origin in analysis.models and box.label in VEHICLES | PEOPLE
        ]  # fmt: skip
        result = []
        for box in boxes:
            course = self._courses.get(box.track or 0)
            if course is None:
                course = self._courses[box.track or 0] = Course(box.track or 0, box.label)
            course.add(box, self._time, width, height)
            if ground.teaches(course) and not _hidden(box, boxes):
                ground.learn(course)
            across = ground.across((box.x1 + box.x2) / 2, box.y2)
            course.across.append((self._time, *across))
            result.append(Seen(course, across, ground.roughly(course.newest), box))
        gone = [track for track, course in self._courses.items() if self._time - course.newest.time > FORGOTTEN]
        for track in gone:
            del self._courses[track]
        return result

    def _measured(self, lead: Seen | None, all_seen: Sequence[Seen], ground: Ground) -> _Measured | None:
        if lead is None:
            return None
        if _hidden(lead.box, [seen.box for seen in all_seen]):
            return _Measured(lead, None, None)
        return _Measured(lead, grown(lead.course, ground), ground.distance(lead.course.newest, vehicle=True))

    def _of_lead(self, lead: _Measured | None, all_seen: Sequence[Seen]) -> _Found:
        if lead is None:
            return {}
        seen, key = lead.seen, (lead.seen.course.track,)
        found: _Found = {("approach", key): approach(seen, lead.growth, lead.distance, self.options)}
        if self._time - self._led_since < CUT_IN_LATELY:
            others = [other for other in all_seen if other is not seen]
            found["cut_in", key] = cut_in(seen, others, lead.distance, self.options)
        return found

    def _of_people(self, all_seen: Sequence[Seen], ground: Ground) -> _Found:
        found: _Found = {}
        for seen in all_seen:
            if seen.course.vehicle or not in_reach(seen) or not stands(seen, ground):
                continue
            if _hidden(seen.box, [other.box for other in all_seen]):
                continue
            distance = ground.distance(seen.course.newest, vehicle=False)
            grows = grown(seen.course, ground)
            found["person_in_path", (seen.course.track,)] = person(seen, grows, distance, self.options)
        return found

    def _own(self, analysis: Analysis) -> _Found:
        """Evidence about the own car."""
        speed = analysis.notes.get(SPEED)
        if isinstance(speed, int | float) and not isinstance(speed, bool) and math.isfinite(speed):
            self._speeds.add(self._time, float(speed))
            return {("standstill", ()): self._speeds.standing(), ("hard_braking", ()): self._speeds.braking()}
        return {("standstill", ()): self._still.look(analysis.frame.image, self._time)}

    def _judged(self, evidence: _Found, frame: int) -> Iterator[Event]:
        for key, found in evidence.items():
            if found is not None and key not in self._cases and key[0] in self.options.events:
                self._cases[key] = Case(*key)
        for key, case in list(self._cases.items()):
            event = case.look(self._time, frame, evidence.get(key))
            if event is not None:
                yield event
            if case.idle:
                del self._cases[key]


def _as_lead(lead: _Measured) -> Lead:
    seen, grows, distance = lead
    near = grows is not None and grows.contact < LONGEST_CONTACT and grows.least(2.0) > 0
    return Lead(
        track=seen.course.track,
        label=seen.course.label,
        across_m=round(seen.across.value, 2),
        growth_per_s=None if grows is None else round(grows.rate, 4),
        growth_sigma_per_s=None if grows is None else round(grows.sigma, 4),
        contact_s=round(grows.contact, 2) if grows is not None and near else None,
        contact_sigma_s=round(grows.contact_sigma, 2) if grows is not None and near else None,
        distance_m=None if distance is None else round(distance.value, 2),
        distance_sigma_m=None if distance is None else round(distance.sigma, 2),
    )


def _hidden(box: Box, boxes: Sequence[Box]) -> bool:
    """Whether the foot of another box, and so what it is of, stands nearer and before this one's foot."""
    wide = box.x2 - box.x1
    for other in boxes:
        if other.y2 > box.y2 + 1 and other.y1 < box.y2 and other is not box:
            shared = min(box.x2, other.x2) - max(box.x1, other.x1)
            if shared > 0.25 * wide:
                return True
    return False


class AheadOptions(AheadValues, frozen=True, forbid_unknown_fields=True):
    """The vehicle ahead and what happens on the road. The camera looks ahead and is upright.

    Attributes:
        camera_height: metres from the road to the lens. Without it and `field_of_view` no distance is given.
        field_of_view: degrees across the whole width of the picture, without distortion.
        horizon: how far down the picture the horizon of a level road is, 0 (top) to 1; found by itself where left out.
        contact: seconds to contact below which closing in on a vehicle is an `approach`.
        person_contact: the same of a `person_in_path`.
        cut_in_distance: metres within which a vehicle that comes into the own lane is a `cut_in`.
        braking: metres a second, each second, above which it is `hard_braking`, where the speed is known.
        events: which events there are.
    """

    def stage(self) -> AheadStage:
        """The stage that looks, one for each stream."""
        return AheadStage(self)
