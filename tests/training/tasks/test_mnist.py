"""The tasks made of MNIST: trained for a step or two, scored, exported, and what their scores mean."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch

from engines.errors import UsageError
from engines.pytorch.graph import to_torch
from engines.spec import read_spec
from tests.training.data.test_mnist import write_mnist
from training.catalogue import open_task, read_recipe
from training.checkpoint import open_checkpoint
from training.data.mnist import BACKGROUND, Digits
from training.evaluation.opening import open_predictor
from training.evaluation.predictor import evaluate
from training.export import export
from training.loop.run import train
from training.models.circle_net import CircleNet
from training.models.compact_unet import CompactUNet, GreyLevels, grey_input
from training.tasks.mnist_circles import EncircledDigits, MnistCircles, circles_of
from training.tasks.mnist_segmentation import MnistSegmentation

RECIPES = ("mnist-foreground", "mnist-circles", "mnist-mosaics")
TINY = ("steps=2", "batch=4", "evaluate_every=2", "checkpoint_every=2", "report_every=1", "precision=32-true")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 training digits, 4 of them `dev`, and 12 of `test`."""
    return write_mnist(tmp_path_factory.mktemp("mnist"))


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_trained_scored_and_exported_like_any_task(name: str, folder: Path, tmp_path: Path) -> None:
    recipe = read_recipe(name, [*TINY, "widths=[8,8,8]" if name != "mnist-foreground" else "widths=[8,8]"])
    train(recipe, folder, tmp_path / "run", say=lambda _: None)
    checkpoint = tmp_path / "run" / "best.ckpt"
    task, model = open_checkpoint(checkpoint)
    path = tmp_path / f"{name}.onnx"
    side = recipe.height
    spec = task.spec(side, side, "1", ())
    # With the confidence, without which an exported segmenter cannot say where no class is above one half.
    outputs = {**spec.outputs, **{role: role for role in task.optional_outputs}}
    export(task, model, msgspec.structs.replace(spec, outputs=outputs), path)
    assert read_spec(path).name == name
    to_torch(onnx.load(path))  # which runs it on a GPU without TensorRT
    results = []
    for file in (checkpoint, path):
        with open_predictor(str(file), "fp32") as predictor:
            data = predictor.task.load(folder, "test", size=(side, side))
            results.append(evaluate(predictor, data, "test"))
    told, exported = results
    assert told.pictures == (3 if name == "mnist-mosaics" else 12)
    assert "jaccard" in told.headline()
    for key, figure in told.headline().items():
        assert exported.headline()[key].value == pytest.approx(figure.value, abs=2e-3)


@pytest.mark.seconds
def test_dropout_is_the_same_in_a_resumed_run(folder: Path, tmp_path: Path) -> None:
    recipe = read_recipe("mnist-circles", [*TINY, "steps=3", "checkpoint_every=1", "widths=[8,8,8]"])
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    broken.mkdir()

    def keep_the_second(line: str) -> None:
        if line.startswith("step 3/3  loss"):  # said before its own checkpoint is written
            shutil.copy(whole / "last.ckpt", broken)

    expected = torch.load(train(recipe, folder, whole, say=keep_the_second), weights_only=True)
    assert torch.load(broken / "last.ckpt", weights_only=True)["global_step"] == 2
    resumed = torch.load(train(recipe, folder, broken, resume=True, say=lambda _: None), weights_only=True)
    torch.testing.assert_close(resumed["state_dict"], expected["state_dict"], rtol=0, atol=0)


