"""Going on with a run: after a kill at any moment, with other settings, with other data, in a folder that is in use."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from engines.errors import ModelError, UsageError
from tests.training.loop.shade_task import ShadeRecipe, write_shades
from tests.training.loop.test_run import journal
from training.catalogue import override
from training.checkpoint import AtomicCheckpointIO, open_checkpoint
from training.loop.run import train
from training.recipe import Recipe

RECIPE = ShadeRecipe(name="shade", steps=5, dropout=0.3)
"""Evaluated at 2, 4 and 5, and written once between, at 3."""


def _silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shades(tmp_path_factory.mktemp("shades"))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody disturbed."""
    output = tmp_path_factory.mktemp("whole")
    train(RECIPE, data, output, say=_silent)
    return output


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of it to be spoilt."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def content(path: Path) -> dict[str, object]:
    found: dict[str, object] = torch.load(path, weights_only=True)
    return found


# Kills --------------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Nothing of a run writes a file on its way out, so the folder is as a kill leaves it."""


def killed_run(recipe: Recipe, data: Path, output: Path, monkeypatch: pytest.MonkeyPatch, write: int) -> list[str]:
    """Train, and be killed right before the checkpoint of that number is written, 0 the first; the names of those that
    were written."""
    names: list[str] = []
    save = AtomicCheckpointIO.save_checkpoint

    def counted(
        self: AtomicCheckpointIO, checkpoint: dict[str, object], path: str | Path, storage_options: object = None
    ) -> None:
        if len(names) == write:
            raise Killed
        save(self, checkpoint, path, storage_options)
        names.append(Path(path).name)

    with monkeypatch.context() as patched:
        patched.setattr(AtomicCheckpointIO, "save_checkpoint", counted)
        with contextlib.suppress(Killed):
            train(recipe, data, output, say=_silent)
    return names


