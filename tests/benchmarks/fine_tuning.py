"""Is going on from the default model worth it? Fifty pictures of another look: the default model, nothing, and both.

    python -m tests.benchmarks.fine_tuning -o /tmp/fine-tuning

draws a set that looks like CamVid (its eleven classes, its haze, its faded colours) from the synthetic drive: 50
pictures of ten drives to train on, 24 of six others held out. It trains `own` on it once on from the default model and
once from nothing, in the same steps, scores both and the default model on the same pixels, and prints one table.
`--steps`, `--height` and `--width` are those of the training; scores are at 320×256 for all. Killed, it goes on
where it was when it is started again.
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from engines.classes import CITYSCAPES_CLASSES
from pipeline.sources.synthetic import SyntheticOptions, synthetic_frames
from training.catalogue import read_recipe
from training.evaluation.checkpoints import checkpoint_predictor
from training.evaluation.opening import open_predictor, task_there
from training.evaluation.predictor import evaluate
from training.loop.run import train
from training.results import Figures

CAMVID = {
    "Sky": "sky", "Building": "building", "Pole": "pole", "Road": "road", "Pavement": "sidewalk", "Tree": "vegetation",
    "SignSymbol": "traffic sign", "Fence": "fence", "Car": "car", "Pedestrian": "person", "Bicyclist": "rider",
}  # fmt: skip
"""CamVid's classes, and what Cityscapes calls each. What is none of them is void."""

DRIVES = {"train": (10, 5), "val": (6, 4)}
"""Drives, and pictures of each, four seconds apart."""

SCORED = (256, 320)
MODEL = "cityscapes-road-users"


def faded(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The look of an old camera behind a windscreen: haze, faded and yellowish colours, dark corners, blur, noise.

    Args:
        picture: (H, W, 3) uint8 RGB.
        rng: of the noise.
    """
    height, width = picture.shape[:2]
    light = picture.astype(np.float32) / 255
    grey = light.mean(2, keepdims=True)
    light = (grey + 0.45 * (light - grey)) * [1.06, 1.0, 0.82]
    haze = np.linspace(1, 0.15, height, dtype=np.float32)[:, None, None] * 0.35
    light = light**1.25 * 0.8 * (1 - haze) + 0.78 * haze
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light *= (1 - 0.3 * (x**2 + y**2))[..., None]
    light = cv2.GaussianBlur(light.astype(np.float32), (0, 0), 1.2) + rng.normal(0, 0.025, light.shape)
    return np.clip(light * 255, 0, 255).round().astype(np.uint8)


def write_set(root: Path) -> None:
    """Write train/, train_labels/, val/, val_labels/ and classes.txt."""
    names = {info.id: info.name for info in CITYSCAPES_CLASSES}
    places = {theirs: place for place, theirs in enumerate(CAMVID.values())}
    table = np.array([places.get(names.get(number, ""), 255) for number in range(256)], np.uint8)
    seed = 100
    for part, (drives, pictures) in DRIVES.items():
        for folder in (root / part, root / f"{part}_labels"):
            folder.mkdir(parents=True, exist_ok=True)
        for _ in range(drives):
            options = SyntheticOptions(480, 360, fps=Fraction(1, 4), seconds=4 * pictures, seed=seed)
            for frame in synthetic_frames(options):
                stem = f"drive{seed}_{frame.index:04d}"
                picture = faded(frame.picture, np.random.default_rng((seed, frame.index)))
                cv2.imwrite(str(root / part / f"{stem}.jpg"), picture[..., ::-1])
                cv2.imwrite(str(root / f"{part}_labels" / f"{stem}.png"), table[frame.label])
            seed += 1
    (root / "classes.txt").write_text("\n".join(CAMVID) + "\n")


def row(name: str, found: Figures) -> str:
    """A line of the table."""
    figure, ece = found.figures["mean_iou"], found.figures.get("calibration_error")
    assert figure.value is not None
    spread = "" if figure.interval is None else f" ({figure.interval.low:.3f} to {figure.interval.high:.3f})"
    accuracy = found.figures["accuracy"].value or 0.0
    sure = "–" if ece is None or ece.value is None else f"{ece.value:.3f}"
    return f"| {name} | {figure.value:.3f}{spread} | {accuracy:.3f} | {sure} |"


def main() -> None:
    """Draw, train twice, score thrice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("fine-tuning"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=320)
    given = parser.parse_args()
    data = given.output / "camvid-like"
    if not (data / "classes.txt").exists():
        write_set(data)
    rows = []
    with open_predictor(MODEL) as opened:
        spec = opened.task.spec(opened.height, opened.width, "", ())
        default = replace(opened, task=task_there(opened.task, spec, data))
        samples = default.task.load(data, "held-out", size=SCORED)
        rows.append(row(f"`{MODEL}` as it comes", evaluate(default, samples, "held-out")))
    changes = [f"{key}={getattr(given, key)}" for key in ("steps", "batch", "height", "width")]
    changes += [f"evaluate_every={given.steps}", f"optimizer.warmup_steps={given.steps // 10}"]
    for name, start in (("trained from nothing", "start=null"), (f"fine-tuned from `{MODEL}`", f"start={MODEL}")):
        folder = given.output / start.replace("=", "-")
        recipe = read_recipe("own", [*changes, start])
        last = train(recipe, data, folder, resume=True, say=lambda line: print(line, flush=True))
        predictor = checkpoint_predictor(last, "auto")
        samples = predictor.task.load(data, "held-out", size=SCORED)
        rows.append(row(name, evaluate(predictor, samples, "held-out")))
    print("\n| model | mIoU, 95 % interval | accuracy | ECE |\n|---|---|---:|---:|")
    print("\n".join(rows))
    print(
        f"\n{given.steps} steps of {given.batch} at {given.width}×{given.height}; 24 pictures of six drives held out; "
        f"{platform.processor() or platform.machine()}, {datetime.now(UTC):%Y-%m-%d}."
    )


if __name__ == "__main__":
    main()
