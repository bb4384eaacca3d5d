"""Looking over an Oxford-IIIT Pet folder: what is there, what is wrong with it, and pictures with their boxes."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.errors import CheckFailed, SourceError, UsageError
from engines.tools.pictures import file_format
from training.data.oxford_pet import (
    BREEDS,
    SPECIES,
    Partition,
    Pet,
    Split,
    box_inside,
    choose,
    list_pets,
    read_photo,
    read_trimap,
    split_pets,
    squash,
    write_split,
)

UInt8 = NDArray[np.uint8]

NAME = "oxford-iiit-pet"
SPLITS: tuple[Split, ...] = ("train", "fit", "dev", "val")

_SIDE = 192
_CAPTION = 18
_BOX_COLOR = (60, 220, 60)
_PET_COLOR = np.array([255, 120, 0], np.float32)


class BreedReport(msgspec.Struct, frozen=True):
    """One breed: its pictures, how many have a box or a trimap, and how many are in each part of the split."""

    species: str
    pictures: int
    boxes: int
    trimaps: int
    parts: dict[str, int]


class BoxReport(msgspec.Struct, frozen=True):
    """A measure of the boxes, as a share of the picture's: its least, quartiles and greatest value."""

    least: float
    quarter: float
    median: float
    three_quarters: float
    greatest: float


