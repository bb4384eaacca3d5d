"""Overlays blended in YUV: class colours, outlines of things, boxes with labels, a legend and a heads-up line.

The picture is never converted to RGB. Class colours go through a look-up table of this stream's own YUV at the class
map's size, are enlarged plane by plane, and blended from the decoder's planes into a new frame: the decoder predicts
later pictures from its planes, so they are never written to.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import av
import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.classes import ClassInfo
from engines.loading import Degraded
from pipeline.frame import Analysis, Box
from pipeline.picture import CHROMA_SHIFT, Colorimetry, copy_properties, on_host, plane, stays_on_device
from pipeline.tracking import iou_matrix

if TYPE_CHECKING:  # torch
    from engines.cuda.nv12 import Ink, Nv12, Palette

UInt8 = NDArray[np.uint8]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHOLE = (255, 255, 255)
_TILE = 32  # as `engines.cuda.nv12` has it, which brings torch
_SAME_OBJECT = 0.5
_SHIFT = 4
"""Fractional bits of the coordinates handed to OpenCV's drawing functions."""


class OverlayStyle(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is drawn over the picture.

    Attributes:
        opacity: of the class colours, 0 (off) to 1.
        outlines: outline the things (cars, people …) of the class map.
        boxes: boxes with label, track number and score.
        legend: colours and names of the classes, at the right edge.
        heads_up: stream, time, frames a second and frame age, at the upper left.
        hide: names of classes that are not coloured.
    """

    opacity: Share = 0.45
    outlines: bool = True
    boxes: bool = True
    legend: bool = False
    heads_up: bool = False
    hide: tuple[str, ...] = ()


class _Canvas:
    """The planes of one output frame, drawn on in the coordinates of the full-size picture.

    Colours are (Y, Cb, Cr). Lines are drawn on each plane at that plane's own resolution.

    Args:
        luma: (height, width) uint8.
        chroma: planes of one channel, or one plane of both.
        shift: log2 of the chroma's subsampling, across and down.
    """

    def __init__(self, luma: UInt8, chroma: tuple[UInt8, ...], shift: tuple[int, int]) -> None:
        self.luma, self.chroma = luma, chroma
        self.height, self.width = luma.shape
        self.across, self.down = shift
        self.interleaved = chroma[0].ndim == 3

    @classmethod
    def of(cls, image: av.VideoFrame) -> _Canvas:
        """The planes of a frame of a blendable format."""
        chroma = tuple(plane(image, index) for index in range(1, len(image.planes)))
        return cls(plane(image, 0), chroma, CHROMA_SHIFT[image.format.name])

    def _chroma_colors(self, color: tuple[int, int, int]) -> tuple[tuple[int, ...], ...]:
        return (
            ((color[1], color[2]),)
            if self.interleaved
            else tuple((level,) for level in color[1 : 1 + len(self.chroma)])
        )

    def fill(self, x: int, y: int, width: int, height: int, color: tuple[int, int, int]) -> None:
        """A filled rectangle; what lies outside the picture is cut off."""
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + width, self.width), min(y + height, self.height)
        if left >= right or top >= bottom:
            return
        self.luma[top:bottom, left:right] = color[0]
        rows = slice(top >> self.down, -(-bottom >> self.down))
        columns = slice(left >> self.across, -(-right >> self.across))
        for chroma, levels in zip(self.chroma, self._chroma_colors(color), strict=True):
            chroma[rows, columns] = levels if self.interleaved else levels[0]

    def polylines(self, curves: Sequence[NDArray[np.float32]], color: tuple[int, int, int], thickness: int) -> None:
        """Closed curves, each (N, 2) float32 x, y in pixels, the picture's upper left corner being (0, 0)."""
        if not curves:
            return
        cv2.polylines(self.luma, _fixed(curves, 0, 0), True, (color[0],), thickness, cv2.LINE_AA, _SHIFT)
        scaled = _fixed(curves, self.across, self.down)
        thin = max(1, thickness >> min(self.across, self.down))
        for chroma, levels in zip(self.chroma, self._chroma_colors(color), strict=True):
            cv2.polylines(chroma, scaled, True, levels, thin, cv2.LINE_8, _SHIFT)

    def text(self, x: int, baseline: int, text: str, luma: int, size: float) -> None:
        """Text on the luma plane only: it takes the hue of what is behind it."""
        cv2.putText(self.luma, text, (x, baseline), _FONT, size, (luma,), max(1, round(size * 2)), cv2.LINE_AA)


class _InkCanvas:
    """Drawn on like a canvas, but on nothing: keeps the light of what is drawn (its colour times its cover) and the
    cover, 255 where it hides what is below. Every drawing function blends both alike, so that light + (1 − cover) ·
    picture is what the same calls would have made of the picture.

    Memory is kept from frame to frame; what was touched is cleared when it is taken.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._down, self._across = -(-height // _TILE), -(-width // _TILE)
        size, half = (self._down * _TILE, self._across * _TILE), (self._down * _TILE // 2, self._across * _TILE // 2)
        self._planes = tuple(np.zeros(shape, np.uint8) for shape in (size, size, (*half, 2), half))
        light, cover, chroma_light, chroma_cover = self._planes
        half_height, half_width = (height + 1) // 2, (width + 1) // 2
        self._light = _Canvas(light[:height, :width], (chroma_light[:half_height, :half_width],), (1, 1))
        self._cover = _Canvas(cover[:height, :width], (chroma_cover[:half_height, :half_width],), (1, 1))
        self._touched = np.zeros((self._down, self._across), bool)

    def fill(self, x: int, y: int, width: int, height: int, color: tuple[int, int, int]) -> None:
        """As `_Canvas.fill`."""
        self._light.fill(x, y, width, height, color)
        self._cover.fill(x, y, width, height, _WHOLE)
        self._touch(x, y, x + width, y + height)

    def polylines(self, curves: Sequence[NDArray[np.float32]], color: tuple[int, int, int], thickness: int) -> None:
        """As `_Canvas.polylines`."""
        self._light.polylines(curves, color, thickness)
        self._cover.polylines(curves, _WHOLE, thickness)
        around = thickness + 4  # a chroma pixel and the softened edge
        for curve in curves:
            (left, top), (right, bottom) = curve.min(0), curve.max(0)
            self._touch(int(left) - around, int(top) - around, int(right) + around, int(bottom) + around)

    def text(self, x: int, baseline: int, text: str, luma: int, size: float) -> None:
        """As `_Canvas.text`."""
        self._light.text(x, baseline, text, luma, size)
        self._cover.text(x, baseline, text, 255, size)
        (width, height), below = cv2.getTextSize(text, _FONT, size, max(1, round(size * 2)))
        self._touch(x - 2, baseline - height - 4, x + width + 4, baseline + below + 4)

    def _touch(self, left: int, top: int, right: int, bottom: int) -> None:
        rows = slice(max(top, 0) // _TILE, max(bottom, 0) // _TILE + 1)
        columns = slice(max(left, 0) // _TILE, max(right, 0) // _TILE + 1)
        self._touched[rows, columns] = True

    def take(self) -> Ink:
        """What was drawn since the last time, and nothing is left."""
        from engines.cuda.nv12 import TILE_BYTES, Ink

        rows, columns = np.nonzero(self._touched)
        if not len(rows):
            return Ink(np.empty(0, np.int32), np.empty((0, TILE_BYTES), np.uint8))
        parts = []
        for own in self._planes:
            side = own.shape[0] // self._down
            tiles = own.reshape(self._down, side, self._across, side, *own.shape[2:])
            parts.append(tiles[rows, :, columns].reshape(len(rows), -1))
            tiles[rows, :, columns] = 0
        self._touched[:] = False
        used = parts[1].any(1) | parts[3].any(1)
        return Ink((rows * self._across + columns)[used].astype(np.int32), np.concatenate(parts, 1)[used])


class Overlay:
    """Draws analyses of one stream.

    Args:
        style: what to draw.
        classes: the segmenter's label set; class ids index it.
        colorimetry: how the stream's YUV is to be read; colours are converted with it once.

    Attributes:
        degraded: told where a GPU had no room and the CPU drew.
    """

    def __init__(self, style: OverlayStyle, classes: Sequence[ClassInfo], colorimetry: Colorimetry) -> None:
        self.style, self.classes, self.colorimetry = style, tuple(classes), colorimetry
        hidden = set(style.hide)
        # A row a plane, a column a class id; ids outside the label set are not shown.
        self._table = np.empty((3, 256), np.uint8)
        self._table[:] = np.array(colorimetry.yuv((128, 128, 128)), np.uint8)[:, None]
        self._shown = np.zeros(256, np.uint8)
        for info in self.classes:
            self._table[:, info.id] = colorimetry.yuv(info.color)
            self._shown[info.id] = 0 if info.name in hidden else 255
        # By name: a box may come from another model, whose class ids mean something else.
        self._colors = {info.name: colorimetry.yuv(_vivid(info.color)) for info in self.classes}
        self._things = [info for info in self.classes if info.thing and info.name not in hidden]
        # Where every class is shown and the ids have no gaps, one maximum says whether all of a map is coloured.
        gapless = sorted(info.id for info in self.classes) == list(range(len(self.classes)))
        self._last_shown = len(self.classes) - 1 if gapless and self._shown[: len(self.classes)].all() else -1
        self._black, self._white = colorimetry.yuv((16, 16, 16))[0], colorimetry.yuv((255, 255, 255))[0]
        self.degraded: Callable[[Degraded], None] = lambda _what: None
        self.stay: Callable[[], bool] = lambda: False
        self._ink: _InkCanvas | None = None
        self._palette: Palette | None = None

    def draw(self, analysis: Analysis, heads_up: str = "") -> av.VideoFrame:
        """A new frame: the analysed picture with the overlay on it, same size, format and time.

        A picture in GPU memory is drawn on there, and downloaded once where it may not `stay`.
        """
        source = analysis.frame.image
        if stays_on_device(source):
            from pipeline import device_pictures  # torch

            try:
                drawn = self.draw_nv12(device_pictures.borrowed(source), analysis, heads_up)
                return (device_pictures.as_frame if self.stay() else device_pictures.downloaded)(drawn, source)
            except device_pictures.OutOfMemory:
                self.degraded(device_pictures.no_room("overlays"))
        source = on_host(source)
        result = av.VideoFrame(source.width, source.height, source.format.name)
        copy_properties(source, result)
        class_map = analysis.class_map
        if class_map is not None and self.style.opacity > 0 and self.classes:
            self._blend(source, result, class_map)
        else:
            for index in range(len(source.planes)):
                plane(result, index)[:] = plane(source, index)
        self._annotate(_Canvas.of(result), analysis, heads_up)
        return result

    def draw_nv12(self, picture: Nv12, analysis: Analysis, heads_up: str = "") -> Nv12:
        """The same on planes in GPU memory, or any other that torch knows: what `draw` makes of an NV12 picture, within
        rounding. Colours are blended there; lines and letters are drawn here and composed there, tile by tile.

        Args:
            picture: not written to; every one of a stream has the same size and device.
            analysis: of the picture; its frame's own image is not looked at.
            heads_up: text of the heads-up line.
        """
        from engines.cuda import nv12

        height, width = picture.luma.shape
        if self._ink is None:
            self._ink = _InkCanvas(width, height)
            self._palette = nv12.Palette.of(self._table, self._shown, picture.luma.device)
        class_map = analysis.class_map
        if class_map is not None and self._palette is not None and self.style.opacity > 0 and self.classes:
            result = nv12.blended(picture, class_map, self._palette, self.style.opacity)
        else:
            result = nv12.copied(picture)
        self._annotate(self._ink, analysis, heads_up)
        nv12.compose(result, self._ink.take())
        return result

    def _annotate(self, canvas: _Canvas | _InkCanvas, analysis: Analysis, heads_up: str) -> None:
        class_map = analysis.class_map
        if class_map is not None and self.style.outlines:
            self._outline(canvas, class_map, analysis.area)
        if self.style.boxes:
            for box in once_each(analysis.boxes):
                self._box(canvas, box)
        if self.style.legend:
            self._draw_legend(canvas)
        if self.style.heads_up and heads_up:
            size = max(0.4, canvas.height / 1200)
            line = round(34 * size)
            canvas.fill(0, 0, round(len(heads_up) * 19 * size) + line, line + 6, (self._black, 128, 128))
            canvas.text(line // 2, line - 4, heads_up, self._white, size)

    def _blend(self, source: av.VideoFrame, result: av.VideoFrame, class_map: UInt8) -> None:
        opacity = self.style.opacity
        some_hidden = int(class_map.max()) > self._last_shown
        if some_hidden:
            hidden = cv2.LUT(class_map, 255 - self._shown)
        interleaved = source.format.name == "nv12"
        for index in range(len(source.planes)):
            original, target = plane(source, index), plane(result, index)
            small = cv2.LUT(class_map, self._table[index])
            if interleaved and index == 1:
                small = cv2.merge([small, cv2.LUT(class_map, self._table[2])])
            size = (target.shape[1], target.shape[0])
            colors = cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)
            cv2.addWeighted(original, 1 - opacity, colors, opacity, 0, dst=target)
            if some_hidden:
                cv2.copyTo(original, cv2.resize(hidden, size, interpolation=cv2.INTER_NEAREST), target)

    def _outline(self, canvas: _Canvas | _InkCanvas, class_map: UInt8, area: Mapping[str, float]) -> None:
        height, width = class_map.shape
        scale = np.array([canvas.width / width, canvas.height / height], np.float32)
        thickness = max(1, round(canvas.height / 540))
        for info in self._things:
            if area and info.name not in area:
                continue  # known to be absent: nothing to look for
            mask = (class_map == info.id).view(np.uint8)
            contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            curves = [
                _smoothed((contour[:, 0, :].astype(np.float32) + 0.5) * scale)
                for contour in contours
                if len(contour) >= 6
            ]
            canvas.polylines(curves, self._colors[info.name], thickness)

    def _box(self, canvas: _Canvas | _InkCanvas, box: Box) -> None:
        # Boxes may reach far outside; OpenCV draws in 32-bit numbers.
        x1, x2 = (min(max(x, -float(canvas.width)), 2.0 * canvas.width) for x in (box.x1, box.x2))
        y1, y2 = (min(max(y, -float(canvas.height)), 2.0 * canvas.height) for y in (box.y1, box.y2))
        if x1 >= canvas.width or y1 >= canvas.height or x2 <= 0 or y2 <= 0:
            return
        color = self._colors.get(box.label) or self.colorimetry.yuv((255, 255, 0))
        thickness = max(1, round(canvas.height / 400))
        canvas.polylines([np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)], color, thickness)
        size = max(0.35, canvas.height / 1600)
        number = "" if box.track is None else f" {box.track}"
        text = f"{box.label}{number} {box.score:.2f}"
        (width, height), _ = cv2.getTextSize(text, _FONT, size, max(1, round(size * 2)))
        width, height = width + 6, height + 6
        # Above the box; inside it where there is no room above.
        left = max(0, min(round(x1), canvas.width - width))
        top = round(y1) - height if round(y1) >= height else max(0, round(y1))
        canvas.fill(left, top, width, height, color)
        canvas.text(left + 3, top + height - 4, text, self._black if color[0] > 120 else self._white, size)

    def _draw_legend(self, canvas: _Canvas | _InkCanvas) -> None:
        size = max(0.35, canvas.height / 1700)
        line = round(30 * size)
        names = [info for info in self.classes if self._shown[info.id]]
        if not names:
            return
        width = round(max(len(info.name) for info in names) * 18 * size) + 2 * line
        left, top = canvas.width - width, (canvas.height - line * len(names)) // 2
        canvas.fill(left, top - 6, width, line * len(names) + 12, (self._black, 128, 128))
        for row, info in enumerate(names):
            y = top + row * line
            canvas.fill(left + 6, y + 3, line - 6, line - 6, self.colorimetry.yuv(info.color))
            canvas.text(left + line + 6, y + line - round(9 * size) - 1, info.name, self._white, size)


def once_each(boxes: Sequence[Box]) -> list[Box]:
    """The boxes without those that a later model's box of the same object stands for: one car, one rectangle.

    Two models' boxes are of the same object where their intersection over union is at least one half. Only the drawing
    leaves one out; messages carry both.
    """
    if len({box.origin for box in boxes}) < 2:
        return list(boxes)
    order: dict[str, int] = {}
    for box in boxes:
        order.setdefault(box.origin, len(order))
    corners = np.array([[box.x1, box.y1, box.x2, box.y2] for box in boxes], np.float64)
    model = np.array([order[box.origin] for box in boxes])
    hidden = np.any((iou_matrix(corners, corners) >= _SAME_OBJECT) & (model[None, :] > model[:, None]), axis=1)
    return [box for box, gone in zip(boxes, hidden, strict=True) if not gone]


class OverlayStage:
    """A stage that draws the overlay of one stream into `Analysis.picture`, once for all outputs that show it.

    Args:
        style: what to draw.
        interval: nominal seconds between frames, where the heads-up line's frame rate begins.

    Attributes:
        wanted: whether anybody looks; asked before every frame, and while nobody does, nothing is drawn.
        degraded: told where a GPU had no room and the CPU drew.
        stay: whether those who encode take pictures in GPU memory; asked for every one.
    """

    name = "overlay"

    def __init__(self, style: OverlayStyle, interval: float = 0.04) -> None:
        self.wanted: Callable[[], bool] = lambda: True
        self.degraded: Callable[[Degraded], None] = lambda _what: None
        self.stay: Callable[[], bool] = lambda: False
        self._style, self._interval = style, interval
        self._overlay: Overlay | None = None
        self._before: float | None = None

    @property
    def style(self) -> OverlayStyle:
        """What is drawn; a new one holds from the next frame on, and may be set from any thread."""
        return self._style

    @style.setter
    def style(self, style: OverlayStyle) -> None:
        self._style = style

    def process(self, analysis: Analysis) -> Analysis:
        """Draw; the pixel format and colours of the first frame hold for the stream."""
        if not self.wanted():
            return analysis
        if self._overlay is None or self._overlay.style is not self._style:
            self._overlay = Overlay(self._style, analysis.classes, Colorimetry.of(analysis.frame.image))
            self._overlay.degraded, self._overlay.stay = self.degraded, self.stay
        analysis.picture = self._overlay.draw(analysis, self._heads_up(analysis) if self._style.heads_up else "")
        return analysis

    def _heads_up(self, analysis: Analysis) -> str:
        frame = analysis.frame
        if self._before is not None and frame.arrived_at > self._before:
            self._interval += 0.1 * (frame.arrived_at - self._before - self._interval)
        self._before = frame.arrived_at
        rate = 1 / self._interval
        return f"{frame.stream}  {frame.time:7.2f} s  {rate:.0f} fps  age {analysis.age * 1000:.0f} ms"


def _vivid(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """The colour at full brightness, for thin lines: dark palette colours vanish on dark pictures."""
    peak = max(color)
    if peak == 0:
        return 255, 255, 255
    red, green, blue = (round(40 + channel * 215 / peak) for channel in color)
    return red, green, blue


def _fixed(curves: Sequence[NDArray[np.float32]], across: int, down: int) -> list[NDArray[np.int32]]:
    """Curves on a plane that is subsampled by 2^across and 2^down, in OpenCV's numbers: a pixel's centre is whole."""
    one = 1 << _SHIFT
    points = np.concatenate(curves) * np.array([one / (1 << across), one / (1 << down)], np.float32) - one / 2
    fixed = np.rint(points).astype(np.int32)
    ends = itertools.accumulate((len(curve) for curve in curves), initial=0)
    return [fixed[first:last] for first, last in itertools.pairwise(ends)]


def _smoothed(curve: NDArray[np.float32]) -> NDArray[np.float32]:
    """A closed curve without the stairs of the class map's pixels: each point the mean of itself and its neighbours."""
    around = np.concatenate([curve[-1:], curve, curve[:1]])
    return np.asarray((around[:-2] + 2 * curve + around[2:]) * np.float32(0.25), np.float32)
