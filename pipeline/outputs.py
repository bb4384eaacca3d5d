"""The live outputs of a stream from their configuration: what goes where, counted and observed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from engines.errors import UsageError
from pipeline.browser_view import BrowserView
from pipeline.encoder import LiveEncoderOptions
from pipeline.frame import Mode
from pipeline.hls import Hls, HlsOptions
from pipeline.live_output import CardOptions, Destination, LiveOutput
from pipeline.metrics import Metrics
from pipeline.output_state import OutputChange, OutputObserver
from pipeline.push import Push, PushOptions, push_format, shown_address
from pipeline.recording import Recording, RecordingOptions
from pipeline.sources import StreamInfo


class OutputOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Overlaid video for those who watch now, encoded once a stream.

    Attributes:
        push: media servers.
        hls: HLS on disk.
        record: segmented recording.
        encoder: how it is encoded.
        card: what is shown while a camera is away; null for nothing.
    """

    push: tuple[PushOptions, ...] = ()
    hls: HlsOptions | None = None
    record: RecordingOptions | None = None
    encoder: LiveEncoderOptions = LiveEncoderOptions()
    card: CardOptions | None = CardOptions()

    @property
    def any(self) -> bool:
        """Whether anything goes out."""
        return bool(self.push) or self.hls is not None or self.record is not None


def check_outputs(options: OutputOptions, many: bool) -> None:
    """What types cannot say.

    Args:
        options: the outputs.
        many: whether there are, or may come to be, several streams.

    Raises:
        OutputError: an address is none that video can be pushed to.
        UsageError: several streams would be pushed to one address.
    """
    for push in options.push:
        push_format(push.address)
        if many and "{stream}" not in push.address:
            shown = shown_address(push.address)
            raise UsageError(
                f"several streams cannot be pushed to the one address {shown}; put {{stream}} where their ids belong, "
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
    for push in options.push:
        scheme = push.address.split("://", 1)[0].lower()
        names[scheme] += 1
        name = scheme if names[scheme] == 1 else f"{scheme}-{names[scheme]}"
        destinations.append(Push(stream, push, name, dropped(name), observe))
    if browsers is not None:
        destinations.append(browsers)
    output = LiveOutput(stream, info, mode, destinations, options.encoder, options.card, dropped("encoder"))
    metrics.encoder(stream, output.encoder)
    return output
