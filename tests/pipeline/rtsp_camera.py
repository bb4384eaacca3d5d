"""A scriptable RTSP camera in Python (RFC 2326): it sends what was encoded before, and every fault of it is an option.

    with RtspCamera(Footage.of(clip), freeze="SETUP") as camera:
        Camera("cam", camera.url())

Real servers stand beside it: `tests.pipeline.rtsp_server` (GStreamer's), and FFmpeg's command.
"""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, Self

from tests.pipeline.listener import Listener
from tests.pipeline.rtp import PICTURE_CLOCK, Footage, Sound, goodbye, packet, sender_report
from tests.pipeline.script import Planned, Script, Sent, planned, wait

Auth = Literal["", "basic", "digest", "digest-sha256"]
_REALM, _NONCE = "camera", "5ca1ab1e"


@dataclass(kw_only=True)
class Options(Script):
    """What a camera does: its pictures and their clocks (`Script`), its other tracks, and the conversation.

    All may be changed while it runs; a connection looks at them when it comes to that point. Methods are OPTIONS,
    DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN.

    Attributes:
        announced: `a=framerate` of the description, or None.
        sound: `pcmu`, `pcma`, `g726`, `aac`, or none of it.
        reports: seconds between RTCP sender reports; None for none.
        ntp: the camera's wall clock in a report, from the right one (Unix seconds).
        freeze: method that is never answered, `accept` for all of them.
        close: method at which the connection is closed without an answer.
        status: statuses by method, such as `{"DESCRIBE": 404}`.
        answer: the raw answer to a method (method, address, headers), or None for the usual one.
        transports: `tcp`, `udp`; SETUP of another is answered 461.
        auth, user, password: what it wants to see from DESCRIBE on; `digest` is MD5.
        redirect: where DESCRIBE is sent on to (302); `self` for its own address.
        most_clients: PLAYs at a time beyond which SETUP is answered 453.
    """

    announced: float | None = None
    sound: Literal["", "pcmu", "pcma", "g726", "aac"] = ""
    reports: float | None = None
    ntp: Callable[[float], float] = lambda unix: unix
    freeze: str = ""
    close: str = ""
    status: dict[str, int] = field(default_factory=dict)
    answer: Callable[[str, str, dict[str, str]], bytes | None] = lambda _method, _address, _headers: None
    transports: tuple[str, ...] = ("tcp", "udp")
    auth: Auth = ""
    user: str = "viewer"
    password: str = "open-sesame"
    redirect: str = ""
    most_clients: int | None = None


class RtspCamera:
    """Listens on loopback.

    Args:
        footage: what it sends.
        options: fields of `Options`.

    Attributes:
        options: what it does, to be changed.
        requests: methods that were asked, in order.
        connections: how many there were.
        sent: pictures that went out, in order.
        playing: PLAYs at the moment.
    """

    def __init__(self, footage: Footage, **options: object) -> None:
        self.footage, self.options = footage, Options(**options)  # type: ignore[arg-type]  # checked by the dataclass
        self.sound = Sound(self.options.sound) if self.options.sound else None
        self.requests: list[str] = []
        self.sent: list[Sent] = []
        self.playing = 0
        self._listener = Listener(self._talk)
        self.port, self.stopped = self._listener.port, self._listener.stopped
        self._open: set[socket.socket] = set()

    def url(self, path: str = "/live", user: str = "", password: str = "") -> str:
        secret = f"{user}:{password}@" if user else ""
        return f"rtsp://{secret}127.0.0.1:{self.port}{path}"

    @property
    def connections(self) -> int:
        return self._listener.connections

    @property
    def whole(self) -> list[Sent]:
        """Pictures that went out without a loss."""
        return [one for one in self.sent if not one.lost]

    def cut(self) -> None:
        """Close all connections; new ones are taken."""
        for peer in list(self._open):
            with suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)

    def _talk(self, peer: socket.socket, number: int) -> None:
        self._open.add(peer)
        conversation = _Conversation(self, peer, number)
        try:
            with suppress(OSError, ValueError):
                conversation.run()
        finally:
            conversation.over.set()
            self._open.discard(peer)
            with suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            peer.close()

    def __enter__(self) -> Self:
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.stop()
        self.cut()


