from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest

from engines.errors import OutputError
from pipeline.outputs.encoded import EncodedPicture
from pipeline.outputs.live.segments import Recording, RecordingOptions
from pipeline.outputs.naming import utc
from pipeline.state import OutputChange, OutputState
from tests.pipeline.encoded import VIDEO, pictures, until

PLENTY = 1 << 40


class Recorded:
    """A recording under test: 25 pictures a second, a key frame every 10, with a disk of its own making."""

    def __init__(self, folder: Path, **options: float) -> None:
        self.free = PLENTY
        self.changes: list[OutputChange] = []
        self.dropped = 0
        self.recording = Recording(
            "cam", RecordingOptions(folder, **options), self._drop, self.changes.append, free=lambda _: self.free
        )
        self.recording.begin(VIDEO, lambda: None)
        self._source = iter(pictures(1_000_000))

    def _drop(self, count: int, _reason: str) -> None:
        self.dropped += count

    def put(self, count: int, wait: bool = True) -> list[EncodedPicture]:
        chosen = [next(self._source) for _ in range(count)]
        for picture in chosen:
            self.recording.put(picture, wait)
        return chosen

    def end(self) -> None:
        self.recording.end()
        assert self.recording.join(60)
        self.recording.close()

    def states(self) -> list[OutputState]:
        return [c.state for c in self.changes]

    def files(self) -> list[Path]:
        return sorted(self.recording.folder.glob("*.mp4"))


def segment_name(stream: str, at: float) -> str:
    """The name of a segment that begins at `at`, Unix seconds."""
    return f"{stream}_{utc(at).replace('-', '').replace(':', '')}.mp4"


def times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [Fraction(f.pts or 0) * (f.time_base or 0) for f in container.decode(video=0)]


def test_files_follow_each_other_without_losing_a_picture(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path, segment_seconds=1.5)
    recorded.put(200)
    recorded.end()
    files = recorded.files()
    assert [len(times(f)) for f in files] == [40] * 5, "cut at the first key frame (every 0.4 s) behind 1.5 s"
    assert all(times(f) == [Fraction(i, 25) for i in range(40)] for f in files)
    assert files[0].name == "cam_20231114T221320.000Z.mp4"
    assert files[1].name == "cam_20231114T221321.600Z.mp4"


def test_files_are_cut_by_size(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path, segment_megabytes=0.01)
    sent = recorded.put(300)
    recorded.end()
    files = recorded.files()
    assert len(files) > 2
    group = max(sum(len(p.data) for p in sent[i : i + 10]) for i in range(0, 300, 10))
    assert all(f.stat().st_size < 0.01e6 + group + 40 * 10 * 25 for f in files)
    assert sum(len(times(f)) for f in files) == 300


def test_a_file_has_its_final_name_when_it_is_whole(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path, segment_seconds=2)
    recorded.put(30)
    until(lambda: recorded.files())
    (partial,) = recorded.files()
    assert partial.name.endswith(".partial.mp4")
    recorded.end()
    (whole,) = recorded.files()
    assert whole.name == partial.name.replace(".partial", "")


@pytest.mark.seconds
def test_a_full_disk_pauses_the_recording_and_it_goes_on(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    recorded.put(50)
    until(lambda: OutputState.RUNNING in recorded.states())
    recorded.free = 10 << 20
    until(lambda: recorded.put(10) and OutputState.PAUSED in recorded.states())
    reason = recorded.changes[-1].reason
    assert reason == f"the disk of {tmp_path / 'cam'} has 10 MB left; free some space"
    (first,) = recorded.files()
    assert ".partial" not in first.name, "what was recorded is finished"
    assert len(times(first)) >= 50
    recorded.put(1000)  # nobody waits meanwhile
    assert recorded.dropped >= 1000
    recorded.free = PLENTY
    until(lambda: recorded.put(10) and recorded.states()[-1] is OutputState.RUNNING)
    recorded.end()
    assert len(recorded.files()) == 2


_UNTIL_FULL = textwrap.dedent("""
    import resource, sys
    from pathlib import Path
    from pipeline.outputs.live.segments import Recording, RecordingOptions
    from tests.pipeline.encoded import VIDEO, pictures
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
    recording = Recording("cam", RecordingOptions(Path(sys.argv[1])), observe=lambda c: print(c.state, c.reason))
    recording.begin(VIDEO, lambda: None)
    for picture in pictures(2000):
        recording.put(picture, True)
    recording.end()
    recording.join(60)
""")


@pytest.mark.slow
def test_a_write_that_fails_pauses_it_too(tmp_path: Path) -> None:
    """A limit on the file's size is the full disk that a test can make: writing fails in the middle of a fragment."""
    done = subprocess.run(
        [sys.executable, "-c", _UNTIL_FULL, str(tmp_path)], capture_output=True, text=True, check=True, timeout=200,
        cwd=Path(__file__).parents[4],
    )  # fmt: skip
    assert f"paused no space is left in {tmp_path / 'cam'}\n" in done.stdout
    assert "Traceback" not in done.stderr
    first = min((tmp_path / "cam").glob("*.mp4"))
    assert len(times(first)) > 25


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({"keep_hours": 2.5}, [2, 1, 0]),
        ({"keep_gigabytes": 2.5e-6}, [1, 0]),
        ({"keep_hours": 1.5, "keep_gigabytes": 1.0}, [1, 0]),
        ({}, [4, 3, 2, 1, 0]),
    ],
)
def test_the_oldest_go(tmp_path: Path, limits: dict[str, float], kept: list[int]) -> None:
    folder, now = tmp_path / "cam", time.time()
    folder.mkdir()
    names = {}
    for hours in range(5):
        path = folder / segment_name("cam", now - hours * 3600)
        path.write_bytes(bytes(1000))
        os.utime(path, (now - hours * 3600,) * 2)
        names[hours] = path
    mine = folder / "mine.mp4"
    mine.write_bytes(bytes(10_000))
    os.utime(mine, (0, 0))
    recorded = Recorded(tmp_path, **limits)
    recorded.put(1)
    recorded.end()
    assert [h for h in sorted(names, reverse=True) if names[h].exists()] == kept
    assert mine.exists(), "others' files are left alone"


