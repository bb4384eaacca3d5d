"""Each way in which a source does not come has a cause, and a sentence with what to do about it that is true."""

from __future__ import annotations

import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import av
import pytest

from engines.errors import SourceError
from pipeline.sources.live.address import LiveOptions, live_input
from pipeline.sources.live.camera import Camera
from pipeline.sources.live.connection import Reconnect
from pipeline.sources.live.inquiry import _credentials
from pipeline.sources.resolve import resolve_source
from pipeline.state import SourceState, StateChange
from tests.footage import write_clip
from tests.pipeline.rtp import Footage
from tests.pipeline.rtsp_camera import RtspCamera

LONG = 60.0


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("causes") / "clip.mp4"
    write_clip(path, frames=50, size=(160, 96), gop=10)
    return path


@pytest.fixture(scope="module")
def footage(clip: Path) -> Footage:
    return Footage.of(clip)


def refusal(address: str, **options: Any) -> tuple[str, str]:
    """Cause and sentence of a source that does not open."""
    changes: list[StateChange] = []
    options = {"open_timeout": LONG, "read_timeout": LONG, **options}
    with Camera("cam", address, LiveOptions(**options), observe=changes.append) as source:
        with pytest.raises(SourceError) as caught:
            source.open()
        assert changes[-1].state is SourceState.FAILED
        assert changes[-1].reason == str(caught.value)
        assert "\n" not in changes[-1].reason
        assert "sesame" not in changes[-1].reason
        return changes[-1].cause, changes[-1].reason


def opens(address: str, **options: Any) -> bool:
    options = {"open_timeout": LONG, "read_timeout": LONG, "latency_bound": LONG, **options}
    with Camera("cam", address, LiveOptions(**options)) as source:
        return source.open().width == 160


# RTSP -----------------------------------------------------------------------------------------------------------------
METHODS = ("OPTIONS", "DESCRIBE", "SETUP", "PLAY")
Case = tuple[dict[str, Any], dict[str, Any], str, str]
SAYS_NO: dict[str, Case] = {
    **{f"frozen at {m}": ({"freeze": m}, {"open_timeout": 0.5}, "timeout", r"no answer .* 0\.5 s") for m in METHODS},
    **{f"closed at {m}": ({"close": m}, {}, "ended", rf"closes the connection at {m}; look at") for m in METHODS},
    "UDP only": ({"transports": ("udp",)}, {}, "unsupported", r"not send by TCP \(461\); set live: {transport: udp}"),
    "TCP only": (
        {"transports": ("tcp",)}, {"transport": "udp"}, "unsupported", r"by UDP \(461\); set live: {transport: tcp}",
    ),
    "full": ({"most_clients": 0}, {}, "refused", r"serves no more viewers \(453\); close one, raise its limit"),
    "redirected to itself": ({"redirect": "self"}, {}, "refused", r"round in a circle; mend its redirects"),
    "redirected to a page": ({"redirect": "http://h/?token=sesame"}, {}, "refused", r"to http://h/\?token=\*{3}, wh"),
    "redirected nowhere": ({"status": {"DESCRIBE": 302}}, {}, "refused", r"sends its readers on to nowhere"),
    "bad request": ({"status": {"DESCRIBE": 400}}, {}, "refused", r"the server refuses \(DESCRIBE: 400 Bad Request\)"),
    "forbidden": ({"status": {"DESCRIBE": 403}}, {}, "unauthorized", r"forbidden to strangers \(403\); give a user"),
    "missing": ({"status": {"DESCRIBE": 404}}, {}, "not_found", r"the server answers, but has no such stream"),
    "no session": ({"status": {"PLAY": 454}}, {}, "refused", r"refuses \(PLAY: 454 Session Not Found\)"),
    "broken": ({"status": {"SETUP": 500}}, {}, "refused", r"error of its own \(SETUP: 500 Internal Server Error\)"),
    "busy": ({"status": {"PLAY": 503}}, {}, "refused", r"error of its own \(PLAY: 503 Service Unavailable\)"),
    "escapes": (
        {"answer": lambda *_: b"RTSP/1.0 455 \x1b[2Jgone\r\n\r\n"}, {}, "refused", r"\(DESCRIBE: 455 \[2Jgone\)",
    ),
    "strangers": ({"auth": "digest"}, {}, "unauthorized", r"wants a user and a password"),
}  # fmt: skip


@pytest.mark.seconds
@pytest.mark.parametrize("case", SAYS_NO)
def test_a_camera_that_says_no_is_understood(footage: Footage, case: str) -> None:
    faults, options, cause, says = SAYS_NO[case]
    with RtspCamera(footage, **faults) as camera:
        found, sentence = refusal(camera.url(), **options)
        assert (found, bool(re.search(says, sentence))) == (cause, True), sentence
        assert len(camera.requests) < 12


