"""The live outputs of a stream from their configuration: what goes where, counted and observed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from engines.errors import UsageError
from pipeline.addresses import strip_credentials
from pipeline.contracts import StreamInfo
from pipeline.frame import Mode
from pipeline.metrics import Metrics
from pipeline.outputs.live.browser import BrowserView
from pipeline.outputs.live.destination import Destination
from pipeline.outputs.live.encoder import LiveEncoderOptions
from pipeline.outputs.live.hls import Hls, HlsOptions
from pipeline.outputs.live.output import CardOptions, LiveOutput
from pipeline.outputs.live.restream import Restream, RestreamOptions, restream_format
from pipeline.outputs.live.segments import Recording, RecordingOptions
from pipeline.state import OutputChange, OutputObserver


class OutputOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Overlaid video for those who watch now, encoded once a stream.

    Attributes:
        restream: media servers that it is sent to.
        hls: HLS on disk.
        record: segmented recording.
        encoder: how it is encoded.
        card: what is shown while a camera is away; null for nothing.
    """

    restream: tuple[RestreamOptions, ...] = ()
    hls: HlsOptions | None = None
    record: RecordingOptions | None = None
    encoder: LiveEncoderOptions = LiveEncoderOptions()
    card: CardOptions | None = CardOptions()

    @property
    def any(self) -> bool:
        """Whether anything goes out."""
        return bool(self.restream) or self.hls is not None or self.record is not None


def check_outputs(options: OutputOptions, many: bool) -> None:
    """What types cannot say.

    Args:
        options: the outputs.
        many: whether there are, or may come to be, several streams.

    Raises:
        OutputError: an address is none that video can be sent to.
        UsageError: several streams would be sent to one address.
    """
    for server in options.restream:
        restream_format(server.address)
        if many and "{stream}" not in server.address:
            shown = strip_credentials(server.address)
            raise UsageError(
                f"several streams cannot be sent to the one address {shown}; put {{stream}} where their ids belong, "
                f"such as {shown.rstrip('/')}/{{stream}}"
            )


def open_outputs(
    stream: str,
    info: StreamInfo,
    mode: Mode,
    options: OutputOptions,
    metrics: Metrics,
    observers: Sequence[OutputObserver] = (),
    browsers: BrowserView | None = None,
    gone: Callable[[], bool] = lambda: False,
) -> LiveOutput | None:
    """The live output of a stream with all its destinations, started; None where nothing goes out. `browsers` get what
    is encoded for the others. Once the stream is `gone` the metrics hear of it no more: destinations end in their own
    time, and the name may be another's by then.

    Raises:
        OutputError: a folder cannot be written, or no encoder opens.
    """
    if not options.any:
        return None

    def observe(change: OutputChange) -> None:
        if not gone():
            metrics.output(change)
        for observer in observers:
            observer(change)

    def dropped(output: str) -> Callable[[int, str], None]:
        return lambda count, reason: None if gone() else metrics.output_dropped(stream, output, reason, count)

    destinations: list[Destination] = []
    if options.hls is not None:
        destinations.append(Hls(stream, options.hls, dropped(Hls.name), observe))
    if options.record is not None:
        destinations.append(Recording(stream, options.record, dropped(Recording.name), observe))
    names: Counter[str] = Counter()
    for server in options.restream:
        scheme = server.address.split("://", 1)[0].lower()
        names[scheme] += 1
        name = scheme if names[scheme] == 1 else f"{scheme}-{names[scheme]}"
        destinations.append(Restream(stream, server, name, dropped(name), observe))
    if browsers is not None:
        destinations.append(browsers)
    output = LiveOutput(stream, info, mode, destinations, options.encoder, options.card, dropped("encoder"))
    metrics.encoder(stream, output.encoder)
    return output
