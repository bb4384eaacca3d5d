"""The files of a run: what it reads and may not write over, and the names of what it writes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from engines.bundled import QUANTIZED, quantized_file, resolve
from engines.claims import Claims
from engines.errors import ModelError, UsageError
from pipeline.config import Config
from pipeline.files import check_writable, earlier_name, file_for, partial_name, passing_names, unused
from pipeline.frame import Analysis
from pipeline.messages.jsonlines import JsonLines, truncate_lines
from pipeline.messages.sockets.keys import ANYBODY
from pipeline.outputs.event_clip import clip_names
from pipeline.outputs.live.hls import is_hls_name
from pipeline.outputs.naming import TimedNames
from pipeline.session.ownership import is_own
from pipeline.sources.live.address import STDIN

IPC = "ipc://"
"""ZeroMQ removes the file that is at such an address before it listens there."""


class JsonLinesFile:
    """JSON lines of one stream at a partial name, given its final one when the stream has come to its end.

    Attributes:
        stays_partial: whether the file keeps its partial name when it is finished.
    """

    name = "jsonl"

    def __init__(self, path: Path, stream: str, first_frame: int, *, instances: bool = False) -> None:
        self.path, self.partial = path, partial_name(path)
        self.stays_partial = False
        resumed = first_frame > 0
        if resumed:
            truncate_lines(self.partial, first_frame)
        self._lines = JsonLines(self.partial, append=resumed, first_sequence={stream: first_frame}, instances=instances)

    def consume(self, analysis: Analysis) -> None:
        """Write one line."""
        self._lines.consume(analysis)

    def finish(self) -> None:
        """Close the file and give it its final name; one in which nothing has been written goes."""
        self.close()
        if not self.stays_partial and self.partial.exists():
            self.partial.replace(self.path)

    def close(self) -> None:
        """Close the file where it is; one in which nothing has been written goes."""
        self._lines.close()
        if self.partial.exists() and self.partial.stat().st_size == 0:
            self.partial.unlink()


class RunFiles:
    """The files of a run, named and claimed before anything is opened for writing.

    Args:
        config: the run.
        many: whether there may be several streams, so that an output is a folder.
        fresh: whether each file gets a name that is not in use, for streams that come and go.
        inputs: further files that the run reads, such as its configuration.

    Attributes:
        outputs: final paths of the files written, by stream.
        mcap: final path of the recording of all streams' messages; None without one.

    Raises:
        UsageError: an output is an input of the run.
    """

    def __init__(self, config: Config, *, many: bool, fresh: bool = False, inputs: Sequence[Path] = ()) -> None:
        self.outputs: dict[str, list[Path]] = {}
        self._config, self._many, self._fresh = config, many, fresh
        self._claims = Claims()
        for path in (*inputs, *_files_read(config)):
            self._claims.read(path)
        self.mcap = unused(config.mcap) if fresh and config.mcap is not None else config.mcap
        if self.mcap is not None:
            self._claims.write(self.mcap, passing_names(self.mcap))
        if config.summary not in (None, "-"):
            summary = Path(str(config.summary))
            self._claims.write(summary, [partial_name(summary)])
        for options in config.publish:
            if options.bind.startswith(IPC):
                self._claims.write(Path(options.bind.removeprefix(IPC)))

    # What goes in ---------------------------------------------------------------------------------------------------
    def read(self, stream: str, address: str, paths: Sequence[Path]) -> None:
        """Name what a stream reads: its address, and the files behind it.

        Raises:
            UsageError: the run writes one of those files.
        """
        for path in paths:
            self._claims.read(path, stream)
        if address == STDIN:
            with suppress(OSError, ValueError, AttributeError):  # there may be no standard input
                self._claims.read_descriptor(sys.stdin.fileno(), "standard input", stream)

    # What comes out -------------------------------------------------------------------------------------------------
    def claim(self, stream: str, address: str, paths: Sequence[Path]) -> None:
        """Choose the names of a stream's files, and see that none of them is in the way of anything.

        Raises:
            UsageError: an output is an input of the run, or another output, or would be written by way of a name at
                which a file of somebody else's is.
        """
        config, claims = self._config, self._claims
        claims.release(stream)  # what an earlier stream of this name has left
        self.read(stream, address, paths)
        video = None if config.video.path is None else self._path(config.video.path, stream, ".mp4")
        lines = None if config.jsonl in (None, "-") else self._path(Path(str(config.jsonl)), stream, ".jsonl")
        self.outputs[stream] = [path for path in (video, lines) if path is not None]
        for path in self.outputs[stream]:
            claims.write(path, passing_names(path), stream)
            for name in (partial_name(path), earlier_name(path)):
                _refuse_foreign(path, name)
        if "-" in (config.jsonl, config.summary):
            with suppress(OSError, ValueError, AttributeError):  # there may be no standard output
                claims.write_descriptor(sys.stdout.fileno(), "standard output")
        if config.outputs.hls is not None:
            claims.write_in(config.outputs.hls.folder / stream, is_hls_name, "HLS", stream)
        if config.outputs.record is not None:
            claims.write_in(config.outputs.record.folder / stream, TimedNames(stream).ours, "recordings", stream)
        if config.event_clips is not None:
            claims.write_in(config.event_clips.folder / stream, clip_names(stream).ours, "clips of events", stream)

    def _path(self, given: Path, stream: str, suffix: str) -> Path:
        path = file_for(given, stream, suffix, self._many)
        # A stream that comes again must not write over what it left before.
        return unused(path) if self._fresh else path

    def forget(self, stream: str) -> None:
        """Let go of a stream's files."""
        self.outputs.pop(stream, None)
        self._claims.release(stream)

    def check_writable(self, stream: str) -> None:
        """See that a stream's files can be written.

        Raises:
            OutputError: one of them cannot.
        """
        for path in self.outputs[stream]:
            check_writable(path)

    def anchor(self, stream: str) -> Path | None:
        """The file beside which a stream's side-cars stand; None where nothing is written that could be resumed."""
        if self.outputs[stream]:
            return self.outputs[stream][0]
        return None if self.mcap is None else self.mcap.with_name(f"{self.mcap.name}.{stream}")

    @property
    def unfinished(self) -> bool:
        """Whether a file of a stream still has its partial name."""
        return any(partial_name(path).exists() for paths in self.outputs.values() for path in paths)

    def present(self, stream: str) -> list[Path]:
        """The files of a stream that are there: the final one, or the partial one where it did not end well."""
        found = [(path, partial_name(path)) for path in self.outputs.get(stream, [])]
        return [partial if partial.exists() else path for path, partial in found if partial.exists() or path.exists()]


def _refuse_foreign(output: Path, name: Path) -> None:
    """See that a name which an output passes through is free, or is that of a file of our own."""
    with suppress(OSError):
        if name.exists() and name.stat().st_size and not is_own(name):
            raise UsageError(
                f"{name} is in the way: {output} passes through that name, and roadlens did not write that file; move "
                "it, or give the output another name"
            )


def _files_read(config: Config) -> list[Path]:
    """The files that a configuration names, sources left out: models with their twins, keys, the token."""
    found = []
    for wanted in config.models:
        with suppress(ModelError, OSError, ValueError):  # loading it says what is wrong with it
            path = resolve(wanted.model)
            found += [path, *(quantized_file(path, precision) for precision in QUANTIZED)]
    for options in config.publish:
        if options.curve is not None:
            found.append(options.curve.server_key_file)
            found += _keys(options.curve.clients)
    if config.serve.token_file is not None:
        found.append(config.serve.token_file)
    return found


def _keys(clients: str | tuple[str, ...]) -> list[Path]:
    if isinstance(clients, tuple):
        return [Path(client) for client in clients]
    with suppress(OSError):
        return [] if clients == ANYBODY else list(Path(clients).iterdir())
    return []
