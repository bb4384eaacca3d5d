"""The lead-vehicle localizer against boxes read off a segmenter's class map, on the same pictures, in one run.

    python -m tests.benchmarks.lead_vehicle PAIRS [--split val] [--cache DIR] [--rounds 3]

The truth is `training.data.lead_vehicle.find_lead_vehicle` of the label. The baseline is the same rule applied to the
segmenter's class map: of each class by itself, as for the label, and with cars, trucks and buses taken for one class,
which forgives the segmenter their confusion. Its score is the mean confidence over the vehicle; a vehicle that only
the generous rule finds (`LARGEST_ZOOM` smaller) counts half, so that the baseline, too, has a score where it is unsure.

Prints accuracy with 95 % intervals (pictures drawn with replacement), paired differences, and milliseconds and CPU
milliseconds a frame: every engine in turn, one picture at a time, medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import engines
from training.data.lead_vehicle import (
    CITYSCAPES_CORRIDOR,
    LARGEST_ZOOM,
    VEHICLES,
    find_lead_vehicle,
    load_lead_vehicles,
)
from training.metrics.boxes import average_precision, paired_iou
from training.results import bootstrap

UInt8 = NDArray[np.uint8]
Answer = tuple[NDArray[np.float64], float]
"""A box, (4,) xyxy as fractions, and its score; zeros where nothing was found."""

MIN_SCORE = 0.5
"""From which score on the pipeline shows a box, `min_score` of its configuration."""

BASELINE = " + rule"

_NOTHING: Answer = (np.zeros(4), 0.0)
_GENEROUS = replace(
    CITYSCAPES_CORRIDOR,
    min_height=CITYSCAPES_CORRIDOR.min_height / LARGEST_ZOOM,
    min_area=CITYSCAPES_CORRIDOR.min_area / LARGEST_ZOOM**2,
)


def from_class_map(class_map: UInt8, confidence: UInt8 | None, merged: bool) -> Answer:
    """The lead vehicle of a segmenter's answer by the rule that made the truth."""
    vehicles = np.isin(class_map, list(VEHICLES))
    if merged:
        class_map = np.where(vehicles, min(VEHICLES), class_map).astype(np.uint8)
    certain = find_lead_vehicle(class_map)
    found = certain or find_lead_vehicle(class_map, _GENEROUS)
    if found is None:
        return _NOTHING
    height, width = class_map.shape
    x1, y1, x2, y2 = np.rint(found.box * [width, height, width, height]).astype(int)
    inside = class_map[y1:y2, x1:x2] == found.class_id
    score = 1.0 if confidence is None else float(confidence[y1:y2, x1:x2][inside].mean()) / 255
    return found.box.astype(np.float64), score if certain else score / 2


def segmenter(name: str, precision: engines.Precision, merged: bool) -> Callable[[UInt8], Answer]:
    engine = engines.load(name, device="cpu", precision=precision)

    def answer(picture: UInt8) -> Answer:
        prediction = engine(picture)
        assert prediction.class_map is not None
        return from_class_map(prediction.class_map, prediction.confidence, merged)

    return answer


def localizer(name: str, precision: engines.Precision) -> Callable[[UInt8], Answer]:
    engine = engines.load(name, device="cpu", precision=precision)
    size = (engine.spec.width, engine.spec.height)

    def answer(picture: UInt8) -> Answer:
        if picture.shape[1::-1] != size:
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        prediction = engine(picture)
        assert prediction.boxes is not None
        assert prediction.scores is not None
        best = int(prediction.scores.argmax())
        return prediction.boxes[best].astype(np.float64), float(prediction.scores[best])

    return answer


