"""A camera's packets as they came, for whoever keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from av.packet import Packet

from pipeline.packets import CompressedPacket, PacketTap, Track
from pipeline.sources.timeline import Timeline


def show(
    tap: PacketTap | None,
    line: Timeline | None,
    packet: Packet[Any],
    tracks: Mapping[int, Track],
    arrived: float,
    captured: float,
) -> None:
    """Show a packet to whoever wants all of them; nobody can place one without a time, or ahead of the first picture.

    Args:
        tap: who wants them; None for nobody.
        line: the stream's timeline; None before the first picture.
        packet: the packet.
        tracks: what they belong to, by index.
        arrived: monotonic seconds.
        captured: Unix seconds.
    """
    track = tracks.get(packet.stream_index)
    if tap is None or track is None or line is None or packet.pts is None:
        return
    pts = line.place_packet(packet.pts, packet.time_base)
    dts = None if packet.dts is None else packet.dts + pts - packet.pts
    key = packet.is_keyframe
    tap(CompressedPacket(track, bytes(packet), pts, dts, packet.duration or 0, key, arrived, captured))
