"""An export is whole or not there: original frames by their number, labels of the archive's model, what lacks said."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import msgspec
import numpy as np
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")
Image = pytest.importorskip("PIL.Image")

from engines.errors import ModelError, OutputError, RoadlensError, SourceError, UsageError
from pipeline.archive.labels import looking
from pipeline.archive.labels.export import export_labels
from pipeline.archive.labels.manifest import Manifest, Wanted
from pipeline.archive.reading import Archive
from pipeline.archive.rows import FrameRow
from pipeline.archive.terms import Terms, terms_of
from pipeline.config import Config, ModelConfig
from pipeline.frame import Frame
from pipeline.pictures.picture import Picture
from tests.engines.tiny_models import CLASSES, HEIGHT, SEGMENTER, WIDTH, bits_model, bits_of, save
from tests.footage import read_number, write_clip
from tests.pipeline.archive.made_up import BEGUN, EVERY, RATE, clip, put
from training.data.own.folder import open_folder, read_sample

SIZE = (320, 180)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of numbered frames, one with B-frames and uneven times, and one that shows the same all the time."""
    folder = tmp_path_factory.mktemp("card")
    write_clip(folder / "a.mp4", frames=61, fps=30, numbered=True, size=SIZE, bframes=2, vfr=True, gop=40)
    write_clip(folder / "b.mp4", frames=61, fps=30, numbered=True, size=SIZE, seed=5)
    still = np.random.default_rng(3).integers(0, 255, (9, 16, 3)).astype(np.uint8)
    same = np.asarray(cv2.resize(still, SIZE, interpolation=cv2.INTER_CUBIC), np.uint8)
    write_clip(folder / "c.mp4", frames=61, fps=30, size=SIZE, pictures=[same] * 61)
    return folder


def looks(at: float | None, count: int = 5) -> list[FrameRow]:
    return [
        FrameRow(k * EVERY, k * EVERY / RATE, None if at is None else at + k * EVERY / RATE, {"class 1": 0.1 * k}, {})
        for k in range(count)
    ]


@pytest.fixture
def terms(segmenter: Path) -> Terms:
    return terms_of(Config(models=(ModelConfig(str(segmenter), every=EVERY),)))


@pytest.fixture
def archived(card: Path, terms: Terms, tmp_path: Path) -> Archive:
    """Two clips of one trip, and one of the next day."""
    a = clip(1, BEGUN, looks(BEGUN), path=card / "a.mp4", camera="rear")
    b = clip(2, BEGUN + 60, looks(BEGUN + 60), path=card / "b.mp4")
    c = clip(3, BEGUN + 90_000, looks(BEGUN + 90_000), path=card / "c.mp4", novelty=2.5)
    return put(tmp_path / "archive", [a, b, c], terms)


@pytest.fixture
def export(archived: Archive, segmenter: Path, tmp_path: Path) -> Callable[..., Manifest]:
    """Export from an archive of the tiny model, that of the fixtures unless another one is given."""

    def run(*, archive: Archive = archived, to: str = "out", **wanted: Any) -> Manifest:
        asked = Wanted(**({"format": "cityscapes", "models": (str(segmenter),), "device": "cpu"} | wanted))
        return export_labels(archive, tmp_path / to, asked)

    return run


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "partial" in path.name or path.name == "out")


# What is written ------------------------------------------------------------------------------------------------------
@pytest.mark.seconds
def test_pictures_are_the_frames_that_rows_name_and_labels_what_the_model_says_of_them(
    export: Callable[..., Manifest], card: Path, tmp_path: Path
) -> None:
    manifest = export(per_clip=0, where='clip != "0003"')
    assert {(each.clip, each.frame) for each in manifest.exported} == {
        (name, number) for name in ("0001", "0002") for number in range(0, 75, EVERY)
    }  # fmt: skip
    for each in manifest.exported:
        path = tmp_path / "out" / each.file
        shown = cv2.imread(str(path))
        assert shown.shape == (*SIZE[::-1], 3)
        assert read_number(shown) == each.frame
        with av.open(each.path) as container:
            decoded = next(image for k, image in enumerate(container.decode(video=0)) if k == each.frame)
        given = Picture.of(decoded).network_input(HEIGHT, WIDTH)
        assert each.doubt == pytest.approx(1 - given[..., 0].mean() / 255, abs=1e-6)  # red is how sure the model is
        seen = bits_of(given)
        with Image.open(tmp_path / "out" / "masks" / f"{path.stem}.png") as image:
            label = np.asarray(image)
        np.testing.assert_array_equal(label, cv2.resize(seen, SIZE, interpolation=cv2.INTER_NEAREST_EXACT))
        rgb = decoded.to_ndarray(format="rgb24").astype(int)
        assert np.abs(shown[..., ::-1].astype(int) - rgb).mean() < 6


