"""Every kind of model as a network to explain, with random weights: shapes, names, targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from engines.errors import ModelError, UsageError
from engines.spec import ModelSpec, embed_spec, read_spec
from tests.engines.tiny_models import CLASSES, CONV, LOCALIZER, conv_model, corners_model, save
from training.explain.heat.layers import choose_layer
from training.explain.heat.methods import heat_map
from training.explain.heat.occlusion import Occlusion
from training.explain.networks.checkpoints import as_network
from training.explain.networks.classifiers import open_classifier
from training.explain.networks.graphs import open_graph
from training.explain.networks.network import Network, to_tensor
from training.explain.networks.opening import open_network
from training.explain.targets import choose_target
from training.models.encoder import make_encoder
from training.models.localizer import Localizer
from training.models.unet import UNet


def noise(network: Network) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return to_tensor(rng.integers(0, 256, (network.height, network.width, 3), dtype=np.uint8))


def check_maps(network: Network, target: str | None, layer: str, **region: tuple[float, float, float, float]) -> None:
    """The contract: finite maps of the input's size by every method, and Grad-CAM at the layer it is wanted at."""
    x = noise(network)
    with torch.no_grad():
        answers = network(x)
    assert answers.keys() == network.heads.keys()
    for name, head in network.heads.items():
        size = (network.height, network.width) if head.kind == "pixels" else ()
        assert answers[name].shape == (1, len(head.names), *size)
    chosen = choose_target(network, answers, target, **region)
    assert choose_layer(network, chosen).name == layer
    half = Occlusion(network.height // 2, network.height // 2)
    for method in ("gradient", "gradcam", "occlusion"):
        heat = heat_map(network, x, chosen, method, occlusion=half)
        assert heat.shape == (network.height, network.width)
        assert heat.dtype == np.float32
        assert np.isfinite(heat).all()
        # With random weights what Grad-CAM finds may all speak against the target, and MobileNetV2's answer to a square
        # fall by less than a float can say.
        assert method != "gradient" or heat.any()


def test_a_classifier_of_torchvision() -> None:
    network = open_classifier("resnet18", "random", size=64)
    assert network.heads["class"].names[281] == "tabby"
    check_maps(network, "tabby", "layer4")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("vgg16", "features.29"),
        ("mobilenet_v2", "features"),
        ("densenet121", "features"),
        ("squeezenet1_1", "classifier.2"),
    ],
)
def test_other_classifiers_of_torchvision(name: str, layer: str) -> None:
    check_maps(open_classifier(name, "random", size=96), "1", layer)


@pytest.mark.seconds
def test_a_classifier_from_a_file(tmp_path: Path) -> None:
    import torchvision

    torch.save(torchvision.models.squeezenet1_1(num_classes=3).state_dict(), tmp_path / "three.pth")
    network = open_classifier("squeezenet1_1", str(tmp_path / "three.pth"), "symmetric", 64)
    assert network.heads["class"].names == ("0", "1", "2")
    assert network.normalise(torch.tensor([0.0, 255.0]).reshape(2, 1, 1, 1).expand(2, 3, 1, 1)).unique().tolist() == [
        -1,
        1,
    ]
    with pytest.raises(ModelError, match=r"does not fit alexnet: .* give a state dict of torchvision's alexnet"):
        open_classifier("alexnet", str(tmp_path / "three.pth"))


def test_the_input_of_published_weights() -> None:
    network = open_classifier("squeezenet1_1", "random")
    assert (network.height, network.width) == (224, 224)
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1) * 255
    assert network.normalise(mean).abs().max() < 1e-6


def test_a_segmenter_over_a_region() -> None:
    torch.manual_seed(0)
    model = UNet(make_encoder("mobilenet_v2"), 3, (16, 16, 16, 16))
    network = as_network("unet", model, ("road", "sky", "car"), 64, 96)
    check_maps(network, "car", "decoder.1", region=(0, 0, 0.5, 0.5))
    with torch.no_grad():
        answers = network(noise(network))
    default = choose_target(network, answers)
    assert default.index == int(answers["pixels"][0].argmax(0).flatten().bincount().argmax())
    assert default.pixels is not None
    assert (default.pixels == (answers["pixels"][0].argmax(0) == default.index)).all()
    corner = choose_target(network, answers, "sky", region=(0, 0, 0.25, 0.5))
    assert float(corner.score(answers)) == pytest.approx(float(answers["pixels"][0, 1, :32, :24].mean()))


