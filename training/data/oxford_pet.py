"""The Oxford-IIIT Pet set in its original layout (Parkhi et al. 2012): cats and dogs of 37 breeds.

    images/<name>.jpg                 name = breed, underscore, number; a cat's breed begins with a capital letter
    annotations/list.txt …            one picture a line: name, class id, species (1 cat, 2 dog), breed id
    annotations/xmls/<name>.xml       the head's box (PASCAL VOC), for pictures of `trainval` only
    annotations/trimaps/<name>.png    1 the pet, 2 what is behind it, 3 the border between them, which is nobody's

What a folder holds is read off its files: a picture's name says breed and species. The lists are compared with it.
The set has defects, and parts of it are in use; each is named in a sentence, and none of them stops a run.
"""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import SourceError
from engines.tools.pictures import is_file, is_folder, listed, read_ids, read_picture, require_known_ids
from training.data.nesting import lies_below
from training.files import write_file

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]

CAT_BREEDS = (
    "Abyssinian", "Bengal", "Birman", "Bombay", "British_Shorthair", "Egyptian_Mau", "Maine_Coon", "Persian",
    "Ragdoll", "Russian_Blue", "Siamese", "Sphynx",
)  # fmt: skip
DOG_BREEDS = (
    "american_bulldog", "american_pit_bull_terrier", "basset_hound", "beagle", "boxer", "chihuahua",
    "english_cocker_spaniel", "english_setter", "german_shorthaired", "great_pyrenees", "havanese", "japanese_chin",
    "keeshond", "leonberger", "miniature_pinscher", "newfoundland", "pomeranian", "pug", "saint_bernard", "samoyed",
    "scottish_terrier", "shiba_inu", "staffordshire_bull_terrier", "wheaten_terrier", "yorkshire_terrier",
)  # fmt: skip
BREEDS = CAT_BREEDS + DOG_BREEDS
"""All 37; a breed's class id is its place here."""

SPECIES = ("cat", "dog")

HELD_OUT = 0.3
"""Share of every breed's pictures that is kept for the report (`val`)."""

DEV = 0.2
"""Share of the rest on which epochs and settings are chosen (`dev`)."""

Part = Literal["fit", "dev", "val"]
Split = Literal["fit", "dev", "train", "val"]
Partition = Mapping[str, Part]
"""Which part each picture belongs to, by its name."""


@dataclass(frozen=True)
class Pet:
    """A picture of the set.

    Attributes:
        name: without a suffix.
        breed: its place in `BREEDS`.
        image: the picture's file.
        box: of the head: left, top, right, bottom in pixels, right and bottom exclusive; None where there is none. It
            may reach outside the picture; see `box_inside`.
        trimap: its file, or None.
    """

    name: str
    breed: int
    image: Path
    box: tuple[int, int, int, int] | None
    trimap: Path | None

    @property
    def species(self) -> int:
        """Its place in `SPECIES`."""
        return species_of(self.breed)


def species_of(breed: int) -> int:
    """The place in `SPECIES` of a breed by its place in `BREEDS`."""
    return int(breed >= len(CAT_BREEDS))


# The files -----------------------------------------------------------------------------------------------------------


def list_pets(root: Path, say: Callable[[str], None] = print) -> list[Pet]:
    """The pictures of a folder, by name.

    Args:
        root: with `images/` and `annotations/`.
        say: gets one sentence for each thing that is not as it should be.

    Raises:
        SourceError: `root` is not the set, or holds no picture of it.
    """
    images, annotations = root / "images", root / "annotations"
    if not is_folder(images) or not is_folder(annotations):
        absent = images if not is_folder(images) else annotations
        below = lies_below(root, lambda path: all(is_folder(path / part) for part in ("images", "annotations")))
        mend = below or "; unpack images.tar.gz and annotations.tar.gz there"
        raise SourceError(f"{root} is not the Oxford-IIIT Pet set: it has no folder {absent.name}/{mend}")
    pets = []
    for path in listed(images):
        if path.suffix.lower() != ".jpg":
            continue
        breed = path.stem.rpartition("_")[0]
        if breed not in BREEDS:
            say(f"{path} is left out: its name does not begin with one of the set's 37 breeds")
            continue
        box, complaint = read_box(annotations / "xmls" / f"{path.stem}.xml")
        if complaint:
            say(complaint)
        trimap = annotations / "trimaps" / f"{path.stem}.png"
        pets.append(Pet(path.stem, BREEDS.index(breed), path, box, trimap if is_file(trimap) else None))
    if not pets:
        raise SourceError(f"{images} holds no picture named after a breed, such as Abyssinian_1.jpg; is it the set?")
    for sentence in compare_lists(annotations, {pet.name for pet in pets}):
        say(sentence)
    return pets


