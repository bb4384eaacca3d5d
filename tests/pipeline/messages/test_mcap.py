"""Recordings: what was sent comes back bit for bit, a killed recorder costs a second, and Foxglove can read it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.classes import CITYSCAPES_CLASSES
from engines.errors import OutputError, SourceError
from pipeline.messages import composing, headers, masks, topics, wire
from pipeline.messages.headers import AnalysisMessage, EndMessage, HeartbeatMessage, PictureMessage, StatusMessage
from pipeline.messages.mcap import Recorder
from pipeline.messages.publish import Publisher
from pipeline.messages.recording import read_recording, recover
from pipeline.messages.replay import replay
from pipeline.messages.sockets.outlet import Outlet
from pipeline.messages.subscriber import Subscriber
from pipeline.state import SourceState, StateChange
from tests.pipeline.fake_analysis import analysis, areas
from tests.pipeline.messages.test_publish import ANYWHERE, ROOT, until_subscribed

pytest.importorskip("mcap", reason="the extra `mcap` is not installed")
import lz4.frame
import zstandard
from mcap.reader import make_reader

COMMANDS = "from pipeline.commands.mcap import app; app()"
JPEG = b"\xff\xd8\xff\xe0 not much of a picture \xff\xd9"


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """One of the commands in a process of its own, killed at the end whatever happened."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMANDS, *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def one_of_each() -> list[tuple[headers.Header, list[bytes]]]:
    """A message of every kind, with masks both ways and headers both ways."""
    seen = [composing.from_analysis(analysis(index), index, run="c0ffee") for index in range(3)]
    change = StateChange("drive", SourceState.BACKING_OFF, "the camera closed the connection", "ended", 5.0, 2, 1, 0.5)
    status = composing.from_change(change, 0, run="c0ffee")
    heartbeat = HeartbeatMessage(
        stream="drive", sequence=4, at=1.5, uptime_s=2.0, interval_s=1.0, next_sequence=3, sent=7, dropped=0
    )
    picture = composing.picture_of(analysis(2), 2, (32, 18), run="c0ffee")
    end = EndMessage(stream="drive", sequence=3, frames=3, dropped=0, reason="complete")
    sent = [
        wire.encode(status).parts,
        wire.encode(seen[0], areas(), CITYSCAPES_CLASSES).parts,
        wire.encode(seen[1], areas(), CITYSCAPES_CLASSES, header="json", mask="rle").parts,
        [*wire.encode(picture).parts, JPEG],
        wire.encode(seen[2]).parts,
        wire.encode(heartbeat, header="json").parts,
        wire.encode(end).parts,
    ]
    return [(wire.decode_header(parts[1]), parts) for parts in sent]


def written(path: Path, **options: Any) -> list[tuple[bytes, ...]]:
    with Recorder(path, **options) as recorder:
        for header, parts in one_of_each():
            recorder.write(header, parts)
    return [tuple(parts) for _, parts in one_of_each()]


# Bit for bit ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("views", [True, False])
def test_what_is_recorded_is_read_bit_for_bit_and_in_order(tmp_path: Path, views: bool) -> None:
    sent = written(tmp_path / "drive.mcap", views=views)
    recorded = list(read_recording(tmp_path / "drive.mcap"))
    assert [message.parts for message in recorded] == sent
    assert [message.at for message in recorded] == sorted(message.at for message in recorded)


@settings(max_examples=30, deadline=None)
@given(payloads=st.lists(st.none() | st.binary(max_size=300), max_size=20), stream=st.text(min_size=1, max_size=8))
def test_any_bytes_come_back(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes | None], stream: str
) -> None:
    path = tmp_path_factory.mktemp("any") / "drive.mcap"
    try:
        stream.encode()
    except UnicodeEncodeError:
        return
    end = EndMessage(stream=stream, sequence=0, frames=0, dropped=0, reason="complete")
    sent = [(topics.topic(stream, "end"), b"\x80" * 3, *(() if p is None else (p,))) for p in [b"", *payloads]]
    with Recorder(path, views=False) as recorder:
        for parts in sent:
            recorder.write(end, parts)
    assert [message.parts for message in read_recording(path)] == sent


