"""Two cameras of one name: told by their clips, which were recorded at the same time in different folders."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from pipeline.archive.inputs.footage import Candidate
from pipeline.archive.inputs.stores import is_store

Span = tuple[float, float]
"""From when to when a clip was recorded, Unix seconds."""

_ENOUGH = 0.5
"""More than this share of the clips of the smaller folder must overlap: after a reset of its clock a few do."""

_TOUCHING = 2.0
"""Seconds by which clips of one camera that follow each other may overlap."""

_KINDS = frozenset({
    "event", "events", "evt", "normal", "parking", "park", "ro", "emr", "sos", "lock", "locked", "urgent", "manual",
    "photo", "movie", "video", "loop", "cont", "rec", "savedclips", "recentclips", "sentryclips", "motion",
})  # fmt: skip
"""Folders of one camera by the kind of its recordings: one of an event may have been made beside the usual one."""


def told_apart(clips: Sequence[Candidate], spans: Callable[[Candidate], Span | None] | None = None) -> list[Candidate]:
    """The clips, with what tells cameras of one name apart.

    Folders with clips of one camera name are one camera's, as a card has several, unless most clips of one were
    recorded while those of another one were. Times that only the file system says do not count.

    Args:
        clips: of all inputs.
        spans: when a clip was recorded; its file is asked unless given.
    """
    by_name: dict[str, dict[str, list[Candidate]]] = defaultdict(lambda: defaultdict(list))
    for clip in clips:
        by_name[clip.camera][clip.folder].append(clip)
    cars: dict[tuple[str, str], str] = {}
    for camera, folders in by_name.items():
        if len(folders) < 2:
            continue
        apart = set(_at_once(folders, spans or _span))
        for folder in sorted({folder for pair in apart for folder in pair}):
            others = [one if other == folder else other for one, other in apart if folder in (one, other)]
            cars[camera, folder] = _differing(folder, min(others))
    return [replace(clip, car=cars.get((clip.camera, clip.folder), "")) for clip in clips]


def _at_once(
    folders: dict[str, list[Candidate]], span_of: Callable[[Candidate], Span | None]
) -> Iterator[tuple[str, str]]:
    """Pairs of folders whose clips were recorded at the same time."""
    spans = sorted(
        (*span, folder, index)
        for folder, clips in folders.items()
        for index, clip in enumerate(clips)
        if (span := span_of(clip)) is not None
    )
    meeting: Counter[tuple[str, str]] = Counter()
    met: set[tuple[str, str, int]] = set()
    running: list[tuple[float, float, str, int]] = []
    for each in spans:
        begin, _, folder, index = each
        running = [other for other in running if other[1] > begin + _TOUCHING]
        for _, _, other, number in running:
            for whose, one, another in ((folder, folder, other), (other, other, folder)):
                key = one, another, index if whose == folder else number
                if folder != other and key not in met:
                    met.add(key)
                    meeting[one, another] += 1
        running.append(each)
    for one, other in sorted(pair for pair in meeting if pair[0] < pair[1]):
        fewer = min((len(folders[one]), meeting[one, other]), (len(folders[other]), meeting[other, one]))
        kinds = {_differing(one, other).lower(), _differing(other, one).lower()}
        if fewer[1] > _ENOUGH * fewer[0] and not kinds & _KINDS:
            yield one, other


def _differing(folder: str, other: str) -> str:
    """The first part of a folder's path that is not in another one's."""
    parts, others = PurePosixPath(folder).parts, PurePosixPath(other).parts
    return next((part for i, part in enumerate(parts) if part != (others[i] if i < len(others) else None)), parts[-1])


def _span(clip: Candidate) -> Span | None:
    from pipeline.archive.inputs.glance import span_of  # brings FFmpeg: only where folders share a camera's name

    return None if is_store(clip.path) else span_of(Path(clip.path))  # all of what is in a store would be fetched
