"""`import roadlens`: what is public, what it costs, and that the names are those of the packages."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import roadlens

import engines
from pipeline.api import analyse
from pipeline.session import Session

PUBLIC = [
    "Analysis", "Box", "CheckFailed", "ClassInfo", "Config", "DeviceError", "Engine", "Frame", "ModelConfig",
    "ModelError", "ModelSpec", "OutputError", "Prediction", "RoadlensError", "Session", "Sink", "Source", "SourceError",
    "Stage", "StreamConfig", "StreamInfo", "Subscriber", "UsageError", "__version__", "analyse", "load", "read_archive",
    "read_config", "read_lines", "read_spec",
]  # fmt: skip
"""The public API. A name that goes, or comes, is a line of CHANGELOG.md."""


def test_the_public_names_are_these() -> None:
    assert roadlens.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(roadlens))
    assert all(getattr(roadlens, name) is not None for name in PUBLIC)


def test_they_are_those_of_the_packages() -> None:
    assert roadlens.analyse is analyse
    assert roadlens.load is engines.load
    assert roadlens.Session is Session
    assert roadlens.__version__ == version("roadlens")


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'roadlens' has no attribute 'analyze'"):
        _ = roadlens.analyze


def test_the_import_loads_nothing_but_itself(tmp_path: Path) -> None:
    code = (
        "import sys; import roadlens; "
        "print(sorted(m for m in sys.modules if m.partition('.')[0] in {'av', 'cv2', 'numpy', 'pipeline', 'engines'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