class Report(msgspec.Struct, frozen=True):
    """What `roadlens data check` found.

    Attributes:
        breeds: by name.
        boxes: measures of the heads' boxes: width, height, area, and the middle's x and y; empty without a box.
        notes: one sentence for each thing that is not as it should be and stops nothing.
        broken: one for each file that cannot be used.
    """

    breeds: dict[str, BreedReport]
    boxes: dict[str, BoxReport]
    notes: tuple[str, ...]
    broken: tuple[str, ...]

    def markdown(self) -> str:
        """The report as a page."""
        every = self.breeds.values()
        total, boxed = sum(b.pictures for b in every), sum(b.boxes for b in every)
        counts = f"{total} pictures of {len(self.breeds)} breeds, {boxed} with a box, {len(self.broken)} files broken"
        lines = [
            f"## Oxford-IIIT Pet: {counts}",
            "",
            "| breed | species | pictures | share | boxes | trimaps | fit | dev | val |",
            "|---|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for name, breed in self.breeds.items():
            parts = " | ".join(str(breed.parts.get(part, 0)) for part in ("fit", "dev", "val"))
            lines.append(
                f"| {name} | {breed.species} | {breed.pictures} | {breed.pictures / total:.1%} | {breed.boxes} | "
                f"{breed.trimaps} | {parts} |"
            )
        if self.boxes:
            lines += ["", "| head boxes | least | 25 % | median | 75 % | greatest |", "|---|---:|---:|---:|---:|---:|"]
            for name, box in self.boxes.items():
                values = (box.least, box.quarter, box.median, box.three_quarters, box.greatest)
                lines.append(f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
        if self.notes or self.broken:
            lines += ["", *(f"- {sentence}" for sentence in (*self.notes, *self.broken))]
        return "\n".join(lines) + "\n"

    def raise_if_bad(self, folder: Path) -> None:
        """Raise CheckFailed where a file cannot be used, SourceError where a part of the split has no picture."""
        if self.broken:
            raise CheckFailed(
                f"{len(self.broken)} files of {folder} cannot be used (named above); fetch them again, or leave them "
                "out with --skip-broken"
            )
        pets = list_pets(folder, lambda _: None)
        for part in ("fit", "dev", "val"):
            choose(
                pets, part, split_pets(pets), lambda _: None
            )  # training and report want all, and say what is missing


def recognises(folder: Path) -> bool:
    """Whether the folder is laid out like the set: pictures beside annotations with boxes or trimaps."""
    annotations = folder / "annotations"
    return (folder / "images").is_dir() and any((annotations / part).is_dir() for part in ("xmls", "trimaps"))


def fetch(folder: Path) -> Path:
    """Download the whole set (about 800 MB, with checksums) into `folder`, through torchvision.

    Returns:
        The folder that holds images/ and annotations/.

    Raises:
        UsageError: torchvision is not installed.
        SourceError: the download failed, or what came is not the set.
    """
    if find_spec("torchvision") is None:
        raise UsageError("fetching the pets needs torchvision; install it with: pip install '.[train]'")
    from torchvision.datasets import OxfordIIITPet

    try:
        OxfordIIITPet(str(folder), download=True)
    except (OSError, RuntimeError) as error:  # urllib's errors are OSErrors; a wrong checksum is a RuntimeError
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SourceError(
            f"Oxford-IIIT Pet could not be downloaded ({reason[:160]}); check the network and the room on the disk, or "
            f"unpack images.tar.gz and annotations.tar.gz of robots.ox.ac.uk/~vgg/data/pets into {folder}"
        ) from None
    root = folder / "oxford-iiit-pet"
    list_pets(root, lambda _: None)
    return root


def publish_split(folder: Path, path: Path, seed: int) -> dict[str, int]:
    """Write which picture belongs to which part as a list, which `split_file` of a recipe takes.

    Returns:
        How many pictures each part has.

    Raises:
        SourceError: the folder is not the set.
        OutputError: the file cannot be written.
    """
    parts = split_pets(list_pets(folder, lambda _: None), seed)
    write_split(path, parts)
    return dict(Counter(parts.values()))


def inspect(folder: Path) -> Report:
    """Read every picture, box and trimap.

    Raises:
        SourceError: the folder is not the set.
    """
    notes: list[str] = []
    broken: list[str] = []
    pets = list_pets(folder, notes.append)
    parts = split_pets(pets)
    sizes: list[NDArray[np.float64]] = []
    for pet in pets:
        try:
            height, width = read_photo(pet).shape[:2]
            if pet.trimap is not None and (shape := read_trimap(pet.trimap).shape) != (height, width):
                notes.append(f"{pet.trimap} is {shape[1]}×{shape[0]}, its picture {width}×{height}; it is stretched")
        except SourceError as error:
            broken.append(str(error))
            continue
        with pet.image.open("rb") as file:
            kind = file_format(file.read(8))
        if kind != "JPEG":
            notes.append(f"{pet.image} is a {kind}, whatever its name says; it is read as what it is")
        if pet.box is None:
            continue
        box, cut = box_inside(pet.box, height, width)
        if cut:
            done = "it is left out" if box is None else "it is cut there"
            notes.append(f"the box of {pet.image} reaches outside its picture of {width}×{height}; {done}")
        if box is not None:
            sizes.append(box.astype(np.float64))
    breeds = {BREEDS[breed]: _breed(pets, parts, breed) for breed in sorted({pet.breed for pet in pets})}
    notes += [
        f"{name} has a single picture, which can only be trained on: nothing is held out of it"
        for name, breed in breeds.items()
        if breed.pictures == 1
    ]
    return Report(breeds, _box_statistics(sizes), tuple(notes), tuple(broken))


def _breed(pets: list[Pet], parts: Partition, breed: int) -> BreedReport:
    own = [pet for pet in pets if pet.breed == breed]
    return BreedReport(
        species=SPECIES[own[0].species],
        pictures=len(own),
        boxes=sum(pet.box is not None for pet in own),
        trimaps=sum(pet.trimap is not None for pet in own),
        parts=dict(Counter(parts[pet.name] for pet in own)),
    )


def _box_statistics(boxes: list[NDArray[np.float64]]) -> dict[str, BoxReport]:
    if not boxes:
        return {}
    left, top, right, bottom = np.array(boxes).T
    width, height = right - left, bottom - top
    measures = {
        "width": width, "height": height, "area": width * height, "middle x": left + width / 2,
        "middle y": top + height / 2,
    }  # fmt: skip
    return {
        name: BoxReport(*(float(q) for q in np.percentile(values, [0, 25, 50, 75, 100])))
        for name, values in measures.items()
    }


def draw_contact_sheet(folder: Path, split: Split, number: int, columns: int = 6) -> UInt8:
    """Pictures spread evenly over a split, squashed as the network sees them, with head box and trimap's foreground.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        SourceError: the folder is not the set, the split is empty, or a file cannot be read.
    """
    pets = list_pets(folder, lambda _: None)
    own = choose(pets, split, split_pets(pets))
    chosen = [own[i] for i in np.unique(np.linspace(0, len(own) - 1, min(number, len(own))).round().astype(int))]
    tiles = [_tile(pet) for pet in chosen]
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    return np.concatenate(rows, axis=0)


def _tile(pet: Pet) -> UInt8:
    photo = read_photo(pet)
    tile = squash(photo, _SIDE, _SIDE)
    if pet.trimap is not None:
        trimap = squash(read_trimap(pet.trimap), _SIDE, _SIDE, cv2.INTER_NEAREST_EXACT)
        border = (trimap == 3)[..., None]
        tile = np.where(border, 0.4 * tile + 0.6 * _PET_COLOR, tile).astype(np.uint8)
    box = box_inside(pet.box, *photo.shape[:2])[0] if pet.box is not None else None
    if box is not None:
        left, top, right, bottom = (round(float(edge) * _SIDE) for edge in box)
        cv2.rectangle(tile, (left, top), (right - 1, bottom - 1), _BOX_COLOR, 2)
    framed = np.full((_SIDE + _CAPTION + 4, _SIDE + 4, 3), 255, np.uint8)
    framed[_CAPTION : _CAPTION + _SIDE, :_SIDE] = tile
    place = (2, _CAPTION - 5)
    cv2.putText(framed, pet.name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (40, 40, 40), 1, cv2.LINE_AA)
    return framed
