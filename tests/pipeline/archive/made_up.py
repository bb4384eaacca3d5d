"""Archives of rows that were made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.archive.journal import Journal, Known
from pipeline.archive.reading import Archive
from pipeline.archive.rows import ClipRow, FrameRow, Indexed, encode
from pipeline.archive.store import Store
from pipeline.archive.terms import ModelTerms, Terms, write_terms

EVERY, RATE = 15, 30.0
TERMS = Terms((ModelTerms("m", "00", "auto", EVERY, ("road", "traffic light", "car"), ("car", "person")),), {})
BEGUN = 1_700_000_000.0


def put(archive: Path, clips: list[Indexed], terms: Terms = TERMS) -> Archive:
    """An archive of rows that were made up."""
    archive.mkdir()
    write_terms(archive, terms)
    journal = Journal(archive)
    store = Store(archive, terms, journal)
    for indexed in clips:
        row = indexed.clip
        there = Path(row.path)
        version = str(there.stat().st_mtime_ns) if there.exists() else "1"
        journal.write(Known(row.clip, row.path, row.bytes, version, row.camera))
        store.keep(row.clip, encode(indexed), 0.1)
    store.publish()
    journal.close()
    return Archive(archive)


def clip(number: int, at: float | None, frames: list[FrameRow], **more: Any) -> Indexed:
    """A clip of frames that were looked at; `objects`, `events`, `camera`, `place`, `path`, `novelty` may be given."""
    place = more.pop("place", (None, None))
    path = Path(more.pop("path", f"/card/{number}.mp4"))
    row = ClipRow(
        clip=f"{number:04x}", path=str(path), bytes=path.stat().st_size if path.exists() else 1,
        camera=more.pop("camera", "front"),
        recorded_at=at, recorded_from="" if at is None else "name", seconds=len(frames) * EVERY / RATE, rate=RATE,
        frames=len(frames) * EVERY, analysed=len(frames), latitude=place[0], longitude=place[1],
        novelty=more.get("novelty"),
    )  # fmt: skip
    return Indexed(row, frames, more.get("objects", []), more.get("events", []))
