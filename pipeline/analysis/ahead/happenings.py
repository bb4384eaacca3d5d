"""Events and the lead vehicle as values, and as the note of a frame in which they travel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

import msgspec

from engines.errors import UsageError

NOTE = "ahead"
"""Name of the note, `Analysis.notes["ahead"]`."""

Happening = Literal["approach", "cut_in", "person_in_path", "standstill", "hard_braking"]

HAPPENINGS: tuple[Happening, ...] = get_args(Happening)

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened on the road ahead, and the figures that it stands on.

    Attributes:
        id: its own within its stream: what happened, and the index of the frame in which it began.
        kind: `approach`, the time to contact with what is ahead in the own path became short; `cut_in`, a vehicle came
            into the own lane close ahead; `person_in_path`, so is a person or rider, contact near; `standstill`;
            `hard_braking`.
        start: when it began, in seconds on the stream's timeline.
        end: when it was over, likewise; None while it goes on.
        peak: when it was at its worst; the figures are those of then.
        confidence: that its limits were truly passed, given how sure the figures are, 0 to 1.
        tracks: numbers of the tracks that it is about, none where it is about the own car.
        figures: what it stands on, by name, each with its unit in its name.
        text: the same in words.
    """

    id: str
    kind: Happening
    start: float
    end: float | None = None
    peak: float
    confidence: Share
    tracks: tuple[int, ...] = ()
    figures: dict[str, float] = {}
    text: str = ""


class Lead(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The vehicle ahead in the own lane. What is not known well enough is None.

    Attributes:
        track, label: of its box.
        across_m: metres to the right of where the camera drives, as far as the height of the camera is known.
        growth_per_s, growth_sigma_per_s: share by which its picture grows in a second, and its standard deviation.
        contact_s, contact_sigma_s: seconds to contact at this speed, and its standard deviation.
        distance_m, distance_sigma_m: metres from the camera to its rear, and its standard deviation.
    """

    track: int
    label: str
    across_m: float
    growth_per_s: float | None = None
    growth_sigma_per_s: float | None = None
    contact_s: float | None = None
    contact_sigma_s: float | None = None
    distance_m: float | None = None
    distance_sigma_m: float | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is found out of one frame: the note `ahead`.

    Attributes:
        lead: the vehicle ahead in the own lane, where there is one.
        events: those that go on, and those that have just ended.
        text: the events that go on, in words: a line of the overlay.
    """

    lead: Lead | None = None
    events: tuple[Event, ...] = ()
    text: str | None = None


def noted(finding: Finding) -> dict[str, Any]:
    """A finding as a note has it."""
    note: dict[str, Any] = msgspec.to_builtins(finding)
    return note


def finding_of(notes: Mapping[str, Any]) -> Finding:
    """What the notes of a frame say of the road ahead; nothing where they say nothing.

    Raises:
        UsageError: somebody else's note has this name.
    """
    note = notes.get(NOTE)
    if note is None:
        return _NOTHING
    try:
        return msgspec.convert(note, Finding)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"the note {NOTE!r} is that of roadlens' own stage, and this one is another ({error}); "
            "call the note of your stage by another name"
        ) from None


def marks(notes: Mapping[str, Any]) -> dict[int, str]:
    """What is written beside a box, by its track: of the lead vehicle, how far it is and when contact is.

    >>> marks({"ahead": {"lead": {"track": 7, "label": "car", "across_m": 0.1, "contact_s": 2.13, "distance_m": 17.6}}})
    {7: '18 m 2.1 s'}
    """
    lead = finding_of(notes).lead
    if lead is None:
        return {}
    said = [] if lead.distance_m is None else [f"{lead.distance_m:.0f} m"]
    if lead.contact_s is not None and lead.contact_s < _SOON:
        said.append(f"{lead.contact_s:.1f} s")
    return {lead.track: " ".join(said)} if said else {}


_SOON = 10.0
"""Seconds to contact from which on it is written beside the box."""

_NOTHING = Finding()
