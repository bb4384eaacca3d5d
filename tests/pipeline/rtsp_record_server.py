"""An RTSP server that takes pushes and serves them to viewers: GStreamer's, run by the system's Python.

Usage: /usr/bin/python3 rtsp_record_server.py PORT FOLDER — pushes to /push go to FOLDER/pushed.h264, byte streams that
FFmpeg's tools and GStreamer's open; it prints `ready`.
"""

from __future__ import annotations

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # versions come first

Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
factory.set_launch(
    f"( rtph264depay name=depay0 ! h264parse ! video/x-h264,stream-format=byte-stream ! "
    f"filesink buffer-mode=unbuffered location={sys.argv[2]}/pushed.h264 )"
)
server.get_mount_points().add_factory("/push", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
