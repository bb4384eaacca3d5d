"""Where the sockets of workers are, and which files a run reads that is in several processes."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from engines.errors import OutputError
from pipeline.config import StreamConfig
from pipeline.messages.sockets.outlet import MOST_IPC_BYTES

_LONGEST_NAME = "/1000000.http"


def socket_folder(stack: ExitStack) -> Path:
    """A folder for sockets that nobody else can reach; `stack` removes it.

    Raises:
        OutputError: there is no place for it with a path that a socket may have.
    """
    for place in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):  # noqa: S108  # mkdtemp's are private
        try:
            folder = tempfile.mkdtemp(prefix="roadlens-", dir=place)
        except OSError:
            continue
        if len(os.fsencode(folder + _LONGEST_NAME)) <= MOST_IPC_BYTES:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            return Path(folder)
        Path(folder).rmdir()
    raise OutputError(
        f"workers need a folder for their sockets, and no folder for temporary files can be written in whose path has "
        f"at most {MOST_IPC_BYTES - len('/roadlens-12345678' + _LONGEST_NAME)} bytes; set TMPDIR to one that has"
    )


def files_named(streams: Sequence[StreamConfig]) -> list[Path]:
    """The files that the sources of streams name, as far as they are there: none of them may be written over by a
    worker that reads others.
    """
    found: list[Path] = []
    for stream in streams:
        try:
            path = Path(stream.source).expanduser()
            if path.is_dir():
                found += [each for each in path.iterdir() if each.is_file()]
            else:
                found += [Path(each) for each in ([str(path)] if path.is_file() else glob.glob(str(path)))]  # noqa: PTH207  # pathlib globs only below a folder
        except (OSError, ValueError, RuntimeError):
            continue  # no path, or one that its stream will say something about
    return found
