"""Did the GPU tests run? Read from JUnit XML: a test that skips because a part could not be opened has shown nothing.

    python deploy/gpu_verdict.py tests.xml "NVIDIA H200"

A skip is excused only where the machine is known to lack the part. Exit code 1, and a line for each reason, where a
test failed or skipped without excuse, or none passed.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

WITHOUT_NVENC = re.compile(r"\b(A30|A100|A800|H20|H100|H200|H800|GH200|B100|B200|B300|GB200|GB300|P100)\b")
"""NVIDIA's names of GPUs that are made to compute, and have no encoder."""


def verdict(junit: Path, gpu: str) -> list[str]:
    """What is wrong, a line each; nothing where every test ran, or had reason not to.

    Args:
        junit: pytest's `--junitxml`.
        gpu: NVIDIA's name of the GPU.
    """
    try:
        # Our own pytest has just written it.
        cases = list(ET.parse(junit).iter("testcase"))  # noqa: S314
    except (OSError, ET.ParseError) as error:
        return [f"there is no report of the tests ({error})"]
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skips = [case.find("skipped") for case in cases]
    reasons = [skip.get("message", "no reason") for skip in skips if skip is not None]
    wrong = [f"failed: {case.get('classname')}::{case.get('name')}" for case in failed]
    unexcused = Counter(reason for reason in reasons if not excused(reason, gpu))
    wrong += [f"{count} tests skipped: {reason}" for reason, count in unexcused.items()]
    if len(cases) == len(failed) + len(reasons):
        wrong.append("no test passed")
    return wrong


def excused(reason: str, gpu: str) -> bool:
    """Whether the machine is known to lack what a test skipped for."""
    return "no NVENC" in reason and WITHOUT_NVENC.search(gpu) is not None


if __name__ == "__main__":
    found = verdict(Path(sys.argv[1]), sys.argv[2])
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(bool(found))
