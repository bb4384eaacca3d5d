"""Charts as SVG laid by hand: they take their colours from the page's style sheet, so that light and dark both fit.

Every chart carries a title and a description for those who do not see it; the figures stand in a table behind it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

Point = tuple[float, float]

WIDTH, HEIGHT = 400, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 18, 14, 40


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        name: of the series, for people.
        color: place in the style sheet's palette of series, from 0.
        points: (x, y) in rising order of x.
        behind: drawn thin and faint under the curve: what the curve is the mean of.
        dots: whether each point is a measurement that can be pointed at.
    """

    name: str
    color: int
    points: Sequence[Point]
    behind: Sequence[Point] = ()
    dots: bool = False


@dataclass(frozen=True)
class Mark:
    """A measurement with its interval: at `x`, from `low` over `y` to `high`; `name` on hovering, `label` beside it."""

    name: str
    label: str
    color: int
    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Axis:
    """Where an axis begins and ends, and where the lines of the grid stand."""

    ticks: tuple[float, ...]

    @property
    def low(self) -> float:
        return self.ticks[0]

    @property
    def high(self) -> float:
        return self.ticks[-1]

    def text(self, value: float) -> str:
        """A number with as many digits as the ticks need."""
        digits = max(0, -math.floor(math.log10(self.ticks[1] - self.ticks[0]) + 1e-9))
        return f"{value:,.{digits}f}"


def axis(values: Iterable[float], count: int = 5) -> Axis:
    """An axis that covers finite values in about `count` steps of 1, 2 or 5 times a power of ten.

    >>> axis([0.12, 0.49]).ticks
    (0.1, 0.2, 0.3, 0.4, 0.5)
    >>> axis([0, 4240], 4).ticks
    (0.0, 1000.0, 2000.0, 3000.0, 4000.0, 5000.0)
    >>> axis([3]).ticks
    (3.0, 4.0)
    """
    found = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(found), max(found)
    # What differs by less than a millionth of its size is one value: finer steps would drown in rounding.
    wanted = (high - low) / count if high - low > 1e-6 * max(abs(low), abs(high), 1.0) else 1.0
    power = 10.0 ** math.floor(math.log10(wanted))
    step = min((power * factor for factor in (1, 2, 5, 10)), key=lambda s: abs(math.log(s / wanted)))
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return Axis(tuple(round(i * step, 10) for i in range(first, last + 1)))


def moving_average(points: Sequence[Point], window: int) -> list[Point]:
    """Each value as the mean of those within `window` // 2 places of it, fewer at the ends.

    >>> moving_average([(0, 0), (1, 3), (2, 6)], 3)
    [(0, 1.5), (1, 3.0), (2, 4.5)]
    """
    reach, values = window // 2, [y for _, y in points]
    means = []
    for i, (x, _) in enumerate(points):
        near = values[max(i - reach, 0) : i + reach + 1]
        means.append((x, sum(near) / len(near)))
    return means


def line_chart(
    lines: Sequence[Line], x_axis: Axis, y_axis: Axis, *, title: str, description: str, x_label: str
) -> Markup:
    """Curves over a common x; which is which is said by the page's legend."""
    place = _Plane(x_axis, y_axis)
    body = [place.grid(x_label)]
    body += [place.path(line.behind, f"faint c{line.color}") for line in lines if line.behind]
    body += [place.path(line.points, f"line c{line.color}") for line in lines]
    for line in lines:
        if line.dots:
            body += [place.dot(p, line.color, f"{line.name}, {x_axis.text(p[0])}: {p[1]:.3f}") for p in line.points]
    return _svg(body, title, description)