@pytest.mark.seconds
def test_a_localizer() -> None:
    torch.manual_seed(0)
    model = Localizer(make_encoder("mobilenet_v2"), presence=True, classes=(2, 3))
    named = as_network("pet", model, (), 64, 64, {"species": ("cat", "dog"), "breed": ("pug", "dog", "beagle")})
    assert [head for head in named.heads if named.heads[head].kind == "class"] == ["species", "breed"]
    with torch.no_grad():
        answers = named(noise(named))
    with pytest.raises(UsageError, match=r"dog is the name of 2 targets; say which: species=1 or breed=1"):
        choose_target(named, answers, "dog")
    for text in ("breed=dog", "breed=1"):
        assert (choose_target(named, answers, text).head, choose_target(named, answers, text).index) == ("breed", 1)
    network = as_network("pet", model, ("cat", "dog"), 64, 64)
    assert network.heads["class1"].names == ("cat", "dog")
    assert network.heads["class2"].names == ("0", "1", "2")
    check_maps(network, None, "encoder.features.17")  # presence
    check_maps(network, "dog", "encoder.features.17")
    check_maps(network, "x0", "reduce")
    with pytest.raises(UsageError, match=r"no target wolf; it has .*x0, y0, x1, y1.*presence.*2 classes"):
        choose_target(network, network(noise(network)), "wolf")
    with pytest.raises(UsageError, match="x0 is a coordinate, not a class: it has no probability"):
        choose_target(network, network(noise(network)), "x0", "probability")


def test_an_exported_segmenter_is_explained_by_its_scores(tmp_path: Path) -> None:
    path = save(conv_model(), CONV, tmp_path / "conv.onnx")
    network = open_graph(path)
    check_maps(network, "class 3", "graph._conv2d_2", region=(0, 0, 1, 1))
    from engines.pytorch.graph import to_torch

    x = noise(network)
    said = to_torch(onnx.load(path))(x.permute(0, 2, 3, 1).to(torch.uint8))[0]
    assert (network(x)["pixels"].argmax(1) == said).all()


def with_end(operator: str, resized: bool = False) -> onnx.ModelProto:
    """The small segmenter, whose graph ends in this before its arg-max."""
    model = conv_model()
    place = next(i for i, node in enumerate(model.graph.node) if node.op_type == "ArgMax")
    axis = {"axis": 1} if operator == "Softmax" else {}
    nodes = [helper.make_node(operator, ["scores"], ["squashed"], **axis)]
    if resized:
        model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 1, 1], np.float32), "once"))
        nodes.append(helper.make_node("Resize", ["squashed", "", "once"], ["resized"], mode="linear"))
    model.graph.node[place].input[0] = nodes[-1].output[0]
    for node in reversed(nodes):
        model.graph.node.insert(place, node)
    return model


@pytest.mark.parametrize(("operator", "resized"), [("Softmax", False), ("Softmax", True), ("Sigmoid", False)])
def test_a_segmenter_that_ends_in_probabilities_is_not_squashed_twice(
    operator: str, resized: bool, tmp_path: Path
) -> None:
    path = save(with_end(operator, resized), CONV, tmp_path / "m.onnx")
    network, plain = open_graph(path), open_graph(save(conv_model(), CONV, tmp_path / "p.onnx"))
    x = noise(plain)
    scores = plain(x)["pixels"]
    true = (scores.softmax(1) if operator == "Softmax" else scores.sigmoid())[:, 3].mean()
    said = choose_target(network, network(x), "class 3", "probability", region=(0, 0, 1, 1)).score(network(x))
    assert float(said) == pytest.approx(float(true), abs=1e-4)
    # Of a logit what counts is how it differs from the others.
    differences = []
    for each in (network, plain):
        answers = each(x)
        three, two = (
            choose_target(each, answers, f"class {i}", region=(0, 0, 1, 1)).score(answers) for i in (3, 2)
        )  # fmt: skip
        differences.append(float(three - two))
    assert differences[0] == pytest.approx(differences[1], abs=1e-3)


