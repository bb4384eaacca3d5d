"""Drawings of a trip as SVG without any text: words stand beside them in the page, where they keep their size.

They are stretched to whatever width there is (`preserveAspectRatio="none"`), and take their colours from the style
sheet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from markupsafe import Markup

from pipeline.archive.trip.story import Areas, Met

WIDTH = 1000
AREA_HEIGHT = 240

SHOWN_AREAS = 8
"""Classes that have a band of their own; the others are one."""

_BOX = Markup('<rect x="{x:.2f}" y="{y:.1f}" width="{width:.2f}" height="{height:.1f}" opacity="{opacity:.2f}"/>')
_BAND = Markup('<path class="band {kind}" d="{steps}"/>')
_SVG = Markup(
    '<svg class="{kind}" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img" '
    'aria-label="{label}">{body}</svg>'
)


def seen(met: Met) -> Markup:
    """When road users of a label were seen: the darker, the more of them at once."""
    body, width = [], WIDTH / len(met.seen)
    for most, run in groupby(enumerate(met.seen), key=lambda each: each[1]):
        places = [place for place, _ in run]
        if most:
            opacity = 0.35 + 0.65 * most / met.most
            body.append(_BOX.format(x=places[0] * width, y=0, width=len(places) * width, height=20, opacity=opacity))
    label = f"when {met.label} was seen, at most {met.most} at once"
    return _SVG.format(kind="seen", width=WIDTH, height=20, label=label, body=Markup("").join(body))


def stacked(areas: Areas, kinds: Sequence[str]) -> Markup:
    """Shares of the picture over time, one above the other, the largest at the bottom; nothing where nobody looked.

    Args:
        areas: of a camera.
        kinds: the style of each of its classes that has a band of its own, then that of the others.
    """
    body = []
    for places in _runs(areas):
        floor = [0.0] * len(places)
        for index, kind in enumerate(kinds):
            own = index < len(kinds) - 1
            top = [
                below + (areas.shares[place][index] if own else sum(areas.shares[place][index:]))  # type: ignore[index]
                for below, place in zip(floor, places, strict=True)
            ]
            body.append(_BAND.format(kind=kind, steps=_band(places, floor, top, WIDTH / len(areas.shares))))
            floor = top
    label = f"shares of the picture of {areas.camera} over time: " + ", ".join(
        f"{name} {mean:.0%}" for name, mean in zip(areas.names[:SHOWN_AREAS], areas.means, strict=False)
    )
    return _SVG.format(kind="areas", width=WIDTH, height=AREA_HEIGHT, label=label, body=Markup("").join(body))


def _runs(areas: Areas) -> Iterator[list[int]]:
    """Stretches of time that follow each other, in which somebody looked."""
    for known, run in groupby(range(len(areas.shares)), key=lambda place: areas.shares[place] is not None):
        if known:
            yield list(run)


def _band(places: Sequence[int], floor: Sequence[float], top: Sequence[float], width: float) -> str:
    """What lies between two lines; a stretch's value stands in its middle, the ends are drawn out to theirs."""

    def line(values: Sequence[float]) -> list[tuple[float, float]]:
        inner = [((place + 0.5) * width, value) for place, value in zip(places, values, strict=True)]
        return [(places[0] * width, values[0]), *inner, ((places[-1] + 1) * width, values[-1])]

    points = [*line(top), *reversed(line(floor))]
    return "M" + "L".join(f"{x:.1f} {AREA_HEIGHT * (1 - min(y, 1.0)):.1f}" for x, y in points) + "Z"
