"""TensorRT's own voice: what it logs goes into ours, and a call that fails raises what it said."""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from functools import cache

import tensorrt as trt

from engines.errors import DeviceError

log = logging.getLogger(__name__)

KEPT = 20
_OUT_OF_MEMORY = re.compile(
    r"out ?of ?memory|cudaErrorMemoryAllocation|insufficient memory|Requested size was|FAILED_ALLOCATION", re.IGNORECASE
)
_PLACE = re.compile(r"^\s*\[[^\]]*\]\s*")


class TensorRTError(DeviceError):
    """TensorRT refused or failed; the sentence holds its own message."""


class OutOfMemory(TensorRTError):  # noqa: N818  # what it is called everywhere
    """The GPU has no room for the build, the weights or the buffers."""


class Logger(trt.ILogger):
    """Keeps the errors of each thread until a call that failed asks for them.

    TensorRT takes the first logger of the process for everything, so there is one, see `logger`.
    """

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self._lock = threading.Lock()
        self._errors: deque[tuple[int, str]] = deque(maxlen=KEPT)

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Called by TensorRT from any thread; must not raise."""
        if severity in {trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR}:
            with self._lock:
                self._errors.append((threading.get_ident(), msg))
            log.debug("TensorRT: %s", msg)
        elif severity == trt.ILogger.Severity.WARNING:
            # Most are about tactics that were not taken: no news for whoever runs a pipeline.
            log.info("TensorRT: %s", msg)
        else:
            log.debug("TensorRT: %s", msg)

    def clear(self) -> None:
        """Forget the calling thread's errors: those that follow belong to what is done next."""
        with self._lock:
            own = threading.get_ident()
            self._errors = deque((entry for entry in self._errors if entry[0] != own), maxlen=KEPT)

    def failure(self, doing: str, mend: str) -> TensorRTError:
        """The error of a call that gave null or False.

        Args:
            doing: what failed, as the sentence begins: `TensorRT 11.4 cannot load the plan of drive`.
            mend: how to mend it.

        Returns:
            `OutOfMemory` where TensorRT said so. Its first message is the cause, those after it consequences; of other
            threads only where the calling one said nothing (the builder has threads of its own).
        """
        own = threading.get_ident()
        with self._lock:
            said = [text for thread, text in self._errors if thread == own] or [text for _, text in self._errors]
            self._errors.clear()
        reason = _PLACE.sub("", said[0]).strip().rstrip(".") if said else "it gave no reason"
        if any(_OUT_OF_MEMORY.search(text) for text in said):
            return OutOfMemory(f"{doing}: {' '.join(reason.split())}; {mend}.", "memory")
        return TensorRTError(f"{doing}: {' '.join(reason.split())}; {mend}.", "tensorrt")


@cache
def logger() -> Logger:
    """The process's logger; it must outlive every object of TensorRT."""
    return Logger()