def test_the_oldest_go_for_free_disk(tmp_path: Path) -> None:
    folder = tmp_path / "cam"
    folder.mkdir()
    for hours in range(5):
        (folder / segment_name("cam", 1e9 + hours * 3600)).write_bytes(bytes(1000))

    def free(_: Path) -> int:
        return 2_000_000_000 - 200_000_000 * len(list(folder.glob("cam_2001*")))

    recording = Recording("cam", RecordingOptions(tmp_path, keep_free_gigabytes=1.5), free=free)
    recording.begin(VIDEO, lambda: None)
    for picture in pictures(1):
        recording.put(picture, True)
    recording.end()
    assert recording.join(60)
    assert len(list(folder.glob("cam_2001*"))) == 2


@pytest.mark.seconds
def test_a_picture_that_the_file_does_not_take_costs_a_pause_and_no_more(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    first = recorded.put(20)
    recorded.recording.put(first[-5], True)  # FFmpeg takes no time twice
    until(lambda: OutputState.PAUSED in recorded.states())
    assert recorded.changes[-1].reason == f"{tmp_path / 'cam'} cannot be written: invalid argument"
    until(lambda: recorded.put(10) and recorded.states()[-1] is OutputState.RUNNING)
    recorded.end()
    assert len(times(recorded.files()[0])) == 20


def test_a_file_that_somebody_else_removes_holds_up_nothing(tmp_path: Path) -> None:
    (tmp_path / "cam").mkdir()
    (tmp_path / "cam" / segment_name("cam", 1e9)).symlink_to("gone")
    recorded = Recorded(tmp_path, keep_hours=1.0)
    recorded.put(30)
    recorded.end()
    assert OutputState.PAUSED not in recorded.states()
    assert sum(len(times(f)) for f in recorded.files() if f.exists()) == 30


def test_what_is_being_recorded_counts_too_and_stays(tmp_path: Path) -> None:
    recording = Recording("cam", RecordingOptions(tmp_path, keep_gigabytes=5e-6))
    names = [segment_name("cam", 1e9 + hour * 3600) for hour in range(4)]
    names[3] = names[3].replace(".mp4", ".partial.mp4")
    for name in names:
        (recording.folder / name).write_bytes(bytes(2000))
    recording._retain()
    assert sorted(p.name for p in recording.folder.iterdir()) == names[2:]


def test_the_newest_stay_when_the_clock_is_set_back(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path, segment_seconds=0.4)
    recorded.put(30)
    for picture in pictures(30, at=1_000_000.0 - 3600):
        recorded.recording.put(replace(picture, pts=picture.pts + 30 * 3600), True)
    recorded.end()
    files = recorded.files()
    assert [f.name for f in files] == [
        f"cam_20231114T2213{second}Z.mp4"
        for second in ("20.000", "20.400", "20.800", "20.801", "20.802", "20.803")
    ]  # fmt: skip
    tags = [metadata(f) for f in files]
    assert tags[2]["creation_time"].startswith("2023-11-14T22:13:20")
    assert tags[3]["creation_time"].startswith("1970-01-12T12:46:40"), "the name counts on, the tag tells the clock"
    recording = recorded.recording
    recording.options = RecordingOptions(tmp_path, keep_gigabytes=sum(f.stat().st_size for f in files[3:]) / 1e9)
    recording._retain()
    assert recorded.files() == files[3:]


def metadata(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return dict(container.metadata)


def test_a_name_goes_by_our_clock_and_the_cameras_stands_beside_it(tmp_path: Path) -> None:
    """The camera's clock is half a minute late, and is set in the middle."""
    recorded = Recorded(tmp_path, segment_seconds=0.4)
    for index, picture in enumerate(pictures(30)):
        camera = picture.at - (30 if index < 15 else 0)
        recorded.recording.put(replace(picture, captured_at=camera), True)
    recorded.end()
    files = recorded.files()
    assert [f.name[17:24] for f in files] == ["20.000Z", "20.400Z", "20.800Z"]
    assert [metadata(f)["description"] for f in files] == [
        f"captured_at 2023-11-14T22:{time}Z" for time in ("12:50.000", "12:50.400", "13:20.800")
    ]


_RECORD = textwrap.dedent("""
    import sys
    from pathlib import Path
    from pipeline.outputs.live.segments import Recording, RecordingOptions
    from tests.pipeline.encoded import VIDEO, pictures
    recording = Recording("cam", RecordingOptions(Path(sys.argv[1])))
    recording.begin(VIDEO, lambda: None)
    for index, picture in enumerate(pictures(100_000)):
        recording.put(picture, True)
        print(index, flush=True)
""")


@pytest.mark.slow
def test_what_a_killed_run_left_is_kept(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _RECORD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[4]) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 400:
                process.kill()
                break
    (partial,) = (tmp_path / "cam").glob("*.mp4")
    assert ".partial" in partial.name
    Recording("cam", RecordingOptions(tmp_path))
    (whole,) = (tmp_path / "cam").glob("*.mp4")
    assert ".partial" not in whole.name
    assert len(times(whole)) >= 400 - 250 - 50, "10 s may wait in the queue, a fragment in the muxer"


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"recordings cannot be written to .*file/cam: not a directory"):
        Recording("cam", RecordingOptions(tmp_path / "file"))
