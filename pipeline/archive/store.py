"""The files of an archive: what is kept of a clip until it stands in the tables, and the tables by day and camera.

Every file is written beside its place and put there whole. What is put into the tables replaces what they held of the
same clip, so that a step that a crash cut off is done again with the same bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engines.errors import OutputError
from pipeline.archive.columns import (
    PART,
    TABLES,
    THUMBNAILS,
    camera_of,
    day_of,
    folder_of,
    schemas,
    tables_of,
    thumbnail_name,
)
from pipeline.archive.journal import Done, File, Journal, Named, Published
from pipeline.archive.rows import Indexed, decode
from pipeline.archive.terms import Terms
from pipeline.archive.trips import Stretch, trips_of

_STAGING = "staging"

_ORDER = {
    "frames": ("time", "clip", "frame"), "objects": ("time", "clip", "frame"), "events": ("time", "clip", "start"),
    "clips": ("recorded_at", "clip"),
}  # fmt: skip
"""Whatever order clips came in, their rows stand in that of time; what is equal in these stays in its clip's order."""


class Store:
    """The files of an archive, for the one process that writes it.

    Args:
        archive: its folder.
        terms: by which it is made.
        journal: its manifest.
        drop_replaced: whether `publish` takes clips out of the tables that were replaced by others.
    """

    def __init__(self, archive: Path, terms: Terms, journal: Journal, *, drop_replaced: bool = False) -> None:
        self._drop_replaced = drop_replaced
        self.archive, self.terms, self._journal = archive, terms, journal
        self._staging = archive / _STAGING
        self._staging.mkdir(exist_ok=True)
        self._mended = False

    # Clips ----------------------------------------------------------------------------------------------------------
    def keep(self, clip: str, data: bytes, cpu_seconds: float) -> None:
        """Keep what was found out of a clip.

        Raises:
            OutputError: it cannot be written.
        """
        day = day_of(decode(data).clip.recorded_at)
        _put(self._staging / f"{clip}.msgpack", data)
        self._journal.write(Done(clip, hashlib.sha256(data).hexdigest(), day, cpu_seconds))

    def _kept(self, clip: str, done: Done) -> Indexed | None:
        """What is kept of a clip; None where it is not whole."""
        try:
            data = (self._staging / f"{clip}.msgpack").read_bytes()
            return decode(data) if hashlib.sha256(data).hexdigest() == done.sha256 else None
        except (OSError, msgspec.DecodeError):
            return None

    def lost(self) -> list[str]:
        """Clips that were indexed, and of which something is no longer there: their files were removed, or damaged.
        What stands beside them in one table is lost with it.
        """
        gone = []
        for clip, state in self._journal.state.clips.items():
            if state.done is not None and state.published is None and self._kept(clip, state.done) is None:
                gone.append(clip)
        for (day, camera), published in self._journal.state.published.items():
            if not all(self._is_whole(name, day, camera, file) for name, file in published.files.items()):
                states = self._journal.state.clips
                gone += [clip for clip in published.clips if clip in states and not states[clip].replaced]
        return gone

    def _is_whole(self, name: str, day: str, camera: str, file: File) -> bool:
        path = self._path(name, day, camera)
        try:
            if path.stat().st_size == file.bytes:
                return True
            pq.ParquetFile(path).close()  # written by a step that a crash cut off, and that is about to be done again
        except (OSError, pa.ArrowException):
            return False
        return True

    def forget(self, clips: Iterable[str]) -> None:
        """Let go of clips that are to be indexed anew."""
        gone = set(clips)
        for (day, camera), published in list(self._journal.state.published.items()):
            if gone & set(published.clips):
                self._write(day, camera, [], gone)
        for clip in gone:
            state = self._journal.state.clips[clip]
            state.done = state.published = None

    def clear(self) -> None:
        """Remove all tables, for they are to be made anew."""
        for name in (*TABLES, THUMBNAILS):
            for path in sorted((self.archive / name).rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()

    # Tables ---------------------------------------------------------------------------------------------------------
    def publish(self) -> int:
        """Put what is kept into the tables, take out what is to go, and say of each clip which trip it belongs to
        and where it is; how many clips were put.

        Raises:
            OutputError: a file cannot be written.
        """
        waiting: dict[tuple[str, str], list[Indexed]] = defaultdict(list)
        for clip, state in self._journal.state.clips.items():
            if state.done is not None and state.published is None:
                indexed = self._kept(clip, state.done)
                if indexed is not None:
                    waiting[day_of(indexed.clip.recorded_at), camera_of(indexed)].append(indexed)
        self._sweep()
        replaced, torn = self._replaced(), self._torn()
        if not waiting and not replaced and not torn and self._journal.state.named:
            return 0
        for place in sorted({*waiting, *replaced, *torn}):
            self._write(*place, waiting.get(place, []), replaced.get(place, set()))
            for each in waiting.get(place, []):
                (self._staging / f"{each.clip.clip}.msgpack").unlink(missing_ok=True)
        self._name()
        self._journal.sync()
        return sum(map(len, waiting.values()))

    def _replaced(self) -> dict[tuple[str, str], set[str]]:
        """Clips in the tables that were replaced by others and are to go, by day and camera."""
        found: dict[tuple[str, str], set[str]] = defaultdict(set)
        if not self._drop_replaced:
            return found
        for clip, state in self._journal.state.clips.items():
            if state.replaced and state.published is not None:
                found[state.published].add(clip)
        return found

    def _torn(self) -> set[tuple[str, str]]:
        """Where a crash left tables with other rows than the manifest knows of: the clip that was being put into them
        may have been replaced since, so that nobody does it again. Files that the manifest does not know go.
        """
        if self._mended:
            return set()
        self._mended = True
        published = self._journal.state.published
        for name in (THUMBNAILS, *TABLES):
            for folder in (self.archive / name).glob("day=*/camera=*"):
                place = tuple(part.partition("=")[2] for part in folder.parts[-2:])
                clips = published[place].clips if place in published else ()
                for path in folder.iterdir():
                    if path.name.partition("-")[0] not in clips if name == THUMBNAILS else place not in published:
                        path.unlink(missing_ok=True)
                _remove_empty(folder)
        return {
            (day, camera)
            for (day, camera), step in published.items()
            if any(_size(self._path(name, day, camera)) not in (None, file.bytes) for name, file in step.files.items())
        }

    def _sweep(self) -> None:
        """Remove what is kept of clips that stand in the tables."""
        clips = self._journal.state.clips
        for path in self._staging.iterdir():
            state = clips.get(path.name.partition(".")[0])
            if state is None or state.published is not None or state.done is None:
                path.unlink(missing_ok=True)

    def _path(self, name: str, day: str, camera: str) -> Path:
        return self.archive / name / folder_of(day, camera) / PART

    def _write(self, day: str, camera: str, indexed: list[Indexed], without: set[str]) -> None:
        """Put clips into the tables of a day and camera, and take others out. Of what is there the rows stay of those
        that the manifest knows to be there.
        """
        for each in indexed:
            for frame, jpeg in each.thumbnails.items():
                _put(self.archive / thumbnail_name(each, frame), jpeg, sync=False)
        new = tables_of(indexed, self.terms)
        for clip in without:
            for picture in (self.archive / THUMBNAILS / folder_of(day, camera)).glob(f"{clip}-*.jpg"):
                picture.unlink(missing_ok=True)
        before = self._journal.state.published.get((day, camera))
        kept = set() if before is None else set(before.clips) - without - {each.clip.clip for each in indexed}
        if not indexed and not kept:
            self._remove(day, camera)
            return
        written = {}
        for name in TABLES:
            path = self._path(name, day, camera)
            table = pa.concat_tables([*self._before(path, name, kept), new[name]])
            table = table.sort_by([(key, "ascending") for key in _ORDER[name]])  # stable
            if name == "clips":
                clips = tuple(table["clip"].to_pylist())
            written[name] = _put_table(path, table)
        self._journal.write(Published(day, camera, clips, written))

    def _remove(self, day: str, camera: str) -> None:
        """Remove the tables of a day and camera, of which no clip is left. They go before the manifest says so: a file
        that it does not know would be read for ever.
        """
        for name in (THUMBNAILS, *TABLES):
            folder = self._path(name, day, camera).parent
            (folder / PART).unlink(missing_ok=True)
            _remove_empty(folder)
        self._journal.write(Published(day, camera, (), {}))

    def _before(self, path: Path, name: str, clips: set[str]) -> list[pa.Table]:
        """What a table holds of some clips."""
        try:
            with pq.ParquetFile(path) as file:
                table = file.read()
        except FileNotFoundError:
            return []
        except (OSError, pa.ArrowException):
            return []  # its clips are lost, and are being indexed anew
        kept = pc.is_in(table["clip"], pa.array(sorted(clips), pa.string()))
        wanted = schemas(self.terms)[name]
        for field in wanted:
            if field.name not in table.schema.names:  # a column that this format had not yet when it was written
                table = table.append_column(field, pa.nulls(len(table), field.type))
        return [table.filter(kept).select(wanted.names).cast(wanted)]

    def _name(self) -> None:
        """Say of each clip in the tables which trip it belongs to, and where it is: both change with other clips."""
        places = sorted(self._journal.state.published)
        tables = {}
        stretches = []
        for day, camera in places:
            with pq.ParquetFile(self._path("clips", day, camera)) as file:
                table = tables[day, camera] = file.read()
            times = table["recorded_at"].cast(pa.int64()).to_pylist()  # as numbers: times would bring pandas
            rows = (table[name].to_pylist() for name in ("clip", "vehicle", "seconds"))
            for at, clip, car, seconds in zip(times, *rows, strict=True):
                if at is not None:
                    stretches.append(Stretch(clip, car or "", at / 1e6, seconds))
        trips = trips_of(stretches)
        states = self._journal.state.clips
        for place, table in tables.items():
            clips = table["clip"].to_pylist()
            said = {"trip": [trips.get(clip) for clip in clips], "path": [states[clip].known.path for clip in clips]}
            now = table
            for name, values in said.items():
                index = table.schema.get_field_index(name)
                now = now.set_column(index, table.schema.field(name), pa.array(values, pa.string()))
            if not now.equals(table):
                file = _put_table(self._path("clips", *place), now)
                before = self._journal.state.published[place]
                self._journal.write(Published(*place, before.clips, {**before.files, "clips": file}))
        self._journal.write(Named())


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _remove_empty(folder: Path) -> None:
    """Remove the folder of a day and camera where nothing is in it."""
    with suppress(OSError):  # something is, or it is gone already
        folder.rmdir()
        folder.parent.rmdir()


def _put_table(path: Path, table: pa.Table) -> File:
    """Write a table whole; the same rows are the same bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", row_group_size=1 << 17)
    data = sink.getvalue().to_pybytes()
    _put(path, data)
    return File(len(data), hashlib.sha256(data).hexdigest())


def _put(path: Path, data: bytes, *, sync: bool = True) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}; what is indexed so far stays") from None
