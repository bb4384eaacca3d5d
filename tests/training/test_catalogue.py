"""Recipes: the bundled ones, overrides, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from engines.errors import UsageError
from training.catalogue import bundled_recipes, decode_recipe, open_task, override, read_recipe, recipe_as_dict
from training.checkpoint import pack_recipe
from training.export import export
from training.models import PSPNet, UNet, build_model
from training.recipe import OwnSettings, UNetSettings
from training.tasks.segmentation import SegmentationRecipe


@pytest.mark.parametrize(("name", "network"), [("cityscapes-unet", UNet), ("cityscapes-pspnet", PSPNet)])
def test_a_bundled_recipe_makes_its_network(name: str, network: type) -> None:
    recipe = read_recipe(name)
    assert recipe.name == name
    assert isinstance(build_model(recipe.model, 19), network)


def test_every_bundled_recipe_is_read_by_its_name() -> None:
    assert [read_recipe(name).name for name in bundled_recipes()] == list(bundled_recipes())


def test_a_recipe_survives_yaml_and_checkpoint(tmp_path: Path) -> None:
    recipe = read_recipe("cityscapes-unet", ["encoder_weights=/somewhere/weights.pth"])
    assert recipe.encoder_weights == Path("/somewhere/weights.pth")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_as_dict(recipe)))
    assert read_recipe(str(path)) == recipe
    path.write_text(yaml.safe_dump(pack_recipe(recipe)))
    assert read_recipe(str(path)) == recipe


@pytest.mark.parametrize("name", ["this", "antigravity"])
def test_a_recipe_runs_no_module_that_was_not_written_for_it(name: str) -> None:
    for made in (
        lambda: decode_recipe({"task": name}, "a stranger's checkpoint"),
        lambda: build_model(OwnSettings(network=f"{name}:Thing"), 3),
    ):
        with pytest.raises(UsageError, match="imports nothing of `training`"):
            made()
    assert name not in sys.modules


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ("steps=100", "steps", 100),
        ("optimizer.learning_rate=1e-3", "optimizer.learning_rate", 1e-3),
        ("model.decoder=[8, 8, 8, 8]", "model.decoder", (8, 8, 8, 8)),
        ("augmentation.scale=[1, 1]", "augmentation.scale", (1.0, 1.0)),
        ("encoder_weights=null", "encoder_weights", None),
        ("split=train", "split", "train"),
    ],
)
def test_overrides(change: str, key: str, value: object) -> None:
    before = read_recipe("cityscapes-unet")
    after = override(before, [change])
    found: object = after
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value
    undone = recipe_as_dict(after)
    reference = recipe_as_dict(before)
    first = key.split(".")[0]
    undone.pop(first)
    reference.pop(first)
    assert undone == reference


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("steps", "'steps' is not an override; write key=value"),
        ("=3", "is not an override"),
        ("stps=3", "`stps` is not a known key; the nearest is `steps`"),
        ("optimizer.rate=3", r"`optimizer\.rate` is not a known key"),
        ("steps.more=3", "steps is a value, not a group"),
        ("steps=0", "`steps` is 0; wanted is a whole number, at least 1"),
        ("steps=many", "`steps` is 'many'; wanted is a whole number"),
        ("model.kind=vgg", "vgg"),
        ("model.encoder=resnet19", "the nearest is `resnet18`"),
        ("split=val", "`split` is 'val'"),  # val is for looking at once, never for training
        ("steps=[1", "is not a YAML value"),
    ],
)
def test_what_does_not_fit_is_named(change: str, sentence: str) -> None:
    recipe = SegmentationRecipe(name="x", data="cityscapes-pairs", model=UNetSettings(), steps=1)
    with pytest.raises(UsageError, match=sentence) as caught:
        override(recipe, [change])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("cityscapes-unnet", None, "There is no recipe 'cityscapes-unnet'; the nearest is cityscapes-unet"),
        ("none.yaml", None, r"There is no file .*none\.yaml"),
        ("r.yaml", "name: x\nstepz: 3\n", r"r\.yaml, line 2: `stepz` is not a known key; the nearest is `steps`"),
        ("r.yaml", "name: x\n", "must have the key"),
        ("r.yaml", "name: [\n", r"r\.yaml, line"),
    ],
)
def test_bad_recipe_files(name: str, text: str | None, sentence: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=sentence) as caught:
        read_recipe(str(tmp_path / name) if name.endswith(".yaml") else name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ("lead-vehicle", "multiples of 16"),
        ("pet-localizer", "multiples of 32"),
        ("pet-trimap", "multiples of 32"),
        ("mnist-circles", "digits are 28×28 pixels, not 250×256"),
        ("mnist-mosaics", "mosaics are 56×56 pixels, not 250×256"),
        ("cityscapes-unet", "multiples of 32"),
    ],
)
def test_an_export_of_a_size_that_a_recipe_could_not_have_is_refused(
    recipe: str, sentence: str, tmp_path: Path
) -> None:
    task = open_task(read_recipe(recipe))
    with pytest.raises(UsageError, match=sentence):
        export(task, task.build_model().eval(), task.spec(250, 256, "1", ()), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())
