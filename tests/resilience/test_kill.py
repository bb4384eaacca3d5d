"""kill -9 at random moments: what was there before is there, what was half is not taken for whole, and it goes on.

`ROADLENS_KILLS=100 pytest tests/resilience/test_kill.py` is the long form; the gate takes a few of each.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest

from engines.tensorrt.cache import PlanCache
from pipeline.messages.headers import AnalysisMessage
from pipeline.messages.recording import NoMessages, read_recording, recover
from pipeline.messages.wire import decode_header
from tests.pipeline.conftest import json_lines
from tests.resilience.victims import FRAMES, PLAN, REQUEST, Victims

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("ROADLENS_KILLS", "5"))
MOMENTS = random.Random(18)


@pytest.fixture(scope="module")
def victims() -> Iterator[Victims]:
    with Victims() as server:
        yield server


def killed(victims: Victims, job: str, folder: Path, seconds: float, model: Path = Path("none")) -> int:
    """Begin a job and kill it after so many seconds; its status."""
    pid = victims.start(job, folder, model)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)  # one that has ended by then is not waited for yet, or has been: see below
    return victims.ended()


def rows(folder: Path) -> list[dict[str, Any]]:
    """What a run says of its frames, but for what tells of the clock."""
    kept = ("stream", "frame", "pts", "width", "height", "area")
    boxes = ("x1", "y1", "x2", "y2", "label", "score")
    return [
        {**{key: row[key] for key in kept}, "boxes": [[box[key] for key in boxes] for box in row["boxes"]]}
        for row in json_lines(folder / "o.jsonl")
        if "frame" in row
    ]


def test_a_run_goes_on_as_if_nothing_had_been(
    victims: Victims, tmp_path: Path, segmenter: Path, record_property: Any
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    began = time.monotonic()
    victims.start("run", whole, segmenter)
    assert victims.ended() == 0
    lasts = time.monotonic() - began
    wanted, were_running = rows(whole), 0
    assert len(wanted) == FRAMES
    for number in range(KILLS):
        folder = tmp_path / f"killed-{number}"
        folder.mkdir()
        for _ in range(1 + number % 2):  # every other one is killed twice
            pid = victims.start("run", folder, segmenter)
            time.sleep(MOMENTS.uniform(0, lasts))
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:  # it was quicker
                assert victims.ended() == 0
            else:
                were_running += victims.ended() == -signal.SIGKILL
        if not (folder / "o.mp4").exists() or not (folder / "o.jsonl").exists() or not (folder / "o.mcap").exists():
            victims.start("run", folder, segmenter)
            assert victims.ended() == 0
        assert rows(folder) == wanted
        with av.open(str(folder / "o.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) == FRAMES
        headers = [decode_header(recorded.parts[1]) for recorded in read_recording(folder / "o.mcap")]
        assert [each.frame for each in headers if isinstance(each, AnalysisMessage)] == list(range(FRAMES))
        assert not [path for path in folder.iterdir() if "partial" in path.name or "earlier" in path.name]
    record_property("killed while running", were_running)


def test_a_recording_keeps_what_was_handed_over(victims: Victims, tmp_path: Path) -> None:
    for number in range(KILLS):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert killed(victims, "record", folder, MOMENTS.uniform(0, 0.8)) == -signal.SIGKILL
        flushed = int((folder / "flushed").read_text()) if (folder / "flushed").exists() else 0
        if not (folder / "o.mcap").exists():
            continue
        recover(folder / "o.mcap", folder / "whole.mcap")
        try:
            kept = [decode_header(recorded.parts[1]).sequence for recorded in read_recording(folder / "whole.mcap")]
        except NoMessages:
            kept = []
        assert kept == list(range(len(kept)))
        assert len(kept) >= flushed


def test_a_plan_is_whole_or_not_there(victims: Victims, tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    for _ in range(KILLS):
        assert killed(victims, "plans", tmp_path, MOMENTS.uniform(0, 0.4)) == -signal.SIGKILL
        assert cache.find(REQUEST).plan in (None, PLAN)
        with cache.lock(REQUEST):  # nobody waits for a lock of the dead
            cache.store(REQUEST, PLAN, 1.0)
        assert cache.find(REQUEST).plan == PLAN


def test_a_checkpoint_is_the_one_before_or_the_new_one(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the extra `train` is not installed")
    with Victims("torch", "training.checkpoint") as victims:
        for _ in range(KILLS):
            assert killed(victims, "checkpoint", tmp_path, MOMENTS.uniform(0, 0.6)) == -signal.SIGKILL
            if (tmp_path / "last.ckpt").exists():
                content = torch.load(tmp_path / "last.ckpt", weights_only=True)
                assert bool((content["state_dict"]["w"] == content["step"]).all())
                written = int((tmp_path / "written").read_text()) if (tmp_path / "written").exists() else 0
                assert content["step"] >= written
            for left in ("last.ckpt", "written"):
                (tmp_path / left).unlink(missing_ok=True)
