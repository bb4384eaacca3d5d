"""roadlens: driving footage in; overlaid video, messages and metrics out.

This is the public face of the three packages. `analyse` is the short way, `Session` runs a whole `Config`, `load` gives
an engine for one's own pictures, `Subscriber` reads what a publisher sends, `read_lines` what `--jsonl` wrote, and
`read_archive` what `roadlens archive` made. A name that `__all__` does not list may change.

>>> import roadlens
>>> roadlens.Config(streams=(roadlens.StreamConfig("drive.mp4"),)).streams[0].source
'drive.mp4'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engines import load
    from engines.classes import ClassInfo
    from engines.engine import Engine, Prediction
    from engines.errors import (
        CheckFailed,
        DeviceError,
        ModelError,
        OutputError,
        RoadlensError,
        SourceError,
        UsageError,
    )
    from engines.spec import ModelSpec, read_spec
    from pipeline.api import analyse
    from pipeline.archive import read_archive
    from pipeline.config import Config, ModelConfig, StreamConfig, read_config
    from pipeline.contracts import Sink, Source, Stage, StreamInfo
    from pipeline.frame import Analysis, Box, Frame
    from pipeline.messages.jsonlines import read_lines
    from pipeline.messages.subscriber import Subscriber
    from pipeline.session import Session

    __version__: str

__all__ = [
    "Analysis",
    "Box",
    "CheckFailed",
    "ClassInfo",
    "Config",
    "DeviceError",
    "Engine",
    "Frame",
    "ModelConfig",
    "ModelError",
    "ModelSpec",
    "OutputError",
    "Prediction",
    "RoadlensError",
    "Session",
    "Sink",
    "Source",
    "SourceError",
    "Stage",
    "StreamConfig",
    "StreamInfo",
    "Subscriber",
    "UsageError",
    "__version__",
    "analyse",
    "load",
    "read_archive",
    "read_config",
    "read_lines",
    "read_spec",
]

_HOMES = {
    "engines": ("load",),
    "engines.classes": ("ClassInfo",),
    "engines.engine": ("Engine", "Prediction"),
    "engines.errors": (
        "CheckFailed", "DeviceError", "ModelError", "OutputError", "RoadlensError", "SourceError", "UsageError",
    ),
    "engines.spec": ("ModelSpec", "read_spec"),
    "pipeline.api": ("analyse",),
    "pipeline.archive": ("read_archive",),
    "pipeline.config": ("Config", "ModelConfig", "StreamConfig", "read_config"),
    "pipeline.contracts": ("Sink", "Source", "Stage", "StreamInfo"),
    "pipeline.frame": ("Analysis", "Box", "Frame"),
    "pipeline.messages.jsonlines": ("read_lines",),
    "pipeline.messages.subscriber": ("Subscriber",),
    "pipeline.session": ("Session",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    # Loaded when used: `import roadlens` takes no time, and nothing is loaded that is not needed.
    if name == "__version__":
        from importlib.metadata import version

        return version("roadlens")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'roadlens' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
