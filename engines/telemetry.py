"""Libraries that report their use to a web service, unasked, are kept from it: what runs here is nobody's business.

OpenVINO reports each import, NNCF each run, both by Intel's package `openvino_telemetry`, and do without it where it is
not installed. It sends from a thread that forks the process: a copy of one with other threads, which may never end, and
for which Python then waits when it exits.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import cast

_REPORTER = "openvino_telemetry"


@contextmanager
def no_telemetry() -> Iterator[None]:
    """What is imported in the block finds nothing to report by. What was imported before is left as it is."""
    known = _REPORTER in sys.modules
    before = sys.modules.get(_REPORTER)
    sys.modules[_REPORTER] = cast("ModuleType", None)  # Python takes it as a package that is not there
    try:
        yield
    finally:
        if known:
            sys.modules[_REPORTER] = cast("ModuleType", before)
        else:
            del sys.modules[_REPORTER]