@pytest.mark.parametrize(
    ("auth", "password", "says"),
    [
        ("basic", "wrong-sesame", r"does not accept this user and password$"),
        ("digest", "wrong-sesame", r"does not accept this user and password$"),
        ("digest", "50%25-sesame", r"does not accept this user and password; in it, write % as %25$"),
        ("digest-sha256", "open-sesame", r"asks for the password by SHA-256, .* allow MD5 \(or Basic\)"),
    ],
)
def test_a_password_that_is_not_taken_is_tried_once(footage: Footage, auth: str, password: str, says: str) -> None:
    with RtspCamera(footage, auth=auth) as camera:
        cause, sentence = refusal(camera.url(user="viewer", password=password))
        assert (cause, bool(re.search(says, sentence))) == ("unauthorized", True), sentence
        assert camera.requests.count("DESCRIBE") == 3  # without it, with it, and once more without


@pytest.mark.parametrize("auth", ["basic", "digest"])
def test_a_known_viewer_is_told_why_not(footage: Footage, auth: str) -> None:
    with RtspCamera(footage, auth=auth, most_clients=0) as camera:
        assert refusal(camera.url(user="viewer", password="open-sesame"))[0] == "refused"


@pytest.mark.seconds
def test_the_remedies_help(footage: Footage) -> None:
    with RtspCamera(footage, transports=("udp",)) as camera:
        assert opens(camera.url(), transport="udp")
    awkward = "/#?@:% sesame"
    with RtspCamera(footage, auth="digest", password=awkward) as camera:
        assert opens(camera.url(user="viewer", password=quote(awkward, safe="")))


def test_a_redirect_is_followed_and_takes_the_password_along_to_the_same_host(footage: Footage) -> None:
    with RtspCamera(footage, auth="digest") as there, RtspCamera(footage, redirect=there.url("/moved")) as here:
        assert opens(here.url(user="viewer", password="open-sesame"))
        assert here.requests.count("DESCRIBE") == 2
    with RtspCamera(footage, auth="digest") as there:
        elsewhere = there.url().replace("127.0.0.1", "127.0.0.2")
        with RtspCamera(footage, redirect=elsewhere) as here, socket.create_server(("127.0.0.2", there.port)) as other:
            heard: list[bytes] = []
            threading.Thread(target=_hear, args=(other, heard), daemon=True).start()
            refusal(here.url(user="viewer", password="open-sesame"))
            assert heard
            assert not any(b"Authorization" in text for text in heard)


def _hear(listening: socket.socket, heard: list[bytes]) -> None:
    with suppress(OSError):
        while True:
            peer, _ = listening.accept()
            with peer:
                heard.append(peer.recv(4096))


def test_a_stream_that_comes_back_is_asked_for_every_second(footage: Footage) -> None:
    """A missing stream, and one that freezes, are published again at any moment."""
    changes: list[StateChange] = []
    reconnect = Reconnect(at_start="wait", first=0.01, longest=0.05)

    def answer(method: str, _address: str, headers: dict[str, str]) -> bytes | None:
        missing = method == "DESCRIBE" and camera.requests.count(method) < 12
        return f"RTSP/1.0 404 Not Found\r\nCSeq: {headers['cseq']}\r\n\r\n".encode() if missing else None

    with RtspCamera(footage, answer=answer) as camera:
        options = LiveOptions(open_timeout=LONG, read_timeout=LONG, latency_bound=LONG, reconnect=reconnect)
        with Camera("cam", camera.url(), options, observe=changes.append) as source:
            source.open()
    waits = [change for change in changes if change.state is SourceState.BACKING_OFF]
    assert len(waits) == 11
    assert {change.cause for change in waits} == {"not_found"}
    assert max(change.retry_in or 0 for change in waits) <= 0.05


