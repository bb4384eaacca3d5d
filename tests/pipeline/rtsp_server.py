"""A real RTSP server, GStreamer's, in a process of its own that the tests kill, freeze and thaw.

It sends what was encoded before, access unit by access unit at the clip's own rate and in an endless loop, so that a
dozen cameras cost next to no CPU. The lower half of this file runs under Debian's own Python, which has GStreamer's
bindings; the upper half is what tests use.

    with RtspServer({"/cam": Mount(clip)}) as server:
        Camera("cam", server.url("/cam"))
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

SYSTEM_PYTHON = Path("/usr/bin/python3")
_HEADER = struct.Struct("<IBqd")  # bytes, key frame, pts − dts in ns, seconds a frame


def missing() -> str:
    """Why the server cannot run here, or an empty string."""
    if not SYSTEM_PYTHON.exists():
        return "no system Python with GStreamer's bindings"
    probe = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    found = subprocess.run([SYSTEM_PYTHON, "-c", probe], capture_output=True, check=False)
    return "" if found.returncode == 0 else "GStreamer's RTSP server is not installed (gir1.2-gst-rtsp-server-1.0)"


def write_units(clip: Path, target: Path, rate: float | None = None) -> Path:
    """The access units of an H.264 clip, for a `Mount`, at the clip's own or another rate."""
    import av
    from av.bitstream import BitStreamFilterContext

    with av.open(str(clip)) as container, target.open("wb") as out:
        video = container.streams.video[0]
        filtered = BitStreamFilterContext("h264_mp4toannexb", video)
        assert video.time_base is not None
        assert video.average_rate is not None
        for packet in container.demux(video):
            if packet.size == 0:
                continue
            for unit in filtered.filter(packet):
                shift = 0 if unit.pts is None or unit.dts is None else unit.pts - unit.dts
                data = bytes(unit)
                shift_ns = round(shift * video.time_base * 1_000_000_000)
                out.write(
                    _HEADER.pack(len(data), unit.is_keyframe, shift_ns, 1 / (rate or float(video.average_rate))) + data
                )
    return target


def free_port() -> int:
    """A TCP port that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Mount:
    """One camera of the server.

    `units` is a file of `write_units`, or `undecodable` for one whose pictures no FFmpeg can decode, or `sound` for one
    without pictures. With a `password` it wants user `viewer`. `log` is a file that gets a line `number monotonic-ns`
    for every access unit sent.
    """

    units: Path | str
    password: str = ""
    log: Path | None = None


class RtspServer:
    """The server process. It listens on loopback at a port that stays the same over `kill` and `start`."""

    def __init__(self, mounts: dict[str, Mount]) -> None:
        self.mounts, self.port = mounts, free_port()
        self._process: subprocess.Popen[str] | None = None

    def url(self, path: str, user: str = "", password: str = "") -> str:
        secret = f"{user}:{password}@" if user else ""
        return f"rtsp://{secret}127.0.0.1:{self.port}{path}"

    def start(self) -> None:
        """Start it and wait until it listens."""
        mounts = {path: asdict(mount) for path, mount in self.mounts.items()}
        self._process = subprocess.Popen(
            [SYSTEM_PYTHON, __file__, str(self.port), json.dumps(mounts, default=str)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.strip() == "ready", f"the RTSP server did not start: {line!r}"

    def kill(self) -> None:
        """Kill it where it stands, as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None

    def freeze(self) -> None:
        """Silent, but its connections stay open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def read_units(path: Path) -> list[tuple[bytes, int, float]]:
    """Access units, pts − dts in ns and seconds a frame."""
    data, at, units = path.read_bytes(), 0, []
    while at < len(data):
        size, _, shift, period = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        units.append((data[at : at + size], shift, period))
        at += size
    return units


# The server process, under the system's Python ------------------------------------------------------------------------
def serve(port: int, mounts: dict[str, dict[str, str]]) -> None:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=str(port))
    auth = GstRtspServer.RTSPAuth()
    anyone = GstRtspServer.RTSPToken()
    anyone.set_string("media.factory.role", "anyone")
    auth.set_default_token(anyone)

    for path, mount in mounts.items():
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_shared(True)
        factory.set_latency(0)
        permissions = GstRtspServer.RTSPPermissions()
        role = "anyone"
        if mount["password"]:
            role = "viewer"
            token = GstRtspServer.RTSPToken()
            token.set_string("media.factory.role", role)
            auth.add_basic(GstRtspServer.RTSPAuth.make_basic("viewer", mount["password"]), token)
            permissions.add_permission_for_role("anyone", "media.factory.access", True)
            permissions.add_permission_for_role("anyone", "media.factory.construct", False)
        permissions.add_permission_for_role(role, "media.factory.access", True)
        permissions.add_permission_for_role(role, "media.factory.construct", True)
        factory.set_permissions(permissions)
        if mount["units"] == "undecodable":
            # Pictures under a name that no decoder knows.
            name = "application/x-rtp,media=video,clock-rate=90000,payload=96,encoding-name=MYSTERY"
            factory.set_launch(
                "( videotestsrc is-live=true ! video/x-raw,width=160,height=96,framerate=10/1 ! vp8enc ! rtpvp8pay "
                f'pt=96 ! capssetter caps="{name}" join=false replace=true name=pay0 )'
            )
        elif mount["units"] == "sound":
            factory.set_launch("( audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay0 )")
        else:
            factory.set_launch(
                "( appsrc name=units is-live=true format=time block=false max-buffers=4 leaky-type=downstream "
                "caps=video/x-h264,stream-format=byte-stream,alignment=au ! rtph264pay config-interval=-1 name=pay0 )"
            )
            factory.connect("media-configure", _configure, Gst, Path(mount["units"]), mount["log"])
        server.get_mount_points().add_factory(path, factory)
    server.set_auth(auth)
    if server.attach(None) == 0:
        raise SystemExit(f"port {port} cannot be bound")
    # It ends with whoever started it, however that ended.
    threading.Thread(target=lambda: os._exit(bool(sys.stdin.read())), daemon=True).start()
    print("ready", flush=True)
    GLib.MainLoop().run()


def _configure(_factory, media, gst, units: Path, log: str | None) -> None:  # type: ignore[no-untyped-def]  # GObjects
    source = media.get_element().get_child_by_name("units")
    over = threading.Event()
    media.connect("unprepared", lambda _media: over.set())
    threading.Thread(target=_send, args=(source, gst, read_units(units), log, over), daemon=True).start()


def _send(source, gst, units, log: str | None, over: threading.Event) -> None:
    number, due = 0, time.monotonic()
    with open(log or os.devnull, "w", buffering=1) as sent:  # noqa: PTH123  # a name of no file is allowed
        while not over.is_set():
            data, shift, period = units[number % len(units)]
            clock = source.get_clock()
            if clock is not None:
                buffer = gst.Buffer.new_wrapped(data)
                buffer.dts = max(0, clock.get_time() - source.get_base_time())
                buffer.pts = buffer.dts + shift
                buffer.duration = int(period * 1e9)
                sent.write(f"{number} {time.monotonic_ns()}\n")
                if source.emit("push-buffer", buffer) != gst.FlowReturn.OK:
                    return
                number += 1
            due = max(due + period, time.monotonic())
            over.wait(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    serve(int(sys.argv[1]), json.loads(sys.argv[2]))
