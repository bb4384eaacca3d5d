"""Every metric moves, and a foreign parser reads it over HTTP."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from engines.errors import OutputError
from pipeline import metrics as metrics_module
from pipeline.metrics import Metrics
from pipeline.state import OutputChange, OutputState, SourceState, StateChange

Labels = dict[str, str]

LOST = StateChange("a", SourceState.BACKING_OFF, "nobody listens", "refused")
BACK = StateChange("a", SourceState.STREAMING, "", "refused", reconnects=1)
GONE = OutputChange("a", "rtsp", OutputState.BACKING_OFF, "the server refuses the connection")
GOING = OutputChange("a", "rtsp", OutputState.RUNNING)


def scrape(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What Prometheus would get, through a real socket and the parser of the text format."""
    with metrics.serve(port=0) as server, urllib.request.urlopen(server.url) as answer:
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


MOVES: list[tuple[Callable[[Metrics], None], str, Labels, float]] = [
    (lambda m: m.decoded("a"), "roadlens_frames_decoded_total", {"stream": "a"}, 2),
    (lambda m: m.state(LOST), "roadlens_source_failures_total", {"stream": "a", "cause": "refused"}, 2),
    (lambda m: m.state(BACK), "roadlens_source_reconnects_total", {"stream": "a", "cause": "refused"}, 2),
    (lambda m: m.inferred("a", "unet"), "roadlens_frames_inferred_total", {"stream": "a", "model": "unet"}, 2),
    (lambda m: m.carried("a", "unet"), "roadlens_frames_carried_total", {"stream": "a", "model": "unet"}, 2),
    (lambda m: m.looks_put_off("a", 4), "roadlens_looks_put_off_total", {"stream": "a"}, 8),
    (
        lambda m: m.model_fault("a", "mine", "nan", 3),
        "roadlens_model_faults_total",
        {"stream": "a", "model": "mine", "fault": "nan"},
        6,
    ),
    (lambda m: m.emitted("a"), "roadlens_frames_emitted_total", {"stream": "a"}, 2),
    (lambda m: m.emitted("a", 5), "roadlens_frames_emitted_total", {"stream": "a"}, 10),
    (
        lambda m: m.dropped("a", "slot", "newer", 3),
        "roadlens_frames_dropped_total",
        {"stream": "a", "stage": "slot", "reason": "newer"},
        6,
    ),
    (
        lambda m: m.dropped("a", "slot", "newer", 0),
        "roadlens_frames_dropped_total",
        {"stream": "a", "stage": "slot", "reason": "newer"},
        0,
    ),
    (lambda m: m.decode_error("a"), "roadlens_decode_errors_total", {"stream": "a"}, 2),
    (lambda m: m.received("a", 1), "roadlens_packets_received_total", {"stream": "a"}, 2),
    (
        lambda m: m.skipped("a", "start", 1), "roadlens_packets_skipped_total", {"stream": "a", "reason": "start"}, 2,
    ),
    (lambda m: m.stage("infer", 0.03), "roadlens_stage_seconds_count", {"stage": "infer"}, 2),
    (lambda m: m.stage("infer", 0.03), "roadlens_stage_seconds_sum", {"stage": "infer"}, 0.06),
    (lambda m: m.stage("infer", 0.03), "roadlens_stage_seconds_bucket", {"stage": "infer", "le": "0.016"}, 0),
    (lambda m: m.stage("infer", 0.03), "roadlens_stage_seconds_bucket", {"stage": "infer", "le": "0.032"}, 2),
    (lambda m: m.age("a", 0.09), "roadlens_frame_age_seconds_count", {"stream": "a"}, 2),
    (lambda m: m.age("a", 0.09), "roadlens_frame_age_seconds_bucket", {"stream": "a", "le": "0.08"}, 0),
    (lambda m: m.age("a", 0.09), "roadlens_frame_age_seconds_bucket", {"stream": "a", "le": "0.1"}, 2),
    (
        lambda m: m.seen("a", {"road": 0.5}, ["car", "car", "person"]), "roadlens_class_area",
        {"stream": "a", "class": "road"}, 0.5,
    ),
    (lambda m: m.seen("a", {"road": 0.5}, ["car", "car"]), "roadlens_boxes", {"stream": "a", "class": "car"}, 2),
    (lambda m: m.novelty("a", "unet", 1.5), "roadlens_novelty", {"stream": "a", "model": "unet"}, 1.5),
    (lambda m: m.queue_depth("a", "slot", 4), "roadlens_queue_depth", {"stream": "a", "queue": "slot"}, 4),
    (
        lambda m: m.engine("unet", "openvino", "bf16", "cpu", "ready"),
        "roadlens_engine_info",
        {"model": "unet", "backend": "openvino", "precision": "bf16", "device": "cpu"},
        1,
    ),
    (
        lambda m: m.engine("unet", "openvino", "bf16", "cpu", "building"),
        "roadlens_engine_state",
        {"model": "unet", "state": "building"},
        1,
    ),
    (
        lambda m: m.output_dropped("a", "rtsp", "slow", 3), "roadlens_output_dropped_total",
        {"stream": "a", "output": "rtsp", "reason": "slow"}, 6,
    ),
    (lambda m: m.output(GONE), "roadlens_output_failures_total", {"stream": "a", "output": "rtsp"}, 2),
    (lambda m: m.output(GONE), "roadlens_output_running", {"stream": "a", "output": "rtsp"}, 0),
    (lambda m: m.output(GOING), "roadlens_output_running", {"stream": "a", "output": "rtsp"}, 1),
    (
        lambda m: m.encoder("a", "libx264"), "roadlens_encoder_info", {"stream": "a", "encoder": "libx264"}, 1,
    ),
]  # fmt: skip


