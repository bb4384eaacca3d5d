"""The training loop: a run that was killed and resumed is, bit by bit, the run that was not."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NoReturn

import cv2
import pytest
import torch

from engines.errors import ModelError, OutputError, UsageError
from tests.training.conftest import TINY_UNET
from training.catalogue import override
from training.checkpoint import AtomicCheckpointIO, open_checkpoint, stored_recipe
from training.data.cityscapes_pairs import load_pairs
from training.evaluation.opening import open_predictor
from training.evaluation.predictor import measure
from training.loop import run
from training.loop.run import train
from training.models import UNet
from training.models.encoder import make_encoder
from training.recipe import RECIPE_KEY, PSPNetSettings, UNetSettings
from training.tasks.segmentation import SegmentationRecipe

TINY = {
    "unet": override(TINY_UNET, ["steps=8", "evaluate_every=4"]),
    "pspnet": SegmentationRecipe(
        name="tiny-pspnet", data="cityscapes-pairs", model=PSPNetSettings(pooled=16, width=16), steps=6, batch=2,
        evaluate_every=3, checkpoint_every=2, report_every=1, precision="bf16-mixed", freeze_encoder_norm=False,
    ),
}  # fmt: skip

SCRIPT = """
import sys
from pathlib import Path
import torch
from tests.training.loop.test_run import TINY
from training.loop.run import train
torch.set_num_threads(1)
name, data, output = sys.argv[1:4]
train(TINY[name], Path(data), Path(output), say=lambda line: print(line, flush=True))
"""


def journal(output: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    clock = {"images_per_second", "minutes_left"}
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


def kill_at(name: str, data: Path, output: Path, step: int) -> None:
    """Train in another process and kill it with SIGKILL as soon as it says that `step` is done."""
    command = [sys.executable, "-c", SCRIPT, name, str(data), str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(f"step {step}/"):
                process.kill()
                break
        else:
            pytest.fail("the run ended before the step it was to be killed at")
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "killed_at"),
    [("unet", 3), ("unet", 4), ("pspnet", 5)],
    ids=["between evaluations", "at an evaluation", "batch norm trained, bf16, behind the last checkpoint"],
)
def test_killed_and_resumed_equals_uninterrupted(name: str, killed_at: int, pairs_folder: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = torch.load(train(TINY[name], pairs_folder, whole, say=_silent), weights_only=True)
    kill_at(name, pairs_folder, broken, killed_at)
    resumed = torch.load(train(TINY[name], pairs_folder, broken, resume=True, say=_silent), weights_only=True)
    assert resumed["global_step"] == expected["global_step"] == TINY[name].steps
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        torch.testing.assert_close(resumed[part], expected[part], rtol=0, atol=0)
    # The best checkpoint was chosen alike, and the journal has every step once.
    best = [torch.load(folder / "best.ckpt", weights_only=True) for folder in (whole, broken)]
    assert best[0]["global_step"] == best[1]["global_step"]
    torch.testing.assert_close(best[1]["state_dict"], best[0]["state_dict"], rtol=0, atol=0)
    assert journal(broken) == journal(whole)


def _silent(_: str) -> None:
    pass


@pytest.mark.slow
def test_two_processes_score_the_model_that_is_saved(pairs_folder: Path, tmp_path: Path) -> None:
    # Lightning starts the second process by running the script again, so it has to be a file.
    script = tmp_path / "two.py"
    script.write_text(SCRIPT.replace("Path(output), ", "Path(output), devices=2, "))
    command = [sys.executable, str(script), "unet", str(pairs_folder), str(tmp_path / "run")]
    root = str(Path(__file__).parents[3])
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": root})
    assert done.returncode == 0, done.stderr
    lines = journal(tmp_path / "run")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8]  # each once, and two evaluations
    pairs = load_pairs(pairs_folder, "dev")  # two pairs, one for each process
    with open_predictor(str(tmp_path / "run/last.ckpt"), "fp32") as predictor:
        scores = predictor.task.scores(measure(predictor, pairs))
    assert lines[-1]["dev/mean_iou"] == pytest.approx(scores["mean_iou"], abs=2e-4)
    assert lines[-1]["dev/accuracy"] == pytest.approx(scores["accuracy"], abs=2e-4)


@pytest.mark.seconds
def test_a_checkpoint_with_its_recipe_under_the_earlier_key_opens(tiny_run: Path, tmp_path: Path) -> None:
    content = torch.load(tiny_run / "last.ckpt", weights_only=True)
    content["roadlens_recipe"] = content.pop(RECIPE_KEY)
    torch.save(content, tmp_path / "earlier.ckpt")
    recipe = stored_recipe(tmp_path / "earlier.ckpt")
    assert recipe is not None
    assert recipe == stored_recipe(tiny_run / "last.ckpt")


@pytest.mark.seconds
def test_a_checkpoint_knows_its_recipe_and_gives_the_average(tiny_run: Path) -> None:
    task, model = open_checkpoint(tiny_run / "last.ckpt")
    assert task.recipe.name == "tiny-unet"
    assert task.recipe.steps == 2
    assert not model.training
    state = torch.load(tiny_run / "last.ckpt", weights_only=True)["state_dict"]
    torch.testing.assert_close(model.head.weight.data, state["average.module.head.weight"], rtol=0, atol=0)
    assert not torch.equal(model.head.weight.data, state["model.head.weight"])


@pytest.mark.seconds
def test_a_run_leaves_the_process_as_it_was(pairs_folder: Path, tmp_path: Path) -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    filters, level = list(warnings.filters), logging.getLogger("lightning.pytorch").level
    try:
        train(TINY_UNET, pairs_folder, tmp_path / "run", say=_silent)
        assert cv2.getNumThreads() == 3
        assert not torch.are_deterministic_algorithms_enabled()
        assert warnings.filters == filters
        assert logging.getLogger("lightning.pytorch").level == level
    finally:
        cv2.setNumThreads(before)


@pytest.mark.seconds
@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_a_cpu_without_bfloat16_trains_in_float32_and_it_is_said_once(
    has_bfloat16: bool, pairs_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here, which computes in bfloat16")
    monkeypatch.setattr(run, "_has_bfloat16", lambda: has_bfloat16)
    kinds: set[torch.dtype] = set()
    forward = UNet.forward

    def seen(self: UNet, *inputs: torch.Tensor) -> torch.Tensor:
        answer = forward(self, *inputs)
        kinds.update({answer.dtype} if self.training else ())
        return answer

    monkeypatch.setattr(UNet, "forward", seen)
    said: list[str] = []
    recipe = override(TINY_UNET, ["precision=bf16-mixed", "steps=1", "evaluate_every=1"])
    train(recipe, pairs_folder, tmp_path / "run", say=said.append)
    assert kinds == {torch.bfloat16 if has_bfloat16 else torch.float32}
    assert sum("does not compute in bfloat16" in line for line in said) == (not has_bfloat16)


@pytest.mark.seconds
def test_an_old_run_is_not_overwritten(tiny_run: Path, pairs_folder: Path) -> None:
    with pytest.raises(UsageError, match="--resume"):
        train(TINY["unet"], pairs_folder, tiny_run)


def test_too_small_a_batch_is_refused(pairs_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batch = 1 is too small for PSPNet on 1 devices; give batch=2 or more"):
        train(override(TINY["pspnet"], ["batch=1"]), pairs_folder, tmp_path / "run")


def test_more_devices_than_pictures_to_score_are_refused(pairs_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="dev has 2 pictures and each of 3 devices scores a part"):
        train(override(TINY_UNET, ["batch=3"]), pairs_folder, tmp_path / "run", devices=3, say=_silent)


class Greedy(UNet):
    """A network that a GPU has no room for. There is no GPU in these tests: torch's own error stands for it."""

    def training_scores(self, x: torch.Tensor) -> NoReturn:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


