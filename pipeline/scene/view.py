"""One look from the car: backdrop, ground and everything that stands on it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.scene.canvas import (
    CAMERA_HEIGHT,
    CLASS,
    NEAR,
    SUBPIXEL,
    Canvas,
    Lens,
    Paint,
    Stroke,
    haze,
    haze_steps,
    hazed,
    mixed,
    ring,
)
from pipeline.scene.paint import (
    GROUND_HALF_WIDTH,
    GROUND_PERIOD,
    HAZE,
    ROAD_LEFT,
    ROAD_RIGHT,
    ROOF_DEPTH,
    WALK_LEFT,
    WALK_RIGHT,
    Float,
    Picture,
    Surface,
    ground_levels,
    sky,
    tree_line,
)
from pipeline.scene.people import Figure, cyclist, pedestrian
from pipeline.scene.solids import CORNERS, Color
from pipeline.scene.street import (
    PLOT,
    SIGHT,
    STRIPES,
    Cyclist,
    Green,
    House,
    Lamp,
    Plot,
    Sign,
    Signal,
    Vehicle,
    Walker,
    World,
    Zebra,
)
from pipeline.scene.vehicles import vehicle

PLAIN = 90.0
"""Metres from which on the ends of houses are of one colour."""
COARSE = 0.018
"""Metres a pixel from which on a vehicle is drawn with few faces."""
LIGHT: dict[int, float] = {1: 0.97, -1: 0.88}
"""Brightness of the house fronts of either side."""

_BEHIND = 24.0
"""Metres behind the camera up to which places are known."""
_GROUND_END = 380.0
"""Metres; the ground beyond looks like the ground there."""
_STRETCH = math.log(1.6)
"""A piece of a surface along the street reaches at most 1.6 times as far as it begins."""


class Backdrop:
    """Sky, and the trees where the town ends."""

    def __init__(self, lens: Lens, seed: int) -> None:
        self.focal, self.turn = lens.focal, math.ceil(0.2 * lens.focal)
        rows, width = min(math.ceil(lens.horizon) + 1, lens.height), lens.width + 2 * self.turn
        self.picture = cv2.cvtColor(sky(seed, width, rows), cv2.COLOR_RGB2RGBA)
        self.slots = np.full((rows, width), CLASS["sky"], np.uint8)
        tops = lens.horizon - lens.focal * 11 / 240 * tree_line(seed, width)
        below = np.arange(rows)[:, None] + 0.5 > tops
        self.picture[below, :3] = hazed((58, 74, 46), 150)
        self.slots[below] = CLASS["vegetation"]

    def draw(self, canvas: Canvas, heading: float) -> None:
        left = min(max(self.turn + round(heading * self.focal), 0), 2 * self.turn)
        rows = len(self.slots)
        canvas.picture[:rows] = self.picture[:, left : left + canvas.width]
        if canvas.slots is not None:
            canvas.slots[:rows] = self.slots[:, left : left + canvas.width]


class Ground:
    """Road, pavements and grass: a texture looked up per pixel, in bands of rows with a fitting resolution each."""

    def __init__(self, lens: Lens, seed: int, detail: float) -> None:
        self.first = math.ceil(lens.horizon)
        rows = np.arange(self.first, lens.height)
        self.true_z = lens.focal * CAMERA_HEIGHT / (rows + 0.5 - lens.horizon)
        self.z = np.minimum(self.true_z, _GROUND_END)
        columns = (np.arange(lens.width) + 0.5 - lens.width / 2) / lens.focal
        self.bands = []
        nearer = 0.0
        for level in ground_levels(seed, detail):
            inside = np.flatnonzero((self.z >= nearer) & (self.z < level.reach))
            nearer = level.reach
            if len(inside):
                a, b = int(inside[0]), int(inside[-1]) + 1
                base = (columns * self.z[a:b, None] + GROUND_HALF_WIDTH) * level.across - 0.5
                self.bands.append((a, b, level, base.astype(np.float32)))
        share = np.array([haze(min(depth, 160.0)) for depth in self.z.tolist()])  # as far as the trees behind
        share = np.broadcast_to(share[share > 0.004][:, None, None], (int((share > 0.004).sum()), lens.width, 4))
        self.keep = np.round(255 * (1 - share)).astype(np.uint8)
        self.add = np.round(np.array((*HAZE, 0)) * share).astype(np.uint8)

    def draw(self, canvas: Canvas, view: View) -> None:
        shift = view.bend(self.z)
        for a, b, level, base in self.bands:
            seen = canvas.cover.visible(0, self.first + a, canvas.width, self.first + b)
            if not seen:
                continue
            left, _, right, _ = seen
            map_x = base[:, left:right] - (shift[a:b, None] * level.across).astype(np.float32)
            along = ((view.s + self.z[a:b]) % GROUND_PERIOD * level.along).astype(np.float32)
            map_y = np.repeat(along[:, None], right - left, 1)
            part = canvas.picture[self.first + a : self.first + b, left:right]
            cv2.remap(level.texture, map_x, map_y, cv2.INTER_LINEAR, dst=part, borderMode=cv2.BORDER_REPLICATE)
        far = canvas.picture[self.first : self.first + len(self.keep)]
        if len(far):
            cv2.add(cv2.multiply(far, self.keep, scale=1 / 255), self.add, dst=far)
        if canvas.slots is not None:
            self._label(canvas, canvas.slots, shift)

    def _label(self, canvas: Canvas, slots: Picture, shift: NDArray[np.floating]) -> None:
        slots[self.first :] = CLASS["terrain"]
        v = np.arange(self.first, canvas.height)
        for left, right, name in (
            (WALK_LEFT, WALK_RIGHT, "sidewalk"),
            (ROAD_LEFT, ROAD_RIGHT, "road"),
        ):
            # pixels whose middle lies between the edges, row by row
            edges = (canvas.width / 2 + canvas.focal * (x + shift) / self.true_z - 0.5 for x in (left, right))
            u1, u2 = (np.clip(np.ceil(edge), -9, canvas.width + 9) for edge in edges)
            corners = np.concatenate([np.stack([u1, v], 1), np.stack([u2 - 1, v], 1)[::-1]])
            cv2.fillPoly(slots, [corners.astype(np.int32)], CLASS[name])


class View:
    """The world seen at one moment, drawn onto a canvas."""

    def __init__(self, canvas: Canvas, world: World, time: float, paint: Paint) -> None:
        self.canvas, self.world, self.time, self.paint = canvas, world, time, paint
        self.s = world.camera(time)
        self.heading = world.road.heading(self.s)
        self.sway = world.sway(time)
        self._bend = self.bend(np.arange(-_BEHIND, SIGHT + 2 * PLOT)).tolist()

    def bend(self, ahead: NDArray[np.floating]) -> NDArray[np.floating]:
        """Camera X of the middle of the camera's lane, `ahead` metres away."""
        return self.world.road.bend(self.s, ahead) - self.sway

    def across(self, s: float, x: float) -> float:
        """Camera X of the place (s, x): from a table by the metre, as this is asked hundreds of times a frame."""
        place = min(max(s - self.s + _BEHIND, 0.0), len(self._bend) - 1.001)
        step = int(place)
        near = self._bend[step]
        bend: float = near + (self._bend[step + 1] - near) * (place - step)
        return x + bend

    def strokes(self) -> Iterator[Stroke]:
        """All that stands on the ground and is not hidden by walls, from near to far."""
        # A plot's depth is its far end: what is beyond is drawn before it, what stands beside it on the street after.
        items: list[tuple[float, Callable[[], Iterator[Stroke]]]] = []
        for side in (1, -1):
            plots = [(plot.end - self.s, plot) for plot in self.world.plots(self.s, side)]
            items += [(depth, partial(self._plot, plot)) for depth, plot in plots if depth >= NEAR]
        zebras = []
        for placed in self.world.ahead(self.time):
            if isinstance(placed, Zebra):
                zebras.append(placed)
            else:
                items.append((placed.s - self.s, partial(self._placed, placed)))
        for _, strokes in sorted(items, key=lambda item: item[0]):
            yield from strokes()
        for zebra in zebras:
            yield partial(self._zebra, zebra)

    def _placed(self, placed: Green | Lamp | Sign | Signal | Vehicle | Walker | Cyclist) -> Iterator[Stroke]:
        """What stands, drives or walks on the street."""
        z, x = placed.s - self.s, self.across(placed.s, placed.x)
        match placed:
            case Green():
                yield from self._green(placed)
            case Lamp():
                if self.canvas.in_sight(x, z, 2.5, 8.1):
                    yield partial(self._lamp, placed, x, z)
            case Sign():
                if self.canvas.in_sight(x, z, 0.5, 3.1):
                    yield partial(self._sign, placed, x, z)
            case Signal():
                if self.canvas.in_sight(x, z, 0.5, 3.5):
                    yield partial(self._signal, placed, x, z)
            case Vehicle():
                solid = vehicle(placed.kind)
                angle = self._angle(placed)
                half_width = (solid.width + abs(math.sin(angle)) * solid.length) / 2 + 0.35
                if self.canvas.in_sight(x, z, half_width, solid.height, solid.length / 2 + 0.35):
                    yield partial(self._vehicle, placed, x, z, angle)
            case Walker():
                if self.canvas.in_sight(x, z, 0.6, 2.0):
                    yield partial(self._walker, placed, x, z)
            case Cyclist():
                if self.canvas.in_sight(x, z, 0.6, 1.9):
                    yield partial(self._cyclist, placed, x, z)

    def _angle(self, placed: Vehicle) -> float:
        """How far a vehicle is turned to the right against where the camera looks, in radians."""
        return self.world.road.heading(placed.s) - self.heading + (math.pi if placed.turned else 0)

    # Beside the street

    def _plot(self, plot: Plot) -> Iterator[Stroke]:
        inset = plot.x + math.copysign(0.15, plot.x)
        if plot.front == "fence":
            yield partial(self._fence, plot.start, plot.end, inset)
        elif plot.front != "none":
            surface, height, name = self.paint.fronts[plot.front]
            yield from self._panel(surface, plot.start, plot.end, (inset, inset), (height, 0), CLASS[name], 1.0)
        if plot.house:
            yield from self._house(plot.house)
            yield from self._gable(plot.house)
        for green in reversed(plot.greens):
            yield from self._green(green)

    def _green(self, green: Green) -> Iterator[Stroke]:
        z, x = green.s - self.s, self.across(green.s, green.x)
        if not self.canvas.outside(x, z, 0.5 * green.height):
            kinds = self.paint.trees if green.height > 2.5 else self.paint.bushes
            yield from self.canvas.plant(kinds[green.style % len(kinds)], x, z, green.height, CLASS["vegetation"])

    def _house(self, house: House) -> Iterator[Stroke]:
        """Front and roof."""
        paint = self.paint.houses[house.style % len(self.paint.houses)]
        eaves, light = paint.front.height, LIGHT[house.side]
        front = (house.x, house.x)
        yield from self._panel(paint.front, house.start, house.end, front, (eaves, 0), CLASS["building"], light)
        # A roof shows only where it is steeper than the line of sight over the eaves.
        steepness = paint.roof.height / ROOF_DEPTH if paint.roof else 0.0
        sight = max(abs(self.across(house.start, house.x)), abs(self.across(house.end, house.x)))
        if paint.roof and steepness * sight > eaves - CAMERA_HEIGHT:
            edges = (house.x + house.side * ROOF_DEPTH, house.x)
            heights = (eaves + paint.roof.height, eaves)
            yield from self._panel(paint.roof, house.start, house.end, edges, heights, CLASS["building"], light)

    def _gable(self, house: House) -> Iterator[Stroke]:
        """The end of a house that looks towards the camera."""
        canvas, paint = self.canvas, self.paint.houses[house.style % len(self.paint.houses)]
        z, x, wall = house.start - self.s, self.across(house.start, house.x), paint.gable
        if self.canvas.outside(x, z, 0):
            return
        rise = paint.roof.height if paint.roof else 0.0
        slant = ROOF_DEPTH if paint.roof else 0.0
        x1, x2 = sorted((x, x + house.side * wall.width))
        (left, peak), (right, foot) = canvas.point(x1, wall.height, z), canvas.point(x2, 0, z)
        ends = (x1 + slant, x2 - slant)
        (inner_left, eaves), (inner_right, _) = (canvas.point(at, wall.height - rise, z) for at in ends)
        quad = np.array(((left, peak), (right, peak), (right, foot), (left, foot)))
        region = canvas.region(quad)
        if not region or not (region := canvas.cover.visible(*region)):
            return
        outline = np.array(((left, eaves), (inner_left, peak), (inner_right, peak), (right, eaves), *quad[2:]))
        light = 0.82 * LIGHT[house.side]
        if z < PLAIN:
            yield partial(canvas.surface, region, wall, (0, 1), quad, z, CLASS["building"], light, outline)
        else:
            r, g, b = (round(value * light) for value in paint.plain)
            yield partial(canvas.polygon, outline, hazed((r, g, b), z), CLASS["building"])
        canvas.cover.add((left, eaves, foot), (right, eaves, foot))
        canvas.cover.add((inner_left, peak, foot), (inner_right, peak, foot))

    def _panel(
        self,
        surface: Surface,
        start: float,
        end: float,
        x: tuple[float, float],
        height: tuple[float, float],
        slot: int,
        light: float,
    ) -> Iterator[Stroke]:
        """A surface along the street, in pieces, so that each is sampled at a fitting resolution; x and height in
        metres of its upper and lower edge. One that is upright hides what is beyond."""
        z1, z2 = start - self.s, end - self.s
        bend1, bend2 = self.across(start, 0), self.across(end, 0)
        reach = 0.5 * self.canvas.width / self.canvas.focal + 0.02
        visible = max(z1, NEAR, 0.7 * min(abs(x[1] + bend1), abs(x[1] + bend2)) / reach)
        if visible >= z2:
            return
        pieces = max(math.ceil(math.log(z2 / visible) / _STRETCH), 1)
        canvas, edges = self.canvas, []
        for k in range(pieces + 1):
            z = visible * (z2 / visible) ** (k / pieces)
            share = (z - z1) / (z2 - z1)
            middle = bend1 + (bend2 - bend1) * share
            upper, lower = (canvas.point(side + middle, up, z) for side, up in zip(x, height, strict=True))
            edges.append((z, share, upper, lower))
        for (a, near, *left), (b, far, *right) in reversed([*itertools.pairwise(edges)]):
            quad = np.array((left[0], right[0], right[1], left[1]))
            region = canvas.region(quad)
            if region and (region := canvas.cover.visible(*region)):
                yield partial(canvas.surface, region, surface, (near, far), quad, (a + b) / 2, slot, light)
        if x[0] == x[1]:
            canvas.cover.add(*((*upper, lower[1]) for _, _, upper, lower in (edges[0], edges[-1])))

    def _fence(self, start: float, end: float, x: float) -> None:
        """Rails and posts: one looks through."""
        canvas, color = self.canvas, (66, 72, 70)
        z1, z2 = max(start - self.s, 2 * NEAR), end - self.s
        if z1 >= z2:
            return
        x1, x2 = self.across(self.s + z1, x), self.across(end, x)
        for low, high in ((0.15, 0.25), (0.55, 0.63), (0.95, 1.05)):
            y1, y2 = CAMERA_HEIGHT - low, CAMERA_HEIGHT - high
            rail = np.array(((x1, y1, z1), (x2, y1, z2), (x2, y2, z2), (x1, y2, z1)))
            canvas.polygon(canvas.project(rail), hazed(color, (z1 + z2) / 2), CLASS["fence"])
        for s in np.arange(end, start, -2.0).tolist():
            z = s - self.s
            if z > z1 and not self.canvas.outside(at := x1 + (x2 - x1) * (z - z1) / (z2 - z1), z, 0.1):
                canvas.upright(at - 0.04, at + 0.04, 0, 1.15, z, color, CLASS["fence"])

    # On the kerb

    def _lamp(self, lamp: Lamp, x: float, z: float) -> None:
        canvas = self.canvas
        metal: Color = (92, 96, 98)
        canvas.upright(x - 0.09, x + 0.09, 0, 1.2, z, metal, CLASS["pole"])
        canvas.upright(x - 0.06, x + 0.06, 1.2, 8.0, z, metal, CLASS["pole"])
        for inner, outer, low, high, color in ((0.0, 1.7, 7.95, 8.05, metal), (1.1, 1.9, 7.86, 8.06, (150, 152, 150))):
            ends = sorted((x - lamp.side * inner, x - lamp.side * outer))
            canvas.upright(ends[0], ends[1], low, high, z, color, CLASS["pole"])

    def _sign(self, sign: Sign, x: float, z: float) -> None:
        canvas = self.canvas
        canvas.upright(x - 0.04, x + 0.04, 0, 2.9, z, (126, 130, 132), CLASS["pole"])
        for corners, turn, radius, color in SIGNS[sign.kind % len(SIGNS)]:
            canvas.disc(x, 2.55, radius, corners, turn, z, color, CLASS["traffic sign"])

    def _signal(self, signal: Signal, x: float, z: float) -> None:
        canvas = self.canvas
        canvas.upright(x - 0.06, x + 0.06, 0, 3.3, z, (70, 74, 76), CLASS["pole"])
        canvas.upright(x - 0.2, x + 0.2, 2.35, 3.4, z, (30, 32, 32), CLASS["traffic light"])
        lamps: tuple[Color, ...] = ((70, 18, 16), (78, 56, 14), (60, 235, 150)) if signal.facing else ()
        for k, color in enumerate(lamps):
            canvas.disc(x, 3.2 - 0.32 * k, 0.12, 10, 0, z, color, CLASS["traffic light"])

    # On the road

    def _zebra(self, zebra: Zebra) -> None:
        near, far = max(zebra.s - self.s, 1.0), zebra.s - self.s + STRIPES
        if far < 1.5 or near > SIGHT:
            return
        for left in np.arange(ROAD_LEFT + 0.5, ROAD_RIGHT - 0.6, 1.0).tolist():
            places = ((left, near), (left + 0.5, near), (left + 0.5, far), (left, far))
            stripe = [(self.across(self.s + z, x), CAMERA_HEIGHT, z) for x, z in places]
            self.canvas.polygon(self.canvas.project(np.array(stripe)), hazed((190, 190, 187), near), None)

    def _vehicle(self, placed: Vehicle, x: float, z: float, angle: float) -> None:
        canvas, solid = self.canvas, vehicle(placed.kind)
        place = np.array((x, CAMERA_HEIGHT, z), np.float32)
        sin, cos = math.sin(angle), math.cos(angle)
        turn = np.array(((cos, 0, -sin), (0, -1, 0), (sin, 0, cos)), np.float32)
        self._shadow(place, turn, solid.width / 2, solid.length / 2)
        pixel = max(z - solid.length / 2, 1.0) / canvas.focal
        solid = vehicle(placed.kind, coarse=pixel > COARSE)
        seen = np.flatnonzero((solid.worth > pixel**2) & (solid.normal @ (turn @ -place) > solid.offset))
        corners = (solid.corners[seen].reshape(-1, 3) @ turn + place).reshape(-1, CORNERS, 3)
        if z - solid.length / 2 < 1:
            ahead = corners[..., 2].min(1) > 0.5
            corners, seen = corners[ahead], seen[ahead]
        pixels = canvas.project(corners)
        region = canvas.region(pixels.reshape(-1, 2)) if len(pixels) else None
        name = placed.kind if placed.kind in ("truck", "bus") else "car"
        slot = canvas.thing(name, placed.track, region) if region else None
        if slot is None:
            return
        paint = np.array(placed.paint, np.float32)
        color = np.minimum(solid.color[seen] + solid.paint[seen, None] * paint, 255)
        color += (np.array(HAZE, np.float32) - color) * haze(z)
        if canvas.slots is not None:
            for plate in pixels[solid.plate[seen]]:
                canvas.private("plate", slot, plate)
        fixed = (pixels * 16 - 8).astype(np.int32)
        faces = zip(fixed, solid.count[seen].tolist(), color.tolist(), solid.outline[seen].tolist(), strict=True)
        for padded, count, tone, outline in faces:
            polygon = padded[:count]
            cv2.fillConvexPoly(canvas.picture, polygon, tone, cv2.LINE_AA, SUBPIXEL)
            if outline and canvas.slots is not None:
                cv2.fillConvexPoly(canvas.slots, polygon, slot, cv2.LINE_8, SUBPIXEL)

    def _shadow(self, place: Float, turn: Float, half_width: float, half_length: float) -> None:
        """The dark under a vehicle, soft towards its rim: on the picture only."""
        depth = float(place[2])
        if depth > 80:
            return
        near = max(-half_length, 1.5 - depth)
        rings = ((0.28, 0.88), (0.16, 0.82), (0.04, 0.75), (-0.12, 0.7)) if depth < 30 else ((0.08, 0.6),)
        drawn = []
        for margin, keep in rings:
            w, a, b = half_width + margin, near - margin, half_length + margin
            flat = np.array(((-w, 0, a), (w, 0, a), (w, 0, b), (-w, 0, b)), np.float32) @ turn + place
            if flat[:, 2].min() > 0.5:
                drawn.append((self.canvas.project(flat), keep))
        if drawn:
            self.canvas.darken(drawn)

    def _walker(self, walker: Walker, x: float, z: float) -> None:
        parts = pedestrian(walker.style, walker.phase, walker.away)
        self._figure([("person", walker.track, parts)], x, z, walker.size)

    def _cyclist(self, placed: Cyclist, x: float, z: float) -> None:
        bicycle, rider = cyclist(placed.style, placed.phase)
        self._figure([("bicycle", placed.track, bicycle), ("rider", placed.rider_track, rider)], x, z, 1.0)

    def _figure(self, layers: Sequence[tuple[str, int, Figure]], x: float, z: float, size: float) -> None:
        canvas = self.canvas
        scale = canvas.focal / z
        foot = np.array((canvas.width / 2 + x * scale, canvas.horizon + CAMERA_HEIGHT * scale))
        if scale > 30:
            flat = scale * ring(10, 0) * (1, CAMERA_HEIGHT / z)
            canvas.darken([(foot + radius * flat, 0.86) for radius in (0.34, 0.24)])
        steps = haze_steps(z)
        for name, track, figure in layers:
            pixels = figure.corners * (scale * size * np.array((1, -1))) + foot
            region = canvas.region(pixels)
            slot = canvas.thing(name, track, region) if region else None
            if slot is None:
                continue
            if canvas.slots is not None and len(figure.head):
                canvas.private("head", slot, figure.head * (scale * size * np.array((1, -1))) + foot)
            fixed, end = (pixels * 16 - 8).astype(np.int32), 0
            for count, color in figure.parts:
                start, end = end, end + count
                polygon = fixed[start:end]
                cv2.fillConvexPoly(canvas.picture, polygon, mixed(color, steps), cv2.LINE_AA, SUBPIXEL)
                if canvas.slots is not None:
                    cv2.fillConvexPoly(canvas.slots, polygon, slot, cv2.LINE_8, SUBPIXEL)


_RED, _WHITE, _BLUE, _YELLOW = (176, 30, 34), (228, 228, 224), (26, 70, 150), (232, 186, 40)
SIGNS: tuple[tuple[tuple[int, float, float, Color], ...], ...] = (
    ((10, 0, 0.36, _RED), (10, 0, 0.27, _WHITE)),
    ((3, math.pi / 2, 0.46, _RED), (3, math.pi / 2, 0.29, _WHITE)),
    ((4, math.pi / 4, 0.44, _WHITE), (4, math.pi / 4, 0.4, _BLUE)),
    ((10, 0, 0.36, _WHITE), (10, 0, 0.34, _BLUE)),
    ((4, 0, 0.46, _WHITE), (4, 0, 0.38, _YELLOW)),
)
"""Kinds of signs; of each plate: corners, turn in radians, radius in metres, colour."""
