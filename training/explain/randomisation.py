"""Does a heat map show what the network has learnt? The weight-randomisation test.

Layers are spoilt one after the other from the output to the input, and the map must become another one; a method whose
map survives shows the picture, not the network (Adebayo et al. 2018, "Sanity checks for saliency maps",
arXiv:1810.03292).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.functional.regression import spearman_corrcoef

from training.explain.box import evidence
from training.explain.heat.methods import Heat, Method, heat_map
from training.explain.heat.occlusion import Occlusion
from training.explain.networks.network import Network
from training.explain.targets import Target


@dataclass(frozen=True)
class Likeness:
    """How like the map of the trained network another is.

    Attributes:
        spoilt: share of the layers whose weights are shuffled, from the output on, 0 to 1.
        rank_correlation: Spearman's, of the heat of all pixels, -1 to 1.
        ssim: structural similarity of what is shown, both scaled to 0 to 1.
    """

    spoilt: float
    rank_correlation: float
    ssim: float


def cascade(network: Network, steps: int, seed: int = 0) -> Iterator[tuple[float, Network]]:
    """The network with more and more of its weights shuffled, from the output to the input.

    The weights of a layer are shuffled among themselves: random, and of the same distribution as before, whatever kind
    of layer it is. Biases and normalisation stay.

    Args:
        network: is left as it is.
        steps: in so many equal steps, the last with every layer shuffled.
        seed: of the shuffling.

    Yields:
        Share of the layers that are shuffled, and the network, which the next step goes on with.
    """
    spoilt = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    layers = weights(spoilt)[::-1]
    done = 0
    for step in range(1, steps + 1):
        upto = -(-step * len(layers) // steps)
        for weight in layers[done:upto]:
            flat = weight.data.flatten()
            weight.data.copy_(flat[torch.randperm(flat.numel(), generator=generator)].reshape(weight.shape))
        done = upto
        yield done / len(layers), spoilt


def weights(network: nn.Module) -> list[Tensor]:
    """Weight matrices and convolution kernels in the order in which the network has them; of a graph, its constants."""
    found = [*network.named_parameters(), *((n, b) for n, b in network.named_buffers() if ".constant_" in n)]
    # Fewer than a hundred numbers are no layer's: sizes, scales, constants of a graph's arithmetic.
    return [w for _, w in found if w.ndim in (2, 4) and w.is_floating_point() and w.numel() >= 100]


def likeness(before: Heat, after: Heat, spoilt: float) -> Likeness:
    """Compare two maps of a picture, (H, W) float32 each."""
    correlation = float(spearman_corrcoef(torch.from_numpy(before).flatten(), torch.from_numpy(after).flatten()))
    first, second = (torch.from_numpy(evidence(heat))[None, None] for heat in (before, after))
    similar = structural_similarity_index_measure(first, second, data_range=1.0)
    assert isinstance(similar, Tensor)
    return Likeness(spoilt, correlation if np.isfinite(correlation) else 0.0, float(similar))


def randomise(
    network: Network,
    picture: Tensor,
    target: Target,
    method: Method,
    steps: int = 4,
    layer: str | None = None,
    occlusion: Occlusion | None = None,
    seed: int = 0,
) -> list[Likeness]:
    """How like its first map a picture's map stays while the network is spoilt; one entry a step.

    Args:
        network, picture, target, method, layer, occlusion: as for `heat_map`.
        steps: from the output's layers alone to all.
        seed: of the shuffling.
    """
    before = heat_map(network, picture, target, method, layer, occlusion)
    return [
        likeness(before, heat_map(spoilt, picture, target, method, layer, occlusion), share)
        for share, spoilt in cascade(network, steps, seed)
    ]