def scatter_chart(
    marks: Sequence[Mark], x_axis: Axis, y_axis: Axis, *, title: str, description: str, x_label: str
) -> Markup:
    """Measurements with their intervals; labels stand above and below in turn, so that neighbours do not collide."""
    place = _Plane(x_axis, y_axis)
    body = [place.grid(x_label)]
    for number, mark in enumerate(sorted(marks, key=lambda m: (m.color, m.x))):
        x, top = place(mark.x, mark.high)
        _, bottom = place(mark.x, mark.low)
        body.append(_WHISKER.format(color=mark.color, x=x, top=top, bottom=bottom, left=x - 4, right=x + 4))
        body.append(place.dot((mark.x, mark.y), mark.color, mark.name, radius=5))
        y = top - 6 if number % 2 == 0 else bottom + 14
        body.append(_LABEL.format(color=mark.color, x=x, y=y, text=mark.label))
    return _svg(body, title, description)


_WHISKER = Markup('<path class="whisker c{color}" d="M{x:.1f} {top:.1f}V{bottom:.1f}M{left:.1f} {top:.1f}H{right:.1f}'
                  'M{left:.1f} {bottom:.1f}H{right:.1f}"/>')  # fmt: skip
_LABEL = Markup('<text class="label c{color}" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{text}</text>')
_DOT = Markup('<circle class="dot c{color}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"><title>{title}</title></circle>')
_PATH = Markup('<path class="{kind}" d="{steps}"/>')
_ROW = Markup('<path class="grid" d="M{left} {y:.1f}H{right}"/>'
              '<text class="tick" x="{text_x}" y="{text_y:.1f}" text-anchor="end">{text}</text>')  # fmt: skip
_COLUMN = Markup('<path class="grid short" d="M{x:.1f} {bottom}v4"/>'
                 '<text class="tick" x="{x:.1f}" y="{text_y}" text-anchor="middle">{text}</text>')  # fmt: skip
_UNDER = Markup('<text class="tick" x="{x}" y="{y}" text-anchor="end">{text}</text>')
_SVG = Markup('<svg class="chart" viewBox="0 0 {width} {height}" role="img"><title>{title}</title>'
              "<desc>{description}</desc>{body}</svg>")  # fmt: skip


class _Plane:
    """Data coordinates → places in the picture, y down."""

    def __init__(self, x_axis: Axis, y_axis: Axis) -> None:
        self.x, self.y = x_axis, y_axis
        self.right, self.bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def __call__(self, x: float, y: float) -> Point:
        along = (x - self.x.low) / (self.x.high - self.x.low)
        up = (y - self.y.low) / (self.y.high - self.y.low)
        return _LEFT + along * (self.right - _LEFT), self.bottom - up * (self.bottom - _TOP)

    def grid(self, x_label: str) -> Markup:
        rows = [
            _ROW.format(left=_LEFT, right=self.right, y=y, text_x=_LEFT - 8, text_y=y + 4, text=self.y.text(tick))
            for tick in self.y.ticks
            for _, y in [self(self.x.low, tick)]
        ]
        columns = [
            _COLUMN.format(x=x, bottom=self.bottom, text_y=self.bottom + 18, text=self.x.text(tick))
            for tick in self.x.ticks
            for x, _ in [self(tick, self.y.low)]
        ]
        return Markup("").join([*rows, *columns, _UNDER.format(x=self.right, y=HEIGHT - 6, text=x_label)])

    def path(self, points: Sequence[Point], kind: str) -> Markup:
        """A line through points; it begins anew behind one that is not finite."""
        steps, pen_up = [], True
        for x, y in points:
            if not math.isfinite(y):
                pen_up = True
                continue
            at_x, at_y = self(x, y)
            steps.append(f"{'M' if pen_up else 'L'}{at_x:.1f} {at_y:.1f}")
            pen_up = False
        return _PATH.format(kind=kind, steps="".join(steps))

    def dot(self, point: Point, color: int, title: str, radius: float = 3.5) -> Markup:
        if not math.isfinite(point[1]):
            return Markup("")
        x, y = self(*point)
        return _DOT.format(color=color, x=x, y=y, radius=radius, title=title)


def _svg(body: Sequence[Markup], title: str, description: str) -> Markup:
    return _SVG.format(
        width=WIDTH, height=HEIGHT, title=title, description=description, body=Markup("").join(body)
    )  # fmt: skip
