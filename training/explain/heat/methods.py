"""Heat maps by gradients (through captum): how each pixel of the network's input bears on one number it answers.

Sources: saliency, Simonyan et al. 2014 (arXiv:1312.6034); SmoothGrad, Smilkov et al. 2017 (arXiv:1706.03825);
Grad-CAM, Selvaraju et al. 2017 (arXiv:1610.02391). Occlusion (Zeiler & Fergus 2014) is in
`training.explain.heat.occlusion`.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam, NoiseTunnel, Saliency
from numpy.typing import NDArray
from torch import Tensor, nn

from training.explain.heat.layers import choose_layer
from training.explain.heat.occlusion import Occlusion, occlusion_map
from training.explain.networks.network import Network
from training.explain.targets import Target

Method = Literal["gradient", "smoothgrad", "gradcam", "occlusion"]
METHODS: tuple[Method, ...] = get_args(Method)
Heat = NDArray[np.float32]

SMOOTHGRAD_SAMPLES = 25
SMOOTHGRAD_NOISE = 0.15
"""Standard deviation of the noise, of the picture's range; the paper finds 0.1 to 0.2 best."""

_SAMPLES_AT_ONCE = 5


class Scored(nn.Module):
    """A network that gives one number a picture: (N, 3, H, W) float32 RGB, 0 to 255 → (N,)."""

    def __init__(self, network: Network, target: Target) -> None:
        super().__init__()
        self.network, self.target = network, target

    def forward(self, x: Tensor) -> Tensor:
        return self.target.score(self.network(x))


def heat_map(
    network: Network,
    picture: Tensor,
    target: Target,
    method: Method,
    layer: str | None = None,
    occlusion: Occlusion | None = None,
    samples: int = SMOOTHGRAD_SAMPLES,
    seed: int = 0,
) -> Heat:
    """How the pixels bear on the target.

    Args:
        network: to explain.
        picture: (1, 3, H, W) float32 RGB, 0 to 255, of the network's size.
        target: the number.
        method: `gradient` and `smoothgrad` give the size of the number's derivative by the pixel, the largest of the
            three channels (per grey level); `gradcam` the rectified Grad-CAM, interpolated; `occlusion` by how much the
            number falls where a grey square covers the pixel, negative where it rises.
        layer: for Grad-CAM, see `training.explain.heat.layers.choose_layer`.
        occlusion: the grid; as `Occlusion()` has it where left out.
        samples: of SmoothGrad.
        seed: of SmoothGrad's noise.

    Returns:
        (H, W) float32.

    Raises:
        UsageError: there is no such layer, or none that Grad-CAM could look at.
    """
    match method:
        case "gradient":
            return _by_channel(_gradient(network, picture, target))
        case "smoothgrad":
            return _by_channel(_smoothed_gradient(network, picture, target, samples, seed))
        case "gradcam":
            return _grad_cam(network, picture, target, layer)
        case "occlusion":
            return occlusion_map(network, picture, target, occlusion or Occlusion())


def _gradient(network: Network, picture: Tensor, target: Target) -> Tensor:
    gradient: Tensor = Saliency(Scored(network, target)).attribute(picture.clone().requires_grad_())
    return gradient


def _smoothed_gradient(network: Network, picture: Tensor, target: Target, samples: int, seed: int) -> Tensor:
    noise = SMOOTHGRAD_NOISE * float(picture.max() - picture.min())
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        smoothed: Tensor = NoiseTunnel(Saliency(Scored(network, target))).attribute(
            picture.clone().requires_grad_(),
            nt_type="smoothgrad",
            nt_samples=samples,
            nt_samples_batch_size=min(samples, _SAMPLES_AT_ONCE),
            stdevs=noise,
        )
    return smoothed


def _grad_cam(network: Network, picture: Tensor, target: Target, layer: str | None) -> Heat:
    chosen = choose_layer(network, target, layer).layer
    # No parameter asks for a gradient; the picture does, so that every activation has one.
    grad_cam = LayerGradCam(Scored(network, target), chosen)
    coarse = grad_cam.attribute(picture.clone().requires_grad_(), relu_attributions=True)
    size = (network.height, network.width)
    fine = F.interpolate(coarse.detach().float(), size, mode="bilinear", align_corners=False)
    return np.asarray(fine[0, 0].numpy(), np.float32)


def _by_channel(gradient: Tensor) -> Heat:
    return np.asarray(gradient.detach()[0].abs().amax(0).numpy(), np.float32)
