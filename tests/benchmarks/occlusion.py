"""Occlusion as roadlens computes it against the one-at-a-time loop, on the same picture, in one run.

    python tests/benchmarks/occlusion.py [--model vgg16 mobilenet_v2] [--size 224] [--window 25] [--stride 5]

Sides, for each model, with the same weights and threads:

- loop: the network on one covered picture after the other, as captum's `Occlusion` does by default, in inference mode;
- batched: the same in batches of eight;
- roadlens: batched, batch normalisation folded, and only what a square changes is computed
  (`training.explain.heat.incremental`).

Of the loop and of the batches a part of the places is timed, spread evenly over the picture (every place takes the same
time there), roadlens computes the whole map, preparation and putting together included. Rounds alternate; the ratio
printed is the median over rounds of the ratio within a round. The maps' places are compared: the largest difference is
printed beside the span of the falls.

Weights are random: no time hangs on them. MobileNetV2's are drawn so that activations keep their size; denormal numbers
would slow the loop down.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time

import numpy as np
import torch
from torch import Tensor, nn

from training.explain.heat.occlusion import Occlusion, occlusion_map, place_scores, places
from training.explain.networks.classifiers import open_classifier
from training.explain.networks.network import Network, to_tensor
from training.explain.targets import Target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["vgg16", "mobilenet_v2"])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--window", type=int, default=25)
    parser.add_argument("--stride", type=int, default=5)
    parser.add_argument("--places", type=int, default=64, help="of the loop and of the batches, a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
          f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    for name in options.model:
        compare(name, options)


def compare(name: str, options: argparse.Namespace) -> None:
    """Measure the three sides on one model, and print a line for each."""
    network = open_classifier(name, "random", size=options.size)
    keep_size(network.body)
    x = to_tensor(np.random.default_rng(0).integers(0, 256, (options.size, options.size, 3), dtype=np.uint8))
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        target = Target("class", int(network(x)["class"].argmax()), "likeliest", "logit", "class")
    rows = places(options.size, options.window, options.stride)
    corners = [(y, x) for y in rows for x in rows]
    some = [corners[i] for i in np.linspace(0, len(corners) - 1, options.places).astype(int)]
    grid = Occlusion(options.window, options.stride)
    with torch.inference_mode():
        wanted = loop(network, x, target, some, grid)
        whole = float(target.score(network(x)))
        found = place_scores(network, x, target, grid, some)
    fall = float(np.abs(wanted - whole).max())
    print(
        f"{name}: {len(corners)} places; largest difference {np.abs(found - wanted).max():.2g} of falls to {fall:.2g}"
    )
    times: dict[str, list[float]] = {"loop": [], "batched": [], "roadlens": []}
    for _ in range(options.rounds):
        with torch.inference_mode():
            start = time.perf_counter()
            loop(network, x, target, some, grid)
            times["loop"].append((time.perf_counter() - start) / len(some))
            start = time.perf_counter()
            place_scores(network, x, target, Occlusion(options.window, options.stride, exact_parts=False), some)
            times["batched"].append((time.perf_counter() - start) / len(some))
        start = time.perf_counter()
        occlusion_map(network, x, target, grid)
        times["roadlens"].append((time.perf_counter() - start) / len(corners))
    for side, taken in times.items():
        ratio = statistics.median(one / other for one, other in zip(times["loop"], taken, strict=True))
        print(f"  {side:9} {statistics.median(taken) * 1e3:8.2f} ms a place  {ratio:6.2f} x the loop's speed")


def loop(network: Network, x: Tensor, target: Target, corners: list[tuple[int, int]], grid: Occlusion) -> np.ndarray:
    """The score of each place, one picture at a time."""
    scores = []
    for y, left in corners:
        covered = x.clone()
        covered[..., y : y + grid.window, left : left + grid.window] = grid.fill
        scores.append(float(target.score(network(covered))))
    return np.array(scores)


def keep_size(body: nn.Module) -> None:
    """Random weights whose outputs are as large as their inputs."""
    torch.manual_seed(0)
    for layer in body.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


if __name__ == "__main__":
    main()
