"""What several models say of a frame at their own cadences, made one analysis."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from engines.classes import CITYSCAPES_CLASSES, ClassInfo
from engines.engine import Prediction
from engines.spec import ModelSpec
from pipeline.analysis.components import ComponentOptions
from pipeline.analysis.fuse import FuseOptions, Fuser, class_area
from pipeline.analysis.tracking import TrackingOptions
from pipeline.frame import Frame

HEADS = (ClassInfo(0, "head", (255, 255, 0), thing=True), ClassInfo(4, "hand", (0, 255, 255), thing=True))
UNET = ModelSpec(
    name="unet", version="1", task="segmentation", height=32, width=64, classes=CITYSCAPES_CLASSES,
    outputs={"class_map": "class_map"},
)  # fmt: skip
LOCALIZER = ModelSpec(
    name="localizer", version="1", task="localization", height=64, width=64, classes=HEADS,
    outputs={"boxes": "boxes", "scores": "scores"},
)  # fmt: skip
WIDTH, HEIGHT = 640, 320


def frame(index: int) -> Frame:
    return Frame("drive", index, index, Fraction(1, 25), 0.0, 0.0, av.VideoFrame(WIDTH, HEIGHT, "yuv420p"))


def street(car_at: int) -> Prediction:
    """Road under sky, and a car 8×4 pixels of the class map (80×40 of the frame) with its left edge at `car_at`."""
    class_map = np.zeros((32, 64), np.uint8)
    class_map[:16] = 10
    class_map[20:24, car_at : car_at + 8] = 13
    return Prediction(class_map=class_map, confidence=np.full((32, 64), 204, np.uint8))


def heads(*rows: tuple[float, float, float, float, float], labels: tuple[int, ...] | None = None) -> Prediction:
    """Corners as fractions of the frame, and a score, each."""
    table = np.array(rows, np.float32).reshape(-1, 5)
    given = None if labels is None else np.array(labels, np.int32)
    return Prediction(boxes=table[:, :4], scores=table[:, 4], labels=given)


def test_a_segmenters_class_map_becomes_areas_and_tracked_boxes():
    analysis = Fuser([UNET], FuseOptions()).fuse(frame(3), "file", {"unet": street(10)})
    assert analysis.models == ("unet",)
    assert analysis.mode == "file"
    assert analysis.frame.index == 3
    assert analysis.classes == CITYSCAPES_CLASSES
    assert np.array_equal(analysis.class_map, street(10).class_map)
    assert np.array_equal(analysis.confidence, street(10).confidence)
    assert list(analysis.area) == ["sky", "road", "car"]
    assert analysis.area == pytest.approx({"sky": 0.5, "road": 0.5 - 32 / 2048, "car": 32 / 2048})
    (car,) = analysis.boxes
    assert (car.x1, car.y1, car.x2, car.y2) == (100, 200, 180, 240)
    assert (car.label, car.track, car.origin) == ("car", 1, "unet")
    assert car.score == pytest.approx(0.8)


def test_between_its_looks_a_segmenters_map_is_repeated_and_its_boxes_move_on():
    fuser, seen = Fuser([UNET], FuseOptions()), []
    for index in range(13):
        looks = index % 3 == 0
        analysis = fuser.fuse(frame(index), "file", {"unet": street(10 + index)} if looks else {})
        assert analysis.models == (("unet",) if looks else ())
        assert np.array_equal(analysis.class_map, street(10 + index - index % 3).class_map)
        assert analysis.area
        (car,) = analysis.boxes
        assert car.track == 1
        assert car.x2 - car.x1 == pytest.approx(80)
        seen.append(car.x1)
    # One pixel of the class map a frame is ten of the frame; known from the second look on.
    assert seen[:3] == [100, 100, 100]
    assert seen[3:] == pytest.approx([100 + 10 * i for i in range(3, 13)])


def test_each_model_speaks_at_its_own_cadence():
    fuser = Fuser([UNET, LOCALIZER], FuseOptions())
    for index in range(12):
        predictions = {}
        if index % 2 == 0:
            predictions["unet"] = street(10 + index)
        if index % 3 == 0:
            x = (100 + 5 * index) / WIDTH
            predictions["localizer"] = heads((x, 0.1, x + 0.1, 0.3, 0.9))
        analysis = fuser.fuse(frame(index), "live", predictions)
        assert analysis.models == tuple(predictions)
        assert [(b.origin, b.track) for b in analysis.boxes] == [("unet", 1), ("localizer", 2)]
        head = analysis.boxes[1]
        if index >= 3:
            assert head.x1 == pytest.approx(100 + 5 * index, abs=1e-3)
            assert (head.y1, head.y2) == pytest.approx((32, 96))


def test_a_look_that_finds_nothing_ends_the_boxes():
    fuser = Fuser([LOCALIZER], FuseOptions())
    assert len(fuser.fuse(frame(0), "file", {"localizer": heads((0.1, 0.1, 0.2, 0.2, 0.9))}).boxes) == 1
    assert len(fuser.fuse(frame(1), "file", {}).boxes) == 1
    assert fuser.fuse(frame(2), "file", {"localizer": heads()}).boxes == ()
    assert fuser.fuse(frame(3), "file", {}).boxes == ()


def test_an_object_found_again_after_a_blind_look_is_the_same():
    fuser = Fuser([LOCALIZER], FuseOptions())
    for index, found in enumerate(((0.1, 0.1, 0.2, 0.2, 0.9), None, None, (0.1, 0.1, 0.2, 0.2, 0.9))):
        analysis = fuser.fuse(frame(3 * index), "file", {"localizer": heads(*([found] if found else []))})
    assert [b.track for b in analysis.boxes] == [1]


def test_a_model_that_looks_rarely_keeps_its_tracks_from_look_to_look():
    fuser = Fuser([LOCALIZER], FuseOptions(tracking=TrackingOptions(keep_seconds=1.0)))
    for index in range(121):
        predictions = {"localizer": heads((0.1, 0.1, 0.2, 0.2, 0.9))} if index % 40 == 0 else {}
        assert [b.track for b in fuser.fuse(frame(index), "file", predictions).boxes] == [1], index


def test_what_has_left_the_picture_in_between_is_not_shown():
    fuser = Fuser([LOCALIZER], FuseOptions())
    for index, x in ((0, 0.6), (1, 0.75), (2, 0.9)):
        fuser.fuse(frame(index), "file", {"localizer": heads((x, 0.1, x + 0.2, 0.3, 0.9))})
    (leaving,) = fuser.fuse(frame(3), "file", {}).boxes or (None,)
    assert leaving is None or leaving.x2 <= WIDTH
    assert fuser.fuse(frame(6), "file", {}).boxes == ()


def test_before_the_first_look_there_is_nothing():
    analysis = Fuser([UNET, LOCALIZER], FuseOptions()).fuse(frame(0), "file", {})
    assert (analysis.class_map, analysis.confidence, analysis.boxes, analysis.area) == (None, None, (), {})
    assert analysis.classes == CITYSCAPES_CLASSES


def test_without_a_segmenter_there_is_no_map_and_no_label_set():
    analysis = Fuser([LOCALIZER], FuseOptions()).fuse(frame(0), "file", {"localizer": heads((0, 0, 1, 1, 0.9))})
    assert (analysis.class_map, analysis.classes, analysis.area) == (None, (), {})
    assert len(analysis.boxes) == 1


@pytest.mark.parametrize(
    ("what", "row", "expected"),
    [
        ("inside", (0.25, 0.25, 0.5, 0.75, 0.9), (160, 80, 320, 240)),
        ("the whole frame", (0, 0, 1, 1, 0.9), (0, 0, 640, 320)),
        ("over the edges", (-0.5, -0.1, 1.5, 1.1, 0.9), (0, 0, 640, 320)),
        ("at the smallest score", (0.25, 0.25, 0.5, 0.75, 0.5), (160, 80, 320, 240)),
        ("below it", (0.25, 0.25, 0.5, 0.75, 0.49), None),
        ("outside", (1.2, 0.2, 1.4, 0.4, 0.9), None),
        ("inside out", (0.5, 0.25, 0.25, 0.75, 0.9), None),
        ("empty", (0.5, 0.25, 0.5, 0.75, 0.9), None),
        ("not a number", (np.nan, 0.25, 0.5, 0.75, 0.9), None),
        ("no score", (0.25, 0.25, 0.5, 0.75, np.nan), None),
        ("infinite", (-np.inf, -np.inf, np.inf, np.inf, 0.9), None),
    ],
)
def test_a_localizers_boxes_are_clipped_to_the_frame_or_left_out(what, row, expected):
    analysis = Fuser([LOCALIZER], FuseOptions(min_score=0.5).of_stills()).fuse(
        frame(0), "file", {"localizer": heads(row)}
    )
    assert [(b.x1, b.y1, b.x2, b.y2) for b in analysis.boxes] == ([expected] if expected else []), what


@pytest.mark.parametrize(("labels", "expected"), [(None, [(0, "head")]), ((4,), [(4, "hand")]), ((9,), [(9, "9")])])
def test_labels_are_those_of_the_localizers_own_classes(labels, expected):
    found = heads((0, 0, 0.5, 0.5, 0.9), labels=labels)
    analysis = Fuser([LOCALIZER], FuseOptions()).fuse(frame(0), "file", {"localizer": found})
    assert [(b.class_id, b.label) for b in analysis.boxes] == expected


def test_boxes_and_tracks_can_be_switched_off():
    no_boxes = FuseOptions(components=ComponentOptions(enabled=False))
    assert Fuser([UNET], no_boxes).fuse(frame(0), "file", {"unet": street(10)}).boxes == ()
    no_tracks = Fuser([UNET], FuseOptions(tracking=TrackingOptions(enabled=False)))
    found = [no_tracks.fuse(frame(i), "file", {"unet": street(10 + i)} if i % 2 == 0 else {}).boxes for i in range(4)]
    assert [[(b.track, b.x1) for b in boxes] for boxes in found] == [[(None, x)] for x in (100, 100, 120, 120)]


def test_a_resumed_stream_goes_on_numbering():
    analysis = Fuser([UNET], FuseOptions(), first_track=42).fuse(frame(0), "file", {"unet": street(10)})
    assert [b.track for b in analysis.boxes] == [42]


def test_shares_of_the_picture_leave_out_what_has_no_label():
    class_map = np.array([[0, 0, 0, 13], [255, 255, 40, 10]], np.uint8)
    area = class_area(class_map, CITYSCAPES_CLASSES)
    assert area == {"road": 0.375, "car": 0.125, "sky": 0.125}
    assert next(iter(area)) == "road", "the largest first"
    assert class_area(None, CITYSCAPES_CLASSES) == {}
    assert class_area(np.full((2, 2), 255, np.uint8), CITYSCAPES_CLASSES) == {}


@pytest.mark.parametrize(
    ("scores", "shown"),
    [
        pytest.param((0.9, 0.4, 0.4, 0.9), (1, 1, 1, 1), id="wavering below, it stays"),
        pytest.param((0.4, 0.4, 0.9, 0.4), (0, 0, 1, 1), id="it has to be sure once"),
        pytest.param((0.9, 0.1, 0.4, 0.6), (1, 0, 1, 1), id="what is believed is found again by less"),
        pytest.param((0.9, 0.2, 0.2, 0.2, 0.2), (1, 1, 1, 1, 0), id="and goes on three times by next to nothing"),
    ],
)
def test_a_box_whose_score_wavers_does_not_flicker(scores: tuple[float, ...], shown: tuple[int, ...]) -> None:
    fuser = Fuser([LOCALIZER], FuseOptions(min_score=0.5, hold_score=0.3))
    answers = [heads((0.1, 0.1, 0.3, 0.3, score)) for score in scores]
    boxes = [fuser.fuse(frame(index), "file", {"localizer": answer}).boxes for index, answer in enumerate(answers)]
    assert tuple(len(found) for found in boxes) == shown
    assert {box.track for found in boxes for box in found} == {1}


@pytest.mark.parametrize(("least", "expected"), [(None, 0), (0.3, 1)])
def test_how_sure_a_track_has_to_be_goes_by_the_smallest_score(least: float | None, expected: int) -> None:
    assert LOCALIZER.min_score == 0.5
    fuser = Fuser([LOCALIZER], FuseOptions(min_score=least))
    answer = heads((0.1, 0.1, 0.3, 0.3, 0.55))
    found = [fuser.fuse(frame(index), "file", {"localizer": answer}) for index in range(6)]
    assert len(found[-1].boxes) == expected
    assert len(found[-1].tentative) == 1 - expected


def test_what_is_held_is_the_box_in_that_place() -> None:
    fuser = Fuser([LOCALIZER], FuseOptions(min_score=0.5, hold_score=0.3))
    fuser.fuse(frame(0), "file", {"localizer": heads((0.1, 0.1, 0.3, 0.3, 0.9))})
    elsewhere = heads((0.6, 0.6, 0.8, 0.8, 0.4))
    assert fuser.fuse(frame(1), "file", {"localizer": elsewhere}).boxes == ()


# Class map and boxes of one model ------------------------------------------------------------------------------------
ROAD_USERS = ModelSpec(
    name="both", version="1", task="road-users", height=32, width=64, classes=CITYSCAPES_CLASSES, min_score=0.3,
    outputs={"class_map": "class_map", "boxes": "boxes", "scores": "scores", "labels": "labels"},
)  # fmt: skip


def both(car_at: int, *rows: tuple[float, float, float, float, float], labels: tuple[int, ...]) -> Prediction:
    found = heads(*rows, labels=labels)
    return Prediction(street(car_at).class_map, None, found.boxes, found.scores, found.labels)


def test_a_model_with_both_gives_areas_and_its_own_boxes():
    fuser = Fuser([ROAD_USERS], FuseOptions().of_stills())
    rows = ((0.1, 0.5, 0.3, 0.8, 0.9), (0.2, 0.5, 0.4, 0.8, 0.31), (0.7, 0.5, 0.8, 0.9, 0.29))
    analysis = fuser.fuse(frame(0), "file", {"both": both(10, *rows, labels=(13, 13, 11))})
    assert list(analysis.area) == ["sky", "road", "car"]
    assert analysis.classes == CITYSCAPES_CLASSES
    # One component of the class map is a car; the two boxes are the model's, and the third is less than its least.
    assert [(b.label, b.x1, b.x2, b.track) for b in analysis.boxes] == [
        ("car", pytest.approx(64), pytest.approx(192), 1), ("car", pytest.approx(128), pytest.approx(256), 2),
    ]  # fmt: skip
    between = fuser.fuse(frame(1), "file", {})
    assert between.area == analysis.area
    assert [b.track for b in between.boxes] == [1, 2]


def test_two_boxes_of_one_object_are_one():
    rows = ((0.1, 0.5, 0.3, 0.8, 0.6), (0.11, 0.5, 0.31, 0.8, 0.9), (0.11, 0.5, 0.31, 0.8, 0.4))
    analysis = Fuser([ROAD_USERS], FuseOptions()).fuse(frame(0), "file", {"both": both(10, *rows, labels=(13, 13, 14))})
    assert [(b.label, round(b.score, 3)) for b in analysis.boxes] == [("car", 0.9)]


def test_whoever_runs_a_model_may_ask_for_another_smallest_score():
    prediction = both(10, (0.1, 0.5, 0.3, 0.8, 0.45), (0.7, 0.5, 0.8, 0.9, 0.1), labels=(13, 11))
    for least, expected in ((None, 1), (0.5, 0), (0.05, 2)):
        analysis = Fuser([ROAD_USERS], FuseOptions(min_score=least).of_stills()).fuse(
            frame(0), "file", {"both": prediction}
        )
        assert len(analysis.boxes) == expected


def test_in_pictures_that_have_nothing_to_do_with_each_other_a_box_keeps_its_class():
    fuser = Fuser([ROAD_USERS], FuseOptions().of_stills())
    for i, label in enumerate((13, 15, 14)):
        prediction = both(10, (0.1, 0.5, 0.3, 0.8, 0.9 - i / 10), labels=(label,))
        (box,) = fuser.fuse(frame(i), "file", {"both": prediction}).boxes
        assert box.class_id == label


def test_a_model_with_both_that_finds_nothing_leaves_no_components_either():
    analysis = Fuser([ROAD_USERS], FuseOptions()).fuse(frame(0), "file", {"both": both(10, labels=())})
    assert analysis.boxes == ()
    assert "car" in analysis.area
