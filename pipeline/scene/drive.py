"""A procedural drive through a town: each frame a picture, its exact label and the boxes of what is in it.

Picture and label come from the very same polygons and cut-outs, painted from far to near, so the label is exact; the
picture alone has soft edges. Before that everything is gone through from near to far, and what nearer walls hide is
left out (`pipeline.scene.cover`). Nothing is kept from frame to frame: any frame can be drawn at any time, and is
always the same. The world is in `pipeline.scene.street`, its paint in `pipeline.scene.paint`, vehicles and people in
`pipeline.scene.vehicles`.

Camera coordinates: X right, Y down, Z ahead, in metres; a pinhole, level, CAMERA_HEIGHT above the road.
"""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.frame import Box
from pipeline.scene.canvas import Canvas, Lens, Paint
from pipeline.scene.paint import (
    Picture,
    as_picture,
)
from pipeline.scene.places import Place, places
from pipeline.scene.street import (
    World,
)
from pipeline.scene.view import Backdrop, Ground, View

MIN_SIDE, MAX_SIDE = 16, 8192
"""Pixels."""
MAX_TRAFFIC = 16


class SyntheticScene:
    """A drive through a town. `frame(index)` is a pure function of the index and of what is given here.

    Args:
        width, height: pixels, MIN_SIDE to MAX_SIDE.
        fps: frames a second.
        seed: chooses everything.
        traffic: how many vehicles drive within sight, 0 to MAX_TRAFFIC.
        incidents: whether something happens on the road ahead (`pipeline.scene.incidents`).

    Attributes:
        focal: pixels; the field of view is 53° across at 16:9.
        horizon: its height in pixels from the top.
    """

    def __init__(
        self,
        width: int = 1280,
        height: int = 720,
        fps: Fraction | float = 25,
        seed: int = 0,
        traffic: int = 6,
        incidents: bool = False,
    ) -> None:
        self.width, self.height, self.fps = width, height, Fraction(fps)
        self.focal = max(width, height * 16 / 9)
        self.horizon = 0.44 * height
        lens = Lens(width, height, self.focal, self.horizon)
        self.world = World(seed, traffic, incidents)
        detail = 1.0 if self.focal > 900 else 0.5 if self.focal > 450 else 0.25
        self._paint = Paint.mix(seed, detail)
        self._backdrop = Backdrop(lens, seed)
        self._ground = Ground(lens, seed, detail)

    def frame(self, index: int) -> tuple[Picture, Picture, tuple[Box, ...]]:
        """Draw one frame.

        Returns:
            picture: (H, W, 3) uint8 RGB.
            label: (H, W) uint8 trainIds of `CITYSCAPES_CLASSES`; every pixel has one.
            boxes: the visible part of every vehicle, person and bicycle, parked ones too; `track` stays with an object.
        """
        canvas = self._draw(index, labelled=True)
        return self._developed(canvas), canvas.label(), tuple(canvas.boxes())

    def private(self, index: int) -> tuple[Box, ...]:
        """What is to be seen of every number plate and head of a frame: boxes labelled `plate` and `head`, with the
        class id and the track of their vehicle or person."""
        return tuple(self._draw(index, labelled=True).private_boxes())

    def instances(self, index: int) -> NDArray[np.int32]:
        """(H, W) int32: to which of the boxes of a frame each pixel belongs, by `track`; 0 for none."""
        return self._draw(index, labelled=True).tracks()

    def picture(self, index: int) -> Picture:
        """Draw the picture of a frame alone, (H, W, 3) uint8 RGB: the same one, for less."""
        return self._developed(self._draw(index, labelled=False))

    def places(self, index: int) -> dict[int, Place]:
        """Where every vehicle and person ahead truly is in a frame, hidden ones too, by `track` of the boxes."""
        return places(self.world, float(index / self.fps))

    def _draw(self, index: int, labelled: bool) -> Canvas:
        canvas = Canvas(self.width, self.height, self.focal, self.horizon, labelled)
        view = View(canvas, self.world, float(index / self.fps), self._paint)
        strokes = list(view.strokes())
        self._backdrop.draw(canvas, view.heading)
        self._ground.draw(canvas, view)
        for stroke in reversed(strokes):
            stroke()
        return canvas

    def _developed(self, canvas: Canvas) -> Picture:
        picture = cv2.cvtColor(canvas.picture, cv2.COLOR_RGBA2RGB)
        if self.focal > 450:  # a lens is not as sharp as a polygon
            picture = cv2.GaussianBlur(picture, (3, 3), 0)
        return as_picture(picture)