@pytest.mark.seconds
def test_names_tell_the_trip_and_the_order_in_it(export: Callable[..., Manifest], tmp_path: Path) -> None:
    manifest = export(per_clip=2)
    by_name = sorted(manifest.exported, key=lambda each: each.file)
    assert [each.file for each in by_name] == [
        "images/2023-11-14T22-13-20Z_00000.jpg", "images/2023-11-14T22-13-20Z_00001.jpg",
        "images/2023-11-14T22-13-20Z_00002.jpg", "images/2023-11-14T22-13-20Z_00003.jpg",
        "images/2023-11-15T23-13-20Z_00000.jpg",
    ]  # fmt: skip
    times = [each.time for each in by_name]
    assert all(time is not None for time in times)
    assert times == sorted(times)  # type: ignore[type-var]
    folder = open_folder(tmp_path / "out", "masks")
    assert sorted({item.trip for item in folder.items}) == ["2023-11-14T22-13-20Z", "2023-11-15T23-13-20Z"]
    assert len({(item.trip, item.part) for item in folder.items}) == 2  # whole trips are held out


@pytest.mark.seconds
def test_the_manifest_says_what_was_exported_and_what_was_not(export: Callable[..., Manifest], tmp_path: Path) -> None:
    manifest = export(format="coco", per_clip=2, limit=0)
    read = json.loads((tmp_path / "out" / "export.json").read_text())
    assert msgspec.convert(read, Manifest) == manifest
    assert (manifest.asked, manifest.looked, manifest.kind) == (15, 15, "roadlens labels")
    scores = [each.score for each in manifest.exported]
    assert scores == sorted(scores, reverse=True)
    left = manifest.left_out
    # Of the clip that never changes one frame is there, of the others two each.
    assert (len(manifest.exported), left.near_duplicates, left.crowded) == (5, 4, 6)
    assert (left.undecodable, left.clips, left.boxes) == (0, {}, 0)
    for each in manifest.exported:
        assert 0 < each.doubt < 1
        assert each.disagreement is None
    clips = json.loads((tmp_path / "out" / "clips.json").read_text())
    assert {name: each["novelty"] for name, each in clips["clips"].items()} == {"0001": None, "0002": None, "0003": 2.5}
    assert all(each.novelty == (2.5 if each.clip == "0003" else None) for each in manifest.exported)
    assert "that it was trained on" in clips["novelty"]
    assert "not from what a model was trained on" in clips["unlike"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "annotations", "clips.json", "export.json", "images",
    ]  # fmt: skip


def test_the_limit_holds_and_what_is_alike_is_made_up_for(export: Callable[..., Manifest]) -> None:
    manifest = export(where='clip == "0003" or (clip == "0001" and seconds < 0.1)', limit=2, per_clip=0)
    assert min((each.clip, each.frame) for each in manifest.exported) == ("0001", 0)
    assert len(manifest.exported) == 2
    assert (manifest.asked, manifest.looked) == (6, 6)  # four were looked at first, all of them alike
    assert len(export(limit=1, to="one").exported) == 1


def test_a_second_model_makes_what_it_disagrees_on_harder(
    export: Callable[..., Manifest], segmenter: Path, tmp_path: Path
) -> None:
    same = export(second=str(segmenter), to="same")
    assert {each.disagreement for each in same.exported} == {0.0}
    names = tuple(msgspec.structs.replace(info, name=f"class {7 - info.id}") for info in CLASSES)
    other = save(bits_model(), msgspec.structs.replace(SEGMENTER, name="other", classes=names), tmp_path / "other.onnx")
    never = export(second=str(other), to="never")
    assert {each.disagreement for each in never.exported} == {1.0}


def test_an_empty_folder_is_taken_and_clips_without_a_clock_are_trips_of_their_own(
    card: Path, terms: Terms, tmp_path: Path, export: Callable[..., Manifest]
) -> None:
    timeless = [clip(k, None, looks(None, 2), path=card / f"{name}.mp4") for k, name in ((1, "a"), (2, "b"))]
    (tmp_path / "out").mkdir()
    manifest = export(archive=put(tmp_path / "timeless", timeless, terms))
    names = {Path(each.file).stem for each in manifest.exported}
    assert names == {f"unknown-000{k}_0000{n}" for k in (1, 2) for n in (0, 1)}


