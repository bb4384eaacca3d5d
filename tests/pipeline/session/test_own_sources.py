"""A source that somebody else wrote, end to end: by an object in `analyse` and `Session`, and by an address."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import av
import numpy as np
import pytest
from msgspec.structs import replace

import pipeline
from engines.errors import SourceError, UsageError
from pipeline.config import Config, ModelConfig, StreamConfig, VideoConfig
from pipeline.contracts import AudioPacket, SourceCounts, StreamInfo
from pipeline.drawing.overlay import OverlayStyle
from pipeline.files import source_name
from pipeline.frame import Frame, Mode
from pipeline.session import Session
from pipeline.session.summary import exit_code
from pipeline.sources import resolve
from pipeline.sources.live.address import LIVE_SCHEMES
from pipeline.sources.reading import Reading
from pipeline.state import StateChange
from tests.pipeline.conftest import json_lines

RATE = Fraction(10)


class Ramp:
    """Pictures that grow brighter from frame to frame; only what `pipeline.contracts.Source` asks for."""

    def __init__(self, stream: str = "ramp", frames: int = 12, mode: Mode = "file", wait: float = 0.0) -> None:
        self.id, self.address, self.mode = stream, "a ramp", mode
        self.counts = SourceCounts()
        self.frames, self.wait, self.closed = frames, wait, False

    @classmethod
    def from_address(cls, stream_id: str, address: str, reading: Reading) -> Ramp:
        return cls(stream_id, int(address.removeprefix("ramp:")))

    def open(self) -> StreamInfo:
        return StreamInfo(64, 32, "yuv420p", 1 / RATE, RATE, self.frames)

    def __iter__(self) -> Iterator[Frame | AudioPacket]:
        for index in range(self.frames):
            time.sleep(self.wait)
            picture = np.full((32, 64, 3), 10 * index, np.uint8)
            image = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            yield Frame(self.id, index, index, 1 / RATE, time.time(), time.monotonic(), image, 1)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def config(segmenter: Path) -> Config:
    return Config(models=(ModelConfig(str(segmenter)),))


def test_analyse_takes_a_source_beside_an_address(drive: Path, segmenter: Path) -> None:
    source = Ramp()
    seen: dict[str, list[int]] = {}
    for analysis in pipeline.analyse(source, str(drive), model=str(segmenter)):
        seen.setdefault(analysis.frame.stream, []).append(analysis.frame.index)
    assert seen == {"ramp": list(range(12)), "drive": list(range(60))}
    assert source.closed


def test_a_run_of_a_source_writes_files_under_its_id(config: Config, tmp_path: Path) -> None:
    video, lines = tmp_path / "o.mp4", tmp_path / "o.jsonl"
    options = {"video": VideoConfig(path=video), "jsonl": str(lines)}
    with Session(replace(config, **options), sources=[Ramp()]) as session:
        result = session.run()
    assert exit_code(result) == 0
    rows = json_lines(lines)
    assert [row["frame"] for row in rows] == list(range(12))
    assert {row["stream"] for row in rows} == {"ramp"}
    with av.open(str(video)) as container:
        pictures = [frame.to_ndarray(format="gray")[16, 2] for frame in container.decode(video=0)]
    assert len(pictures) == 12
    assert pictures[11] > pictures[6] > pictures[1]
    assert not source_name(video).exists()


@pytest.mark.seconds
def test_an_archived_overlay_says_nothing_of_how_fast_it_was_made(config: Config, tmp_path: Path) -> None:
    pictures = []
    for wait in (0.0, 0.02):
        video = tmp_path / f"{wait}.mp4"
        config = replace(config, video=VideoConfig(path=video), overlay=OverlayStyle(heads_up=True))
        with Session(config, sources=[Ramp(wait=wait)]) as session:
            assert exit_code(session.run()) == 0
        with av.open(str(video)) as container:
            pictures.append([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])
    assert np.array_equal(*pictures)
    assert pictures[0][11][:4].std() > 5, "a line is there"


def test_a_live_source_runs_and_its_states_are_said(config: Config) -> None:
    said: list[StateChange] = []
    source = Ramp(mode="live", wait=0.02)
    with Session(config, sources=[source], observers=[said.append]) as session:
        result = session.run(interval=0.01)
    (stream,) = result.streams
    assert (stream.mode, stream.reason, stream.counts.decoded) == ("live", "complete", 12)
    assert stream.counts.emitted + sum(stream.counts.dropped.values()) == 12
    assert [change.state.value for change in said] == ["streaming", "ended"]


def test_several_sources_go_to_a_folder_each_under_its_id(config: Config, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    several = replace(config, jsonl=str(tmp_path / "out"))
    with Session(several, sources=[Ramp("left", 3), Ramp("right", 4)]) as session:
        session.run()
    counted = {path.name: len(json_lines(path)) for path in (tmp_path / "out").iterdir()}
    assert counted == {"left.jsonl": 3, "right.jsonl": 4}


def test_an_address_makes_room_for_the_id_of_a_source(config: Config) -> None:
    address = "synthetic:?seconds=0.2&width=64&height=36"
    with Session(replace(config, streams=(StreamConfig(address),)), sources=[Ramp("synthetic")]) as session:
        assert set(session.streams) == {"synthetic-2", "synthetic"}
        assert session.streams["synthetic"].config.source == "a ramp"


class Half(Ramp):
    """Has one of the three methods of a source that waits."""

    def stop(self) -> None:
        """Never called."""


class OfFiles(Ramp):
    def __init__(self, *paths: Any) -> None:
        super().__init__()
        self.paths = paths


@pytest.mark.parametrize(
    ("sources", "sentence"),
    [
        ([Ramp("a"), Ramp("a")], "the stream id 'a' is given twice"),
        ([Ramp("../a")], "the source Ramp has the id '../a'; give it one of letters"),
        ([Half()], "has stop without pause and resume"),
        ([object()], "the source object has no id, address"),
        ([Ramp], "Ramp is a class, not a source; give an object of it"),
        ([Ramp(mode="batch")], "the source Ramp has the mode 'batch'; give it 'file' or 'live'"),  # type: ignore[arg-type]
        ([OfFiles("clip.mp4")], "has `paths` that are no pathlib.Path"),
        ([], "no source is given"),
    ],
)
def test_a_source_that_cannot_be_used_is_refused_in_a_sentence(
    config: Config, sources: list[Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        Session(config, sources=sources)


def test_no_output_is_a_file_that_a_source_reads(config: Config, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("precious\n")
    with pytest.raises(UsageError, match="is an input of this run"):
        Session(replace(config, jsonl=str(data)), sources=[OfFiles(data)])
    assert data.read_text() == "precious\n"


def test_an_error_of_a_source_is_its_streams_own(config: Config) -> None:
    class Breaks(Ramp):
        def __iter__(self) -> Iterator[Frame | AudioPacket]:
            yield from list(super().__iter__())[:3]
            raise SourceError("the sensor is unplugged")

    with Session(config, sources=[Breaks("bad"), Ramp("good")]) as session:
        result = session.run()
    ended = {stream.stream: (stream.reason, stream.counts.decoded) for stream in result.streams}
    assert ended == {"bad": ("failed", 3), "good": ("complete", 12)}
    assert {str(stream.error) for stream in result.streams} == {"the sensor is unplugged", "None"}
    assert exit_code(result) == SourceError.exit_code


def test_one_entry_makes_an_address_of_it(
    roadlens_here: Callable[..., CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
    segmenter: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.setitem(resolve.SCHEMES, "ramp:", Ramp)
    done = roadlens_here("run", "ramp:7", "--model", segmenter, "--jsonl", "o.jsonl")
    assert done.returncode == 0, done.stderr
    assert [row["frame"] for row in json_lines(tmp_path / "o.jsonl")] == list(range(7))


def test_every_scheme_of_a_camera_has_its_entry() -> None:
    assert {start for start in resolve.SCHEMES if start.endswith("://")} == {f"{scheme}://" for scheme in LIVE_SCHEMES}