def figures(rows: NDArray[np.float64], names: list[str]) -> dict[str, float]:
    """What is told of the models, and by how much the first is above each baseline, as `figure|model`.

    Args:
        rows: (N, 1 + 2·M): whether a lead vehicle is there, then score and IoU of each model.
        names: of the models.
    """
    present = rows[:, 0] > 0
    told: dict[str, float] = {}
    for number, name in enumerate(names):
        score, iou = rows[:, 1 + 2 * number], rows[:, 2 + 2 * number]
        shown = score >= MIN_SCORE
        told |= {
            f"presence AP|{name}": average_precision(score, present),
            f"detection AP at IoU 0.5|{name}": average_precision(score, present & (iou >= 0.5), int(present.sum())),
            f"mean IoU where present|{name}": _mean(iou[present]),
            f"mean IoU of the true boxes shown|{name}": _mean(iou[present & shown]),
            f"found where present|{name}": _mean(shown[present]),
            f"false alarms where absent|{name}": _mean(shown[~present]),
        }
    for key, value in list(told.items()):
        figure, name = key.split("|")
        if BASELINE in name:
            told[f"{figure}|{names[0]} less {name}"] = told[f"{figure}|{names[0]}"] - value
    return told


def _mean(values: NDArray[np.float64] | NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the Cityscapes pairs")
    parser.add_argument("--split", default="val", choices=("val", "dev"))
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--localizer", default="lead-vehicle", help="bundled name or .onnx")
    parser.add_argument("--segmenter", default="cityscapes-unet")
    parser.add_argument("--rounds", type=int, default=3, help="of timing, 60 pictures each")
    options = parser.parse_args()

    cv2.setNumThreads(1)
    data = load_lead_vehicles(options.data, options.split, 256, 256, options.cache)
    print(f"{options.split}: {len(data)} pictures, {int(data.present.sum())} with a lead vehicle; {data.protocol}\n")
    subjects = {
        f"{options.localizer} auto": localizer(options.localizer, "auto"),
        f"{options.localizer} fp32": localizer(options.localizer, "fp32"),
        f"{options.segmenter} auto + rule": segmenter(options.segmenter, "auto", merged=False),
        f"{options.segmenter} auto{BASELINE}, one class": segmenter(options.segmenter, "auto", merged=True),
    }
    if engines.bundled.int8_file(engines.bundled.resolve(options.localizer)).is_file():
        subjects[f"{options.localizer} int8"] = localizer(options.localizer, "int8")
    subjects[f"{options.segmenter} int8{BASELINE}"] = segmenter(options.segmenter, "int8", merged=False)

    columns = [data.present.astype(np.float64)]
    for answer in subjects.values():
        answers = [answer(photo) for photo in data.photos]
        columns.append(np.array([score for _, score in answers]))
        columns.append(paired_iou(np.stack([box for box, _ in answers]), data.boxes.astype(np.float64)))
    rows, names = np.stack(columns, axis=1), list(subjects)
    told = figures(rows, names)
    intervals = bootstrap(rows, lambda drawn: figures(drawn, names))
    for figure in dict.fromkeys(key.split("|")[0] for key in told):
        print(f"## {figure}")
        for key in (key for key in told if key.startswith(f"{figure}|")):
            interval = intervals[key]
            spread = "" if interval is None else f" ({interval.low:.3f} to {interval.high:.3f})"
            print(f"| {key.split('|')[1]} | {told[key]:.3f}{spread} |")
        print()

    wall: dict[str, list[float]] = {name: [] for name in subjects}
    busy: dict[str, list[float]] = {name: [] for name in subjects}
    pictures = data.photos[:60]
    for _ in range(options.rounds):
        for name, answer in subjects.items():
            times, before = [], time.process_time()
            for picture in pictures:
                start = time.perf_counter()
                answer(picture)
                times.append(time.perf_counter() - start)
            busy[name].append((time.process_time() - before) / len(pictures))
            wall[name].append(statistics.median(times))
    print("## Milliseconds a frame, one picture at a time\n| | median latency | CPU |\n|---|---|---|")
    for name in subjects:
        print(f"| {name} | {statistics.median(wall[name]) * 1e3:.2f} | {statistics.median(busy[name]) * 1e3:.2f} |")


if __name__ == "__main__":
    main()