# What is left out -----------------------------------------------------------------------------------------------------
def test_clips_that_are_gone_or_changed_and_frames_that_do_not_decode_are_left_out_and_said(
    card: Path, terms: Terms, tmp_path: Path, export: Callable[..., Manifest]
) -> None:
    other = tmp_path / "other.mp4"
    other.write_bytes((card / "b.mp4").read_bytes())
    clips = [
        clip(1, BEGUN, looks(BEGUN, 7), path=card / "a.mp4"), clip(2, BEGUN + 60, looks(BEGUN + 60), path=other),
        clip(3, BEGUN + 120, looks(BEGUN + 120)),
    ]  # fmt: skip
    archive = put(tmp_path / "broken", clips, terms)
    other.write_bytes(b"something else")
    manifest = export(archive=archive, per_clip=0)
    assert {each.clip for each in manifest.exported} == {"0001"}
    assert manifest.left_out.undecodable == 2  # frames 75 and 90 of 61
    assert manifest.left_out.clips == {
        "/card/3.mp4": "/card/3.mp4 is not there any more; put its card or disk back where it was",
        str(other): f"another clip is at {other} now; `roadlens archive` indexes that one",
    }
    with pytest.raises(SourceError, match=r"no picture can be had: 2 clips are not to be read, and 0 frames .*; the"):
        export(archive=archive, where='clip != "0001"', to="none")
    assert not (tmp_path / "none").exists()


