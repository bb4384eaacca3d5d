"""Training throughput on this machine: our loop against the loop one writes first, alternating, in one run.

    python -m tests.training.throughput [RECIPE] [--rounds 5] [--batch 8] [--threads N]

*naive*: float32, NCHW memory, every layer trained, cross-entropy and Lovász on every pixel.
*ours*: the recipe: bf16, channels-last, its frozen stages, Lovász on every sixteenth pixel.
Prints images a second, their ratio, the factor of each measure alone, and where the milliseconds of a step go.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from training.data.augmentation import random_geometry, random_photometry
from training.losses import auxiliary_loss, segmentation_loss
from training.models import build_model
from training.recipe import Recipe, read_recipe
from training.segmentation import network_input


@dataclass(frozen=True)
class Variant:
    name: str
    half: bool
    channels_last: bool
    frozen: bool
    sampled: bool


VARIANTS = (
    Variant("naive", half=False, channels_last=False, frozen=False, sampled=False),
    Variant("naive + channels-last", half=False, channels_last=True, frozen=False, sampled=False),
    Variant("naive + bf16", half=True, channels_last=False, frozen=False, sampled=False),
    Variant("naive + frozen stages", half=False, channels_last=False, frozen=True, sampled=False),
    Variant("naive + sampled Lovász", half=False, channels_last=False, frozen=False, sampled=True),
    Variant("ours", half=True, channels_last=True, frozen=True, sampled=True),
)


def make_step(recipe: Recipe, variant: Variant, batch: int) -> Callable[[], None]:
    """One training step of the variant, on made-up pictures: views, forward, loss, backward, update."""
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (batch, 256, 256, 3)).astype(np.uint8)
    truths = np.kron(rng.integers(0, 19, (batch, 16, 16)), np.ones((1, 16, 16))).astype(np.uint8)
    torch.manual_seed(0)
    model = build_model(recipe.model, 19).train()
    model.encoder.eval()
    if variant.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if variant.frozen:
        for p in model.encoder.stage_parameters(recipe.frozen_stages):
            p.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    weights, options = torch.ones(19), recipe.augmentation

    def step() -> None:
        with record_function("1 views"):
            views = [
                random_geometry(p, t, rng, options.scale, options.aspect) for p, t in zip(photos, truths, strict=True)
            ]
            pictures = torch.from_numpy(np.stack([random_photometry(v, rng, options.photometry) for v, _ in views]))
            labels = torch.from_numpy(np.stack([t for _, t in views])).long()
        x = network_input(pictures)
        if not variant.channels_last:
            x = x.contiguous()
        with torch.autocast("cpu", torch.bfloat16, enabled=variant.half):
            with record_function("2 forward"):
                logits, auxiliary = model.training_scores(x)
            with record_function("3 loss"):
                stride = 4 if variant.sampled else 1
                loss = segmentation_loss(logits, labels, weights, recipe.loss.lovasz_weight, (0, 0), stride)
                if auxiliary is not None:
                    loss = loss + 0.4 * auxiliary_loss(auxiliary, labels, weights)
        with record_function("4 backward"):
            loss.backward()
        with record_function("5 update"):
            optimizer.step()
            optimizer.zero_grad()

    return step


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", default="cityscapes-unet")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = read_recipe(arguments.recipe)
    steps = {variant.name: make_step(recipe, variant, arguments.batch) for variant in VARIANTS}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(arguments.rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    rates = {name: arguments.batch / statistics.median(found) for name, found in times.items()}
    print(f"{recipe.name}, batch {arguments.batch}, 256×256, {arguments.threads} threads, {arguments.rounds} rounds\n")
    print("| loop | images/s | × naive |\n|---|---:|---:|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.1f} | {rate / rates['naive']:.2f} |")
    print("\n| part of a step | naive, ms a picture | ours, ms a picture |\n|---|---:|---:|")
    shares = [parts_of(steps[name], arguments.batch) for name in ("naive", "ours")]
    for part in sorted(shares[0]):
        print(f"| {part[2:]} | {shares[0][part]:.1f} | {shares[1][part]:.1f} |")


def parts_of(step: Callable[[], None], batch: int) -> dict[str, float]:
    """Milliseconds a picture by part of the step."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    return {
        e.key: e.cpu_time_total / 1000 / batch for e in found.key_averages() if e.key[:2] in {f"{i} " for i in range(6)}
    }


if __name__ == "__main__":
    main()
