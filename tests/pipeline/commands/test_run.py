"""`roadlens run` and its neighbours as a user meets them: real processes, real files, real sockets."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
import zmq

from pipeline.commands.console import FINISH_SECONDS
from pipeline.messages.headers import AnalysisMessage
from pipeline.messages.subscriber import Subscriber
from tests.footage import write_clip
from tests.pipeline.conftest import ROOT, json_lines

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [f.pts * f.time_base for f in container.decode(video=0)]


def one_sentence(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The error of a command that failed as it should: one line, no traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("roadlens: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.seconds
def test_a_file_becomes_video_lines_and_a_summary(roadlens: Run, tmp_path: Path, drive: Path, segmenter: Path) -> None:
    done = roadlens("run", drive, "--model", segmenter, "-o", "out.mp4", "--jsonl", "out.jsonl", "--summary", "s.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "drive: file, every frame; 320×180, 25 fps" in done.stderr
    assert times(tmp_path / "out.mp4") == times(drive)
    with av.open(str(tmp_path / "out.mp4")) as out, av.open(str(drive)) as original:
        assert [bytes(p) for p in out.demux(audio=0)] == [bytes(p) for p in original.demux(audio=0)]
    lines = json_lines(tmp_path / "out.jsonl")
    assert [line["frame"] for line in lines] == list(range(60))
    assert [line["sequence"] for line in lines] == list(range(60))
    assert {line["mode"] for line in lines} == {"file"}
    assert [Fraction(line["pts"]) * Fraction(*line["time_base"]) for line in lines] == times(drive)
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary["frames"] == 60
    stream = summary["streams"][0]
    assert (stream["frames_in"], stream["frames_out"], stream["frames_dropped"]) == (60, 60, {})
    assert stream["ended"] == "complete"
    assert {"decode", "resize", "fuse", "overlay", "encode"} <= set(summary["stages"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.jsonl", "out.mp4", "s.json"]


@pytest.mark.seconds
def test_any_output_alone(roadlens: Run, tmp_path: Path, drive: Path, segmenter: Path) -> None:
    lines = roadlens("run", drive, "--model", segmenter, "--jsonl", "-")
    assert lines.returncode == 0
    assert [json.loads(line)["frame"] for line in lines.stdout.splitlines()] == list(range(60))
    summary = roadlens("run", drive, "--model", segmenter, "--summary", "-")
    assert json.loads(summary.stdout)["frames"] == 60
    assert list(tmp_path.iterdir()) == []


@pytest.mark.seconds
def test_several_sources_are_streams_of_their_own(roadlens: Run, tmp_path: Path, segmenter: Path) -> None:
    (tmp_path / "trip").mkdir()
    for number, frames in ((1, 10), (2, 12), (10, 8)):
        write_clip(tmp_path / "trip" / f"clip_{number}.mp4", frames=frames)
    write_clip(tmp_path / "other.mkv", frames=20, size=(160, 90))
    done = roadlens(
        "run", "trip", "other.mkv", "synthetic:?seconds=1&width=320&height=180", "--model", segmenter, "-o", "out",
        "--jsonl", "out", "--summary", "s.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "other.jsonl", "other.mp4", "synthetic.jsonl", "synthetic.mp4", "trip.jsonl", "trip.mp4",
    ]  # fmt: skip
    counts = {s["stream"]: s["frames_out"] for s in json.loads((tmp_path / "s.json").read_text())["streams"]}
    assert counts == {"trip": 30, "other": 20, "synthetic": 25}
    assert times(tmp_path / "out" / "trip.mp4") == [Fraction(i, 25) for i in range(30)]


@pytest.mark.seconds
def test_a_broken_clip_of_a_trip_is_skipped_said_and_counted(roadlens: Run, tmp_path: Path, segmenter: Path) -> None:
    (tmp_path / "trip").mkdir()
    write_clip(tmp_path / "trip" / "1.mp4", frames=10)
    (tmp_path / "trip" / "2.mp4").touch()
    write_clip(tmp_path / "trip" / "3.mp4", frames=10)
    done = roadlens("run", "trip", "--model", segmenter, "-o", "o.mp4", "--summary", "-")
    assert done.returncode == 0
    assert re.search(r"clip skipped: .*2\.mp4 is empty", done.stderr)
    stream = json.loads(done.stdout)["streams"][0]
    assert stream["frames_out"] == 20
    assert [s["clip"] for s in stream["skipped_clips"]] == ["2.mp4"]


@pytest.mark.seconds
def test_a_localizer_beside_the_segmenter_at_its_own_cadence(
    roadlens: Run, drive: Path, segmenter: Path, localizer: Path
) -> None:
    done = roadlens("run", drive, "--model", segmenter, "--model", f"{localizer}:3", "--jsonl", "-")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["models"] for line in lines] == [["bits", "corners"] if i % 3 == 0 else ["bits"] for i in range(60)]


# Messages -----------------------------------------------------------------------------------------------------------
@pytest.mark.seconds
def test_every_frame_reaches_a_puller_in_another_process(roadlens: Run, drive: Path, segmenter: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    reader = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "subscribe", address, "--pull", "--json", "--until-end"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    done = roadlens("run", drive, "--model", segmenter, "--push", address)
    assert done.returncode == 0, done.stderr
    out, err = reader.communicate(timeout=60)
    headers = [json.loads(line) for line in out.splitlines()]
    assert [h["frame"] for h in headers if h["kind"] == "analysis"] == list(range(60))
    assert headers[-1]["kind"] == "end"
    assert headers[-1]["reason"] == "complete"
    assert "0 missed" in err


@pytest.mark.seconds
def test_masks_arrive_as_the_model_made_them(roadlens: Run, drive: Path, segmenter: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with Subscriber(address, "pull", timeout=60, until_end=True) as subscriber:
        done = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "run", str(drive), "--model", str(segmenter), "--push", address],
            cwd=ROOT, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        received = [r for r in subscriber if isinstance(r.header, AnalysisMessage)]
        assert done.wait(60) == 0
    assert len(received) == 60
    for message in received:
        assert message.class_map is not None
        assert message.class_map.shape == (16, 32)
        shares = message.header.area
        assert sum(shares.values()) == pytest.approx(1, abs=0.01)


@pytest.mark.seconds
def test_metrics_can_be_scraped_while_it_runs(tmp_path: Path, drive: Path, segmenter: Path) -> None:
    port = free_port()
    address = f"tcp://127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "run", str(drive), "--model", str(segmenter), "--metrics", str(port),
         "--push", address],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        # Nobody reads from the PUSH socket, so the run stands still and can be looked at.
        text, deadline = "", time.monotonic() + 60
        while 'roadlens_frames_decoded_total{stream="drive"}' not in text and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                    text = answer.read().decode()
            except OSError:
                time.sleep(0.05)
        assert 'roadlens_frames_decoded_total{stream="drive"}' in text
        assert "roadlens_engine_state{" in text or "roadlens_engine_info{" in text
        with Subscriber(address, "pull", timeout=60, until_end=True) as subscriber:
            assert sum(isinstance(r.header, AnalysisMessage) for r in subscriber) == 60
        assert process.wait(60) == 0
    finally:
        process.kill()


# Stopping -----------------------------------------------------------------------------------------------------------
def start_long_run(tmp_path: Path, segmenter: Path, *extra: str, frames: int = 60) -> subprocess.Popen[str]:
    """A run of ten minutes of synthetic footage, returned once it has written some frames."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "run", "synthetic:?seconds=600&width=160&height=96", "--model",
         str(segmenter), "-o", str(tmp_path / "o.mp4"), "--jsonl", str(tmp_path / "o.jsonl"), *extra],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    lines, deadline = tmp_path / "o.partial.jsonl", time.monotonic() + 60
    while not lines.exists() or lines.read_bytes().count(b"\n") < frames:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "60 s and not as many frames as wanted"
        time.sleep(0.02)
    return process


