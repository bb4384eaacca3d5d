"""An archive that is read: its tables, SQL over them, and the moments at which an expression is true."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from engines.errors import SourceError
from pipeline.archive.columns import TABLES, schemas
from pipeline.archive.find.query import query_of
from pipeline.archive.journal import State, read_state
from pipeline.archive.terms import Terms, read_terms

_FOLDERS = ds.partitioning(pa.schema([("day", pa.string()), ("camera", pa.string())]), flavor="hive")

_FOUND = """
SELECT f.clip, f.frame, f.seconds, f.time, c.camera, c.path, c.trip, c.rate, c.seconds AS length, c.recorded_at
FROM frames f JOIN clips c ON f.clip = c.clip WHERE {condition} ORDER BY c.recorded_at, c.camera, f.clip, f.frame
"""


@dataclass(frozen=True, slots=True)
class Moment:
    """A stretch of a clip in which an expression is true of each frame that was looked at.

    Attributes:
        clip: its id.
        camera: which took it.
        path: where the clip is.
        trip: to which it belongs; None where its time is not known.
        time: when the moment begins; None where that is not known.
        start, end: seconds since the clip's first frame; the last frame stands for the time until the next one that is
            looked at.
        frames: the numbers of the frames, as they stand in the clip.
    """

    clip: str
    camera: str
    path: str
    trip: str | None
    time: datetime | None
    start: float
    end: float
    frames: tuple[int, ...]


class Archive:
    """An archive that is read; it may be written meanwhile.

    Args:
        path: its folder.

    Attributes:
        path: its folder.
        terms: by which it was made.
        state: what became of each clip, by its manifest.

    Raises:
        SourceError: it is none, or none of its clips stands in the tables yet.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.terms: Terms = read_terms(self.path)
        self.state: State = read_state(self.path)
        if not next((self.path / TABLES[-1]).rglob("*.parquet"), None):
            kept = sum(state.done is not None for state in self.state.clips.values())
            raise SourceError(
                f"{self.path} is half-written: {kept} of {len(self.state.clips)} clips are indexed, and none stands in "
                "the tables yet; go on with the same `roadlens archive`"
            )

    def __repr__(self) -> str:
        clips = len(self.state.clips)
        return f"<archive {self.path}: {clips - len(self.missing)} of {clips} clips>"

    @property
    def missing(self) -> dict[str, str]:
        """Paths of clips that were found and do not stand in the tables, with the reason where they failed."""
        return {s.known.path: s.reason for s in self.state.clips.values() if s.published is None}

    # Tables ---------------------------------------------------------------------------------------------------------
    @property
    def frames(self) -> pa.Table:
        """A row for each frame that a model looked at. `.to_pandas()` and `polars.from_arrow` make frames of it."""
        return self._table("frames")

    @property
    def objects(self) -> pa.Table:
        """A row for each box."""
        return self._table("objects")

    @property
    def events(self) -> pa.Table:
        """A row for each event."""
        return self._table("events")

    @property
    def clips(self) -> pa.Table:
        """A row for each clip."""
        return self._table("clips")

    def _table(self, name: str) -> pa.Table:
        try:
            return self._dataset(name).to_table()
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(name, error) from None

    def _dataset(self, name: str) -> ds.Dataset:
        files = [str(path) for path in sorted((self.path / name).rglob("*.parquet"))]
        schema = pa.unify_schemas([schemas(self.terms)[name], _FOLDERS.schema])  # of all versions of this format
        try:
            return ds.dataset(files, schema, format="parquet", partitioning=_FOLDERS)
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(name, error) from None

    def _damaged(self, name: str, error: Exception) -> SourceError:
        said = " ".join(str(error).split())[:160]
        return SourceError(
            f"the table {name} of {self.path} is damaged: {said}; the same `roadlens archive` indexes its clips again"
        )

    # Questions ------------------------------------------------------------------------------------------------------
    @cached_property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """DuckDB with a view of each table: `archive.connection.sql("SELECT count(*) FROM frames")`."""
        connection = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'")
        for name in TABLES:
            connection.register(name, self._dataset(name))
        return connection

    @property
    def kinds(self) -> list[str]:
        """The kinds of events that there are."""
        return [kind for (kind,) in self.rows("SELECT DISTINCT kind FROM events ORDER BY kind", ())]

    @property
    def notes(self) -> list[str]:
        """The names of the notes that there are."""
        keys = "SELECT DISTINCT unnest(json_keys(notes)) AS name FROM frames WHERE notes IS NOT NULL ORDER BY name"
        return [name for (name,) in self.rows(keys, ())]

    def find(self, expression: str) -> list[Moment]:
        """The moments at which an expression is true, in order of time.

        Args:
            expression: such as `person and area.road > 0.3`; see `ARCHIVE.md`.

        Raises:
            UsageError: it is no expression, or has a name that nobody knows.
            SourceError: a table is damaged.
        """
        query = query_of(expression, self.terms, self.kinds, self.notes)
        rows = self.rows(_FOUND.format(condition=query.sql), query.values)
        return list(_moments(rows, min(model.every for model in self.terms.models)))

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What SQL over the tables answers.

        Raises:
            SourceError: a table is damaged.
        """
        try:
            return self.connection.execute(sql, list(values)).fetchall()
        except duckdb.Error as error:
            raise self._damaged("frames", error) from None


def _moments(rows: Iterable[tuple[Any, ...]], every: int) -> Iterable[Moment]:
    """Frames that follow each other made one."""
    running: list[tuple[Any, ...]] = []
    for row in rows:
        if running and (row[0] != running[-1][0] or row[1] > running[-1][1] + every):
            yield _moment(running, every)
            running = []
        running.append(row)
    if running:
        yield _moment(running, every)


def _moment(rows: Sequence[tuple[Any, ...]], every: int) -> Moment:
    clip, _, start, time, camera, path, trip, rate, length, _ = rows[0]
    end = rows[-1][2] + every / (rate or 25)
    return Moment(clip, camera, path, trip, time, start, max(start, min(end, length)), tuple(row[1] for row in rows))
