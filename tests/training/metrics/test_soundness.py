"""What cannot be scored is refused, with the picture and the classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engines.classes import ClassInfo
from engines.errors import ModelError, SourceError
from engines.spec import ModelSpec, embed_spec
from tests.training.metrics.test_segmentation import some_pairs
from training.catalogue import open_task, read_recipe
from training.evaluation.predictor import Predictor, evaluate
from training.metrics.masks import confusions
from training.metrics.segmentation import confusion_matrix
from training.metrics.soundness import require_sound

CLASSES = (ClassInfo(0, "road", (0, 0, 0)), ClassInfo(1, "sky", (0, 0, 255)))
BOX = [[0.1, 0.1, 0.5, 0.5]]


@pytest.mark.parametrize(
    ("outputs", "sentence"),
    [
        (
            {"class_map": np.full((2, 3, 3), 2, np.uint8)},
            "mine says class 2 on a.jpg, and its classes are 0 road, 1 sky",
        ),
        ({"labels": np.array([[0], [-1]], np.int32)}, "mine says class -1 on b.jpg"),
        ({"labels": np.array([[0], [255]], np.int32)}, "mine says class 255 on b.jpg"),
        ({"labels": np.array([[300], [0]], np.int32)}, "mine says class 300 on a.jpg"),
        ({"scores": np.array([[0.2], [1.5]])}, "mine gives a score of 1.5 on b.jpg, and a score is 0 to 1"),
        ({"scores": np.array([[0.2], [np.nan]])}, "mine gives a score of nan on b.jpg"),
        ({"boxes": np.array([BOX, [[0, 0, 640, 480]]])}, "mine gives a box with an edge at 640 on b.jpg"),
        ({"boxes": np.array([BOX, [[0, np.nan, 1, 1]]])}, "mine gives a box with an edge at nan on b.jpg"),
    ],
)
def test_what_is_no_answer(outputs: dict[str, np.ndarray], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        require_sound(outputs, CLASSES, "mine", ("a.jpg", "b.jpg"))


def test_what_is_one() -> None:
    require_sound({"class_map": np.full((2, 3, 3), 255, np.uint8)}, CLASSES, "mine", ("a.jpg", "b.jpg"))
    outputs = {"class_map": np.ones((2, 3, 3), np.uint8), "boxes": np.array([BOX, [[-0.1, 0, 1.2, 1]]]),
               "scores": np.array([[0.0], [1.0]]), "map": np.full((2, 4, 4), np.nan)}  # fmt: skip
    require_sound(outputs, CLASSES, "mine", ("a.jpg", "b.jpg"))


def test_a_class_beyond_the_spec_does_not_move_the_truth() -> None:
    pairs, _ = some_pairs(3)
    task = open_task(read_recipe("cityscapes-unet"))
    model = Predictor(task, lambda photos: {"class_map": photos[..., 0] * 0 + 25}, "mine", "test", "fp32", 32, 32)
    with pytest.raises(
        ModelError, match=r"mine says class 25 on .*, and its classes are 0 road, 1 sidewalk, …, 18 bic"
    ):
        evaluate(model, pairs, "val")


@pytest.mark.parametrize("count", [confusion_matrix, confusions])
def test_a_confusion_matrix_has_room_for_its_classes_only(count: object) -> None:
    assert callable(count)
    zeros, beyond = np.zeros((1, 2, 2), np.uint8), np.full((1, 2, 2), 3, np.uint8)
    with pytest.raises(ModelError, match="the model says class 3, and there are 3"):
        count(zeros, beyond, 3)
    with pytest.raises(SourceError, match="a label holds class 3, and there are 3"):
        count(beyond, zeros, 3)


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("ReduceMax", ["images"], ["map"], axes=[3], keepdims=0)], "g",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 4, 4, 3])],
        [helper.make_tensor_value_info("map", TensorProto.UINT8, ["n", 4, 4])],
    )  # fmt: skip
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    twice = (CLASSES[0], ClassInfo(1, "road", (1, 1, 1)))
    spec = ModelSpec(
        name="m", version="1", task="segmentation", height=4, width=4, classes=twice, outputs={"class_map": "map"}
    )  # fmt: skip
    with pytest.raises(ModelError, match="two of its classes are called 'road'"):
        embed_spec(model, spec)
