"""The Triton kernels of `engines.cuda.nv12`, which says what they compute and launches them.

Planes come as addresses and strides in bytes, so that the pictures of one launch may have any sizes. Positions are
computed in whole numbers: a float32 that counts to 4096 leaves too little for the fraction. Only Triton's core
operations are used, none of its own jitted helpers, so that `TRITON_INTERPRET=1` runs these very kernels on a CPU.

Triton would compile a kernel anew for sizes that are 1 or multiples of 16, with the first picture that has such a one.
Here it is told not to look at them: one compilation, when a stream is opened, serves pictures of every size. What is
lost by that are wider loads, of which a program with two bytes a thread has none.
"""

# Triton hands its kernels' arguments over untyped, and its language's stubs do not say what operators return.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,no-any-return,untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

FIELDS = 13
"""Numbers a picture in the table of `network_input`."""

FRACTION_BITS = 20
"""Of the colour coefficients in that table."""


@triton.jit
def _resampled(plane, stride, step: tl.constexpr, own_height, own_width, y, x, height, width, area, mask):
    """A plane of `own_height` × `own_width` pixels resampled to `height` × `width`, at (y, x): the mean of the area
    that a pixel covers, or bilinear, widened when shrinking."""
    scale_y, scale_x = own_height * 1.0 / height, own_width * 1.0 / width
    area_y, area_x = (area != 0) & (own_height > height), (area != 0) & (own_width > width)
    support_y, support_x = tl.maximum(scale_y, 1.0), tl.maximum(scale_x, 1.0)
    reach_y, reach_x = (own_height + height - 1) // height, (own_width + width - 1) // width
    # Where the area begins, and the centre of the pixel (one too large, to keep it positive): whole and fraction.
    edge_y, edge_x = y * own_height, x * own_width
    centre_y, centre_x = (2 * y + 1) * own_height + height, (2 * x + 1) * own_width + width
    first_y = tl.where(area_y, edge_y // height, centre_y // (2 * height) - reach_y)
    first_x = tl.where(area_x, edge_x // width, centre_x // (2 * width) - reach_x)
    fraction_y = tl.where(area_y, (edge_y % height) * 1.0 / height, (centre_y % (2 * height)) * 0.5 / height)
    fraction_x = tl.where(area_x, (edge_x % width) * 1.0 / width, (centre_x % (2 * width)) * 0.5 / width)
    taps_y, taps_x = tl.where(area_y, reach_y + 1, 2 * reach_y), tl.where(area_x, reach_x + 1, 2 * reach_x)
    total = y * 0.0
    weights = y * 0.0
    for j in range(taps_y):
        covered = tl.minimum(j + 1.0, fraction_y + scale_y) - tl.maximum(j * 1.0, fraction_y)
        near = 1.0 - tl.abs(j + 1.0 - reach_y - fraction_y) / support_y
        weight_y = tl.maximum(tl.where(area_y, covered, near), 0.0)
        row = tl.minimum(tl.maximum(first_y + j, 0), own_height - 1).to(tl.int64) * stride
        for i in range(taps_x):
            covered = tl.minimum(i + 1.0, fraction_x + scale_x) - tl.maximum(i * 1.0, fraction_x)
            near = 1.0 - tl.abs(i + 1.0 - reach_x - fraction_x) / support_x
            weight = weight_y * tl.maximum(tl.where(area_x, covered, near), 0.0)
            column = tl.minimum(tl.maximum(first_x + i, 0), own_width - 1) * step
            total += weight * tl.load(plane + row + column, mask=mask, other=0).to(tl.float32)
            weights += weight
    return total / weights


@triton.jit(do_not_specialize=["table", "output", "height", "width"])
def network_input(table, output, height, width, fields: tl.constexpr, fraction_bits: tl.constexpr, block: tl.constexpr):
    """One model input a picture: program (i, n) computes pixels i · block … of picture n."""
    picture = tl.program_id(1)
    own = table + picture * fields
    luma = tl.load(own).to(tl.pointer_type(tl.uint8))
    luma_stride = tl.load(own + 1)
    chroma = tl.load(own + 2).to(tl.pointer_type(tl.uint8))
    chroma_stride = tl.load(own + 3)
    own_height, own_width = tl.load(own + 4).to(tl.int32), tl.load(own + 5).to(tl.int32)
    area = tl.load(own + 6).to(tl.int32)
    unit = 1.0 / (1 << fraction_bits)
    black, gain = tl.load(own + 7).to(tl.float32) * unit, tl.load(own + 8).to(tl.float32) * unit
    red_cr, green_cb = tl.load(own + 9).to(tl.float32) * unit, tl.load(own + 10).to(tl.float32) * unit
    green_cr, blue_cb = tl.load(own + 11).to(tl.float32) * unit, tl.load(own + 12).to(tl.float32) * unit

    place = tl.program_id(0) * block + tl.arange(0, block)
    mask = place < height * width
    y, x = place // width, place % width
    half_height, half_width = (own_height + 1) // 2, (own_width + 1) // 2
    level = _resampled(luma, luma_stride, 1, own_height, own_width, y, x, height, width, area, mask)
    cb = _resampled(chroma, chroma_stride, 2, half_height, half_width, y, x, height, width, area, mask) - 128.0
    cr = _resampled(chroma + 1, chroma_stride, 2, half_height, half_width, y, x, height, width, area, mask) - 128.0
    level = (level - black) * gain + 0.5
    red = tl.minimum(tl.maximum(level + red_cr * cr, 0.0), 255.0)
    green = tl.minimum(tl.maximum(level + green_cb * cb + green_cr * cr, 0.0), 255.0)
    blue = tl.minimum(tl.maximum(level + blue_cb * cb, 0.0), 255.0)
    target = output + (picture.to(tl.int64) * height * width + place) * 3
    tl.store(target, red.to(tl.uint8), mask=mask)
    tl.store(target + 1, green.to(tl.uint8), mask=mask)
    tl.store(target + 2, blue.to(tl.uint8), mask=mask)


@triton.jit(do_not_specialize=[
    "luma_address", "luma_stride", "chroma_address", "chroma_stride",
    "target_luma_address", "target_luma_stride", "target_chroma_address", "target_chroma_stride",
    "height", "width", "class_map", "map_height", "map_width", "palette", "opacity", "luma_programs",
])  # fmt: skip
def blend(
    luma_address, luma_stride, chroma_address, chroma_stride,
    target_luma_address, target_luma_stride, target_chroma_address, target_chroma_stride,
    height, width, class_map, map_height, map_width, palette, opacity, luma_programs, block: tl.constexpr,
):  # fmt: skip
    """Class colours blended over both planes: the first `luma_programs` programs do luma, the others chroma."""
    program = tl.program_id(0)
    is_chroma = program >= luma_programs
    channels = tl.where(is_chroma, 2, 1)
    own_height = tl.where(is_chroma, (height + 1) // 2, height)
    own_width = tl.where(is_chroma, (width + 1) // 2, width)
    row_bytes = own_width * channels
    place = (program - tl.where(is_chroma, luma_programs, 0)) * block + tl.arange(0, block)
    mask = place < own_height * row_bytes
    y, column = place // row_bytes, place % row_bytes
    x, channel = column // channels, tl.where(is_chroma, 1 + column % channels, 0)
    source = tl.where(is_chroma, chroma_address, luma_address).to(tl.pointer_type(tl.uint8))
    stride = tl.where(is_chroma, chroma_stride, luma_stride)
    level = tl.load(source + y.to(tl.int64) * stride + column, mask=mask, other=0)

    across, down = (
        tl.maximum((2 * x + 1) * map_width - own_width, 0),
        tl.maximum((2 * y + 1) * map_height - own_height, 0),
    )
    left, top = (
        tl.minimum(across // (2 * own_width), map_width - 1),
        tl.minimum(down // (2 * own_height), map_height - 1),
    )
    to_right = (across % (2 * own_width)) * 0.5 / own_width
    to_below = (down % (2 * own_height)) * 0.5 / own_height
    right, below = tl.minimum(left + 1, map_width - 1), tl.minimum(top + 1, map_height - 1)
    colours = palette + channel * 256
    upper_left = tl.load(colours + _class(class_map, top * map_width + left, mask)).to(tl.float32)
    upper_right = tl.load(colours + _class(class_map, top * map_width + right, mask)).to(tl.float32)
    lower_left = tl.load(colours + _class(class_map, below * map_width + left, mask)).to(tl.float32)
    lower_right = tl.load(colours + _class(class_map, below * map_width + right, mask)).to(tl.float32)
    upper = upper_left + (upper_right - upper_left) * to_right
    lower = lower_left + (lower_right - lower_left) * to_right
    colour = upper + (lower - upper) * to_below
    nearest = (y * map_height // own_height) * map_width + x * map_width // own_width
    shown = tl.load(palette + 3 * 256 + _class(class_map, nearest, mask))
    blended = level.to(tl.float32)
    blended = (blended + (colour - blended) * opacity + 0.5).to(tl.uint8)
    target = tl.where(is_chroma, target_chroma_address, target_luma_address).to(tl.pointer_type(tl.uint8))
    target_stride = tl.where(is_chroma, target_chroma_stride, target_luma_stride)
    tl.store(target + y.to(tl.int64) * target_stride + column, tl.where(shown != 0, blended, level), mask=mask)


@triton.jit
def _class(class_map, place, mask):
    # A pointer plus a uint8 would take ids above 127 for negative.
    return tl.load(class_map + place, mask=mask, other=0).to(tl.int32)


@triton.jit(do_not_specialize=[
    "luma_address", "luma_stride", "chroma_address", "chroma_stride", "height", "width", "places", "tiles",
    "tiles_across",
])  # fmt: skip
def compose(
    luma_address, luma_stride, chroma_address, chroma_stride, height, width, places, tiles, tiles_across,
    tile: tl.constexpr,
):  # fmt: skip
    """Ink over the planes, a program a tile: what it covers is dimmed by its cover, then its own light is added."""
    program = tl.program_id(0)
    place = tl.load(places + program)
    top, left = (place // tiles_across) * tile, (place % tiles_across) * tile
    pixels = tl.arange(0, tile * tile)
    own = tiles + program.to(tl.int64) * (tile * tile * 11 // 4)
    y, x = top + pixels // tile, left + pixels % tile
    mask = (y < height) & (x < width)
    target = luma_address.to(tl.pointer_type(tl.uint8)) + y.to(tl.int64) * luma_stride + x
    _over(target, own + pixels, own + tile * tile + pixels, mask)
    half: tl.constexpr = tile // 2
    levels = tl.arange(0, half * half * 2)
    y, column = top // 2 + levels // tile, left + levels % tile
    mask = (y < (height + 1) // 2) & (column < (width + 1) // 2 * 2)
    target = chroma_address.to(tl.pointer_type(tl.uint8)) + y.to(tl.int64) * chroma_stride + column
    own += tile * tile * 2
    _over(target, own + levels, own + half * half * 2 + levels // 2, mask)


@triton.jit
def _over(target, light, cover, mask):
    below = tl.load(target, mask=mask, other=0).to(tl.float32)
    kept = 1.0 - tl.load(cover, mask=mask, other=0).to(tl.float32) / 255.0
    level = below * kept + tl.load(light, mask=mask, other=0).to(tl.float32) + 0.5
    tl.store(target, tl.minimum(level, 255.0).to(tl.uint8), mask=mask)
