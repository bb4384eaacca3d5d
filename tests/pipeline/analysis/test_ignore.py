"""What is not looked at: named regions, their bad forms, and maps of a crop as maps of the frame."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from engines.errors import UsageError
from pipeline.analysis.ignore import IgnoredRegions, IgnoreOptions, whole_map
from pipeline.frame import Box, Ignored, Rect
from tests.pipeline.analysis.test_margins import gray, road

BONNET = ((0.0, 150.0), (320.0, 150.0), (320.0, 180.0), (0.0, 180.0))


def look(options: IgnoreOptions) -> Ignored:
    found = IgnoredRegions(options, 320, 180).look(gray(road(0)), 0.0)
    assert found is not None
    return found


def test_nothing_is_ignored_unless_something_is() -> None:
    assert IgnoredRegions(IgnoreOptions(), 320, 180).look(gray(road(0)), 0.0) is None


def test_a_polygon_holds_its_pixels_and_no_others() -> None:
    found = look(IgnoreOptions(polygons=(BONNET,)))
    assert found.crop == (0, 0, 320, 180)
    assert (found.mask[151:] == 255).all()
    assert not found.mask[:149].any()
    assert found.share == pytest.approx(1 / 6, abs=0.01)


def test_a_box_is_hidden_where_most_of_it_is() -> None:
    found = look(IgnoreOptions(polygons=(BONNET,)))
    below, above = (Box(10, y, 40, y + 20, 13, "car", 0.9, "unet") for y in (145.0, 120.0))
    assert found.hides(below)
    assert not found.hides(above)


def test_a_mask_picture_is_told_as_polygons(tmp_path: Path) -> None:
    mask = np.zeros((180, 320), np.uint8)
    mask[160:, 100:200] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    found = look(IgnoreOptions(mask=tmp_path / "mask.png"))
    assert (found.mask == mask).all()
    assert set(found.polygons[0]) == {(100.0, 160.0), (199.0, 160.0), (199.0, 179.0), (100.0, 179.0)}


@pytest.mark.parametrize(
    ("polygon", "sentence"),
    [
        (((0.0, 0.0), (400.0, 0.0), (0.0, 90.0)), r"corner \(400, 0\) of polygon 1 lies outside the picture.*320×180"),
        (((5.0, 5.0), (9.0, 9.0), (7.0, 7.0)), "polygon 1 has no area"),
    ],
)
def test_polygons_that_cannot_be(polygon: tuple[tuple[float, float], ...], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        IgnoredRegions(IgnoreOptions(polygons=(polygon,)), 320, 180)


def test_mask_pictures_that_cannot_be(tmp_path: Path) -> None:
    other, none = tmp_path / "other.png", tmp_path / "none.png"
    cv2.imwrite(str(other), np.zeros((90, 320), np.uint8))
    none.write_bytes(b"no picture")
    for path, sentence in ((other, "is 320×90 .* are 320×180"), (none, "is no picture"), (tmp_path / "x", "No such")):
        with pytest.raises(UsageError, match=sentence):
            IgnoredRegions(IgnoreOptions(mask=path), 320, 180)


@pytest.mark.parametrize("crop", [Rect(40, 0, 280, 180), Rect(0, 24, 320, 156), Rect(30, 24, 290, 156)])
def test_a_map_of_the_crop_lies_where_the_crop_does(crop: Rect) -> None:
    mask = np.full((180, 320), 255, np.uint8)
    mask[crop.y1 : crop.y2, crop.x1 : crop.x2] = 0
    seen = np.zeros((64, 64), np.uint8)
    seen[:, 32:] = 13
    whole = whole_map(seen, Ignored(crop, (), mask))
    rows, columns = whole.shape
    assert (rows, columns) == (round(64 * 180 / (crop.y2 - crop.y1)), round(64 * 320 / (crop.x2 - crop.x1)))
    full = cv2.resize(whole, (320, 180), interpolation=cv2.INTER_NEAREST)
    middle = (crop.x1 + crop.x2) // 2
    inside = full[crop.y1 + 4 : crop.y2 - 4]
    assert (inside[:, crop.x1 + 4 : middle - 4] == 0).all()
    assert (inside[:, middle + 4 : crop.x2 - 4] == 13).all()
    assert (full[mask > 0] == 255).mean() > 0.99
