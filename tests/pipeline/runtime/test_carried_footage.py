"""Real footage, looked at as its content asks for: the agreement that is promised with looking at every frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import engines
from engines.engine import Engine
from pipeline.analysis.carrying.agreement import of_boxes, of_maps
from pipeline.analysis.carrying.cadence import CarryingOptions, Every
from pipeline.contracts import AudioPacket, DataPacket
from pipeline.frame import Analysis, Frame
from pipeline.runtime import LoadedModel, Runtime, StreamPlan
from pipeline.sources.clips import ClipSource
from tests.pipeline.conftest import ROOT
from tests.pipeline.runtime.test_runtime import Collect

FOOTAGE = ROOT.parent / "shared" / "data" / "footage"
FRAMES = 75
ENDLESS = 240.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.realdata,
    pytest.mark.skipif(not FOOTAGE.is_dir(), reason="needs the development footage beside the checkout"),
]


class Beginning(ClipSource):
    """The first frames of a clip."""

    def __iter__(self) -> Iterator[Frame | AudioPacket | DataPacket]:
        for item in super().__iter__():
            yield item
            if isinstance(item, Frame) and item.index == FRAMES - 1:
                return


def analysed(clip: Path, engine: Engine, every: Every) -> list[Analysis]:
    source, sink = Beginning("drive", [clip]), Collect()
    runtime = Runtime([StreamPlan(source, source.open(), (), [sink])], [LoadedModel(engine, every)])
    runtime.start()
    assert runtime.wait(ENDLESS), f"hangs: {runtime.result().not_stopped}"
    assert runtime.result().error is None
    assert sink.indices == list(range(FRAMES))
    return sink.analyses


@pytest.mark.parametrize("name", ["film_seattlestreet1.mp4", "highway_960x540_25fps_h264_9s.mp4"])
def test_what_is_promised_of_auto_holds(name: str) -> None:
    with closing(engines.load("cityscapes-road-users", device="cpu", max_batch=1)) as engine:
        every, carried = (analysed(FOOTAGE / name, engine, cadence) for cadence in (1, "auto"))
    maps, boxes = list[float](), list[float]()
    for seen, filled in zip(every, carried, strict=True):
        assert seen.class_map is not None
        assert filled.class_map is not None
        maps.append(of_maps(seen.class_map, filled.class_map))
        overlap = of_boxes(seen.boxes, filled.boxes)
        boxes += [] if overlap is None else [overlap]
    assert np.mean(maps) >= CarryingOptions().agreement
    assert np.mean(boxes) >= CarryingOptions().box_agreement
    assert sum(bool(analysis.models) for analysis in carried) < 0.75 * FRAMES