class _Conversation:
    """One connection: requests and answers."""

    def __init__(self, camera: RtspCamera, peer: socket.socket, number: int) -> None:
        self.camera, self.peer, self.number = camera, peer, number
        self.over = threading.Event()
        self.tracks: dict[str, _Track] = {}
        self._write = threading.Lock()
        self._played = False

    def send(self, data: bytes) -> None:
        with self._write:
            self.peer.sendall(data)

    def run(self) -> None:
        options = self.camera.options
        file = self.peer.makefile("rb")
        while first := file.read(1):
            if first == b"$":  # receiver reports
                head = file.read(3)
                file.read(int.from_bytes(head[1:], "big"))
                continue
            line = (first + file.readline()).decode("latin-1").strip()
            if not line:
                continue
            headers = {}
            while (text := file.readline().decode("latin-1").strip()) != "":
                name, _, value = text.partition(":")
                headers[name.strip().lower()] = value.strip()
            file.read(int(headers.get("content-length", 0)))
            method, address, _ = line.split(" ", 2)
            self.camera.requests.append(method)
            if options.freeze in {method, "accept"}:
                self.camera.stopped.wait()
                return
            if options.close == method:
                return
            raw = options.answer(method, address, headers)
            self.send(raw if raw is not None else self._answer(method, address, headers))
            if method == "PLAY" and self.tracks and not self._played:
                self._played = True
                threading.Thread(target=_Sending(self).run, daemon=True).start()
            if method == "TEARDOWN":
                return

    def _answer(self, method: str, address: str, headers: dict[str, str]) -> bytes:
        options, cseq = self.camera.options, headers.get("cseq", "0")
        if method in options.status:
            return _reply(cseq, options.status[method])
        if method == "OPTIONS":
            return _reply(cseq, 200, Public="OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN")
        if method == "DESCRIBE" and options.redirect:
            return _reply(cseq, 302, Location=address if options.redirect == "self" else options.redirect)
        if options.auth and not _knows(options, method, headers.get("authorization", "")):
            challenge = {
                "basic": f'Basic realm="{_REALM}"',
                "digest": f'Digest realm="{_REALM}", nonce="{_NONCE}"',
                "digest-sha256": f'Digest realm="{_REALM}", nonce="{_NONCE}", algorithm=SHA-256',
            }[options.auth]
            return _reply(cseq, 401, **{"WWW-Authenticate": challenge})
        if method == "DESCRIBE":
            body = self._description()
            base = address.rstrip("/") + "/"
            return _reply(cseq, 200, body, **{"Content-Base": base, "Content-Type": "application/sdp"})
        if method == "SETUP":
            return self._set_up(cseq, address, headers["transport"])
        return _reply(cseq, 200, Session="1")

    def _description(self) -> bytes:
        options, camera = self.camera.options, self.camera
        text = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\na=control:*\r\n"
        text += camera.footage.description(options.sets in {"both", "sdp"})
        if options.announced is not None:
            text += f"a=framerate:{options.announced:g}\r\n"
        return (text + (camera.sound.description() if camera.sound else "")).encode()

    def _set_up(self, cseq: str, address: str, wanted: str) -> bytes:
        options = self.camera.options
        kind = "tcp" if "TCP" in wanted else "udp"
        if kind not in options.transports:
            return _reply(cseq, 461)
        if options.most_clients is not None and self.camera.playing >= options.most_clients:
            return _reply(cseq, 453)
        name = address.rstrip("/").rpartition("/")[2]
        numbers = [int(n) for n in re.findall(r"(?:interleaved|client_port)=(\d+)-(\d+)", wanted)[0]]
        track = _Track(self, numbers, udp=kind == "udp", source=0xCA0 + len(self.tracks))
        self.tracks[name] = track
        return _reply(cseq, 200, Session="1", Transport=track.transport)


class _Track:
    """Where the packets of a track go."""

    def __init__(self, conversation: _Conversation, numbers: list[int], udp: bool, source: int) -> None:
        self._conversation, self._numbers, self.source = conversation, numbers, source
        self._sockets: list[socket.socket] = []
        self.number = self.size = 0
        if udp:
            for _ in range(2):
                one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                one.bind(("127.0.0.1", 0))
                self._sockets.append(one)
            ports = "-".join(str(one.getsockname()[1]) for one in self._sockets)
            own = f"client_port={numbers[0]}-{numbers[1]};server_port={ports}"
            self.transport = f"RTP/AVP;unicast;{own};ssrc={source:08X}"
        else:
            self.transport = f"RTP/AVP/TCP;unicast;interleaved={numbers[0]}-{numbers[1]};ssrc={source:08X}"

    def send(self, data: bytes, report: bool = False) -> None:
        if self._sockets:
            with suppress(ConnectionError):  # nobody listens there any more
                self._sockets[report].sendto(data, ("127.0.0.1", self._numbers[report]))
        else:
            self._conversation.send(b"$%c" % self._numbers[report] + len(data).to_bytes(2, "big") + data)

    def close(self) -> None:
        for one in self._sockets:
            one.close()


