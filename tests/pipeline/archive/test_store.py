"""The tables: the same bytes whatever order clips came in and wherever a crash cut the work off."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from pipeline.archive.journal import Journal, Known, read_state
from pipeline.archive.rows import Indexed, encode
from pipeline.archive.store import Store
from pipeline.archive.terms import write_terms
from tests.pipeline.archive.card import contents
from tests.pipeline.archive.made_up import BEGUN, TERMS, clip
from tests.pipeline.archive.test_find import frames

CLIPS = [
    clip(4, BEGUN, frames(1, 0)), clip(3, BEGUN + 60, frames(2)), clip(2, None, frames(1, 1)),
    clip(1, BEGUN + 86400, frames(3)), clip(9, BEGUN + 61, frames(2, 2), camera="rear"),
]  # fmt: skip


def opened(archive: Path) -> tuple[Journal, Store]:
    archive.mkdir(exist_ok=True)
    write_terms(archive, TERMS)
    journal = Journal(archive)
    return journal, Store(archive, TERMS, journal)


def keep(journal: Journal, store: Store, indexed: Indexed) -> None:
    row = indexed.clip
    journal.write(Known(row.clip, row.path, row.bytes, "1", row.camera))
    store.keep(row.clip, encode(indexed), 0.1)


def whole(archive: Path, groups: list[list[Indexed]]) -> dict[str, bytes]:
    for group in groups:
        journal, store = opened(archive)
        for indexed in group:
            keep(journal, store, indexed)
        store.publish()
        journal.close()
    return contents(archive)


def test_the_order_in_which_clips_come_changes_no_byte(tmp_path: Path) -> None:
    at_once = whole(tmp_path / "a", [CLIPS])
    assert whole(tmp_path / "b", [[each] for each in reversed(CLIPS)]) == at_once
    assert whole(tmp_path / "c", [CLIPS[3:], CLIPS[:3]]) == at_once
    assert set(at_once) == {
        f"{table}/day={day}/camera={camera}/part.parquet"
        for table in ("frames", "objects", "events", "clips")
        for day, camera in (
            ("2023-11-14", "front"), ("2023-11-14", "rear"), ("2023-11-15", "front"),
            ("unknown", "front"),
        )
    }  # fmt: skip


@pytest.mark.seconds
@pytest.mark.parametrize("step", range(12))
def test_a_crash_between_any_two_writes_changes_no_byte(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power goes before the `step`-th file is put in its place, and the rest is done by another process."""
    undisturbed = whole(tmp_path / "a", [CLIPS[:3], CLIPS[3:]])
    whole(tmp_path / "b", [CLIPS[:3]])
    journal, store = opened(tmp_path / "b")
    for indexed in CLIPS[3:]:
        keep(journal, store, indexed)
    left = step
    replace = Path.replace

    def dies(self: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", dies)
    with contextlib.suppress(KeyboardInterrupt):
        store.publish()
    monkeypatch.undo()
    journal.close()
    journal, store = opened(tmp_path / "b")
    assert store.lost() == []
    store.publish()
    journal.close()
    assert contents(tmp_path / "b") == undisturbed
    assert list((tmp_path / "b" / "staging").iterdir()) == []


@pytest.mark.parametrize("harm", ["removed", "cut", "emptied"])
def test_what_is_lost_of_the_tables_is_known(harm: str, tmp_path: Path) -> None:
    undisturbed = whole(tmp_path / "a", [CLIPS])
    path = tmp_path / "a" / "objects" / "day=2023-11-14" / "camera=front" / "part.parquet"
    data = path.read_bytes()
    path.unlink() if harm == "removed" else path.write_bytes(data[: len(data) // 2] if harm == "cut" else b"")
    journal, store = opened(tmp_path / "a")
    assert sorted(store.lost()) == ["0003", "0004"]
    store.forget(store.lost())
    assert [c for c, state in journal.state.clips.items() if state.done is None] == ["0004", "0003"]
    for indexed in CLIPS[:2]:
        store.keep(indexed.clip.clip, encode(indexed), 0.1)
    store.publish()
    journal.close()
    assert contents(tmp_path / "a") == undisturbed


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_a_torn_last_line_of_the_manifest_is_left_out(cut: int, tmp_path: Path) -> None:
    journal, store = opened(tmp_path / "a")
    keep(journal, store, CLIPS[0])
    journal.write(Known("0007", "/card/7.mp4", 1, "1", "front"))
    journal.close()
    path = tmp_path / "a" / "manifest.jsonl"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 1 - cut])
    journal, store = opened(tmp_path / "a")
    journal.write(Known("0008", "/card/8.mp4", 1, "1", "front"))
    journal.close()
    assert set(read_state(tmp_path / "a").clips) == {"0004", "0008"}


def test_tables_from_before_a_column_was_added_are_added_to(tmp_path: Path) -> None:
    journal, store = opened(tmp_path / "a")
    keep(journal, store, CLIPS[0])
    store.publish()
    journal.close()
    (path,) = (tmp_path / "a" / "frames").rglob("*.parquet")
    table = pq.ParquetFile(path).read()
    pq.write_table(table.drop_columns(["latitude", "speed"]), path)
    journal, store = opened(tmp_path / "a")
    keep(journal, store, CLIPS[1])
    store.publish()
    journal.close()
    after = pq.ParquetFile(path).read()
    assert after.schema.names == table.schema.names
    assert sorted(after["clip"].to_pylist()) == ["0003", "0004", "0004"]
    assert after["latitude"].null_count == 3


def test_every_reader_of_parquet_reads_them(tmp_path: Path) -> None:
    whole(tmp_path / "a", [CLIPS])
    duckdb = pytest.importorskip("duckdb")
    recipe = f"SELECT count(*) FROM read_parquet('{tmp_path}/a/frames/*/*/*.parquet', hive_partitioning = true)"
    assert duckdb.sql(f"{recipe} WHERE count_car >= 1 AND camera = 'front'").fetchall() == [(5,)]
    assert duckdb.sql(f"{recipe} WHERE day = 'unknown'").fetchall() == [(2,)]
    pandas = pytest.importorskip("pandas")
    assert len(pandas.read_parquet(tmp_path / "a" / "frames")) == 8
    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(str(tmp_path / "a" / "frames" / "**" / "*.parquet"), hive_partitioning=True)
    assert frame.filter(polars.col("camera") == "rear")["count_car"].sum() == 4
