"""Training throughput on this machine: our loop against the loop one writes first, alternating, in one run.

    python -m tests.benchmarks.throughput [RECIPE] [--rounds 3] [--steps 4] [--batch 16] [--threads N] [--measures]

*naive*: float32, NCHW memory, every layer trained, cross-entropy and Lovász on every pixel, views made between steps.
*ours*: `training.loop.run.train` itself, as `roadlens train` calls it, on the recipe: bf16, channels-last, its frozen
stages, Lovász on every sixteenth pixel, views made ahead in a thread; its journal says how fast it was.
Both make the same views of the same pictures, clip gradients, step AdamW and keep the moving average.

Prints pictures a second, their ratio (the median over the rounds of the ratio within a round), and where the
milliseconds of a step go: by part, and by kind of layer. `--measures` adds each measure to the naive loop alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.profiler import ProfilerActivity, profile, record_function

from tests.training.conftest import write_pairs
from training.catalogue import override, read_recipe
from training.data.cityscapes_pairs import load_pairs
from training.loop.run import train
from training.losses.segmentation import auxiliary_loss, segmentation_loss
from training.models import build_model
from training.models.encoder import network_input
from training.recipe import PSPNetSettings
from training.tasks.segmentation import RandomViews, SegmentationRecipe

PAIRS = 40


@dataclass(frozen=True)
class Variant:
    """What of our loop a hand-written one has."""

    name: str
    half: bool = False
    channels_last: bool = False
    frozen: bool = False
    sampled: bool = False


NAIVE = Variant("naive")
ALL = Variant("naive + all four", half=True, channels_last=True, frozen=True, sampled=True)
MEASURES = (
    Variant("naive + channels-last", channels_last=True),
    Variant("naive + bf16", half=True),
    Variant("naive + bf16, channels-last", half=True, channels_last=True),
    Variant("naive + frozen stages", frozen=True),
    Variant("naive + sampled Lovász", sampled=True),
    ALL,
)


def make_step(recipe: SegmentationRecipe, variant: Variant, views: RandomViews) -> Callable[[], None]:
    """One training step of a hand-written loop, with a mark for the profiler around each of its parts."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    model = build_model(recipe.model, 19).train()
    if recipe.freeze_encoder_norm:
        model.encoder.eval()
    if variant.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if variant.frozen:
        for p in model.encoder.stage_parameters(recipe.frozen_stages):
            p.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True)
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=recipe.optimizer.weight_decay)
    weights = torch.ones(19)

    def step() -> None:
        with record_function("part: data"):
            chosen = [views(int(i), rng) for i in rng.integers(0, len(views.photos), recipe.batch)]
            x = network_input(torch.from_numpy(np.stack([photo for photo, _ in chosen])))
            labels = torch.from_numpy(np.stack([label for _, label in chosen])).long()
            if not variant.channels_last:
                x = x.contiguous()
        with torch.autocast("cpu", torch.bfloat16, enabled=variant.half):
            with record_function("part: forward"):
                logits, auxiliary = model.training_scores(x)
            with record_function("part: loss"):
                stride = 4 if variant.sampled else 1
                loss = segmentation_loss(logits, labels, weights, recipe.loss.lovasz_weight, (0, 0), stride)
                if auxiliary is not None and isinstance(recipe.model, PSPNetSettings):
                    loss = loss + recipe.model.auxiliary_weight * auxiliary_loss(auxiliary, labels, weights)
        with record_function("part: backward"):
            loss.backward()
        with record_function("part: optimizer"):
            torch.nn.utils.clip_grad_norm_(trained, recipe.optimizer.gradient_clip)
            optimizer.step()
            optimizer.zero_grad()
        with record_function("part: moving average"):
            average.update_parameters(model)

    return step


def seconds_a_step(step: Callable[[], None], steps: int) -> float:
    """Mean over some steps, behind one that warms up."""
    step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - start) / steps


def our_rate(recipe: SegmentationRecipe, data: Path, steps: int) -> float:
    """Pictures a second of `training.loop.run.train`, from its journal: the first line of it warms up."""
    changes = [f"steps={2 * steps}", f"report_every={steps}", f"evaluate_every={2 * steps}", "encoder_weights=null"]
    with tempfile.TemporaryDirectory() as folder:
        train(override(recipe, changes), data, Path(folder), say=lambda _: None)
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return float(next(line["images_per_second"] for line in lines if line["step"] == 2 * steps))


# Where the milliseconds go ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Profile:
    """Milliseconds a picture: by part of a step, and by kind of layer (time inside the operators themselves)."""

    parts: dict[str, float]
    kinds: dict[str, float]


