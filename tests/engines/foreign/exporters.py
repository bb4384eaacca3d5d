"""Small networks of the kinds that people export, with random weights, exported as their libraries do it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

HEIGHT, WIDTH = 96, 128


@dataclass(frozen=True)
class Kind:
    """A kind of foreign model: what makes it, what has to be told of it, and how it comes out."""

    make: Callable[[Path], None]
    told: tuple[str, ...]
    task: str
    classes: str = "five"
    size: tuple[int, int] = (WIDTH, HEIGHT)
    found: dict[str, str] = field(default_factory=dict)


def export(module: Any, example: Any, path: Path, outputs: list[str], dynamo: bool = True, **options: Any) -> None:
    """By the exporter of today, or by the one before, which most files that people have come from."""
    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    options |= {"external_data": False, "verbose": False} if dynamo else {}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), example, str(path), dynamo=dynamo, output_names=outputs, input_names=["image"], **options
        )


def picture() -> Any:
    import torch

    torch.manual_seed(0)
    return torch.rand(1, 3, HEIGHT, WIDTH)


# Of libraries -------------------------------------------------------------------------------------------------------


def lraspp(path: Path) -> None:
    """torchvision, opset 11, any number of pictures."""
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    x = picture()
    net = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)
    export(net, (x,), path, ["out"], dynamo=False, opset_version=11, dynamic_axes={"image": {0: "batch"}})


def deeplab(path: Path) -> None:
    """torchvision, of one picture, with a second output for training."""
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

    x = picture()
    net = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5, aux_loss=True)
    export(net, (x,), path, ["out", "aux"], opset_version=18)


def smp_unet(path: Path) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    x = picture()
    export(smp.Unet("mobilenet_v2", encoder_weights=None, classes=5), (x,), path, ["mask"], opset_version=18)


def smp_one_class(path: Path) -> None:
    """One class by sigmoid, of any size."""
    smp = pytest.importorskip("segmentation_models_pytorch")
    x = picture()
    net = smp.FPN("resnet18", encoder_weights=None, classes=1, activation="sigmoid")
    axes = {"image": {0: "batch", 2: "height", 3: "width"}}
    export(net, (x,), path, ["mask"], dynamo=False, opset_version=12, dynamic_axes=axes)


def segformer(path: Path) -> None:
    """transformers: logits at a quarter of the size, of any size."""
    transformers = pytest.importorskip("transformers")
    x = picture()
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 48, 64], num_attention_heads=[1, 2, 3, 4], decoder_hidden_size=32,
        num_labels=5,
    )  # fmt: skip
    net = _outputs_of(transformers.SegformerForSemanticSegmentation(config), "logits")
    axes = {"image": {0: "batch", 2: "height", 3: "width"}}
    export(net, (x,), path, ["logits"], dynamo=False, opset_version=14, dynamic_axes=axes)


def yolos(path: Path) -> None:
    """transformers: DETR's outputs, of one picture."""
    transformers = pytest.importorskip("transformers")
    x = picture()
    config = transformers.YolosConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=[HEIGHT, WIDTH],
        num_detection_tokens=30, num_labels=5,
    )  # fmt: skip
    net = _outputs_of(transformers.YolosForObjectDetection(config), "logits", "pred_boxes")
    export(net, (x,), path, ["logits", "pred_boxes"], opset_version=18)


def retinanet(path: Path) -> None:
    """torchvision: its own scaling, anchors and ONNX's suppression, over a small backbone; no axis of pictures."""
    import torch
    from torch import nn
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    torch.manual_seed(0)
    backbone: Any = nn.Sequential(nn.Conv2d(3, 16, 5, 4, 2), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1))
    backbone.out_channels = 16
    net = RetinaNet(
        backbone, 6, min_size=HEIGHT, max_size=WIDTH, anchor_generator=AnchorGenerator(((24, 40),), ((0.5, 1.0, 2.0),)),
        score_thresh=0.3, detections_per_img=30,
    )  # fmt: skip
    nn.init.normal_(net.head.classification_head.cls_logits.weight, 0, 4.0)
    nn.init.zeros_(net.head.classification_head.cls_logits.bias)
    export(net, ([torch.rand(3, HEIGHT, WIDTH)],), path, ["boxes", "scores", "labels"], dynamo=False, opset_version=17)


