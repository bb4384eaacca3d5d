"""Colours and sizes of lines and letters, so that they can be told from whatever is below them.

Contrast is that of WCAG 2.2: (lighter + 0.05) / (darker + 0.05) of relative luminances. A line is a core in the class's
hue inside a black casing. Where the picture is dark the core stands out from it, elsewhere the casing does; both by
3:1 at least, for the core is made as pale as that needs.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np

FONT = cv2.FONT_HERSHEY_SIMPLEX
RGB = tuple[int, int, int]
BLACK, WHITE, GROUND = (0, 0, 0), (255, 255, 255), (16, 16, 16)

ENOUGH = 3.0
"""The contrast that WCAG 2.2 asks of what is no text (success criterion 1.4.11)."""

_LUMA = np.array([0.2126, 0.7152, 0.0722])
"""Of ITU-R BT.709-6, which are sRGB's."""

_SPARE = 1.05
"""How far beyond what is needed: levels are rounded, and softened edges take a little."""


def _linear(levels: object) -> np.ndarray:
    share = np.asarray(levels, float) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def luminance(rgb: RGB) -> float:
    """Relative luminance of an sRGB colour, 0 (black) to 1 (WCAG 2.2)."""
    return float(_LUMA @ _linear(rgb))


def contrast(one: RGB, other: RGB) -> float:
    """Contrast of two sRGB colours, 1 to 21 (WCAG 2.2).

    >>> contrast((255, 255, 255), (0, 0, 0))
    21.0
    """
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@functools.cache
def line_color(rgb: RGB) -> RGB:
    """The hue of a colour as lines have it: at full brightness, and as pale as 3:1 needs on any ground.

    A picture of luminance b is 3:1 below the core where core + 0.05 ≥ 3 (b + 0.05), and 3:1 above the casing where
    b + 0.05 ≥ 3 (casing + 0.05). Between them nothing is left out where core + 0.05 ≥ 9 (casing + 0.05). With chroma of
    half the resolution a casing's pixel may have the core's chroma; `tinted` is what it then looks like.
    """
    peak = max(rgb)
    pure = np.array(rgb) * 255.0 / peak if peak else np.array(WHITE, float)
    linear = _linear(pure)
    for paleness in np.linspace(0, 1, 65):
        mixed = linear + paleness * (1 - linear)
        levels = np.where(mixed <= 0.0031308, 12.92 * mixed, 1.055 * mixed ** (1 / 2.4) - 0.055)
        tinted = np.clip(levels - _LUMA @ levels, 0, 1) * 255
        if _LUMA @ mixed + 0.05 >= _SPARE * ENOUGH**2 * (_LUMA @ _linear(tinted) + 0.05):
            break
    red, green, blue = (round(float(level) * 255) for level in levels)
    return red, green, blue


@dataclass(frozen=True, slots=True)
class Stroke:
    """A line, in pixels.

    Attributes:
        core: thickness of what has the hue.
        casing: of what is black on either side of it.
    """

    core: int
    casing: int

    @property
    def soft(self) -> bool:
        """Whether the core's edge is softened where it is a curve; one of a pixel would reach its level nowhere."""
        return self.core > 1

    @property
    def cased(self) -> int:
        """Thickness of core and casing along a curve together: a soft core reaches a pixel farther."""
        return self.core + 2 * self.casing + self.soft


@dataclass(frozen=True, slots=True)
class Measures:
    """Sizes that go with a picture's: the same picture at any size has the same overlay. Labels are as large as they
    must be to be read in a tile of 320 pixels; what stands at the edges can be smaller.

    Attributes:
        em: height of letters with what is above and below them, in pixels.
        row: height of a line of text, with some room, in pixels.
        stroke: of outlines and boxes.
    """

    em: int
    row: int
    stroke: Stroke

    @classmethod
    def of(cls, width: int, height: int) -> Measures:
        """Those of labels and lines."""
        return cls._of(min(width / 44, height / 22))

    @classmethod
    def at_the_edge(cls, width: int, height: int) -> Measures:
        """Those of the legend and the lines at the upper left."""
        return cls._of(min(width / 53, height / 26))

    @classmethod
    def _of(cls, size: float) -> Measures:
        em = max(9, round(size))
        return cls(em, round(1.3 * em), Stroke(max(1, round(em / 14)), max(1, round(em / 24))))

    @property
    def tolerance(self) -> float:
        """How far an outline may be from its curve, in pixels."""
        return self.em / 24

    @property
    def scale(self) -> float:
        """As OpenCV's font has it."""
        return self.em / 28

    @property
    def descent(self) -> int:
        """Pixels from a row's lower edge up to the baseline."""
        return self.row - round(0.97 * self.em)

    def width(self, text: str) -> int:
        """Pixels that a text takes from left to right."""
        return _text_width(text, self.scale)


@functools.lru_cache(4096)
def _text_width(text: str, scale: float) -> int:
    return int(cv2.getTextSize(text, FONT, scale, max(1, round(scale * 2)))[0][0])
