"""Which clips inputs hold, whose they are, and what is left out; cameras of one name; stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.errors import SourceError
from pipeline.archive.inputs.cameras import told_apart
from pipeline.archive.inputs.footage import Candidate, look_for

ARCHIVE = Path("archive")


def filled(folder: Path, names: str) -> Path:
    for name in names.split():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def cameras(folder: Path, *inputs: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for clip in look_for([str(folder / each) for each in inputs or ("",)], ARCHIVE).clips:
        found.setdefault(clip.camera, []).append(clip.name)
    return found


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ("DCIM/100GOPRO/GX010001.MP4 DCIM/101GOPRO/GX010002.MP4", {"main": ["GX010001.MP4", "GX010002.MP4"]}),
        ("a/clip_10.mp4 a/clip_9.mp4", {"main": ["clip_9.mp4", "clip_10.mp4"]}),
        ("2023-01-01_12-00-00-front.mp4 2023-01-01_12-00-00-back.mp4", {
            "front": ["2023-01-01_12-00-00-front.mp4"], "back": ["2023-01-01_12-00-00-back.mp4"],
        }),
        ("Front/1.mp4 Rear/1.mp4", {"front": ["1.mp4"], "rear": ["1.mp4"]}),
        # Names of two makers in one folder, which a trip refuses.
        ("2023_0101_120000_0001F.MP4 GX010001.MP4", {
            "front": ["2023_0101_120000_0001F.MP4"], "main": ["GX010001.MP4"],
        }),
        (".Trashes/1.mp4 $RECYCLE.BIN/2.mp4 a/._GX010001.MP4 a/GX010001.MP4", {"main": ["GX010001.MP4"]}),
        ("a/GX010001.MP4 a/GL010001.LRV a/GX010001.THM docs/cv.pdf music/song.mp3", {"main": ["GX010001.MP4"]}),
    ],
)  # fmt: skip
def test_clips_of_folders_by_camera(names: str, wanted: dict[str, list[str]], tmp_path: Path) -> None:
    assert cameras(filled(tmp_path / "card", names)) == wanted


def test_files_globs_and_folders_may_overlap(tmp_path: Path) -> None:
    filled(tmp_path, "a/1.mp4 a/2.mp4 b/3.mp4")
    assert cameras(tmp_path, "a", "a/1.mp4", "b/*.mp4", "") == {"main": ["1.mp4", "2.mp4", "3.mp4"]}


def test_what_is_no_clip_is_counted_and_a_mixture_is_said(tmp_path: Path) -> None:
    filled(tmp_path, "a/GX010001.MP4 a/GL010001.LRV a/cv.pdf b/2023_0101_120000_0001F.MP4 b/GX010001.MP4 c/p.jpg")
    found = look_for([str(tmp_path)], ARCHIVE)
    assert {kind: count for kind, count in found.left_out.items() if count} == {"proxies": 1, "other files": 2}
    (sentence,) = found.said
    assert "clips of different cameras" in sentence


@pytest.mark.parametrize(("given", "sentence"), [("gone", "does not exist"), ("empty", "no video clips in")])
def test_inputs_without_clips_are_refused(given: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=sentence):
        look_for([str(tmp_path / given)], ARCHIVE)


def test_the_archive_itself_is_passed_over(tmp_path: Path) -> None:
    filled(tmp_path, "card/1.mp4 card/archive/2.mp4")
    assert [c.name for c in look_for([str(tmp_path)], tmp_path / "card" / "archive").clips] == ["1.mp4"]
    with pytest.raises(SourceError, match="the archive itself"):
        look_for([str(tmp_path / "card" / "archive")], tmp_path / "card" / "archive")


def test_a_store_is_listed_and_its_files_are_fetched() -> None:
    fsspec = pytest.importorskip("fsspec")
    from pipeline.archive.inputs.stores import local_copy

    store = fsspec.filesystem("memory")
    for name in ("2023_0101_120000_0001F.MP4", "2023_0101_120000_0001R.MP4", "cv.pdf"):
        store.pipe(f"/footage/Movie/{name}", name.encode())
    found = look_for(["memory://footage"], ARCHIVE)
    assert {clip.camera: clip.path for clip in found.clips} == {
        "front": "memory://footage/Movie/2023_0101_120000_0001F.MP4",
        "rear": "memory://footage/Movie/2023_0101_120000_0001R.MP4",
    }
    with local_copy(found.clips[0].path, found.clips[0].bytes) as path:
        assert path.read_bytes() == b"2023_0101_120000_0001F.MP4"
        assert path.stat().st_mtime == 0
    assert not path.exists()
    with pytest.raises(SourceError, match="holds nothing"):
        look_for(["memory://nothing"], ARCHIVE)
    with pytest.raises(SourceError, match="cannot be read"):
        look_for(["nosuch://a"], ARCHIVE)


# Two cameras of one name ----------------------------------------------------------------------------------------------
HOUR = 3600.0


Spans = dict[str, tuple[float, float] | None]


def candidates(**folders: list[tuple[float, float] | None]) -> tuple[list[Candidate], Spans]:
    clips: list[Candidate] = []
    spans: Spans = {}
    for folder, begun in folders.items():
        for number, span in enumerate(begun):
            path = f"/{folder.replace('__', '/')}/{number}.mp4"
            clips.append(Candidate(path, 1, "1", "front", "", str(Path(path).parent)))
            spans[path] = span
    return clips, spans


@pytest.mark.parametrize(
    ("folders", "wanted"),
    [
        ({"car_a": [(0, 60), (60, 120)], "car_b": [(10, 70), (70, 130)]}, {"/car_a": "car_a", "/car_b": "car_b"}),
        ({"x__DCIM": [(0, 60)], "y__DCIM": [(30, 90)]}, {"/x/DCIM": "x", "/y/DCIM": "y"}),
        # A card's folders follow each other; clips may touch.
        ({"d100": [(0, 60), (60, 120)], "d101": [(119, 180)]}, {}),
        # A clock that was reset once.
        ({"d100": [(0, 60), (HOUR, 2 * HOUR)], "d101": [(0, 60), (9 * HOUR, 9.1 * HOUR), (10 * HOUR, 11 * HOUR)]}, {}),
        # Recordings of events, made beside the usual ones.
        ({"card__Normal": [(0, 60), (60, 120)], "card__Event": [(30, 50)]}, {}),
        # Nobody knows when.
        ({"car_a": [None, None], "car_b": [None]}, {}),
    ],
)
def test_cameras_of_one_name_are_told_by_recording_at_once(
    folders: dict[str, list[tuple[float, float] | None]], wanted: dict[str, str]
) -> None:
    clips, spans = candidates(**folders)
    apart = told_apart(clips, lambda clip: spans[clip.path])
    assert {clip.folder: clip.car for clip in apart if clip.car} == wanted
