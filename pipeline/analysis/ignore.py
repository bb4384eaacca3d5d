"""What of a picture is looked at: bars and panels that are found, and what a configuration names.

Bars are cut off before a model sees the picture, so that its geometry is the one the model was trained on. All else
that is ignored (a bonnet, a mirror, writing) is seen by the models, and what they say of it is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import av
import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.classes import IGNORE
from engines.errors import UsageError
from pipeline.analysis.margin_watch import MarginWatch
from pipeline.analysis.margins import Margins
from pipeline.frame import Ignored, Rect

UInt8 = NDArray[np.uint8]
Corner = tuple[Annotated[float, msgspec.Meta(ge=0)], Annotated[float, msgspec.Meta(ge=0)]]
Outline = Annotated[tuple[Corner, ...], msgspec.Meta(min_length=3, max_length=1000)]

_COARSE = 2.0
"""Pixels by which a region of a mask picture may be told inexactly in messages."""


class IgnoreOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of a stream's pictures is not looked at.

    Attributes:
        bars: whether black bars and panels along the edges are looked for, and cut off.
        polygons: regions, each by its corners `[x, y]` in pixels of the upright picture, x right, y down.
        mask: a picture of the same size, white where the stream's pictures are ignored and black elsewhere.
        own_car: whether the own car is kept in mind where the class map shows it now and then; see
            `pipeline.analysis.own_car`.
    """

    bars: bool = True
    polygons: tuple[Outline, ...] = ()
    mask: Path | None = None
    own_car: bool = True


class IgnoredRegions:
    """What of one stream's frames is not looked at: what a configuration names, and what is found.

    Args:
        options: what is named, and whether bars are looked for.
        width, height: of the stream's frames, upright, in pixels.

    Raises:
        UsageError: a polygon leaves the picture or has no area, or the mask picture cannot be read or is of another
            size.
    """

    def __init__(self, options: IgnoreOptions, width: int, height: int) -> None:
        self._whole = Margins(Rect(0, 0, width, height))
        self._named = np.zeros((height, width), np.uint8)
        polygons = [_checked(polygon, k, width, height) for k, polygon in enumerate(options.polygons, 1)]
        if options.mask is not None:
            self._named = _read_mask(options.mask, width, height)
        self._polygons = (*polygons, *_outlines(self._named))
        for polygon in polygons:
            _paint(self._named, polygon)
        self._watch = MarginWatch(width, height) if options.bars else None
        self._last: tuple[Margins, Ignored | None] = (self._whole, self._beside(self._whole))

    def learn(self, images: Iterable[av.VideoFrame]) -> None:
        """Look for bars in pictures of the stream from any times, ahead of its frames."""
        if self._watch is not None:
            self._watch.learn(images)

    def look(self, image: av.VideoFrame, time: float) -> Ignored | None:
        """What of the stream's next frame, shown at `time` in seconds, is not looked at; None where all of it is."""
        margins = self._whole if self._watch is None else self._watch.watch(image, time)
        if margins is not self._last[0]:
            self._last = (margins, self._beside(margins))
        return self._last[1]

    def _beside(self, margins: Margins) -> Ignored | None:
        polygons = (*self._polygons, *margins.panels)
        if not polygons and margins.crop == self._whole.crop:
            return None
        mask = np.full_like(self._named, 255)
        x1, y1, x2, y2 = margins.crop
        mask[y1:y2, x1:x2] = self._named[y1:y2, x1:x2]
        for panel in margins.panels:
            _paint(mask, panel)
        return Ignored(margins.crop, polygons, mask)


def whole_map(seen: UInt8, ignored: Ignored, fill: int = IGNORE) -> UInt8:
    """A map of what models see as one of the whole frame.

    Args:
        seen: (h, w) uint8, the crop squashed into it.
        ignored: what of the frame is not looked at.
        fill: what stands there.

    Returns:
        uint8, as many pixels to each of the frame's as `seen` has to those of the crop.
    """
    height, width = ignored.mask.shape
    x1, y1, x2, y2 = ignored.crop
    columns = max(1, round(width * seen.shape[1] / (x2 - x1)))
    rows = max(1, round(height * seen.shape[0] / (y2 - y1)))
    left, right = -(-x1 * columns // width), x2 * columns // width
    top, bottom = -(-y1 * rows // height), y2 * rows // height
    result = np.full((rows, columns), fill, np.uint8)
    result[top:bottom, left:right] = cv2.resize(seen, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST)
    result[cv2.resize(ignored.mask, (columns, rows), interpolation=cv2.INTER_NEAREST) > 0] = fill
    return result


def _paint(mask: UInt8, polygon: tuple[tuple[float, float], ...]) -> None:
    # A corner at x is the left edge of pixel x; OpenCV's is its middle.
    corners = np.round((np.array(polygon, np.float64) - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [corners], 255, cv2.LINE_8, 4)


def _checked(polygon: Outline, number: int, width: int, height: int) -> tuple[tuple[float, float], ...]:
    for x, y in polygon:
        if x > width or y > height:
            raise UsageError(
                f"ignore.polygons: the corner ({x:g}, {y:g}) of polygon {number} lies outside the picture, which is "
                f"{width}×{height}; give corners in its pixels"
            )
    if abs(cv2.contourArea(np.array(polygon, np.float32))) < 1:
        raise UsageError(f"ignore.polygons: polygon {number} has no area; give its corners in order around it")
    return polygon


def _read_mask(path: Path, width: int, height: int) -> UInt8:
    try:
        picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
    except (OSError, cv2.error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no picture"
        raise UsageError(f"ignore.mask: {path} cannot be read: {reason}; give a picture such as a PNG") from None
    if picture is None:
        raise UsageError(f"ignore.mask: {path} is no picture that can be read; give a PNG")
    if picture.shape != (height, width):
        raise UsageError(
            f"ignore.mask: {path} is {picture.shape[1]}×{picture.shape[0]} and the stream's pictures are "
            f"{width}×{height}; draw the mask over one of them"
        )
    return np.asarray(cv2.threshold(picture, 127, 255, cv2.THRESH_BINARY)[1], np.uint8)


def _outlines(mask: UInt8) -> list[tuple[tuple[float, float], ...]]:
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    rough = (np.asarray(cv2.approxPolyDP(contour, _COARSE, True))[:, 0] for contour in contours)
    return [tuple((float(x), float(y)) for x, y in corners) for corners in rough if len(corners) > 2]
