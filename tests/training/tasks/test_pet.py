"""The tasks of Oxford-IIIT Pet: recipes that fit, what is measured, and two steps of training on a drawn folder."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch

from engines.errors import SourceError, UsageError
from engines.pytorch.graph import to_torch
from tests.training.data.pet_folder import write_pet_folder
from training.catalogue import bundled_recipes, open_task, read_recipe
from training.data.oxford_pet import BREEDS, Pets
from training.export import export
from training.loop.run import train
from training.models.encoder import make_encoder
from training.results import Label, summarise
from training.tasks.pet_localization import (
    PetLocalization,
    PetLocalizationRecipe,
    filled_cells,
    with_fewer_boxes,
)
from training.tasks.pet_segmentation import PetSegmentation, PetSegmentationRecipe

TINY = PetLocalizationRecipe(
    name="tiny-pet", encoder_width=0.25, channels=16, height=64, width=64, steps=2, batch=4, evaluate_every=1,
    report_every=1, precision="32-true", ema_decay=0.5,
)  # fmt: skip
MODES = {
    "box": TINY,
    "is it class k": msgspec.structs.replace(TINY, is_class="Abyssinian"),
    "classes": msgspec.structs.replace(TINY, classes=True),
    "map": msgspec.structs.replace(TINY, head="objectness", stride=8),
}


def sample(count: int = 4) -> Pets:
    """Pictures of noise with known boxes; the last has none."""
    boxes = np.tile(np.array([0.25, 0.25, 0.75, 0.75], np.float32), (count, 1))
    boxes[-1] = np.nan
    photos = np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3)).astype(np.uint8)
    breeds = np.array([BREEDS.index(name) for name in ("Abyssinian", "Bengal", "beagle", "Abyssinian")][:count])
    return Pets(photos, tuple(f"pet_{i}" for i in range(count)), breeds, boxes, None, "drawn")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pet_folder(tmp_path_factory.mktemp("pets"))


@pytest.mark.parametrize("name", [name for name in bundled_recipes() if name.startswith("pet-")])
def test_every_bundled_recipe_of_the_set_fits_its_task(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.name == name
    open_task(recipe).check()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"is_class": "abyssinian"}, "no species and no breed; the nearest is Abyssinian"),
        ({"height": 100}, "multiples of 32, 100×64 is not"),
        ({"frozen_stages": 2}, "would freeze random weights"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        PetLocalization(msgspec.structs.replace(TINY, **changes)).check()


@pytest.mark.parametrize("mode", MODES)
def test_a_loss_is_finite_and_reaches_every_head(mode: str) -> None:
    task = PetLocalization(MODES[mode])
    torch.manual_seed(0)
    model = task.build_model().train()
    view = task.views(sample())
    views = [view(i, np.random.default_rng(i)) for i in range(4)]
    batch = tuple(torch.from_numpy(np.stack([v[part] for v in views])) for part in range(3))
    loss = task.loss(model, batch, 0)
    assert loss.isfinite()
    loss.backward()
    heads = [p for name, p in model.named_parameters() if not name.startswith("encoder.")]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in heads)


def test_a_batch_without_a_box_is_no_reason_to_fail() -> None:
    task = PetLocalization(MODES["classes"])
    model = task.build_model().train()
    pictures = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    loss = task.loss(model, (pictures, torch.full((2, 4), float("nan")), torch.tensor([[0], [20]])), 0)
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_what_is_measured_by_hand() -> None:
    data = sample()
    task = PetLocalization(MODES["classes"])
    boxes = np.array([[0.25, 0.25, 0.75, 0.75], [0.25, 0.25, 0.75, 0.5], [0, 0, 0.1, 0.1], [0, 0, 1, 1]], np.float32)
    labels = np.array([0, BREEDS.index("Birman"), BREEDS.index("beagle"), 0], np.int32)
    outputs = {"boxes": boxes[:, None], "scores": np.ones((4, 1), np.float32), "labels": labels[:, None]}
    scores = task.scores(task.measure(outputs, data, range(4)))
    assert scores == pytest.approx(
        {
            # The second is a cat of the wrong breed; the last has no box, and its breed counts all the same.
            "species_accuracy": 1.0, "breed_accuracy": 0.75, "mean_iou": 0.5, "pooled_iou": 0.375 / 0.76,
            "accuracy_iou_50": 2 / 3, "accuracy_iou_75": 1 / 3, "class_gated_iou": 1 / 3,
            # Each was certain, and one in four was wrong.
            "calibration_error": 0.25,
        }
    )  # fmt: skip


def test_is_it_class_k_is_measured_by_hand() -> None:
    data, task = sample(), PetLocalization(MODES["is it class k"])
    outputs = {
        "boxes": np.tile(data.boxes[0], (4, 1))[:, None], "scores": np.array([[0.9], [0.6], [0.1], [0.7]], np.float32)
    }  # fmt: skip
    scores = task.scores(task.measure(outputs, data, range(4)))
    assert scores["accuracy"] == 0.75
    assert scores["average_precision"] == 1.0
    assert scores["class_gated_iou"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("is_class", ["pug", "cat"])
def test_yes_to_all_and_no_to_all_have_no_accuracy(is_class: str) -> None:
    task = PetLocalization(msgspec.structs.replace(TINY, is_class=is_class))
    data = sample()
    cats = Pets(data.photos, data.names, np.zeros(4, np.int64), data.boxes, None, "drawn")
    always = np.full((4, 1), float(is_class == "cat"), np.float32)
    scores = task.scores(task.measure({"boxes": np.zeros((4, 1, 4)), "scores": always}, cats, range(4)))
    assert np.isnan(scores["accuracy"])
    with pytest.raises(SourceError, match=r"fit shows (no pug|nothing but the cat): yes and no cannot be learned"):
        task.views(cats)


def test_a_map_is_measured_as_the_classic_does() -> None:
    data, task = sample(), PetLocalization(MODES["map"])
    cells = filled_cells(data.boxes[0].astype(float), 8, 8)
    assert np.argwhere(cells).min(0).tolist() == [2, 2]  # round(7 · 0.25)
    assert cells.sum() == 9  # to round(7 · 0.75) = 5, exclusive
    found = np.tile(cells * 0.9, (4, 1, 1))
    found[1, :, :4] = 0.0  # two of its three columns are missed
    outputs = {"boxes": np.tile(data.boxes[0], (4, 1))[:, None], "scores": np.ones((4, 1)), "map": found}
    scores = task.scores(task.measure(outputs, data, range(4)))
    assert scores["mean_dice"] == pytest.approx((1 + 6 / 12 + 1) / 3)
    assert scores["pooled_dice"] == pytest.approx((18 + 6 + 18) / (18 + 12 + 18))


def test_pictures_drawn_without_a_box_have_no_score_of_it() -> None:
    data, task = sample(), PetLocalization(msgspec.structs.replace(MODES["map"], classes=True))
    outputs = {
        "boxes": np.tile(data.boxes[0], (4, 1))[:, None], "scores": np.ones((4, 1)), "map": np.ones((4, 8, 8)),
        "labels": data.breeds[:, None],
    }  # fmt: skip
    rows = task.measure(outputs, data, range(4))[2:]  # one with a box, one without: a quarter of the draws has none
    result = summarise(task.scores, rows, data.protocol, Label("tiny", "test", "fp32", "val"))
    assert result.figures["mean_iou"].value == 1
    assert result.figures["pooled_dice"].interval is not None


def test_the_border_of_a_trimap_is_counted_as_told() -> None:
    trimap = np.array([[[1, 1, 3, 2]]], np.uint8)
    data = sample(1)
    pets = Pets(data.photos, data.names, data.breeds, data.boxes, trimap, "drawn")
    task = PetSegmentation(PetSegmentationRecipe(name="tiny", steps=1))
    scores = task.scores(task.measure({"class_map": np.array([[[1, 0, 0, 1]]], np.uint8)}, pets, [0]))
    assert scores["foreground_iou"] == pytest.approx(1 / 3)
    assert scores["foreground_dice"] == pytest.approx(2 / 4)
    assert scores["foreground_iou_with_border"] == pytest.approx(1 / 4)


def test_a_map_of_another_size_is_brought_to_the_trimap() -> None:
    # A report scores models of several sizes on the same pixels.
    trimap = np.kron(np.array([[[1, 2], [2, 1]]], np.uint8), np.ones((1, 4, 4), np.uint8))
    data = sample(1)
    pets = Pets(data.photos, data.names, data.breeds, data.boxes, trimap, "drawn")
    task = PetSegmentation(PetSegmentationRecipe(name="tiny", steps=1))
    scores = task.scores(task.measure({"class_map": np.array([[[1, 0], [0, 1]]], np.uint8)}, pets, [0]))
    assert scores["foreground_iou"] == 1


def test_fewer_boxes_are_part_of_more() -> None:
    boxes = np.tile(np.array([0.1, 0.1, 0.5, 0.5], np.float32), (40, 1))
    breeds = np.repeat(np.array([0, 1], np.int64), 20)
    pets = Pets(np.zeros((40, 1, 1, 3), np.uint8), tuple(f"a_{i}" for i in range(40)), breeds, boxes, None, "drawn")
    quarter, half = with_fewer_boxes(pets, 0.25).boxed, with_fewer_boxes(pets, 0.5).boxed
    assert (quarter[:20].sum(), half[20:].sum()) == (5, 10)
    assert not (quarter & ~half).any()


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_two_steps_of_training_write_a_checkpoint(mode: str, folder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    last = train(MODES[mode], folder, tmp_path / "run", say=lines.append)
    assert last.exists()
    assert any("mean IoU" in line for line in lines)


@pytest.mark.slow
def test_trimaps_are_trained_on(folder: Path, tmp_path: Path) -> None:
    recipe = PetSegmentationRecipe(
        name="tiny-trimap", height=64, width=64, steps=2, batch=4, evaluate_every=1, report_every=1,
        precision="32-true",
    )  # fmt: skip
    assert train(recipe, folder, tmp_path / "run", say=lambda _: None).exists()


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_an_export_opens_as_a_localizer_and_says_what_the_network_says(mode: str, tmp_path: Path) -> None:
    import engines

    task = PetLocalization(MODES[mode])
    torch.manual_seed(0)
    model = task.build_model().eval()
    path = tmp_path / "pet.onnx"
    export(task, model, task.spec(64, 64, "1", ()), path)
    to_torch(onnx.load(path))  # which runs it on a GPU without TensorRT, and explains it
    photos = sample().photos
    with torch.no_grad():
        expected = task.predict(model, torch.from_numpy(photos))
    with engines.load(str(path), device="cpu", precision="fp32") as engine:
        assert engine.spec.task == "localization"
        for i, found in enumerate(engine.submit(list(photos)).result()):
            assert found.boxes is not None
            assert found.boxes == pytest.approx(expected["boxes"][i].numpy(), abs=1e-3)


def test_an_encoder_for_classes_ends_where_a_classifier_begins() -> None:
    assert make_encoder("mobilenet_v2", classifier_layer=True).channels[-1] == 1280
