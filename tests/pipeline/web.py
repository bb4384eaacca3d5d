"""A web server with faults, and playlists that move on, for the tests: what it hands out, FFmpeg has made."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

PLAYLIST = "application/vnd.apple.mpegurl"
TYPES = {".m3u8": PLAYLIST, ".ts": "video/mp2t", ".mp4": "video/mp4", ".mkv": "video/x-matroska"}

Page = tuple[bytes, str] | None


@dataclass
class Server:
    """Serves the files of a folder, and pages that are made when they are asked for.

    Attributes:
        folder: its files.
        ranges: whether parts of a file are given.
        length: whether it says how long an answer is; otherwise it comes in chunks.
        head: whether `HEAD` is answered.
        cuts: bytes of a file after which the connection breaks, once each.
        gone: names that are answered with 404.
        pages: what is made for a path; None is 404.
        asked: method and path of every request, and the range.
    """

    folder: Path
    ranges: bool = True
    length: bool = True
    head: bool = True
    cuts: dict[str, int] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    pages: dict[str, Callable[[], Page]] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    def __enter__(self) -> Self:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self) -> None:
                with suppress(BrokenPipeError, ConnectionResetError):
                    super().handle()

            def do_GET(self) -> None:
                outer._answer(self, body=True)

            def do_HEAD(self) -> None:
                outer._answer(self, body=False)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/{path}"

    def _answer(self, to: Any, *, body: bool) -> None:
        path = urlsplit(to.path).path.lstrip("/")
        self.asked.append((to.command, path, to.headers.get("Range", "")))
        page: Page = None
        if path in self.pages:
            page = self.pages[path]()
        elif path not in self.gone and (self.folder / path).is_file():
            page = (self.folder / path).read_bytes(), TYPES.get(Path(path).suffix, "application/octet-stream")
        if to.command == "HEAD" and not self.head:
            return self._send(to, 405, b"", {}, body=False)
        if page is None:
            return self._send(to, 404, b"not here", {}, body)
        data, kind = page
        first, last, status, headers = 0, len(data) - 1, 200, {"Content-Type": kind}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", to.headers.get("Range", ""))
        if self.ranges:
            headers["Accept-Ranges"] = "bytes"
        if asked and self.ranges:
            first, last = int(asked[1]), min(int(asked[2] or last), last)
            if first > last:
                return self._send(to, 416, b"", {"Content-Range": f"bytes */{len(data)}"}, body)
            status, headers["Content-Range"] = 206, f"bytes {first}-{last}/{len(data)}"
        return self._send(to, status, data[first : last + 1], headers, body, self.cuts.pop(path, None))

    def _send(
        self, to: Any, status: int, data: bytes, headers: dict[str, str], body: bool, cut: int | None = None
    ) -> None:
        to.send_response(status)
        for name, value in headers.items():
            to.send_header(name, value)
        to.send_header(*(("Content-Length", str(len(data))) if self.length else ("Transfer-Encoding", "chunked")))
        to.end_headers()
        if not body:
            return
        if self.length:
            to.wfile.write(data[:cut])
        else:
            for at in range(0, len(data), 4096):
                chunk = data[at : at + 4096]
                to.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            to.wfile.write(b"0\r\n\r\n")
        if cut is not None:
            to.wfile.flush()
            to.close_connection = True


def segments(clip: Path, folder: Path, options: str = "") -> list[str]:
    """The clip as segments of a second each, MPEG-TS by FFmpeg: their names."""
    command = (
        f"ffmpeg -v error -nostdin -y -i {clip} -c copy -f segment -segment_time 1 -segment_format mpegts {options} "
        f"-mpegts_copyts 1 {folder}/%05d.ts"
    )
    before = set(folder.glob("*.ts"))
    subprocess.run(command.split(), check=True, timeout=60)
    return sorted(path.name for path in set(folder.glob("*.ts")) - before)


@dataclass
class Part:
    """A segment of a playlist: its file, and whether a discontinuity stands before it."""

    name: str
    discontinuity: bool = False


class Moving:
    """A playlist that gets a segment of a second each second, from the moment on at which it is first asked for.

    Its encoder waits for a client that has not come for more than two segments: on a machine that others load, what is
    lost is what a test wants lost.

    Args:
        parts: its segments, in order.
        window: how many of them it lists.
        anew: index of the part from which on the encoder is another one, which counts its segments from 0.
        ends: whether it says at its end that it is over; otherwise nothing is added any more.
        late: seconds that a part is published late, by index.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        window: int = 5,
        anew: int | None = None,
        ends: bool = False,
        late: dict[int, float] | None = None,
    ) -> None:
        self.parts, self.window, self.anew, self.ends, self.late = list(parts), window, anew, ends, late or {}
        self.began: float | None = None
        self.shown = 1
        self.waited = 0.0
        """Seconds for which the encoder waited."""

    def published(self) -> int:
        """How many parts there are by now; three at the start."""
        now = time.monotonic()
        self.began = self.began or now
        due = (n for n in range(len(self.parts)) if n - 2 + self.late.get(n, 0.0) <= now - self.began)
        there = max(due, default=0) + 1
        if there > (most := self.shown + 2):
            self.began += there - most
            self.waited += there - most
        return min(there, most)

    @property
    def over(self) -> bool:
        return self.published() == len(self.parts)

    def __call__(self) -> Page:
        there = self.shown = self.published()
        begin = 0 if self.anew is None or there <= self.anew else self.anew
        first = max(begin, there - self.window)
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", f"#EXT-X-MEDIA-SEQUENCE:{first - begin}"]
        for part in self.parts[first:there]:
            lines += ["#EXT-X-DISCONTINUITY"] * part.discontinuity + ["#EXTINF:1.000,", part.name]
        if self.ends and self.over:
            lines.append("#EXT-X-ENDLIST")
        return "\n".join([*lines, ""]).encode(), PLAYLIST
