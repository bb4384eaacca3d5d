"""Frames between looks, filled from them, in order and without loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.analysis.carrying.carrier import Carrier, Passing
from pipeline.analysis.carrying.flow import HEIGHT, WIDTH
from pipeline.frame import Analysis, Box
from tests.pipeline.analysis.carrying.test_flow import disc, overlap, picture
from tests.pipeline.fake_analysis import analysis

FLAT = np.full((HEIGHT, WIDTH), 90, np.uint8)


def passing(index: int, *models: str, level: int = 0, boxes: tuple[Box, ...] = (), scene: int = 0) -> Passing[int]:
    """A frame that models looked at; its class map is of one class."""
    fused = analysis(index, models=models, boxes=boxes, class_map=np.full((16, 16), level, np.uint8))
    return Passing(fused, FLAT, scene, index)


def carrier(*, waits: bool = True, **more: object) -> Carrier[int]:
    return Carrier(["m"], ["m"], ["m"] if waits else [], "m", **more)  # type: ignore[arg-type]  # a table of values


def through(made: Carrier[int], frames: list[Passing[int]]) -> list[Passing[int]]:
    return [each for frame in frames for each in made.take(frame)] + made.flush()


def test_of_a_file_a_frame_is_filled_from_the_nearer_look() -> None:
    looks = {0: 1, 5: 2}
    frames = [passing(i, *(["m"] if i in looks else []), level=looks.get(i, 9)) for i in range(6)]
    out = through(carrier(), frames)
    assert [each.luggage for each in out] == list(range(6))
    assert [int(each.analysis.class_map[0, 0]) for each in out] == [1, 1, 1, 2, 2, 2]
    assert [each.analysis.carried_from.get("m") for each in out] == [None, 0, 0, 5, 5, None]


def test_of_a_live_stream_it_is_filled_from_the_look_before_at_once() -> None:
    made = carrier(waits=False)
    for index in range(5):
        (out,) = made.take(passing(index, *(["m"] if index in (0, 3) else []), level=index))
        assert out.luggage == index
        assert out.analysis.class_map[0, 0] == (0 if index < 3 else 3)
    assert made.flush() == []


def test_a_frame_is_filled_from_its_own_side_of_a_cut() -> None:
    frames = [passing(i, *(["m"] if i in (0, 4) else []), level=i, scene=int(i >= 1)) for i in range(5)]
    out = through(carrier(), frames)
    assert [each.analysis.carried_from.get("m") for each in out] == [None, 4, 4, 4, None]


def test_the_last_frames_are_filled_from_the_look_before() -> None:
    out = through(carrier(), [passing(0, "m", level=1), passing(1), passing(2)])
    assert [each.analysis.carried_from.get("m") for each in out] == [None, 0, 0]
    assert all((each.analysis.class_map == 1).all() for each in out)


def test_a_class_map_its_confidence_and_its_areas_move_with_the_picture() -> None:
    first, second = (
        Passing(
            analysis(i, models=("m",) if i == 0 else (), boxes=(), class_map=disc(80, 48), confidence=disc(80, 48)),
            picture(4 * i), 0, i,
        )
        for i in range(2)
    )  # fmt: skip
    out = through(carrier(waits=False), [first, second])
    moved = out[1].analysis
    assert moved.class_map is not None
    assert moved.confidence is not None
    assert overlap(moved.class_map == 13, disc(84, 48) == 13) > 0.95
    np.testing.assert_array_equal(moved.class_map, moved.confidence)
    assert moved.area == pytest.approx({"road": (moved.class_map == 0).mean(), "car": (moved.class_map == 13).mean()})


BOX = Box(0, 0, 10, 10, 13, "car", 0.9, "m", track=1)


def test_a_box_of_both_looks_is_in_between_and_one_of_one_look_on_its_half() -> None:
    other = Box(40, 20, 50, 30, 11, "person", 0.5, "m", track=2)
    frames = [passing(0, "m", boxes=(BOX,)), *(passing(i, boxes=(BOX,)) for i in range(1, 4))]
    frames.append(passing(4, "m", boxes=(replace(BOX, x1=8, x2=18), other)))
    out = [each.analysis for each in through(carrier(), frames)]
    assert [round(a.boxes[0].x1, 3) for a in out] == [0, 2, 4, 6, 8]
    assert [len(a.boxes) for a in out] == [1, 1, 1, 2, 2]
    assert out[3].boxes[1] == other


def test_the_boxes_of_another_model_stay() -> None:
    own = replace(BOX, origin="n")
    made = Carrier[int](["n", "m"], ["m"], ["m"], "m")
    frames = [passing(i, "n", *(["m"] if i in (0, 2) else []), boxes=(own, BOX)) for i in range(3)]
    out = through(made, frames)
    assert [[box.origin for box in each.analysis.boxes] for each in out] == [["n", "m"]] * 3


def test_it_tells_how_far_a_look_agrees_with_the_one_before() -> None:
    told: list[tuple[str, int, dict[str, float]]] = []
    made = carrier(judged=["m"], learned=lambda *said: told.append(said))
    looks = {0: (1, 0), 2: (1, 0), 3: (2, 0), 5: (2, 1)}
    frames = [
        passing(i, *(["m"] if i in looks else []), level=looks.get(i, (9, 0))[0], scene=looks.get(i, (9, 0))[1],
                boxes=(BOX,))
        for i in range(6)
    ]  # fmt: skip
    through(made, frames)
    assert told == [("m", 2, {"boxes": 1.0, "map": 1.0}), ("m", 1, {"boxes": 1.0, "map": 0.0}), ("m", 2, {})]


@given(st.lists(st.sets(st.sampled_from(["a", "b"])), max_size=30), st.sets(st.sampled_from(["a", "b"])))
def test_every_frame_comes_out_once_in_order_and_filled(looks: list[set[str]], awaited: set[str]) -> None:
    made = Carrier[int](["a", "b"], ["a", "b"], awaited, "a")
    out = through(made, [passing(index, *sorted(models)) for index, models in enumerate(looks)])
    assert [each.luggage for each in out] == list(range(len(looks)))
    for each in out:
        seen: Analysis = each.analysis
        for name in ("a", "b"):
            known = any(name in models for models in looks[: each.luggage + 1])
            assert (name in seen.models) + (name in seen.carried_from) == known
            if name in seen.carried_from:
                assert name in looks[seen.carried_from[name]]
