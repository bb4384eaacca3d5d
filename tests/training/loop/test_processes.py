"""A run of several processes of which one is killed: one sentence, nobody left behind, and a folder to go on from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training.loop.shade_task import ShadeRecipe, write_shades
from training.catalogue import override
from training.loop.companions import Companions
from training.loop.run import train

ROOT = Path(__file__).parents[3]

RECIPE = ShadeRecipe(name="shade", steps=100_000, checkpoint_every=1_000, evaluate_every=4, report_every=1_000)

TWO = """
import os, signal, sys, threading, time
from pathlib import Path
import torch
from engines.errors import RoadlensError
from tests.training.loop.test_processes import RECIPE
from training.loop.run import train
torch.set_num_threads(1)
data, output, victim = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def killed():
    while not (output / "last.ckpt").exists():
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)

if os.environ.get("LOCAL_RANK", "0") == victim:
    threading.Thread(target=killed, daemon=True).start()
try:
    train(RECIPE, data, output, devices=2, say=lambda line: None)
except RoadlensError as error:
    print("roadlens:", error, file=sys.stderr)
    sys.exit(error.exit_code)
"""

WAITING = """
import subprocess, sys, time
from pathlib import Path
from training.loop.companions import Companions

class Launcher:
    num_processes = 3
    procs = [subprocess.Popen([sys.executable, "-c", code]) for code in ("import time; time.sleep(600)", "exit(9)")]

with Companions(Launcher(), Path("run"), patience=0.5):
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)  # two processes import torch, on a busy machine
def test_a_killed_process_ends_the_run_in_a_sentence_and_it_goes_on(tmp_path: Path) -> None:
    # Lightning starts the second process by running the script again, so it has to be a file.
    data, output, script = write_shades(tmp_path / "data"), tmp_path / "run", tmp_path / "two.py"
    script.write_text(TWO)
    command = [sys.executable, str(script), str(data), str(output), "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("roadlens:")]
    assert sentence == (
        "roadlens: another process of this run has ended (process 2 of 2 was ended by SIGKILL); see what it said, and "
        f"go on with --resume in {output}"
    )
    assert "Traceback" not in done.stderr
    kept = torch.load(output / "last.ckpt", weights_only=True)["global_step"]
    last = train(override(RECIPE, [f"steps={kept + 4}"]), data, output, resume=True, say=lambda _: None)
    assert torch.load(last, weights_only=True)["global_step"] == kept + 4


def test_a_process_that_waits_without_end_is_ended_with_the_others() -> None:
    # Whoever still lives holds the pipes open, and this would wait for the ten minutes that the other one sleeps.
    done = subprocess.run(
        [sys.executable, "-c", WAITING], capture_output=True, text=True, check=False, cwd=ROOT, timeout=300
    )
    assert done.returncode == 1
    assert done.stderr == (
        "roadlens: another process of this run has ended (process 3 of 3 ended with code 9); see what it said, and go "
        "on with --resume in run\n"
    )


def test_a_run_of_one_process_has_no_companions(tmp_path: Path) -> None:
    with Companions(None, tmp_path) as companions:
        assert companions.lost() == ""
