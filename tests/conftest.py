"""What holds for the tests of all packages."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import hypothesis
import pytest

# How long an example takes says more of what else the machine does.
hypothesis.settings.register_profile("roadlens", deadline=None)
hypothesis.settings.load_profile("roadlens")

# Tests that import OpenVINO themselves report to nobody, as `engines.telemetry` has it for the product.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

EXPORTS = {"tiny_export", "exported"}
"""Fixtures that export a trained network: 8 s, most of them torch's."""


SLOW_LIMIT = 1800
"""Seconds a slow test may take. The limit is there to end a hang. The slowest train networks, a minute's work for two
idle cores; the 300 s of the others would end them on a machine that others load.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever needs an exported network is slow, so is what takes seconds, and what is slow has a limit that fits."""
    for item in items:
        if item.get_closest_marker("seconds") or EXPORTS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_LIMIT))


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Signals reach the tests and the processes that they start. A shell starts what it puts in the background with
    SIGINT ignored, and `nohup` what it starts with SIGHUP; every child inherits that.
    """
    meant = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.getsignal(number) for number in meant}
    for number, handler in meant.items():
        if before[number] == signal.SIG_IGN:
            signal.signal(number, handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.hookimpl(optionalhook=True)  # a GPU machine, and a user of a small environment, runs them without xdist
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Whole folders in several processes, one more than cores, for some tests wait for clocks rather than compute;
    single files in this one.
    """
    if any(".py" in argument for argument in config.args):
        return 0
    return min((os.cpu_count() or 1) + 1, 8)
