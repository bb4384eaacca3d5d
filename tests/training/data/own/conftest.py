"""Six pictures of two drives, drawn once."""

from __future__ import annotations

import pytest

from tests.training.own_folders import Scene, drive


@pytest.fixture(scope="session")
def scenes() -> list[Scene]:
    return drive(2, 3)