def test_the_last_step_is_evaluated_whatever_the_interval(folder: Path, tmp_path: Path) -> None:
    recipe = read_recipe("mnist-circles", [*TINY, "steps=3", "widths=[8,8,8]"])
    assert recipe.evaluate_every == 2
    lines: list[str] = []
    train(recipe, folder, tmp_path / "run", say=lines.append)
    assert [line.split(":")[0] for line in lines if "dev" in line] == ["step 2/3  dev", "step 3/3  dev"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_view_is_a_function_of_the_generator(name: str, folder: Path) -> None:
    task = open_task(read_recipe(name))
    view = task.views(task.load(folder, "fit"))
    first, second, other = (view(3, np.random.default_rng(seed)) for seed in (0, 0, 1))
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("mnist-foreground", "height=56", "digits are 28×28 pixels, not 56×28"),
        ("mnist-mosaics", "width=28", "mosaics are 56×56 pixels, not 56×28"),
        ("mnist-foreground", "widths=[8,8,8]", "28 pixels cannot be"),
        ("mnist-circles", "height=32", "digits are 28×28 pixels"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(name: str, change: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        open_task(read_recipe(name, [change])).check()


@pytest.mark.parametrize("name", RECIPES)
def test_a_model_of_another_size_is_refused(name: str, folder: Path) -> None:
    with pytest.raises(UsageError, match="32×32"):
        open_task(read_recipe(name)).load(folder, "test", size=(32, 32))


# Scores -------------------------------------------------------------------------------------------------------------


def test_the_truth_scores_one(folder: Path) -> None:
    for name in ("mnist-foreground", "mnist-mosaics"):
        task = open_task(read_recipe(name))
        data = task.load(folder, "test")
        sure = np.full(data.labels.shape, 255, np.uint8)
        rows = task.measure({"class_map": data.labels, "confidence": sure}, data, range(len(data)))
        scores = task.scores(rows)
        assert {scores[key] for key in ("jaccard", "mean_iou", "ink_iou", "accuracy")} == {1.0}
    circles = open_task(read_recipe("mnist-circles"))
    data = circles.load(folder, "test")
    scores = circles.scores(circles.measure(as_outputs(data.digits.circles, data.digits.labels), data, range(12)))
    assert all(value == pytest.approx(1) for value in scores.values())


def as_outputs(circles: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """The role's outputs of circles in pixels."""
    middle, radius = circles[:, :2], circles[:, 2:]
    boxes = np.concatenate([middle - radius, middle + radius], axis=1)[:, None] / 28
    return {"boxes": boxes, "labels": labels[:, None].astype(np.int32)}


def test_a_circle_counts_only_where_the_class_is_right() -> None:
    pictures = np.zeros((2, 28, 28), np.uint8)
    pictures[:, 9, 4:25] = 255  # a line, with a circle of radius 10 about (14.5, 9.5)
    data = EncircledDigits(Digits(pictures, np.array([1, 1], np.uint8)), "test")
    truth = data.digits.circles
    np.testing.assert_allclose(truth, [[14.5, 9.5, 10]] * 2, atol=1e-3)
    task = open_task(read_recipe("mnist-circles"))
    assert isinstance(task, MnistCircles)
    halves = truth * [1, 1, 0.5]  # a quarter of the area
    rows = task.measure(as_outputs(np.stack([truth[0], halves[1]]), np.array([7, 1])), data, [0, 1])
    scores = task.scores(rows)
    assert scores["accuracy"] == 0.5
    assert scores["circle_iou"] == pytest.approx((0 + 0.25) / 2, abs=1e-4)
    assert scores["circle_iou/whatever the class"] == pytest.approx((1 + 0.25) / 2, abs=1e-4)
    assert scores["pooled_iou"] == pytest.approx(0.25 / 2, abs=1e-4)
    alone = [task.scores(rows[[i]])[task.score] for i in range(2)]
    np.testing.assert_allclose(alone, [0, 0.25], atol=1e-4)


def test_a_pixel_without_a_class_above_one_half_is_in_no_mask(folder: Path) -> None:
    task = open_task(read_recipe("mnist-mosaics"))
    assert isinstance(task, MnistSegmentation)
    data = task.load(folder, "test")
    unsure = np.full(data.labels.shape, 255, np.uint8)
    unsure[:, 0] = 127
    rows = task.measure({"class_map": data.labels, "confidence": unsure}, data, range(len(data)))
    scores = task.scores(rows)
    assert scores["mean_iou"] == 1.0
    assert scores["jaccard"] == pytest.approx(55 / 56)
    assert scores["jaccard_of_likeliest"] == 1.0
    assert (data.labels[:, 0] == BACKGROUND).all()


def test_the_square_of_a_circle_gives_it_back() -> None:
    circles = np.array([[14.0, 13.0, 9.5], [3.0, 20.0, 13.0]])
    np.testing.assert_allclose(circles_of(as_outputs(circles, np.zeros(2))["boxes"][:, 0]), circles)


# Networks -----------------------------------------------------------------------------------------------------------


def test_grey_and_rgb_are_the_same_input() -> None:
    grey = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    found = grey_input(grey)
    assert found.shape == (1, 1, 16, 16)
    assert (found.min(), found.max()) == (-1, 1)
    torch.testing.assert_close(grey_input(grey.unsqueeze(-1).expand(-1, -1, -1, 3)), found)


def test_grey_levels_do_not_depend_on_where_the_pixels_are() -> None:
    levels = GreyLevels(8, 5).eval()
    x = torch.rand(2, 1, 6, 6) * 2 - 1
    shuffled = x.flatten(2)[..., torch.randperm(36)].reshape(x.shape)
    torch.testing.assert_close(levels(x), levels(shuffled))
    assert levels(x).shape == (2, 5, 1, 1)


@pytest.mark.parametrize(("classes", "side", "widths"), [(1, 28, (8, 12)), (11, 56, (8, 12, 16)), (3, 8, (4,))])
def test_the_unet_scores_every_pixel(classes: int, side: int, widths: tuple[int, ...]) -> None:
    model = CompactUNet(classes, widths)
    logits = model(torch.zeros(2, 1, side, side))
    assert logits.shape == (2, classes, side, side)
    logits.square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_first_circle_is_in_the_middle_and_none_leaves_its_bounds() -> None:
    model = CircleNet(widths=(8, 8, 8)).eval()
    found = model(torch.rand(3, 1, 28, 28))
    np.testing.assert_allclose(found.circles.detach(), [[14, 14, 28 / 8**0.5]] * 3, rtol=1e-5)
    assert (found.classes.shape, found.ink.shape) == ((3, 10), (3, 28, 28))


def test_one_name_has_one_rule_whether_a_model_says_how_sure_it_is_or_not(folder: Path) -> None:
    mosaics, digits = open_task(read_recipe("mnist-mosaics")), open_task(read_recipe("mnist-foreground"))
    data = mosaics.load(folder, "test")
    with_and_without = []
    for more in ({"confidence": np.full(data.labels.shape, 100, np.uint8)}, {}):
        rows = mosaics.measure({"class_map": data.labels, **more}, data, range(len(data)))
        with_and_without.append(mosaics.scores(rows))
    assert with_and_without[0]["jaccard"] == 0.0  # nothing has more than one half
    assert np.isnan(with_and_without[1]["jaccard"])  # who knows
    assert [scores["jaccard_of_likeliest"] for scores in with_and_without] == [1.0, 1.0]
    # Of ink and background one always has one half, so nothing is in doubt.
    sheets = digits.load(folder, "test")
    scores = digits.scores(digits.measure({"class_map": sheets.labels}, sheets, range(len(sheets))))
    assert scores["jaccard"] == 1.0