@pytest.mark.parametrize(
    ("batch", "sentence"),
    [
        (6, r"batch = 6 does not fit into the GPU's memory; try batch=3$"),
        (1, r"batch = 1 does not fit into the GPU's memory; take a smaller network, or a GPU with more memory$"),
    ],
)
def test_too_small_a_gpu_suggests_a_batch_that_may_fit(
    batch: int, sentence: str, pairs_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(settings: UNetSettings, classes: int) -> Greedy:
        return Greedy(make_encoder(settings.encoder), classes, settings.decoder)

    monkeypatch.setattr("training.models.build_model", build)
    with pytest.raises(UsageError, match=sentence):
        train(override(TINY_UNET, [f"batch={batch}"]), pairs_folder, tmp_path / "run", say=_silent)


def test_another_recipes_run_is_not_resumed(tiny_run: Path, pairs_folder: Path) -> None:
    changed = override(TINY_UNET, ["optimizer.learning_rate=0.01"])
    with pytest.raises(UsageError, match=r"optimizer\.learning_rate = 0\.002, this run has .* 0\.01"):
        train(changed, pairs_folder, tiny_run, resume=True)


@pytest.mark.parametrize(
    ("content", "error", "sentence"),
    [
        (None, ModelError, "there is no checkpoint"),
        (b"text", ModelError, "is not a readable checkpoint; give a .ckpt file"),
        (b"", ModelError, "is not a readable checkpoint"),
        ({"weights": 1}, ModelError, "holds no state_dict"),
        ({"state_dict": {}}, UsageError, "does not say which recipe made it"),
    ],
)
def test_bad_checkpoints(content: object, error: type[Exception], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(error, match=sentence):
        open_checkpoint(path)


@pytest.mark.seconds
def test_a_checkpoint_of_another_model(tiny_run: Path, tmp_path: Path) -> None:
    content = torch.load(tiny_run / "last.ckpt", weights_only=True)
    content[RECIPE_KEY]["model"] = {"kind": "pspnet"}
    torch.save(content, tmp_path / "x.ckpt")
    assert stored_recipe(tmp_path / "x.ckpt") != stored_recipe(tiny_run / "last.ckpt")
    with pytest.raises(ModelError, match="does not fit the model of recipe tiny-unet"):
        open_checkpoint(tmp_path / "x.ckpt")


def test_a_journal_that_cannot_be_written_is_one_sentence(pairs_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run/metrics.jsonl").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"run can no longer be written to \(.+\); make room there") as caught:
        train(TINY_UNET, pairs_folder, tmp_path / "run", say=_silent)
    assert "\n" not in str(caught.value)


SMALL_DISK = ("unshare", "--map-root-user", "--mount", "sh", "-c")
"""Runs a shell that may mount a disk of its own, seen by nobody else and gone with it."""

ON_A_SMALL_DISK = """
mount -t tmpfs -o size=$1 tmpfs "$2" || exit 99
"$3" -c "$4" unet "$5" "$2/run"
code=$?
cp "$2/run/last.ckpt" "$6"
ls "$2/run"
exit $code
"""

REPORTS_ERRORS = """
import sys
from engines.errors import OutputError
try:
    exec(sys.argv.pop())
except OutputError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.mark.slow
def test_a_full_disk_ends_a_run_in_one_sentence_and_it_goes_on_elsewhere(
    pairs_folder: Path, tiny_run: Path, tmp_path: Path
) -> None:
    # Two checkpoints and a half: the one that is there, the one being written beside it, not `best.ckpt` besides.
    room = int(2.5 * (tiny_run / "last.ckpt").stat().st_size)
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    kept.mkdir()
    if subprocess.run([*SMALL_DISK, f"mount -t tmpfs tmpfs {disk}"], capture_output=True, check=False).returncode:
        pytest.skip("this system does not let a test mount a disk of its own")
    script = REPORTS_ERRORS.replace("sys.argv.pop()", repr(SCRIPT))
    values = (str(room), str(disk), sys.executable, script, str(pairs_folder), str(kept / "last.ckpt"))
    done = subprocess.run(
        [*SMALL_DISK, ON_A_SMALL_DISK, "sh", *values], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.returncode == OutputError.exit_code, done.stderr
    assert "Traceback" not in done.stderr
    assert "could not be written" in done.stderr
    assert ".partial" not in done.stdout, "what was begun does not fill the disk for good"
    step = torch.load(kept / "last.ckpt", weights_only=True)["global_step"]
    assert 1 <= step < TINY["unet"].steps
    resumed = train(TINY["unet"], pairs_folder, kept, resume=True, say=_silent)
    assert torch.load(resumed, weights_only=True)["global_step"] == TINY["unet"].steps


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="file size limits are POSIX")
    path, writer = tmp_path / "last.ckpt", AtomicCheckpointIO()
    writer.save_checkpoint({"step": 1}, path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # writing past it fails as a full disk does
    try:
        with pytest.raises(OutputError, match="the one before it is still good"):
            writer.save_checkpoint({"step": 2, "weights": torch.zeros(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
