"""Labels that are pictures: numbers, a palette or colours, turned into class ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES, IGNORE
from engines.errors import SourceError
from training.data.own.classes import Color, Entry, Legend, make_legend
from training.data.own.photos import Raw, read_raw

UInt8 = NDArray[np.uint8]

MOST_FOUND = 40
"""Colours without a legend: more of them are the blends of a resize or of JPEG, no classes."""

BLURRED = 40.0
"""Of a label whose format blurs colours, such as JPEG, the nearest colour of the legend within this is meant."""


def _coded(colors: UInt8) -> NDArray[np.int64]:
    """(…, 3) uint8 → (…,) red·2^16 + green·2^8 + blue."""
    wide = colors.astype(np.int64)
    code: NDArray[np.int64] = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return code


def _color(code: int) -> Color:
    return code >> 16 & 255, code >> 8 & 255, code & 255


def _by_color(raw: Raw, legend: Legend | None) -> NDArray[np.int64] | None:
    """The codes of a label's colours where its colours are what counts; None where its numbers are."""
    known = {(red << 16) + (green << 8) + blue for red, green, blue in ([] if legend is None else legend.colors)}
    values = raw.values
    if values.ndim == 3:
        grey = bool((values[..., 0] == values[..., 1]).all() and (values[..., 1] == values[..., 2]).all())
        return None if grey and not known else _coded(np.asarray(values, np.uint8))
    if not known or legend is None:
        return None
    used = np.unique(values)
    if raw.palette is not None and used.max(initial=0) < 256 and used.min(initial=0) >= 0:
        codes = _coded(raw.palette)
        # A palette of greys is no palette: `convert("P")` of tools that number classes.
        colored = bool((np.ptp(raw.palette[used].astype(int), axis=1) > 0).any())
        if colored and {int(codes[i]) for i in used} <= known:
            return np.asarray(codes[values])
    if set(used.tolist()) <= set(legend.ids):
        return None
    greys = values * 0x010101
    return greys if {int(code) for code in np.unique(greys)} <= known else None


def to_label(raw: Raw, legend: Legend, path: Path, *, ignore_strays: bool = False) -> UInt8:
    """The class ids of a label: (H, W) uint8, 255 ignored.

    Args:
        raw: of `read_raw`.
        legend: of the folder.
        path: of the file, for a sentence.
        ignore_strays: ignore numbers and colours that are no class, in place of raising.

    Raises:
        SourceError: a number or a colour that is no class: which, where, how often, and what the classes are.
    """
    codes = _by_color(raw, legend)
    if codes is None:
        values = raw.values[..., 0].astype(np.int64) if raw.values.ndim == 3 else raw.values
        table = dict(legend.ids)
    else:
        values, table = codes, {(r << 16) + (g << 8) + b: own for (r, g, b), own in legend.colors.items()}
        if not table:
            raise SourceError(
                f"{path} is painted in colours, {_common(codes)} among them, and {legend.source} gives none; write "
                "R G B behind each name there"
            )
    if raw.lossy and codes is not None:
        used, places = np.unique(values, return_inverse=True)
        label = _nearest(used, table).astype(np.uint8)[places].reshape(values.shape)
    else:
        known = np.array(sorted(table), np.int64)
        places = np.searchsorted(known, values).clip(max=len(known) - 1)
        strays = known[places] != values
        if strays.any() and not ignore_strays:
            raise SourceError(_stray_sentence(path, values, strays, legend, codes is not None))
        own = np.array([table[int(number)] for number in known], np.uint8)
        label = np.where(strays, np.uint8(IGNORE), own[places])
    if raw.hidden is not None:
        label[raw.hidden] = IGNORE
    return label


def _nearest(used: NDArray[np.int64], table: dict[int, int]) -> NDArray[np.int64]:
    palette = np.array([_color(code) for code in table], np.float64)
    distance = np.linalg.norm(np.array([_color(int(code)) for code in used], np.float64)[:, None] - palette, axis=2)
    own = np.array(list(table.values()), np.int64)[distance.argmin(1)]
    return np.where(distance.min(1) <= BLURRED, own, IGNORE)