@pytest.mark.seconds
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_finishes_the_files(tmp_path: Path, segmenter: Path, number: int) -> None:
    process = start_long_run(tmp_path, segmenter)
    began = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "stopping: finishing the files" in err
    taken = time.monotonic() - began
    assert taken < 20
    (video,), (lines,) = tmp_path.glob("*.mp4"), tmp_path.glob("*.jsonl")
    assert len(times(video)) >= 60 - 25
    if taken < FINISH_SECONDS:  # a machine that is too busy gets files that play, at their partial names
        assert (video.name, lines.name) == ("o.mp4", "o.jsonl")
        assert len(json_lines(lines)) == len(times(video)) >= 60


@pytest.mark.seconds
def test_a_terminal_that_is_closed_finishes_the_files_and_nohup_goes_on(tmp_path: Path, segmenter: Path) -> None:
    master, slave = os.openpty()
    command = [
        sys.executable, "-m", "pipeline.cli", "run", "synthetic:?seconds=600&width=160&height=96", "--model",
        str(segmenter), "--jsonl",
    ]  # fmt: skip
    lines = tmp_path / "closed.partial.jsonl", tmp_path / "kept.partial.jsonl"
    closed = subprocess.Popen(
        [sys.executable, "-c", _LEADER, *command, str(tmp_path / "closed.jsonl")],
        cwd=ROOT, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    kept = subprocess.Popen(
        ["nohup", *command, str(tmp_path / "kept.jsonl")],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for path in lines:
            until_lines(path, 20)
        threading.Timer(0.5, os.close, [master]).start()
        assert closed.wait(60) == 130
        assert len(json_lines(tmp_path / "closed.jsonl")) >= 20
        kept.send_signal(signal.SIGHUP)
        until_lines(lines[1], lines[1].read_bytes().count(b"\n") + 50)
        assert kept.poll() is None
    finally:
        for process in (closed, kept):
            process.kill()
            process.wait()


_LEADER = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
"""The terminal becomes that of the session, as in a shell's window."""


def until_lines(path: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline, f"60 s and not as many lines in {path.name}"
        time.sleep(0.02)


@pytest.mark.seconds
def test_a_second_signal_stops_at_once_and_what_is_written_plays(tmp_path: Path, segmenter: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with zmq.Context() as context, context.socket(zmq.PULL) as reader:
        # Who reads a while and then no more makes the run stand still: one signal waits for readers, a second does not.
        reader.rcvhwm = 1
        reader.connect(address)
        take = threading.Thread(target=lambda: [reader.recv_multipart() for _ in range(60)])
        take.start()
        process = start_long_run(tmp_path, segmenter, "--push", address, frames=50)
        take.join()
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    (video,) = tmp_path.glob("*.mp4")
    assert times(video) == [Fraction(i, 25) for i in range(len(times(video)))]
    assert len(times(video)) >= 25


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill -9", "Ctrl-C"])
def test_an_interrupted_run_goes_on_without_doubling_or_losing_a_frame(
    roadlens: Run, tmp_path: Path, segmenter: Path, how: str
) -> None:
    process = start_long_run(tmp_path, segmenter, frames=150)  # more than the encoder and a fragment hold back
    process.send_signal(signal.SIGKILL if how == "kill -9" else signal.SIGINT)
    process.communicate(timeout=30)
    if how == "kill -9":
        assert not (tmp_path / "o.mp4").exists()
        written = len(json_lines(tmp_path / "o.partial.jsonl"))
        assert len(times(tmp_path / "o.partial.mp4")) >= written - 25 - 20
    address = "synthetic:?seconds=24&width=160&height=96"  # the same drive, of which the first 24 s are enough
    done = roadlens("run", address, "--model", segmenter, "-o", "o.mp4", "--jsonl", "o.jsonl", "--resume")
    assert done.returncode == 0, done.stderr
    assert re.search(r"going on at frame \d+", done.stderr)
    lines = json_lines(tmp_path / "o.jsonl")
    assert [line["frame"] for line in lines] == list(range(600))
    assert [line["sequence"] for line in lines] == list(range(600))
    assert times(tmp_path / "o.mp4") == [Fraction(i, 25) for i in range(600)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.jsonl", "o.mp4"]
    again = roadlens("run", address, "--model", segmenter, "-o", "o.mp4", "--jsonl", "o.jsonl", "--resume")
    assert again.returncode == 0
    assert "complete already, nothing to resume" in again.stderr


# Bad input ----------------------------------------------------------------------------------------------------------
@pytest.mark.seconds
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["no-such.mp4"], 3, r"no-such\.mp4 does not exist"),
        (["empty.mp4"], 3, r"empty\.mp4 is empty \(0 bytes\)"),
        (["text.mp4"], 3, r"text\.mp4 cannot be opened: not a video file"),
        (["sound.m4a"], 3, r"sound\.m4a has no video track"),
        (["rtsp://user:secret@host/cam"], 3, r"rtsp://host/cam cannot be reached"),
        (["nothing*.mp4"], 3, r"no file matches"),
        (["synthetic:?widht=4"], 2, r"widht.*did you mean 'width'"),
        (["good.mp4", "--model", "cityscapes-unett"], 4, r"cityscapes-unett"),
        (["good.mp4", "--model", "plain.onnx"], 4, r"plain\.onnx"),
        (["good.mp4", "--model", "missing.onnx"], 4, r"missing\.onnx"),
        (["good.mp4", "--precision", "int4"], 2, r"int4"),
        (["good.mp4", "-o", "no/such/folder/o.mp4"], 5, r"folder no/such/folder does not exist"),
        (["good.mp4", "-o", "o.avi"], 2, r"written as \.mp4"),
        (["good.mp4", "good.mp4", "-o", "one.mp4"], 2, r"several streams; give a folder"),
        (["good.mp4", "--push", "tcp://0.0.0.0:5555"], 2, r"open to other machines"),
        (["good.mp4", "--push", "nonsense"], 5, r"not an address"),
        (
            ["good.mp4", "--restream", "http://user:secret@h/x"],
            5,
            r"'http://h/x' is no address that video can be sent to",
        ),
        (["good.mp4", "synthetic:", "--restream", "rtsp://user:secret@h/x"], 2, r"sent to the one address rtsp://h/x"),
        (["good.mp4", "--record", "text.mp4"], 5, r"recordings cannot be written to text\.mp4/good: not a directory"),
        (["good.mp4", "--hls", "text.mp4"], 5, r"HLS cannot be written to text\.mp4/good: not a directory"),
        (["good.mp4", "--event-clips", "clips", "--anonymize"], 2, r"leave out either `event_clips` or `anonymize`"),
        (["good.mp4", "--metrics", "x"], 2, r"--metrics takes a port"),
        (["good.mp4", "--config", "wrong.yaml"], 2, r"wrong\.yaml.*overlay.*opcity.*opacity"),
        (["good.mp4", "--preset", "warp"], 2, r"warp"),
        (
            ["good.mp4", "--hide", "class 9"],
            2,
            r"--hide\): no model knows a class 'class 9'; the nearest is 'class \d'",
        ),
        (["good.mp4", "--model", "lead-vehicle", "--config", "smooth.yaml"], 2, r"`smoothing` .* none of lead-vehicle"),
        (["good.mp4", "--realtime", "--resume"], 2, r"--resume goes on with files, and 'good' is live"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_sentence_and_leaves_nothing(
    roadlens_here: Run, tmp_path: Path, segmenter: Path, arguments: list[str], code: int, says: str
) -> None:
    write_clip(tmp_path / "good.mp4", frames=5)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video at all\n" * 100)
    (tmp_path / "wrong.yaml").write_text("overlay:\n  opcity: 0.5\n")
    (tmp_path / "smooth.yaml").write_text("smoothing: {}\n")
    _write_sound(tmp_path / "sound.m4a")
    _write_plain_onnx(tmp_path / "plain.onnx")
    before = sorted(p.name for p in tmp_path.iterdir())
    model = [] if "--model" in arguments else ["--model", segmenter]
    outputs = [] if "-o" in arguments else ["-o", "out.mp4"]
    done = roadlens_here("run", *arguments, *model, *outputs)
    assert re.search(says, one_sentence(done, code)), done.stderr
    assert "secret" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.seconds
def test_no_output_at_all_is_a_mistake(roadlens: Run, drive: Path, segmenter: Path) -> None:
    assert "nothing would come out" in one_sentence(roadlens("run", drive, "--model", segmenter), 2)


@pytest.mark.seconds
def test_a_port_in_use_is_said(roadlens_here: Run, drive: Path, segmenter: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for option, value in (("--metrics", port), ("--pub", f"tcp://127.0.0.1:{port}")):
            done = roadlens_here("run", drive, "--model", segmenter, "--summary", "-", option, value)
            assert "in use" in one_sentence(done, 5)


def test_two_segmenters_are_refused(roadlens_here: Run, tmp_path: Path, drive: Path, segmenter: Path) -> None:
    from tests.engines.tiny_models import CONV, conv_model, save

    other = save(conv_model(), CONV, tmp_path / "conv.onnx")
    done = roadlens_here("run", drive, "--model", segmenter, "--model", other, "--summary", "-")
    assert "both give a class map" in one_sentence(done, 4)


@pytest.mark.seconds
def test_a_disk_that_fills_up_ends_the_run_and_keeps_what_was_written(tmp_path: Path, segmenter: Path) -> None:
    import resource

    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "run", "synthetic:?seconds=60&width=320&height=180", "--model",
         str(segmenter), "-o", str(tmp_path / "o.mp4"), "--crf", "5"],
        capture_output=True, text=True, cwd=ROOT, timeout=120, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert "no space is left to write" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "o.mp4").exists()
    assert len(times(tmp_path / "o.partial.mp4")) >= 10
    assert "o.partial.mp4" in done.stderr


# Configuration ------------------------------------------------------------------------------------------------------
@pytest.mark.seconds
def test_a_configuration_file_says_all_the_command_line_can(
    roadlens: Run, tmp_path: Path, drive: Path, segmenter: Path
) -> None:
    (tmp_path / "run.yaml").write_text(
        f"""
        streams:
          - source: {drive}
            id: front
        models:
          - model: {segmenter}
            every: 2
        overlay: {{legend: true, opacity: 0.3}}
        video: {{path: out.mp4, preset: ultrafast}}
        jsonl: out.jsonl
        """
    )
    assert roadlens("config", "check", "run.yaml").returncode == 0
    done = roadlens("run", "--config", "run.yaml", "--crf", "30")
    assert done.returncode == 0, done.stderr
    lines = json_lines(tmp_path / "out.jsonl")
    assert {line["stream"] for line in lines} == {"front"}
    assert [bool(line["models"]) for line in lines] == [i % 2 == 0 for i in range(60)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("streams: [{source: a.mp4, sorce: b}]", r"sorce.*source"),
        ("models: [{model: m, every: 0}]", r"every"),
        ("video: {crf: high}", r"crf"),
        ("streams: [{source: a, id: x}, {source: b, id: x}]", r"'x' is given twice"),
        ("streams: [{source: a, id: 'no spaces'}]", r"id"),
        ("metrics: {port: 70000}", r"port"),
        ("overlay: [1]", r"overlay"),
        ("video: {path: a.mp4\n", r"line"),
    ],
)
def test_config_check_names_the_place(roadlens_here: Run, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    assert re.search(says, one_sentence(roadlens_here("config", "check", "run.yaml"), 2))


@pytest.mark.seconds
def test_the_schema_accepts_what_check_accepts(roadlens: Run) -> None:
    import jsonschema

    schema: dict[str, Any] = json.loads(roadlens("config", "schema").stdout)
    jsonschema.validate({"streams": [{"source": "a.mp4"}], "video": {"path": "o.mp4"}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"streams": [{"sorce": "a.mp4"}]}, schema)


def test_the_modules_a_help_text_needs_are_few() -> None:
    heavy = ("av", "cv2", "numpy", "onnx", "openvino", "torch")
    code = f"import sys, pipeline.cli as c; c._add_commands(); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def _write_sound(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame(format="fltp", layout="stereo", samples=1024)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate, frame.pts = 48000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_plain_onnx(path: Path) -> None:
    import onnx

    from tests.engines.tiny_models import bits_model

    onnx.save(bits_model(), path)


@pytest.mark.seconds
def test_stdout_closed_early_is_no_traceback(drive: Path, segmenter: Path) -> None:
    command = f"{sys.executable} -m pipeline.cli run {drive} --model {segmenter} --jsonl - | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert json.loads(done.stdout)["frame"] == 0
    assert "Traceback" not in done.stderr


def test_the_command_is_installed() -> None:
    assert os.access(Path(sys.executable).with_name("roadlens"), os.X_OK)
