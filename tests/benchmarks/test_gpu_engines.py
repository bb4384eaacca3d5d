"""What the check of a GPU machine does, as far as a machine without a GPU can show it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

INCIDENTAL = {"cython_runtime", "py", "pydot", "tqdm", "torch", "torchgen", "triton"}
"""What is there with PyTorch, is made by Cython, or is used by a package only where it is there."""

ROOT = Path(__file__).parents[2]

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


@without_gpu
@pytest.mark.slow
def test_without_a_gpu_the_check_says_so_and_runs_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", ROOT / "deploy" / "gpu-check.sh", tmp_path / "out"],
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("FAILED: no GPU: there is no NVIDIA GPU that PyTorch can use here")
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["failed"] == "no GPU"


def check(*arguments: str, python: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", ROOT / "deploy" / "gpu-check.sh", *arguments],
        env={"PYTHON": python, "PATH": "/usr/bin:/bin", **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_dry_run_says_what_would_be_run_and_needs_no_gpu() -> None:
    done = check("--dry-run", python=sys.executable, SKIP="capacity")
    assert (done.returncode, done.stderr) == (0, "")
    for said in (
        "tests (at most 150 s)",
        "engines (at most 180 s)",
        "together",
        "-m pytest -m gpu",
        "tests/engines/cuda/test_nv12.py",
        "gpu_engines.py",
        "left out",
    ):
        assert said in done.stdout
    assert "capacity.py" not in done.stdout


def test_a_dry_run_with_a_missing_package_names_it(tmp_path: Path) -> None:
    """A Python in which nothing but its own library is found."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nunset PYTHONPATH\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    done = check("--dry-run", python=str(bare))
    assert "sortedcontainers" in done.stdout
    assert "tests      not run: annotated_doc is missing" in done.stdout


def test_a_dry_run_finds_what_travels_in_the_archive(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    (tmp_path / "annotated_doc.py").touch()
    with tarfile.open(tmp_path / "packages.tar.xz", "w:xz") as packed:
        packed.add(tmp_path / "annotated_doc.py", "annotated_doc.py")
    done = check("--dry-run", python=str(bare), WHEELS=str(tmp_path), PYTHONPATH="")
    missing = done.stdout.split("Missing")[1]
    assert "sortedcontainers" in missing
    assert "annotated_doc" not in missing


def third_party(module: str) -> set[str]:
    """Packages that a module imports, with all that they bring along, but for torch's own."""
    code = (
        f"import torch, onnx, sys; before = set(sys.modules); import {module}; "
        "print(*{name for name, found in sys.modules.items() if found} - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()} - sys.stdlib_module_names


@pytest.mark.slow
def test_the_check_carries_every_package_that_it_imports() -> None:
    source = (ROOT / "deploy" / "gpu-check.sh").read_text()
    listed = set(source.split("wanted=(")[1].split(")")[0].split())
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if re.search(r"mark\.gpu\b", path.read_text())]
    files = [path for path in files if path != Path(__file__)]
    assert len(files) >= 4
    files += [
        path / "conftest.py"
        for path in {parent for each in files for parent in each.parents} & set(ROOT.rglob("tests"))
    ]
    own = {"engines", "pipeline", "tests", "training"}
    for path in [
        *files,
        ROOT / "tests" / "benchmarks" / "capacity.py",
        ROOT / "tests" / "benchmarks" / "gpu_engines.py",
    ]:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found = {name for name in third_party(module) if not name.startswith("_")} - own - listed
        assert found <= INCIDENTAL, f"{module} imports {sorted(found - INCIDENTAL)}"


@pytest.mark.slow
def test_the_gpu_tests_are_collected_where_nothing_runs_them_side_by_side() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "--collect-only", "-p", "no:xdist", "-o",
         "addopts=--strict-markers", ROOT / "tests" / "engines" / "cuda"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_nv12.py::" in done.stdout


@without_gpu
@pytest.mark.slow
def test_without_a_gpu_the_engines_are_left_out_with_the_reason(tmp_path: Path) -> None:
    told = tmp_path / "engines.json"
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "benchmarks" / "gpu_engines.py", "--limit", "0", "--json", told],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    assert "nothing could be compared" in done.stdout
    found = json.loads(told.read_text())
    assert found["device"] == "cuda:0"
    assert all("finds no NVIDIA GPU" in check["skipped"] for check in found["parity"])


