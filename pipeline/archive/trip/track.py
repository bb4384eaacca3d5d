"""Where a trip went, as a drawing and as GeoJSON (RFC 7946)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import msgspec
from markupsafe import Markup

from pipeline.archive.positions.fixes import Fix, metres
from pipeline.archive.trip.story import Place, Story

WIDTH, HEIGHT, _MARGIN = 900.0, 420.0, 28.0

_LEAST_ACROSS = 20.0
"""Metres that the drawing shows at least: a car that stands is a dot, and not the wandering of its receiver."""

_PATH = Markup('<path d="{steps}"/>')
_DOT = Markup('<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"><title>{title}</title></circle>')
_SVG = Markup('<svg class="map" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{label}">{body}</svg>')

_DEGREE = 111_195.0
"""Metres of a degree of latitude."""


def length(story: Story) -> float:
    """Metres along the track, its gaps left out."""
    return sum(
        metres(Fix(a.at, a.latitude, a.longitude), Fix(b.at, b.latitude, b.longitude))
        for piece in story.track for a, b in pairwise(piece)
    )  # fmt: skip


def top_speed(story: Story) -> float | None:
    """The highest speed that a receiver told, metres a second; None where none did."""
    return max((place.speed for piece in story.track for place in piece if place.speed is not None), default=None)


def drawn(story: Story) -> Markup:
    """The track, north up, with its beginning, its end, and where things happened."""
    places = [place for piece in story.track for place in piece]
    spot = _projection(places)
    body = []
    for piece in story.track:
        points = [spot(place) for place in piece]
        body.append(_PATH.format(steps="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "h0"))
    body += [
        _dot("event", spot(place), event.kind.replace("_", " "), 8)
        for event in story.events
        if (place := _nearest(places, event.at)) is not None
    ]
    body.append(_dot("begin", spot(places[0]), "it begins here", 9))
    body.append(_dot("end", spot(places[-1]), "it ends here", 9))
    label = f"the way of the trip, north up, {length(story) / 1000:.2f} km"
    return _SVG.format(width=WIDTH, height=HEIGHT, label=label, body=Markup("").join(body))


def _dot(kind: str, at: tuple[float, float], title: str, radius: int) -> Markup:
    return _DOT.format(kind=kind, x=at[0], y=at[1], radius=radius, title=title)


def _nearest(places: Sequence[Place], at: float) -> Place | None:
    """Where the car was at a moment, within two seconds."""
    found = min(places, key=lambda place: abs(place.at - at))
    return found if abs(found.at - at) <= 2.0 else None


def _projection(places: Sequence[Place]) -> Any:
    """Degrees onto the drawing: equirectangular about their middle, so that a metre is as long to the north as to the
    east; longitudes counted on over the date line.
    """
    first = places[0].longitude
    east = [(place.longitude - first + 180) % 360 - 180 for place in places]
    north = [place.latitude for place in places]
    middle_east, middle_north = (min(east) + max(east)) / 2, (min(north) + max(north)) / 2
    shrink = math.cos(math.radians(middle_north))
    across = max((max(east) - min(east)) * shrink * _DEGREE, _LEAST_ACROSS)
    up = max((max(north) - min(north)) * _DEGREE, _LEAST_ACROSS)
    scale = _DEGREE * min((WIDTH - 2 * _MARGIN) / across, (HEIGHT - 2 * _MARGIN) / up)

    def spot(place: Place) -> tuple[float, float]:
        along = (place.longitude - first + 180) % 360 - 180 - middle_east
        return WIDTH / 2 + along * shrink * scale, HEIGHT / 2 - (place.latitude - middle_north) * scale

    return spot


def geojson(story: Story) -> bytes:
    """The track and what happened on it: a line for each piece, with its times, and a point for each event."""
    return msgspec.json.encode({"type": "FeatureCollection", "features": list(_features(story))})


def _features(story: Story) -> Iterator[dict[str, Any]]:
    begin = story.begin or 0.0
    places = [place for piece in story.track for place in piece]
    for piece in story.track:
        ends = piece if len(piece) > 1 else piece * 2  # a line has two places at least
        yield {
            "type": "Feature",
            "geometry": {"type": "LineString", "coordinates": [[place.longitude, place.latitude] for place in ends]},
            "properties": {
                "trip": story.name, "times": [round(begin + place.at, 1) for place in ends],
                "speeds": [place.speed for place in ends],
            },
        }  # fmt: skip
    for event in story.events:
        if (place := _nearest(places, event.at)) is not None:
            yield {
                "type": "Feature",
                "geometry": {"type": "Point", "coordinates": [place.longitude, place.latitude]},
                "properties": {"kind": event.kind, "time": event.recorded_at, "confidence": event.confidence},
            }
