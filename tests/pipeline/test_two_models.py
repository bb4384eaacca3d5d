"""The bundled localizer beside the bundled segmenter, as `roadlens run` is called for it."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

import engines
from engines.squash import squash
from pipeline.scene.drive import SyntheticScene


def test_the_localizer_says_one_box_and_one_score_of_a_frame() -> None:
    picture = SyntheticScene(320, 180, Fraction(25)).frame(0)[0]
    with engines.load("lead-vehicle", device="cpu", precision="fp32") as engine:
        found = engine(squash(picture, engine.spec.height, engine.spec.width))
    assert found.boxes.shape == (1, 4)
    assert found.scores.shape == (1,)
    assert ((found.boxes >= 0) & (found.boxes <= 1)).all()
    assert 0 <= float(found.scores[0]) <= 1


@pytest.mark.slow
def test_a_localizer_at_a_cadence_beside_a_segmenter(tmp_path: Path) -> None:
    lines = tmp_path / "drive.jsonl"
    command = [sys.executable, "-m", "pipeline.cli", "run", "synthetic:?seconds=0.4&width=320&height=180"]
    command += ["--model", "cityscapes-unet", "--model", "lead-vehicle:3", "--jsonl", str(lines)]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    frames = [json.loads(line) for line in lines.read_text().splitlines()]
    frames = [frame for frame in frames if "models" in frame]
    assert len(frames) == 10
    looked = ["lead-vehicle" in frame["models"] for frame in frames]
    assert looked == [index % 3 == 0 for index in range(10)]
