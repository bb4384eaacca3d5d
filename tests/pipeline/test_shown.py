"""An analysis as a notebook shows it."""

from __future__ import annotations

import base64
import re

import cv2
import numpy as np
import pytest

from engines.classes import CITYSCAPES_CLASSES
from engines.errors import UsageError
from pipeline.drawing.overlay import OverlayStyle
from pipeline.frame import Analysis, Box, Frame
from pipeline.scene.drive import SyntheticScene
from pipeline.shown import Shown
from pipeline.sources.synthetic import SyntheticOptions, as_video_frame

SIZE = (320, 180)


def shown(**changes: object) -> Shown:
    picture, label, boxes = SyntheticScene(*SIZE).frame(3)
    frame = Frame("drive", 3, 3, SyntheticOptions().time_base, 0.0, 0.0, as_video_frame(picture))
    values: dict[str, object] = {"class_map": label[::4, ::4].copy(), "classes": CITYSCAPES_CLASSES, "boxes": boxes}
    return Shown.of(Analysis(frame, "file", **(values | changes)))  # type: ignore[arg-type]  # a table of values


def test_the_picture_is_the_frame_in_rgb() -> None:
    picture, _, _ = SyntheticScene(*SIZE).frame(3)
    rgb = shown().rgb()
    assert (rgb.shape, rgb.dtype) == ((SIZE[1], SIZE[0], 3), np.uint8)
    assert np.abs(rgb.astype(int) - picture).mean() < 3  # chroma has half the resolution


def test_the_overlaid_picture_differs_where_something_is_drawn() -> None:
    analysis = shown()
    plain, drawn = analysis.rgb().astype(int), analysis.overlaid().astype(int)
    assert (np.abs(plain - drawn).max(2) > 10).mean() > 0.3
    nothing = analysis.overlaid(OverlayStyle(opacity=0, outlines=False, boxes=False))
    np.testing.assert_array_equal(nothing, plain)


def test_the_class_map_at_the_size_of_the_picture() -> None:
    analysis = shown()
    assert analysis.class_map is not None
    full = analysis.full_class_map()
    np.testing.assert_array_equal(full, np.kron(analysis.class_map, np.ones((4, 4), np.uint8)))
    with pytest.raises(UsageError, match="no class map"):
        shown(class_map=None).full_class_map()


def test_a_notebook_gets_a_picture_and_words_that_are_escaped() -> None:
    analysis = shown()
    analysis.frame.stream = "<b>front</b>"
    said = analysis._repr_html_()
    found = re.search(r"base64,([A-Za-z0-9+/=]+)", said)
    assert found is not None
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(found[1]), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (SIZE[1], SIZE[0], 3)
    assert "<b>" not in said
    assert f"{len(analysis.boxes)} boxes" in repr(analysis)


def test_boxes_as_an_array_and_for_supervision() -> None:
    supervision = pytest.importorskip("supervision")
    boxes = (
        Box(1.0, 2.0, 30.0, 40.0, 13, "car", 0.5, "m", track=4),
        Box(5.0, 6.0, 7.0, 8.0, 11, "person", 0.25, "m", track=9),
    )
    analysis = shown(boxes=boxes)
    assert analysis.boxes_xyxy.tolist() == [[1, 2, 30, 40], [5, 6, 7, 8]]
    found = analysis.to_supervision()
    assert isinstance(found, supervision.Detections)
    assert found.tracker_id.tolist() == [4, 9]
    assert found.data["class_name"].tolist() == ["car", "person"]
    assert len(shown(boxes=()).to_supervision()) == 0
    assert shown(boxes=()).boxes_xyxy.shape == (0, 4)
