"""The backend against NVIDIA's real API: types, names, members and keywords, of TensorRT 11.4 and of 10.16.

The stubs lie in the development folder; the bindings are an ordinary wheel, loaded over libraries that do nothing.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.engines.tensorrt import real_api

ROOT = Path(__file__).parents[3]
BACKEND = sorted((ROOT / "engines" / "tensorrt").glob("*.py"))

needs_stubs = pytest.mark.skipif(
    not real_api.STUBS.is_dir(), reason="TensorRT's stubs are not beside the checkout (shared/tensorrt)"
)

MYPY = """
[mypy]
strict = True
python_version = 3.11
warn_unreachable = True
[mypy-tensorrt.*]
ignore_errors = True
[mypy-cuda.*]
ignore_missing_imports = True
[mypy-torch.*,triton.*,openvino.*,cv2.*,onnx.*,rich.*]
follow_imports = skip
"""
"""What the backend has nothing to do with is not followed: PyTorch alone would take minutes."""


def _python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=1200,
    )  # fmt: skip


@pytest.fixture(scope="session")
def type_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """numpy is read once for all runs of mypy."""
    return str(tmp_path_factory.mktemp("mypy"))


@needs_stubs
@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("version", real_api.VERSIONS)
def test_the_backend_type_checks(version: str, tmp_path: Path, type_cache: str) -> None:
    real_api.write_stubs(version, tmp_path / "stubs")
    config = tmp_path / "mypy.ini"
    config.write_text(MYPY)
    done = _python(
        "-m", "mypy", "--config-file", str(config), "--cache-dir", type_cache, "-p", "engines.tensorrt",
        MYPYPATH=str(tmp_path / "stubs"),
    )  # fmt: skip
    ours = [line for line in done.stdout.splitlines() if line.startswith("engines/tensorrt/")]
    assert ours == []
    assert "checked" in done.stdout or "Success" in done.stdout, done.stdout + done.stderr


@needs_stubs
@pytest.mark.slow
def test_a_name_that_was_removed_does_not_type_check(tmp_path: Path, type_cache: str) -> None:
    """The check bites: what everybody remembers of TensorRT is an error against 11.4."""
    real_api.write_stubs("11.4", tmp_path / "stubs")
    remembered = tmp_path / "remembered.py"
    remembered.write_text(
        "import tensorrt as trt\nflag = trt.BuilderFlag.FP16\n\n"
        "def run(context: trt.IExecutionContext) -> None:\n    context.execute_async_v2([0], 0)\n"
    )
    config = tmp_path / "mypy.ini"
    config.write_text(MYPY)
    done = _python(
        "-m", "mypy", "--config-file", str(config), "--cache-dir", type_cache, str(remembered),
        MYPYPATH=str(tmp_path / "stubs"),
    )  # fmt: skip
    assert 'has no attribute "FP16"' in done.stdout
    assert 'has no attribute "execute_async_v2"' in done.stdout


@needs_stubs
@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("version", real_api.VERSIONS)
def test_the_double_has_the_real_signatures(version: str, tmp_path: Path) -> None:
    """stubtest holds the double to the stubs; what the double has not, the backend does not use (see below)."""
    real_api.write_stubs(version, tmp_path / "stubs")
    package = tmp_path / "package"
    package.mkdir()
    (package / "tensorrt.py").write_text(
        "from tests.engines.tensorrt.double_tensorrt import *\n__version__: str = ''\n"
    )
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nignore_errors = True\n")
    done = _python(
        "-m", "mypy.stubtest", "tensorrt", "--concise", "--ignore-missing-stub", "--mypy-config-file", str(config),
        MYPYPATH=str(tmp_path / "stubs"), PYTHONPATH=f"{package}:{ROOT}",
    )  # fmt: skip
    assert "tensorrt.Logger is not present at runtime" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
    # Not meant: pybind's enums are no Python enums; `path: str = None` is what the generator made of null; and stubtest
    # takes the overloads of deserialising, from memory or from a stream, for one function.
    odd = ("metaclass differs", "has a default value of type None", "Runtime.deserialize_cuda_engine")
    wrong = [
        line
        for line in done.stdout.splitlines()
        if "is inconsistent" in line and "__" not in line.split()[0] and not any(word in line for word in odd)
    ]
    assert wrong == []


@cache
def used_names() -> frozenset[str]:
    """Every dotted name that the backend takes from TensorRT: `BuilderFlag.TF32`."""
    found = set()
    for path in BACKEND:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and (name := _dotted(node)) is not None:
                found.add(name)
    return frozenset(found)


def _dotted(node: ast.expr) -> str | None:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed(parts)) if isinstance(node, ast.Name) and node.id == "trt" else None


DRIVE = """
import json, sys
from pathlib import Path
from tests.engines.tensorrt.conftest import install
install()
import numpy as np
from tests.engines.tensorrt import double_tensorrt
from tests.engines.tiny_models import SEGMENTER, bits_model, save
from engines.tensorrt.engine import TensorRTEngine
from engines.tensorrt.plan import BuildOptions
path = save(bits_model(), SEGMENTER, Path(sys.argv[1]) / "bits.onnx")
for tf32 in (False, True):
    with TensorRTEngine(path, precision="fp32", max_batch=2, options=BuildOptions(tf32=tf32)) as engine:
        engine(np.zeros((16, 32, 3), np.uint8))
model = bits_model()
model.graph.node[0].op_type = "Conjure"
try:
    TensorRTEngine(save(model, SEGMENTER, path), precision="fp32")
