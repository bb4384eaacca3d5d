"""From an expression to a query: each name looked up, each comparison seen to fit, and SQL with parameters made of it.

What is not known makes no comparison true, nor its opposite: the place of a clip that has none is not near anything,
and not far from it either (SQL's three-valued logic).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from engines.errors import UsageError
from engines.settings import nearest
from pipeline.archive.columns import column
from pipeline.archive.find.grammar import Call, Comparison, Joined, Name, Not, Number, Text, Tree, parse, refusal
from pipeline.archive.terms import Terms

Kind = Literal["truth", "number", "text", "time"]

Value = float | str | datetime

_LATITUDE, _LONGITUDE = "coalesce(f.latitude, c.latitude)", "coalesce(f.longitude, c.longitude)"
"""Where the car was in a frame, else where its clip was begun."""

_PLAIN: dict[str, tuple[Kind, str]] = {
    "time": ("time", "f.time"),
    "seconds": ("number", "f.seconds"),
    "day": ("text", "nullif(c.day, 'unknown')"),
    "hour": ("number", "hour(f.time)"),
    "camera": ("text", "c.camera"),
    "trip": ("text", "c.trip"),
    "maker": ("text", "c.maker"),
    "clip": ("text", "f.clip"),
    "latitude": ("number", _LATITUDE),
    "longitude": ("number", _LONGITUDE),
    "speed": ("number", "f.speed"),
    "heading": ("number", "f.heading"),
    "novelty": ("number", "c.novelty"),
}
"""Names without a class: what kind of value each has, and where it stands."""

_NOTED = {"ttc": ("ahead", "lead", "contact_s"), "distance": ("ahead", "lead", "distance_m")}
"""Names of what stages of the house note: of the lead vehicle, where `ahead` was asked for."""

_EARTH = 6_371_008.8
"""Mean radius in metres (IUGG)."""

_NEAR = (
    f"2 * {_EARTH} * asin(sqrt(pow(sin(radians({_LATITUDE} - ?) / 2), 2) + cos(radians(?)) * cos(radians({_LATITUDE})) "
    f"* pow(sin(radians({_LONGITUDE} - ?) / 2), 2))) <= ?"
)
"""The haversine formula (Sinnott, Sky and Telescope 68, 1984)."""

_SCORE = "(SELECT max(o.score) FROM objects o WHERE o.clip = f.clip AND o.frame = f.frame AND o.label = ?)"

_SEEN = (
    "(SELECT max(o.seconds - s.began) FROM objects o JOIN (SELECT clip, track, min(seconds) AS began FROM objects "
    "WHERE track IS NOT NULL GROUP BY clip, track) s ON o.clip = s.clip AND o.track = s.track "
    "WHERE o.clip = f.clip AND o.frame = f.frame AND o.label = ?)"
)

_TRACK = "EXISTS (SELECT 1 FROM objects o WHERE o.clip = f.clip AND o.frame = f.frame AND o.track = ?)"

_DURING = 'FROM events e WHERE e.clip = f.clip AND e.start < f.seconds + ? / c.rate AND e."end" >= f.seconds'
"""A frame stands for the time until the next one that is looked at."""

_EVENT = f"EXISTS (SELECT 1 {_DURING})"
_EVENT_OF = f"EXISTS (SELECT 1 {_DURING} AND e.kind = ?)"
_CONFIDENCE = f"(SELECT max(e.confidence) {_DURING} AND e.kind = ?)"

_NOTE = "TRY_CAST(json_extract_string(f.notes, ?) AS DOUBLE)"

_FIGURES = ("area", "count", "score", "seen", "event", "confidence", "note")
"""Names that have a class, a label or a kind of event behind a dot."""


@dataclass(frozen=True, slots=True)
class Query:
    """A condition on frames `f` and their clips `c`: SQL, and the values of its question marks."""

    sql: str
    values: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class _Typed:
    kind: Kind
    sql: str
    values: tuple[Value, ...] = ()


def query_of(expression: str, terms: Terms, events: Sequence[str], notes: Sequence[str]) -> Query:
    """The condition that an expression means.

    Args:
        expression: as `grammar` has it.
        terms: of the archive: its classes, labels and cadence.
        events: kinds of events that there are in it.
        notes: names of notes that there are in it.

    Raises:
        UsageError: it is no expression, a name is unknown (the nearest one is named), or values do not fit.
    """
    typed = _Compiler(expression, terms, events, notes).truth(parse(expression))
    return Query(typed.sql, typed.values)


class _Compiler:
    def __init__(self, expression: str, terms: Terms, events: Sequence[str], notes: Sequence[str]) -> None:
        self._expression = expression
        self._notes = {name: name for name in notes}
        self._areas = {column(name): name for name in terms.areas}
        self._things = {column(name): name for name in terms.things}
        self._events = {column(kind): kind for kind in events}
        self._every = float(min(model.every for model in terms.models))

    def truth(self, tree: Tree) -> _Typed:
        """What is true or not."""
        if isinstance(tree, Joined):
            parts = [self.truth(part) for part in tree.parts]
            sql = f" {tree.word.upper()} ".join(f"({part.sql})" for part in parts)
            return _Typed("truth", sql, tuple(value for part in parts for value in part.values))
        if isinstance(tree, Not):
            inner = self.truth(tree.inner)
            return _Typed("truth", f"NOT ({inner.sql})", inner.values)
        if isinstance(tree, Comparison):
            return self._compared(tree)
        typed = self._value(tree)
        if typed.kind != "truth":
            shown = ".".join(tree.parts) if isinstance(tree, Name) else str(getattr(tree, "value", ""))
            raise self._refuse(tree.at, shown, f"is a {typed.kind}; compare it with something, such as {shown} > 0.3")
        return typed

    def _compared(self, tree: Comparison) -> _Typed:
        left, right = self._value(tree.left), self._value(tree.right)
        if left.kind == "time" and isinstance(tree.right, Text):
            right = self._moment(tree.right)
        if right.kind == "time" and isinstance(tree.left, Text):
            left = self._moment(tree.left)
        kinds = {left.kind, right.kind}
        if "truth" in kinds:
            raise self._refuse(
                tree.at, tree.sign, "compares what is true or not; use it alone, or count.CLASS for a number"
            )
        if len(kinds) > 1:
            raise self._refuse(
                tree.at, tree.sign, f"compares a {left.kind} with a {right.kind}; both must be of one kind"
            )
        if kinds == {"text"} and tree.sign not in ("==", "!="):
            raise self._refuse(tree.at, tree.sign, "is no comparison of texts; use == or !=")
        sign = {"==": "=", "!=": "<>"}.get(tree.sign, tree.sign)
        return _Typed("truth", f"{left.sql} {sign} {right.sql}", (*left.values, *right.values))

    def _value(self, tree: Tree) -> _Typed:
        if isinstance(tree, Number):
            return _Typed("number", "CAST(? AS DOUBLE)", (tree.value,))
        if isinstance(tree, Text):
            return _Typed("text", "?", (tree.value,))
        if isinstance(tree, Call):
            return self._called(tree)
        if isinstance(tree, Name):
            return self._named(tree)
        return self.truth(tree)

    def _moment(self, text: Text) -> _Typed:
        try:
            moment = datetime.fromisoformat(text.value)
        except ValueError:
            raise self._refuse(
                text.at, text.value, "is no time; write one as '2026-11-29 14:30:00' (UTC) or with a zone, '…+01:00'"
            ) from None
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return _Typed("time", "CAST(? AS TIMESTAMPTZ)", (moment.isoformat(),))

    def _called(self, tree: Call) -> _Typed:
        numbers = [value.value for value in tree.values if isinstance(value, Number)]
        wanted = {"near": ("latitude, longitude, metres", 3), "track": ("number", 1)}
        if tree.name not in wanted:
            raise self._refuse(tree.at, tree.name, f"is no function; there are {' and '.join(wanted)}")
        said, count = wanted[tree.name]
        if len(numbers) != count or len(tree.values) != count:
            raise self._refuse(tree.at, tree.name, f"takes numbers: {tree.name}({said})")
        if tree.name == "track":
            return _Typed("truth", _TRACK, (numbers[0],))
        latitude, longitude, metres = numbers
        return _Typed("truth", _NEAR, (latitude, latitude, longitude, metres))

    def _named(self, tree: Name) -> _Typed:
        first, rest = tree.parts[0].lower(), tree.parts[1:]
        shown = ".".join(tree.parts)
        if not rest:
            if first in _PLAIN:
                return _Typed(*_PLAIN[first])
            if first in _NOTED:
                return self._noted(tree, _NOTED[first])
            if first == "event":
                return _Typed("truth", _EVENT, (self._every,))
            return self._class(tree, column(tree.parts[0]), shown)
        if first == "note":
            return self._noted(tree, rest)
        if first not in _FIGURES or len(rest) > 1:
            close = nearest(first, _FIGURES)
            meant = f"; the nearest is {close}.{'.'.join(rest)}" if close else f"; there are {', '.join(_FIGURES)}"
            raise self._refuse(tree.at, shown, f"is no name{meant}")
        name = column(rest[0])
        if first == "area":
            self._look_up(tree, name, self._areas, "class with an area")
            return _Typed("number", f'f."area_{name}"')
        if first in ("event", "confidence"):
            return self._event(tree, first, name)
        label = self._look_up(tree, name, self._things, "label of boxes")
        if first == "count":
            return _Typed("number", f'f."count_{name}"')
        return _Typed("number", _SCORE if first == "score" else _SEEN, (label,))

    def _noted(self, tree: Name, parts: Sequence[str]) -> _Typed:
        if parts[0] not in self._notes:
            there = ", ".join(self._notes) or "none"
            raise self._refuse(tree.at, ".".join(tree.parts), f"is of the note {parts[0]!r}; the notes are: {there}")
        return _Typed("number", _NOTE, ("$" + "".join(f'."{part}"' for part in parts),))

    def _class(self, tree: Name, name: str, shown: str) -> _Typed:
        if name in self._things:
            return _Typed("truth", f'f."count_{name}" > 0')
        if name in self._areas:
            return _Typed("truth", f'f."area_{name}" > 0')
        known = [*self._things, *self._areas, *_PLAIN]
        close = nearest(name, known)
        meant = f"the nearest is {close}" if close else f"there are {', '.join(dict.fromkeys(known))}"
        raise self._refuse(
            tree.at, shown, f"is no class that the models of this archive know, and no other name; {meant}"
        )

    def _event(self, tree: Name, first: str, name: str) -> _Typed:
        kind = self._look_up(tree, name, self._events, "kind of event in this archive")
        if first == "event":
            return _Typed("truth", _EVENT_OF, (self._every, kind))
        return _Typed("number", _CONFIDENCE, (self._every, kind))

    def _look_up(self, tree: Name, name: str, known: dict[str, str], what: str) -> str:
        if name in known:
            return known[name]
        close = nearest(name, known)
        there = ", ".join(known) or "none"
        meant = f"the nearest is {tree.parts[0]}.{close}" if close else f"there are {there}"
        raise self._refuse(tree.at, ".".join(tree.parts), f"names no {what}; {meant}")

    def _refuse(self, at: int, text: str, problem: str) -> UsageError:
        return refusal(self._expression, at, text, problem)
