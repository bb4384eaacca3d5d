"""No output of a run may be one of its inputs, and what was complete stays what it was."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engines.claims import Claims
from engines.errors import UsageError
from pipeline.session.ownership import is_own
from tests.footage import write_clip
from tests.pipeline.conftest import ROOT

Run = Callable[..., "subprocess.CompletedProcess[str]"]

CASES = {
    "the folder of the input": ("front.mp4", ["-o", "."]),
    "the input itself": ("a.mp4", ["-o", "a.mp4"]),
    "the input, spelt otherwise": ("a.mp4", ["-o", "sub/../a.mp4"]),
    "the summary": ("y.mp4", ["--summary", "y.mp4"]),
    "the recording of messages": ("y.mp4", ["--mcap", "y.mp4"]),
    "the partial name": ("drive.partial.mp4", ["-o", "drive.mp4"]),
    "the earlier name": ("d.earlier.mp4", ["-o", "d.mp4"]),
    "the partial lines": ("lines.partial.jsonl", ["--jsonl", "lines.jsonl"]),
    "a symbolic link": ("a.mp4", ["-o", "link.mp4"]),
    "a hard link": ("a.mp4", ["-o", "hard.mp4"]),
    "a hard link at the partial name": ("a.mp4", ["-o", "part.mp4"]),
    "the stopped marker": ("o.mp4.stopped", ["-o", "o.mp4"]),
    "an ipc address": ("a.mp4", ["--pub", "ipc://a.mp4"]),
    "the model": ("front.mp4", ["--summary", "model.onnx"]),
    "the configuration": ("front.mp4", ["--config", "run.yaml", "--summary", "run.yaml"]),
    "HLS over its own playlist": ("hls/front/index.m3u8", ["--hls", "hls", "--config", "ids.yaml"]),
    "recordings over a segment": ("rec/front_20261121T061310.250Z.mp4", ["--record", ".", "--config", "rec.yaml"]),
}


def digests(folder: Path) -> dict[str, str]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("case", CASES)
def test_an_output_that_is_an_input_is_refused_and_nothing_is_touched(
    roadlens_here: Run, tmp_path: Path, drive: Path, segmenter: Path, case: str
) -> None:
    source, outputs = CASES[case]
    (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / source).write_bytes(drive.read_bytes())
    (tmp_path / "sub").mkdir()
    (tmp_path / "model.onnx").write_bytes(segmenter.read_bytes())
    (tmp_path / "run.yaml").write_text("{}\n")
    (tmp_path / "ids.yaml").write_text(f"streams: [{{source: {source}, id: front}}]\n")
    (tmp_path / "rec.yaml").write_text(f"streams: [{{source: {source}, id: rec}}]\n")
    if source == "rec/front_20261121T061310.250Z.mp4":
        (tmp_path / "rec" / "rec_20261121T061310.250Z.mp4").hardlink_to(tmp_path / source)
    if source == "a.mp4":
        (tmp_path / "link.mp4").symlink_to("a.mp4")
        (tmp_path / "hard.mp4").hardlink_to(tmp_path / "a.mp4")
        (tmp_path / "part.partial.mp4").hardlink_to(tmp_path / "a.mp4")
    before = digests(tmp_path)
    named = [] if "ids.yaml" in outputs or "rec.yaml" in outputs else [source]
    done = roadlens_here("run", *named, "--model", "model.onnx", *outputs)
    assert done.returncode == 2, done.stderr
    assert "input of this run" in done.stderr
    assert "Traceback" not in done.stderr
    assert digests(tmp_path) == before


def test_a_file_of_somebody_else_at_a_partial_name_is_in_the_way(
    roadlens_here: Run, tmp_path: Path, drive: Path, segmenter: Path
) -> None:
    (tmp_path / "o.partial.mp4").write_bytes(drive.read_bytes())
    before = digests(tmp_path)
    done = roadlens_here("run", drive, "--model", segmenter, "-o", "o.mp4")
    assert done.returncode == 2
    assert "is in the way" in done.stderr
    assert digests(tmp_path) == before


@pytest.mark.seconds
def test_outputs_in_a_trips_folder_are_no_clips_of_the_next_run(roadlens: Run, tmp_path: Path, segmenter: Path) -> None:
    (tmp_path / "trip").mkdir()
    for number in (1, 2):
        write_clip(tmp_path / "trip" / f"{number}.mp4", frames=8)
    originals = digests(tmp_path / "trip")
    first = roadlens("run", "trip", "--model", segmenter, "-o", "trip", "--summary", "-")
    assert first.returncode == 0, first.stderr
    assert is_own(tmp_path / "trip" / "trip.mp4")
    again = roadlens("run", "trip", "--model", segmenter, "-o", "trip", "--summary", "-")
    assert again.returncode == 0, again.stderr
    assert '"frames_out": 16' in again.stdout
    assert '"own_outputs_left_out": 1' in again.stdout
    assert "1 of 3 files in trip are videos that roadlens wrote" in again.stderr
    assert {k: v for k, v in digests(tmp_path / "trip").items() if k in originals} == originals


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_second_run_that_does_not_end_leaves_what_is_complete(
    roadlens: Run, tmp_path: Path, drive: Path, segmenter: Path, how: signal.Signals
) -> None:
    outputs = ["--model", str(segmenter), "-o", "o.mp4", "--jsonl", "o.jsonl", "--mcap", "o.mcap"]
    assert roadlens("run", drive, *outputs).returncode == 0
    complete = digests(tmp_path)
    assert sorted(complete) == ["o.jsonl", "o.mcap", "o.mp4"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "run", "synthetic:?seconds=600&width=160&height=96", *outputs],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "o.partial.mp4").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(how)
    process.wait(30)
    assert {k: v for k, v in digests(tmp_path).items() if k in complete} == complete


def test_two_outputs_of_a_run_are_two_files(tmp_path: Path) -> None:
    claims = Claims()
    claims.write(tmp_path / "new" / "o.mp4", [tmp_path / "new" / "o.partial.mp4"])
    with pytest.raises(UsageError, match="is the same file as the output"):
        claims.write(tmp_path / "new" / ".." / "new" / "o.mp4")
    with pytest.raises(UsageError, match="is the same file as the output"):
        claims.write(tmp_path / "new" / "o.partial.mp4")
    claims.write(tmp_path / "new" / "O.mp4")  # another file, where the file system tells cases apart
    claims.write(Path("/dev/null"))
    claims.write(Path("/dev/null"))


def test_an_input_that_comes_after_its_output_is_refused_until_that_is_released(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    path.touch()
    claims = Claims()
    claims.write(path, holder="front")
    with pytest.raises(UsageError, match="input of this run"):
        claims.read(path, "rear")
    claims.release("front")
    claims.read(path, "rear")


def test_an_input_among_the_files_of_a_folder_is_refused_whichever_comes_first(tmp_path: Path) -> None:
    (tmp_path / "a_1.mp4").touch()
    (tmp_path / "other.mp4").touch()
    first, second = Claims(), Claims()
    first.write_in(tmp_path, lambda name: name.startswith("a_"), "recordings")
    with pytest.raises(UsageError, match="would replace or remove"):
        first.read(tmp_path / "a_1.mp4")
    first.read(tmp_path / "other.mp4")
    second.read(tmp_path / "a_1.mp4")
    with pytest.raises(UsageError, match="would replace or remove"):
        second.write_in(tmp_path, lambda name: name.startswith("a_"), "recordings")
