"""Recordings to be made of two base clips, which are made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.recordings import Kitchen


@pytest.fixture(scope="session")
def pantry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pantry")
    Kitchen(folder, folder).stock()
    return folder


@pytest.fixture
def kitchen(tmp_path: Path, pantry: Path) -> Kitchen:
    (tmp_path / "in").mkdir()
    return Kitchen(tmp_path / "in", pantry)
