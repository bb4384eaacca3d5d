"""What the check of a GPU machine does, as far as a machine without a GPU can show it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_without_a_gpu_the_check_says_so_and_runs_nothing(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = subprocess.run(
        ["bash", ROOT / "deploy" / "gpu-check.sh", tmp_path / "out"],
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "no NVIDIA GPU that PyTorch can use here" in done.stderr


def check(*arguments: str, python: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", ROOT / "deploy" / "gpu-check.sh", *arguments],
        env={"PYTHON": python, "PATH": "/usr/bin:/bin", **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_dry_run_says_what_would_be_run_and_needs_no_gpu() -> None:
    done = check("--dry-run", python=sys.executable, SKIP="capacity")
    assert (done.returncode, done.stderr) == (0, "")
    for said in (
        "tests (at most 520 s)",
        "-m pytest -m gpu",
        "tests/engines/test_nv12.py",
        "gpu_engines.py",
        "left out",
    ):
        assert said in done.stdout
    assert "capacity.py" not in done.stdout


def test_help_and_mistakes() -> None:
    assert "pip download -d wheels" in check("--help", python=sys.executable).stdout
    wrong = check("--fast", python=sys.executable)
    assert (wrong.returncode, wrong.stderr) == (2, "gpu-check.sh: there is no option --fast; see --help.\n")


@pytest.mark.slow
def test_a_part_that_hangs_is_ended_and_the_others_are_run(tmp_path: Path) -> None:
    """On a machine that is taken to have a GPU: its tests hang, its engines fail, its capacity is found."""
    stand_in = tmp_path / "python"
    stand_in.write_text(f"""#!/bin/sh
case "$*" in
  *"import torch; raise"*) exit 0;;
  *"import torch; print"*) echo "A GPU";;
  *"-m pytest"*) echo begun; sleep 600 & wait;;
  *gpu_engines.py*) exit 3;;
  *capacity.py*) echo 50 streams;;
  *) exec {sys.executable} "$@";;
esac
""")
    stand_in.chmod(0o755)
    done = check(str(tmp_path / "out"), python=str(stand_in), LIMIT="2")
    assert done.returncode == 1
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["machine"] == "A GPU"
    assert {part: told["result"] for part, told in summary["parts"].items()} == {
        "tests": "ended after 2 s", "engines": "failed (exit code 3)", "capacity": "passed",
    }  # fmt: skip
    assert (tmp_path / "out" / "tests.log").read_text() == "begun\n"
    assert "50 streams" in done.stdout


@pytest.mark.slow
def test_parity_and_times_are_taken_and_what_cannot_be_run_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.benchmarks import gpu_engines

    monkeypatch.setattr(gpu_engines, "SIZES", ((96, 64),))
    monkeypatch.setattr(gpu_engines, "PICTURES", 3)
    target = tmp_path / "engines.json"
    monkeypatch.setattr(
        sys,
        "argv",
        ["x", "--device", "cpu", "--batch", "2", "--seconds", "0.1", "--no-compiled", "--json", str(target)],
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert gpu_engines.main() == 0
    finally:
        torch.set_num_threads(threads)
    told = json.loads(target.read_text())
    assert [check["passed"] for check in told["parity"]] == [True] * 6
    rows = {row["engine"]: row for row in told["timings"]}
    assert rows["torch fp32"]["throughput"] > 0
    assert (rows["torch fp16"]["width"], rows["torch fp16"]["height"], rows["torch fp16"]["batch"]) == (96, 64, 2)
    assert "TensorRT runs on NVIDIA GPUs" in rows["tensorrt fp16"]["skipped"]
    assert "99." in capsys.readouterr().out
