"""`roadlens explain` and `explain-eval`, as a person types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from engines.errors import ModelError, OutputError, RoadlensError, SourceError, UsageError
from tests.engines.tiny_models import CONV, conv_model, save
from tests.footage import write_clip
from training.checkpoint import pack_recipe
from training.data.oxford_pet import BREEDS
from training.explain import command
from training.export import export
from training.recipe import RECIPE_KEY
from training.tasks.pet_localization import PetLocalization, PetLocalizationRecipe

app = typer.Typer()
app.command("explain")(command.explain)
app.command("explain-eval")(command.explain_eval)


def call(*words: object) -> Result:
    """Run a command; a RoadlensError is raised, as the console script would get it."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, RoadlensError):
        raise result.exception
    return result


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter of 32×64 with random weights."""
    return save(conv_model(), CONV, tmp_path_factory.mktemp("model") / "conv.onnx")


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    return path


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of grey frames, each brighter than the one before, in a lossless video."""
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    pictures = (np.full((90, 160, 3), 10 * number, np.uint8) for number in range(25))
    write_clip(path, frames=25, size=(160, 90), codec="ffv1", pix_fmt="bgr0", pictures=pictures)
    return path


def test_one_picture_and_the_same_as_arrays(model: Path, photo: Path, tmp_path: Path) -> None:
    picture, arrays = tmp_path / "out.png", tmp_path / "out.npz"
    done = call("explain", photo, "--model", model, "--region", "0,0,1,1", "--target", "class 2", "-o", picture,
                "--arrays", arrays, "--method", "gradient")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "class 2 in 0,0,1,1" in done.output
    found = np.load(arrays)
    assert {name: (found[name].shape, found[name].dtype.name) for name in found.files if name != "about"} == {
        "picture": ((90, 120, 3), "uint8"),
        "network_input": ((32, 64, 3), "uint8"),
        "heat": ((32, 64), "float32"),
        "overlay": ((90, 120, 3), "uint8"),
        "boxed": ((90, 120, 3), "uint8"),
        "box": ((4,), "float32"),
    }
    about = json.loads(str(found["about"]))
    assert (about["model"], about["method"]) == ("conv", "gradient")
    box = found["box"]
    assert (box[:2] < box[2:]).all()
    drawn = cv2.imread(str(picture))
    # Five panels of one height: a picture of 4:3, the network's 2:1 twice, and two more pictures.
    assert drawn.shape[1] >= 3 * round(320 * 4 / 3) + 2 * 640


@pytest.mark.parametrize(("at", "number"), [("0s", 0), ("0.41s", 10), ("0:00.959", 23), ("0.04", 1), ("0.96", 24)])
def test_a_frame_is_the_one_that_is_shown_then(clip: Path, at: str, number: int) -> None:
    picture = command._picture(None, clip, at)
    assert picture.shape == (90, 160, 3)
    assert (picture == 10 * number).all()


def test_a_frame_of_a_video_is_explained(model: Path, clip: Path, tmp_path: Path) -> None:
    done = call("explain", "--video", clip, "--at", "0.5s", "--model", model, "-o", tmp_path / "out.png")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out.png").is_file()


