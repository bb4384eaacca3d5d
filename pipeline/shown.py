"""An analysis as people look at it, in a notebook say: pictures of it, and itself as one."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass, fields
from typing import Self, cast

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import UsageError
from pipeline.analysis.instances import instance_map
from pipeline.drawing.overlay import Overlay, OverlayStyle
from pipeline.frame import Analysis
from pipeline.pictures.colors import Colorimetry, scaler_colors
from pipeline.pictures.jpeg import encode_jpeg
from pipeline.pictures.picture import Picture

UInt8 = NDArray[np.uint8]

_WIDEST = 960
"""Pixels across of the picture that a notebook shows."""


@dataclass(slots=True, eq=False)
class Shown(Analysis):
    """An analysis that `analyse` yields: an `Analysis` with pictures. As the last line of a notebook's cell it shows
    itself.

    >>> import roadlens
    >>> for analysis in roadlens.analyse("drive.mp4"):  # doctest: +SKIP
    ...     pixels = analysis.overlaid()
    """

    @classmethod
    def of(cls, analysis: Analysis) -> Self:
        """The same analysis; what it holds is shared."""
        return cls(**{field.name: getattr(analysis, field.name) for field in fields(Analysis)})

    def rgb(self) -> UInt8:
        """The frame, upright, (H, W, 3) uint8 RGB: a copy to keep. Blurred where the run blurs."""
        return _rgb(Picture.of(self.frame.image).on_host())

    def overlaid(self, style: OverlayStyle | None = None) -> UInt8:
        """The frame with the overlay on it, (H, W, 3) uint8 RGB: a copy to keep.

        Args:
            style: what is drawn; left out, what the run has drawn, or else class colours, outlines and boxes.
        """
        return _rgb(_drawn(self, style))

    def full_class_map(self) -> UInt8:
        """The class map at the size of the frame, (H, W) uint8 class ids of `classes`: each pixel has the class of the
        pixel of `class_map` that covers it.

        Raises:
            UsageError: there is no class map.
        """
        return cast("UInt8", cv2.resize(self._mapped(), self._size(), interpolation=cv2.INTER_NEAREST_EXACT))

    def instances(self) -> NDArray[np.uint16]:
        """Which pixels of the class map are of which box, (h, w) uint16: 0 for those of nobody, n for those of
        `boxes[n - 1]`; see `pipeline.analysis.instances`.

        Raises:
            UsageError: there is no class map.
        """
        return instance_map(self._mapped(), self.boxes, self.classes, self._size())

    def _mapped(self) -> UInt8:
        if self.class_map is None:
            raise UsageError("this analysis has no class map: none of the models is a segmenter; add one that is")
        return self.class_map

    def _size(self) -> tuple[int, int]:
        return self.frame.image.width, self.frame.image.height

    def _repr_html_(self) -> str:
        """What a notebook shows of it: the overlaid picture, and what it says in a line."""
        jpeg = base64.b64encode(encode_jpeg(_drawn(self, None), 85, _WIDEST)[0]).decode("ascii")
        words = html.escape(repr(self).strip("<>"))
        return (
            f'<figure style="margin:0"><img src="data:image/jpeg;base64,{jpeg}" alt="{words}" style="max-width:100%">'
            f"<figcaption>{words}</figcaption></figure>"
        )

    def __repr__(self) -> str:
        frame = self.frame
        seen = ", ".join(f"{share:.0%} {name}" for name, share in list(self.area.items())[:3])
        return f"<{frame.stream} frame {frame.index}, {frame.time:.2f} s: {len(self.boxes)} boxes; {seen}>"


def _drawn(analysis: Analysis, style: OverlayStyle | None) -> av.VideoFrame:
    if style is None and analysis.picture is not None:
        return Picture.of(analysis.picture).on_host()
    overlay = Overlay(style or OverlayStyle(), analysis.classes, Colorimetry.of(analysis.frame.image))
    return Picture.of(overlay.draw(analysis)).on_host()


def _rgb(image: av.VideoFrame) -> UInt8:
    return cast("UInt8", image.reformat(format="rgb24", **scaler_colors(image)).to_ndarray())
