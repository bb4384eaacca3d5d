"""The lead vehicle of a labelled road picture: the car, truck or bus straight ahead in the own lane.

Nobody drew these boxes; they are derived from class maps by geometry. A flat road and a camera at a known place make a
row of the picture a distance, and a place on that row a place across the lane. So the *ego corridor*, a strip of the
road as wide as `Corridor.half_width` to either side of the car, is a triangle in the picture from the vanishing point
to the bottom edge, and a vehicle is ahead when the middle of its foot stands in it.

Touching vehicles of one class are one component of the class map. They are taken apart along their feet: a component's
lowest pixel in every column is how far away what one sees there stands, and where that jumps, one vehicle ends. What
hides another's foot cannot be taken apart so: two cars that stand side by side at one distance stay one vehicle, and a
vehicle that a pole cuts in two is the larger of its halves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data import load_split, recognise
from training.data.cityscapes_pairs import SIDE, Split

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]

VEHICLES = {13: "car", 14: "truck", 15: "bus"}
"""trainIds of Cityscapes that a lead vehicle may have."""


@dataclass(frozen=True)
class Corridor:
    """The strip of road ahead, as a triangle in the picture. All in fractions of the picture's width or height.

    The values are those of the Cityscapes camera (1.22 m above the road, focal length 2262 pixels of 2048×1024, turned
    a little to the right and down, its calibration files say), read off the pictures again: there the roads vanish, and
    there stands the star on the bonnet.

    Attributes:
        vanishing_x, vanishing_y: where the road straight ahead vanishes.
        bottom_x: where the middle of the lane leaves the picture at the bottom.
        half_width: of the corridor at the picture's bottom edge, as a share of the picture's width. At a height of
            1.22 m and a horizon at 0.42, 0.33 is 1.4 m: half way between the middle of a car in the same lane (0 to
            0.6 m) and that of one parked beside it (2.2 m).
        max_width: largest width of a vehicle at its foot, in half widths of the corridor. 3 is 4.2 m: a bus in a bend
            is narrower, and traffic that crosses, seen from the side and often several vehicles in one, is not.
        min_height: smallest height of a vehicle, as a share of the picture's; 0.047 is a car 70 m away.
        min_area: smallest area, as a share of the picture's.
    """

    vanishing_x: float = 0.51
    vanishing_y: float = 0.42
    bottom_x: float = 0.54
    half_width: float = 0.33
    max_width: float = 3.0
    min_height: float = 0.047
    min_area: float = 0.0015

    def offset(self, x: float, y: float) -> float:
        """How far across the corridor a point of the road lies: −1 and 1 are its edges; infinite at and above the
        horizon."""
        depth = (y - self.vanishing_y) / (1 - self.vanishing_y)
        if depth <= 0:
            return float("inf")
        return (x - self.vanishing_x - (self.bottom_x - self.vanishing_x) * depth) / (self.half_width * depth)


@dataclass(frozen=True)
class LeadVehicle:
    """A vehicle ahead.

    Attributes:
        box: (4,) float32 xyxy as fractions of the picture, right and bottom exclusive; of what is to be seen of it.
        class_id: trainId.
        area: of the vehicle, as a share of the picture.
    """

    box: Float32
    class_id: int
    area: float


CITYSCAPES_CORRIDOR = Corridor()

LARGEST_ZOOM = 1.6
"""Up to which zoom of a view `load_lead_vehicles` knows what becomes large enough to count."""


def find_lead_vehicle(class_map: UInt8, corridor: Corridor = CITYSCAPES_CORRIDOR) -> LeadVehicle | None:
    """The largest car, truck or bus whose foot stands in the corridor, or None.

    Args:
        class_map: (H, W) uint8 trainIds, 255 unlabelled; the whole frame squashed into it.
        corridor: what counts as ahead.
    """
    height, width = class_map.shape
    best: LeadVehicle | None = None
    for class_id in VEHICLES:
        mask = (class_map == class_id).view(np.uint8)
        if cv2.countNonZero(mask) < corridor.min_area * mask.size:
            continue
        # Blends of two colours at the edge of a label land on a third class: hairs of a pixel or two, which would
        # stretch boxes and bridge vehicles.
        mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        _, numbered, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
        for number in range(1, len(stats)):
            if stats[number, cv2.CC_STAT_AREA] < corridor.min_area * mask.size:
                continue
            left, top, wide, high = (int(v) for v in stats[number, :4])
            component = numbered[top : top + high, left : left + wide] == number
            for vehicle, foot in _taken_apart(component, corridor.vanishing_y * height - top):
                rows, columns = np.flatnonzero(vehicle.any(1)), np.flatnonzero(vehicle.any(0))
                x1, x2 = left + int(columns[0]), left + int(columns[-1]) + 1
                y1, y2 = top + int(rows[0]), top + int(rows[-1]) + 1
                area = float(vehicle.sum()) / mask.size
                if area < corridor.min_area or y2 - y1 < corridor.min_height * height:
                    continue
                across = [corridor.offset(x / width, y2 / height) for x in (x1, left + foot, x2)]
                if abs(across[1]) > 1 or across[2] - across[0] > corridor.max_width or (best and best.area >= area):
                    continue
                box = np.array([x1 / width, y1 / height, x2 / width, y2 / height], np.float32)
                best = LeadVehicle(box, class_id, area)
    return best


def _taken_apart(component: NDArray[np.bool_], horizon: float) -> Iterator[tuple[NDArray[np.bool_], float]]:
    """The vehicles of a component, nearest first: the mask of each and the column in the middle of its foot.

    Args:
        component: (h, w) bool, cut out of the picture along its bounds: no column of it is empty.
        horizon: row of the horizon in its coordinates.
    """
    height, width = component.shape
    feet = (height - np.argmax(component[::-1], axis=0)).astype(np.float64)
    free = np.ones(width, bool)
    while free.any():
        nearest = int(np.where(free, feet, -np.inf).argmax())
        # 15 % of the distance from the horizon is as much of the distance from the camera.
        reach = max(2.0, 0.15 * (feet[nearest] - horizon))
        first = last = nearest
        while first > 0 and free[first - 1] and abs(feet[first - 1] - feet[first]) <= reach:
            first -= 1
        while last + 1 < width and free[last + 1] and abs(feet[last + 1] - feet[last]) <= reach:
            last += 1
        strip = np.flatnonzero(feet[first : last + 1] >= feet[nearest] - reach) + first
        # The rounded ends of a vehicle belong to it; more than a quarter of it is another one.
        spare = max(2, (last + 1 - first) // 4)
        before, behind = _free_run(free[:first][::-1]), _free_run(free[last + 1 :])
        first -= before if before <= spare else 0
        last += behind if behind <= spare else 0
        vehicle = np.zeros_like(component)
        vehicle[:, first : last + 1] = component[:, first : last + 1]
        free[first : last + 1] = False
        yield vehicle, (float(strip[0]) + float(strip[-1]) + 1) / 2


def _free_run(free: NDArray[np.bool_]) -> int:
    """How many of the first columns are free."""
    return len(free) if free.all() else int(np.argmin(free))


@dataclass(frozen=True)
class LeadVehicles:
    """A split held in memory, with the vehicles ahead.

    Attributes:
        photos: (N, H, W, 3) uint8, RGB, whole frames squashed.
        names: file names, in the order of the arrays.
        boxes: (N, 4) float32, xyxy as fractions of the picture; zeros where there is none. Also of vehicles too small
            to count, which a view that zooms in makes large enough.
        areas: (N,) float32, of the vehicle, as a share of the picture; 0 where there is none.
        present: (N,) bool, whether there is a vehicle ahead that is large enough to count.
        protocol: where pictures and truth come from, for people.
    """

    photos: UInt8
    names: tuple[str, ...]
    boxes: Float32
    areas: Float32
    present: NDArray[np.bool_]
    protocol: str

    def __len__(self) -> int:
        return len(self.names)


def large_enough(box: Float32, area: float, corridor: Corridor = CITYSCAPES_CORRIDOR) -> bool:
    """Whether a vehicle with this (4,) box and area, both as fractions of the picture, counts."""
    return bool(box[3] - box[1] >= corridor.min_height - 1e-6 and area >= corridor.min_area)


def load_lead_vehicles(
    folder: Path, split: Split, height: int, width: int, cache: Path | None = None, *, skip_broken: bool = False,
    say: Callable[[str], None] = print, corridor: Corridor = CITYSCAPES_CORRIDOR,
) -> LeadVehicles:  # fmt: skip
    """Read a split of the Cityscapes pairs, or of Cityscapes, and find the vehicle ahead in each label.

    Args:
        folder: of the data set.
        split: of it.
        height, width: of the photos; the boxes are found in labels of 256×256 whatever it is.
        cache: folder for decoded pairs, or None.
        skip_broken: leave out what cannot be used, and name it to `say`.
        say: gets one sentence for each picture left out.
        corridor: what counts as ahead.

    Raises:
        SourceError: not the set, or a file that cannot be used.
    """
    pairs = load_split(recognise(folder), folder, split, SIDE, SIDE, cache, skip_broken=skip_broken, say=say)
    generous = replace(
        corridor, min_height=corridor.min_height / LARGEST_ZOOM, min_area=corridor.min_area / LARGEST_ZOOM**2
    )
    boxes, areas = np.zeros((len(pairs), 4), np.float32), np.zeros(len(pairs), np.float32)
    present = np.zeros(len(pairs), bool)
    for index, label in enumerate(pairs.labels):
        found = find_lead_vehicle(label, corridor)
        present[index] = found is not None
        if found := found or find_lead_vehicle(label, generous):
            boxes[index], areas[index] = found.box, found.area
    photos = pairs.photos
    if (height, width) != (SIDE, SIDE):
        resized = [cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA) for photo in photos]
        photos = np.stack(resized).astype(np.uint8, copy=False)
    return LeadVehicles(
        photos, pairs.names, boxes, areas, present,
        f"lead vehicle: the largest car, truck or bus whose foot stands in the ego corridor, at least "
        f"{corridor.min_height:.1%} of the picture high; {pairs.protocol}",
    )  # fmt: skip
