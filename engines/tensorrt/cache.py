"""The folder of plans: found by content, written whole or not at all, safe for several processes.

    cityscapes-unet-fp16-b8-1f0c….plan      what TensorRT built
    cityscapes-unet-fp16-b8-1f0c….json      its side-car, written last: a plan without one does not count
    cityscapes-unet-fp16-b8-1f0c….lock      held by the process that builds; freed by the kernel if that is killed
    timing-….cache                          how fast kernels were, by TensorRT and GPU: the next build is quicker

A side-car names its plan's SHA-256, so whatever a crash, a full disk or a hand leaves behind is found out before
TensorRT sees it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from engines.errors import OutputError
from engines.tensorrt.plan import SCHEMA, Machine, PlanRequest, SideCar, covers, mismatch

FOLDER_VARIABLE = "ROADLENS_CACHE"
"""The environment variable that names the cache folder; plans lie in `plans` under it."""

_DAMAGED = (msgspec.DecodeError, UnicodeDecodeError)  # bad UTF-8 in a text is no DecodeError of msgspec's
_STALE_SECONDS = 24 * 3600.0


def default_folder() -> Path:
    """`$ROADLENS_CACHE/plans`, else `roadlens/plans` under `$XDG_CACHE_HOME` or `~/.cache`."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen) / "plans"
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a container's user without a home
        base = Path(tempfile.gettempdir())
    return base / "roadlens" / "plans"


