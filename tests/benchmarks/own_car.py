"""How much of the own car is left out of the class map, on real clips whose bonnets were outlined by hand.

    python -m tests.benchmarks.own_car FOLDER [--model cityscapes-road-users]

Of each clip that has an outline, the mean over its frames: the share of the bonnet's pixels that have no class, as the
model says and with the own car kept in mind; and of all clips the share of the other pixels that keeping it in mind
takes from the classes. The milliseconds are what that takes a look.

2026-12-01, `cityscapes-road-users` 4 on an AMD EPYC; of the first four the class map is that of a picture with panels
beside it, and has 2.6 times the pixels that a model gives.

| | model | kept in mind | taken elsewhere | ms |
|---|---|---|---|---|
| hard_Complex_Traffic_Driving1 | 0.828 | 0.993 | 0.0070 | 0.80 |
| hard_Critical_Driving | 0.957 | 0.999 | 0.0050 | 0.84 |
| hard_lowlight1 | 0.682 | 0.976 | 0.0035 | 0.84 |
| hard_rain | 0.912 | 0.997 | 0.0043 | 0.88 |
| hard_snow, five rows of bonnet | 0.338 | 0.552 | 0.0017 | 0.75 |
| highway_1280x720 | 0.701 | 0.959 | 0.0030 | 0.23 |
| carpark, a fixed camera | | | 0.0224 | 0.30 |
| film_night, film_rainy, film_seattlestreet1, highway_960x540 | | | 0.0119, 0.0064, 0.0003, 0 | 0.02 to 0.16 |
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import roadlens

from engines.bundled import DEFAULT
from engines.classes import IGNORE
from pipeline.analysis.ignore import IgnoreOptions
from pipeline.analysis.own_car import OwnCar
from pipeline.config import Config, ModelConfig, StreamConfig
from pipeline.frame import Analysis, Rect

_TAXI = [
    (0, 335), (20, 333), (40, 331), (70, 329), (90, 328), (130, 329), (150, 332), (170, 334), (190, 339), (205, 343),
    (225, 347), (280, 348), (360, 349), (400, 352), (440, 356), (470, 358), (500, 360), (530, 358), (560, 355),
    (600, 353), (640, 353), (640, 360), (0, 360),
]  # fmt: skip
OUTLINES = {
    "hard_Complex_Traffic_Driving1": _TAXI,
    "hard_Critical_Driving": _TAXI,
    "hard_lowlight1": _TAXI,
    "hard_rain": _TAXI,
    "hard_snow": [(20, 360), (50, 358), (100, 355), (130, 355), (160, 359), (175, 360)],
    "highway_1280x720_25fps_h264_4s": [
        (0, 675), (110, 677), (166, 685), (307, 685), (397, 677), (512, 670), (691, 668), (883, 672), (973, 675),
        (1113, 673), (1190, 665), (1280, 660), (1280, 720), (0, 720),
    ],
}  # fmt: skip
"""Bonnets in pixels of the clips, from frames and their mean."""


def looks(clip: Path, model: str, *, kept: bool) -> list[Analysis]:
    """What is said of each frame, with the own car kept in mind or without."""
    stream = StreamConfig(str(clip), ignore=IgnoreOptions(own_car=kept))
    return list(roadlens.analyse(config=Config((stream,), (ModelConfig(model),))))


def left_out(analysis: Analysis, part: np.ndarray) -> float:
    """Share of a part of the frame, (H, W) bool, that has no class."""
    height, width = part.shape
    shown = cv2.resize(analysis.class_map, (width, height), interpolation=cv2.INTER_NEAREST)
    return float((shown[part] == IGNORE).mean())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("footage", type=Path)
    parser.add_argument("--model", default=DEFAULT)
    given = parser.parse_args(arguments)
    print(f"{'clip':<34} bonnet: model, kept; taken elsewhere; ms")
    for clip in sorted(given.footage.glob("*.mp4")):
        print(_of_clip(clip, given.model), flush=True)


def _of_clip(clip: Path, model: str) -> str:
    before, after = (looks(clip, model, kept=kept) for kept in (False, True))
    image = before[0].frame.image
    outlined = np.zeros((image.height, image.width), np.uint8)
    if corners := OUTLINES.get(clip.stem):
        cv2.fillPoly(outlined, [np.array(corners, np.int32)], 255)
    part = outlined > 0
    taken = np.mean([left_out(b, ~part) - left_out(a, ~part) for a, b in zip(before, after, strict=True)])
    shares = [""]
    if part.any():
        shares = [f"{np.mean([left_out(a, part) for a in found]):.3f}" for found in (before, after)]
    return f"{clip.stem:<34} {', '.join(shares)}; {taken:.4f}; {_milliseconds(before):.2f}"


def _milliseconds(found: Sequence[Analysis]) -> float:
    kept, began = OwnCar(), time.process_time()
    for a in found:
        crop = a.frame.crop or Rect(0, 0, a.frame.image.width, a.frame.image.height)
        kept.fill(np.asarray(a.class_map), a.confidence, crop, a.frame.time)
    return (time.process_time() - began) / len(found) * 1000


if __name__ == "__main__":
    main()
