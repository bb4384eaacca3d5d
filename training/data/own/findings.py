"""What is wrong with somebody's labelled pictures, found by reading each of them as training would."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import cv2
import msgspec
import numpy as np

from engines.classes import IGNORE
from engines.errors import CheckFailed, SourceError
from training.data.own.folder import Folder, Item, Kind, Sample, open_folder, read_sample

SAME = 5
"""Two pictures of two parts whose 16×16 thumbnails differ by less than so many levels in the mean are shown as one."""

RARE = 3
"""A class on fewer pictures of train than this is told of."""

_SIDE = 16


class PartFindings(msgspec.Struct, frozen=True):
    """One part: its pictures, trips, sizes (width×height → pictures), and classes.

    `shares` is a class's share of the labelled pixels, or of the boxes; `pictures_with` the number of pictures with it.
    """

    pictures: int
    trips: int
    sizes: dict[str, int]
    ignored: float
    shares: dict[str, float]
    pictures_with: dict[str, int]


class Findings(msgspec.Struct, frozen=True):
    """What `roadlens data check` found.

    Attributes:
        form: of the truth.
        classes: by name, with how labels say them.
        said: how classes, trips and parts were made out.
        parts: by name.
        notes: one sentence for each thing that is odd and stops nothing.
        broken: one for each picture that cannot be used.
        leaks: pictures that are in two parts, or look as if they were.
    """

    form: str
    classes: str
    said: tuple[str, ...]
    parts: dict[str, PartFindings]
    notes: tuple[str, ...]
    broken: tuple[str, ...]
    leaks: tuple[str, ...]

    def markdown(self) -> str:
        """The findings as a page."""
        lines = [f"## {self.form}", "", f"- classes: {self.classes}", *(f"- {sentence}" for sentence in self.said), ""]
        parts = list(self.parts)
        lines += [f"| class | {' | '.join(parts)} |", "|---" + "|---:" * len(parts) + "|"]
        names = list(next(iter(self.parts.values())).shares) if parts else []
        for name in names:
            cells = [f"{self.parts[p].shares[name]:.2%} on {self.parts[p].pictures_with[name]}" for p in parts]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
        for name, part in self.parts.items():
            sizes = ", ".join(f"{count} of {size}" for size, count in part.sizes.items())
            ignored = f"; {part.ignored:.1%} of the pixels ignored" if part.ignored else ""
            lines.append(f"- {name}: {part.pictures} pictures of {part.trips} trips ({sizes}){ignored}")
        for title, sentences in (("cannot be used", self.broken), ("in two parts", self.leaks), ("odd", self.notes)):
            if sentences:
                lines += ["", f"### {title}: {len(sentences)}", "", *(f"- {sentence}" for sentence in sentences)]
        return "\n".join(lines) + "\n"

    def raise_if_bad(self, folder: Path) -> None:
        """Raise CheckFailed where a picture cannot be used, is in two parts, or a class is nowhere in train."""
        reasons = []
        if self.broken:
            reasons.append(f"{len(self.broken)} pictures cannot be used (leave them out with --skip-broken)")
        if self.leaks:
            reasons.append(f"{len(self.leaks)} pictures are in two parts, which makes figures too good")
        train = self.parts.get("train")
        absent = [] if train is None else [name for name, number in train.pictures_with.items() if not number]
        if absent:
            named = f"{', '.join(absent[:5])}{' …' if len(absent) > 5 else ''}"
            reasons.append(f"{named} {'is' if len(absent) == 1 else 'are'} on no picture of train")
        if reasons:
            raise CheckFailed(f"{folder}: {'; '.join(reasons)}; each is named above")


def inspect_own(root: Path, kind: Kind) -> Findings:
    """Read every picture with its truth.

    Raises:
        SourceError: the folder is none of labelled pictures.
    """
    folder = open_folder(root, kind)
    notes, broken = list[str](), list[str]()
    samples: dict[str, list[_Seen]] = defaultdict(list)
    for item in folder.items:
        try:
            sample = read_sample(folder, item)
        except SourceError as error:
            broken.append(str(error))
            continue
        notes += [f"{item.name}: {note}" for note in sample.notes]
        samples[item.part or "left out"].append(_Seen(item, sample, len(folder.legend.classes), kind))
    notes = _fewer(notes) + _missing(folder)
    parts: dict[str, PartFindings] = {part: _part(samples.get(part, []), folder) for part in folder.parts}
    notes += _rare(parts)
    return Findings(
        form=folder.form, classes=f"{folder.legend.described()} ({folder.legend.source})", said=folder.notes,
        parts=parts, notes=tuple(notes), broken=tuple(broken), leaks=tuple(_leaks(samples)),
    )  # fmt: skip


class _Seen:
    """What is kept of a picture: counts, and what it looks like."""

    def __init__(self, item: Item, sample: Sample, classes: int, kind: Kind) -> None:
        self.item = item
        self.size = f"{sample.photo.shape[1]}×{sample.photo.shape[0]}"
        if kind == "masks":
            counts = np.bincount(sample.label.ravel(), minlength=256)
            self.counts, self.ignored = counts[:classes].astype(np.float64), float(counts[IGNORE] / sample.label.size)
        else:
            self.counts, self.ignored = (
                np.bincount(sample.labels[sample.sure], minlength=classes).astype(np.float64),
                0.0,
            )
        self.digest = hashlib.sha256(sample.photo.tobytes()).hexdigest()
        small = cv2.resize(sample.photo, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        self.small = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32).ravel()


def _part(seen: Sequence[_Seen], folder: Folder) -> PartFindings:
    classes = folder.legend.classes
    counts = sum((one.counts for one in seen), np.zeros(len(classes)))
    present = sum(((one.counts > 0).astype(int) for one in seen), np.zeros(len(classes), int))
    return PartFindings(
        pictures=len(seen), trips=len({one.item.trip for one in seen}),
        sizes=dict(Counter(one.size for one in seen).most_common(6)),
        ignored=float(np.mean([one.ignored for one in seen])) if seen else 0.0,
        shares={info.name: float(n / max(counts.sum(), 1)) for info, n in zip(classes, counts, strict=True)},
        pictures_with={info.name: int(n) for info, n in zip(classes, present, strict=True)},
    )  # fmt: skip


def _fewer(notes: list[str], most: int = 40) -> list[str]:
    return notes if len(notes) <= most else [*notes[:most], f"and {len(notes) - most} more such"]


def _missing(folder: Folder) -> list[str]:
    found = []
    for names, what in (
        (folder.unlabelled, "pictures have no label and are left out"),
        (folder.orphans, "labels have no picture"),
    ):
        if names:
            found.append(f"{len(names)} {what}: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}")
    return found


def _rare(parts: dict[str, PartFindings]) -> list[str]:
    train, found = parts.get("train"), []
    for name, number in ({} if train is None else train.pictures_with).items():
        if 0 < number < RARE:
            found.append(
                f"{name} is on {number} picture{'' if number == 1 else 's'} of train: hardly enough to learn it"
            )
        for other, part in parts.items():
            if number and other != "train" and not part.pictures_with[name]:
                found.append(f"{name} is on no picture of {other}: what is learned of it is not measured")
    return found


def _leaks(samples: dict[str, list[_Seen]]) -> list[str]:
    """Pictures of two parts that are one picture, or look alike; and trips that are in two parts by the folders."""
    found = list[str]()
    by_digest: dict[str, list[_Seen]] = defaultdict(list)
    for seen in samples.values():
        for one in seen:
            by_digest[one.digest].append(one)
    found += [
        f"{' and '.join(sorted(f'{one.item.name} ({one.item.part})' for one in same))} are the same picture"
        for same in by_digest.values()
        if len({one.item.part for one in same}) > 1
    ]
    train = samples.get("train", [])
    looks = np.array([one.small for one in train]).reshape(-1, _SIDE * _SIDE)
    for part in ("val", "test"):
        for one in samples.get(part, []):
            if not len(looks) or np.ptp(one.small) < 8:  # an even picture is like any other
                continue
            distance = np.abs(looks - one.small).mean(1)
            nearest = train[int(distance.argmin())]
            if distance.min() < SAME and nearest.digest != one.digest:
                found.append(
                    f"{one.item.name} ({part}) looks like {nearest.item.name} (train): neighbours of one trip?"
                )
    return found
