"""Streaming runtime: footage in, overlays, messages and metrics out.

`analyse` is the short way; `pipeline.session.Session` runs a whole configuration; `pipeline.runtime.Runtime` takes
one's own stages and sinks. `Subscriber` reads what a publisher sends, `read_lines` what `--jsonl` wrote, `read_archive`
what `roadlens archive` made.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import analyse
    from pipeline.archive import read_archive
    from pipeline.frame import Analysis, Box, Frame
    from pipeline.messages.jsonlines import read_lines
    from pipeline.messages.subscriber import Subscriber

__all__ = ["Analysis", "Box", "Frame", "Subscriber", "analyse", "read_archive", "read_lines"]

_HOMES = {
    "Analysis": "pipeline.frame",
    "Box": "pipeline.frame",
    "Frame": "pipeline.frame",
    "Subscriber": "pipeline.messages.subscriber",
    "analyse": "pipeline.api",
    "read_archive": "pipeline.archive",
    "read_lines": "pipeline.messages.jsonlines",
}


def __getattr__(name: str) -> Any:
    # Loaded when used: the command line must answer --help before FFmpeg and OpenCV are in memory.
    if name not in _HOMES:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
