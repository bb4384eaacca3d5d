"""The shipped model on real dash-cam footage, through the command."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest

from tests.pipeline.conftest import ROOT, json_lines

FOOTAGE = ROOT.parent / "shared" / "data" / "footage"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.realdata,
    pytest.mark.skipif(not FOOTAGE.is_dir(), reason="needs the real footage beside the checkout"),
]


def tracks(path: Path) -> dict[str, list[Fraction]]:
    """Times of every decoded picture and every sound packet."""
    with av.open(str(path)) as container:
        pictures = [f.pts * f.time_base for f in container.decode(video=0)]
    with av.open(str(path)) as container:
        sound = [p.pts * p.time_base for p in container.demux(audio=0) if p.pts is not None]
    return {"pictures": pictures, "sound": sound}


@pytest.mark.parametrize(
    "name",
    [
        "highway_1280x720_25fps_h264_4s.mp4",
        "highway_960x540_25fps_h264_9s.mp4",
        "carpark_fixed_768x432_12fps_h264_30s.mp4",
    ],
)
def test_video_keeps_frames_times_size_and_sound(
    roadlens: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, name: str
) -> None:
    footage = FOOTAGE / name
    done = roadlens("run", footage, "-o", "out.mp4", "--jsonl", "out.jsonl", "--preset", "ultrafast")
    assert done.returncode == 0, done.stderr
    assert tracks(tmp_path / "out.mp4") == tracks(footage)
    with av.open(str(tmp_path / "out.mp4")) as out, av.open(str(footage)) as original:
        a, b = out.streams.video[0], original.streams.video[0]
        assert (a.width, a.height) == (b.width, b.height)
    lines = json_lines(tmp_path / "out.jsonl")
    if name.startswith("highway"):
        median = {
            n: statistics.median(line["area"].get(n, 0.0) for line in lines) for n in ("road", "sky", "vegetation")
        }
        assert 0.15 < median["road"] < 0.6, json.dumps(median)
        assert 0.05 < median["sky"] < 0.6, json.dumps(median)
        assert 0.05 < median["vegetation"] < 0.6, json.dumps(median)
        with_cars = sum(any(box["label"] == "car" for box in line["boxes"]) for line in lines)
        assert with_cars > 0.9 * len(lines)
