"""Labels of the image pairs: colours to ids, doubtful pixels, bad files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.classes import CITYSCAPES_CLASSES, IGNORE
from engines.errors import RoadlensError, SourceError
from tests.training.conftest import draw_composite, write_pairs
from training.data.cityscapes_pairs import (
    MAX_COLOR_DISTANCE,
    class_frequencies,
    decode_label,
    edge_band,
    ignore_doubtful_pixels,
    list_pairs,
    load_pairs,
    outside_palette,
)

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "cityscapes_pairs"
ROAD, BUILDING, WALL, POLE, VEGETATION, SKY, CAR = 0, 2, 3, 5, 8, 10, 13

# The colours of cityscapesScripts' labels that have no trainId, written down a second time here.
VOID = [(0, 0, 0), (111, 74, 0), (81, 0, 81), (250, 170, 160), (230, 150, 140), (180, 165, 180), (150, 100, 100),
        (150, 120, 90), (0, 0, 90), (0, 0, 110)]  # fmt: skip


def nearest_by_force(rgb: np.ndarray) -> np.ndarray:
    """The definition, in float64: nearest of all colours, void and what is further than 40 ignored."""
    palette = np.array([c.color for c in CITYSCAPES_CLASSES] + VOID, np.float64)
    ids = np.array([c.id for c in CITYSCAPES_CLASSES] + [IGNORE] * len(VOID))
    distance = np.linalg.norm(rgb[..., None, :].astype(np.float64) - palette, axis=-1)
    return np.where(distance.min(-1) > MAX_COLOR_DISTANCE, IGNORE, ids[distance.argmin(-1)])


@pytest.mark.seconds
@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=64))
@settings(max_examples=100, deadline=None)
def test_decoding_is_the_nearest_colour(colors: list[tuple[int, int, int]]) -> None:
    rgb = np.array([colors], np.uint8)
    np.testing.assert_array_equal(decode_label(rgb), nearest_by_force(rgb))


@pytest.mark.seconds
def test_decoding_near_the_palette_is_the_nearest_colour() -> None:
    rng = np.random.default_rng(0)
    palette = np.array([c.color for c in CITYSCAPES_CLASSES] + VOID)
    near = palette[rng.integers(0, len(palette), (200, 200))] + rng.integers(-28, 29, (200, 200, 3))
    rgb = np.clip(near, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(decode_label(rgb), nearest_by_force(rgb))


@pytest.mark.seconds
@pytest.mark.parametrize("info", CITYSCAPES_CLASSES, ids=lambda info: info.name)
def test_a_palette_colour_is_its_class(info: object) -> None:
    assert decode_label(np.array([[info.color]], np.uint8))[0, 0] == info.id


def test_void_is_ignored_but_not_outside_the_palette() -> None:
    void, far = np.array([VOID], np.uint8), np.array([[(0, 255, 0)] * 10], np.uint8)
    assert (decode_label(void) == IGNORE).all()
    assert (decode_label(far) == IGNORE).all()
    assert outside_palette(void) == 0
    assert outside_palette(far) == 1


@pytest.mark.realdata
@pytest.mark.skipif(not REAL.is_dir(), reason="the development data does not lie beside the checkout")
def test_decoding_of_real_labels() -> None:
    for path in list_pairs(REAL, "train")[:3]:
        rgb = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)[:, 256:]
        np.testing.assert_array_equal(decode_label(rgb), nearest_by_force(rgb))
        assert outside_palette(rgb) < 0.15


# Doubtful pixels ----------------------------------------------------------------------------------------------------


def canvas(*strips: tuple[slice, slice, int], ground: int = BUILDING) -> np.ndarray:
    label = np.full((20, 20), ground, np.uint8)
    for rows, columns, class_id in strips:
        label[rows, columns] = class_id
    return label


ALL = slice(None)


def test_a_pole_of_three_pixels_survives_whole() -> None:
    label = canvas((ALL, slice(8, 11), POLE))
    np.testing.assert_array_equal(ignore_doubtful_pixels(label), label)


@pytest.mark.parametrize("between", [(SKY, BUILDING), (ROAD, CAR), (VEGETATION, SKY)])
def test_a_blend_line_of_a_third_class_is_ignored(between: tuple[int, int]) -> None:
    left, right = between
    label = canvas((ALL, slice(0, 10), left), (ALL, slice(10, 11), WALL), ground=right)
    seen = ignore_doubtful_pixels(label)
    assert WALL not in seen
    assert (seen[:, 10] == IGNORE).all()
    assert (seen[:, :9] == left).all()
    assert (seen[:, 12:] == right).all()


def test_the_edge_of_two_thick_classes_is_ignored_two_pixels_wide() -> None:
    label = canvas((ALL, slice(0, 10), SKY))
    seen = ignore_doubtful_pixels(label)
    assert (seen == IGNORE).sum() == 2 * 20
    assert (seen[:, 9:11] == IGNORE).all()


def test_nothing_happens_inside_and_the_input_stays() -> None:
    label = canvas((slice(0, 10), ALL, SKY))
    before = label.copy()
    seen = ignore_doubtful_pixels(label)
    np.testing.assert_array_equal(label, before)
    np.testing.assert_array_equal(seen[:8], label[:8])


def test_a_speck_is_ignored_and_a_small_light_is_not() -> None:
    light = 6
    label = canvas((slice(5, 6), slice(5, 6), WALL), (slice(12, 15), slice(12, 15), light))
    seen = ignore_doubtful_pixels(label)
    assert seen[5, 5] == IGNORE
    assert (seen == light).sum() == 9


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_pixels_are_only_ever_ignored_never_changed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label = np.kron(rng.integers(0, 19, (5, 5)), np.ones((5, 5))).astype(np.uint8)
    label[rng.random(label.shape) < 0.1] = IGNORE
    seen = ignore_doubtful_pixels(label)
    assert ((seen == label) | (seen == IGNORE)).all()


def test_edge_band_is_one_pixel_on_each_side() -> None:
    label = canvas((ALL, slice(0, 10), SKY))
    band = edge_band(label)
    assert band[:, 9:11].all()
    assert band.sum() == 2 * 20
    assert not edge_band(canvas()).any()


# Files --------------------------------------------------------------------------------------------------------------


def test_pairs_come_as_they_were_drawn(pairs_folder: Path) -> None:
    pairs = load_pairs(pairs_folder, "val")
    rng = np.random.default_rng(0)
    drawn = [draw_composite(rng) for _ in range(44)][40:]
    assert pairs.names == ("1.jpg", "2.jpg", "3.jpg", "4.jpg")
    for i, composite in enumerate(drawn):
        truth = nearest_by_force(composite[:, 256:])
        known = pairs.labels[i] != IGNORE
        assert known.mean() > 0.9  # JPEG blurs the edges
        assert (pairs.labels[i] == truth)[known].mean() > 0.97
        assert np.abs(pairs.photos[i].astype(int) - composite[:, :256]).mean() < 12


def test_fit_and_dev_are_the_parts_of_train(pairs_folder: Path) -> None:
    names = {split: [p.name for p in list_pairs(pairs_folder, split)] for split in ("train", "fit", "dev")}
    assert names["dev"] == ["20.jpg", "40.jpg"]
    assert sorted(names["fit"] + names["dev"]) == sorted(names["train"])
    assert names["train"] == [f"{i}.jpg" for i in range(1, 41)]


def test_the_cache_gives_the_same_and_notices_a_changed_file(tmp_path: Path) -> None:
    root, cache = write_pairs(tmp_path / "set", train=2, val=1), tmp_path / "cache"
    fresh, kept = (load_pairs(root, "train", cache) for _ in range(2))
    np.testing.assert_array_equal(fresh.labels, kept.labels)
    np.testing.assert_array_equal(fresh.photos, kept.photos)
    assert fresh.names == kept.names
    (root / "train/1.jpg").write_bytes((root / "val/1.jpg").read_bytes())
    assert not np.array_equal(load_pairs(root, "train", cache).labels, fresh.labels)


def test_too_few_pairs_for_a_part_of_train_are_one_sentence(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "set", train=3, val=1)
    assert len(list_pairs(root, "fit")) == 3
    with pytest.raises(SourceError, match=r"none of the 3 pairs in .*train is dev: those whose number"):
        list_pairs(root, "dev")


@pytest.mark.parametrize("content", [b"", b"text", None], ids=["empty", "no archive", "cut off"])
def test_a_damaged_cache_is_said_and_made_anew(tmp_path: Path, content: bytes | None) -> None:
    root, cache = write_pairs(tmp_path / "set", train=2, val=1), tmp_path / "cache"
    fresh = load_pairs(root, "train", cache)
    (stored,) = cache.iterdir()
    stored.write_bytes(stored.read_bytes()[:1000] if content is None else content)
    said: list[str] = []
    for _ in range(2):
        np.testing.assert_array_equal(load_pairs(root, "train", cache, say=said.append).labels, fresh.labels)
    assert said == [f"{stored} is damaged; the pairs are decoded again"]


def test_class_frequencies() -> None:
    labels = np.array([[[0, 0, 0, 13], [10, 10, 255, 255]]], np.uint8)
    shares = class_frequencies(labels)
    assert shares.shape == (19,)
    assert (shares[0], shares[10], shares[13]) == (0.5, pytest.approx(1 / 3), pytest.approx(1 / 6))


def spoil_nothing(_: Path) -> None:
    pass


def spoil_with_text(root: Path) -> None:
    (root / "train/2.jpg").write_text("not a picture")


def spoil_by_emptying(root: Path) -> None:
    (root / "train/2.jpg").write_bytes(b"")


def spoil_by_cutting_off(root: Path) -> None:
    path = root / "train/2.jpg"
    path.write_bytes(path.read_bytes()[:-2000])


def spoil_by_size(root: Path) -> None:
    cv2.imwrite(str(root / "train/2.jpg"), np.zeros((256, 256, 3), np.uint8))


def spoil_by_palette(root: Path) -> None:
    composite = np.zeros((256, 512, 3), np.uint8)
    composite[:, 256:] = (0, 255, 0)
    cv2.imwrite(str(root / "train/2.jpg"), composite)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (spoil_with_text, "2.jpg cannot be decoded as an image"),
        (spoil_by_emptying, "2.jpg cannot be decoded as an image"),
        (spoil_by_cutting_off, "2.jpg cannot be decoded as an image"),
        (spoil_by_size, "512×256 pixels .* this file is 256×256"),
        (spoil_by_palette, "100% of the right half is further than 40 from every Cityscapes colour"),
    ],
)
def test_a_bad_pair_is_named_and_left_out_on_request(spoil: object, sentence: str, tmp_path: Path) -> None:
    root = write_pairs(tmp_path, train=3, val=1)
    spoil(root)
    with pytest.raises(SourceError, match=sentence) as caught:
        load_pairs(root, "train")
    assert "\n" not in str(caught.value)
    said: list[str] = []
    pairs = load_pairs(root, "train", skip_broken=True, say=said.append)
    assert pairs.names == ("1.jpg", "3.jpg")
    assert len(said) == 1
    assert "2.jpg" in said[0]


def write_partly_foreign(root: Path, share: float) -> Path:
    """A pair whose label is road, but for a share of its rows in a colour that is no class's."""
    composite = np.zeros((256, 512, 3), np.uint8)
    composite[:, 256:] = CITYSCAPES_CLASSES[ROAD].color
    composite[: round(share * 256), 256:] = (0, 255, 0)
    path = root / "train/1.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), composite[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
    return path


@pytest.mark.parametrize(("share", "refused"), [(0.25, False), (0.375, True)])
def test_foreign_colours_are_counted_and_refused_above_the_bound(share: float, refused: bool, tmp_path: Path) -> None:
    write_partly_foreign(tmp_path, share)
    if refused:
        # 3/8 of the rows, and what JPEG blurs beside them.
        with pytest.raises(SourceError, match=r"3[78]% of the right half is further than 40 .*\(at most 30%\)"):
            load_pairs(tmp_path, "train")
    else:
        pairs = load_pairs(tmp_path, "train")
        assert (pairs.labels == IGNORE).mean() == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(
    ("files", "split", "sentence"),
    [
        ([], "train", "is not the Cityscapes pairs set: it has no folder train/"),
        (["train/a.txt"], "train", "holds no pairs"),
        (["train/photo.jpg"], "fit", "holds no pairs"),
        (["train/1.jpg"], "val", "it has no folder val/"),
        (["train/1.jpg"], "dev", "none of the 1 pairs"),
    ],
)
def test_not_the_set(files: list[str], split: str, sentence: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(RoadlensError, match=sentence):
        load_pairs(tmp_path, split)
