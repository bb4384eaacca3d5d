"""What the check of a GPU machine does, as far as a machine without a GPU can show it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]


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