@pytest.mark.seconds
def test_publisher_recorder_replay_subscriber_all_in_processes_of_their_own(tmp_path: Path) -> None:
    """What a subscriber of the publisher got and what one of the replay gets are the same bytes."""
    path = tmp_path / "drive.mcap"
    frames = 40
    with Publisher(ANYWHERE, heartbeat=0.2, high_water=1000) as publisher:
        publisher.status(StateChange("front", SourceState.STREAMING, at=time.time()))
        with (
            Subscriber(publisher.endpoint, kinds=headers.KINDS[:4], timeout=60, high_water=1000) as direct,
            started("record", publisher.endpoint, "-o", str(path), "--until-end") as recorder,
        ):
            while not path.exists():
                time.sleep(0.01)
            while publisher.sent.get("front", 0) < 2:  # both have joined: each had the state sent
                time.sleep(0.01)
            for index in range(frames):
                publisher.consume(analysis(index, "front"))
                time.sleep(0.002)
            publisher.end("front")
            live = []
            while not live or not isinstance(live[-1].header, EndMessage):
                live.append(direct.receive())
            _, said = recorder.communicate(timeout=120)
            assert recorder.returncode == 0, said
            assert said.endswith("0 missed\n")

    def counted(received: list[Any]) -> list[tuple[bytes, ...]]:
        return [r.parts for r in received if isinstance(r.header, AnalysisMessage | EndMessage)]

    with started("replay", str(path), "--push", ANYWHERE, "--fast") as process:
        assert process.stderr is not None
        endpoint = process.stderr.readline().split()[1]
        with Subscriber(endpoint, "pull", kinds=headers.KINDS, until_end=True, timeout=60) as subscriber:
            again = list(subscriber)
        _, said = process.communicate(timeout=120)
    assert counted(again) == counted(live)
    assert len(counted(again)) == frames + 1
    recorded = [message.parts for message in read_recording(path)]
    assert [r.parts for r in again] == recorded, "and every other message, too"
    assert any(parts[0].endswith(b"/status") for parts in recorded)
    assert said.endswith(f"{len(recorded)} read, {len(recorded)} sent\n")


# Replay ---------------------------------------------------------------------------------------------------------------


def clocked(path: Path, seconds: list[float]) -> None:
    """A recording of one stream with messages at these times."""
    times = iter([round(1_700_000_000e9 + at * 1e9) for at in seconds])
    with Recorder(path, clock=lambda: next(times)) as recorder:
        for index in range(len(seconds)):
            header = composing.from_analysis(analysis(index), index)
            recorder.write(header, wire.encode(header).parts)


@pytest.mark.seconds
@pytest.mark.parametrize(("speed", "least"), [(1.0, 0.6), (3.0, 0.2), (None, 0.0)])
def test_the_pace_is_kept_or_multiplied_or_left(tmp_path: Path, speed: float | None, least: float) -> None:
    clocked(tmp_path / "drive.mcap", [0.0, 0.1, 0.6])
    outlet = Outlet(ANYWHERE, "push")
    with Subscriber(outlet.endpoint, "pull", timeout=60) as subscriber:
        began = time.monotonic()
        result = replay(read_recording(tmp_path / "drive.mcap"), [outlet], speed=speed)
        assert time.monotonic() - began >= least
        assert (result.read, result.sent) == (3, 3)
        assert [subscriber.receive().header.sequence for _ in range(3)] == [0, 1, 2]
        outlet.close()


def test_a_replay_can_be_stopped_while_it_waits(tmp_path: Path) -> None:
    clocked(tmp_path / "drive.mcap", [0.0, 3600.0])
    stopped = threading.Event()
    outlet = Outlet(ANYWHERE, "push", stop=stopped.is_set, linger=0)
    with Subscriber(outlet.endpoint, "pull", timeout=60) as subscriber:
        recording = read_recording(tmp_path / "drive.mcap")
        replaying = threading.Thread(target=replay, args=(recording, [outlet]), kwargs={"stopped": stopped})
        replaying.start()
        subscriber.receive()
        stopped.set()
        replaying.join(60)
        assert not replaying.is_alive()
    outlet.close()


@pytest.mark.seconds
def test_a_replay_serves_classes_and_late_comers_like_the_publisher(tmp_path: Path) -> None:
    path = tmp_path / "drive.mcap"
    times = iter([0, 1, *range(10**9, 10**9 + 9)])
    with Recorder(path, clock=lambda: next(times)) as recorder:
        for header, parts in one_of_each():
            recorder.write(header, parts)
    outlet = Outlet(ANYWHERE)
    with (
        Subscriber(
            outlet.endpoint, streams=["drive"], classes=["person", "car"], timeout=60, until_end=True
        ) as by_class,
        Subscriber(outlet.endpoint, streams=["drive"], kinds=["status"], timeout=60) as late,
    ):
        replay(read_recording(path), [outlet], speed=1.0, wait=True)
        assert [r.header.sequence for r in by_class] == [0, 1, 2, 3], "each once, though both classes are in it"
        assert late.receive().header.sequence == 0
    outlet.close()


