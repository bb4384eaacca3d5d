"""The folder of plans: real processes that want the same one, killed builders, full folders, listing and pruning."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import OutputError
from engines.tensorrt.cache import PlanCache, default_folder
from engines.tensorrt.plan import BuildOptions, Machine, PlanRequest, SideCar, covers, mismatch
from tests.engines.tensorrt.double_tensorrt import BUILD_LOG, BUILD_SECONDS
from tests.engines.tiny_models import SEGMENTER, bits_model, save

MACHINE = Machine(tensorrt="11.4.0.106", gpu="NVIDIA H100 80GB HBM3", compute_capability="9.0", driver=13)
REQUEST = PlanRequest(
    model="drive", version="1", precision="fp16", graph=hashlib.sha256(b"graph").hexdigest(), height=256, width=512,
    machine=MACHINE, options=BuildOptions(),
)  # fmt: skip

LOAD = """
import sys
from pathlib import Path
from tests.engines.tensorrt.conftest import install
install()
import logging
import numpy as np
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
from engines.tensorrt.engine import TensorRTEngine
with TensorRTEngine(Path(sys.argv[1]), precision="fp32", max_batch=2) as engine:
    print("class map", int(engine(np.full((16, 32, 3), 255, np.uint8)).class_map.min()), flush=True)