class EndsInSoftmax(UNet):
    """A network of somebody's, whose scores are probabilities."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).softmax(1)


def test_a_checkpoints_network_that_ends_in_a_softmax_is_not_squashed_twice() -> None:
    torch.manual_seed(0)
    body = EndsInSoftmax(make_encoder("mobilenet_v2"), 4, (8, 8, 8, 8))
    network = as_network("own", body, tuple("abcd"), 64, 64)
    x = noise(network)
    with torch.no_grad():
        answers = network(x)
    target = choose_target(network, answers, "c", "probability", region=(0, 0, 1, 1))
    assert float(target.score(answers)) == pytest.approx(float(answers["pixels"][0, 2].mean()), abs=1e-5)
    logit = choose_target(network, answers, "c", "logit", region=(0, 0, 1, 1))
    assert float(logit.score(answers)) < 0


def test_an_exported_localizer_is_explained_before_its_sigmoid(tmp_path: Path) -> None:
    network = open_graph(save(corners_model(), LOCALIZER, tmp_path / "corners.onnx"))
    x = noise(network)
    answers = network(x)
    # Without a sigmoid in the graph the logit of the score: row 0's fifth value over 256.
    score = x[0].permute(1, 2, 0).reshape(16, -1)[0, 4] / 256
    assert float(answers["presence"]) == pytest.approx(float(score.logit()), rel=1e-4)
    assert answers["box"].shape == (1, 4)

    model = corners_model()
    model.graph.node.append(helper.make_node("Sigmoid", ["scores"], ["squashed"]))
    model.graph.output.append(helper.make_tensor_value_info("squashed", TensorProto.FLOAT, ["N", 2]))
    spec = ModelSpec(
        name="s", version="1", task="localization", height=16, width=32, classes=CLASSES[:1],
        outputs={"boxes": "boxes", "scores": "squashed"},
    )  # fmt: skip
    embed_spec(model, spec)
    onnx.save(model, tmp_path / "sigmoid.onnx")
    assert float(open_graph(tmp_path / "sigmoid.onnx")(x)["presence"]) == pytest.approx(float(score))


@pytest.mark.parametrize("name", ["cityscapes-unet", "cityscapes-pspnet"])
@pytest.mark.slow
def test_bundled_models(name: str) -> None:
    network = open_network(name)
    x = noise(network)
    with torch.no_grad():
        target = choose_target(network, network(x))
    assert choose_layer(network, target).shape[1] in (16, 32)
    assert heat_map(network, x, target, "gradcam").shape == (256, 256)


@pytest.mark.parametrize(
    ("model", "options", "error", "sentence"),
    [
        ("vgg_16", {}, ModelError, "there is no model vgg_16, the nearest is vgg16; give a .ckpt, an .onnx"),
        ("none.ckpt", {}, ModelError, "there is no checkpoint none.ckpt"),
        ("none.onnx", {}, ModelError, "There is no model file none.onnx"),
        ("cityscapes-unet", {"weights": "x.pth"}, UsageError, "--weights is for torchvision's classifiers"),
        ("vgg16", {"weights": "none.pth"}, ModelError, "there is no weights file none.pth"),
    ],
)
def test_models_that_are_not_there(model: str, options: dict[str, str], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence) as caught:
        open_network(model, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("state", [{}, {"seen": torch.tensor(3)}], ids=["nothing", "a number last"])
def test_weights_of_no_classifier_are_refused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ModelError, match=r"x\.pth does not fit mobilenet_v2: Missing key"):
        open_network("mobilenet_v2", str(tmp_path / "x.pth"))


def test_a_quantised_file_is_refused(tmp_path: Path) -> None:
    from engines.bundled import int8_file, resolve

    twin = int8_file(resolve("cityscapes-unet"))
    if not twin.is_file() or read_spec(twin).precision != "int8":
        pytest.skip("no int8 twin is bundled")
    with pytest.raises(ModelError, match=r"is in int8, and rounding has no gradient; take .*cityscapes-unet.onnx"):
        open_graph(twin)
