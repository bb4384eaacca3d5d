"""The reader of Oxford-IIIT Pet: what it makes of a whole folder, of the set's defects, and of a split."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines.errors import CheckFailed, SourceError
from engines.tools.pictures import file_format, read_picture
from tests.training.data.pet_folder import annotation, write_pet_folder
from training.data.inspection.oxford_pet import draw_contact_sheet, fetch, inspect, publish_split
from training.data.oxford_pet import (
    BREEDS,
    Pet,
    box_inside,
    list_pets,
    load_pets,
    read_split,
    split_pets,
    write_split,
)
from training.data.sets import data_set_in

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "oxford_iiit_pet"
FIRST = "Abyssinian_1"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pet_folder(tmp_path_factory.mktemp("pets"))


@pytest.fixture
def pets(pristine: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(pristine, tmp_path / "pets"))


def silent(_: str) -> None:
    pass


def test_a_whole_folder_is_read_without_a_complaint(pristine: Path) -> None:
    complaints: list[str] = []
    data = load_pets(pristine, "train", 32, 64, trimaps=True, say=complaints.append)
    assert complaints == []
    assert data.photos.shape == (len(data), 32, 64, 3)
    assert data.trimaps is not None
    assert set(np.unique(data.trimaps)) == {1, 2, 3}
    # The head fills its box: pet and border inside, background outside, whatever the size.
    for trimap, box in zip(data.trimaps[data.boxed], data.boxes[data.boxed], strict=True):
        rows, columns = np.nonzero(trimap != 2)
        drawn = np.array([columns.min() / 64, rows.min() / 32, (columns.max() + 1) / 64, (rows.max() + 1) / 32])
        assert np.abs(drawn - box).max() <= 1 / 32 + 1e-6
    assert {BREEDS[b] for b in data.breeds} == {"Abyssinian", "Bengal", "beagle"}
    assert [int(s) for s in data.species] == [int(BREEDS[b] == "beagle") for b in data.breeds]


def two_objects(root: Path) -> None:
    (root / "annotations/xmls" / f"{FIRST}.xml").write_text(annotation((0, 0, 5, 5), (10, 10, 30, 40)))


def no_object(root: Path) -> None:
    (root / "annotations/xmls" / f"{FIRST}.xml").write_text(annotation())


def no_numbers(root: Path) -> None:
    text = annotation((10, 10, 30, 40)).replace("<xmin>11</xmin>", "<xmin>left</xmin>")
    (root / "annotations/xmls" / f"{FIRST}.xml").write_text(text)


def endless(root: Path) -> None:
    text = annotation((10, 10, 30, 40)).replace("<xmax>30</xmax>", "<xmax>1e999</xmax>")
    (root / "annotations/xmls" / f"{FIRST}.xml").write_text(text)


def unknown_encoding(root: Path) -> None:
    text = '<?xml version="1.0" encoding="wild"?>' + annotation((10, 10, 30, 40))
    (root / "annotations/xmls" / f"{FIRST}.xml").write_text(text)


def cut_off_xml(root: Path) -> None:
    (root / "annotations/xmls" / f"{FIRST}.xml").write_text(annotation((10, 10, 30, 40))[:90])


def reaches_outside(root: Path) -> None:
    (root / "annotations/xmls" / f"{FIRST}.xml").write_text(annotation((40, 10, 120, 60)))


def lies_outside(root: Path) -> None:
    (root / "annotations/xmls" / f"{FIRST}.xml").write_text(annotation((90, 10, 120, 60)))


def absent_picture(root: Path) -> None:
    (root / "images/Bengal_9.jpg").unlink()


def unlisted_picture(root: Path) -> None:
    shutil.copy(root / "images/Bengal_9.jpg", root / "images/Bengal_99.jpg")


def wrong_species(root: Path) -> None:
    path = root / "annotations/list.txt"
    path.write_text(path.read_text().replace("beagle_1 3 2 3", "beagle_1 3 1 3"))


def unknown_breed(root: Path) -> None:
    shutil.copy(root / "images/Bengal_9.jpg", root / "images/mongrel_1.jpg")


DEFECTS: dict[str, tuple[Callable[[Path], None], str, tuple[float, ...] | None]] = {
    "two objects": (two_objects, "holds 2 objects; the largest is taken", (10 / 80, 10 / 60, 30 / 80, 40 / 60)),
    "no object": (no_object, "holds no object with a box", None),
    "no numbers": (no_numbers, "is not a readable annotation", None),
    "an endless box": (endless, "is not a readable annotation", None),
    "unknown encoding": (unknown_encoding, "is not a readable annotation", None),
    "cut-off XML": (cut_off_xml, "is not a readable annotation", None),
    "reaches outside": (reaches_outside, "reaches outside its picture", (40 / 80, 10 / 60, 1, 1)),
    "lies outside": (lies_outside, "reaches outside its picture", None),
    "absent picture": (absent_picture, "names 1 pictures that are not there: Bengal_9", ()),
    "unlisted picture": (unlisted_picture, "1 pictures stand in no list", ()),
    "wrong species": (wrong_species, "gives another species than the name says to beagle_1", ()),
    "unknown breed": (unknown_breed, "does not begin with one of the set's 37 breeds", ()),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_of_the_set_is_named_and_stops_nothing(pets: Path, defect: str) -> None:
    damage, sentence, box = DEFECTS[defect]
    damage(pets)
    complaints: list[str] = []
    parts = {pet.name: "fit" for pet in list_pets(pets, silent)}
    write_split(pets / "split.txt", parts)  # type: ignore[arg-type]  # a str is what a Part is
    data = load_pets(pets, "fit", 32, 32, split_file=pets / "split.txt", say=complaints.append)
    assert any(sentence in complaint for complaint in complaints), complaints
    if box != ():
        found = data.boxes[data.names.index(FIRST)]
        assert np.isnan(found).all() if box is None else found == pytest.approx(box)
    assert any(sentence in note for note in inspect(pets).notes)


@pytest.mark.parametrize("suffix", [".gif", ".png"])
def test_a_picture_is_read_as_what_it_is(pets: Path, suffix: str) -> None:
    path = pets / "images" / f"{FIRST}.jpg"
    picture = read_picture(path)
    shown = (
        picture[..., ::-1] if suffix == ".gif" else np.dstack([picture[..., ::-1], np.full((60, 80), 128, np.uint8)])
    )
    done, data = cv2.imencode(suffix, shown)
    if not done:
        pytest.skip("this OpenCV writes no GIF")
    path.write_bytes(data.tobytes())
    assert file_format(path.read_bytes()) == suffix[1:].upper()
    again = read_picture(path).astype(int)
    assert again.shape == (60, 80, 3)
    assert np.abs(again - picture).mean() < 25  # OpenCV writes a GIF in 256 colours: steps of 36 and 85
    assert any(f"is a {suffix[1:].upper()}, whatever its name says" in note for note in inspect(pets).notes)


BROKEN = {
    "cut off": lambda data: data[: len(data) // 3],
    "empty": lambda data: b"",
    "text": lambda data: b"<html>not found</html>",
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_picture_is_refused_or_left_out(pets: Path, how: str) -> None:
    path = pets / "images" / f"{FIRST}.jpg"
    path.write_bytes(BROKEN[how](path.read_bytes()))
    split = split_pets(list_pets(pets, silent))[FIRST]
    with pytest.raises(SourceError, match="is not a whole picture"):
        load_pets(pets, split, 32, 32, say=silent)
    complaints: list[str] = []
    assert FIRST not in load_pets(pets, split, 32, 32, skip_broken=True, say=complaints.append).names
    assert any("left out" in complaint and FIRST in complaint for complaint in complaints)
    with pytest.raises(CheckFailed, match="1 files"):
        inspect(pets).raise_if_bad(pets)


def test_a_trimap_of_other_values_is_refused(pets: Path) -> None:
    cv2.imwrite(str(pets / "annotations/trimaps" / f"{FIRST}.png"), np.full((60, 80), 7, np.uint8))
    split = split_pets(list_pets(pets, silent))[FIRST]
    with pytest.raises(SourceError, match="is not a trimap"):
        load_pets(pets, split, 32, 32, trimaps=True, say=silent)


@pytest.mark.parametrize("absent", ["images", "annotations"])
def test_another_folder_is_refused(pets: Path, absent: str) -> None:
    shutil.rmtree(pets / absent)
    with pytest.raises(SourceError, match=f"has no folder {absent}/"):
        list_pets(pets, silent)


# The split -----------------------------------------------------------------------------------------------------------


def made_up(each: int, boxes: int) -> list[Pet]:
    return [
        Pet(f"{BREEDS[breed]}_{n}", breed, Path("x"), (0, 0, 1, 1) if n < boxes else None, None)
        for breed in range(3)
        for n in range(each)
    ]


def test_every_breed_is_divided_alike_with_and_without_a_box() -> None:
    pets = made_up(200, 80)
    parts = split_pets(pets)
    for breed in range(3):
        for boxed in (True, False):
            own = Counter(parts[p.name] for p in pets if p.breed == breed and (p.box is not None) == boxed)
            total = own.total()
            assert own["val"] == round(0.3 * total)
            assert own["dev"] == round(0.2 * (total - own["val"]))


def test_the_split_hangs_on_names_and_seed_only() -> None:
    pets = made_up(40, 10)
    assert split_pets(pets) == split_pets(pets[::-1])
    assert split_pets(pets, seed=1) != split_pets(pets)


def test_a_breed_with_one_picture_is_trained_on_and_said(pets: Path) -> None:
    for path in sorted((pets / "images").glob("beagle_*.jpg"))[1:]:
        path.unlink()
    parts = split_pets(list_pets(pets, silent))
    assert [part for name, part in parts.items() if name.startswith("beagle")] == ["fit"]
    assert any("beagle has a single picture" in note for note in inspect(pets).notes)


def test_a_split_is_published_as_a_list(tmp_path: Path) -> None:
    parts = split_pets(made_up(20, 5))
    write_split(tmp_path / "split.txt", parts)
    assert read_split(tmp_path / "split.txt") == parts


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Abyssinian_1 test\n", r"split\.txt:1: .*fit, dev or val"),
        ("Abyssinian_1\n", r"split\.txt:1: "),
        ("Abyssinian_1 fit\nAbyssinian_1 val\n", "stands there twice"),
        (None, "cannot be read"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path: Path, text: str | None, sentence: str) -> None:
    path = tmp_path / "split.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SourceError, match=sentence):
        read_split(path)


def test_a_list_that_names_absent_pictures_is_used_and_said(pets: Path) -> None:
    path = pets / "split.txt"
    path.write_text("Abyssinian_1 fit\nAbyssinian_2 val\nAbyssinian_777 fit\n")
    complaints: list[str] = []
    assert load_pets(pets, "fit", 32, 32, split_file=path, say=complaints.append).names == ("Abyssinian_1",)
    assert any("1 pictures that are not there: Abyssinian_777" in complaint for complaint in complaints)
    with pytest.raises(SourceError, match="no picture belongs to dev"):
        load_pets(pets, "dev", 32, 32, split_file=path, say=silent)


@pytest.mark.parametrize(
    ("box", "inside", "cut"),
    [
        ((0, 0, 80, 60), (0, 0, 1, 1), False),
        ((20, 15, 40, 30), (0.25, 0.25, 0.5, 0.5), False),
        ((-8, 0, 40, 30), (0, 0, 0.5, 0.5), True),
        ((80, 0, 90, 30), None, True),
    ],
)
def test_a_box_is_cut_at_its_picture(
    box: tuple[int, int, int, int], inside: tuple[float, ...] | None, cut: bool
) -> None:  # fmt: skip
    found, was_cut = box_inside(box, height=60, width=80)
    assert was_cut == cut
    assert found is None if inside is None else found == pytest.approx(inside)


# Looking over --------------------------------------------------------------------------------------------------------


def test_the_check_counts_breeds_and_boxes(pristine: Path) -> None:
    report = inspect(pristine)
    assert {name: (b.species, b.pictures, b.boxes) for name, b in report.breeds.items()} == {
        "Abyssinian": ("cat", 10, 6), "Bengal": ("cat", 10, 6), "beagle": ("dog", 10, 6)
    }  # fmt: skip
    assert report.notes == report.broken == ()
    assert 0.199 <= report.boxes["width"].least <= report.boxes["width"].greatest <= 36 / 80
    assert "| beagle | dog | 10 |" in report.markdown()
    report.raise_if_bad(pristine)


def test_the_sheet_shows_pictures_of_a_split(pristine: Path) -> None:
    sheet = draw_contact_sheet(pristine, "val", 8, columns=4)
    assert sheet.shape == (2 * 214, 4 * 196, 3)
    assert (sheet == (60, 220, 60)).all(-1).any()  # a box


def test_the_split_command_writes_what_the_seed_gives(pristine: Path, tmp_path: Path) -> None:
    path = tmp_path / "split.txt"
    counts = publish_split(pristine, path, seed=3)
    assert read_split(path) == split_pets(list_pets(pristine, silent), seed=3)
    assert sum(counts.values()) == 30


def test_the_set_is_found_by_its_layout(pristine: Path, pets: Path) -> None:
    assert data_set_in(pristine).NAME == "oxford-iiit-pet"
    shutil.rmtree(pets / "images")
    with pytest.raises(SourceError, match="none of the data sets that are known"):
        data_set_in(pets)


def test_a_download_that_fails_is_said_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the port where nobody listens
    with pytest.raises(SourceError, match="Oxford-IIIT Pet could not be downloaded"):
        fetch(tmp_path)


@pytest.mark.realdata
def test_the_real_set_is_read_with_its_defects() -> None:
    if not REAL.is_dir():
        pytest.skip("the development data are not beside the checkout")
    complaints: list[str] = []
    pets = list_pets(REAL, complaints.append)
    assert (len(pets), sum(pet.box is not None for pet in pets)) == (541, 237)
    assert any("Bengal_105.xml holds 2 objects" in complaint for complaint in complaints)
    by_name = {pet.name: pet for pet in pets}
    for name, kind in (("Abyssinian_34", "GIF"), ("Abyssinian_5", "PNG")):
        assert file_format(by_name[name].image.read_bytes()) == kind
        assert read_picture(by_name[name].image).ndim == 3