# Killed, damaged, full ------------------------------------------------------------------------------------------------


@pytest.mark.seconds
def test_a_killed_recorder_leaves_a_file_that_is_read_and_can_be_made_whole(tmp_path: Path) -> None:
    path, whole = tmp_path / "drive.mcap", tmp_path / "whole.mcap"
    with (
        Publisher(ANYWHERE, heartbeat=0.1) as publisher,
        started("record", publisher.endpoint, "-o", str(path)) as recorder,
    ):
        until_subscribed(publisher)
        index = 0
        while not path.exists() or path.stat().st_size < 5000:
            publisher.consume(analysis(index))
            index += 1
            time.sleep(0.01)
        recorder.kill()
        recorder.wait()
    recorded = [message.parts for message in read_recording(path)]
    sequences = [wire.decode(p).header.sequence for p in recorded if p[0].endswith(b"/analysis")]
    assert len(sequences) > 3
    assert sequences == list(range(sequences[0], sequences[-1] + 1))
    with started("recover", str(path), "-o", str(whole)) as process:
        _, said = process.communicate(timeout=120)
    assert "messages recovered" in said
    assert [message.parts for message in read_recording(whole)] == recorded
    with whole.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    assert summary.statistics is not None
    assert summary.statistics.message_count > len(recorded)


def test_a_mask_that_cannot_be_shown_is_recorded_all_the_same(tmp_path: Path) -> None:
    parts = wire.encode(composing.from_analysis(analysis(0), 0), areas(), CITYSCAPES_CLASSES, mask="rle").parts
    parts[2] = parts[2][:-1]
    with Recorder(tmp_path / "drive.mcap") as recorder:
        for _ in range(3):
            recorder.write(wire.decode_header(parts[1]), parts)
    assert [r.parts for r in read_recording(tmp_path / "drive.mcap")] == [tuple(parts)] * 3


def test_a_clock_that_is_set_back_costs_no_more_and_the_pace_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "drive.mcap"
    wall = iter(int((5000.0 + at - (3600 if at >= 4 else 0)) * 1e9) for at in range(0, 20, 2))
    monotonic = iter(float(at) for at in range(-2, 20, 2))
    end = EndMessage(stream="drive", sequence=0, frames=0, dropped=0, reason="complete")
    recorder = Recorder(path, clock=lambda: next(wall), monotonic=lambda: next(monotonic))
    for _ in range(8):
        recorder.write(end, wire.encode(end).parts)
    recorded = list(read_recording(path))  # as a kill leaves it
    assert [r.at / 1e9 - 5000 for r in recorded] == [0, 2, 4, 6, 8, 10, 12, 14]
    recorder.close()


@pytest.mark.seconds
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_recording_in_order(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "drive.mcap"
    with Publisher(ANYWHERE) as publisher, started("record", publisher.endpoint, "-o", str(path)) as recorder:
        until_subscribed(publisher)
        publisher.consume(analysis(0))
        while publisher.sent.get("drive", 0) < 1:
            time.sleep(0.01)
        while not path.exists() or path.stat().st_size < 1000:  # what it has is flushed when nothing more comes
            time.sleep(0.01)
        recorder.send_signal(number)
        _, said = recorder.communicate(timeout=60)
    assert recorder.returncode == 0, said
    with path.open("rb") as file:
        assert make_reader(file).get_summary() is not None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "drive.mcap"
    with Recorder(path) as recorder:
        for _ in range(5):
            for header, parts in one_of_each():
                recorder.write(header, parts)
            recorder.flush()
    return path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_torn_or_damaged_file_is_read_as_far_as_it_is_whole(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, data: st.DataObject
) -> None:
    sent = [tuple(parts) for _, parts in one_of_each()] * 5
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 3)) if damaged else 0):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("torn") / "drive.mcap"
    path.write_bytes(bytes(damaged))
    try:
        read = [message.parts for message in read_recording(path)]
    except SourceError:
        return
    assert len(read) <= len(sent)
    assert all(parts in sent for parts in read)


