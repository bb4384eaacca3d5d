"""An interrupted run goes on with the files it left, all of one mind, and with the footage it began with."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from msgspec.structs import replace

from engines.errors import UsageError
from pipeline.config import Config, ModelConfig, StreamConfig, VideoConfig
from pipeline.files import earlier_name, partial_name, source_name, stopped_name
from pipeline.frame import Analysis
from pipeline.messages.headers import AnalysisMessage, EndMessage
from pipeline.messages.recording import read_recording
from pipeline.messages.wire import decode_header
from pipeline.session import Session
from tests.pipeline.conftest import json_lines

Configured = Callable[..., Config]

DRIVE = "synthetic:?seconds=12&width=160&height=96"
FRAMES = 300


@pytest.fixture
def configured(segmenter: Path, tmp_path: Path) -> Configured:
    """A run whose outputs have the endings given, each as `o.…` in the test's folder."""

    def make(*endings: str, source: str = DRIVE) -> Config:
        out = {ending: tmp_path / f"o.{ending}" for ending in endings}
        return Config(
            streams=(StreamConfig(source, "a"),), models=(ModelConfig(str(segmenter)),),
            video=VideoConfig(path=out.get("mp4"), encoder="libx264"),
            jsonl=str(out["jsonl"]) if "jsonl" in out else None, mcap=out.get("mcap"),
        )  # fmt: skip

    return make


class Pulled:
    """A sink at which the run is broken off: nothing is finished, as when the process is ended at once."""

    def __init__(self, at: int) -> None:
        self.at, self.session = at, None

    session: Session | None

    def consume(self, analysis: Analysis) -> None:
        if analysis.frame.index >= self.at:
            assert self.session is not None
            self.session.runtime.abort()


def broken_off(config: Config, at: int, *, resume: bool = False) -> None:
    """Run up to the frame `at` and break off."""
    pulled = Pulled(at)
    with Session(config, sinks=[pulled], resume=resume) as session:
        pulled.session = session
        session.run(interval=0.01)


def resumed(config: Config) -> int:
    """Run to the end; where it went on."""
    with Session(config, resume=True) as session:
        (planned,) = session.plans
        assert session.run(interval=0.01).error is None
        return planned.first_frame


def picture_times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [f.pts * f.time_base for f in container.decode(video=0) if f.pts is not None]