@pytest.mark.parametrize(
    ("words", "error", "sentence"),
    [
        (["{photo}", "--target", "wolf"], UsageError, "the model has no target wolf; it has 8 classes of pixels"),
        (["{photo}", "--target", "presence"], UsageError, "the model has no target presence"),
        (["{photo}", "--region", "0,0,2,1"], UsageError, "is no part of the picture"),
        (["{photo}", "--region", "0,0,1"], UsageError, "is no region; give x0,y0,x1,y1"),
        (["{photo}", "--region", "0.001,0,0.002,1"], UsageError, "holds no pixel of 64×32"),
        (["{photo}", "--layer", "conv9"], UsageError, "has no layer conv9 that gives a map"),
        (["{photo}", "--method", "occlusion", "--window", "99"], UsageError, "does not fit into 64×32"),
        (["{photo}", "-o", "out.gif"], OutputError, "must end in .png or .jpg"),
        (["{photo}", "--at", "3s"], UsageError, "is a picture"),
        (["{photo}", "--video", "{clip}"], UsageError, "give one thing to explain"),
        ([], UsageError, "give one thing to explain"),
        (["--video", "{clip}"], UsageError, "say which frame of .* with --at"),
        (["--video", "{clip}", "--at", "soon"], UsageError, "--at soon is no time"),
        (["--video", "{clip}", "--at", "9s"], SourceError, "ends at 1.00 s; give a time before that, not 9 s"),
        (["--video", "{photo}.mp4", "--at", "1s"], SourceError, "There is no video"),
        (["{photo}.jpg"], SourceError, "there is no picture"),
        (["{clip}"], SourceError, "cannot be decoded as an image"),
        (["{photo}", "--weights", "random"], UsageError, "--weights is for torchvision's classifiers"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], error: type[RoadlensError], sentence: str, model: Path, photo: Path, clip: Path
) -> None:
    with pytest.raises(error, match=sentence) as caught:
        call("explain", *(word.format(photo=photo, clip=clip) for word in words), "--model", model)
    assert "\n" not in str(caught.value)


def test_a_model_that_is_not_there(photo: Path) -> None:
    with pytest.raises(ModelError, match="there is no model vgg_16, the nearest is vgg16"):
        call("explain", photo, "--model", "vgg_16")


def test_help_is_quick_to_import() -> None:
    heavy = ("torch", "cv2", "captum", "numpy")
    code = f"import sys, training.explain.command; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Evaluation ---------------------------------------------------------------------------------------------------------


def write_pets(root: Path, count: int = 10) -> Path:
    """Two breeds whose head is the one bright square of the picture, in the set's layout."""
    rng = np.random.default_rng(0)
    for folder in ("images", "annotations/xmls", "annotations/trimaps"):
        (root / folder).mkdir(parents=True)
    for breed in (BREEDS[0], BREEDS[-1]):
        for number in range(count):
            name = f"{breed}_{number}"
            x, y = (int(place) for place in rng.integers(10, 50, 2))
            picture = np.full((100, 120, 3), 90, np.uint8)
            picture[y : y + 40, x : x + 50] = 200
            cv2.imwrite(str(root / f"images/{name}.jpg"), picture)
            trimap = np.full((100, 120), 2, np.uint8)
            trimap[y : y + 40, x : x + 50] = 1
            cv2.imwrite(str(root / f"annotations/trimaps/{name}.png"), trimap)
            edges = zip(("xmin", "ymin", "xmax", "ymax"), (x + 1, y + 1, x + 50, y + 40), strict=True)
            text = "".join(f"<{tag}>{value}</{tag}>" for tag, value in edges)
            xml = f"<annotation><object><bndbox>{text}</bndbox></object></annotation>"
            (root / f"annotations/xmls/{name}.xml").write_text(xml)
    return root


@pytest.mark.seconds
def test_methods_are_scored_and_their_rules_kept(tmp_path: Path) -> None:
    pets, rules = write_pets(tmp_path / "pets"), tmp_path / "rules.yaml"
    words = ["explain-eval", "--model", "squeezenet1_1", "--weights", "random", "--size", 64, "--data", pets,
             "--method", "gradient", "--method", "gradcam", "--sanity", 1, "--rules", rules]  # fmt: skip
    done = call(*words, "-o", tmp_path / "scores", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "scores/explain-eval.json").read_text())
    assert [line["method"] for line in result["lines"]] == ["mean box, centre", "gradient", "gradcam"]
    assert result["split"] == "val"
    for line in result["lines"][1:]:
        assert line["rule"]["origin"].startswith("squeezenet1_1 on the")
        assert "of dev" in line["rule"]["origin"]
        for figure in ("box_iou", "pointing_box", "mask_iou", "max_box_acc_v2", "deletion", "insertion"):
            assert 0 <= line[figure]["low"] <= line[figure]["value"] <= line[figure]["high"] <= 1
        assert len(line["ssim"]) == len(result["spoilt"]) == 4
    table = (tmp_path / "scores/explain-eval.md").read_text()
    assert "| gradcam |" in table
    again = call(*words, "--method", "gradient")
    assert again.exit_code == 0, again.output
    assert "of dev" not in again.stderr  # the rules were read, not chosen anew


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ckpt", "onnx"])
def test_a_model_is_scored_on_pictures_that_its_own_division_held_out(kind: str, tmp_path: Path) -> None:
    recipe = PetLocalizationRecipe(name="tiny", steps=1, height=64, width=64, split_seed=7)
    task, path = PetLocalization(recipe), tmp_path / f"tiny.{kind}"
    network = task.build_model().eval()
    if kind == "onnx":
        export(task, network, task.spec(64, 64, "1", ()), path)
    else:
        weights = {f"average.module.{key}": value for key, value in network.state_dict().items()}
        torch.save({"state_dict": weights, RECIPE_KEY: pack_recipe(recipe)}, path)
    done = call("explain-eval", "--model", path, "--data", write_pets(tmp_path / "pets"), "--method", "gradient",
                "--sanity", 0, "--target", "x0", "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "(seed 7)" in json.loads(done.stdout)["protocol"]


@pytest.mark.parametrize(
    ("words", "error", "sentence"),
    [
        (["--chosen-on", "dev", "--split", "dev"], UsageError, "share pictures; the box rules must come from others"),
        (["--method", "magic"], UsageError, "there is no method magic; there are gradient, smoothgrad"),
        ([], SourceError, "is not the Oxford-IIIT Pet set"),
    ],
)
def test_mistakes_of_an_evaluation(words: list[str], error: type[RoadlensError], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=sentence):
        call("explain-eval", "--model", "squeezenet1_1", "--weights", "random", "--data", tmp_path, *words)