@pytest.mark.seconds
def test_a_kill_before_any_write_of_a_checkpoint_costs_nothing(
    whole: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {name: content(whole / name) for name in ("last.ckpt", "best.ckpt")}
    every = killed_run(RECIPE, data, tmp_path / "never", monkeypatch, -1)
    assert every[:3] == ["best.ckpt", "last.ckpt", "last.ckpt"]  # step 2, twice, and step 3
    assert every[-1] == "last.ckpt"
    for write in range(len(every)):
        output = tmp_path / str(write)
        assert killed_run(RECIPE, data, output, monkeypatch, write) == every[:write]
        with pytest.raises(UsageError, match="holds a run already; go on with it with --resume"):
            train(RECIPE, data, output, say=_silent)
        train(RECIPE, data, output, resume=True, say=_silent)
        for name, wanted in expected.items():
            found = content(output / name)
            for part in ("global_step", "state_dict", "optimizer_states", "lr_schedulers"):
                torch.testing.assert_close(
                    found[part], wanted[part], rtol=0, atol=0, msg=f"{part} of {name}, killed before write {write}"
                )
        assert journal(output) == journal(whole)


def test_a_run_that_has_only_a_best_checkpoint_is_not_begun_anew(run: Path, data: Path) -> None:
    """Killed between `best.ckpt` and the first `last.ckpt`."""
    (run / "last.ckpt").unlink()
    before = (run / "best.ckpt").read_bytes(), (run / "metrics.jsonl").read_bytes()
    with pytest.raises(UsageError, match="holds a run already"):
        train(RECIPE, data, run, say=_silent)
    assert before == ((run / "best.ckpt").read_bytes(), (run / "metrics.jsonl").read_bytes())


def test_to_go_on_with_nothing_is_said(data: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    train(RECIPE, data, tmp_path / "new", resume=True, say=lines.append)
    assert "holds no checkpoint to go on from; the run begins at step 0" in lines[0]


@pytest.mark.parametrize("torn", [0, 100, -2000])
def test_a_torn_checkpoint_hints_at_the_best_one(torn: int, run: Path, data: Path) -> None:
    whole = (run / "last.ckpt").read_bytes()
    (run / "last.ckpt").write_bytes(whole[:torn])
    step = content(run / "best.ckpt")["global_step"]
    hint = rf"best\.ckpt beside it is whole, of step {step}: take last\.ckpt away"
    with pytest.raises(ModelError, match=hint):
        train(RECIPE, data, run, resume=True, say=_silent)
    with pytest.raises(ModelError, match=hint):
        open_checkpoint(run / "last.ckpt")
    (run / "last.ckpt").unlink()  # as it says
    train(RECIPE, data, run, resume=True, say=_silent)
    assert content(run / "last.ckpt")["global_step"] == RECIPE.steps


def test_weights_alone_are_nothing_to_go_on_from(run: Path, data: Path) -> None:
    torch.save({"state_dict": {}}, run / "last.ckpt")
    with pytest.raises(ModelError, match="holds weights and nothing to go on from"):
        train(RECIPE, data, run, resume=True, say=_silent)


# Other settings -----------------------------------------------------------------------------------------------------


def test_a_finished_run_is_extended(run: Path, data: Path) -> None:
    lines: list[str] = []
    train(RECIPE, data, run, resume=True, say=lines.append)
    assert lines == [f"{run / 'last.ckpt'} has done all 5 steps; with steps=10 it goes on"]
    lines.clear()
    train(override(RECIPE, ["steps=8"]), data, run, resume=True, say=lines.append)
    assert lines[0].startswith("steps: 8 in place of 5; from step 5 on the learning rate is that of the new length")
    assert content(run / "last.ckpt")["global_step"] == 8
    assert [line["step"] for line in journal(run)] == [1, 2, 2, 3, 4, 4, 5, 5, 6, 6, 7, 8, 8]
    with pytest.raises(UsageError, match="has done 8 steps, this run has steps = 5; give more"):
        train(RECIPE, data, run, resume=True, say=_silent)


@pytest.mark.seconds
@pytest.mark.parametrize("change", ["workers=3", "report_every=2", "checkpoint_every=1", "evaluate_every=1"])
def test_what_changes_nothing_of_what_is_learned_may_change(
    change: str, whole: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_run(RECIPE, data, tmp_path, monkeypatch, 2)
    train(override(RECIPE, [change]), data, tmp_path, resume=True, say=_silent)
    expected, found = content(whole / "last.ckpt"), content(tmp_path / "last.ckpt")
    torch.testing.assert_close(found["state_dict"], expected["state_dict"], rtol=0, atol=0)


@pytest.mark.parametrize(
    "change", ["seed=1", "batch=8", "accumulate=2", "optimizer.learning_rate=0.01", "ema_decay=0.5", "dropout=0.1"]
)
def test_what_changes_what_is_learned_may_not(change: str, run: Path, data: Path) -> None:
    with pytest.raises(UsageError, match=rf"was made with {change.partition('=')[0]} = .+; give the same recipe"):
        train(override(RECIPE, [change, "steps=9"]), data, run, resume=True, say=_silent)


def test_another_spelling_of_a_path_is_the_same_file(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tmp_path / "a/list.txt", tmp_path / "b/list.txt"
    for path in (one, other):
        path.parent.mkdir()
        path.write_text("the same")
    output = tmp_path / "run"
    train(override(RECIPE, ["list_file=" + str(one), "steps=1"]), data, output, say=_silent)
    monkeypatch.chdir(tmp_path)
    for number, spelt in enumerate(("a/list.txt", "b/../a/list.txt", str(other)), 2):
        train(override(RECIPE, [f"list_file={spelt}", f"steps={number}"]), data, output, resume=True, say=_silent)
    other.write_text("another")
    with pytest.raises(UsageError, match="list_file = "):
        train(override(RECIPE, ["list_file=a/list.txt", "steps=9"]), data, output, resume=True, say=_silent)


def test_other_data_are_not_gone_on_with(run: Path, data: Path, tmp_path: Path) -> None:
    recipe = override(RECIPE, ["steps=9"])
    with pytest.raises(UsageError, match=r"made with other data than these \(the pictures or labels of fit and dev"):
        train(recipe, write_shades(tmp_path / "other", seed=1), run, resume=True, say=_silent)
    moved = Path(shutil.copytree(data, tmp_path / "moved"))
    train(recipe, moved, run, resume=True, say=_silent)
    assert content(run / "last.ckpt")["global_step"] == 9


# Two at once --------------------------------------------------------------------------------------------------------


def test_two_runs_in_one_folder_do_not_mix(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    output.mkdir()
    other = os.open(output, os.O_RDONLY)  # another process, as far as the system can tell
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match=r"another run is writing into .*run at this moment"):
            train(RECIPE, data, output, say=_silent)
        assert not list(output.iterdir())
    finally:
        os.close(other)
    train(RECIPE, data, output, say=_silent)


# How it ends --------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_ends_the_run_and_spoils_nothing(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="training has diverged: behind step 3 the loss is nan; the checkpoints in"):
        train(override(RECIPE, ["spoilt_from=3"]), data, tmp_path, say=_silent)
    for name in ("last.ckpt", "best.ckpt"):
        state = content(tmp_path / name)["state_dict"]
        assert isinstance(state, dict)
        assert all(bool(value.isfinite().all()) for value in state.values())
    assert content(tmp_path / "last.ckpt")["global_step"] == 3
    train(RECIPE, data, tmp_path / "again", say=_silent)  # the process is as it was


def test_weights_that_are_no_numbers_are_never_kept(data: Path, tmp_path: Path) -> None:
    # The loss of the first step is a number, and the step after it ends every weight.
    with pytest.raises(UsageError, match="training has diverged"):
        train(override(RECIPE, ["optimizer.learning_rate=1e38"]), data, tmp_path, say=_silent)
    assert not list(tmp_path.glob("*.ckpt"))


def test_every_line_of_the_journal_is_json(whole: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    lines = [json.loads(line, parse_constant=refuse) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [line["dev/undefined"] for line in lines if "dev/undefined" in line] == [None, None, None]


def test_patience_ends_a_run_and_more_of_it_goes_on(data: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    recipe = override(RECIPE, ["flat=true", "steps=20", "patience=2"])
    train(recipe, data, tmp_path, say=lines.append)
    assert content(tmp_path / "last.ckpt")["global_step"] == 6  # best at 2, waited at 4 and 6
    assert content(tmp_path / "best.ckpt")["global_step"] == 2
    assert lines[-1].startswith("step 6/20  ends here: agreement on dev was not above 0.5000 for 2 evaluations")
    lines.clear()
    train(recipe, data, tmp_path, resume=True, say=lines.append)
    assert lines[-1].endswith("with more patience it goes on")
    train(override(recipe, ["patience=4"]), data, tmp_path, resume=True, say=lines.append)
    assert content(tmp_path / "last.ckpt")["global_step"] == 10


def test_gradients_added_up_are_those_of_the_whole_batch(data: Path, tmp_path: Path) -> None:
    whole, parts = (override(RECIPE, ["dropout=0", f"accumulate={number}", "steps=4"]) for number in (1, 2))
    one = content(train(whole, data, tmp_path / "one", say=_silent))
    two = content(train(parts, data, tmp_path / "two", say=_silent))
    assert two["global_step"] == 4
    torch.testing.assert_close(two["state_dict"], one["state_dict"], rtol=1e-4, atol=1e-5)
    lines = [journal(tmp_path / name) for name in ("one", "two")]
    assert [line["step"] for line in lines[1]] == [line["step"] for line in lines[0]] == [1, 2, 2, 3, 4, 4]
    assert lines[1][0]["loss"] == pytest.approx(lines[0][0]["loss"], abs=2e-4)


def test_a_run_in_parts_is_killed_and_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = override(RECIPE, ["accumulate=2"])
    expected = content(train(recipe, data, tmp_path / "whole", say=_silent))
    killed_run(recipe, data, tmp_path / "broken", monkeypatch, 3)
    found = content(train(recipe, data, tmp_path / "broken", resume=True, say=_silent))
    torch.testing.assert_close(found["state_dict"], expected["state_dict"], rtol=0, atol=0)
    assert journal(tmp_path / "broken") == journal(tmp_path / "whole")


@pytest.mark.parametrize(("change", "sentence"), [
    ("accumulate=3", r"batch = 4 cannot be cut into 3 parts of one size \(accumulate = 3\); give batch=6"),
    ("accumulate=8", "cannot be cut into 8 parts"),
])  # fmt: skip
def test_parts_that_do_not_come_out_even(change: str, sentence: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=sentence):
        train(override(RECIPE, [change]), data, tmp_path, say=_silent)


@pytest.mark.parametrize("change", ["seed=4294967296", f"seed={2**70}", "seed=-1", f"steps={2**70}", "patience=0"])
def test_numbers_that_no_generator_takes(change: str) -> None:
    with pytest.raises(UsageError) as caught:
        override(RECIPE, [change])
    assert change.partition("=")[0] in str(caught.value)
    assert "\n" not in str(caught.value)
