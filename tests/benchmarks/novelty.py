"""Does novelty tell what a model was not trained on, and where it is wrong?

    python -m tests.benchmarks.novelty shared/data [--model cityscapes-unet] [--precision int8]

prints, for validation pictures of Cityscapes that the model was not trained on, clips of other roads, weather and
cameras, pets and digits: the median novelty, and the area under the curve (AUROC) of telling them from the validation
pictures; beside it the same of their looks (lightness, contrast, colour, edges), of doubt and of boxes, which were
tried.
Then how novelty goes with the share of pixels that are wrong (Spearman), on the validation pictures as they are and on
such as were spoilt; and what a look costs.

    python -m tests.benchmarks.novelty shared/data --write

makes `NAME.familiar.json` of the bundled models, of the pictures of `fit`.
"""

from __future__ import annotations

import argparse
import gzip
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np

import engines
from engines import bundled
from engines.classes import IGNORE
from engines.engine import Engine, Prediction
from engines.novelty.distance import Distance, figures, fit
from engines.novelty.familiar import write_beside
from engines.spec import figure_names, read_spec
from engines.squash import squash
from engines.tools.familiarize import familiar_with
from pipeline.analysis.novelty import NoveltyWatch
from pipeline.pictures.inputs import network_input
from tests.benchmarks.hard_frames import spearman
from training.data.cityscapes_pairs import load_pairs

PICTURES, CLIP_PICTURES, SEED = 600, 40, 0

LOOK_NAMES = (
    *(f"L {name}" for name in ("mean", "spread", "2 %", "25 %", "75 %", "98 %")), "a mean", "b mean", "a spread",
    "b spread", *(f"edges at {size}" for size in (64, 32, 16, 8)),
)  # fmt: skip


def sample(photos: np.ndarray) -> np.ndarray:
    """So many pictures, drawn at random, in their order."""
    return photos[np.sort(np.random.default_rng(SEED).choice(len(photos), PICTURES, replace=False))]


def write(pairs: Path) -> None:
    """What is familiar to the bundled models that give a class map."""
    photos = load_pairs(pairs, "fit").photos
    for name in bundled.names():
        path = bundled.resolve(name)
        if figure_names(read_spec(path)):
            source = f"the {len(photos):,} of fit (Cityscapes pairs, seed {SEED})"
            print(write_beside(path, familiar_with(path, iter(sample(photos)), source)))


