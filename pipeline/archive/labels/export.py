"""An export of labelled pictures: chosen, looked at, and written whole, with a manifest of what it has and lacks."""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engines.classes import ClassInfo
from engines.errors import SourceError, UsageError
from pipeline.archive.columns import UNKNOWN
from pipeline.archive.labels.choosing import Chosen, choose
from pipeline.archive.labels.formats.cityscapes import Cityscapes
from pipeline.archive.labels.formats.coco import Coco
from pipeline.archive.labels.formats.cvat import Cvat
from pipeline.archive.labels.formats.forms import Form, Format
from pipeline.archive.labels.formats.yolo import Yolo
from pipeline.archive.labels.hardness import Candidate, ranked
from pipeline.archive.labels.labelled import Labelled, full_size
from pipeline.archive.labels.looking import Looked, Looker, Missed
from pipeline.archive.labels.manifest import CLIPS, EXPORT, Clip, Clips, LeftOut, Manifest, Picture, Wanted
from pipeline.archive.labels.unlike import unlike
from pipeline.archive.reading import Archive
from pipeline.files import whole_folder

FORMS: dict[Format, type[Form]] = {"cityscapes": Cityscapes, "coco": Coco, "yolo": Yolo, "cvat": Cvat}

POOL = 2
"""Frames that are looked at for each that is wanted: the hardest by the tables, of which the hardest are chosen."""

CLIP_POOL = 4
"""Frames of a clip that may be looked at for each that may be exported."""

UNLIMITED = 1 << 30


def export_labels(
    archive: Archive,
    folder: Path,
    wanted: Wanted,
    say: Callable[[str], None] = lambda _text: None,
    tell: Callable[[int, int], None] = lambda _done, _whole: None,
) -> Manifest:
    """Export labelled pictures of an archive into a folder.

    Args:
        archive: the archive.
        folder: is made; where it is there it must be empty.
        wanted: what is exported.
        say: told how far an engine is that is being built.
        tell: told how many frames of how many were looked at.

    Raises:
        UsageError: the archive hides what pictures would show, or what is wanted does not go together.
        SourceError: no frame is to be had.
        ModelError: a model of the archive is not there.
        OutputError: the folder holds something, or cannot be written.
    """
    if archive.terms.options.get("anonymize"):
        raise UsageError(
            f"{archive.path} was made with `anonymize`, and pictures of its clips would show what it hides; make an "
            "archive without it, for those who may see them"
        )
    with whole_folder(folder) as partial:
        scratch = partial / ".looked"
        scratch.mkdir()
        found = _found(archive, wanted, scratch, say, tell)
        form = FORMS[wanted.format](partial, found.classes)
        clips = _clips(archive)
        exported = _written(partial, form, found.chosen, clips.clips)
        shutil.rmtree(scratch)
        _put(partial / CLIPS, clips)
        chosen, missed = found.chosen, found.missed
        left_out = LeftOut(
            chosen.near_duplicates, chosen.crowded, missed.frames, dict(sorted(missed.clips.items())), form.passed_over
        )
        manifest = Manifest(
            archive=str(archive.path), wanted=wanted, asked=found.asked, looked=found.looked, exported=exported,
            models=tuple((model.name, model.sha256) for model in archive.terms.models), left_out=left_out,
        )  # fmt: skip
        _put(partial / EXPORT, manifest)
    return manifest


@dataclass(frozen=True, slots=True)
class _Found:
    """What is to be written: the frames that were chosen, of so many that were looked at and that were asked for, what
    could not be looked at, and the classes of their labels."""

    chosen: Chosen
    looked: int
    asked: int
    missed: Missed
    classes: tuple[ClassInfo, ...]


def _found(
    archive: Archive, wanted: Wanted, scratch: Path, say: Callable[[str], None], tell: Callable[[int, int], None]
) -> _Found:
    """Look at the hardest frames, and at more where too many of them are near-duplicates or not to be had."""
    candidates, asked = ranked(archive, wanted.where, CLIP_POOL * wanted.per_clip or UNLIMITED)
    step, missed, seen = POOL * wanted.limit or len(candidates), Missed(), list[Looked]()
    with Looker(archive.terms, wanted.models, wanted.second, wanted.device, say) as looker:
        if wanted.format == "cityscapes" and not looker.mapped:
            raise UsageError(
                "cityscapes is a class for each pixel, and no model of this archive gives one; ask for coco, yolo or "
                "cvat"
            )
        for start in range(0, len(candidates), step):
            some = candidates[start : start + step]
            for each in looker.look(archive, some, scratch, missed):
                seen.append(each)
                tell(len(seen), start + len(some))
            chosen = choose(seen, wanted.limit or UNLIMITED, wanted.per_clip or UNLIMITED)
            if len(chosen.pictures) == wanted.limit:
                break
        if not seen:
            raise _nothing(missed)
        return _Found(chosen, len(seen), asked, missed, looker.classes)


def _nothing(missed: Missed) -> SourceError:
    path, reason = next(iter(missed.clips.items()), ("", ""))
    first = f"; the first clip: {reason}" if path else ""
    return SourceError(
        f"no picture can be had: {len(missed.clips)} clips are not to be read, and {missed.frames} frames of others do "
        f"not decode{first}"
    )


def _written(folder: Path, form: Form, chosen: Chosen, clips: Mapping[str, Clip]) -> tuple[Picture, ...]:
    """Write pictures and labels, in the order of their trips and times; the manifest's rows, the hardest first."""
    pictures = folder / form.pictures
    pictures.mkdir(parents=True)
    named = _named([looked.candidate for looked, _ in chosen.pictures])
    for looked, _ in sorted(chosen.pictures, key=lambda pair: named[pair[0].candidate]):
        name, class_map = named[looked.candidate], looked.class_map
        looked.jpeg.rename(pictures / name)
        full = None if class_map is None else full_size(class_map, looked.width, looked.height)
        form.add(Labelled(name, looked.width, looked.height, full, looked.boxes))
    form.finish()
    return tuple(
        Picture(
            file=f"{form.pictures}/{named[c]}", clip=c.clip, frame=c.frame, seconds=c.seconds, time=c.time,
            camera=c.camera, trip=c.trip, path=c.path, score=score, rare=c.rare, flicker=c.flicker, doubt=looked.doubt,
            disagreement=looked.disagreement, unlike=clips[c.clip].unlike,
            novelty=clips[c.clip].novelty,
        )
        for looked, score in chosen.pictures
        for c in (looked.candidate,)
    )  # fmt: skip


def _named(candidates: Sequence[Candidate]) -> dict[Candidate, str]:
    """Names of pictures: the trip, and a number within it, so that training can tell trips and hold whole ones out. A
    clip without a clock is a trip of its own."""
    trips: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        trip = candidate.trip or f"{UNKNOWN}-{candidate.clip}"
        trips[re.sub(r"[^\w.-]+", "-", trip)].append(candidate)
    named: dict[Candidate, str] = {}
    for trip, found in trips.items():
        found.sort(key=lambda c: ("" if c.time is None else c.time.isoformat(), c.camera, c.clip, c.frame))
        named |= {candidate: f"{trip}_{number:05d}.jpg" for number, candidate in enumerate(found)}
    return named


def _clips(archive: Archive) -> Clips:
    distances = unlike(archive)
    rows = archive.rows("SELECT clip, path, novelty FROM clips ORDER BY clip")
    return Clips({clip: Clip(path, distances.get(clip), novelty) for clip, path, novelty in rows})


def _put(path: Path, content: msgspec.Struct) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