"""


def start(path: Path, folder: Path, seconds: float) -> subprocess.Popen[str]:
    environment = {
        "ROADLENS_CACHE": str(folder / "cache"), BUILD_LOG: str(folder / "builds"), BUILD_SECONDS: str(seconds),
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", LOAD, str(path)],
        cwd=Path(__file__).parents[3], env={**os.environ, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def builders(folder: Path) -> list[str]:
    path = folder / "builds"
    return path.read_text().split() if path.exists() else []


def wait_for_a_build(folder: Path, count: int = 1) -> None:
    deadline = time.monotonic() + 120
    while len(builders(folder)) < count:
        assert time.monotonic() < deadline, "no build began"
        time.sleep(0.02)


@pytest.mark.seconds
def test_of_processes_that_want_one_plan_one_builds(tmp_path: Path) -> None:
    path = save(bits_model(), SEGMENTER, tmp_path / "bits.onnx")
    processes = [start(path, tmp_path, 2.0) for _ in range(2)]
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert all("class map 7" in output for output in outputs)
    assert len(builders(tmp_path)) == 1
    assert sorted(path.suffix for path in (tmp_path / "cache" / "plans").iterdir()) == [
        ".cache", ".json", ".lock", ".plan",
    ]  # fmt: skip


@pytest.mark.seconds
def test_a_killed_builder_frees_the_next_one(tmp_path: Path) -> None:
    path = save(bits_model(), SEGMENTER, tmp_path / "bits.onnx")
    first = start(path, tmp_path, 600.0)
    wait_for_a_build(tmp_path)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    second = start(path, tmp_path, 0.0)
    output = second.communicate(timeout=240)[0]
    assert "class map 7" in output
    assert "there is no plan of it yet" in output
    assert len(builders(tmp_path)) == 2


@pytest.mark.parametrize(
    ("change", "clause"),
    [
        ({}, None),
        ({"machine": msgspec.structs.replace(MACHINE, tensorrt="10.16.1.11")}, "for TensorRT 10.16.1.11 and this"),
        ({"machine": msgspec.structs.replace(MACHINE, gpu="NVIDIA L4")}, "for GPU NVIDIA L4 and this is NVIDIA H100"),
        ({"version": "0"}, "for version 0 and this is 1"),
        ({"width": 1024}, "for input 1024×256 and this is 512×256"),
        ({"precision": "fp32"}, "for precision fp32 and this is fp16"),
        ({"options": BuildOptions(max_batch=4)}, "for max batch 4 and this is 8"),
        ({"options": BuildOptions(tf32=True)}, "for tf32 True and this is False"),
        ({"graph": "0"}, "from another export of the model"),
        ({"model": "other"}, "for another model"),
    ],
)  # fmt: skip
def test_why_a_plan_does_not_do(change: dict[str, object], clause: str | None) -> None:
    other = msgspec.structs.replace(REQUEST, **change)
    found = mismatch(REQUEST, other)
    assert found is None if clause is None else found is not None and clause in found
    assert (other.key == REQUEST.key) == (clause is None), "the key tells apart whatever the sentence does"


@given(st.integers(1, 64), st.integers(1, 64), st.one_of(st.none(), st.integers(1, 64)))
def test_batches_and_what_covers_them(most: int, wanted: int, best: int | None) -> None:
    options = BuildOptions(max_batch=most, opt_batch=best)
    least, middle, largest = options.batches
    assert 1 == least <= middle <= largest == most
    found = msgspec.structs.replace(REQUEST, options=options)
    asked = msgspec.structs.replace(REQUEST, options=BuildOptions(max_batch=wanted, opt_batch=best))
    assert covers(found, asked) == (most > wanted)
    assert not covers(msgspec.structs.replace(found, graph="other"), asked)


def test_a_side_car_says_what_its_plan_is(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "new" / "folder")
    path = cache.store(REQUEST, b"plan", 12.3456)
    side_car = msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=SideCar)
    assert msgspec.to_builtins(side_car.request) == msgspec.to_builtins(REQUEST)
    assert (side_car.plan_bytes, side_car.build_seconds) == (4, 12.346)
    assert side_car.plan_sha256 == hashlib.sha256(b"plan").hexdigest()
    assert cache.find(REQUEST).plan == b"plan"
    assert path.name.startswith("drive-fp16-b8-")
    (entry,) = cache.entries()
    assert (entry.path, entry.size, entry.fault) == (path, 4, None)


def test_a_plan_without_its_side_car_does_not_count(tmp_path: Path) -> None:
    """What a crash between the two writes leaves."""
    cache = PlanCache(tmp_path)
    path = cache.store(REQUEST, b"plan", 0.0)
    path.with_suffix(".json").unlink()
    assert cache.find(REQUEST).plan is None
    assert cache.entry(REQUEST).fault == "has no side-car"


@pytest.mark.parametrize("content", [b"", b"{", b"\x00" * 64, None])
def test_a_damaged_side_car_is_a_reason_to_build(tmp_path: Path, content: bytes | None) -> None:
    cache = PlanCache(tmp_path)
    path = cache.store(REQUEST, b"plan", 0.0)
    side_car = path.with_suffix(".json")
    # None: a letter of a text that is no UTF-8 any more.
    side_car.write_bytes(side_car.read_bytes().replace(b"drive", b"dri\xffe") if content is None else content)
    assert (cache.find(REQUEST).plan, cache.find(REQUEST).reason) == (None, "its side-car is damaged")
    assert cache.entry(REQUEST).fault == "has a damaged side-car"


def test_of_several_reasons_the_nearest_is_told(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    assert cache.find(REQUEST).reason == "there is no plan of it yet"
    other = msgspec.structs.replace(MACHINE, tensorrt="10.16.1.11")
    cache.store(msgspec.structs.replace(REQUEST, precision="fp32"), b"plan", 0.0)
    assert cache.find(REQUEST).reason == "there is no plan of it yet"
    cache.store(msgspec.structs.replace(REQUEST, machine=other), b"plan", 0.0)
    assert cache.find(REQUEST).reason == "its plan was built for TensorRT 10.16.1.11 and this is 11.4.0.106"


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = PlanCache(tmp_path / "file")
    with pytest.raises(OutputError, match=r"The plan of drive cannot be kept in .* or give another folder"):
        cache.store(REQUEST, b"plan", 0.0)
    with cache.lock(REQUEST):
        pass
    cache.store_timing(MACHINE, b"timing")
    cache.discard(REQUEST)
    assert (cache.timing(MACHINE), cache.entries()) == (b"", [])


def test_a_disk_that_fills_up_leaves_no_half(tmp_path: Path) -> None:
    """A real limit of the system: no file of this process may grow past 1 MB."""
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from engines.tensorrt.cache import PlanCache\n"
        "from tests.engines.tensorrt.test_cache import REQUEST\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "try:\n    PlanCache(Path(sys.argv[1])).store(REQUEST, bytes(1 << 21), 0.0)\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.startswith("OutputError The plan of drive cannot be kept in")
    assert list(tmp_path.iterdir()) == []


def test_pruning_takes_what_is_unwanted_and_what_nobody_owns(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    kept, gone = cache.store(REQUEST, b"a", 0.0), cache.store(msgspec.structs.replace(REQUEST, version="0"), b"b", 0.0)
    (tmp_path / "orphan.json").write_text("{}")
    stale, fresh = tmp_path / ".x.plan.1.tmp", tmp_path / ".x.plan.2.tmp"
    stale.touch()
    fresh.touch()
    os.utime(stale, (0, 0))
    (tmp_path / "notes.txt").touch()

    def old(entry: object) -> bool:
        return getattr(entry, "path", None) == gone

    assert [entry.path for entry in cache.prune(old, dry_run=True)] == [gone]
    assert gone.exists()
    assert [entry.path for entry in cache.prune(old)] == [gone]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {kept.name, kept.with_suffix(".json").name, fresh.name, "notes.txt"}
    assert cache.find(REQUEST).plan == b"a"


def test_where_plans_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROADLENS_CACHE", str(tmp_path))
    assert default_folder() == tmp_path / "plans"
    monkeypatch.delenv("ROADLENS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "xdg" / "roadlens" / "plans"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "roadlens" / "plans"


def test_side_cars_are_plain_json(tmp_path: Path) -> None:
    path = PlanCache(tmp_path).store(REQUEST, b"plan", 0.0)
    assert json.loads(path.with_suffix(".json").read_text())["request"]["machine"]["gpu"] == MACHINE.gpu