class _Sending:
    """What follows a PLAY."""

    def __init__(self, conversation: _Conversation) -> None:
        self._conversation, self._camera = conversation, conversation.camera
        self._pictures, self._sound = conversation.tracks.get("video"), conversation.tracks.get("sound")
        self._began = time.monotonic()

    def run(self) -> None:
        camera, options = self._camera, self._camera.options
        camera.playing += 1
        try:
            with suppress(OSError):
                self._send_all()
                if options.end == "silent":
                    self._conversation.over.wait()
                elif options.end == "bye" and not self._over(0.1 * options.slow):  # it must not overtake
                    for track in self._conversation.tracks.values():
                        track.send(goodbye(track.source), report=True)
                    self._conversation.over.wait(5)
        finally:
            camera.playing -= 1
            for track in self._conversation.tracks.values():
                track.close()
            with suppress(OSError):
                self._conversation.peer.shutdown(socket.SHUT_RDWR)

    def _send_all(self) -> None:
        camera, options = self._camera, self._camera.options
        reported, heard = 0.0, 0
        for picture in planned(options, camera.footage):
            while camera.sound is not None and self._sound is not None:
                piece = camera.sound.unit(heard)
                if piece.dts > picture.due or not wait(options, self._began, piece.dts, self._over):
                    break
                self._hear(camera.sound, piece.pts, camera.sound.payload(piece), heard)
                heard += 1
            if not wait(options, self._began, picture.due, self._over) or self._over(
                options.hold(picture.n) * options.slow
            ):
                return
            if options.reports is not None and picture.due >= reported:
                self._report(picture.due)
                reported = picture.due + options.reports
            self._show(picture)

    def _over(self, seconds: float) -> bool:
        """Wait so long; whether it is over."""
        return self._conversation.over.wait(seconds) or self._camera.stopped.is_set()

    def _stamp(self, seconds: float, clock: int) -> int:
        return 1_000_000 + round(seconds * clock)

    def _show(self, picture: Planned) -> None:
        camera, options, track = self._camera, self._camera.options, self._pictures
        if track is None:
            return
        stamp = self._stamp(picture.shown, PICTURE_CLOCK)
        payloads = camera.footage.payloads(picture.unit, options.sets in {"both", "band"})
        lost = 0
        for k, payload in enumerate(payloads):
            if options.lose(picture.n, k):
                lost += 1
            else:
                marker = k == len(payloads) - 1
                data = packet(camera.footage.payload_type, marker, track.number, stamp, track.source, payload)
                track.send(data)
                track.size += len(payload)
            track.number += 1
        went = len(payloads) - lost
        camera.sent.append(Sent(self._conversation.number, picture.n, picture.unit.key, went, lost, time.monotonic()))

    def _hear(self, sound: Sound, seconds: float, payload: bytes, number: int) -> None:
        track = self._sound
        assert track is not None
        stamp = self._stamp(self._camera.options.stamp(seconds), sound.clock)
        track.send(packet(sound.payload_type, number == 0, track.number, stamp, track.source, payload))
        track.number += 1
        track.size += len(payload)

    def _report(self, due: float) -> None:
        options = self._camera.options
        unix = options.ntp(time.time() - (time.monotonic() - self._began) * (1 - 1 / options.slow))
        sound = self._camera.sound
        clocks = ((self._pictures, PICTURE_CLOCK), (self._sound, sound.clock if sound else 8000))
        for track, clock in clocks:
            if track is not None:
                stamp = self._stamp(self._camera.options.stamp(due), clock)
                track.send(sender_report(track.source, unix, stamp, track.number, track.size), report=True)


# The conversation -----------------------------------------------------------------------------------------------------
_REASONS = {
    200: "OK", 301: "Moved Permanently", 302: "Found", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
    404: "Not Found", 451: "Parameter Not Understood", 453: "Not Enough Bandwidth", 454: "Session Not Found",
    461: "Unsupported Transport", 500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip


def _reply(cseq: str, status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"RTSP/1.0 {status} {_REASONS.get(status, 'No')}", f"CSeq: {cseq}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def _knows(options: Options, method: str, given: str) -> bool:
    """Whether the header `Authorization` shows the right user and password (RFC 7617, RFC 7616 without `qop`)."""
    if options.auth == "basic":
        import base64

        secret = base64.b64encode(f"{options.user}:{options.password}".encode()).decode()
        return given == f"Basic {secret}"
    fields = dict(re.findall(r'(\w+)="([^"]*)"', given))
    hashed = hashlib.sha256 if options.auth == "digest-sha256" else hashlib.md5

    def digest(text: str) -> str:
        return hashed(text.encode()).hexdigest()

    own = digest(f"{options.user}:{_REALM}:{options.password}")
    asked = digest(f"{method}:{fields.get('uri', '')}")
    wanted = digest(f"{own}:{_NONCE}:{asked}")
    return given.startswith("Digest ") and fields.get("response") == wanted