def _outputs_of(model: Any, *names: str) -> Any:
    from torch import nn

    class Outputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: Any) -> Any:
            answers = self.model(pixel_values=image, return_dict=True)
            return tuple(answers[name] for name in names)

    return Outputs()


# Of forms whose libraries' licences or weights keep them out ---------------------------------------------------------


def grid(form: str, middle: int = 0) -> Callable[[Path], None]:
    """A detector over cells of four pixels whose outputs are of a form; see `answer` for which. It has as many layers
    in the middle as asked for."""

    def make(path: Path) -> None:
        import torch
        from torch import nn

        class Grid(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.stem, self.head = nn.Conv2d(3, 16, 5, 4, 2), nn.Conv2d(16, 10, 3, 1, 1)
                for layer in (self.stem, self.head):
                    nn.init.normal_(layer.weight, 0, 0.4)
                self.middle = nn.Sequential(*[nn.Conv2d(16, 16, 1) for _ in range(middle)])
                y, x = torch.meshgrid(torch.arange(HEIGHT // 4), torch.arange(WIDTH // 4), indexing="ij")
                self.register_buffer("cells", (torch.stack([x, y], -1).reshape(1, -1, 2) + 0.5) * 4)

            def forward(self, image: Any) -> Any:
                maps = self.head(self.middle(torch.relu(self.stem(image))))
                if form == "centernet":
                    return torch.sigmoid(maps[:, :5] - 2), maps[:, 5:7].abs() * 5 + 2, torch.sigmoid(maps[:, 7:9])
                return answer(form, maps.flatten(2).transpose(1, 2), self.cells)

        torch.manual_seed(1)
        names = {
            "v5": ["output"], "v8": ["output0"], "v10": ["output0"], "rt-detr": ["labels", "boxes", "scores"],
            "mmdet": ["dets", "labels"], "ssd": ["scores", "boxes"], "centernet": ["hm", "wh", "reg"],
        }  # fmt: skip
        export(Grid(), (picture(),), path, names[form], dynamo=False, opset_version=12)

    return make


def answer(form: str, cells: Any, places: Any) -> Any:
    """Ten numbers a cell in the form of a family of detectors."""
    import torch

    centre, size = places + torch.tanh(cells[..., :2]) * 8, torch.exp(cells[..., 2:4].clamp(-2, 2)) * 14
    sure, scores = torch.sigmoid(cells[..., 4:5]), torch.sigmoid(cells[..., 5:])
    if form == "v5":
        return torch.cat([centre, size, sure, scores], -1)
    if form == "v8":
        return torch.cat([centre, size, scores], -1).transpose(1, 2)
    corners = torch.cat([centre - size / 2, centre + size / 2], -1)
    if form == "ssd":  # the first of six classes is nothing
        return torch.softmax(cells[..., 4:] * 2, -1), corners / torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    likely, labels = (scores * sure).max(-1)
    likely, chosen = likely.topk(50, 1)
    corners, labels = corners.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 4)), labels.gather(1, chosen)
    if form == "v10":
        return torch.cat([corners, likely.unsqueeze(-1), labels.unsqueeze(-1).float()], -1)
    if form == "mmdet":
        return torch.cat([corners, likely.unsqueeze(-1)], -1), labels
    return labels, corners, likely


def tensorflow(path: Path) -> None:
    """uint8 N×H×W×3 in, an int64 class map of half the size out, opset 13: the brightest colour of four pixels."""
    nodes = [
        helper.make_node("Cast", ["image:0"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["smaller"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("ArgMax", ["smaller"], ["classes:0"], axis=1, keepdims=0),
    ]
    _save(path, nodes, ("image:0", TensorProto.UINT8, [1, HEIGHT, WIDTH, 3]), {"classes:0": TensorProto.INT64}, [], 13)


def padded_table(path: Path) -> None:
    """TensorFlow's detectors: boxes y x y x as fractions, classes from 1 as float, and how many are meant."""
    boxes = np.array([[[0.1, 0.2, 0.5, 0.6], [0.3, 0.1, 0.9, 0.4], [0, 0, 1, 1], [0, 0, 1, 1]]], np.float32)
    weights = [
        numpy_helper.from_array(boxes, "base"),
        numpy_helper.from_array(np.array([[1, 3, 1, 1]], np.float32), "labels"),
        numpy_helper.from_array(np.array([[0.9, 0.7, 0.6, 0.6]], np.float32), "likely"),
        numpy_helper.from_array(np.array([2], np.float32), "two"),
        numpy_helper.from_array(np.array(0, np.float32), "zero"),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        *(
            helper.make_node("Add", [given, "nothing"], [name])
            for given, name in (
                ("base", "detection_boxes"), ("labels", "detection_classes"), ("likely", "detection_scores"),
                ("two", "num_detections"),
            )
        ),
    ]  # fmt: skip
    outputs = dict.fromkeys(
        ["detection_boxes", "detection_classes", "detection_scores", "num_detections"], TensorProto.FLOAT
    )
    _save(path, nodes, ("image", TensorProto.UINT8, [1, HEIGHT, WIDTH, 3]), outputs, weights, 13)


def _save(
    path: Path, nodes: list[Any], given: tuple[str, int, list[Any]], outputs: dict[str, int], weights: list[Any],
    opset: int,
) -> None:  # fmt: skip
    graph = helper.make_graph(
        nodes, "foreign", [helper.make_tensor_value_info(*given)],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()], weights,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)


IMAGENET, UNIT = ("--pixels", "imagenet"), ("--pixels", "unit")
SIZE = ("--size", f"{WIDTH}x{HEIGHT}")

KINDS = {
    "torchvision-lraspp": Kind(lraspp, IMAGENET, "segmentation", found={"opset": "11, raised to 18"}),
    "torchvision-deeplab": Kind(deeplab, IMAGENET, "segmentation", found={"left out": "`aux`"}),
    "smp-unet": Kind(smp_unet, IMAGENET, "segmentation"),
    "smp-one-class": Kind(smp_one_class, (*IMAGENET, *SIZE), "segmentation", "one"),
    "transformers-segformer": Kind(segformer, (*IMAGENET, *SIZE), "segmentation"),
    "tensorflow-class-map": Kind(tensorflow, (), "segmentation", "three", found={"layout": "nhwc"}),
    "transformers-yolos": Kind(
        yolos, IMAGENET, "localization", found={"background": "last", "scores": "softmax, of 6"}
    ),
    "torchvision-retinanet": Kind(
        retinanet, ("--background", "first"), "localization", found={"pixels": "0 to 1: its graph scales by itself"}
    ),
    "yolo-v5": Kind(grid("v5"), UNIT, "localization", found={"boxes": "cxcywh", "unit of boxes": "pixels"}),
    "yolo-v8": Kind(grid("v8"), UNIT, "localization", found={"suppression": "of a class, from an IoU of 0.6"}),
    "yolo-v8-padded": Kind(grid("v8"), (*UNIT, "--size", "128x72"), "localization", size=(128, 72)),
    "yolo-v10": Kind(grid("v10"), UNIT, "localization", found={"boxes": "xyxy", "suppression": "none"}),
    "rt-detr": Kind(grid("rt-detr"), UNIT, "localization"),
    "mmdetection": Kind(grid("mmdet"), UNIT, "localization"),
    "ssd": Kind(grid("ssd"), UNIT, "localization", found={"background": "first", "unit of boxes": "fractions"}),
    "centernet": Kind(grid("centernet"), UNIT, "localization"),
    "tensorflow-detector": Kind(
        padded_table, ("--boxes", "yxyx", "--background", "first"), "localization", found={"pixels": "0 to 255"}
    ),
}