def test_a_card_that_is_pulled_out_ends_its_clip_alone(
    export: Callable[..., Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = looking.pictures_of

    def pulled(path: Path, numbers: Any) -> Iterator[Frame]:
        frames = whole(path, numbers)
        yield next(frames)
        if path.name == "a.mp4":
            raise OSError(5, "Input/output error")
        yield from frames

    monkeypatch.setattr(looking, "pictures_of", pulled)
    manifest = export(per_clip=0, where='clip != "0003"')
    assert sorted((each.clip, each.frame) for each in manifest.exported) == [
        ("0001", 0), *(("0002", number) for number in range(0, 75, EVERY)),
    ]  # fmt: skip
    ((path, reason),) = manifest.left_out.clips.items()
    assert (Path(path).name, reason) == ("a.mp4", "OSError: [Errno 5] Input/output error")


# What is refused ------------------------------------------------------------------------------------------------------
def test_what_is_there_is_never_written_over(export: Callable[..., Manifest], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"out is there, and not empty; name another folder"):
        export()
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file is no folder"):
        export(to="file")
    with pytest.raises(OutputError, match="cannot be written: not a directory"):
        export(to="file/below")


def test_of_an_archive_that_hides_faces_nothing_is_exported(
    card: Path, terms: Terms, tmp_path: Path, export: Callable[..., Manifest]
) -> None:
    hiding = msgspec.structs.replace(terms, options=terms.options | {"anonymize": {"people": ["class 1"]}})
    archive = put(tmp_path / "hiding", [clip(1, BEGUN, looks(BEGUN), path=card / "a.mp4")], hiding)
    with pytest.raises(UsageError, match="made with `anonymize`, and pictures of its clips would show what it hides"):
        export(archive=archive)
    assert left_behind(tmp_path) == []


@pytest.mark.seconds
@pytest.mark.parametrize(
    ("change", "wanted", "error", "says"),
    [
        ({"sha256": "ab" * 32}, {"models": ()}, ModelError, r"bits \(abababababab\), which does not come with"),
        ({"name": "cityscapes-unet"}, {"models": ()}, ModelError, r"cityscapes-unet \(\w+\), which is another one now"),
        ({}, {"models": ("SEGMENTER", "lead-vehicle")}, ModelError, r"lead-vehicle is none of the .* with bits \("),
        ({}, {"models": ("nobodys.onnx",)}, ModelError, "no model file nobodys.onnx"),
        ({}, {"second": "lead-vehicle"}, UsageError, "--second compares class maps, and lead-vehicle gives none"),
        ({}, {"second": "cityscapes-unet"}, UsageError, "in common with the archive's: road, .* there, class 0, "),
        ({}, {"where": "class_1 and"}, UsageError, "class_1 and"),
        ({}, {"where": "area.class_1 > 2"}, SourceError, "has no frame of which 'area.class_1 > 2' is true"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_and_leaves_nothing(
    change: dict[str, str], wanted: dict[str, Any], error: type[RoadlensError], says: str, card: Path, terms: Terms,
    segmenter: Path, tmp_path: Path, export: Callable[..., Manifest],
) -> None:  # fmt: skip
    (model,) = terms.models
    changed = msgspec.structs.replace(terms, models=(msgspec.structs.replace(model, **change),))
    archive = put(tmp_path / "changed", [clip(1, BEGUN, looks(BEGUN), path=card / "a.mp4")], changed)
    if "models" in wanted:
        wanted = wanted | {"models": tuple(str(segmenter) if m == "SEGMENTER" else m for m in wanted["models"])}
    with pytest.raises(error, match=says):
        export(archive=archive, **wanted)
    assert left_behind(tmp_path) == []


def test_models_without_a_class_map_give_boxes_and_no_png(
    card: Path, localizer: Path, tmp_path: Path, export: Callable[..., Manifest]
) -> None:
    terms = terms_of(Config(models=(ModelConfig(str(localizer), every=EVERY),)))
    rows = [FrameRow(k * EVERY, k * EVERY / RATE, None, {}, {}) for k in range(2)]
    told = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)  # a box and its score in each row: see `corners_model`
    told[:, 0], told[:, 1] = (51, 51, 204), (204, 230, 204)
    picture = cv2.resize(told, SIZE, interpolation=cv2.INTER_NEAREST)
    write_clip(tmp_path / "told.mp4", frames=16, fps=30, size=SIZE, pictures=[np.asarray(picture, np.uint8)] * 16)
    archive = put(tmp_path / "boxes", [clip(1, BEGUN, rows, path=tmp_path / "told.mp4")], terms)
    wanted = {"archive": archive, "models": (str(localizer),)}
    with pytest.raises(UsageError, match="cityscapes is a class for each pixel, and no model of this archive"):
        export(**wanted)
    with pytest.raises(UsageError, match="--second compares class maps, and no model of this archive gives one"):
        export(**wanted, format="coco", second="cityscapes-unet")
    manifest = export(**wanted, format="coco")
    content = json.loads((tmp_path / "out" / "annotations" / "instances_default.json").read_text())
    assert [each["name"] for each in content["categories"]] == ["class 0"]
    assert (len(content["images"]), len(manifest.exported), manifest.left_out.near_duplicates) == (1, 1, 1)
    (annotation,) = content["annotations"]
    assert annotation["bbox"] == pytest.approx([0.2 * 320, 0.2 * 180, 0.6 * 320, 0.6 * 180], abs=10)
    assert annotation["score"] == pytest.approx(0.9, abs=0.04)
    assert (annotation["segmentation"], annotation["iscrowd"], annotation["category_id"]) == ([], 0, 1)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_export_leaves_nothing(
    interruption: BaseException, archived: Archive, segmenter: Path, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []

    def tell(done: int, whole: int) -> None:
        told.append((done, whole))
        if done == 2:
            raise interruption

    wanted = Wanted("coco", models=(str(segmenter),), device="cpu")
    expected = KeyboardInterrupt if isinstance(interruption, KeyboardInterrupt) else OutputError
    with pytest.raises(expected) as raised:
        export_labels(archived, tmp_path / "out", wanted, tell=tell)
    if expected is OutputError:
        assert str(raised.value).endswith("out cannot be written: no space left on device")
    assert told == [(1, 15), (2, 15)]
    assert left_behind(tmp_path) == []


# The loop -------------------------------------------------------------------------------------------------------------
def test_what_is_corrected_by_hand_is_what_training_reads(export: Callable[..., Manifest], tmp_path: Path) -> None:
    manifest = export()
    name = Path(manifest.exported[0].file).stem
    path = tmp_path / "out" / "masks" / f"{name}.png"
    with Image.open(path) as image:
        label = np.array(image)
    label[10:20, 30:50] = 5
    Image.fromarray(label, "L").save(path)  # a tool that keeps no palette
    folder = open_folder(tmp_path / "out", "masks")
    assert [info.name for info in folder.legend.classes] == [f"class {k}" for k in range(8)]
    (item,) = (item for item in folder.items if item.name == f"images/{name}.jpg")
    np.testing.assert_array_equal(read_sample(folder, item).label, label)
