"""What holds for the tests of all packages."""

from __future__ import annotations

import pytest

EXPORTS = {"tiny_export", "exported"}
"""Fixtures that export a trained network: 8 s, most of them torch's."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever needs an exported network is slow."""
    for item in items:
        if EXPORTS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
