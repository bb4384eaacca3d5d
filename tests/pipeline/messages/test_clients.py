"""Readers in other languages and behind a broker, as MESSAGES.md has them, against restarts of what they read."""

from __future__ import annotations

import json
import queue
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.classes import CITYSCAPES_CLASSES
from pipeline.messages import headers, wire
from pipeline.messages.publish import Publisher
from pipeline.state import SourceState, StateChange
from tests.pipeline.conftest import ROOT
from tests.pipeline.fake_analysis import analysis, areas
from tests.pipeline.messages.test_publish import until_subscribed

EXAMPLES = ROOT / "deploy" / "examples"
NODE_PACKAGES = ("zeromq@6", "@msgpack/msgpack@3", "pngjs@7")
SECONDS = 60.0

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(*command: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([str(word) for word in command], text=True, **options)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


# Node -----------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def node_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example in a folder with its packages. `zeromq` brings its library built: no script of a package is run."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    shutil.copy(EXAMPLES / "subscribe.mjs", folder)
    install = ("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", *NODE_PACKAGES)
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot install here: {done.stderr.strip()[-200:]}")
    return folder / "subscribe.mjs"


def test_a_node_client_reads_masks_and_goes_on_after_a_restart(node_client: Path) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    with running("node", node_client, endpoint, stdout=subprocess.PIPE) as node:
        assert node.stdout is not None
        for run in range(2):
            with Publisher(endpoint, linger=SECONDS) as publisher:
                until_subscribed(publisher)
                for index in range(3):
                    publisher.consume(analysis(index))
                publisher.end("drive")
                told = [json.loads(node.stdout.readline()) for _ in range(4)]
            assert [(one["kind"], one["sequence"], one["missed"]) for one in told] == [
                ("analysis", 0, 0), ("analysis", 1, 0), ("analysis", 2, 0), ("end", 3, 0),
            ]  # fmt: skip
            assert [one["restarted"] for one in told] == [run == 1, False, False, False]
            for index, one in enumerate(told[:3]):
                assert one["labels"] == ["car", "person"]
                assert one["area"] == pytest.approx(true_shares(areas(seed=index)))


def true_shares(class_map: Any) -> dict[str, float]:
    names = {info.id: info.name for info in CITYSCAPES_CLASSES} | {255: "unknown"}
    ids, counts = np.unique(class_map, return_counts=True)
    return {names[int(each)]: count / class_map.size for each, count in zip(ids, counts, strict=True)}


# MQTT -----------------------------------------------------------------------------------------------------------------
class Reader:
    """Who reads from the broker.

    Attributes:
        come: topic, payload and whether it was retained, of each message.
    """

    def __init__(self, port: int) -> None:
        mqtt = pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")
        self.come: queue.Queue[tuple[str, bytes, bool]] = queue.Queue()
        subscribed = threading.Event()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe("roadlens/v1/#")
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_message = lambda _client, _data, m: self.come.put((m.topic, m.payload, m.retain))
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert subscribed.wait(SECONDS)

    def until(self, topic: str, retained: bool | None = None, seconds: float = SECONDS) -> bytes:
        """The next message of a topic."""
        deadline = time.monotonic() + seconds
        while True:
            name, payload, old = self.come.get(timeout=max(deadline - time.monotonic(), 0.01))
            if name == topic and retained in {None, old}:
                return payload

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def kept(port: int, topic: str) -> bytes:
    """What the broker keeps of a topic, for who comes late; it may come to the broker behind the first analysis."""
    deadline = time.monotonic() + SECONDS
    while True:
        late = Reader(port)
        try:
            return late.until(topic, True, 1)
        except queue.Empty:
            assert time.monotonic() < deadline, f"the broker keeps no {topic}"
        finally:
            late.close()


@contextmanager
def broker(port: int, folder: Path) -> Iterator[None]:
    """A real mosquitto that keeps nothing: a restart of it has forgotten what was retained."""
    found = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
    if found is None:
        pytest.skip("mosquitto is not installed")
    configuration = folder / "mosquitto.conf"
    configuration.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    with running(found, "-c", configuration, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + SECONDS
        while True:
            assert process.poll() is None, "mosquitto has ended"
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        yield


def read_on(publisher: Publisher, reader: Reader, first: int) -> int:
    """Publish until a whole analysis has come over the broker; the number of the next one."""
    deadline = time.monotonic() + SECONDS
    for index in range(first, first + 10_000):
        publisher.consume(analysis(index, class_map=areas(seed=1)))
        time.sleep(0.02)
        if not reader.come.empty():
            header = reader.until("roadlens/v1/drive/analysis")
            message = wire.decode(
                [b"roadlens/v1/drive/analysis", header, reader.until("roadlens/v1/drive/analysis/payload")]
            )
            assert isinstance(message.header, headers.AnalysisMessage)
            assert message.class_map is not None
            np.testing.assert_array_equal(message.class_map, areas(seed=1))
            return index + 1
        assert time.monotonic() < deadline, "nothing comes over the broker"
    raise AssertionError("unreachable")


def test_an_mqtt_bridge_outlives_its_broker_and_its_publisher(tmp_path: Path) -> None:
    pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")
    port, endpoint = free_port(), f"tcp://127.0.0.1:{free_port()}"
    streaming = StateChange("drive", SourceState.STREAMING, at=1.0)
    with ExitStack() as stack:
        # The bridge is there first: nobody listens yet, on either side.
        stack.enter_context(running(sys.executable, EXAMPLES / "mqtt.py", endpoint, f"127.0.0.1:{port}"))
        for _ in range(2):  # a broker, and another one after it
            with broker(port, tmp_path), ExitStack() as readers:
                for _ in range(2):  # a publisher, and another one after it
                    with Publisher(endpoint, heartbeat=0.1) as publisher:
                        reader = Reader(port)
                        readers.callback(reader.close)
                        publisher.status(streaming)
                        until_subscribed(publisher)
                        read_on(publisher, reader, 0)
                        state = wire.decode([b"roadlens/v1/drive/status", kept(port, "roadlens/v1/drive/status")])
                        assert isinstance(state.header, headers.StatusMessage)
                        assert state.header.state is SourceState.STREAMING