def test_what_is_left_of_a_damaged_file_is_recovered(tmp_path: Path, whole: bytes) -> None:
    """The first chunk is of a status, and holds what the others of that kind refer to."""
    damaged = bytearray(whole)
    damaged[whole.index(b"zstd") + 40] ^= 0xFF
    (tmp_path / "drive.mcap").write_bytes(bytes(damaged))
    assert recover(tmp_path / "drive.mcap", tmp_path / "new.mcap") > 0
    sent = [tuple(parts) for header, parts in one_of_each() if not isinstance(header, StatusMessage)] * 5
    assert [message.parts for message in read_recording(tmp_path / "new.mcap")] == sent


def test_a_recovery_that_finds_no_space_leaves_no_half_a_file(tmp_path: Path, whole: bytes) -> None:
    (tmp_path / "drive.mcap").write_bytes(whole[:-200])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written: File too large"):
            recover(tmp_path / "drive.mcap", tmp_path / "new.mcap")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert recover(tmp_path / "drive.mcap", tmp_path / "new.mcap") > 0


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), (b"", "no MCAP"), (b"hello", "no MCAP")])
def test_what_is_no_recording_is_refused_in_a_sentence(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "some.mcap"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=said):
        list(read_recording(path))


@pytest.mark.seconds
@pytest.mark.parametrize("compression", ["zstd", "lz4"])
@pytest.mark.parametrize("claimed", [0, 10, 300 << 20, (1 << 64) - 1])
def test_a_chunk_that_unpacks_to_the_whole_memory_is_left_out(
    tmp_path: Path, compression: str, claimed: int, caplog: pytest.LogCaptureFixture
) -> None:
    zeros, megabytes = bytes(1 << 20), 300
    if compression == "zstd":
        packer = zstandard.ZstdCompressor().compressobj(size=megabytes << 20)
        packed = b"".join([*(packer.compress(zeros) for _ in range(megabytes)), packer.flush()])
    else:
        framer = lz4.frame.LZ4FrameCompressor()
        packed = b"".join([framer.begin(), *(framer.compress(zeros) for _ in range(megabytes)), framer.flush()])
    body = struct.pack("<QQQI", 0, 1, claimed, 0) + struct.pack("<I", len(compression)) + compression.encode()
    body += struct.pack("<Q", len(packed)) + packed
    content = (
        b"\x89MCAP0\r\n" + b"\x01" + struct.pack("<Q", 8) + bytes(8) + b"\x06" + struct.pack("<Q", len(body)) + body
    )
    (tmp_path / "bomb.mcap").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SourceError, match="holds no messages"):
        list(read_recording(tmp_path / "bomb.mcap"))
    assert "a damaged chunk is left out" in caplog.text
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_a_recording_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "drive.mcap"
    path.write_text("a drive")
    written(tmp_path / "other.mcap")
    with pytest.raises(OutputError, match="not written over"):
        Recorder(path)
    with pytest.raises(OutputError, match="not written over"):
        recover(tmp_path / "other.mcap", path)
    assert path.read_text() == "a drive"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left"):
        Recorder(Path("/dev/full"), overwrite=True)
    recorder = Recorder(tmp_path / "drive.mcap")
    assert recorder._file is not None
    with Path("/dev/full").open("wb") as full:
        os.dup2(full.fileno(), recorder._file.fileno())  # the disk fills up meanwhile
    header, parts = one_of_each()[1]
    with pytest.raises(OutputError, match="what came before is intact"):
        recorder.write(header, parts)  # the first one is flushed at once
    recorder.close()


# Foxglove -------------------------------------------------------------------------------------------------------------


def plain(schema: dict[str, Any], at: str = "$") -> None:
    """What Foxglove's reader of JSON Schema takes, and nothing else."""
    assert schema["type"] in {"object", "array", "string", "number", "integer", "boolean"}, at
    assert not {"$ref", "anyOf", "oneOf", "allOf", "prefixItems"} & schema.keys(), at
    if schema["type"] == "array":
        assert isinstance(schema["items"], dict), at
        plain(schema["items"], f"{at}[]")
    for name, each in schema.get("properties", {}).items():
        plain(each, f"{at}.{name}")