@dataclass(frozen=True, slots=True)
class Found:
    """What the cache has for a request: the plan, or why there is none, as a clause (`there is no plan yet`)."""

    plan: bytes | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One plan in the folder.

    Attributes:
        path: the plan file.
        side_car: None where it is missing or cannot be read.
        size: bytes of the plan.
        used: seconds since the epoch when it was last read or written.
        fault: what is wrong with it, as a clause; None where nothing is.
    """

    path: Path
    side_car: SideCar | None
    size: int
    used: float
    fault: str | None


class PlanCache:
    """The plans of one folder, which need not exist."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = default_folder() if folder is None else folder

    def find(self, request: PlanRequest, exact: bool = True) -> Found:
        """The plan for a request. Never raises: what cannot be read is a reason to build.

        Args:
            request: what it is to be for.
            exact: whether one that differs only in being for larger batches does not do.
        """
        path = self.folder / f"{request.stem}.plan"
        try:
            side_car = _read_side_car(path.with_suffix(".json"))
        except FileNotFoundError:
            larger = None if exact else self._larger(request)
            return Found(None, self._nearest(request)) if larger is None else self.find(larger)
        except OSError as error:
            return Found(None, f"its side-car cannot be read ({error.strerror})")
        except _DAMAGED:
            return Found(None, "its side-car is damaged")
        if side_car.schema != SCHEMA:
            return Found(None, f"its side-car is of schema {side_car.schema} and this roadlens reads {SCHEMA}")
        if clause := mismatch(request, side_car.request):
            return Found(None, f"the plan at its place {clause}")
        try:
            plan = path.read_bytes()
        except OSError as error:
            return Found(None, f"its plan cannot be read ({error.strerror})")
        if hashlib.sha256(plan).hexdigest() != side_car.plan_sha256:
            return Found(None, f"its plan is damaged ({len(plan)} bytes, written were {side_car.plan_bytes})")
        with suppress(OSError):  # a read-only cache serves as well
            os.utime(path)
        return Found(plan)

    def store(self, request: PlanRequest, plan: bytes, seconds: float) -> Path:
        """Keep a plan.

        Raises:
            OutputError: the folder cannot be made or written; nothing is left of the attempt.
        """
        path = self.folder / f"{request.stem}.plan"
        side_car = SideCar(
            request=request,
            plan_sha256=hashlib.sha256(plan).hexdigest(),
            plan_bytes=len(plan),
            built_at=datetime.now(UTC).isoformat(timespec="seconds"),
            build_seconds=round(seconds, 3),
            roadlens=_version(),
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # A side-car of before must not stand beside the new plan, not even for a moment.
            path.with_suffix(".json").unlink(missing_ok=True)
            _write(path, plan)
            _write(path.with_suffix(".json"), msgspec.json.format(msgspec.json.encode(side_car), indent=2))
        except OSError as error:
            raise OutputError(
                f"The plan of {request.model} cannot be kept in {self.folder} ({error.strerror}); make room or give "
                f"another folder with {FOLDER_VARIABLE}, or it is built again at every start."
            ) from None
        return path

    def discard(self, request: PlanRequest) -> None:
        """Take a plan out that TensorRT would not load; where that cannot be done it stays."""
        with suppress(OSError):
            (self.folder / f"{request.stem}.json").unlink(missing_ok=True)

    @contextmanager
    def lock(self, request: PlanRequest, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the right to build a plan; others that want it wait until this one is done or dead.

        In a folder that cannot be written there is nothing to lock: nobody can store there either.

        Args:
            request: which plan.
            waiting: called once where another process holds it.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder / f"{request.stem}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            yield
            return
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def timing(self, machine: Machine) -> bytes:
        """What earlier builds measured on this machine; empty where there is nothing."""
        try:
            return self._timing_path(machine).read_bytes()
        except OSError:
            return b""

    def store_timing(self, machine: Machine, timing: bytes) -> None:
        """Keep measurements; they are only worth time, so a folder that cannot be written is no error."""
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(self._timing_path(machine), timing)

    def entry(self, request: PlanRequest) -> Entry:
        """What lies there for a request."""
        return _entry(self.folder / f"{request.stem}.plan")

    def entries(self) -> list[Entry]:
        """All plans, by name. Never raises: a folder that is not there has none."""
        return [_entry(path) for path in sorted(self.folder.glob("*.plan"))]

    def prune(self, unwanted: Callable[[Entry], bool], *, dry_run: bool = False) -> list[Entry]:
        """Delete plans, and what no living build owns: half-written files and orphaned locks.

        A plan that a process has loaded may be deleted: it is in that process's memory.

        Args:
            unwanted: which plans go.
            dry_run: only say which.

        Raises:
            OutputError: the folder cannot be written.
        """
        gone = [entry for entry in self.entries() if unwanted(entry)]
        if dry_run:
            return gone
        try:
            for entry in gone:
                entry.path.with_suffix(".json").unlink(missing_ok=True)
                entry.path.unlink(missing_ok=True)
            self._sweep()
        except OSError as error:
            raise OutputError(
                f"Plans cannot be deleted in {self.folder} ({error.strerror}); mend its permissions."
            ) from None
        return gone

    def _sweep(self) -> None:
        for path in self.folder.glob("*.json"):
            if not path.with_suffix(".plan").exists():
                path.unlink(missing_ok=True)
        for path in self.folder.glob(".*.tmp"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()

    def _nearest(self, request: PlanRequest) -> str:
        """Why there is no plan: none of this model in this precision yet, or the last one was for something else."""
        others = [
            (entry.used, mismatch(request, entry.side_car.request))
            for entry in self.entries()
            if entry.side_car is not None
            and (entry.side_car.request.model, entry.side_car.request.precision) == (request.model, request.precision)
        ]
        return f"its plan {max(others)[1]}" if others else "there is no plan of it yet"

    def _larger(self, request: PlanRequest) -> PlanRequest | None:
        """The request of the plan for the fewest more pictures in a batch that is the same otherwise."""
        others = [
            entry.side_car.request
            for entry in self.entries()
            if entry.side_car is not None and entry.fault is None and covers(entry.side_car.request, request)
        ]
        return min(others, key=lambda other: other.options.max_batch, default=None)

    def _timing_path(self, machine: Machine) -> Path:
        gpu = re.sub(r"[^A-Za-z0-9]+", "-", machine.gpu).strip("-")
        return self.folder / f"timing-{machine.tensorrt}-{gpu}-{machine.compute_capability}.cache"


def _entry(path: Path) -> Entry:
    side_car, fault = None, None
    try:
        stat = path.stat()
        size, used = stat.st_size, stat.st_mtime
    except OSError:  # deleted between listing and looking
        size, used = 0, 0.0
    try:
        side_car = _read_side_car(path.with_suffix(".json"))
    except FileNotFoundError:
        fault = "has no side-car"
    except (OSError, *_DAMAGED):
        fault = "has a damaged side-car"
    if side_car is not None:
        if side_car.schema != SCHEMA:
            side_car, fault = None, "has a side-car of another roadlens"
        elif side_car.plan_bytes != size:
            fault = f"is damaged ({size} bytes, written were {side_car.plan_bytes})"
    return Entry(path, side_car, size, used, fault)


def _read_side_car(path: Path) -> SideCar:
    return msgspec.json.decode(path.read_bytes(), type=SideCar)


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _version() -> str:
    try:
        return version("roadlens")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"
