"""What an option needs of the rest of a run: without it the option would do nothing, and is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pipeline.config import Config


class Need(NamedTuple):
    """Something that there has to be.

    Attributes:
        met: whether it is there, given the configuration and whether viewers are shown pictures beside it.
        otherwise: what is said where it is not, behind the option's flag.
    """

    met: Callable[[Config, bool], bool]
    otherwise: str


def _overlaid(config: Config, viewed: bool) -> bool:
    drawn_on_request = any(options.picture is not None and options.picture.overlay for options in config.publish)
    return _encoded(config, viewed) or viewed or drawn_on_request


def _encoded(config: Config, _viewed: bool) -> bool:
    return config.video.path is not None or config.outputs.any


def _pictures(config: Config, viewed: bool) -> bool:
    return _encoded(config, viewed) or viewed or any(options.picture is not None for options in config.publish)


def _messages(config: Config, _viewed: bool) -> bool:
    return bool(config.jsonl or config.mcap or config.publish)


def _files(config: Config, _viewed: bool) -> bool:
    from pipeline.sources.live.address import may_be_recorded

    return any(may_be_recorded(stream.source, stream.mode) for stream in config.streams)


def _either(config: Config, _viewed: bool) -> bool:
    from pipeline.sources.live.address import may_be_either

    return any(may_be_either(stream.source) for stream in config.streams)


def _class_map(config: Config, _viewed: bool) -> bool:
    from engines.bundled import resolve
    from engines.errors import ModelError
    from engines.spec import read_spec

    try:
        return any("class_map" in read_spec(resolve(wanted.model)).outputs for wanted in config.models)
    except ModelError:
        return True  # loading it says what is wrong with it


def _x264(config: Config, _viewed: bool) -> bool:
    encoders: list[str] = [config.video.encoder] if config.video.path is not None else []
    encoders += [config.outputs.encoder.encoder] if config.outputs.any else []
    return any(encoder in {"auto", "libx264"} for encoder in encoders)


OVERLAID = Need(
    _overlaid,
    "is about overlaid video, and this run makes none; give -o, --restream, --hls or --record too, or leave it out",
)
ENCODED = Need(
    _encoded,
    "is about encoding, and nothing is encoded here; give -o, --restream, --hls or --record too, or leave it out",
)
X264 = Need(_x264, "is of the encoder x264, and another one is asked for; leave one of the two out")
PICTURES = Need(
    _pictures,
    "is about the pictures that leave the process, and none does here; give -o, --restream, --hls or --record too, or "
    "leave it out",
)
MESSAGES = Need(
    _messages, "is about messages, and this run has none; give --jsonl, --mcap, --pub or --push too, or leave it out"
)
FILES = Need(_files, "plays files as if they were cameras, and every source is a camera already; leave it out")
EITHER = Need(
    _either,
    "says what comes over HTTP or TCP or through a pipe, and every source here shows what it is; leave it out "
    "(--realtime plays files as if they were cameras)",
)
CLIPS = Need(_files, "chooses clips of a folder or tracks of a file, and every source is live; leave it out")
STREAMS = Need(
    lambda config, _viewed: bool(config.streams),
    "is about the pictures of the sources given here, and there are none; give one, or say it where a stream is added",
)
CLASS_MAP = Need(
    _class_map, "is about a segmenter's class map, and no --model gives one; add one that does, or leave it out"
)
