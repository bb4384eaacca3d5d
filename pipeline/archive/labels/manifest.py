"""What stands beside exported pictures: `export.json`, what they are and what is left out; `clips.json`, how unlike
clips are."""

from __future__ import annotations

from datetime import datetime

import msgspec

from pipeline.archive.labels.formats.forms import Format

EXPORT, CLIPS = "export.json", "clips.json"


class Wanted(msgspec.Struct, frozen=True):
    """What is to be exported.

    Attributes:
        format: in which form.
        where: an expression that is true of the frames, as `find` has it; None for all.
        limit: how many pictures at most; 0 for all.
        per_clip: how many of one clip at most; 0 for all.
        models: names or files of the archive's models, where those that come with roadlens are others.
        second: name or file of a model to compare with; empty for none.
        device: what the models run on.
    """

    format: Format
    where: str | None = None
    limit: int = 100
    per_clip: int = 3
    models: tuple[str, ...] = ()
    second: str = ""
    device: str = "auto"


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """A picture that was exported, as the manifest has it.

    Attributes:
        file: where it is in the export.
        clip, frame, seconds, time, camera, trip, path: which frame it is (`hardness.Candidate`).
        score: how hard beside the others that were looked at, 0 to 1: the mean of the ranks of the next four, that of
            `doubt` counted twice.
        rare, flicker, doubt, disagreement: see `LABELS.md`; the last is null without a second model.
        unlike: how unlike the other clips of the archive its clip is; null for a small archive.
        novelty: how unlike what the model was trained on its clip is; null where the model cannot tell.
    """

    file: str
    clip: str
    frame: int
    seconds: float
    time: datetime | None
    camera: str
    trip: str | None
    path: str
    score: float
    rare: float
    flicker: float
    doubt: float
    disagreement: float | None
    unlike: float | None
    novelty: float | None


class LeftOut(msgspec.Struct, frozen=True):
    """What is not in an export, of what could be.

    Attributes:
        near_duplicates: frames that nearly show one that is.
        crowded: frames that were looked at and of whose clip enough are.
        undecodable: frames that do not decode any more.
        clips: why, by path: originals that are gone, changed, or not to be read.
        boxes: road users that the form has no place for.
    """

    near_duplicates: int
    crowded: int
    undecodable: int
    clips: dict[str, str]
    boxes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`export.json`: what was exported, from what and how.

    Attributes:
        archive: its folder.
        wanted: what was asked for.
        models: name and SHA-256 of each by which it is labelled.
        asked: frames of the archive of which the expression is true.
        looked: frames that were looked at.
        exported: the pictures, the hardest first.
        left_out: what is not in it.
        kind: what the file says that it is.
    """

    archive: str
    wanted: Wanted
    models: tuple[tuple[str, str], ...]
    asked: int
    looked: int
    exported: tuple[Picture, ...]
    left_out: LeftOut
    kind: str = "roadlens labels"


class Clip(msgspec.Struct, frozen=True):
    """How unlike the other clips of its archive one is, null for a small archive; and how unlike what the model was
    trained on, null where the model cannot tell."""

    path: str
    unlike: float | None
    novelty: float | None


class Clips(msgspec.Struct, frozen=True):
    """`clips.json`: all clips of an archive by their ids.

    Attributes:
        clips: the clips.
        kind: what the file says that it is.
        unlike, novelty: what the scores are.
    """

    clips: dict[str, Clip]
    kind: str = "roadlens clips"
    unlike: str = "distance from the bulk of this archive's own clips, in spreads; not from what a model was trained on"
    novelty: str = "distance from what the model says of pictures that it was trained on; about 1 for a clip as those"
