"""The pages that promise something name a test for each promise, and it is there; nothing from outside is unpickled."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["SECURITY.md", "RELIABILITY.md"]
PACKAGES = ["engines", "pipeline", "training"]

ALLOWED = {
    # The end of a socket pair that only the parent and its child have.
    "pipeline/workers/line.py": {"multiprocessing.connection"},
    "pipeline/workers/process.py": {"multiprocessing.connection"},
    # The exception that `torch.load(weights_only=True)` raises.
    "training/weights.py": {"pickle"},
}
UNPICKLING = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "multiprocessing.connection",
}


@pytest.mark.parametrize("page", PAGES)
def test_every_promise_has_its_test(page: str) -> None:
    rows = [line for line in (ROOT / "deploy" / page).read_text().splitlines() if re.match(r"\| (?!who|fault|-)", line)]
    assert len(rows) > 15
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for path, test in named:
            tree = ast.parse((ROOT / path).read_text())
            assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{path}::{test}"


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.seconds
def test_nothing_from_outside_is_unpickled() -> None:
    for path in sources():
        place = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not set(named) & UNPICKLING - ALLOWED.get(place, set()), place
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            options = {each.arg: ast.unparse(each.value) for each in node.keywords}
            assert called not in {"eval", "exec"}, place
            assert not called.endswith("torch.load") or options.get("weights_only") == "True", place
            assert not called.endswith((".fit", ".validate")) or "ckpt_path" not in options or (
                options.get("weights_only") == "True"
            ), place  # fmt: skip
            assert options.get("allow_pickle", "False") == "False", place
            assert called not in {"yaml.load", "yaml.unsafe_load", "yaml.full_load"}, place
