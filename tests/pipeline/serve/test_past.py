"""What was seen over hours, kept in bounded memory; and the files of a stream, and of nobody else, over HTTP."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from pipeline.config import Config
from pipeline.frame import Box
from pipeline.outputs.event_clip import EventClipOptions
from pipeline.outputs.live.opening import OutputOptions
from pipeline.outputs.live.segments import RecordingOptions
from pipeline.serve.past.history import PERIOD, SPAN, StreamHistory
from pipeline.serve.past.stored import stored_files
from pipeline.state import SourceState, StateChange
from tests.footage import write_clip
from tests.pipeline.fake_analysis import analysis
from tests.pipeline.serve.conftest import DRIVE, Server, running

NOON = 1_700_000_000.0 // PERIOD * PERIOD


def boxes(*labels: str) -> tuple[Box, ...]:
    return tuple(Box(0, 0, 1, 1, 0, label, 0.9, "model") for label in labels)


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


# History ------------------------------------------------------------------------------------------------------------
def test_a_point_is_the_mean_of_areas_and_the_most_boxes_at_once() -> None:
    clock = Clock()
    history = StreamHistory(clock)
    for second, share, seen in ((0, 0.2, ("car", "car")), (9.9, 0.6, ("car",)), (10, 0.5, ()), (30, 0.1, ("person",))):
        clock.now = NOON + second
        history.consume(analysis(area={"road": share}, boxes=boxes(*seen)))
    points = history.timeline("drive", NOON, clock.now).points
    assert [(p.at - NOON, p.frames, p.area, p.boxes) for p in points] == [
        (0, 2, {"road": 0.4}, {"car": 2}), (10, 1, {"road": 0.5}, {}), (30, 1, {"road": 0.1}, {"person": 1}),
    ]  # fmt: skip
    assert history.timeline("another", NOON, clock.now).points == []


def test_points_put_together_say_what_all_of_them_say() -> None:
    clock, history = Clock(), None
    history = StreamHistory(clock)
    generator = random.Random(5)
    frames, road, most = 0, 0.0, 0
    for _ in range(3000):
        clock.now += generator.uniform(0.1, 30)
        share, count = generator.random(), generator.randrange(5)
        history.consume(analysis(area={"road": share}, boxes=boxes(*["car"] * count)))
        frames, road, most = frames + 1, road + share, max(most, count)
    for wanted in (1, 7, 50, 400):
        line = history.timeline("drive", NOON, clock.now, wanted)
        assert len(line.points) <= wanted + 1
        assert line.period * wanted >= clock.now - NOON
        assert sum(p.frames for p in line.points) == frames
        assert sum(p.area["road"] * p.frames for p in line.points) == pytest.approx(road, abs=0.1)
        assert max(p.boxes.get("car", 0) for p in line.points) == most
        assert all(a.at + line.period <= b.at for a, b in zip(line.points, line.points[1:], strict=False))


def test_a_day_is_kept_and_no_more_however_long_it_runs_and_however_much_is_seen() -> None:
    clock = Clock()
    history = StreamHistory(clock)
    for number in range(3 * SPAN // 600):
        clock.now = NOON + number * 600
        history.consume(analysis(area={f"class {number}": 0.5}, boxes=boxes(f"label {number}")))
        history.changed(StateChange("drive", SourceState.STREAMING, at=clock.now))
    line = history.timeline("drive", 0, clock.now)
    assert 1 <= sum(p.frames for p in line.points) <= SPAN // 600
    assert line.points[0].at >= clock.now - SPAN - line.period
    seen = history._seen["drive"]
    assert seen._area.bytes + seen._boxes.bytes <= 256 * 8640 * 6
    history.forget("drive")
    assert history.timeline("drive", 0, clock.now).states == []


def test_a_clock_that_is_set_back_loses_nothing_that_comes() -> None:
    clock = Clock()
    history = StreamHistory(clock)
    for second in (100, 110, 20, 30):
        clock.now = NOON + second
        history.consume(analysis(area={"road": 0.5}))
    assert [p.at - NOON for p in history.timeline("drive", NOON, NOON + 200).points] == [20, 30]
    clock.now = NOON + 200
    assert [p.at - NOON for p in history.timeline("drive", NOON, NOON + 200).points] == [20, 30, 100, 110]


def test_the_state_that_holds_at_the_beginning_is_among_the_states() -> None:
    clock = Clock()
    history = StreamHistory(clock)
    for second, state in ((0, "streaming"), (50, "stalled"), (90, "streaming")):
        history.changed(StateChange("drive", SourceState(state), "why" * (state == "stalled"), at=NOON + second))
    clock.now = NOON + 100
    states = history.timeline("drive", NOON + 60, NOON + 100).states
    assert [(s.at - NOON, s.state, s.reason) for s in states] == [(50, "stalled", "why"), (90, "streaming", "")]


# Files --------------------------------------------------------------------------------------------------------------
@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Of recordings and of clips: some of the stream's, and some that are not."""
    records, clips = tmp_path / "records", tmp_path / "clips"
    for folder in (records / "drive", records / "drive_2", clips / "drive"):
        folder.mkdir(parents=True)
    write_clip(records / "drive" / "drive_20231114T221320.000Z.mp4", frames=10, size=(64, 48))
    content = (records / "drive" / "drive_20231114T221320.000Z.mp4").read_bytes()
    (records / "drive" / "drive_20231114T221330.000Z.partial.mp4").write_bytes(content)
    (records / "drive" / "holiday.mp4").write_bytes(content)
    (records / "drive_2" / "drive_2_20231114T221320.000Z.mp4").write_bytes(content)
    (clips / "drive" / "drive_20231114T221325.500Z_hard-braking.mp4").write_bytes(content)
    (clips / "drive" / "drive_20231114T221327.000Z_event.partial.mp4").write_bytes(content)
    (tmp_path / "secret").write_text("not yours")
    (records / "drive" / "drive_20231114T221340.000Z.mp4").symlink_to(tmp_path / "secret")
    (records / "drive" / "drive_20231114T221350.000Z.mp4").mkdir()
    return records, clips


