"""Every frame of a stream upright, of one size, one blendable pixel format and one way to read its colours."""

from __future__ import annotations

import logging
from fractions import Fraction

import av

from pipeline.pictures.colors import Colorimetry, is_yuv
from pipeline.pictures.conversion import (
    blendable_format,
    converted,
    display_matrix,
    fitted,
    oriented,
    transposes,
)
from pipeline.pictures.hdr import STANDARD, TRANSFERS, Light, relit_frame
from pipeline.pictures.picture import Picture
from pipeline.pictures.planes import pixel_format

log = logging.getLogger(__name__)

_SAME_ASPECT = 0.02
"""Difference of two aspect ratios, as a share, that is for rounding to whole pixels."""

_WIDEST_SAMPLE = 16
"""Ratio of a sample's sides beyond which it is not believed."""

_PRIMARIES = {1: "BT.709", 5: "BT.601", 6: "BT.601", 7: "BT.601", 9: "BT.2020", 12: "P3"}

Matrix = tuple[float, float, float, float]


class Normalizer:
    """Makes every frame of a stream upright, of one size, one blendable pixel format, one matrix, range, primaries and
    transfer: the first frame's. Pictures of another shape are fitted, with black beside them.

    Attributes:
        shape: width, height and pixel format; None before the first frame.
        sample_aspect: how many times wider than high a pixel of the upright pictures is.
        turned: whether the pictures are turned or mirrored.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.shape: tuple[int, int, str] | None = None
        self.sample_aspect = Fraction(1)
        self.turned = False
        self._colors: Colorimetry | None = None
        self._light, self._tags = STANDARD, (2, 2)
        self._said: set[str] = set()

    def __call__(
        self, image: av.VideoFrame, sample_aspect: Fraction = Fraction(1), matrix: Matrix | None = None
    ) -> av.VideoFrame:
        """The frame as it is wanted.

        Args:
            image: as decoded.
            sample_aspect: how many times wider than high one of its pixels is.
            matrix: how it is to be turned, see `display_matrix`; as the picture says unless given.
        """
        matrix = matrix or display_matrix(image)
        before, image = image, oriented(image, *matrix)
        if not 1 / _WIDEST_SAMPLE <= sample_aspect <= _WIDEST_SAMPLE:
            sample_aspect = Fraction(1)
        if transposes(matrix):
            sample_aspect = 1 / sample_aspect
        relit = False
        if self.shape is None:
            self._tags, self._light = (image.color_trc, image.color_primaries), Light.of(image)
        elif not (light := Light.of(image)).is_like(self._light):
            self._say(f"the pictures' light changes to {_named(light)}; it is converted to {_named(self._light)}")
            relit = True
            image = relit_frame(Picture.of(image).on_host(), self._light, *self._tags)
        colors = Colorimetry.of(image) if is_yuv(image) else None
        if self.shape is None:
            chosen = blendable_format(pixel_format(image), image.width, image.height)
            self.shape = (image.width, image.height, chosen)
            self.sample_aspect, self._colors, self.turned = sample_aspect, colors, image is not before
        if image.color_trc in TRANSFERS and self._tags[0] in TRANSFERS:
            self._say(
                f"the pictures are HDR ({TRANSFERS[image.color_trc]}); they are written in 8 bits and marked as HDR, "
                "models see them tone-mapped"
            )
        width, height, chosen = self.shape
        own = pixel_format(image)
        same_colors = colors is None or self._colors is None or colors == self._colors
        same_shape = (image.width, image.height, sample_aspect) == (width, height, self.sample_aspect)
        if same_shape and own == chosen and same_colors and Picture.of(image).workable:
            return image
        wanted = self._colors if self._colors is not None and not (same_colors and colors is not None) else None
        if not same_shape:
            # Its shape in pixels of the stream's.
            aspect = image.width * sample_aspect / image.height / self.sample_aspect
            if abs(float(aspect) * height / width - 1) > _SAME_ASPECT:
                self._say(
                    f"the pictures become {image.width}×{image.height}, of another shape; "
                    f"they are fitted into {width}×{height}"
                )
                return fitted(image, chosen, width, height, float(aspect), wanted)
            self._say(
                f"the picture size changes to {image.width}×{image.height}; frames are scaled to {width}×{height}"
            )
        elif own != chosen and not relit:
            self._say(f"{own} pictures are converted to {chosen}")
        elif not relit:
            self._say("the pictures' range or matrix changes; they are converted to the first one's")
        return converted(image, chosen, width, height, wanted)

    def _say(self, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            log.info("%s: %s", self.name, what)


def _named(light: Light) -> str:
    kind = TRANSFERS.get(light.transfer, "standard range")
    return f"{kind} ({_PRIMARIES[light.primaries]})" if light.primaries in _PRIMARIES else kind