def headers_of(path: Path) -> Sequence[Any]:
    return [decode_header(recorded.parts[1]) for recorded in read_recording(path)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.seconds
def test_other_footage_is_refused_and_nothing_is_touched(configured: Configured, tmp_path: Path) -> None:
    config = configured("mp4", "jsonl")
    broken_off(config, 120)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert source_name(tmp_path / "o.mp4").name in before
    other = configured("mp4", "jsonl", source=DRIVE + "&seed=5")
    with pytest.raises(UsageError, match="was made of other footage than this run's"):
        Session(other, resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.seconds
@pytest.mark.parametrize("damaged", [None, "", "[]", '{"frames": 3}'])
def test_footage_that_is_not_known_is_refused(configured: Configured, tmp_path: Path, damaged: str | None) -> None:
    config = configured("jsonl")
    broken_off(config, 20)
    side_car = source_name(tmp_path / "o.jsonl")
    if damaged is None:
        side_car.unlink()
    else:
        side_car.write_text(damaged)
    with pytest.raises(UsageError, match=r"is not known, for .*o\.jsonl\.source is missing or damaged"):
        Session(config, resume=True)


@pytest.mark.seconds
def test_a_longer_trip_goes_on_but_none_that_begins_otherwise(configured: Configured, tmp_path: Path) -> None:
    config = configured("jsonl")
    broken_off(config, 20)
    side_car = source_name(tmp_path / "o.jsonl")
    begun = json.loads(side_car.read_text())["source"]
    side_car.write_text(json.dumps({"source": [*begun, "one more clip"]}))
    with pytest.raises(UsageError, match="other footage"):
        Session(config, resume=True)
    side_car.write_text(json.dumps({"source": []}))  # of a trip that has got its first clip since
    resumed(config)


@pytest.mark.seconds
def test_more_rows_than_frames_of_the_video_are_cut_and_made_anew(configured: Configured, tmp_path: Path) -> None:
    config = configured("mp4", "jsonl")
    broken_off(config, 180)
    rows = len(json_lines(partial_name(tmp_path / "o.jsonl")))
    at = resumed(config)
    assert 0 < at < rows, "the video holds less than the lines"
    lines = json_lines(tmp_path / "o.jsonl")
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert [line["sequence"] for line in lines] == list(range(FRAMES))
    assert picture_times(tmp_path / "o.mp4") == [Fraction(index, 25) for index in range(FRAMES)]
    assert names(tmp_path) == ["o.jsonl", "o.mp4"]


@pytest.mark.seconds
def test_what_holds_more_than_the_rows_is_cut_to_them(configured: Configured, tmp_path: Path) -> None:
    config = configured("mp4", "jsonl", "mcap")
    broken_off(config, 180)
    partial = partial_name(tmp_path / "o.jsonl")
    partial.write_text("".join(partial.read_text().splitlines(keepends=True)[:70]))
    assert resumed(config) == 50, "the last key frame (one in two seconds) within 70 rows"
    assert [line["frame"] for line in json_lines(tmp_path / "o.jsonl")] == list(range(FRAMES))
    assert picture_times(tmp_path / "o.mp4") == [Fraction(index, 25) for index in range(FRAMES)]


@pytest.mark.seconds
@pytest.mark.parametrize("endings", [("mcap",), ("mp4", "jsonl", "mcap")])
def test_a_recording_of_messages_goes_on(configured: Configured, tmp_path: Path, endings: Sequence[str]) -> None:
    config = configured(*endings)
    broken_off(config, 180)
    assert not (tmp_path / "o.mcap").exists() or len(endings) == 1
    at = resumed(config)
    assert at > 0
    headers = headers_of(tmp_path / "o.mcap")
    analyses = [(h.sequence, h.frame) for h in headers if isinstance(h, AnalysisMessage)]
    assert analyses == [(number, number) for number in range(FRAMES)]
    ends = [(h.frames, h.reason) for h in headers if isinstance(h, EndMessage)]
    assert ends == [(FRAMES, "complete")]
    assert len({h.run for h in headers}) == 1
    assert names(tmp_path) == sorted(f"o.{ending}" for ending in endings)


@pytest.mark.seconds
def test_a_resume_that_is_broken_off_at_once_loses_nothing(configured: Configured, tmp_path: Path) -> None:
    config = configured("mp4", "jsonl", "mcap")
    broken_off(config, 180)
    with Session(config, resume=True) as session:
        (planned,) = session.plans
        at = planned.first_frame
    assert at > 0
    assert not [path for path in ("o.mp4", "o.jsonl", "o.mcap") if (tmp_path / path).exists()]
    broken_off(config, at + 1, resume=True)
    assert (tmp_path / "o.earlier.mp4").exists(), "the new one holds less"
    assert not [path for path in ("o.mp4", "o.jsonl", "o.mcap") if (tmp_path / path).exists()]
    assert resumed(config) == at
    assert picture_times(tmp_path / "o.mp4") == [Fraction(index, 25) for index in range(FRAMES)]
    assert [line["frame"] for line in json_lines(tmp_path / "o.jsonl")] == list(range(FRAMES))
    analyses = [h for h in headers_of(tmp_path / "o.mcap") if isinstance(h, AnalysisMessage)]
    assert [h.frame for h in analyses] == list(range(FRAMES))
    assert names(tmp_path) == ["o.jsonl", "o.mcap", "o.mp4"]


@pytest.mark.seconds
def test_the_earlier_recording_goes_when_the_new_one_holds_as_much(configured: Configured, tmp_path: Path) -> None:
    config = configured("mp4")
    broken_off(config, 130)
    with Session(config, resume=True) as session:
        (planned,) = session.plans
        at = planned.first_frame
    broken_off(config, at + 130, resume=True)
    assert not earlier_name(tmp_path / "o.mp4").exists()
    assert resumed(config) >= at + 50
    assert picture_times(tmp_path / "o.mp4") == [Fraction(index, 25) for index in range(FRAMES)]


@pytest.mark.seconds
def test_a_run_that_is_stopped_in_order_gives_all_its_files_their_names(configured: Configured, tmp_path: Path) -> None:
    config = configured("mp4", "jsonl", "mcap")
    with Session(config) as session:
        session.runtime.start()
        while session.runtime.counts()["a"].emitted < 60:
            session.runtime.wait(0.01)
        session.runtime.stop()
        assert session.runtime.wait(60)
    assert {"o.mp4", "o.jsonl", "o.mcap", "o.mp4.stopped", "o.mcap.stopped"} <= set(names(tmp_path))
    assert resumed(config) > 0
    assert not stopped_name(tmp_path / "o.mcap").exists()
    assert names(tmp_path) == ["o.jsonl", "o.mcap", "o.mp4"]


@pytest.mark.seconds
def test_a_stopped_run_beside_a_complete_video_can_be_resumed(configured: Configured, tmp_path: Path) -> None:
    with Session(configured("mp4", source="synthetic:?seconds=0.4&width=160&height=96")) as session:
        session.run(interval=0.01)
    complete = (tmp_path / "o.mp4").read_bytes()
    config = configured("mp4", "mcap")
    with Session(config) as session:
        session.runtime.start()
        while session.runtime.counts()["a"].emitted < 60:
            session.runtime.wait(0.01)
        session.runtime.stop()
        assert session.runtime.wait(60)
    assert (tmp_path / "o.mp4").read_bytes() == complete
    assert partial_name(tmp_path / "o.mp4").exists()
    assert partial_name(tmp_path / "o.mcap").exists()
    assert not (tmp_path / "o.mcap").exists()
    assert resumed(config) > 0
    assert names(tmp_path) == ["o.mcap", "o.mp4"]
    assert len(picture_times(tmp_path / "o.mp4")) == FRAMES


def test_nothing_to_go_on_with_is_said(configured: Configured) -> None:
    with pytest.raises(UsageError, match="--resume goes on with files"):
        Session(replace(configured(), streams=(StreamConfig(DRIVE, "a"),)), resume=True)