def settings(folders: tuple[Path, Path]) -> dict[str, object]:
    return {
        "outputs": OutputOptions(record=RecordingOptions(folders[0])), "event_clips": EventClipOptions(folders[1])
    }  # fmt: skip


def test_the_files_of_a_stream_are_listed_by_time(folders: tuple[Path, Path]) -> None:
    config = Config(**settings(folders))  # type: ignore[arg-type]  # a table of values
    files = stored_files(config, "drive")
    assert [(f.kind, f.reason, f.begins - 1_700_000_000, f.complete) for f in files] == [
        ("recording", "", 0, True), ("clip", "hard-braking", 5.5, True), ("recording", "", 10, False),
    ]  # fmt: skip
    assert all(f.bytes > 0 and f.ends > f.begins for f in files)
    assert [f.name for f in stored_files(config, "drive_2")] == ["drive_2_20231114T221320.000Z.mp4"]
    assert stored_files(config, "drive", since=time.time() + 60) == []
    assert stored_files(config, "nobody") == stored_files(Config(), "drive") == []


@pytest.fixture
def server_with_files(segmenter: Path, folders: tuple[Path, Path]) -> Iterator[Server]:
    with running(segmenter, settings={"event_clips": EventClipOptions(folders[1])}) as server:
        # A stream that is recorded would finish what it finds; here the files stay as they are.
        server.service.config = msgspec.structs.replace(server.service.config, outputs=settings(folders)["outputs"])
        assert server.client.post("/api/v1/streams", json={"source": DRIVE, "id": "drive"}).status_code == 201
        yield server


@pytest.mark.seconds
def test_files_are_played_whole_and_in_part_and_nothing_else_is(
    server_with_files: Server, folders: tuple[Path, Path]
) -> None:
    client, path = server_with_files.client, "/api/v1/streams/drive/files"
    name = "drive_20231114T221320.000Z.mp4"
    content = (folders[0] / "drive" / name).read_bytes()
    listed = client.get(path, params={"since": 0}).json()["files"]
    assert [f["kind"] for f in listed] == ["recording", "clip", "recording"]
    whole = client.get(f"{path}/{name}")
    assert (whole.status_code, whole.headers["content-type"]) == (200, "video/mp4")
    assert whole.content == content
    assert whole.headers["accept-ranges"] == "bytes"
    part = client.get(f"{path}/{name}", headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(content)}"
    assert client.get(f"{path}/{name}", headers={"range": "bytes=-10"}).content == content[-10:]
    assert client.get(f"{path}/{name}", headers={"range": f"bytes={len(content)}-"}).status_code == 416
    head = client.head(f"{path}/{name}")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(content)), b"")
    assert client.get(f"{path}/drive_20231114T221325.500Z_hard-braking.mp4").content == content
    for other in (
        "holiday.mp4", "drive_20231114T221340.000Z.mp4", "drive_20231114T221350.000Z.mp4",
        "drive_2_20231114T221320.000Z.mp4",
        "..%2fsecret", "..%2f..%2fsecret", "%2fetc%2fpasswd", "..%2fdrive_2%2fdrive_2_20231114T221320.000Z.mp4",
        "drive_20231114T221320.000Z.mp4%00", "drive_20231114T221320.000Z_x%2f..%2f..%2fsecret.mp4", "", "..",
    ):  # fmt: skip
        answer = client.get(f"{path}/{other}")
        assert answer.status_code in {404, 307} or (other in {"", ".."} and answer.status_code == 200), other
        assert b"not yours" not in answer.content
        assert content not in answer.content or other in {"", ".."}, other
    assert client.get(f"/api/v1/streams/drive_2/files/{name}").status_code == 404


def test_a_recording_that_became_whole_meanwhile_is_found_by_its_old_name(
    server_with_files: Server, folders: tuple[Path, Path]
) -> None:
    partial = folders[0] / "drive" / "drive_20231114T221330.000Z.partial.mp4"
    partial.rename(partial.with_name("drive_20231114T221330.000Z.mp4"))
    answer = server_with_files.client.get(f"/api/v1/streams/drive/files/{partial.name}")
    assert (answer.status_code, len(answer.content) > 100) == (200, True)


def test_the_timeline_of_a_stream_grows_and_wrong_times_are_refused(server: Server, stream: str) -> None:
    path = f"/api/v1/streams/{stream}/timeline"
    deadline = time.monotonic() + 60
    while not (line := server.client.get(path).json())["points"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert line["points"][0]["area"]
    assert [state["state"] for state in line["states"]][-1] == "streaming"
    assert abs(line["now"] - time.time()) < 60
    assert server.client.get(path, params={"until": 10}).json()["points"] == []
    assert server.client.get("/api/v1/streams/nobody/timeline").status_code == 404
    for wrong in ({"since": "nan"}, {"since": "-1"}, {"until": "inf"}, {"points": "0"}, {"points": "99999"}):
        assert server.client.get(path, params=wrong).status_code == 422, wrong
