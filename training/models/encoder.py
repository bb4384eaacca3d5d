"""Classification networks of torchvision cut into five stages, each at half the resolution of the one before."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
import torchvision
from torch import Tensor, nn

from engines.errors import ModelError, UsageError
from training.recipe import EncoderName
from training.weights import read_weights


def network_input(pictures: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 RGB → (N, 3, H, W) float32 in [−1, 1], channels-last in memory."""
    # TensorRT takes uint8 at an input only with a cast right behind it.
    return pictures.float().permute(0, 3, 1, 2) / 127.5 - 1


class Encoder(nn.Module):
    """Feature maps at strides 2, 4, 8, 16, 32, with torchvision's key names so that its weight files load as they are.

    Input: (N, 3, H, W) float, RGB/127.5 − 1, H and W multiples of 32.
    """

    channels: tuple[int, int, int, int, int]
    """Channels of the five maps, from fine to coarse."""

    kept: int = 5
    """How many of the five stages have layers; see `truncate`."""

    @abstractmethod
    def stages(self) -> list[Sequence[nn.Module]]:
        """The layers of the five stages, in order; a picture goes through all of them."""

    @abstractmethod
    def truncate(self, stages: int) -> None:
        """Drop the layers behind the first `stages` stages (1 to 5); the maps behind them repeat the last one.

        The weights that stay keep their names, so a file of the whole encoder still loads.
        """

    def forward(self, x: Tensor) -> list[Tensor]:
        """Feature maps from fine to coarse: 5 × (N, C_i, H/2^(i+1), W/2^(i+1)), unless dilated."""
        maps = []
        for stage in self.stages():
            for layer in stage:
                x = layer(x)
            maps.append(x)
        return maps

    def stage_parameters(self, stages: int) -> list[nn.Parameter]:
        """The parameters of the first `stages` stages (0 to 5), the ones a frozen start leaves alone."""
        return [p for stage in self.stages()[:stages] for layer in stage for p in layer.parameters()]

    def dilate(self, stride: Literal[8, 16, 32]) -> None:
        """Keep the last stages at `stride` by dilating their convolutions (Chen et al. 2017); weights stay valid."""
        for stage, reached in zip(self.stages()[3:], (16, 32), strict=True):
            before, after = max(reached // 2 // stride, 1), max(reached // stride, 1)
            for layer in stage:
                for conv in (m for m in layer.modules() if isinstance(m, nn.Conv2d)):
                    # What stands before the dropped stride still sees the finer grid with the old spacing.
                    halves = conv.stride == (2, 2)
                    spacing = before if halves else after
                    if halves and after > 1:
                        conv.stride = (1, 1)
                    if conv.kernel_size == (3, 3):
                        conv.dilation = conv.padding = (spacing, spacing)


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution that computes in float32 where bf16 is slow in training.

    oneDNN has no fast bf16 gradient of strided and dilated depthwise convolutions. Forward and backward of four
    pictures, one core of an AMD EPYC: 144 channels at 64×64, stride 2, 17.2 ms in bf16 and 1.5 ms in float32;
    960 channels at 16×16, dilation 2, 18.4 ms and 9.0 ms.
    """

    def forward(self, x: Tensor) -> Tensor:
        slow = self.stride != (1, 1) or self.dilation != (1, 1)
        if not slow or x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


class MobileNetV2Encoder(Encoder):
    """MobileNetV2 (Sandler et al. 2018).

    Args:
        width: factor of the channels of every layer (the paper's α); published weights exist for 1.0.
        classifier_layer: keep the last 1×1 convolution to 1280 channels (features.18), which a classifier is better
            with; a decoder only pays for it.
    """

    def __init__(self, width: float = 1.0, classifier_layer: bool = False) -> None:
        super().__init__()
        self.features = torchvision.models.mobilenet_v2(width_mult=width).features[: 19 if classifier_layer else 18]
        self.ends = (2, 4, 7, 14, len(self.features))
        first, second, third, fourth, last = (self.features[end - 1] for end in self.ends)
        self.channels = (
            first.out_channels, second.out_channels, third.out_channels, fourth.out_channels, last.out_channels,
        )  # fmt: skip
        for module in self.features.modules():
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                module.__class__ = DepthwiseConv2d  # same weights and keys, another `forward`

    def stages(self) -> list[Sequence[nn.Module]]:
        return [self.features[first:last] for first, last in pairwise((0, *self.ends))]

    def truncate(self, stages: int) -> None:
        self.features, self.kept = self.features[: self.ends[stages - 1]], stages
        self.channels = _repeat_last(self.channels, stages)


class ResNetEncoder(Encoder):
    """ResNet (He et al. 2016). Its published weights were trained on inputs normalised by ImageNet's mean and
    standard deviation, so the input is brought there first."""

    def __init__(self, depth: Literal[18, 50]) -> None:
        super().__init__()
        self.depth = depth
        net = torchvision.models.resnet18() if depth == 18 else torchvision.models.resnet50()
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        self.channels = (64, 64, 128, 256, 512) if depth == 18 else (64, 256, 512, 1024, 2048)
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        self.register_buffer("scale", (0.5 / deviation)[:, None, None], persistent=False)
        self.register_buffer("shift", ((0.5 - mean) / deviation)[:, None, None], persistent=False)

    scale: Tensor
    shift: Tensor

    def stages(self) -> list[Sequence[nn.Module]]:
        return [
            (self.conv1, self.bn1, self.relu), (self.maxpool, self.layer1),
            (self.layer2,), (self.layer3,), (self.layer4,),
        ]  # fmt: skip

    def truncate(self, stages: int) -> None:
        for name in ("layer1", "layer2", "layer3", "layer4")[stages - 1 :]:
            setattr(self, name, nn.Sequential())
        if stages == 1:
            self.maxpool = nn.Sequential()
        self.kept = stages
        self.channels = _repeat_last(self.channels, stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        return super().forward(x * self.scale + self.shift)


def _repeat_last(channels: tuple[int, int, int, int, int], stages: int) -> tuple[int, int, int, int, int]:
    first, second, third, fourth, fifth = (channels[min(i, stages - 1)] for i in range(5))
    return first, second, third, fourth, fifth


def make_encoder(
    name: EncoderName, *, width: float = 1.0, stages: int = 5, classifier_layer: bool = False
) -> Encoder:  # fmt: skip
    """An encoder with random weights.

    Args:
        name: of the architecture.
        width: factor of its channels; MobileNetV2 only.
        stages: how many of the five are kept; see `Encoder.truncate`.
        classifier_layer: see `MobileNetV2Encoder`; a ResNet has none.

    Raises:
        UsageError: a width for an encoder that comes in one only.
    """
    if name == "mobilenet_v2":
        encoder: Encoder = MobileNetV2Encoder(width, classifier_layer and stages == 5)
    elif width != 1:
        raise UsageError(f"encoder {name} comes in width 1 only, not {width:g}; leave out width, or take mobilenet_v2")
    else:
        encoder = _make_resnet(name)
    if stages < 5:
        encoder.truncate(stages)
    return encoder


def _make_resnet(name: Literal["resnet18", "resnet50"]) -> Encoder:
    match name:
        case "resnet18":
            return ResNetEncoder(18)
        case "resnet50":
            return ResNetEncoder(50)


IMAGENET = Path("imagenet")
"""In the place of a file: torchvision's ImageNet weights, downloaded once into torch's cache."""


def download_imagenet(encoder: Encoder) -> dict[str, Tensor]:
    """torchvision's ImageNet weights for this architecture, from torch's cache or by download.

    Raises:
        ModelError: they are neither in the cache nor to be had.
    """
    match encoder:
        case MobileNetV2Encoder():
            weights = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1
        case ResNetEncoder(depth=18):
            weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
        case _:
            weights = torchvision.models.ResNet50_Weights.IMAGENET1K_V1
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"torchvision's ImageNet weights cannot be downloaded ({error}); give a file of them with "
            f"encoder_weights=FILE"
        ) from None
    return fold_normalization(state) if isinstance(encoder, MobileNetV2Encoder) else state


def fold_normalization(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A torchvision MobileNetV2, trained on input less ImageNet's mean over its deviation, made to take RGB/127.5 − 1.

    The first convolution takes the scale, the mean of its batch norm the shift; exact but for the outermost pixels,
    where the padding now stands for mid-grey.
    """
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    weight = state["features.0.0.weight"]
    shift = (weight * ((0.5 - mean) / deviation)[:, None, None]).sum((1, 2, 3))
    return state | {
        "features.0.0.weight": weight * (0.5 / deviation)[:, None, None],
        "features.0.1.running_mean": state["features.0.1.running_mean"] - shift,
    }


def load_encoder(encoder: Encoder, path: Path) -> None:
    """Load the encoder's weights from a torchvision state dict or from a checkpoint of a training run (its average).

    The classifier, the decoder and whatever else the file holds are left out.

    Args:
        encoder: to load into.
        path: the file, or `IMAGENET`.

    Raises:
        ModelError: no such file, no weights in it, its keys are not this encoder's, or the download failed.
    """
    state = download_imagenet(encoder) if path == IMAGENET else read_weights(path)
    prefix = "average.module.encoder."
    inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    state = inner or state
    wanted = encoder.state_dict()
    missing = [key for key, value in wanted.items() if key not in state or state[key].shape != value.shape]
    if missing:
        raise ModelError(
            f"{path} does not hold this encoder: {missing[0]} and {len(missing) - 1} more keys are missing or of "
            f"another shape; give weights of the encoder that the recipe names"
        )
    encoder.load_state_dict({key: state[key] for key in wanted})