def _stray_sentence(
    path: Path, values: NDArray[np.int64], strays: NDArray[np.bool_], legend: Legend, colors: bool
) -> str:  # fmt: skip
    found, counts = np.unique(values[strays], return_counts=True)
    worst = int(counts.argmax())
    code = int(found[worst])
    y, x = np.argwhere(values == code)[0].tolist()
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    where = f"{counts[worst]} pixels, the first at x {x}, y {y}"
    mend = "add it to the classes, paint it over, or train with strays=ignore"
    if not colors:
        return (
            f"{path} holds the id {code} ({where}){more}, which is no class; the classes are {legend.described()} and "
            f"{IGNORE} for what is ignored ({legend.source}): {mend}"
        )
    nearest = min(legend.colors, key=lambda color: sum((a - b) ** 2 for a, b in zip(color, _color(code), strict=True)))
    number = legend.colors[nearest]
    name = "what is ignored" if number == IGNORE else legend.classes[number].name
    return (
        f"{path} holds the colour {_color(code)} ({where}){more}, which is none of the legend ({legend.source}); the "
        f"nearest is {nearest}, {name}: {mend}"
    )


def _common(codes: NDArray[np.int64]) -> str:
    values, counts = np.unique(codes, return_counts=True)
    return ", ".join(str(_color(int(values[i]))) for i in np.argsort(-counts)[:5])


# Without a class file -----------------------------------------------------------------------------------------------


def found_legend(paths: Iterable[Path]) -> Legend:
    """The legend of labels beside which no file says the classes: every number or colour that occurs is one.

    0 and 255 alone are background and foreground; else 255 is what is ignored.

    Raises:
        SourceError: there are too many, or none.
    """
    numbers: Counter[int] = Counter()
    colors: Counter[int] = Counter()
    palette: dict[int, Color] = {}
    for path in paths:
        try:
            raw = read_raw(path)
        except SourceError:
            continue  # found again, and said, when it is read
        codes = _by_color(raw, None)
        values = raw.values if codes is None else codes
        used, counts = np.unique(values[..., 0] if values.ndim == 3 else values, return_counts=True)
        (numbers if codes is None else colors).update(dict(zip(used.tolist(), counts.tolist(), strict=True)))
        if raw.palette is not None:
            entries = [tuple(int(value) for value in color) for color in raw.palette[: used.max() + 1]]
            palette |= {number: color for number, color in enumerate(entries) if number in numbers}  # type: ignore[misc]
    if colors:
        return _found_colors(colors)
    if set(numbers) == {0, 255}:
        entries_of = [Entry("background", 0), Entry("foreground", 255)]
        made = make_legend(entries_of, "no file says the classes; the labels hold 0 and 255 alone")
        return Legend(made.classes, {0: 0, 255: 1}, {}, made.names, made.source)
    own = sorted(number for number in numbers if number != IGNORE)
    if not 0 < len(own) < IGNORE:
        raise SourceError(
            f"the labels hold {len(own)} different numbers, up to {max(own, default=0)}; wanted are class ids, 0 "
            "to 254 (numbers of single objects are none), or a file such as classes.txt that says them"
        )
    distinct = len({palette.get(number) for number in own}) == len(own) and palette.keys() >= set(own)
    return make_legend(
        [Entry(f"class {number}", number, palette[number] if distinct else None) for number in own],
        "no file such as classes.txt says the classes; they are the ids found",
    )


def _found_colors(colors: Counter[int]) -> Legend:
    known = {info.color: info.name for info in CITYSCAPES_CLASSES} | {(0, 0, 0): "void"}
    found = sorted(colors)
    if len(found) > MOST_FOUND:
        common = ", ".join(str(_color(code)) for code, _ in colors.most_common(5))
        raise SourceError(
            f"the labels hold {len(found)} different colours ({common} most), and no file says which are classes; "
            "write a legend.txt with R G B and a name a line, and save labels as PNG without smoothing"
        )
    if all(_color(code) in known for code in found):
        own = [
            info
            for info in CITYSCAPES_CLASSES
            if (info.color[0] << 16) + (info.color[1] << 8) + info.color[2] in colors
        ]
        entries = [Entry(info.name, None, info.color) for info in own]
        if 0 in colors:
            entries.append(Entry("void", None, (0, 0, 0)))
        return make_legend(entries, "no file says the classes; the colours are those of Cityscapes")
    return make_legend(
        [Entry("colour #{:02x}{:02x}{:02x}".format(*_color(code)), None, _color(code)) for code in found],
        "no file such as legend.txt says the classes; they are the colours found",
    )
