"""Tracks on real footage last."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import roadlens

CLIP = Path(__file__).parents[4] / "shared/data/footage/highway_960x540_25fps_h264_9s.mp4"


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.skipif(not CLIP.exists(), reason="no development data beside the checkout")
def test_of_a_real_clip_few_tracks_live_for_one_frame() -> None:
    lives = Counter(box.track for analysis in roadlens.analyse(str(CLIP)) for box in analysis.boxes)
    assert len(lives) <= 60
    assert sum(count == 1 for count in lives.values()) <= 0.1 * len(lives)