def profile_steps(step: Callable[[], None], steps: int, batch: int) -> Profile:
    """Profile some steps, behind one that warms up."""
    step()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as found:
        for _ in range(steps):
            step()
    pictures = steps * batch
    parts, kinds = {}, defaultdict[str, float](float)
    for event in found.key_averages(group_by_input_shape=True):
        if event.key.startswith("part: "):
            parts[event.key.removeprefix("part: ")] = event.cpu_time_total / 1000 / pictures
        else:
            kinds[kind_of(event.key, event.input_shapes)] += event.self_cpu_time_total / 1000 / pictures
    return Profile(parts, dict(kinds))


KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("batch norm", ("batch_norm",)),
    ("activations", ("relu", "hardtanh", "clamp", "threshold")),
    ("resizing and joining maps", ("upsample", "cat", "pixel_shuffle", "pad", "slice_backward")),
    ("loss: softmax, sorting, sums", ("softmax", "nll_loss", "sort", "cumsum", "gather", "index", "dot", "nonzero")),
    ("optimizer and moving average", ("_foreach", "adam", "lerp", "linalg", "norm")),
    (
        "casts, copies, reordering",
        ("copy_", "to_mkldnn", "reorder", "contiguous", "clone", "_to_copy", "fill_", "zero_"),
    ),
)


def kind_of(name: str, shapes: Iterable[object]) -> str:
    """The kind of layer that an operator belongs to; of a convolution the shape of its weight tells."""
    operator = name.removeprefix("aten::")
    if "conv" in operator:
        # The weight is the only input of four dimensions with a small, odd, square window.
        windows = [s for s in shapes if isinstance(s, list) and len(s) == 4 and s[2] == s[3] and s[2] in (1, 3, 7)]
        if not windows:
            return "other"
        _, inputs, side, _ = windows[-1]
        form = "depthwise" if inputs == 1 and side > 1 else "1×1" if side == 1 else f"{side}×{side}"
        return f"{form} convolutions, {'backward' if 'backward' in operator else 'forward'}"
    return next((kind for kind, marks in KINDS if any(mark in operator for mark in marks)), "other")


def print_table(head: str, sides: dict[str, dict[str, float]]) -> None:
    """Rows by the last side's milliseconds, the largest first."""
    names = list(sides)
    rows = sorted({key for side in sides.values() for key in side}, key=lambda key: -sides[names[-1]].get(key, 0))
    print(f"\n| {head} | " + " | ".join(f"{name}, ms a picture" for name in names) + " |")
    print("|---|" + "---:|" * len(names))
    for row in [*rows, "all"]:
        figures = [sum(s.values()) if row == "all" else s.get(row, 0.0) for s in sides.values()]
        print(f"| {row} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="cityscapes-unet")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--measures", action="store_true", help="each measure alone, besides")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    recipe = override(read_recipe(arguments.recipe), [f"batch={arguments.batch}"])
    rates: dict[str, list[float]] = defaultdict(list)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        data = write_pairs(Path(folder), train=PAIRS, val=1)
        pairs = load_pairs(data, "fit")
        views = RandomViews(pairs.photos, pairs.labels, recipe.augmentation)
        variants = (NAIVE, *MEASURES) if arguments.measures else (NAIVE,)
        for _ in range(arguments.rounds):
            for variant in variants:
                taken = seconds_a_step(make_step(recipe, variant, views), arguments.steps)
                rates[variant.name].append(arguments.batch / taken)
            rates["ours"].append(our_rate(recipe, data, arguments.steps))
        torch.set_num_threads(arguments.threads)
        profiles = {
            "naive": profile_steps(make_step(recipe, NAIVE, views), arguments.steps, arguments.batch),
            "ours": profile_steps(make_step(recipe, ALL, views), arguments.steps, arguments.batch),
        }
    print(
        f"{recipe.name}, batch {arguments.batch}, {recipe.width}×{recipe.height}, {arguments.threads} threads, "
        f"{arguments.rounds} rounds of {arguments.steps} steps, torch {torch.__version__}, load {load:.1f} before\n"
    )
    print("| loop | pictures/s | × naive |\n|---|---:|---:|")
    for name, found in rates.items():
        ratio = statistics.median(rate / naive for rate, naive in zip(found, rates["naive"], strict=True))
        print(f"| {name} | {statistics.median(found):.1f} | {ratio:.2f} |")
    print("\nEach under the profiler, by itself; `ours` with its views made within the step, not ahead of it.")
    print_table("part of a step", {name: found.parts for name, found in profiles.items()})
    print_table("kind of layer", {name: found.kinds for name, found in profiles.items()})


if __name__ == "__main__":
    main()
