"""Live sources and the whole runtime against a real RTSP server: killed, frozen, thawed, and saying no."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from engines.errors import SourceError
from pipeline.frame import Analysis
from pipeline.runtime import LoadedModel, Runtime, StreamPlan
from pipeline.sources.live.address import LiveOptions
from pipeline.sources.live.camera import Camera
from pipeline.state import SourceState, StateChange
from tests.footage import write_clip
from tests.pipeline.rtsp_server import Mount, RtspServer, missing, write_units
from tests.pipeline.scripted_engine import ScriptedEngine

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "there")

LONG = 90.0
READ_TIMEOUT = 5.0
FOOTAGE = sorted((Path(__file__).parents[5] / "shared" / "data" / "footage").glob("*h264*.mp4"))


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rtsp")
    write_clip(folder / "clip.mp4", frames=50, size=(160, 96), gop=10)
    return write_units(folder / "clip.mp4", folder / "clip.units")


@pytest.fixture(scope="module")
def server(units: Path) -> Iterator[RtspServer]:
    mounts = {
        "/cam": Mount(units), "/secret": Mount(units, password="open-sesame"), "/sound": Mount("sound"),
        "/mystery": Mount("undecodable"),
    }  # fmt: skip
    with RtspServer(mounts) as running:
        yield running


@pytest.mark.seconds
@pytest.mark.parametrize(
    ("path", "user", "password", "cause", "said"),
    [
        ("/secret", "", "", "unauthorized", "wants a user and a password"),
        ("/secret", "viewer", "wrong-sesame", "unauthorized", "does not accept this user and password"),
        ("/missing", "", "", "not_found", "the server answers, but has no such stream"),
        ("/mystery", "", "", "unsupported", "sends pictures that FFmpeg cannot decode"),
        ("/sound", "", "", "unsupported", "sends no pictures (it sends audio)"),
    ],
)
def test_a_server_that_says_no_has_its_own_reason(
    server: RtspServer, path: str, user: str, password: str, cause: str, said: str
) -> None:
    changes: list[StateChange] = []
    source = Camera("cam", server.url(path, user, password), LiveOptions(open_timeout=60), observe=changes.append)
    with source, pytest.raises(SourceError) as caught:
        source.open()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (changes[-1].state, changes[-1].cause, changes[-1].reason) == (
        SourceState.FAILED, cause, str(caught.value),
    )  # fmt: skip
    for text in (str(caught.value), source.address, *(c.reason for c in changes)):
        assert "sesame" not in text


@pytest.mark.seconds
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_pictures_come_by_tcp_and_udp_with_the_right_password(server: RtspServer, transport: str) -> None:
    options = LiveOptions(transport=transport, open_timeout=60, read_timeout=60, latency_bound=3600)
    with Camera("cam", server.url("/secret", "viewer", "open-sesame"), options) as source:
        info = source.open()
        assert (info.width, info.height) == (160, 96)
        frames = [frame for frame, _ in zip(source, range(10), strict=False)]
        assert len(frames) == 10
        assert "sesame" not in source.address


@pytest.mark.seconds
def test_the_cameras_own_clock_comes_with_its_reports(server: RtspServer) -> None:
    """GStreamer sends sender reports from the second second on; its clock is this machine's."""
    options = LiveOptions(open_timeout=60, read_timeout=60, latency_bound=3600)
    with Camera("cam", server.url("/cam"), options) as source:
        source.open()
        for frame in source:
            assert not hasattr(frame, "track")
            assert abs(frame.captured_at - time.time()) < LONG
            if frame.index > 60:
                break


class Ages:
    """A sink that keeps what arrived when, and how old."""

    def __init__(self) -> None:
        self.kept: list[tuple[float, float]] = []

    def consume(self, analysis: Analysis) -> None:
        self.kept.append((time.monotonic(), analysis.age))

    def p99(self, begin: float, end: float) -> float:
        ages = [age for at, age in self.kept if begin <= at <= end]
        return statistics.quantiles(ages, n=100)[98] if len(ages) > 1 else float("nan")


def until(condition: Callable[[], bool]) -> float:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return time.monotonic()


def run_through_kill_and_freeze(sick_units: Path, well_units: Path) -> None:
    """Two cameras, each with a server of its own; one of the servers is killed, restarted, frozen and thawed."""
    changes: list[StateChange] = []
    options = LiveOptions(open_timeout=20, read_timeout=READ_TIMEOUT, latency_bound=3600)
    with RtspServer({"/cam": Mount(sick_units)}) as sick, RtspServer({"/cam": Mount(well_units)}) as well:
        sources = {
            "sick": Camera("sick", sick.url("/cam"), options, observe=changes.append),
            "well": Camera("well", well.url("/cam"), options, observe=changes.append),
        }
        sinks = {name: Ages() for name in sources}
        with closing(ScriptedEngine()) as engine:
            plans = [StreamPlan(s, s.open(), (), [sinks[name]]) for name, s in sources.items()]
            runtime = Runtime(plans, [LoadedModel(engine)])
            runtime.start()
            until(lambda: all(len(s.kept) > 30 for s in sinks.values()))
            calm = time.monotonic()
            until(lambda: time.monotonic() > calm + 2)

            killed = time.monotonic()
            sick.kill()
            until(lambda: sources["sick"].state is SourceState.BACKING_OFF)
            until(lambda: changes[-1].cause == "refused")
            sick.start()
            returned = time.monotonic()
            seen = len(sinks["sick"].kept)
            back = until(lambda: len(sinks["sick"].kept) > seen)
            print(f"\nback {back - returned:.2f} s after the server's return")

            frozen = time.monotonic()
            sick.freeze()
            until(lambda: any(c.state is SourceState.STALLED for c in changes))
            noticed = time.monotonic()
            print(f"silence noticed after {noticed - frozen:.2f} s, with a timeout of {READ_TIMEOUT:g} s")
            until(lambda: time.monotonic() > noticed + 2)
            sick.thaw()
            thawed, seen = time.monotonic(), len(sinks["sick"].kept)
            print(f"back {until(lambda: len(sinks['sick'].kept) > seen) - thawed:.2f} s after the thaw")
            end = time.monotonic()
            runtime.stop()
            assert runtime.wait(LONG)
            result = runtime.result()
    before, during = sinks["well"].p99(calm, killed), sinks["well"].p99(killed, end)
    print(f"the other stream's p99 age: {before * 1000:.1f} ms before, {during * 1000:.1f} ms meanwhile")
    assert [s.error for s in result.streams] == [None, None]
    for stream in result.streams:
        assert stream.counts.decoded == stream.counts.emitted + sum(stream.counts.dropped.values())
    assert {c.cause for c in changes if c.stream == "sick"} >= {"refused", "silent"}
    assert all(c.cause in {"", "stopped"} for c in changes if c.stream == "well")
    assert during < before + 10  # not a figure, but nothing hung
    assert not [t for t in threading.enumerate() if t.name.startswith("read ") and not t.daemon]


@pytest.mark.slow
def test_a_killed_and_a_frozen_server_come_back_and_the_other_stream_does_not_notice(units: Path) -> None:
    run_through_kill_and_freeze(units, units)


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.skipif(len(FOOTAGE) < 2, reason="no ../shared/data/footage")
def test_the_same_with_real_footage(tmp_path: Path) -> None:
    first, second = (write_units(path, tmp_path / f"{path.stem}.units") for path in FOOTAGE[:2])
    run_through_kill_and_freeze(first, second)
