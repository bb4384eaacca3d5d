"""What more boxes would give: the head localizer trained on 25, 50 and 100 % of them, scored on the same pictures.

    python -m tests.benchmarks.pet_learning_curve FOLDER --weights imagenet -o runs/pet-curve

A run that is there already is scored, not made again. The error, one minus the mean IoU, is fitted with a power law
b·n^(−c) of the number of boxes; with three points that is a straight line of their logarithms and no more. The
interval of what it says of more boxes is that of the pictures drawn with replacement, the same for all three runs; by
how much a run with another seed differs is not in it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.catalogue import open_task, read_recipe
from training.evaluation.opening import open_predictor
from training.evaluation.predictor import measure
from training.loop.run import LAST, train
from training.metrics.boxes import box_scores
from training.results import interval

SHARES = (25, 50, 100)
FULL_SET = round(0.7 * 3686)
"""Boxes to train on in the complete set, 3,686 of 37 breeds, split as this part is."""

RESAMPLES = 1000


def fit(boxes: NDArray[np.float64], errors: NDArray[np.float64]) -> tuple[float, float]:
    """b and c of the power law b·n^(−c) through errors of numbers of boxes, least squares of the logarithms."""
    slope, offset = np.polyfit(np.log(boxes), np.log(errors), 1)
    return float(np.exp(offset)), float(-slope)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of Oxford-IIIT Pet")
    parser.add_argument("--weights", default="imagenet", help="of the encoder")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/pet-curve"))
    parser.add_argument("--steps", type=int, default=180)
    arguments = parser.parse_args()

    numbers, ious = [], []
    for share in SHARES:
        changes = [
            "split=train", f"steps={arguments.steps}", f"evaluate_every={arguments.steps}", f"box_share={share / 100}",
            f"encoder_weights={arguments.weights}",
        ]  # fmt: skip
        recipe, run = read_recipe("pet-box", changes), arguments.output / str(share)
        if not (run / LAST).exists():
            train(recipe, arguments.folder, run)
        task = open_task(recipe)
        numbers.append(int(task.load(arguments.folder, "train", say=lambda _: None).boxed.sum()))
        with open_predictor(str(run / LAST)) as predictor:
            data = predictor.task.load(
                arguments.folder, "val", size=(predictor.height, predictor.width), say=lambda _: None
            )  # fmt: skip
            rows = measure(predictor, data)
        ious.append(rows[:, 0] / rows[:, 1])
    every, boxes = np.array(ious), np.array(numbers, np.float64)
    draws = np.random.default_rng(0).integers(0, every.shape[1], (RESAMPLES, every.shape[1]))
    drawn = np.array([every[:, draw].mean(1) for draw in draws])

    print(f"{every.shape[1]} held-out pictures with a box, {arguments.steps} steps each\n")
    print("| boxes trained on | mean IoU | 95 % interval | IoU ≥ 0.5 | IoU ≥ 0.75 |")
    print("|---:|---:|---:|---:|---:|")
    for number, own, resampled in zip(numbers, every, drawn.T, strict=True):
        scores, spread = box_scores(own, np.ones_like(own)), interval(resampled.tolist())
        assert spread is not None
        print(
            f"| {number} | {scores['mean_iou']:.3f} | {spread.low:.3f} to {spread.high:.3f} | "
            f"{scores['accuracy_iou_50']:.3f} | {scores['accuracy_iou_75']:.3f} |"
        )
    factor, exponent = fit(boxes, 1 - every.mean(1))
    said = interval([1 - b * FULL_SET**-c for b, c in (fit(boxes, 1 - means) for means in drawn)])
    assert said is not None
    print(
        f"\n1 − IoU ≈ {factor:.3f}·n^−{exponent:.3f}: {1 - factor * FULL_SET**-exponent:.3f} "
        f"({said.low:.3f} to {said.high:.3f}) with {FULL_SET} boxes"
    )


if __name__ == "__main__":
    main()