except Exception as error:
    assert "Conjure" in str(error), error
print(json.dumps(sorted(double_tensorrt.state.calls)))
"""
"""Uses all of the API that the backend uses: build, load, run, and an operator that is refused."""

ASK = """
import json, re, sys
import tensorrt_bindings as trt
names, calls = json.loads(sys.stdin.read())
missing = []
for name in names:
    value = trt
    for part in name.split("."):
        value = getattr(value, part, None)
    if value is None:
        missing.append(name)
for kind, method, keywords in calls:
    found = getattr(getattr(trt, kind, None), method, None)
    if found is None:
        missing.append(f"{kind}.{method}")
    said = found.__doc__ or ""
    missing += [f"{kind}.{method}({word}=)" for word in keywords if not re.search(rf"\\b{word}\\b", said)]
print(json.dumps({"version": trt.__version__, "missing": missing}))
"""

REFUSE = """
import sys
import tensorrt_bindings
sys.modules["tensorrt"] = tensorrt_bindings
from engines.errors import DeviceError
from engines.tensorrt.builder import build
from engines.tensorrt.logger import logger
from engines.tensorrt.plan import BuildOptions
from tests.engines.tiny_models import SEGMENTER
logger().log(tensorrt_bindings.ILogger.Severity.WARNING, "said")
try:
    build(b"", SEGMENTER, BuildOptions())
except DeviceError as error:
    print(error)
"""


@pytest.fixture(scope="session")
def bindings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the real bindings of every version; kept by pytest from run to run."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc for libraries that do nothing")
    store = request.config.cache
    folder = Path(store.mkdir("tensorrt-bindings")) if store else tmp_path_factory.mktemp("bindings")
    for version, wheel in real_api.VERSIONS.items():
        if not (folder / version / "complete").exists():
            try:
                real_api.install_bindings(folder / version, wheel)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"TensorRT's bindings cannot be fetched: {error.stderr.strip().splitlines()[-1:]}")
            (folder / version / "complete").touch()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("version", real_api.VERSIONS)
def test_every_name_the_backend_uses_exists(version: str, bindings: Path, tmp_path: Path) -> None:
    calls = _python("-c", DRIVE, str(tmp_path), ROADLENS_CACHE=str(tmp_path / "cache"))
    assert calls.returncode == 0, calls.stderr
    used = json.dumps([sorted(used_names() - {"__version__"}), json.loads(calls.stdout)])
    folder = bindings / version
    asked = subprocess.run(
        [sys.executable, "-c", ASK],
        env={**os.environ, "PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(folder / "lib")},
        input=used, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout) == {"version": real_api.VERSIONS[version], "missing": []}
    assert {"BuilderFlag.TF32", "ILogger", "IProgressMonitor", "MemoryPoolType.WORKSPACE"} <= used_names()
    methods = {(kind, method) for kind, method, _ in json.loads(calls.stdout)}
    assert {("IExecutionContext", "execute_async_v3"), ("ParserError", "node_name")} <= methods


@pytest.mark.slow
@pytest.mark.parametrize("version", real_api.VERSIONS)
def test_the_backend_runs_on_the_real_bindings_as_far_as_they_go(version: str, bindings: Path) -> None:
    """Our logger and our monitor are made by the real classes, and a factory that gives null is a sentence."""
    folder = bindings / version
    done = _python("-c", REFUSE, PYTHONPATH=f"{ROOT}:{folder}", LD_LIBRARY_PATH=str(folder / "lib"))
    assert done.stdout.strip() == "TensorRT does not start: it gave no reason; update the NVIDIA driver.", done.stderr


def test_nothing_that_tensorrt_11_removed_is_used() -> None:
    source = "\n".join(path.read_text() for path in BACKEND)
    for gone in ("BuilderFlag.FP16", "BuilderFlag.INT8", "BuilderFlag.BF16", "Calibrator", "set_calibration_profile"):
        assert gone not in source


def test_the_calls_to_cuda_exist() -> None:
    """The double of CUDA has no name, and takes no number of arguments, that NVIDIA's bindings have not."""
    runtime = pytest.importorskip("cuda.bindings.runtime")
    from tests.engines.tensorrt import double_cuda

    tree = ast.parse((ROOT / "engines" / "tensorrt" / "cuda.py").read_text())
    names = {
        node.attr for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "runtime"
    }  # fmt: skip
    assert {"cudaMalloc", "cudaGraphLaunch", "cudaMemcpyKind"} <= names
    assert [name for name in sorted(names) if not hasattr(runtime, name) or not hasattr(double_cuda, name)] == []
    for enum in ("cudaError_t", "cudaMemcpyKind", "cudaStreamCaptureMode"):
        for member in getattr(double_cuda, enum):
            assert getattr(getattr(runtime, enum), member.name).value == member.value
    for constant in (
        "cudaHostAllocPortable",
        "cudaEventDisableTiming",
        "cudaEventBlockingSync",
        "cudaStreamNonBlocking",
    ):
        assert getattr(runtime, constant) == getattr(double_cuda, constant)


def test_the_handle_of_a_stream_is_asked_for_as_nvidia_wants_it() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    from cuda.bindings.utils import get_cuda_native_handle

    assert get_cuda_native_handle(runtime.cudaStream_t(0x1234)) == 0x1234
    lowest = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("gpu = "))
    assert "cuda-bindings>=12.9.1" in lowest, "before it waiting for an event held the interpreter lock"
    assert "int(self.native)" not in (ROOT / "engines" / "tensorrt" / "cuda.py").read_text()