def test_foxglove_finds_pictures_boxes_logs_and_headers_in_types_it_knows(tmp_path: Path) -> None:
    written(tmp_path / "drive.mcap")
    shown: dict[tuple[str, str], list[Any]] = {}
    with (tmp_path / "drive.mcap").open("rb") as file:
        for schema, channel, message in make_reader(file, validate_crcs=True).iter_messages():
            assert schema is not None
            assert (schema.encoding, channel.message_encoding) == ("jsonschema", "json")
            described = json.loads(schema.data)
            plain(described)
            content = json.loads(message.data)
            jsonschema.validate(content, described)
            shown.setdefault((channel.topic, schema.name), []).append(content)
    shown_masks = shown["/drive/mask", "foxglove.CompressedImage"]
    assert [mask["format"] for mask in shown_masks] == ["png", "png"]
    np.testing.assert_array_equal(masks.decode_png(base64.b64decode(shown_masks[1]["data"]), 64, 32), areas())
    assert base64.b64decode(shown["/drive/camera", "foxglove.CompressedImage"][0]["data"]) == JPEG
    boxes = shown["/drive/boxes", "foxglove.ImageAnnotations"]
    assert boxes[0]["points"][0]["points"][2] == {"x": 30.5, "y": 20.25}
    assert boxes[2]["points"][0]["points"][2] == {"x": 15.25, "y": 10.125}, "on the pictures, once there are some"
    assert boxes[0]["texts"][0]["text"] == "car 7 0.88"
    assert shown["/log", "foxglove.Log"][0]["message"] == "drive: backing_off: the camera closed the connection"
    areas_seen = [content["area"] for content in shown["/drive/analysis", "roadlens.Analysis"]]
    assert areas_seen[0]["road"] == 0.5123
    assert areas_seen[0]["train"] == 0.0, "a class that is absent can be plotted"
    assert ("/drive/status", "roadlens.Status") in shown
    assert ("/drive/heartbeat", "roadlens.Heartbeat") in shown
    assert ("/drive/end", "roadlens.End") in shown


@pytest.mark.parametrize("kind", [AnalysisMessage, EndMessage, StatusMessage, HeartbeatMessage, PictureMessage])
def test_the_schema_of_every_kind_is_plain_and_has_its_fields(kind: Any) -> None:
    from pipeline.messages.foxglove import plain_schema

    schema = plain_schema(kind)
    plain(schema)
    assert set(schema["properties"]) == {*msgspec.structs.asdict(_example(kind)), "kind"}


def _example(kind: Any) -> Any:
    return next(header for header, _ in one_of_each() if isinstance(header, kind))


def test_a_publisher_with_pictures_is_recorded_with_them(tmp_path: Path) -> None:
    from pipeline.messages.publish import PictureOptions

    path = tmp_path / "drive.mcap"
    with (
        Publisher(ANYWHERE, picture=PictureOptions()) as publisher,
        started("record", publisher.endpoint, "-o", str(path), "--pictures", "--until-end") as process,
    ):
        until_subscribed(publisher, subject=topics.topic("drive", "picture"))
        until_subscribed(publisher)
        publisher.consume(analysis(0))
        publisher.end("drive")
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    kinds = [parts[0].rpartition(b"/")[2] for parts in (message.parts for message in read_recording(path))]
    assert sorted(set(kinds) - {b"heartbeat"}) == [b"analysis", b"end", b"picture"]


# A run that records itself --------------------------------------------------------------------------------------------


@pytest.mark.seconds
def test_a_run_records_what_a_publisher_would_have_sent(
    tmp_path: Path, roadlens: Callable[..., Any], segmenter: Path
) -> None:
    sources = ["synthetic:?seconds=0.4&width=160&height=96", "synthetic:?seconds=0.2&width=160&height=96&seed=1"]
    done = roadlens("run", *sources, "--model", segmenter, "--mcap", "drive.mcap")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["drive.mcap"]
    received = [wire.decode(message.parts) for message in read_recording(tmp_path / "drive.mcap")]
    analyses = [r for r in received if isinstance(r.header, AnalysisMessage)]
    assert sorted((r.header.stream, r.header.sequence) for r in analyses) == [
        *(("synthetic", n) for n in range(10)), *(("synthetic-2", n) for n in range(5)),
    ]  # fmt: skip
    assert all(r.class_map is not None for r in analyses)
    ends = {r.header.stream: r.header for r in received if isinstance(r.header, EndMessage)}
    assert {stream: (end.sequence, end.reason) for stream, end in ends.items()} == {
        "synthetic": (10, "complete"), "synthetic-2": (5, "complete"),
    }  # fmt: skip
    assert len({r.header.run for r in received}) == 1
    with (tmp_path / "drive.mcap").open("rb") as file:
        shown = {channel.topic for _, channel, _ in make_reader(file).iter_messages()}
    assert {"/synthetic/mask", "/synthetic-2/boxes"} <= shown
