"""What holds for the tests of all packages."""

from __future__ import annotations

import os

import pytest

EXPORTS = {"tiny_export", "exported"}
"""Fixtures that export a trained network: 8 s, most of them torch's."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever needs an exported network is slow."""
    for item in items:
        if EXPORTS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Whole folders in several processes, one more than cores, for some tests wait for clocks rather than compute;
    single files in this one.
    """
    if any(".py" in argument for argument in config.args):
        return 0
    return min((os.cpu_count() or 1) + 1, 8)