def report(path: Path, *cases: str) -> Path:
    path.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    return path


PASSED = '<testcase classname="a" name="b"/>'
FAILED = '<testcase classname="a" name="c"><failure message="no"/></testcase>'


def skipped(reason: str) -> str:
    return f'<testcase classname="a" name="d"><skipped message="{reason}"/></testcase>'


@pytest.mark.parametrize(
    ("cases", "gpu", "wrong"),
    [
        ([PASSED], "NVIDIA H200", []),
        ([PASSED, skipped("this GPU has no NVENC")], "NVIDIA H200 torch 2.11", []),
        ([PASSED, skipped("this GPU has no NVENC")], "NVIDIA L4", ["1 tests skipped: this GPU has no NVENC"]),
        (
            [PASSED, skipped("FFmpeg finds no NVDEC (x)")] * 2,
            "NVIDIA H200",
            ["2 tests skipped: FFmpeg finds no NVDEC (x)"],
        ),
        ([PASSED, FAILED], "NVIDIA L4", ["failed: a::c"]),
        ([skipped("this GPU has no NVENC")], "NVIDIA H100 80GB HBM3", ["no test passed"]),
        ([], "NVIDIA L4", ["no test passed"]),
    ],
)
def test_a_skip_is_no_pass(tmp_path: Path, cases: list[str], gpu: str, wrong: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "deploy" / "gpu_verdict.py", report(tmp_path / "tests.xml", *cases), gpu],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout.splitlines(), done.returncode) == (wrong, int(bool(wrong)))


@pytest.mark.seconds
def test_a_light_checkout_lacks_what_no_part_needs_and_is_made_whole_again(tmp_path: Path) -> None:
    """It and the packages, 27 MiB as they were packed last, are to fit into 64 MiB."""

    def git(*arguments: str | Path) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout

    git("clone", "-q", "--depth", "1", ROOT.as_uri(), tmp_path / "clone")
    script = tmp_path / "clone" / "deploy" / "gpu-check.sh"
    script.write_bytes((ROOT / "deploy" / "gpu-check.sh").read_bytes())  # as it is here, committed or not
    models = tmp_path / "clone" / "engines" / "bundled"
    every = sorted(models.glob("*.onnx"))
    subprocess.run(["bash", script, "--light"], check=True)
    assert [path.name for path in sorted(models.glob("*.onnx"))] == [
        "cityscapes-road-users.onnx", "cityscapes-unet.onnx", "lead-vehicle.onnx"
    ]  # fmt: skip
    files = [path for path in (tmp_path / "clone").rglob("*") if path.is_file() and ".git" not in path.parts]
    assert sum(path.stat().st_size for path in files) < (64 - 28) * 2**20
    assert git("-C", tmp_path / "clone", "status", "--porcelain", "--", "engines") == ""
    subprocess.run(["bash", script, "--whole"], check=True)
    assert sorted(models.glob("*.onnx")) == every


