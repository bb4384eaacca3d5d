"""What a page of a trip has to say that it does not know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from pipeline.archive.reading import Archive
from pipeline.archive.trip.story import Clip, Story

GAP = 2.0
"""Seconds without a picture of a camera that are told of."""

NOVEL = 2.0
"""The novelty of a clip that is told of: 99 in 100 pictures that the bundled models were trained on stay below it."""


def unknown_of(archive: Archive, story: Story) -> Iterator[str]:
    """Sentences on what the tables do not say of a trip."""
    yield from _looked(archive, story)
    yield from _novel(archive, story)
    yield from _when(story)
    for camera in story.cameras:
        yield from _gaps(story, camera)
    yield from _damage(story)
    yield from _where(story)
    yield from _events(archive)


def _looked(archive: Archive, story: Story) -> Iterator[str]:
    every = min(model.every for model in archive.terms.models)
    if every > 1:
        yield (
            f"One frame in {every} was looked at ({story.looks:,} pictures); what was in the picture between two looks "
            "only is not here."
        )
    if story.met:
        twice = " and once for each camera that sees it" if len(story.cameras) > 1 else ""
        yield (
            "Road users are counted by the track of each clip: who is lost and found again, or is there when the next "
            f"clip begins, counts twice{twice}."
        )


def _novel(archive: Archive, story: Story) -> Iterator[str]:
    novel = {clip for (clip,) in archive.rows("SELECT clip FROM clips WHERE novelty > ?", (NOVEL,))}
    if number := sum(clip.clip in novel for clip in story.clips):
        which = f"One clip of {len(story.clips)} is" if number == 1 else f"{number} clips of {len(story.clips)} are"
        yield (
            f"{which} unlike what the model was trained on (novelty above {NOVEL:g}): what it says there is less sure."
        )


def _when(story: Story) -> Iterator[str]:
    sources = Counter(clip.recorded_from for clip in story.clips)
    if story.begin is None:
        yield "Nothing says when these clips were recorded; they stand behind each other in the order of their names."
    for source, why in (
        ("name", "says when it was recorded by its file's name only: the camera's clock, in a zone that nothing tells"),
        ("modified", "has no time but that at which its file was last changed"),
    ):
        if number := sources.get(source):
            yield f"{'One clip' if number == 1 else f'{number} clips'} of {len(story.clips)}: each {why}."


def _gaps(story: Story, camera: str) -> Iterator[str]:
    clips = [clip for clip in story.clips if clip.camera == camera]
    if story.begin is None:
        return
    gaps = [after.at - _end(before) for before, after in pairwise(clips) if after.at - _end(before) > GAP]
    if gaps:
        if len(gaps) == 1:
            yield f"Between the clips of the camera {camera} there is a gap of {gaps[0]:.0f} s."
        else:
            yield f"Between the clips of the camera {camera} there are {len(gaps)} gaps of {sum(gaps):.0f} s in all."


def _end(clip: Clip) -> float:
    return clip.at + clip.seconds


def _damage(story: Story) -> Iterator[str]:
    broken = [clip for clip in story.clips if clip.decode_errors or clip.missing]
    if broken:
        pictures = sum(clip.decode_errors + clip.missing for clip in broken)
        yield f"{len(broken)} of {len(story.clips)} clips are damaged: {pictures:,} pictures could not be read."


def _where(story: Story) -> Iterator[str]:
    known = sum(len(piece) for piece in story.track)
    if not known:
        yield "Where the car was is not known: neither the recordings nor files beside them say."
    elif len(story.track) > 1:
        yield f"Where the car was is not known all the way: its track has {len(story.track)} pieces."


def _events(archive: Archive) -> Iterator[str]:
    ahead = archive.terms.options.get("ahead")
    if ahead is None:
        yield (
            "Nobody looked for events on the road ahead; an archive that is made with --config and "
            "`ahead: {}` in it has them."
        )
    elif ahead.get("camera_height") is None or ahead.get("field_of_view") is None:
        yield "Distances in metres are not known, for the camera's height and field of view were not given."
    if archive.missing:
        reasons = Counter(reason or "not indexed yet" for reason in archive.missing.values())
        worst = "; ".join(f"{number} × {reason[:120]}" for reason, number in reasons.most_common(3))
        yield (f"{len(archive.missing)} clips of the archive stand in no table, of whichever trip they are: {worst}.")
