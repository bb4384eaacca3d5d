"""Which footage a client of the API may name: cameras in the network and synthetic drives, but no file of this machine
unless its owner has named the folder that it is in.

A client is not the owner. A file that it could name would be shown to it as video, and what is said of one that is no
video would tell it which files there are. So the answer is one sentence, whatever there is at the path.
"""

from __future__ import annotations

import glob
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import parse_qsl

from pipeline.config import StreamConfig
from pipeline.serve.bodies import BodyError
from pipeline.sources.live.address import LIVE_SCHEMES, V4L2, LiveOptions
from pipeline.sources.synthetic import SCHEME

FORMATS = frozenset({
    "aac", "asf", "avi", "flv", "h264", "hevc", "hls", "ivf", "live_flv", "m4v", "matroska", "mjpeg", "mov", "mp4",
    "mpegts", "mpegvideo", "mpjpeg", "nut", "obu", "ogg", "rtsp",
})  # fmt: skip
"""Formats of what comes over a network. FFmpeg's others open devices, screens and lists of files."""

_MEGABYTES = 1 << 20

OPTIONS: dict[str, re.Pattern[str] | int] = {
    "allowed_media_types": re.compile(r"[a-z+-]{1,40}"),
    "analyzeduration": 60_000_000,
    "buffer_size": 64 * _MEGABYTES,
    "fflags": re.compile(r"[a-z_+-]{1,80}"),
    "flags": re.compile(r"[a-z0-9_+-]{1,80}"),
    "fpsprobesize": 1000,
    "framerate": re.compile(r"[0-9./]{1,20}"),
    "input_format": re.compile(r"[A-Za-z0-9_]{1,20}"),
    "max_delay": 60_000_000,
    "pixel_format": re.compile(r"[A-Za-z0-9_]{1,20}"),
    "probesize": 32 * _MEGABYTES,
    "referer": re.compile(r"[\x20-\x7e]{1,1000}"),
    "reorder_queue_size": 10_000,
    "rtsp_flags": re.compile(r"[+-]?(prefer_tcp|filter_src|satip_raw)"),
    "rtsp_transport": re.compile(r"(tcp|udp|udp_multicast|http|https)"),
    "user_agent": re.compile(r"[\x20-\x7e]{1,1000}"),
    "video_size": re.compile(r"[0-9]{2,4}x[0-9]{2,4}"),
}
"""Options of FFmpeg's input that a client may set, each with the text it may have or the largest number: they open
nothing, listen to nobody, lift no limit and put no line into a request. FFmpeg has hundreds, and more with every
release; whatever is not here is the owner's.
"""

LONGEST_SOURCE = 4096

SENTENCE = (
    "a client may give network addresses (rtsp, http, rtmp, srt, udp, tcp …; none that waits for somebody to connect) "
    "and synthetic: only; files and devices of "
    "the server's machine only in folders that its owner has named (--source-folder)"
)


def check_client_stream(config: StreamConfig, folders: Sequence[Path], before: StreamConfig | None = None) -> None:
    """Refuse what a client may not ask for.

    Args:
        config: what it asks for.
        folders: in which files and devices may be.
        before: the stream that is to be changed; what it is already, its owner or an earlier check has allowed.

    Raises:
        BodyError: the source, or an option of FFmpeg's.
    """
    old = LiveOptions() if before is None else before.live
    if (before is None or config.source != before.source) and not _allowed(config.source, folders):
        raise BodyError(["source"], SENTENCE)
    mask, known = config.ignore.mask, None if before is None else before.ignore.mask
    if mask is not None and mask != known and not _within(str(mask), folders):
        raise BodyError(["ignore", "mask"], SENTENCE)
    if config.live.format not in (None, old.format) and config.live.format not in FORMATS:
        raise BodyError(["live", "format"], f"a client may choose one of the formats {', '.join(sorted(FORMATS))}")
    for key, value in config.live.ffmpeg.items():
        if old.ffmpeg.get(key) != value:
            _check_option(key, value)


def _check_option(key: str, value: str) -> None:
    wanted = OPTIONS.get(key)
    if wanted is None:
        raise BodyError(["live", "ffmpeg", key], f"a client may set the options {', '.join(sorted(OPTIONS))} only")
    if isinstance(wanted, int):
        if not (re.fullmatch(r"[0-9]{1,12}", value) and int(value) <= wanted):
            raise BodyError(["live", "ffmpeg", key], f"a client may set {key} to a whole number up to {wanted}")
    elif wanted.fullmatch(value) is None:
        raise BodyError(["live", "ffmpeg", key], f"a client may set {key} to what matches {wanted.pattern} only")


def _allowed(address: str, folders: Sequence[Path]) -> bool:
    scheme = address.partition("://")[0].lower() if "://" in address else ""
    if len(address) > LONGEST_SOURCE or not address.isprintable():
        return False
    if address.startswith(SCHEME):
        return True
    if scheme in LIVE_SCHEMES:
        return not _listens(address)
    return not scheme and address != "-" and _within(address.removeprefix(V4L2), folders)


def _listens(address: str) -> bool:
    """Whether FFmpeg would wait for somebody to connect: a port of this machine that is open to all."""
    options = dict(parse_qsl(address.partition("?")[2].replace("?", "&"), keep_blank_values=True))
    return "listen" in options or options.get("mode", "caller") != "caller"


def _within(address: str, folders: Sequence[Path]) -> bool:
    """Whether a path, and every file that a folder or pattern stands for, is in one of the folders, links resolved."""
    if not folders:
        return False
    try:
        path = Path(address).expanduser()
        resolved = [folder.expanduser().resolve() for folder in folders]
        # Of a pattern the part ahead of the first sign of one is looked at first: nothing else is listed.
        plain = path
        while set("*?[") & set(str(plain)) and not plain.exists():
            plain = plain.parent
        return _all_in([plain], resolved) and _all_in(_meant(path), resolved)
    except (OSError, ValueError, RuntimeError):
        return False


def _meant(path: Path) -> Iterable[Path]:
    if path.is_dir():
        return path.iterdir()
    if path.exists() or not set("*?[") & set(str(path)):
        return [path]
    return [Path(found) for found in glob.glob(str(path))]  # noqa: PTH207  # pathlib globs only below a folder


def _all_in(paths: Iterable[Path], folders: Sequence[Path]) -> bool:
    return all(
        any(path.resolve().is_relative_to(folder) for folder in folders) and not (_is_door(path) or _names_others(path))
        for path in paths
    )


def _is_door(path: Path) -> bool:
    """Whether there is something that may never give a byte, or leads to another program: a pipe or a socket."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISCHR(mode))


def _names_others(path: Path) -> bool:
    """Whether a file is a playlist, a description of a session or a list of files: FFmpeg would open what it names."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return head.startswith(_LISTS)


_LISTS = (b"#extm3u", b"ffconcat", b"<", b"v=0", b"#", b"[")
"""How HLS, FFmpeg's concat, DASH and IMF (XML), SDP and other lists begin; no container of video does."""
