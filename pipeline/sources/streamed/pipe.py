"""Pipes: standard input, a FIFO, or what a shell puts in place of `<(…)`.

What comes through one says not whether it is a recording or a camera's. Whoever writes waits for whoever reads, so that
every frame can be had: a pipe is read as a recording unless `mode: live` says otherwise.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Self

from av.container import InputContainer

from engines.errors import SourceError
from pipeline.sources.decoding import Decoding
from pipeline.sources.live.address import LiveOptions, live_input, open_input
from pipeline.sources.live.faults import Fault
from pipeline.sources.reading import Reading
from pipeline.sources.streamed.source import StreamedSource

log = logging.getLogger(__name__)


class PipeSource(StreamedSource):
    """A recording that comes through a pipe."""

    @classmethod
    def from_address(cls, stream_id: str, address: str, reading: Reading) -> Self:
        """The pipe at an address: `-` or a path.

        Raises:
            SourceError: no pipe's address.
        """
        options, decoding = reading.live or LiveOptions(), reading.decoding or Decoding(stream_id)
        given = live_input(address, options)

        def connect(abandoned: Callable[[], bool]) -> InputContainer:
            try:
                container = open_input(given, options, abandoned, decoding, patient=True)
            except Fault as fault:
                raise SourceError(f"{fault}{_REMEDY if fault.cause == 'damaged' else ''}") from None
            log.info(
                "%s: %s is read as a recording: every frame, and whoever writes waits; --mode live (mode: live) reads "
                "it as a camera's", stream_id, given.name,
            )  # fmt: skip
            return container

        return cls(stream_id, given.name, connect, reading.decode_threads, reading.observe, decoding)


_REMEDY = (
    "; a pipe cannot be read twice: give the file itself, or send it in a container for pipes, such as "
    "ffmpeg -i in.mp4 -c copy -f mpegts - | …"
)
