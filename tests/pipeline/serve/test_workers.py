"""`roadlens serve --workers`: real processes behind one address of each kind, and what becomes of one killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from websockets.sync.client import connect

from pipeline.messages.headers import AnalysisMessage, EndMessage
from pipeline.messages.subscriber import Gap, Subscriber
from tests.pipeline.cameras import TcpCamera, transport_stream
from tests.pipeline.rtsp_server import free_port
from tests.pipeline.serve.test_process import Roadlens, serving, stop, until_ready

LONG = 120.0
STREAMS = "api/v1/streams"
FRAMES = 50
SHORT = "synthetic:?seconds=2&width=160&height=90"
ENDLESS = "synthetic:?seconds=3600&width=160&height=90"


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + LONG
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return found


class Reader:
    """Reads everything at an address in a thread."""

    def __init__(self, endpoint: str) -> None:
        self.gaps: list[Gap] = []
        self.sequences: dict[str, list[int]] = {}
        self.ended: list[str] = []
        self._subscriber = Subscriber(endpoint, on_gap=self.gaps.append, high_water=10_000)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for received in self._subscriber:
            header = received.header
            if isinstance(header, AnalysisMessage):
                self.sequences.setdefault(header.stream, []).append(header.sequence)
            elif isinstance(header, EndMessage):
                self.ended.append(header.stream)


def value(url: str, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(httpx.get(f"{url}metrics", timeout=30).text)
    found = [s.value for f in families for s in f.samples if s.name == name and s.labels == labels]
    assert len(found) < 2, "each series once"
    return sum(found)


def workers(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{url}api/v1/stats", timeout=30).json()["workers"]
    return found


def add(url: str, source: str, name: str | None = None, **settings: Any) -> httpx.Response:
    body = {"source": source, **({} if name is None else {"id": name}), **settings}
    return httpx.post(f"{url}{STREAMS}", json=body, timeout=60)


@pytest.mark.slow
def test_two_workers_look_like_one_server(tmp_path: Path, segmenter: Path) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    metrics = f"http://127.0.0.1:{free_port()}/"
    (tmp_path / "run.yaml").write_text(f"publish: [{{bind: '{endpoint}', high_water: 10000}}]")  # files are fast
    arguments = ("--workers", 2, "--model", segmenter, "--config", "run.yaml", "--metrics", metrics.split("/")[2])
    with serving(tmp_path, *arguments) as (process, url):
        until_ready(url)
        reader = Reader(endpoint)
        assert len(workers(url)) == 1, "no more than there are streams"
        for name in ("first", "second"):  # until what is subscribed to is known to both workers
            add(url, ENDLESS, name)
        until(lambda: {"first", "second"} <= reader.sequences.keys())
        for name in ("first", "second"):
            httpx.delete(f"{url}{STREAMS}/{name}", timeout=60)
        until(lambda: sorted(reader.ended) == ["first", "second"])
        before = httpx.get(f"{url}api/v1/stats").json()["frames_out"]
        reader.ended.clear()
        names = [add(url, SHORT).json()["id"] for _ in range(4)]
        assert names == ["synthetic", "synthetic-2", "synthetic-3", "synthetic-4"]
        assert sorted(len(worker["streams"]) for worker in workers(url)) == [2, 2], "each to the one with the least"
        assert add(url, SHORT, "synthetic-3").status_code == 422, "the id is in use, on whichever worker"
        until(lambda: sorted(reader.ended) == names)
        listed = httpx.get(f"{url}{STREAMS}").json()["streams"]
        assert [(each["id"], each["frames_out"]) for each in listed] == [(name, FRAMES) for name in names]
        for name in names:
            assert value(url, "roadlens_frames_emitted_total", stream=name) == FRAMES
            assert value(metrics, "roadlens_frames_emitted_total", stream=name) == FRAMES
        totals = httpx.get(f"{url}api/v1/stats").json()
        assert totals["frames_out"] - before == 4 * FRAMES
        for name in names:
            assert reader.sequences[name] == list(range(FRAMES))
        assert not reader.gaps
        kinds = {event["kind"] for event in httpx.get(f"{url}api/v1/events").json()["events"]}
        assert {"added", "streaming", "ended"} <= kinds
        assert httpx.delete(f"{url}{STREAMS}/synthetic-2").status_code == 204
        assert httpx.get(f"{url}{STREAMS}/synthetic-2").status_code == 404
        assert value(url, "roadlens_frames_emitted_total", stream="synthetic-2") == 0
        assert add(url, ENDLESS, "shown").status_code == 201
        assert httpx.get(f"{url}{STREAMS}/shown/snapshot", timeout=60).content.startswith(b"\xff\xd8")
        with connect(f"{url.replace('http', 'ws', 1)}{STREAMS}/shown/view") as socket:
            socket.send("")
            assert b'"index"' in bytes(socket.recv(60), "ascii")
        began = stop(process, signal.SIGTERM)
        assert process.returncode == 0
        assert time.monotonic() - began < 5 + 5


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_the_others_do_not_notice(tmp_path: Path, segmenter: Path) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    # Minutes of frames may wait for a reader that others keep from running: what is missing was not published.
    (tmp_path / "run.yaml").write_text(f"publish: [{{bind: '{endpoint}', high_water: 10000}}]")
    with serving(tmp_path, "--workers", 2, "--model", segmenter, "--config", "run.yaml") as (_, url):
        until_ready(url)
        reader = Reader(endpoint)
        add(url, f"{ENDLESS}&seed=1", "left", realtime=True)
        add(url, f"{ENDLESS}&seed=2", "right", realtime=True)
        httpx.post(f"{url}{STREAMS}/left/pause", timeout=30)
        httpx.post(f"{url}{STREAMS}/left/resume", timeout=30)
        until(lambda: all(len(reader.sequences.get(name, ())) > 20 for name in ("left", "right")))
        left, right = (next(w for w in workers(url) if w["streams"] == [name]) for name in ("left", "right"))
        counted = value(url, "roadlens_frames_emitted_total", stream="left")
        os.kill(left["pid"], signal.SIGKILL)
        until(lambda: [gap.stream for gap in reader.gaps if gap.restarted] == ["left"])
        until(lambda: workers(url)[left["number"]]["restarts"] == 1)
        until(lambda: httpx.get(f"{url}{STREAMS}/left").status_code == 200)
        assert [gap for gap in reader.gaps if gap.stream == "right"] == []
        assert value(url, "roadlens_frames_emitted_total", stream="left") >= counted, "a counter never falls"
        assert value(url, "roadlens_worker_restarts_total", worker=str(left["number"])) == 1
        assert value(url, "roadlens_worker_restarts_total", worker=str(right["number"])) == 0
        now = workers(url)
        assert now[right["number"]]["pid"] == right["pid"]
        assert now[left["number"]]["pid"] not in {left["pid"], None}
        said = [e for e in httpx.get(f"{url}api/v1/events").json()["events"] if e["kind"] == "worker replaced"]
        assert [(each["stream"], "killed by signal 9" in each["text"]) for each in said] == [("left", True)]
        os.kill(now[left["number"]]["pid"], signal.SIGKILL)
        until(lambda: workers(url)[left["number"]]["restarts"] == 2)
        until(lambda: workers(url)[left["number"]]["pid"])
        assert httpx.get(f"{url}readyz").status_code == 200


@pytest.mark.slow
def test_workers_end_with_their_parent_and_two_may_watch_one_camera(
    tmp_path: Path, segmenter: Path, drive: Path
) -> None:
    with TcpCamera(transport_stream(drive), repeat=True) as camera:
        address = f"tcp://127.0.0.1:{camera.port}"
        with serving(tmp_path, "--workers", 2, "--model", segmenter, address, address) as (process, url):
            until_ready(url)
            until(lambda: [s["state"] for s in httpx.get(f"{url}{STREAMS}").json()["streams"]] == ["streaming"] * 2)
            found = workers(url)
            assert [len(worker["streams"]) for worker in found] == [1, 1]
            process.kill()
            for worker in found:
                until(lambda pid=worker["pid"]: not Path(f"/proc/{pid}").exists())  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--workers", "0"], "--workers"),
        (["--workers", "2", "--mcap", "a.mcap"], "a recording (`mcap`) is one file"),
        (["--workers", "2", "--jsonl", "-"], "standard output (`jsonl: -`) is one"),
        (["--workers", "2", "-"], "standard input (`-`) is read by one process"),
    ],
)
def test_what_several_processes_cannot_share_is_refused(
    roadlens_here: Roadlens, arguments: list[str], said: str
) -> None:
    done = roadlens_here("serve", *arguments)
    assert done.returncode == 2, done.stderr
    assert said in " ".join(done.stderr.split())


def test_a_run_is_one_process(roadlens_here: Roadlens, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("workers: 2")
    done = roadlens_here("run", "--config", "run.yaml", "synthetic:?seconds=1", "--summary", "-")
    assert done.returncode == 2
    assert "is for `roadlens serve`" in " ".join(done.stderr.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--pub", "ipc:///tmp/" + "x" * 120], 5, "may have 107"),
        (["--model", "nowhere.onnx"], 4, "nowhere.onnx"),
        (["--metrics", "203.0.113.7:9464"], 5, "metrics cannot be served"),
    ],
)
def test_what_no_worker_can_do_is_said_once(roadlens: Roadlens, arguments: list[str], code: int, said: str) -> None:
    done = roadlens("serve", "--port", "0", "--workers", 2, *arguments)
    assert done.returncode == code, done.stderr
    assert " ".join(done.stderr.split()).count(said) == 1, "once"
    assert "Traceback" not in done.stderr
