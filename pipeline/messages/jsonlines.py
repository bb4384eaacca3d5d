"""Analyses as JSON lines: the header of each message on a line of its own, without its mask.

A line is handed to the operating system whole and in one call, with nothing kept back in this process. A kill that
meets that very call, where the line crosses from one page of memory to the next, tears the last line, as a crash of the
machine may; everything that reads here leaves a torn line out.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from engines.errors import OutputError, SourceError
from pipeline.frame import Analysis
from pipeline.messages.headers import AnalysisMessage, MessageError
from pipeline.messages.numbering import Numbering
from pipeline.messages.wire import decode_header, to_json

_BLOCK = 1 << 20


class JsonLines:
    """A sink that writes one line for every analysis. May be called from several threads.

    Args:
        path: the file, or `-` for standard output.
        append: whether to go on behind what is in the file; cut a torn line off first (`truncate_lines`).
        first_sequence: where the numbering of a stream goes on after an interrupted run; 0 for one not named.
        instances: whether boxes tell which pixels of the class map are theirs.

    Attributes:
        written: lines written.

    Raises:
        OutputError: the file cannot be opened.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        append: bool = False,
        first_sequence: Mapping[str, int] | None = None,
        instances: bool = False,
    ) -> None:
        self.path = path
        self.written = 0
        self._first = dict(first_sequence or {})
        self._instances = instances
        self._numbers: dict[str, Numbering] = {}
        self._lock = threading.Lock()
        self._file: int | None = None
        if str(path) == "-":
            sys.stdout.flush()
            self._file = os.dup(sys.stdout.fileno())
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (0 if append else os.O_TRUNC)
            try:
                self._file = os.open(path, flags, 0o666)
            except OSError as error:
                raise OutputError(f"{path} cannot be written: {error.strerror}") from error

    def consume(self, analysis: Analysis) -> None:
        """Write the line of an analysis.

        Raises:
            OutputError: the disk is full or the reader of a pipe is gone; what was written before stays, in whole
                lines.
        """
        stream = analysis.frame.stream
        with self._lock:
            if self._file is None:
                raise ValueError("the file is closed")
            if stream not in self._numbers:
                self._numbers[stream] = Numbering(stream, first=self._first.get(stream, 0), instances=self._instances)
            numbers = self._numbers[stream]
            line = to_json(numbers.header(analysis, numbers.take(analysis))) + b"\n"
            _write_whole(self._file, line, self.path)
            self.written += 1

    def close(self) -> None:
        """Close the file. Twice is allowed.

        Raises:
            OutputError: the disk turned out to be full only now (a network file system).
        """
        with self._lock:
            file, self._file = self._file, None
            if file is None:
                return
            try:
                os.close(file)
            except OSError as error:
                raise OutputError(f"{self.path} could not be written to the end: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def complete_lines(path: Path | str) -> int:
    """How many whole lines are in a file; a torn last line is not counted.

    Raises:
        SourceError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(_BLOCK), b""))
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error


def truncate_lines(path: Path | str, count: int | None = None) -> None:
    """Keep the first `count` whole lines of a file, or all of them, and cut off what follows; torn lines always go.

    Raises:
        SourceError: the file has fewer whole lines than that.
        OutputError: the file cannot be changed.
    """
    end = kept = 0
    try:
        with Path(path).open("r+b") as file:
            for line in file:
                if not line.endswith(b"\n") or kept == count:
                    break
                end += len(line)
                kept += 1
            if count is not None and kept < count:
                raise SourceError(f"{path} has {kept} whole lines, {count} were to be kept")
            file.truncate(end)
    except OSError as error:
        raise OutputError(f"{path} cannot be cut to its whole lines: {error.strerror}") from error


def read_lines(path: Path | str) -> Iterator[AnalysisMessage]:
    """The analyses in a file, a torn last line left out.

    Raises:
        SourceError: the file cannot be read, or a line is no analysis; it names the line.
    """
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                yield _analysis(line, path, number)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error


def _analysis(line: bytes, path: Path | str, number: int) -> AnalysisMessage:
    try:
        header = decode_header(line)
    except MessageError as error:
        raise MessageError(f"{path}, line {number}: {error}") from error
    if not isinstance(header, AnalysisMessage):
        raise MessageError(f"{path}, line {number}: not an analysis")
    return header


def _write_whole(file: int, line: bytes, path: Path | str) -> None:
    """Write a line; where that fails in the middle, take back what was written of it."""
    done = 0
    try:
        while done < len(line):
            done += os.write(file, line[done:])
    except OSError as error:
        if done and stat.S_ISREG(os.fstat(file).st_mode):
            os.ftruncate(file, os.fstat(file).st_size - done)
        if isinstance(error, BrokenPipeError):
            raise OutputError(
                f"the reader of {path} is gone: keep it reading to the end, or write to a file"
            ) from error
        raise OutputError(
            f"{path} could not be written further: {error.strerror}; the lines before are intact"
        ) from error
