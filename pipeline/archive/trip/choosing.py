"""Which trips of an archive a page is of."""

from __future__ import annotations

import re
from dataclasses import dataclass

from engines.errors import SourceError, UsageError
from engines.settings import nearest
from pipeline.archive.columns import UNKNOWN
from pipeline.archive.reading import Archive


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a page is of.

    Attributes:
        name: the day, `YYYY-MM-DD`, the trip, or `unknown`.
        trips: by name, in order of time; None stands for the clips whose time is not known.
        others: trips of the archive that were not asked for, in order of time.
    """

    name: str
    trips: tuple[str | None, ...]
    others: tuple[str, ...]


def choose(archive: Archive, wanted: str | None = None) -> Chosen:
    """The trips that are meant.

    Args:
        archive: the archive.
        wanted: a day (`2026-11-29`, UTC, of the trip's beginning), a trip by its name or as much of its beginning as
            tells it from others, or `unknown` for clips without a clock. None for the latest trip.

    Raises:
        UsageError: there is no such day or trip; the nearest one is named.
        SourceError: no clip stands in the archive.
    """
    rows = archive.rows("SELECT DISTINCT trip FROM clips ORDER BY trip")
    trips = [trip for (trip,) in rows if trip is not None]
    timeless = len(trips) < len(rows)
    if not rows:
        raise SourceError(f"no clip stands in the archive {archive.path}; index some with `roadlens archive`")
    latest = trips[-1] if trips else UNKNOWN
    name = latest if wanted is None else wanted.strip()
    if name == UNKNOWN and timeless:
        return Chosen(UNKNOWN, (None,), tuple(trips))
    found = [name] if name in trips else [trip for trip in trips if name and trip.startswith(name)]
    day = re.fullmatch(r"\d{4}-\d{2}-\d{2}", name) is not None
    if not found or (len(found) > 1 and not day):
        raise _refusal(archive, name, found, trips, timeless)
    return Chosen(name if day else found[0], tuple(found), tuple(trip for trip in trips if trip not in found))


def _refusal(archive: Archive, name: str, found: list[str], trips: list[str], timeless: bool) -> UsageError:
    if found:
        several = ", ".join(found[:5]) + (" …" if len(found) > 5 else "")
        return UsageError(f"{name!r} begins the names of {len(found)} trips: {several}; name a day or one of them")
    days = sorted({trip[:10] for trip in trips})
    known = [*trips, *days, *[UNKNOWN] * timeless]
    near = nearest(name, known)
    hint = f"did you mean {near!r}?" if near else f"there are {_listed(days, timeless)}"
    return UsageError(f"{archive.path} has no day or trip {name!r}; {hint}")


def _listed(days: list[str], timeless: bool) -> str:
    shown = days if len(days) <= 6 else [*days[:3], "…", *days[-2:]]
    return ", ".join([*shown, *[f"{UNKNOWN} (clips without a clock)"] * timeless]) or "none"
