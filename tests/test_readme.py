"""What the README shows, run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

import engines.bundled
from pipeline.synthetic import SyntheticOptions, synthetic_frames
from tests.footage import write_clip

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) == 3


@pytest.mark.slow
@pytest.mark.parametrize("snippet", SNIPPETS, ids=["analyse", "one picture", "own stage and sink"])
def test_python_snippets_run(snippet: str, tmp_path: Path) -> None:
    write_clip(tmp_path / "drive.mp4", frames=5, size=(640, 360))
    frame = next(synthetic_frames(SyntheticOptions(width=640, height=360, seconds=1)))
    cv2.imwrite(str(tmp_path / "road.png"), frame.picture[..., ::-1])
    done = subprocess.run(
        [sys.executable, "-c", snippet], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    if "cars" in snippet and "print" in snippet:
        assert done.stdout.count("\n") == 5


def test_the_yaml_is_a_right_configuration(tmp_path: Path) -> None:
    from pipeline.config import read_config

    streams = []
    for text in re.findall(r"^```yaml\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        (tmp_path / "run.yaml").write_text(text)
        streams.append([s.id for s in read_config(tmp_path / "run.yaml").streams])
    assert streams == [["front", "rear"], ["front"]]


def test_files_and_models_it_names_exist() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
    assert "cityscapes-unet" in engines.bundled.names()


def test_it_has_exactly_two_set_up_commands() -> None:
    commands = [line.strip() for line in README.splitlines() if line.strip().startswith("pip install")]
    assert commands == ["pip install . && roadlens demo", "pip install -e '.[dev]' && pytest"]