@pytest.mark.seconds
@pytest.mark.parametrize(("move", "name", "labels", "expected"), MOVES)
def test_every_metric_moves(move: Callable[[Metrics], None], name: str, labels: Labels, expected: float) -> None:
    metrics = Metrics()
    assert not any(sample == name for sample, _ in scrape(metrics))
    move(metrics)
    move(metrics)
    assert scrape(metrics)[name, frozenset(labels.items())] == pytest.approx(expected)


def test_what_is_seen_no_more_is_at_zero_and_what_is_removed_is_not_there() -> None:
    metrics = Metrics()
    metrics.seen("a", {"road": 0.4, "car": 0.2}, ["car"])
    metrics.seen("b", {"road": 0.9}, [])
    metrics.seen("a", {"road": 0.6}, [])
    found = {(name, *sorted(dict(labels).values())): value for (name, labels), value in scrape(metrics).items()}
    assert found == {
        ("roadlens_class_area", "a", "road"): 0.6, ("roadlens_class_area", "a", "car"): 0,
        ("roadlens_class_area", "b", "road"): 0.9, ("roadlens_boxes", "a", "car"): 0,
    }  # fmt: skip
    metrics.forget("a")
    assert {dict(labels)["stream"] for _, labels in scrape(metrics)} == {"b"}
    metrics.seen("a", {}, [])
    assert {dict(labels)["stream"] for _, labels in scrape(metrics)} == {"b"}


def test_all_that_is_promised_is_there_and_documented() -> None:
    metrics = Metrics()
    with metrics.serve(port=0) as server, urllib.request.urlopen(server.url) as answer:
        families = {f.name: f for f in text_string_to_metric_families(answer.read().decode())}
    assert {name: family.type for name, family in families.items()} == {
        "roadlens_class_area": "gauge",
        "roadlens_boxes": "gauge",
        "roadlens_novelty": "gauge",
        "roadlens_frames_decoded": "counter",
        "roadlens_frames_inferred": "counter",
        "roadlens_frames_carried": "counter",
        "roadlens_looks_put_off": "counter",
        "roadlens_frames_emitted": "counter",
        "roadlens_model_faults": "counter",
        "roadlens_frames_dropped": "counter",
        "roadlens_decode_errors": "counter",
        "roadlens_packets_received": "counter",
        "roadlens_packets_skipped": "counter",
        "roadlens_stage_seconds": "histogram",
        "roadlens_frame_age_seconds": "histogram",
        "roadlens_queue_depth": "gauge",
        "roadlens_engine_info": "gauge",
        "roadlens_engine_state": "gauge",
        "roadlens_encoder_info": "gauge",
        "roadlens_degraded": "counter",
        "roadlens_stream_state": "gauge",
        "roadlens_source_failures": "counter",
        "roadlens_source_reconnects": "counter",
        "roadlens_output_running": "gauge",
        "roadlens_output_failures": "counter",
        "roadlens_output_dropped": "counter",
    }
    assert all(family.documentation for family in families.values())


def test_an_engine_is_in_one_state_and_described_once() -> None:
    metrics = Metrics()
    metrics.engine("unet", "openvino", "auto", "auto", "loading")
    metrics.engine("unet", "openvino", "bf16", "Some CPU", "ready")
    seen = scrape(metrics)
    infos = [dict(labels) for name, labels in seen if name == "roadlens_engine_info"]
    assert infos == [{"model": "unet", "backend": "openvino", "precision": "bf16", "device": "Some CPU"}]
    states = {dict(labels)["state"]: value for (name, labels), value in seen.items() if name == "roadlens_engine_state"}
    assert states == {"loading": 0, "building": 0, "ready": 1, "failed": 0}


def test_an_encoder_that_is_fallen_back_from_disappears() -> None:
    metrics = Metrics()
    metrics.encoder("a", "h264_nvenc")
    metrics.encoder("a", "libx264")
    metrics.encoder("b", "h264_nvenc")
    shown = {tuple(sorted(labels)) for name, labels in scrape(metrics) if name == "roadlens_encoder_info"}
    assert shown == {
        (("encoder", "libx264"), ("stream", "a")),
        (("encoder", "h264_nvenc"), ("stream", "b")),
    }


