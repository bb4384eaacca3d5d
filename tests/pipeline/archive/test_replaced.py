"""Clips that others have replaced at their place leave no row; those that were deleted stay."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.errors import UsageError
from pipeline.archive.indexing import Indexing
from pipeline.archive.jobs import Answer, Job, Outcome
from pipeline.archive.journal import Copied, Journal, read_state
from pipeline.archive.reading import Archive
from pipeline.archive.rows import ClipRow, FrameRow, Indexed, encode
from tests.footage import write_clip
from tests.pipeline.archive.card import contents
from tests.pipeline.archive.made_up import BEGUN, EVERY, RATE, TERMS, clip, put
from tests.pipeline.archive.test_find import frames

Roadlens = Callable[..., subprocess.CompletedProcess[str]]


class Reader:
    """A crew of one that finds in a clip what its bytes say: `MINUTES SECONDS`, since `BEGUN`."""

    def __init__(self) -> None:
        self._over: list[Outcome] = []
        self.begun: list[str] = []

    def free(self) -> int:
        return 1

    def begin(self, job: Job) -> None:
        self.begun.append(job.path)
        minutes, seconds = map(int, Path(job.path.removeprefix("file://")).read_bytes().split()[:2])
        looks = [FrameRow(k * EVERY, k * EVERY / RATE, None, {"road": 0.5}, {}) for k in range(seconds)]
        row = ClipRow(
            clip=job.clip, path=job.path, bytes=job.bytes, camera=job.camera, maker=job.maker,
            recorded_at=BEGUN + 60 * minutes, recorded_from="name", seconds=float(seconds), rate=RATE,
            frames=seconds * EVERY, analysed=seconds,
        )  # fmt: skip
        self._over.append(
            Outcome(job, Answer(encode(Indexed(row, looks, thumbnails={0: b"jpeg" + job.clip.encode()}))))
        )

    def over(self, seconds: float) -> list[Outcome]:
        over, self._over = self._over, []
        return over

    def shares(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        pass


def index(
    card: Path | str, archive: Path, *, drop: bool = True, again: bool = False
) -> tuple[Indexing, Reader, list[str]]:
    """What a run did, what it looked at, and what it said."""
    said: list[str] = []
    reader = Reader()
    with Indexing([str(card)], archive, TERMS, again=again, drop_replaced=drop, say=said.append) as run:
        run.run(reader)
    return run, reader, said


def record(path: Path, minutes: int, seconds: int = 2, salt: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{minutes} {seconds} {salt}")
    return path


def fresh(card: Path, archive: Path) -> dict[str, bytes]:
    shutil.rmtree(archive, ignore_errors=True)
    index(card, archive)
    return contents(archive)


# What a run does ------------------------------------------------------------------------------------------------------
def test_a_clip_that_was_replaced_leaves_no_row(tmp_path: Path) -> None:
    card, archive = tmp_path / "card", tmp_path / "a"
    for k in range(3):
        record(card / f"{k}.mp4", k)
    record(card / "3.mp4", 2000)  # alone in its day
    first, _, _ = index(card, archive)
    assert (first.summary.indexed, first.summary.replaced) == (4, 0)
    record(card / "1.mp4", 4, 3)
    record(card / "3.mp4", 5)
    run, reader, _ = index(card, archive)
    assert (run.summary.found, run.summary.there, run.summary.indexed, run.summary.replaced) == (4, 2, 2, 2)
    assert {Path(path).name for path in reader.begun} == {"1.mp4", "3.mp4"}
    assert contents(archive) == fresh(card, tmp_path / "b")
    assert not (archive / "frames" / "day=2023-11-16").exists()
    assert Archive(archive).missing == {}
    again, _, said = index(card, archive)
    assert (again.summary.indexed, again.summary.replaced, said) == (0, 0, [])


def test_what_was_recorded_over_stays_unless_it_is_asked_for(tmp_path: Path) -> None:
    """A card that was emptied begins with the same names again: what the archive knows is all that is left."""
    card, archive = tmp_path / "card", tmp_path / "a"
    for k in range(2):
        record(card / f"{k}.mp4", k)
    index(card, archive, drop=False)
    for k in range(2):
        record(card / f"{k}.mp4", 3000 + k, 3)
    run, _, _ = index(card, archive, drop=False)
    assert (run.summary.indexed, run.summary.replaced) == (2, 2)
    assert len(Archive(archive).clips) == 4
    before = contents(archive)
    run, _, said = index(card, archive, drop=False)
    assert (run.summary.replaced, said) == (0, [])  # said once
    assert contents(archive) == before
    with pytest.raises(UsageError, match=r"would lose 2 clips of .*--drop-replaced gives up those"):
        index(card, archive, drop=False, again=True)
    assert contents(archive) == before
    run, _, _ = index(card, archive)
    assert run.summary.replaced == 2
    assert contents(archive) == fresh(card, tmp_path / "b")


def test_a_clip_whose_content_is_elsewhere_stays_and_is_said_to_be_there(tmp_path: Path) -> None:
    card, archive = tmp_path / "card", tmp_path / "a"
    record(card / "1.mp4", 1)
    index(card, archive)
    (card / "locked").mkdir()
    (card / "1.mp4").rename(card / "locked" / "1.mp4")
    record(card / "1.mp4", 2)
    run, reader, _ = index(card, archive)
    assert (run.summary.indexed, run.summary.replaced) == (1, 0)
    assert [Path(path).parent.name for path in reader.begun] == ["card"]
    assert contents(archive) == fresh(card, tmp_path / "b")


def test_a_copy_that_was_seen_once_keeps_a_clip_even_where_its_disk_is_not_named_now(tmp_path: Path) -> None:
    card, disk, archive = tmp_path / "card", tmp_path / "disk", tmp_path / "a"
    record(card / "1.mp4", 1)
    disk.mkdir()
    shutil.copy(card / "1.mp4", disk / "1.mp4")
    index(card, archive)
    index(disk, archive)
    index(card, archive)
    record(card / "1.mp4", 2)
    run, _, _ = index(card, archive)
    assert (run.summary.indexed, run.summary.replaced) == (1, 0)
    assert {row["path"] for row in Archive(archive).clips.to_pylist()} == {
        str(card / "1.mp4"), str(disk / "1.mp4"),
    }  # fmt: skip
    record(disk / "1.mp4", 3)
    run, _, _ = index(disk, archive)
    assert run.summary.replaced == 1


def test_a_clip_that_was_deleted_stays(tmp_path: Path) -> None:
    card, archive = tmp_path / "card", tmp_path / "a"
    for k in range(2):
        record(card / f"{k}.mp4", k)
    index(card, archive)
    before = contents(archive)
    (card / "0.mp4").unlink()
    run, _, said = index(card, archive)
    assert (run.summary.found, run.summary.there, run.summary.replaced, run.summary.set_aside) == (1, 1, 0, [])
    assert said == []
    assert contents(archive) == before
    assert Archive(archive).missing == {}


def test_a_clip_that_is_put_back_is_there_again(tmp_path: Path) -> None:
    card, archive = tmp_path / "card", tmp_path / "a"
    path = record(card / "1.mp4", 1)
    index(card, archive)
    before, content = contents(archive), path.read_bytes()
    record(path, 2)
    index(card, archive)
    path.write_bytes(content)
    run, _, _ = index(card, archive)
    assert (run.summary.indexed, run.summary.replaced) == (1, 1)
    assert contents(archive) == before


def test_the_same_content_with_another_time_of_change_is_not_another_clip(tmp_path: Path) -> None:
    card, archive = tmp_path / "card", tmp_path / "a"
    path = record(card / "1.mp4", 1)
    index(card, archive)
    os.utime(path, (1, 1))
    run, reader, _ = index(card, archive)
    assert (reader.begun, run.summary.replaced, run.summary.there) == ([], 0, 1)


def test_a_file_that_may_not_be_read_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.session import fingerprint

    card, archive = tmp_path / "card", tmp_path / "a"
    path = record(card / "1.mp4", 1)
    index(card, archive)
    before = contents(archive)
    os.utime(path, (1, 1))
    with monkeypatch.context() as patched:
        patched.setattr(fingerprint, "fingerprint", lambda _path: "")  # as of a file that may not be read
        with Indexing([str(card)], archive, TERMS) as run:
            assert (run.to_do, run.summary.replaced) == (1, 0)
            run.run(None)
    assert contents(archive) == before
    run, reader, _ = index(card, archive)
    assert (reader.begun, run.summary.there, run.summary.replaced) == ([], 1, 0)
    assert len(read_state(archive).clips) == 1


@pytest.mark.seconds
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    runs=st.lists(
        st.dictionaries(st.sampled_from(["a/1.mp4", "a/2.mp4", "b/1.mp4"]), st.integers(0, 4), min_size=3, max_size=3),
        min_size=1, max_size=5,
    )
)  # fmt: skip
def test_however_clips_replace_and_move_each_other_the_tables_are_those_of_an_archive_made_now(
    runs: list[dict[str, int]], tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path, ignore_errors=True)
    card, archive = tmp_path / "card", tmp_path / "archive"
    for places in runs:
        for name, number in places.items():
            record(card / name, 3000 * (number % 2) + number, 1 + number)
        index(card, archive)
    read, theirs = Archive(archive), fresh(card, tmp_path / "fresh")
    clips = {row["clip"]: row["path"] for row in read.clips.to_pylist()}
    assert all((card / name).exists() for name in runs[-1])
    assert set(clips) == set(read.state.clips)
    first = {row["clip"]: row["path"] for row in Archive(tmp_path / "fresh").clips.to_pylist()}
    assert set(first) == set(clips)
    assert all(Path(clips[each]).read_bytes() == Path(path).read_bytes() for each, path in first.items())
    if clips == first:  # of two copies the one that was there first stands in the table
        assert contents(archive) == theirs


@pytest.mark.seconds
@pytest.mark.parametrize("meanwhile", [False, True])
@pytest.mark.parametrize("step", range(22))
def test_a_crash_between_any_two_changes_of_files_changes_no_byte(
    step: int, meanwhile: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, archive = tmp_path / "card", tmp_path / "a"
    for k in range(3):
        record(card / f"{k}.mp4", k)
    record(card / "3.mp4", 2000)
    index(card, archive)
    record(card / "1.mp4", 4, 3)
    record(card / "3.mp4", 5)
    left = step
    replace, unlink = Path.replace, Path.unlink

    def dies(change: Callable[..., object]) -> Callable[..., object]:
        def changed(self: Path, *args: object, **named: object) -> object:
            nonlocal left
            if archive in self.parents:
                left -= 1
                if left < 0:
                    raise KeyboardInterrupt
            return change(self, *args, **named)

        return changed

    with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
        patched.setattr(Path, "replace", dies(replace))
        patched.setattr(Path, "unlink", dies(unlink))
        index(card, archive)
    if meanwhile:  # what was being put into the tables is replaced before the next run
        record(card / "1.mp4", 4000, 1)
        record(card / "3.mp4", 6)
    _, _, said = index(card, archive)
    assert not any("damaged" in each for each in said)
    assert contents(archive) == fresh(card, tmp_path / "b")


def test_rows_that_stand_from_before_replacements_were_known_go(tmp_path: Path) -> None:
    card = tmp_path / "card"
    record(card / "1.mp4", 2)
    old = clip(1, BEGUN, frames(2), path=card / "1.mp4")
    put(tmp_path / "a", [old])
    record(card / "1.mp4", 3, 1)
    run, _, _ = index(card, tmp_path / "a")
    assert run.summary.replaced == 1
    assert contents(tmp_path / "a") == fresh(card, tmp_path / "b")


def test_what_is_put_into_a_store_under_the_same_name_replaces_what_was_there(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    card, archive = tmp_path / "card", tmp_path / "a"
    record(card / "1.mp4", 1)
    record(card / "2.mp4", 2)
    index(f"file://{card}", archive)
    record(card / "1.mp4", 3, 3)
    (card / "2.mp4").unlink()
    run, _, _ = index(f"file://{card}", archive)
    assert (run.summary.indexed, run.summary.replaced) == (1, 1)
    assert [row["path"] for row in Archive(archive).clips.to_pylist()] == [
        f"file://{card}/2.mp4", f"file://{card}/1.mp4",
    ]  # fmt: skip


def test_clips_that_change_places_stay_and_stand_where_they_are(tmp_path: Path) -> None:
    card, archive = tmp_path / "card", tmp_path / "a"
    one, two = record(card / "1.mp4", 1), record(card / "2.mp4", 2)
    index(card, archive)
    one.rename(card / "3")
    two.rename(one)
    (card / "3").rename(two)
    run, reader, _ = index(card, archive)
    assert (reader.begun, run.summary.there, run.summary.replaced) == ([], 2, 0)
    assert contents(archive) == fresh(card, tmp_path / "b")


# Clips that are gone --------------------------------------------------------------------------------------------------
def test_find_says_which_clips_are_gone_and_that_is_no_error(tmp_path: Path, roadlens_here: Roadlens) -> None:
    (tmp_path / "card").mkdir()
    kept, gone, other = (tmp_path / "card" / f"{k}.mp4" for k in range(3))
    for path in (kept, gone, other):
        write_clip(path, frames=20)
    put(
        tmp_path / "a",
        [clip(1, BEGUN, frames(1), path=kept), clip(2, BEGUN, frames(1), path=gone, camera="rear")],
    )
    gone.unlink()
    done = roadlens_here("find", "a", "seconds >= 0", "--clips", "cuts")
    assert done.returncode == 0, done.stderr
    assert f"gone: {gone} is not there any more" in done.stderr
    assert len(list((tmp_path / "cuts").iterdir())) == 1
    size = kept.stat().st_size
    kept.write_bytes(other.read_bytes()[:size].ljust(size, b"\0"))  # another one of the same length
    os.utime(kept, (5, 5))
    done = roadlens_here("find", "a", "seconds >= 0", "--clips", "others")
    assert done.returncode == 0, done.stderr
    assert f"gone: another clip is at {kept} now" in done.stderr
    assert list((tmp_path / "others").iterdir()) == []


def test_a_clip_is_cut_from_its_copy_where_it_is_gone(tmp_path: Path, roadlens_here: Roadlens) -> None:
    (tmp_path / "card").mkdir()
    path = tmp_path / "card" / "1.mp4"
    write_clip(path, frames=20)
    archive = put(tmp_path / "a", [clip(1, BEGUN, frames(1), path=path)])
    assert archive.path == tmp_path / "a"
    journal = Journal(tmp_path / "a")
    copy = Path(shutil.copy(path, tmp_path / "copy.mp4"))
    journal.write(Copied("0001", str(copy), str(copy.stat().st_mtime_ns)))
    journal.close()
    path.unlink()
    done = roadlens_here("find", "a", "seconds >= 0", "--clips", "cuts")
    assert (done.returncode, "gone" in done.stderr) == (0, False), done.stderr
    assert len(list((tmp_path / "cuts").iterdir())) == 1
