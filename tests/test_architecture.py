"""Rules of the house that hold for the whole tree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_import_rules() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_runtime_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import pipeline.session, pipeline.console, "
        "pipeline.subscribe_command, engines.openvino, engines.verify, engines.benchmark; print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "fine", done.stderr
