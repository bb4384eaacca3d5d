"""Streaming runtime: footage in, overlays, messages and metrics out.

`analyse` is the short way; `pipeline.session.Session` runs a whole configuration; `pipeline.runtime.Runtime` takes
one's own stages and sinks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import analyse
    from pipeline.frame import Analysis, Box, Frame

__all__ = ["Analysis", "Box", "Frame", "analyse"]


def __getattr__(name: str) -> Any:
    # Loaded when used: the command line must answer --help before FFmpeg and OpenCV are in memory.
    if name == "analyse":
        from pipeline.api import analyse

        return analyse
    if name in ("Analysis", "Box", "Frame"):
        import pipeline.frame

        return getattr(pipeline.frame, name)
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
