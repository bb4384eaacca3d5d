"""`roadlens archive` from end to end: each clip once; and what it refuses. `tests/resilience` kills it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("duckdb")

from pipeline.archive import read_archive
from pipeline.archive.crew.processes import Here, Processes
from pipeline.archive.indexing import Indexing
from pipeline.archive.journal import Begun, Failed, Journal, Known, read_state
from pipeline.archive.terms import terms_of
from pipeline.config import Config, ModelConfig
from tests.pipeline.archive.card import POISON, contents, write_card

Roadlens = Callable[..., subprocess.CompletedProcess[str]]

FRAMES = 30


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    folder = tmp_path_factory.mktemp("card")
    return folder, write_card(folder, clips=4, frames=FRAMES)


def command(card: Path, archive: Path, model: Path, *more: str) -> list[str]:
    return ["archive", str(card), str(archive), "--model", str(model), "--device", "cpu", "--every", "5", *more]


@pytest.mark.slow
def test_each_clip_is_indexed_once(
    card: tuple[Path, list[Path]], segmenter: Path, tmp_path: Path, roadlens: Roadlens
) -> None:
    folder, clips = card
    undisturbed = tmp_path / "undisturbed"
    done = roadlens(*command(folder, undisturbed, segmenter, "--processes", "1"))
    assert done.returncode == 0, done.stderr
    assert f"{len(clips)} of {len(clips) + 3} clips indexed" in done.stderr
    assert "one frame in 5" in done.stderr
    assert done.stderr.count("set aside: ") == 3
    before = contents(undisturbed)

    again = roadlens(*command(folder, undisturbed, segmenter))
    assert again.returncode == 0
    assert f"0 of {len(clips) + 3} clips indexed, {len(clips)} were there, 3 set aside" in again.stderr
    assert contents(undisturbed) == before

    _check(undisturbed, folder, clips)


def _check(archive: Path, folder: Path, clips: list[Path]) -> None:
    read = read_archive(archive)
    rows = {row["path"]: row for row in read.clips.to_pylist()}
    assert len(read.clips) == len(rows) == len(clips)
    assert set(rows) == {str(clip.resolve()) for clip in clips}
    assert {Path(path).name for path in read.missing} == set(POISON)
    assert all(row["frames"] == FRAMES and row["analysed"] == FRAMES // 5 for row in rows.values())
    counted = read.connection.execute(
        "SELECT clip, count(*), count(DISTINCT frame) FROM frames GROUP BY clip"
    ).fetchall()
    assert sorted(row[1:] for row in counted) == [(FRAMES // 5, FRAMES // 5)] * len(clips)
    by_name = {Path(path).name: row for path, row in rows.items()}
    first, later = by_name["2023_0101_120000_0000F.MP4"], by_name["2023_0101_121200_0002F.MP4"]
    assert (first["camera"], first["maker"], first["recorded_from"], first["day"]) == (
        "front", "Viofo", "name", "2023-01-01",
    )  # fmt: skip
    assert first["trip"] == by_name["2023_0101_120100_0001R.MP4"]["trip"] != later["trip"]
    assert by_name["1980_0101_120000_0003F.MP4"]["recorded_from"] == "modified"
    phone = by_name["clip_0.mp4"]
    assert (phone["camera"], phone["recorded_from"], phone["latitude"]) == ("main", "modified", None)
    assert all((archive / name).read_bytes()[:2] == b"\xff\xd8" for row in rows.values() for name in row["thumbnails"])
    assert not list((archive / "staging").iterdir())
    assert sum(len(m.frames) for m in read.find("seconds >= 0")) == len(clips) * FRAMES // 5


@pytest.mark.slow
def test_other_terms_are_refused_and_all_is_indexed_anew(
    card: tuple[Path, list[Path]], segmenter: Path, tmp_path: Path, roadlens: Roadlens
) -> None:
    _, clips = card
    one = str(clips[0])
    words = ["--model", str(segmenter), "--device", "cpu"]
    assert roadlens("archive", one, "a", *words).returncode == 0
    refused = roadlens("archive", one, "a", *words, "--every", "5")
    assert refused.returncode == 2
    assert "one frame in 15, and bits" in refused.stderr
    assert "--again" in refused.stderr
    lost = roadlens("archive", str(clips[1]), "a", *words, "--every", "5", "--again")
    assert lost.returncode == 2
    assert "would lose 1 clips" in lost.stderr
    anew = roadlens("archive", one, str(clips[1]), "a", *words, "--every", "5", "--again")
    assert anew.returncode == 0, anew.stderr
    assert len(read_archive(tmp_path / "a").frames) == 2 * FRAMES // 5
    cut = roadlens("find", "a", "seconds < 0.5", "--clips", "cuts", "--before", "0", "--after", "0")
    assert cut.returncode == 0, cut.stderr
    assert len(list((tmp_path / "cuts").glob("front_20230101T120*Z.mp4"))) == 2
    lines = roadlens("find", "a", "seconds < 0.5", "--json", "--limit", "1")
    assert lines.stdout.count("\n") == 1
    assert '"camera":"front"' in lines.stdout


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["archive", "card"], 2, "name what is to be indexed, and behind it the archive"),
        (["archive", "card", "s3://bucket/a"], 2, "an archive is a folder of this machine"),
        (["archive", "gone", "a"], 3, "gone does not exist"),
        (["archive", "card", "a", "--model", "cityscape-unet"], 4, "the nearest is `cityscapes-unet`"),
        (["archive", "card", "card/1.mp4"], 2, "is a file; name a folder for the archive"),
        (["archive", "card", "docs"], 2, "a folder with other files in it, such as cv.pdf, and no archive"),
        (["find", "card", "person"], 3, "card is no archive: it holds no archive.json"),
        (["find", "begun", "person"], 3, "begun is half-written: 0 of 0 clips are indexed"),
        (["find", "torn", "person"], 3, "archive.json cannot be read"),
        (["trip", "card"], 3, "card is no archive: it holds no archive.json"),
        (["trip", "begun"], 3, "begun is half-written: 0 of 0 clips are indexed"),
    ],
)
def test_bad_input_ends_in_a_sentence(
    words: list[str], code: int, sentence: str, tmp_path: Path, roadlens_here: Roadlens
) -> None:
    from pipeline.archive.terms import write_terms
    from tests.pipeline.archive.made_up import TERMS

    for folder in ("card", "docs", "begun", "torn"):
        (tmp_path / folder).mkdir()
    (tmp_path / "card" / "1.mp4").write_bytes(b"1")
    (tmp_path / "docs" / "cv.pdf").write_bytes(b"1")
    write_terms(tmp_path / "begun", TERMS)
    (tmp_path / "torn" / "archive.json").write_text("{")
    done = roadlens_here(*words)
    assert sentence in done.stderr, done.stderr
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "a").exists()


def test_a_second_process_does_not_write_beside_the_first(tmp_path: Path, roadlens_here: Roadlens) -> None:
    import fcntl

    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "1.mp4").write_bytes(b"1")
    (tmp_path / "a").mkdir()
    with (tmp_path / "a" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = roadlens_here("archive", "card", "a")
    assert "is being written by another process" in done.stderr
    assert done.returncode == 5


def test_what_is_away_is_tried_again_by_the_next_run(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    away = Failed("a", "/a.mp4 may not be read by this user", away=True)
    journal.write(Known("a", "/a.mp4", 1, "1", "front"), Begun("a", 0.0), away, Begun("a", 1.0), away)
    assert (journal.state.clips["a"].away, journal.state.clips["a"].tries) == (2, 0)
    journal.close()
    journal = Journal(tmp_path)
    assert (journal.state.clips["a"].away, journal.state.clips["a"].kills, journal.state.clips["a"].tries) == (0, 0, 0)
    assert journal.state.clips["a"].reason == "/a.mp4 may not be read by this user"
    journal.close()


@pytest.mark.slow
def test_a_clip_that_is_away_is_set_aside_for_this_run_alone(
    segmenter: Path, tmp_path: Path, roadlens: Roadlens
) -> None:
    card = tmp_path / "card"
    (clip,) = (path for path in write_card(card, clips=1, frames=FRAMES) if path.name.endswith("F.MP4"))
    config = Config(models=(ModelConfig(str(segmenter), device="cpu", every=5),))
    terms = terms_of(config)
    content = clip.read_bytes()
    with Indexing([str(clip)], tmp_path / "a", terms) as run:
        clip.write_bytes(content[:-1])  # it is being written anew
        crew = Processes(config, terms, Here(1))
        ((path, reason),) = run.run(crew).set_aside
        crew.close()
    assert path == str(clip)
    assert f"had {len(content)} bytes when it was found and has {len(content) - 1} now" in reason
    clip.write_bytes(content)
    done = roadlens("archive", clip, "a", "--model", segmenter, "--device", "cpu", "--every", "5")
    assert "1 of 1 clips indexed" in done.stderr, done.stderr


def test_a_run_that_is_killed_at_a_clip_counts_against_it_less_than_a_failure(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(Known("a", "/a.mp4", 1, "1", "front"), Begun("a", 0.0))
    journal.close()
    journal = Journal(tmp_path)  # the run is gone
    assert (journal.state.clips["a"].kills, journal.state.clips["a"].tries) == (1, 0)
    journal.write(Begun("a", 1.0), Failed("a", "it is damaged"))
    assert (journal.state.clips["a"].kills, journal.state.clips["a"].tries) == (1, 1)
    journal.close()
    assert read_state(tmp_path).clips["a"].reason == "it is damaged"
