"""In which memory a stream's pictures are drawn: where all of its encoders read them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engines.loading import Degraded
from pipeline.config import Config
from pipeline.drawing.overlay import OverlayStage, OverlayStyle
from pipeline.session.opening import _settle_encoders


class Encoder:
    """What is looked at of an encoder."""

    encoder = "h264_nvenc"

    def __init__(self, takes_device: bool) -> None:
        self.takes_device = takes_device
        self.told: Callable[[Degraded], None] | None = None

    def observe(self, degraded: Callable[[Degraded], None]) -> None:
        self.told = degraded


@pytest.mark.parametrize(
    ("takes", "stay"), [([True], True), ([True, True], True), ([True, False], False), ([False], False), ([], False)]
)
def test_pictures_stay_in_gpu_memory_where_every_encoder_reads_them_there(takes: list[bool], stay: bool) -> None:
    said: list[Degraded] = []
    shared = SimpleNamespace(config=Config(), degradations=SimpleNamespace(say=said.append))
    stream: Any = SimpleNamespace(id="front", overlay=OverlayStage(OverlayStyle()))
    encoders = [Encoder(each) for each in takes]
    _settle_encoders(cast("Any", shared), stream, cast("Any", encoders))
    assert stream.overlay.target.stay() is stay
    for encoder in encoders:
        assert encoder.told is not None
        encoder.takes_device = False
    assert not stream.overlay.target.stay(), "asked anew for every picture"
