"""Are hard frames those on which the model is wrong? Scores of an export beside drawn truth.

    python -m tests.benchmarks.hard_frames shared/data/cityscapes_pairs

writes the validation pairs of Cityscapes (256×256) as clips of single pictures, indexes them, exports all of them as
labels, and prints for the score and for each of its parts how it goes with the share of pixels that are wrong
(Spearman), and that share on the hardest fifth. Flicker is not to be had of single pictures: it is noise here, in the
score, too.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from engines.bundled import DEFAULT
from engines.classes import IGNORE
from pipeline.archive.crew.processes import Here, Processes
from pipeline.archive.indexing import Indexing
from pipeline.archive.labels.export import export_labels
from pipeline.archive.labels.manifest import Wanted
from pipeline.archive.reading import Archive
from pipeline.archive.terms import terms_of
from pipeline.config import Config, ModelConfig
from tests.footage import write_clip
from training.data.cityscapes_pairs import load_pairs

CLIPS = 10
PARTS = ("score", "rare", "flicker", "doubt", "disagreement")


def index(folder: Path, photos: np.ndarray) -> Path:
    """An archive of clips of pictures that have nothing to do with each other, near-lossless, each looked at."""
    (folder / "card").mkdir()
    for number, some in enumerate(np.array_split(photos, CLIPS)):
        path = folder / "card" / f"{number:02d}.mp4"
        write_clip(path, frames=len(some), size=(256, 256), fps=1, pictures=some, encoder_options={"crf": "8"})
    config, archive = Config(models=(ModelConfig(DEFAULT, device="cpu"),)), folder / "archive"
    terms = terms_of(config)
    with Indexing([str(folder / "card")], archive, terms) as run:
        crew = Processes(config, terms, Here(1), print)
        try:
            run.run(crew, lambda _progress: None, lambda: False)
        finally:
            crew.close()
    return archive


def measure(archive: Path, folder: Path, labels: np.ndarray, second: str) -> None:
    """Export all of it, and print how scores go with errors."""
    wanted = Wanted("cityscapes", limit=0, per_clip=0, second=second, device="cpu")
    manifest = export_labels(Archive(archive), folder, wanted)
    truths = dict(enumerate(np.array_split(labels, CLIPS)))
    rows = []
    for each in manifest.exported:
        truth = truths[int(Path(each.path).stem)][each.frame]
        with Image.open(folder / "masks" / f"{Path(each.file).stem}.png") as image:
            wrong = np.asarray(image)[truth != IGNORE] != truth[truth != IGNORE]
        rows.append([*(getattr(each, part) or 0.0 for part in PARTS), wrong.mean()])
    figures = np.array(rows)
    errors, fifth = figures[:, -1], len(figures) // 5
    print(
        f"{len(figures)} pictures{f', with --second {second}' if second else ''}: {errors.mean():.3f} of pixels wrong"
    )
    for place, part in enumerate(PARTS):
        if figures[:, place].any():
            hardest = errors[np.argsort(-figures[:, place], kind="stable")[:fifth]].mean()
            print(f"  {part:13s} Spearman {spearman(figures[:, place], errors):5.2f}; its highest fifth {hardest:.3f}")


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """The correlation of ranks, of which equal values share the mean."""
    ranks = []
    for values in (one, other):
        _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts + 1) / 2)[places])
    return float(np.corrcoef(*ranks)[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--second", default="cityscapes-unet")
    asked = parser.parse_args()
    pairs = load_pairs(asked.pairs, "val")
    with tempfile.TemporaryDirectory(prefix="roadlens-hard-") as name:
        archive = index(Path(name), pairs.photos)
        measure(archive, Path(name) / "alone", pairs.labels, "")
        measure(archive, Path(name) / "second", pairs.labels, asked.second)


if __name__ == "__main__":
    main()
