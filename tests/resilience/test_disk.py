"""Disks that are full, or may not be written: said at once in one sentence, nothing that was there is lost, and it goes
on when there is room. Seeded corruption of what is read is in tests/pipeline/sources/test_corruption.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from engines.errors import OutputError, RoadlensError
from engines.tensorrt.cache import PlanCache
from pipeline.frame import Analysis
from pipeline.outputs.live.hls import Hls, HlsOptions
from pipeline.session import Session
from pipeline.state import OutputState
from tests.pipeline.conftest import json_lines
from tests.pipeline.encoded import VIDEO, pictures
from tests.resilience.conftest import Disk
from tests.resilience.victims import FRAMES, PLAN, REQUEST, configured

pytestmark = pytest.mark.slow
Mount = Callable[..., Disk]


class FullAt:
    """A sink at which the disk gets full."""

    def __init__(self, disk: Disk, frame: int) -> None:
        self._disk, self._frame = disk, frame

    def consume(self, analysis: Analysis) -> None:
        if analysis.frame.index == self._frame:
            self._disk.fill()


def test_a_run_on_a_full_disk_ends_in_a_sentence_and_goes_on(small_disk: Mount, segmenter: Path) -> None:
    disk = small_disk(24)
    config = configured(disk.path, segmenter)
    with Session(config, sinks=[FullAt(disk, 20)]) as session:
        result = session.run(interval=0.01)
    assert isinstance(result.error, OutputError), result
    disk.free()
    with Session(config, resume=True) as session:
        assert session.run(interval=0.01).error is None
    assert [row["frame"] for row in json_lines(disk.path / "o.jsonl") if "frame" in row] == list(range(FRAMES))
    with av.open(str(disk.path / "o.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == FRAMES


@pytest.mark.parametrize("megabytes", [1, 8])
def test_a_run_does_not_begin_on_a_disk_without_room(small_disk: Mount, segmenter: Path, megabytes: int) -> None:
    disk = small_disk(megabytes)
    with pytest.raises(OutputError, match="free some space first"):
        Session(configured(disk.path, segmenter))
    assert list(disk.path.iterdir()) == []


def test_a_run_does_not_begin_where_nothing_may_be_written(small_disk: Mount, segmenter: Path) -> None:
    disk = small_disk(24, "ro")
    with pytest.raises(OutputError, match="cannot be written"):
        Session(configured(disk.path, segmenter))


def test_hls_on_a_full_disk_pauses_says_so_and_comes_back(small_disk: Mount) -> None:
    disk = small_disk(12)
    states: list[OutputState] = []
    hls = Hls("cam", HlsOptions(disk.path, 0.2), observe=lambda change: states.append(change.state))
    wanted = [(OutputState.RUNNING, disk.fill), (OutputState.PAUSED, disk.free), (OutputState.RUNNING, hls.end)]
    hls.begin(VIDEO, lambda: None)
    until = time.monotonic() + 120
    for picture in pictures(1 << 20, key_every=5):
        assert time.monotonic() < until, states
        hls.put(picture, wait=False)
        time.sleep(0.01)
        if wanted and wanted[0][0] in states:
            states.clear()
            wanted.pop(0)[1]()
        if not wanted:
            break
    assert hls.join(60)
    hls.close()
    segments = list((disk.path / "cam").glob("*.m4s"))
    assert all(path.stat().st_size for path in segments)
    assert states[-1] is OutputState.CLOSED


def test_a_plan_that_finds_no_room_leaves_the_cache_as_it_was(small_disk: Mount) -> None:
    disk = small_disk(6)
    cache = PlanCache(disk.path)
    cache.store(REQUEST, PLAN, 1.0)
    disk.fill()
    with pytest.raises(RoadlensError):
        cache.store(REQUEST, PLAN * 2, 1.0)
    assert cache.find(REQUEST).plan in (PLAN, None)


def test_a_checkpoint_that_finds_no_room_leaves_the_one_before(small_disk: Mount) -> None:
    torch = pytest.importorskip("torch", reason="the extra `train` is not installed")
    from training.checkpoint import AtomicCheckpointIO

    disk = small_disk(6)
    AtomicCheckpointIO().save_checkpoint(
        {"step": 1, "state_dict": {"w": torch.zeros(100_000)}}, disk.path / "last.ckpt"
    )
    with pytest.raises(OutputError, match="the one before it is still good"):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.zeros(3_000_000)}}, disk.path / "last.ckpt")
    assert torch.load(disk.path / "last.ckpt", weights_only=True)["step"] == 1
    assert [path.name for path in disk.path.iterdir()] == ["last.ckpt"]