def test_a_stream_that_goes_takes_all_its_series_with_it() -> None:
    metrics = Metrics()
    for move, *_ in MOVES:
        move(metrics)
    of_streams = [c for c in metrics.registry._names_to_collectors.values() if "stream" in c._labelnames]  # type: ignore[attr-defined]
    before = scrape(metrics)
    moved = {name for name, labels in before if ("stream", "a") in labels}
    for collector in of_streams:
        assert any(sample.name in moved for family in collector.collect() for sample in family.samples), collector
    metrics.decoded("b")
    metrics.encoder("b", "libx264")
    metrics.forget("a")
    kept = scrape(metrics)
    assert not any(("stream", "a") in labels for _, labels in kept)
    assert {name for name, labels in kept if ("stream", "b") in labels} >= {
        "roadlens_frames_decoded_total", "roadlens_encoder_info",
    }  # fmt: skip
    assert {k: v for k, v in kept.items() if ("stream", "b") not in k[1]} == {
        k: v for k, v in before.items() if "stream" not in dict(k[1])
    }, "what is of no stream stays"


def test_two_runs_share_nothing_and_nothing_is_global() -> None:
    first, second = Metrics(), Metrics()
    first.decoded("a")
    assert ("roadlens_frames_decoded_total", frozenset({("stream", "a")})) not in scrape(second)
    assert REGISTRY.get_sample_value("roadlens_frames_decoded_total", {"stream": "a"}) is None


def test_threads_lose_no_count() -> None:
    metrics = Metrics()

    def work() -> None:
        for _ in range(2000):
            metrics.decoded("a")
            metrics.stage("decode", 0.001)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = scrape(metrics)
    assert seen["roadlens_frames_decoded_total", frozenset({("stream", "a")})] == 8000
    assert seen["roadlens_stage_seconds_count", frozenset({("stage", "decode")})] == 8000


def test_the_endpoint_is_on_loopback_and_gone_when_closed() -> None:
    server = Metrics().serve(port=0)
    assert server.host == "127.0.0.1"
    server.close()
    server.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(server.url, timeout=5)
    with Metrics().serve(port=server.port) as again:
        assert again.port == server.port


@pytest.mark.seconds
def test_clients_that_ask_nothing_keep_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "MOST_SCRAPES", 3)
    monkeypatch.setattr(metrics_module._Silent, "timeout", 0.3)
    with Metrics().serve(port=0) as server:
        idle = [socket.create_connection((server.host, server.port), timeout=30) for _ in range(20)]
        assert sum(thread.name.startswith("Thread-") for thread in threading.enumerate()) < 15
        for each in idle:
            assert each.recv(1) == b"", "it is closed"
            each.close()
        with urllib.request.urlopen(server.url, timeout=30) as answer:
            assert answer.status == 200


def test_metrics_that_other_machines_reach_are_pointed_out(caplog: pytest.LogCaptureFixture) -> None:
    for host, said in (("127.0.0.1", False), ("0.0.0.0", True)):
        caplog.clear()
        with Metrics().serve(host, 0):
            assert ("open to every machine" in caplog.text) == said


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(OutputError, match=f"127.0.0.1:{port}, which is in use") as refused:
            Metrics().serve(port=port)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("no-such-host.invalid", 0), ("127.0.0.1", 70000)])
def test_where_it_cannot_listen_it_says_so(host: str, port: int) -> None:
    with pytest.raises(OutputError, match=f"metrics cannot be served at {host}:{port}"):
        Metrics().serve(host, port)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian's package prometheus) is not installed")
def test_prometheus_own_linter_has_nothing_to_say() -> None:
    metrics = Metrics()
    metrics.decoded("a")
    metrics.stage("infer", 0.02)
    metrics.engine("unet", "openvino", "bf16", "cpu", "ready")
    with metrics.serve(port=0) as server, urllib.request.urlopen(server.url) as answer:
        text = answer.read()
    linted = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
    assert (linted.returncode, linted.stdout, linted.stderr) == (0, b"", b"")


PROMETHEUS = """
global: {scrape_interval: 1s}
scrape_configs: [{job_name: roadlens, static_configs: [{targets: ["%s"]}]}]
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus (Debian's package) is not installed")
def test_a_real_prometheus_scrapes_it(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.decoded("drive", 42)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with metrics.serve(port=0) as server:
        (tmp_path / "prometheus.yml").write_text(PROMETHEUS % f"{server.host}:{server.port}")
        process = subprocess.Popen(
            ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
             f"--web.listen-address={address}"],
            stderr=subprocess.PIPE,
        )  # fmt: skip
        drained = threading.Thread(target=lambda: process.stderr and process.stderr.read(), daemon=True)
        drained.start()
        query = urllib.parse.urlencode({"query": 'roadlens_frames_decoded_total{stream="drive"}'})
        try:
            found: list[dict[str, list[str]]] = []
            while not found:
                assert process.poll() is None, "prometheus ended"
                try:
                    with urllib.request.urlopen(f"http://{address}/api/v1/query?{query}", timeout=5) as answer:
                        found = json.load(answer)["data"]["result"]
                except (urllib.error.URLError, ConnectionError):
                    drained.join(0.1)  # not listening yet
        finally:
            process.kill()
            process.wait()
            drained.join()
    assert found[0]["value"][1] == "42"