def test_digest_is_that_of_the_rfc(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 2617, 3.5."""
    monkeypatch.setattr(secrets, "token_hex", lambda _bytes: "0a4f113b")
    challenge = (
        'Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
        'opaque="5ccc069c403ebaf9f0171e9517f40e41"'
    )
    header = _credentials(challenge, "Mufasa", "Circle Of Life", "GET", "/dir/index.html")
    assert 'response="6629fae49393a05397450978507c4ef1"' in header
    assert 'opaque="5ccc069c403ebaf9f0171e9517f40e41"' in header


# Addresses ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("secret", "says"),
    [
        ("user:se/same", "write / as %2F"),
        ("user:se#sa?me", "write # as %23 and ? as %3F"),
    ],
)
def test_a_password_that_ends_the_host_is_refused_with_how_it_is_written(secret: str, says: str) -> None:
    with pytest.raises(SourceError) as caught:
        resolve_source(f"rtsp://{secret}@10.0.0.7/live", "cam")
    assert str(caught.value) == f"rtsp://10.0.0.7/live: in a user or password {says}"


def test_a_password_that_looks_like_a_port_gets_the_hint() -> None:
    cause, sentence = refusal("rtsp://no-such-host.invalid:12/34@10.0.0.7/live")
    assert (cause, "write / as %2F" in sentence) == ("unreachable", True), sentence


def test_a_description_of_an_rtp_session_is_a_live_source(clip: Path, tmp_path: Path) -> None:
    cause, sentence = refusal(str(tmp_path / "none.sdp"))
    assert (cause, "there is no file" in sentence) == ("not_found", True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1] & ~1
    stop = threading.Event()
    sending = threading.Thread(target=_send_rtp, args=(clip, port, tmp_path / "cam.sdp", stop), daemon=True)
    sending.start()
    try:
        while not (tmp_path / "cam.sdp").exists():
            assert sending.is_alive()
        assert opens(str(tmp_path / "cam.sdp"))
    finally:
        stop.set()
        sending.join()


def _send_rtp(clip: Path, port: int, description: Path, stop: threading.Event) -> None:
    with av.open(str(clip)) as source, av.open(f"rtp://127.0.0.1:{port}", "w", format="rtp") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        out.start_encoding()
        parameters = source.streams.video[0].codec_context.extradata
        assert parameters
        description.with_suffix(".new").write_text(
            f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=cam\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
            "a=rtpmap:96 H264/90000\n"
        )
        description.with_suffix(".new").rename(description)
        packets = [packet for packet in source.demux(video=0) if packet.dts is not None]
        offset = 0
        while not stop.is_set():
            for packet in packets:
                again = av.Packet(
                    parameters_in_band(bytes(packet), parameters) if packet.is_keyframe else bytes(packet)
                )
                again.pts, again.dts, again.time_base = packet.pts + offset, packet.dts + offset, packet.time_base
                again.is_keyframe, again.stream = packet.is_keyframe, stream
                out.mux(again)
                if stop.wait(0.02):
                    return
            offset += sum(packet.duration or 0 for packet in packets)


def parameters_in_band(picture: bytes, extradata: bytes) -> bytes:
    """An AVC picture with the parameter sets of `avcC` (ISO 14496-15, 5.3.3.1) before it, four-byte lengths."""
    sets, place = b"", 6
    for _ in range(extradata[5] & 31):
        size = int.from_bytes(extradata[place : place + 2], "big")
        sets += size.to_bytes(4, "big") + extradata[place + 2 : place + 2 + size]
        place += 2 + size
    count, place = extradata[place], place + 1
    for _ in range(count):
        size = int.from_bytes(extradata[place : place + 2], "big")
        sets += size.to_bytes(4, "big") + extradata[place + 2 : place + 2 + size]
        place += 2 + size
    return sets + picture


# HTTP -----------------------------------------------------------------------------------------------------------------
@contextmanager
def http_server(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Status(BaseHTTPRequestHandler):
    """Answers with the status that the path begins with; 302 leads to itself."""

    def do_GET(self) -> None:
        self.send_response(int(self.path[1:4]))
        if self.path.startswith("/302"):
            self.send_header("Location", self.path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.seconds
@pytest.mark.parametrize(
    ("path", "cause", "says"),
    [
        ("/302", "refused", "round in a circle"),
        ("/302.m3u8", "refused", "round in a circle"),
        ("/401", "unauthorized", "wants a user and a password"),
        ("/403", "unauthorized", r"forbidden to strangers \(403\)"),
        ("/404", "not_found", "has no such stream"),
        ("/410", "not_found", "has no such stream"),
        ("/418", "refused", r"the server refuses \(GET: 418 I'm a Teapot\)"),
        ("/503", "refused", r"error of its own \(GET: 503 Service Unavailable\)"),
    ],
)
def test_a_web_server_that_says_no_is_understood(path: str, cause: str, says: str) -> None:
    with http_server(_Status) as server:
        found, sentence = refusal(server + path)
        assert (found, bool(re.search(says, sentence))) == (cause, True), sentence


def test_a_port_of_another_protocol_is_said() -> None:
    with http_server(_Status) as server:
        cause, sentence = refusal(server.replace("http", "rtsp") + "/200")
        assert (cause, "does not speak RTSP: something else listens" in sentence) == ("refused", True), sentence


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_segments_of_odd_names_are_said_with_the_remedy(clip: Path, tmp_path: Path) -> None:
    with av.open(str(clip)) as source, av.open(str(tmp_path / "segment.bin"), "w", format="mpegts") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    (tmp_path / "live.m3u8").write_text(
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:3\n#EXTINF:2,\nsegment.bin\n#EXT-X-ENDLIST\n"
    )
    with http_server(partial(_Quiet, directory=str(tmp_path))) as server:
        cause, sentence = refusal(f"{server}/live.m3u8")
        assert cause == "unsupported"
        assert "names its segments as FFmpeg expects of no video" in sentence
        (remedy,) = re.findall(r"live: {ffmpeg: {(.*)}}$", sentence)
        assert opens(f"{server}/live.m3u8", ffmpeg=dict(each.split(": ") for each in remedy.split(", ")))


def test_nothing_from_the_network_names_a_file_of_this_machine() -> None:
    allowed = live_input("http://h/live.m3u8", LiveOptions()).options["protocol_whitelist"]
    assert not {"file", "rtsp", "concat", "subfile"} & set(allowed.split(","))
