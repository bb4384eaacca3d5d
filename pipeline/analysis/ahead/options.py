"""How the road ahead is looked at: `ahead: {camera_height: 1.3, field_of_view: 60}`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from pipeline.analysis.ahead.happenings import HAPPENINGS, Happening

Metres = Annotated[float, msgspec.Meta(ge=0.3, le=5)]
Degrees = Annotated[float, msgspec.Meta(ge=10, le=160)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0.5, le=10)]


class AheadValues(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `AheadOptions` says of the camera and of when something is an event."""

    camera_height: Metres | None = None
    field_of_view: Degrees | None = None
    horizon: Share | None = None
    contact: Seconds = 2.5
    person_contact: Seconds = 3.0
    cut_in_distance: Annotated[float, msgspec.Meta(ge=3, le=60)] = 18.0
    braking: Annotated[float, msgspec.Meta(ge=1, le=15)] = 3.5
    events: tuple[Happening, ...] = HAPPENINGS