@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        ("tests", "tests: some cannot be collected"),
        ("engines", "engines: an error that is none of ours, see engines.log"),
        ("capacity", "capacity: passed without a GPU"),
    ],
)
def test_a_rehearsal_finds_what_else_is_broken(tmp_path: Path, breaks: str, said: str) -> None:
    """With stand-ins for the parts, of which one does not do what it does without a GPU."""
    xml = "<testsuites><testsuite><testcase classname='a' name='b'>{}</testcase></testsuite></testsuites>"
    wrong = "<error message='collection failure'/>" if breaks == "tests" else "<skipped message='no NVIDIA GPU'/>"
    trace = "echo Traceback '(most recent call last):'" if breaks == "engines" else "echo no GPU"
    stand_in = tmp_path / "python"
    stand_in.write_text(f"""#!/bin/sh
case "$*" in
  *"-m pytest"*) echo "{xml.format(wrong)}" > {tmp_path}/out/tests.xml;;
  *gpu_engines.py*) {trace}; exit 1;;
  *capacity.py*) exit {int(breaks != "capacity")};;
  *) exec {sys.executable} "$@";;
esac
""")
    stand_in.chmod(0o755)
    done = check("--rehearse", str(tmp_path / "out"), python=str(stand_in))
    assert done.returncode == 1
    assert next(line for line in done.stderr.splitlines() if line.startswith(("BROKEN", "FAILED"))).startswith(
        f"BROKEN: {said}"
    )


def test_help_and_mistakes() -> None:
    assert "gpu-check.sh --pack" in check("--help", python=sys.executable).stdout
    wheels = check("--wheels", python=sys.executable).stdout.split()
    assert {"av", "pyzmq", "sortedcontainers", "pytest-timeout"} <= set(wheels)
    assert not {"torch", "numpy", "openvino"} & set(wheels), "the machine has them, or they are too large to carry"
    wrong = check("--fast", python=sys.executable)
    assert (wrong.returncode, wrong.stderr) == (2, "gpu-check.sh: there is no option --fast; see --help.\n")


@pytest.mark.slow
def test_a_part_that_hangs_is_ended_and_the_others_are_run(tmp_path: Path) -> None:
    """On a machine that is taken to have a GPU: its tests hang, its engines fail, its capacity is found."""
    stand_in = tmp_path / "python"
    stand_in.write_text(f"""#!/bin/sh
case "$*" in
  *"import torch; raise"*) exit 0;;
  *"import torch; print"*) echo "A GPU";;
  *"-m pytest"*) echo begun; sleep 600 & wait;;
  *gpu_engines.py*) exit 3;;
  *capacity.py*) echo 50 streams;;
  *) exec {sys.executable} "$@";;
esac
""")
    stand_in.chmod(0o755)
    done = check(str(tmp_path / "out"), python=str(stand_in), LIMIT="2")
    assert done.returncode == 1
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["machine"] == "A GPU"
    assert {part: told["result"] for part, told in summary["parts"].items()} == {
        "tests": "ended after 2 s", "engines": "failed (exit code 3)", "capacity": "passed",
    }  # fmt: skip
    assert (tmp_path / "out" / "tests.log").read_text() == "begun\n"
    assert "50 streams" in done.stdout


@pytest.mark.slow
def test_parity_and_times_are_taken_and_what_cannot_be_run_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.benchmarks import gpu_engines

    monkeypatch.setattr(gpu_engines, "SIZES", ((96, 64),))
    monkeypatch.setattr(gpu_engines, "PICTURES", 3)
    target = tmp_path / "engines.json"
    monkeypatch.setattr(
        sys,
        "argv",
        ["x", "--device", "cpu", "--batch", "2", "--seconds", "0.1", "--no-compiled", "--json", str(target)],
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert gpu_engines.main() == 0
    finally:
        torch.set_num_threads(threads)
    told = json.loads(target.read_text())
    assert [check["passed"] for check in told["parity"]] == [True] * 6
    rows = {row["engine"]: row for row in told["timings"]}
    assert rows["torch fp32"]["throughput"] > 0
    assert (rows["torch fp16"]["width"], rows["torch fp16"]["height"], rows["torch fp16"]["batch"]) == (96, 64, 2)
    assert "TensorRT runs on NVIDIA GPUs" in rows["tensorrt fp16"]["skipped"]
    assert "99." in capsys.readouterr().out