def read_box(path: Path) -> tuple[tuple[int, int, int, int] | None, str | None]:
    """The head's box in an XML file: left, top, right, bottom in pixels, right and bottom exclusive.

    PASCAL VOC counts pixels from 1 and means the last one, too. Of several objects the largest is taken.

    Returns:
        The box, or None where the file is missing or holds none; and what is wrong with the file, or None.
    """
    try:
        if not path.exists():
            return None, None
        objects = ET.parse(path).getroot().findall("object")  # noqa: S314 - a local file of a known set; expat is bounded
        boxes = [
            (number("xmin") - 1, number("ymin") - 1, number("xmax"), number("ymax"))
            for number in (_reader(found) for found in objects)
        ]
    except (ET.ParseError, ValueError, OverflowError, LookupError, OSError) as error:  # LookupError: of its encoding
        return None, f"{path} is not a readable annotation ({error}); the picture counts as one without a box"
    whole = [box for box in boxes if box[2] > box[0] and box[3] > box[1]]
    if not whole:
        return None, f"{path} holds no object with a box; the picture counts as one without"
    best = max(whole, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
    return best, f"{path} holds {len(boxes)} objects; the largest is taken" if len(boxes) > 1 else None


def _reader(found: ET.Element) -> Callable[[str], int]:
    def number(tag: str) -> int:
        text = found.findtext(f"bndbox/{tag}")
        if text is None:
            raise ValueError(f"an object has no bndbox/{tag}")
        return round(float(text))

    return number


def compare_lists(annotations: Path, present: Collection[str]) -> list[str]:
    """What `list.txt`, `trainval.txt` and `test.txt` say that the folder's pictures do not: sentences.

    Args:
        annotations: the folder with the lists; those that are missing are passed over.
        present: names of the pictures that are there.
    """
    sentences, listed = [], set[str]()
    for path in (annotations / name for name in ("list.txt", "trainval.txt", "test.txt")):
        try:
            lines = path.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            continue
        except OSError as error:
            sentences.append(f"{path} cannot be read ({error.strerror}) and is passed over")
            continue
        absent, wrong = [], []
        for line in lines:
            if not line.strip() or line.startswith("#"):
                continue
            name, *rest = line.split()
            listed.add(name)
            if name not in present:
                absent.append(name)
            elif len(rest) > 1 and rest[1] != ("1" if name[0].isupper() else "2"):
                wrong.append(name)
        if absent:
            sentences.append(f"{path} names {len(absent)} pictures that are not there: {_few(absent)}")
        if wrong:
            sentences.append(f"{path} gives another species than the name says to {_few(wrong)}; the name is believed")
    if listed and (spare := sorted(set(present) - listed)):
        sentences.append(f"{len(spare)} pictures stand in no list of {annotations}: {_few(spare)}; they are used")
    return sentences


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")


def read_photo(pet: Pet) -> UInt8:
    """Its picture, (H, W, 3) uint8 RGB, not turned: boxes and trimaps are drawn on the pixels as they are stored.

    Raises:
        SourceError: see `engines.tools.pictures.read_picture`.
    """
    return read_picture(pet.image, upright=False)


def read_trimap(path: Path) -> UInt8:
    """A trimap as (H, W) uint8: 1 pet, 2 background, 3 border.

    Raises:
        SourceError: the file cannot be read, or holds other values.
    """
    trimap = read_ids(path)
    require_known_ids(path, trimap, (1, 2, 3), "it is not a trimap, which has 1 (pet), 2 (background) and 3 (border)")
    return trimap


def box_inside(box: tuple[int, int, int, int], height: int, width: int) -> tuple[Float32 | None, bool]:
    """A box in fractions of its picture: (4,) float32 xyxy, None where it lies outside; and whether it was cut."""
    left, top, right, bottom = box
    cut = (max(left, 0), max(top, 0), min(right, width), min(bottom, height))
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        return None, True
    return (np.array(cut) / np.array([width, height, width, height])).astype(np.float32), cut != box


# The split -----------------------------------------------------------------------------------------------------------


def split_pets(pets: Iterable[Pet], seed: int = 0) -> dict[str, Part]:
    """Divide pictures by name: of every breed, with and without a box, 30 % `val` and a fifth of the rest `dev`.

    The order within a breed is that of a hash of seed and name, so that neither the machine nor the library's version
    nor the order of files changes it. Of a single picture of its kind `fit` has it.
    """
    groups: dict[tuple[int, bool], list[str]] = defaultdict(list)
    for pet in pets:
        groups[pet.breed, pet.box is not None].append(pet.name)
    parts: dict[str, Part] = {}
    for names in groups.values():
        order = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
        held = round(HELD_OUT * len(order)) if len(order) > 1 else 0
        dev = held + (round(DEV * (len(order) - held)) if len(order) - held > 1 else 0)
        for i, name in enumerate(order):
            parts[name] = "val" if i < held else "dev" if i < dev else "fit"
    return parts


def write_split(path: Path, parts: Partition) -> None:
    """Write a split as a list: a name and its part a line.

    Raises:
        OutputError: the file cannot be written.
    """
    lines = ["# name part (train is fit and dev; val is for the report only)"]
    lines += [f"{name} {part}" for name, part in sorted(parts.items())]
    write_file(path, ("\n".join(lines) + "\n").encode())


def read_split(path: Path) -> dict[str, Part]:
    """Read a list that `write_split` wrote.

    Raises:
        SourceError: the file cannot be read, a line is not a name and a part, or a name stands there twice.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read ({error}); give a list of `roadlens data split`") from None
    parts: dict[str, Part] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        words = line.split()
        if len(words) != 2 or words[1] not in ("fit", "dev", "val"):
            raise SourceError(f"{path}:{number}: {line!r} is not a picture's name and fit, dev or val")
        if words[0] in parts:
            raise SourceError(f"{path}:{number}: {words[0]} stands there twice; a picture belongs to one part")
        parts[words[0]] = cast("Part", words[1])
    return parts


def choose(pets: list[Pet], split: Split, parts: Partition, say: Callable[[str], None] = print) -> list[Pet]:
    """The pictures of a split; `train` is `fit` and `dev`.

    Args:
        pets: of the folder.
        split: wanted.
        parts: what belongs where; a picture that it does not name is left out, one that is not there is named to `say`.
        say: gets the sentences.

    Raises:
        SourceError: no picture belongs to it.
    """
    wanted = ("fit", "dev") if split == "train" else (split,)
    present = {pet.name for pet in pets}
    if absent := sorted(set(parts) - present):
        say(f"the split names {len(absent)} pictures that are not there: {_few(absent)}")
    if unknown := sorted(present - set(parts)):
        say(f"{len(unknown)} pictures stand in no part of the split and are left out: {_few(unknown)}")
    chosen = [pet for pet in pets if parts.get(pet.name) in wanted]
    if not chosen:
        raise SourceError(f"no picture belongs to {split}; the set is too small to be split, or the list is another's")
    return chosen


# In memory -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pets:
    """A split held in memory, every picture squashed to one size.

    Attributes:
        photos: (N, H, W, 3) uint8 RGB.
        names: of the pictures.
        breeds: (N,) int64, places in `BREEDS`.
        boxes: (N, 4) float32, xyxy as fractions, right and bottom exclusive; NaN where there is none.
        trimaps: (N, H, W) uint8, 1 pet, 2 background, 3 border; None where they were not asked for.
        protocol: where pictures and truth come from, for people.
    """

    photos: UInt8
    names: tuple[str, ...]
    breeds: NDArray[np.int64]
    boxes: Float32
    trimaps: UInt8 | None
    protocol: str

    def __len__(self) -> int:
        return len(self.names)

    @property
    def species(self) -> NDArray[np.int64]:
        """(N,) int64, places in `SPECIES`."""
        return (self.breeds >= len(CAT_BREEDS)).astype(np.int64)

    @property
    def boxed(self) -> NDArray[np.bool_]:
        """(N,) whether a picture has a box."""
        known: NDArray[np.bool_] = np.isfinite(self.boxes[:, 0])
        return known


def load_pets(
    root: Path, split: Split, height: int, width: int, *, seed: int = 0, split_file: Path | None = None,
    trimaps: bool = False, skip_broken: bool = False, say: Callable[[str], None] = print,
) -> Pets:  # fmt: skip
    """Read a split into memory, each picture resized once (200 KB at 256×256).

    Args:
        root: of the set.
        split: of it.
        height, width: that pictures and trimaps are squashed to.
        seed: of the split.
        split_file: a list of `write_split` in place of the seed.
        trimaps: whether they are wanted; pictures without one are left out then.
        skip_broken: leave out what cannot be used, and name it to `say`, in place of raising.
        say: gets one sentence for each thing that is not as it should be.

    Raises:
        SourceError: not the set, or a file that cannot be used.
    """
    pets = list_pets(root, say)
    parts = split_pets(pets, seed) if split_file is None else read_split(split_file)
    chosen = choose(pets, split, parts, say)
    if trimaps:
        chosen = [pet for pet in chosen if pet.trimap is not None]
        if not chosen:
            raise SourceError(f"{root} has no trimaps of {split}; unpack annotations.tar.gz there")
    photos = np.empty((len(chosen), height, width, 3), np.uint8)
    masks = np.empty((len(chosen), height, width), np.uint8) if trimaps else None
    boxes = np.full((len(chosen), 4), np.nan, np.float32)
    kept: list[Pet] = []
    for pet in chosen:
        place = len(kept)
        try:
            photo = read_photo(pet)
            if masks is not None and pet.trimap is not None:
                masks[place] = squash(read_trimap(pet.trimap), height, width, cv2.INTER_NEAREST_EXACT)
        except SourceError as error:
            if not skip_broken:
                raise
            say(f"left out: {error}")
            continue
        photos[place] = squash(photo, height, width)
        if pet.box is not None:
            box, cut = box_inside(pet.box, *photo.shape[:2])
            if cut:
                done = "it is left out" if box is None else "it is cut there"
                say(f"the box of {pet.image} reaches outside its picture; {done}")
            boxes[place] = np.nan if box is None else box
        kept.append(pet)
    if not kept:
        raise SourceError(f"none of the {len(chosen)} pictures of {root} ({split}) can be used")
    number = len(kept)
    origin = f"list {split_file.name}" if split_file is not None else f"seed {seed}"
    return Pets(
        photos[:number], tuple(pet.name for pet in kept), np.array([pet.breed for pet in kept], np.int64),
        boxes[:number], None if masks is None else masks[:number],
        protocol=f"Oxford-IIIT Pet, 70:30 by picture and breed ({origin}), pictures squashed to {width}×{height}",
    )  # fmt: skip


def squash(picture: UInt8, height: int, width: int, interpolation: int | None = None) -> UInt8:
    """A picture at another size, its sides scaled each for itself; by area where it shrinks, else bilinear."""
    if interpolation is None:
        shrinks = picture.shape[0] > height or picture.shape[1] > width
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(picture, (width, height), interpolation=interpolation).astype(np.uint8, copy=False)