def kinds(data: Path, height: int, width: int) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Pictures of each kind at the size of a model, as the pipeline makes them of clips."""
    for split in ("dev", "val"):
        photos = load_pairs(data / "cityscapes_pairs", split).photos
        yield split, [squash(photo, height, width) for photo in photos]
    for path in [*sorted((data / "footage").glob("*.mp4")), data / "kitti" / "video_10fps.mp4"]:
        with av.open(str(path)) as container:
            video = container.streams.video[0]
            step = max(1, (video.frames or CLIP_PICTURES) // CLIP_PICTURES)
            shown = [frame for number, frame in enumerate(container.decode(video)) if number % step == 0]
            yield (
                "kitti (grey)" if path.parent.name == "kitti" else path.stem.split("_h264")[0],
                [network_input(frame, height, width) for frame in shown],
            )
    pets = [cv2.imread(str(path)) for path in sorted((data / "oxford_iiit_pet" / "images").glob("*.jpg"))[::4]]
    yield "pets", [squash(np.asarray(pet[..., ::-1]), height, width) for pet in pets if pet is not None]
    with gzip.open(data / "mnist" / "t10k-images-idx3-ubyte.gz") as file:
        digits = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)[:100]
    yield "mnist", [squash(np.repeat(digit[..., None], 3, 2), height, width) for digit in digits]


def spoilt() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """What is done to a picture, (H, W, 3) uint8 RGB, that the truth stays that of."""
    rng = np.random.default_rng(SEED)

    def clipped(picture: np.ndarray) -> np.ndarray:
        return np.clip(picture, 0, 255).astype(np.uint8)

    return {
        "as it is": lambda p: p,
        "dark": lambda p: clipped(255 * (p / 255) ** 2.5 * 0.6),
        "noise": lambda p: clipped(p + rng.normal(0, 25, p.shape)),
        "blur": lambda p: np.asarray(cv2.GaussianBlur(p, (0, 0), 3)),
        "fog": lambda p: clipped(p * 0.35 + 190 * 0.65),
        "warm": lambda p: clipped(p * np.array([1.25, 1.0, 0.75])),
        "bright": lambda p: clipped(p * 1.7),
        "grey": lambda p: np.repeat(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY)[..., None], 3, 2),
    }


def look(picture: np.ndarray) -> np.ndarray:
    """Figures of a picture, (H, W, 3) uint8 RGB, that novelty was to be told by at first."""
    small = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2Lab).astype(float) / 255
    light, a, b = lab[..., 0], lab[..., 1], lab[..., 2]
    edges = []
    for size in (64, 32, 16, 8):
        scaled = cv2.resize(light, (size, size), interpolation=cv2.INTER_AREA)
        edges.append(np.log(np.abs(cv2.Laplacian(scaled, cv2.CV_64F)).mean() + 1e-3) / 7 + 1)
    quantiles = np.quantile(light, [0.02, 0.25, 0.75, 0.98])
    return np.array([light.mean(), light.std(), *quantiles, a.mean(), b.mean(), a.std(), b.std(), *edges])


def auroc(usual: np.ndarray, other: np.ndarray) -> float:
    """The chance that one of the others scores higher than one of the usual (Mann and Whitney), ties half."""
    above = (other[:, None] > usual).mean() + (other[:, None] == usual).mean() / 2
    return float(above)


class Judged(NamedTuple):
    """What is told of N pictures: (N,) novelty, distance by looks, doubt (1 less the mean confidence) and distance
    by boxes; the class maps; the rows (N, K) that novelty is made of."""

    said: np.ndarray
    seen: np.ndarray
    doubt: np.ndarray
    boxes: np.ndarray
    maps: list[np.ndarray]
    rows: np.ndarray


class Judge:
    """An engine, and the distances. `rows` are the figures of the pictures that are familiar."""

    def __init__(self, engine: Engine, photos: np.ndarray) -> None:
        self.engine, spec = engine, engine.spec
        assert spec.familiar is not None
        self.ids = [info.id for info in spec.classes]
        self.said = Distance(spec.familiar)
        pictures = [squash(photo, spec.height, spec.width) for photo in photos]
        told = [engine(picture) for picture in pictures]
        self.rows = np.array([figures(each.class_map, each.confidence, self.ids) for each in told])
        self.seen = Distance(fit(np.array([look(picture) for picture in pictures]), LOOK_NAMES, "fit"))
        boxes = np.array([self._boxes(each) for each in told])
        self.boxes = Distance(fit(boxes, tuple(map(str, range(boxes.shape[1]))), "fit"))

    def _boxes(self, told: Prediction) -> np.ndarray:
        """What a detector alone could be judged by: how many of each class (root), and their mean score."""
        if told.scores is None or told.labels is None:
            return np.zeros(len(self.ids) + 1)
        likely = told.scores >= self.engine.spec.min_score
        counts = np.bincount(told.labels[likely], minlength=256)[self.ids]
        return np.append(np.sqrt(counts / 25).clip(0, 1), told.scores[likely].mean() if likely.any() else 0.0)

    def judge(self, pictures: list[np.ndarray]) -> Judged:
        """All that is told of pictures."""
        told = [self.engine(picture) for picture in pictures]
        maps = [each.class_map for each in told if each.class_map is not None]
        rows = np.array([figures(each.class_map, each.confidence, self.ids) for each in told])
        return Judged(
            np.array([self.said.of(row) for row in rows]),
            np.array([self.seen.of(look(picture)) for picture in pictures]), 1 - rows[:, -1],
            np.array([self.boxes.of(self._boxes(each)) for each in told]), maps, rows,
        )  # fmt: skip


def wrong(class_map: np.ndarray, truth: np.ndarray) -> float:
    """The share of the known pixels that are of another class."""
    full = cv2.resize(class_map, truth.shape[::-1], interpolation=cv2.INTER_NEAREST)
    known = truth != IGNORE
    return float((full[known] != truth[known]).mean())


def measure(data: Path, engine: Engine) -> None:
    """Print it all."""
    spec = engine.spec
    judge = Judge(engine, sample(load_pairs(data / "cityscapes_pairs", "fit").photos))
    found = {kind: judge.judge(pictures) for kind, pictures in kinds(data, spec.height, spec.width)}
    assert spec.familiar is not None
    print(f"{spec.name} in {engine.precision}; familiar: {spec.familiar.source}, limit {spec.familiar.limit}")
    print(f"{'':32s} pictures  novelty (median, 95 %)  AUROC   by looks  AUROC   by doubt: AUROC  by boxes: AUROC")
    usual = found["val"]
    for kind, it in found.items():
        print(
            f"{kind:32s} {len(it.said):8d}  {np.median(it.said):8.2f} {np.quantile(it.said, 0.95):9.2f}     "
            f"{auroc(usual.said, it.said):7.3f}  {np.median(it.seen):8.2f} {auroc(usual.seen, it.seen):7.3f}   "
            f"{auroc(usual.doubt, it.doubt):14.3f}  {auroc(usual.boxes, it.boxes):14.3f}"
        )
    val = load_pairs(data / "cityscapes_pairs", "val")
    rows = []
    for kind, spoil in spoilt().items():
        it = judge.judge([squash(spoil(photo), spec.height, spec.width) for photo in val.photos])
        errors = np.array([wrong(*pair) for pair in zip(it.maps, val.labels, strict=True)])
        rows.append((it.said, it.seen, it.doubt, errors))
        print(
            f"{kind:10s} {errors.mean():.3f} of pixels wrong; median novelty {np.median(it.said):.2f}; by looks "
            f"{np.median(it.seen):.2f}"
        )
    for about, some in (("as they are", rows[:1]), ("spoilt or not", rows)):
        *scores, errors = (np.concatenate(each) for each in zip(*some, strict=True))
        novelty, looks, doubt = (spearman(score, errors) for score in scores)
        print(f"Spearman with the wrong share, {about}: {novelty:.2f}; by looks {looks:.2f}; by doubt {doubt:.2f}")
    few(judge.rows, usual.rows, figure_names(spec))
    cost(engine, squash(val.photos[0], spec.height, spec.width))


def few(rows: np.ndarray, others: np.ndarray, names: tuple[str, ...], rounds: int = 20) -> None:
    """Print how many of others are beyond the limit of few pictures, which should be one in a hundred."""
    for count in (100, 200, 400):
        beyond = []
        for seed in range(rounds):
            known = fit(np.random.default_rng(seed).permutation(rows)[:count], names, "fit")
            distance = Distance(known)
            beyond.append(np.mean([distance.of(row) > known.limit for row in others]))
        print(f"by {count} pictures {np.mean(beyond):.1%} of the validation pictures are beyond the limit")


def cost(engine: Engine, picture: np.ndarray, rounds: int = 500) -> None:
    """Print what a look costs, and one that is not due."""
    watch, told = NoveltyWatch([engine.spec]), {engine.spec.name: engine(picture)}
    took = []
    for step in (2.0, 0.0):
        began = time.process_time()
        for number in range(rounds):
            watch.look(number * step, told)
        took.append((time.process_time() - began) / rounds)
    print(f"a look takes {took[0] * 1e3:.3f} ms of one core, a frame between two looks {took[1] * 1e6:.1f} µs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default=bundled.DEFAULT)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    if asked.write:
        write(asked.data / "cityscapes_pairs")
        return
    with closing(engines.load(asked.model, "cpu", asked.precision, 1)) as engine:
        measure(asked.data, engine)


if __name__ == "__main__":
    main()
