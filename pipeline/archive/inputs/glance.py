"""A glance at a clip: when it was recorded, by its head alone."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av.error

from engines.containers import exact, open_container, picture_streams
from pipeline.sources.recording.length import seconds
from pipeline.sources.recording.when import beginning
from pipeline.sources.trips.makers import recorded_at


def span_of(path: Path) -> tuple[float, float] | None:
    """From when to when a clip was recorded, Unix seconds; None where neither it nor its name says."""
    try:
        with open_container(path) as container:
            video = picture_streams(container)[0]
            rate = exact(video.average_rate or video.guessed_rate, Fraction(25))
            length = seconds(container, video, rate, 0)
            tags = [container.metadata, *(stream.metadata for stream in container.streams)]
            recorded = beginning(path, tags, float(length or 0), recorded_at)
    except (av.error.FFmpegError, OSError, ValueError, IndexError):
        return None
    if recorded.by not in ("metadata", "name") or not length:
        return None
    return recorded.at, recorded.at + float(length)
