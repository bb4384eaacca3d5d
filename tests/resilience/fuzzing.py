"""A coverage-guided fuzzer at our own parsers.

`python -m tests.resilience.fuzzing TARGET FOLDER [libFuzzer's options]`: FOLDER has what it begins with, and gets what
led to code that nothing before had led to. It ends with the first thing that a parser raises and does not promise to
raise.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris

SCRATCH = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))

with atheris.instrument_imports(include=["engines", "pipeline"]):
    from engines.errors import ModelError, RoadlensError, SourceError, UsageError
    from engines.spec import read_spec
    from pipeline.archive.find.grammar import parse
    from pipeline.archive.journal import FILE, read_state
    from pipeline.archive.positions import freegps, gpmf, texts
    from pipeline.archive.positions.reading import whereabouts
    from pipeline.archive.positions.sidecars import SUFFIXES, UnusableError, fixes_in
    from pipeline.config import read_config
    from pipeline.messages.headers import MessageError
    from pipeline.messages.jsonlines import read_lines
    from pipeline.messages.recording import read_recording, recover
    from pipeline.messages.wire import decode


def message(data: bytes) -> None:
    """As many parts as there are, each behind two bytes of length."""
    parts: list[bytes] = []
    while data:
        size = int.from_bytes(data[:2], "big")
        parts.append(data[2 : 2 + size])
        data = data[2 + size :]
    with suppress(MessageError):
        decode(parts)


def sidecar(data: bytes) -> None:
    """A file beside a clip, of the kind that the first byte says."""
    suffix = sorted(SUFFIXES)[data[0] % len(SUFFIXES)] if data else ".gpx"
    with suppress(UnusableError):
        fixes_in(written(f"beside{suffix}", data[1:]))


def positions(data: bytes) -> None:
    """A sample of a track, a block, and a clip."""
    list(gpmf.fixes_of([(0.0, 1.0, data)]))
    list(gpmf.clock_of([(0.0, 1.0, data)]))
    texts.read([(0.0, data)])
    freegps.fix_of(data)
    whereabouts(written("clip.mp4", data), 0.0, 1.0)


def recording(data: bytes) -> None:
    """A recording of messages, read and made whole."""
    path = written("a.mcap", data)
    with suppress(RoadlensError):
        for recorded in read_recording(path):
            with suppress(MessageError):
                decode(recorded.parts)
    with suppress(RoadlensError):
        recover(path, SCRATCH / "whole.mcap")
    (SCRATCH / "whole.mcap").unlink(missing_ok=True)


def configuration(data: bytes) -> None:
    """A configuration."""
    with suppress(RoadlensError):
        read_config(written("a.yaml", data))


def model(data: bytes) -> None:
    """A model file, of which what it says of itself is read."""
    with suppress(ModelError):
        read_spec(written("a.onnx", data))


def lines(data: bytes) -> None:
    """Lines of JSON, and the manifest of an archive."""
    with suppress(SourceError):
        list(read_lines(written("a.jsonl", data)))
    with suppress(SourceError):
        read_state(written(FILE, data).parent)


def expression(data: bytes) -> None:
    """What an archive is asked."""
    with suppress(UsageError):
        parse(data.decode("utf-8", "surrogateescape"))


def written(name: str, data: bytes) -> Path:
    path = SCRATCH / name
    path.write_bytes(data)
    return path


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each for each in (message, sidecar, positions, recording, configuration, model, lines, expression)
}  # fmt: skip

if __name__ == "__main__":
    import logging

    logging.disable()
    os.chdir(SCRATCH)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()
