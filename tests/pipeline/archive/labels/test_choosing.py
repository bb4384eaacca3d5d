"""Which of the frames that were looked at are chosen; what is nearly the same; how much models, or clips, differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")

import msgspec

from engines.classes import IGNORE, ClassInfo
from engines.errors import UsageError
from pipeline.archive.labels.alike import ALIKE, difference_hash, near
from pipeline.archive.labels.choosing import choose, scores
from pipeline.archive.labels.disagreement import Disagreement
from pipeline.archive.labels.hardness import Candidate
from pipeline.archive.labels.looking import Looked
from pipeline.archive.labels.unlike import FEWEST, distances, unlike
from pipeline.archive.rows import FrameRow
from tests.pipeline.archive.made_up import BEGUN, clip, put


# Choosing -------------------------------------------------------------------------------------------------------------
def looked(
    clip_: str, frame: int, rare: float, flicker: float, doubt: float, bits: int, other: float | None = None
) -> Looked:
    candidate = Candidate(clip_, frame, 0.0, None, "front", "", None, rare, flicker, 0.0)
    return Looked(candidate, Path(), 8, 8, bits, None, (), doubt, None)


def apart(number: int) -> int:
    """Hashes of which no two are near."""
    return ((1 << (ALIKE + 1)) - 1) << ((ALIKE + 1) * number)


FIRST = looked("a", 1, 0.9, 0.9, 0.9, apart(0))
SECOND = looked("a", 2, 0.8, 0.8, 0.8, apart(1))
THIRD = looked("a", 3, 0.7, 0.7, 0.7, apart(2))
LIKE_FIRST = looked("b", 4, 0.6, 0.6, 0.6, apart(0) ^ 0b11_1111)
LAST = looked("b", 5, 0.1, 0.1, 0.1, apart(3))


@pytest.mark.parametrize(
    ("limit", "per_clip", "frames", "duplicates", "crowded"),
    [
        (9, 9, [1, 2, 3, 5], 1, 0), (9, 2, [1, 2, 5], 1, 1), (9, 1, [1, 5], 1, 2), (2, 9, [1, 2], 0, 0),
        (4, 9, [1, 2, 3, 5], 1, 0), (3, 2, [1, 2, 5], 1, 1),
    ],
)  # fmt: skip
def test_the_hardest_few_of_a_clip_none_nearly_twice(
    limit: int, per_clip: int, frames: list[int], duplicates: int, crowded: int
) -> None:
    chosen = choose([LAST, LIKE_FIRST, THIRD, SECOND, FIRST], limit, per_clip)
    assert [each.candidate.frame for each, _ in chosen.pictures] == frames
    assert (chosen.near_duplicates, chosen.crowded) == (duplicates, crowded)
    assert [score for _, score in chosen.pictures] == [(5 - frame if frame < 5 else 0) / 4 for frame in frames]


def test_a_score_is_the_mean_of_ranks_and_disagreement_one_of_them() -> None:
    made = [looked("a", 1, 0.2, 0.0, 0.5, 1), looked("a", 2, 0.2, 0.3, 0.1, 2), looked("a", 3, 0.9, 0.3, 0.2, 3)]
    # Ranks of what is rare: 0, 0, 1; of flicker: 0, 0.5, 0.5; of doubt, twice: 1, 0, 0.5.
    assert scores(made) == pytest.approx([(0 + 0 + 2) / 4, (0 + 0.5 + 0) / 4, (1 + 0.5 + 1) / 4], abs=1e-6)
    with_second = [replace(each, disagreement=k / 2) for k, each in enumerate(made)]
    assert scores(with_second) == pytest.approx([2 / 5, (0.5 + 0.5) / 5, (2.5 + 1) / 5], abs=1e-6)
    assert scores(made[:1]) == [0.0]


def test_what_is_equally_hard_is_in_order_of_clips_and_frames() -> None:
    made = [looked(c, f, 0.5, 0.5, 0.5, apart(k)) for k, (c, f) in enumerate([("b", 1), ("a", 9), ("a", 2)])]
    chosen = [(each.candidate.clip, each.candidate.frame) for each, _ in choose(made, 9, 9).pictures]
    assert chosen == [("a", 2), ("a", 9), ("b", 1)]


# Nearly the same ------------------------------------------------------------------------------------------------------
def picture(luma: np.ndarray) -> av.VideoFrame:
    """A grey picture of eight rows of nine blocks."""
    full = np.kron(luma.astype(np.uint8), np.ones((10, 10), np.uint8))
    planes = np.concatenate([full.ravel(), np.full(full.size // 2, 128, np.uint8)])
    return av.VideoFrame.from_ndarray(planes.reshape(-1, full.shape[1]), format="yuv420p")


def test_a_hash_says_where_it_gets_brighter_to_the_right() -> None:
    luma = np.full((8, 9), 100)
    luma[0, 1], luma[7, 8] = 150, 120
    assert difference_hash(picture(luma)) == 1 << 63 | 1
    assert difference_hash(picture(np.tile(np.arange(9) * 9 + 20, (8, 1)))) == (1 << 64) - 1


@pytest.mark.parametrize(("bits", "same"), [(0, True), (ALIKE, True), (ALIKE + 1, False), (64, False)])
def test_as_many_bits_may_differ(bits: int, same: bool) -> None:
    assert near((1 << bits) - 1 ^ 0b1010, 0b1010) is same


# Two models -----------------------------------------------------------------------------------------------------------
def classes(**ids: int) -> tuple[ClassInfo, ...]:
    return tuple(ClassInfo(number, name, (0, 0, 0)) for name, number in ids.items())


def test_disagreement_is_one_less_the_mean_iou_by_name() -> None:
    between = Disagreement(classes(road=0, car=3, sky=5), classes(car=0, road=7, tree=1))
    one = np.array([[0, 0, 3, 3], [0, 0, 3, 5]], np.uint8)
    other = np.array([[7, 7, 0, 0], [7, 0, 1, 0]], np.uint8)
    # sky and tree are known to one alone: two pixels are left out. road 3/4, car 2/3.
    assert between.of(one, other) == pytest.approx(1 - (3 / 4 + 2 / 3) / 2)
    assert between.of(one, np.where(one == 3, 0, 7).astype(np.uint8)) == 0.0
    assert between.of(one, np.full_like(one, IGNORE)) == 0.0
    assert between.of(np.full_like(one, 0), np.full_like(one, 0)) == 1.0


def test_maps_of_two_sizes_are_compared_at_that_of_the_first() -> None:
    between = Disagreement(classes(road=0, car=1), classes(road=0, car=1))
    one = np.zeros((4, 4), np.uint8)
    one[:, 2:] = 1
    assert between.of(one, np.array([[0, 1]], np.uint8)) == 0.0
    assert between.of(np.array([[0, 1]], np.uint8), one) == 0.0


def test_models_without_a_class_in_common_are_refused() -> None:
    with pytest.raises(UsageError, match="no class in common with the archive's: tree there, road here"):
        Disagreement(classes(road=0), classes(tree=0))


# Clips ----------------------------------------------------------------------------------------------------------------
def test_distances_are_in_spreads_from_the_middle_of_all() -> None:
    figures = np.array([[0.1, 0.5], [0.2, 0.5], [0.3, 0.5], [0.4, 0.5], [0.5, 0.53]])
    spread = 1.4826 * 0.1
    expected = [
        np.hypot(0.2 / spread, 0),
        np.hypot(0.1 / spread, 0),
        0,
        np.hypot(0.1 / spread, 0),
        np.hypot(0.2 / spread, 3),
    ]
    assert distances(figures) == pytest.approx(np.array(expected) / np.sqrt(2), abs=1e-3)


def test_what_is_not_known_does_not_count_and_one_figure_counts_for_ten_spreads_at_most() -> None:
    nan = float("nan")
    figures = np.array([[0.5, nan, nan], [0.5, 0.5, nan], [0.5, 0.5, nan], [0.9, 0.5, nan], [nan, nan, nan]])
    assert distances(figures) == [0.0, 0.0, 0.0, pytest.approx(10 / np.sqrt(2), abs=1e-3), None]


def test_a_night_among_days_is_unlike_them(tmp_path: Path) -> None:
    def made(number: int, road: float, light: int) -> object:
        rows = [FrameRow(0, 0.0, BEGUN + 60 * number, {"road": road}, {})]
        indexed = clip(number, BEGUN + 60 * number, rows)
        grey = np.full((36, 64, 3), light, np.uint8)
        return msgspec.structs.replace(indexed, thumbnails={0: cv2.imencode(".jpg", grey)[1].tobytes()})

    clips = [made(k, 0.3 + k / 100, 120 + 2 * k) for k in range(FEWEST)]
    small = put(tmp_path / "small", clips[: FEWEST - 1])  # type: ignore[arg-type]
    assert set(unlike(small).values()) == {None}
    whole = put(tmp_path / "whole", [*clips[:-1], made(FEWEST, 0.3, 10)])  # type: ignore[list-item]
    found = unlike(whole)
    night = found.pop(f"{FEWEST:04x}")
    assert night is not None
    assert night > 3 > 2 > max(value or 0 for value in found.values())
    (whole.path / "thumbnails").rename(tmp_path / "gone")
    assert all(value is not None for value in unlike(whole).values())
