"""Overlays blended in YUV: class colours, outlines of things, boxes with labels, a legend and a heads-up line.

The picture is never converted to RGB. Class colours go through a look-up table of this stream's own YUV at the class
map's size, are enlarged plane by plane, and blended from the decoder's planes into a new frame: the decoder predicts
later pictures from its planes, so they are never written to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import av
import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.classes import ClassInfo
from pipeline.analysis.ahead.happenings import marks
from pipeline.drawing.canvas import Canvas, InkCanvas, Rect
from pipeline.drawing.contrast import BLACK, GROUND, WHITE, Measures, line_color
from pipeline.drawing.labels import Label, Labels, in_picture, once_each
from pipeline.drawing.legend import Legend
from pipeline.frame import Analysis, Box, note_lines
from pipeline.pictures.colors import Colorimetry
from pipeline.pictures.picture import Target
from pipeline.pictures.planes import UInt8, copy_properties, plane

if TYPE_CHECKING:  # torch
    from engines.cuda.nv12 import Nv12, Palette

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_UNKNOWN = (255, 255, 0)
"""The colour of a box whose label is not in the segmenter's label set."""


class OverlayStyle(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is drawn over the picture.

    Attributes:
        opacity: of the class colours, 0 (off) to 1.
        outlines: outline the things (cars, people …) of the class map.
        boxes: boxes with label, track number and score.
        legend: colours and names of the classes in the picture, along the lower edge.
        heads_up: stream and time, at the upper left; where no file keeps the picture, fps and frame age, too.
        hide: names of classes that are not coloured, outlined, boxed or listed.
        notes: what stages say of the frame in words (`Analysis.notes`), at the upper left, below the heads-up line; and
            beside the box of the lead vehicle, its distance and the seconds to contact.
    """

    opacity: Share = 0.45
    outlines: bool = True
    boxes: bool = True
    legend: bool = False
    heads_up: bool = False
    hide: tuple[str, ...] = ()
    notes: bool = True


class Overlay:
    """Draws analyses of one stream.

    Args:
        style: what to draw.
        classes: the segmenter's label set; class ids index it.
        colorimetry: how the stream's YUV is to be read; colours are converted with it once.
        target: where what is drawn is handed on; in host memory unless it says so.
    """

    def __init__(
        self,
        style: OverlayStyle,
        classes: Sequence[ClassInfo],
        colorimetry: Colorimetry,
        target: Target | None = None,
    ) -> None:
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
        self._colors = {info.name: colorimetry.yuv(line_color(info.color)) for info in self.classes}
        self._unknown, self._black = colorimetry.yuv(line_color(_UNKNOWN)), colorimetry.yuv(BLACK)[0]
        self._hidden, self._labels = hidden, Labels()
        self._legend = Legend([info for info in self.classes if info.name not in hidden])
        self._things = [info for info in self.classes if info.thing and info.name not in hidden]
        # Where every class is shown and the ids have no gaps, one maximum says whether all of a map is coloured.
        gapless = sorted(info.id for info in self.classes) == list(range(len(self.classes)))
        self._last_shown = len(self.classes) - 1 if gapless and self._shown[: len(self.classes)].all() else -1
        self.target = target or Target()
        self._ink: InkCanvas | None = None
        self._palette: Palette | None = None

    def draw(self, analysis: Analysis, heads_up: str = "") -> av.VideoFrame:
        """A new frame: the analysed picture with the overlay on it, same size, format and time.

        It is drawn where the picture lies, and handed on where `target` says.
        """
        return self.target.drawn(
            analysis.frame.image,
            lambda planes: self.draw_nv12(planes, analysis, heads_up),
            lambda image: self._drawn_on_host(image, analysis, heads_up),
        )

    def _drawn_on_host(self, source: av.VideoFrame, analysis: Analysis, heads_up: str) -> av.VideoFrame:
        result = av.VideoFrame(source.width, source.height, source.format.name)
        copy_properties(source, result)
        class_map = analysis.class_map
        if class_map is not None and self.style.opacity > 0 and self.classes:
            self._blend(source, result, class_map)
        else:
            for index in range(len(source.planes)):
                plane(result, index)[:] = plane(source, index)
        self._annotate(Canvas.of(result), analysis, heads_up)
        return result

    def look(self, analysis: Analysis) -> None:
        """Take notice of a picture that is not drawn."""
        self._legend.look(analysis)

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
            self._ink = InkCanvas(width, height)
            self._palette = nv12.Palette.of(self._table, self._shown, picture.luma.device)
        class_map = analysis.class_map
        if class_map is not None and self._palette is not None and self.style.opacity > 0 and self.classes:
            result = nv12.blended(picture, class_map, self._palette, self.style.opacity)
        else:
            result = nv12.copied(picture)
        self._annotate(self._ink, analysis, heads_up)
        nv12.compose(result, self._ink.take())
        return result

    def _annotate(self, canvas: Canvas | InkCanvas, analysis: Analysis, heads_up: str) -> None:
        size, class_map = (canvas.width, canvas.height), analysis.class_map
        measures, edge = Measures.of(*size), Measures.at_the_edge(*size)
        if class_map is not None and self.style.outlines:
            self._outline(canvas, class_map, analysis.area, measures)
        entries = self._legend.entries(analysis, size) if self.style.legend else []
        lines = [heads_up] if self.style.heads_up and heads_up else []
        lines += note_lines(analysis.notes) if self.style.notes else []
        written = _lines(lines, size)
        if self.style.boxes:
            boxes = [b for b in once_each(analysis.boxes) if b.label not in self._hidden and in_picture(b, size)]
            for box in boxes:
                self._box(canvas, box, measures)
            taken = [entry.at for entry in entries] + [rect for _, rect in written]
            for label in self._labels.place(boxes, size, taken, marks(analysis.notes) if self.style.notes else None):
                self._label(canvas, label, measures)
        self._legend.draw(canvas, entries, self.colorimetry)
        for text, (left, top, right, bottom) in written:
            canvas.fill(left, top, right - left, bottom - top, self.colorimetry.yuv(GROUND))
            canvas.text(left + edge.em // 2, bottom - edge.descent, text, self.colorimetry.yuv(WHITE)[0], edge.scale)

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

    def _outline(
        self, canvas: Canvas | InkCanvas, class_map: UInt8, area: Mapping[str, float], measures: Measures
    ) -> None:
        height, width = class_map.shape
        scale = np.array([canvas.width / width, canvas.height / height], np.float32)
        for info in self._things:
            if area and info.name not in area:
                continue  # known to be absent: nothing to look for
            mask = (class_map == info.id).view(np.uint8)
            contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            curves = [
                _smoothed((contour[:, 0, :].astype(np.float32) + 0.5) * scale, measures.tolerance)
                for contour in contours
                if len(contour) >= 6
            ]
            canvas.polylines(curves, self._color(info.name), self._black, measures.stroke)

    def _color(self, label: str) -> tuple[int, int, int]:
        return self._colors.get(label, self._unknown)

    def _box(self, canvas: Canvas | InkCanvas, box: Box, measures: Measures) -> None:
        # Boxes may reach far outside; what is filled is numbered in 32 bits.
        left, right = (round(min(max(x, -float(canvas.width)), 2.0 * canvas.width)) for x in (box.x1, box.x2))
        top, bottom = (round(min(max(y, -float(canvas.height)), 2.0 * canvas.height)) for y in (box.y1, box.y2))
        around = Rect(left, top, max(right, left + 1), max(bottom, top + 1))
        canvas.frame(around, self._color(box.label), self._black, measures.stroke)

    def _label(self, canvas: Canvas | InkCanvas, label: Label, measures: Measures) -> None:
        left, top, right, bottom = label.at
        border, color = measures.stroke.casing, self._color(label.box.label)
        canvas.fill(left, top, right - left, bottom - top, (self._black, *color[1:]))
        canvas.fill(left + border, top + border, right - left - 2 * border, bottom - top - 2 * border, color)
        x, baseline = left + border + measures.em // 4, bottom - border - measures.descent
        canvas.text(x, baseline, label.text, self._black, measures.scale)


def _lines(lines: Sequence[str], size: tuple[int, int]) -> list[tuple[str, Rect]]:
    """Lines of text from the upper left downwards; what is too wide or too low for the picture is cut off."""
    width, height = size
    measures = Measures.at_the_edge(*size)
    placed = []
    for row, whole in enumerate(lines[: max(1, height // measures.row)]):
        text = whole[: 3 * width // measures.em]  # no letter but a few thin ones is narrower than that
        while text and measures.width(text) + measures.em > width:
            text = text[:-1]
        right = min(measures.width(text) + measures.em, width)
        placed.append((text, Rect(0, row * measures.row, right, (row + 1) * measures.row)))
    return placed


class OverlayStage:
    """A stage that draws the overlay of one stream into `Analysis.picture`, once for all outputs that show it.

    Args:
        style: what to draw.
        interval: nominal seconds between frames, where the heads-up line's frame rate begins.
        archived: whether a file keeps the pictures: how fast and how late they were made belongs to this run alone, and
            is left out of their heads-up line.

    Attributes:
        wanted: whether anybody looks; asked before every frame, and while nobody does, nothing is drawn.
        target: where what is drawn is handed on.
    """

    name = "overlay"
    takes_turns = True

    def __init__(self, style: OverlayStyle, interval: float = 0.04, *, archived: bool = False) -> None:
        self.wanted: Callable[[], bool] = lambda: True
        self.target = Target()
        self._style, self._interval, self._archived = style, interval, archived
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
        heads_up = self._heads_up(analysis) if self._style.heads_up else ""
        analysis.picture = self._drawn_by(analysis).draw(analysis, heads_up)
        return analysis

    def remember(self, analysis: Analysis) -> None:
        """Look at a frame before the first that is given out: the legend is that of a run which began earlier."""
        if self._style.legend and self.wanted():
            self._drawn_by(analysis).look(analysis)

    def _drawn_by(self, analysis: Analysis) -> Overlay:
        if self._overlay is None or self._overlay.style is not self._style:
            self._overlay = Overlay(self._style, analysis.classes, Colorimetry.of(analysis.frame.image), self.target)
        return self._overlay

    def _heads_up(self, analysis: Analysis) -> str:
        frame = analysis.frame
        said = f"{frame.stream}  {frame.time:.2f} s"
        if self._archived:
            return said
        if self._before is not None and frame.arrived_at > self._before:
            self._interval += 0.1 * (frame.arrived_at - self._before - self._interval)
        self._before = frame.arrived_at
        return f"{said}  {1 / self._interval:.0f} fps  age {analysis.age * 1000:.0f} ms"


def _smoothed(curve: NDArray[np.float32], tolerance: float) -> NDArray[np.float32]:
    """A closed curve without the stairs of the class map's pixels, each point the mean of itself and its neighbours, of
    as few points as it needs to be as near as `tolerance` to all of them."""
    around = np.concatenate([curve[-1:], curve, curve[:1]])
    smooth = (around[:-2] + 2 * curve + around[2:]) * np.float32(0.25)
    return np.asarray(cv2.approxPolyDP(smooth, tolerance, True)[:, 0], np.float32)
