"""The check before an export, on lists of objects: which of several as good as equal are listed is nobody's fault."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from engines.classes import ClassInfo
from engines.novelty.distance import Distance, figures
from engines.spec import ModelSpec
from training.export import FAMILIAR, _difference_of_lists, with_familiar

SPEC = ModelSpec(
    name="objects", version="1", task="localization", height=32, width=32,
    classes=(ClassInfo(0, "car", (1, 2, 3), True), ClassInfo(1, "van", (4, 5, 6), True)),
    outputs={"boxes": "boxes", "scores": "scores", "labels": "labels"},
)  # fmt: skip

Lists = dict[str, NDArray[Any]]


def lists(scores: list[float], labels: list[int], firsts: list[int]) -> Lists:
    """One picture's objects; each box is known by the number that it starts with."""
    boxes = np.array([[0.01 * first, 0, 0.5, 0.5] for first in firsts], np.float32)
    return {
        "boxes": boxes[None],
        "scores": np.array([scores], np.float32),
        "labels": np.array([labels], np.int32),
    }


EXPECTED = lists([0.9, 0.5, 0.1], [0, 1, 0], [1, 2, 3])
CANDIDATES = lists([0.9, 0.5, 0.1, 0.1, 0.05], [0, 1, 0, 1, 0], [1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    "found",
    [
        EXPECTED,
        lists([0.5, 0.9, 0.1], [1, 0, 0], [2, 1, 3]),  # in another order
        lists([0.9, 0.5, 0.1], [0, 1, 1], [1, 2, 4]),  # the other one of two that are as likely comes last
    ],
)
def test_objects_that_are_the_models(found: Lists) -> None:
    assert _difference_of_lists(SPEC, found, EXPECTED, CANDIDATES) is None


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (lists([0.9, 0.5, 0.1], [0, 0, 0], [1, 2, 3]), "50.0% of the objects"),  # another class
        (lists([0.9, 0.5, 0.1], [0, 1, 0], [1, 9, 3]), "50.0% of the objects"),  # another box
        (lists([0.9, 0.3, 0.1], [0, 1, 0], [1, 2, 3]), "`scores` differs"),
        (lists([0.5, 0.1, 0.1], [1, 0, 1], [2, 3, 4]), "`scores` differs"),  # the likeliest is missing
        (lists([np.nan, 0.5, 0.1], [0, 1, 0], [1, 2, 3]), "`scores` differs"),
        (lists([0.9, 0.5], [0, 1], [1, 2]), "has the shape (1, 2, 4)"),
    ],
)
def test_objects_that_are_not(found: Lists, sentence: str) -> None:
    assert sentence in str(_difference_of_lists(SPEC, found, EXPECTED, CANDIDATES))


def test_without_candidates_those_as_likely_as_the_last_may_be_any() -> None:
    assert _difference_of_lists(SPEC, lists([0.9, 0.5, 0.1], [0, 1, 1], [1, 2, 7]), EXPECTED, None) is None
    missing = _difference_of_lists(SPEC, lists([0.9, 0.5, 0.1], [0, 1, 0], [1, 7, 3]), EXPECTED, None)
    assert "50.0% of the objects" in str(missing)


# What is familiar ---------------------------------------------------------------------------------------------------
class _Bright:
    """A task whose model calls a pixel 1 where it is bright, and is as sure as it is bright."""

    def predict(self, _model: Any, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        assert pictures.shape[1:] == (32, 32, 3)
        return {"class_map": (pictures[..., 0] > 127).to(torch.uint8), "confidence": pictures[..., 0]}


class _Noise:
    """Pictures of another size than the model's, each of its own brightness."""

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(0)
        levels = rng.integers(40, 200, (count, 1, 1, 1))
        self.photos = np.clip(levels + rng.normal(0, 30, (count, 64, 64, 3)), 0, 255).astype(np.uint8)
        self.names, self.protocol = tuple(map(str, range(count))), "noise"

    def __len__(self) -> int:
        return len(self.photos)


_MAPPED = msgspec.structs.replace(SPEC, task="segmentation", outputs={"class_map": "class_map", "confidence": "sure"})


@pytest.mark.parametrize("count", [120, FAMILIAR + 40])
def test_a_model_learns_what_is_familiar_from_a_sample_of_its_training_pictures(count: int) -> None:
    task, model, samples = _Bright(), torch.nn.Identity(), _Noise(count)
    spec = with_familiar(task, model, _MAPPED, samples, "fit")  # type: ignore[arg-type]  # a stand-in
    assert with_familiar(task, model, _MAPPED, samples, "fit") == spec  # type: ignore[arg-type]  # a stand-in
    known = spec.familiar
    assert known is not None
    assert known.figures == ("car", "van", "mean confidence")
    assert known.pictures == min(count, FAMILIAR)
    assert known.source == f"{known.pictures} of the {count} pictures of fit (seed 0)"
    if count == 120:  # all of them; making pictures smaller leaves their brightness as it is
        assert known.means[-1] == pytest.approx(samples.photos[..., 0].mean() / 255, abs=0.01)
    black = figures(np.zeros((32, 32), np.uint8), np.zeros((32, 32), np.uint8), [0, 1])
    assert Distance(known).of(black) > known.limit


def test_without_a_confidence_without_a_class_map_and_of_few_pictures() -> None:
    task, model, samples = _Bright(), torch.nn.Identity(), _Noise(120)
    alone = msgspec.structs.replace(_MAPPED, outputs={"class_map": "class_map"})
    known = with_familiar(task, model, alone, samples, "fit").familiar  # type: ignore[arg-type]  # a stand-in
    assert known is not None
    assert known.figures == ("car", "van")
    assert with_familiar(task, model, SPEC, samples, "fit") == SPEC  # type: ignore[arg-type]  # a stand-in
    assert with_familiar(task, model, _MAPPED, _Noise(99), "fit") == _MAPPED  # type: ignore[arg-type]  # a stand-in
