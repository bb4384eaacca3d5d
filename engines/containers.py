"""Footage opened for reading, by either PyAV: 18, the last for Python 3.11, and 19, which needs Python 3.12.

Both read the same. They differ in how an undecodable tag is asked for and in which numbers time bases and rates are.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar, cast

import av
import av.error
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

_COVER = int(av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails)

Template = TypeVar("Template", VideoStream, AudioStream)

FORMATS = frozenset({
    "aac", "flac", "mp3", "wav",  # sound alone: it is said that there are no pictures
    "apng", "asf", "asf_o", "av1", "avi", "avs2", "avs3", "cavsvideo", "cine", "dhav", "dirac", "dnxhd", "dv", "evc",
    "flv", "gif", "gxf", "h261", "h263", "h264", "hevc", "ifv", "image2", "ipu", "iv8", "ivf", "jpegxl_anim",
    "live_flv", "lmlm4", "luodat", "lvf", "m4v", "matroska", "mjpeg", "mjpeg_2000", "mlv", "mov", "mp4", "mpeg",
    "mpegts", "mpegtsraw", "mpegvideo", "mpjpeg", "mxf", "nsv", "nut", "nuv", "obu", "ogg", "pva", "r3d", "rm", "ser",
    "smjpeg", "ty", "vc1", "vc1test", "vvc", "webm", "webp_anim", "wtv", "yuv4mpegpipe",
    *(f"{kind}_pipe" for kind in (
        "bmp", "dds", "dpx", "exr", "gif", "hdr", "j2k", "jpeg", "jpegls", "jpegxl", "jpegxs", "pam", "pbm", "pcx",
        "pfm", "pgm", "pgmyuv", "phm", "png", "ppm", "psd", "qoi", "sgi", "sunrast", "tiff", "vbn", "webp", "xbm",
        "xpm", "xwd",
    )),
})  # fmt: skip
"""FFmpeg's formats that hold pictures themselves. Of the others some open the files and addresses that they name, some
show any text as video (`tty`): none of them may be what a file turns out to be, or what a server answers with."""

NETWORK_FORMATS = frozenset({"hls", "rtp", "rtsp", "sdp"})
"""Formats that lead to further addresses, for who asked for such an address."""

PLAYLIST_ENDINGS = (".m3u8", ".m3u")
"""Endings of a file that may be a playlist: no other may name files."""

MAX_PIXELS = 1 << 27
"""Pixels of the largest picture that is decoded: a file of a megabyte can claim to hold one of gigabytes."""

# Tags of cameras and players are in all sorts of encodings, and none is worth refusing the pictures. PyAV 19 keeps what
# is not UTF-8 as surrogates, without being asked; PyAV 18 does so on demand, where its containers have this attribute.
_TAGS: dict[str, Any] = {"metadata_errors": "surrogateescape"} if hasattr(InputContainer, "metadata_errors") else {}


def local(path: Path) -> str:
    """A file as FFmpeg takes it for no address: in `12:30:05.mp4` it would see a scheme (libavformat/avio.c).

    >>> local(Path("12:30:05.mp4")), local(Path("/trips/a:3.mp4"))
    ('./12:30:05.mp4', '/trips/a:3.mp4')
    """
    return str(path) if path.is_absolute() else f"./{path}"


def open_container(
    address: Any,
    *,
    format: str | None = None,  # noqa: A002  # the name that `av.open` has for it
    options: Mapping[str, str] | None = None,
    **others: Any,
) -> InputContainer:
    """`av.open` for reading a path, an address or a file object. What is not UTF-8 in a tag is kept as surrogates.

    Of the formats that FFmpeg might find, those of `FORMATS` only, and what is asked for: the `format`, a playlist
    where the file is called one, and what leads to further addresses of an address in the network.

    Args:
        address: what is opened. A `Path` is a file, whatever its name looks like.
        format: FFmpeg's name of the format; found out where it is left out.
        options: of FFmpeg's input; with `format_whitelist` the formats are these.
        others: as of `av.open`.

    Raises:
        FFmpegError, OSError, ValueError: as `av.open`.
    """
    formats = FORMATS | ({format} if format else set())
    most = {"max_pixels": str(MAX_PIXELS)}
    given = dict(most)  # for the pictures that FFmpeg decodes to find out what there is
    if isinstance(address, Path):
        given["pattern_type"] = "none"  # else FFmpeg's `image2` takes a % in a name for the number of a further file
        formats |= {"hls"} if address.name.lower().endswith(PLAYLIST_ENDINGS) else set()
        address = local(address)
    elif isinstance(address, str):
        formats |= NETWORK_FORMATS
    given["format_whitelist"] = ",".join(sorted(formats))
    whole = {**given, **(options or {})}
    container = cast("InputContainer", av.open(address, "r", format, options=whole, **_TAGS, **others))
    for stream in container.streams.video:
        if cast("object | None", stream.codec_context) is not None:
            stream.codec_context.options = {**stream.codec_context.options, **most}
    return container


def picture_streams(container: InputContainer) -> list[VideoStream]:
    """The tracks of pictures of an open file that FFmpeg can decode, and that are neither covers nor thumbnails."""
    return [stream for stream in recorded_streams(container) if cast("object | None", stream.codec_context) is not None]


def recorded_streams(container: InputContainer) -> list[VideoStream]:
    """The tracks of pictures of an open file, without covers and thumbnails that are marked so."""
    return [stream for stream in container.streams.video if not int(stream.disposition) & _COVER]


def exact(value: Any, default: Fraction) -> Fraction:
    """A time base or rate of PyAV's as a Fraction, the default where it is not set.

    PyAV 19 gives numbers of its own, 0 or x/0 where a value is not set. Their products and quotients are rounded to
    32 bits, so that times computed with them drift. PyAV 18 gives a Fraction, or None.
    """
    return Fraction(value.numerator, value.denominator) if value else default


_IN_WORDS: dict[type[Exception], str] = {
    av.error.InvalidDataError: "its data is damaged, or of a kind that FFmpeg does not know",
    av.error.EOFError: "it ends too early",
    av.error.DecoderNotFoundError: "FFmpeg has no decoder for it",
    av.error.PatchWelcomeError: "it is of a kind that FFmpeg does not know yet",
    av.error.ExternalError: "a library that FFmpeg uses fails",
    av.error.BugError: "FFmpeg fails",
    av.error.UnknownError: "FFmpeg fails",
}


def in_words(error: Exception) -> str:
    """What went wrong, as the end of a sentence: without FFmpeg's codes and phrases, and without the path.

    >>> in_words(PermissionError(13, "Permission denied", "a.mp4"))
    'permission denied'
    """
    for kind, words in _IN_WORDS.items():
        if isinstance(error, kind):
            return words
    if getattr(error, "errno", None) == errno.EIO:
        return "it is cut off, or the disk cannot be read"
    told = (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
    return told[:1].lower() + told[1:]


def why_unread(error: Exception) -> str:
    """As `in_words`, for a file that was to be read: FFmpeg calls one that it may not open an invalid argument."""
    if isinstance(error, av.error.ArgumentError):
        return "it is of a kind that is not read here, or damaged"
    return in_words(error)


def lasting(stream: Template) -> Template:
    """The parameters of a container's stream, to be a template of further ones and to decode its packets by, good for
    as long as they are held: a stream itself is memory of its container, and gone once that is closed.
    """
    # An output that is never written to keeps them; `null` is one of FFmpeg's that take every codec.
    return av.open(io.BytesIO(), "w", format="null").add_stream_from_template(stream, opaque=True)
