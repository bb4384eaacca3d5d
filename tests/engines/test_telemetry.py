"""Nothing that runs here is reported to anybody."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

REPORTS = """
import sys
if sys.argv[1] == "engines":
    import engines.openvino
else:
    from engines.telemetry import no_telemetry
    with no_telemetry():
        import nncf
assert "openvino" in sys.modules or "nncf" in sys.modules
print(sorted(name for name in sys.modules if name.startswith("openvino_telemetry")))
"""


@pytest.mark.seconds
@pytest.mark.parametrize("what", ["engines", "nncf"])
def test_libraries_find_nothing_to_report_by(what: str, tmp_path: Path) -> None:
    """As users have it: OpenVINO comes with its reporter, which leaves a folder in the home of who did not refuse."""
    pytest.importorskip("openvino" if what == "engines" else "nncf")
    home = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", REPORTS, what], env=home, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert not (tmp_path / "intel").exists()
