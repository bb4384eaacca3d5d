"""What a run says of itself while it goes on: a line of JSON for the curves, a line of words for people."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

from training.figures import in_words
from training.files import write_file


class Journal(L.Callback):
    """Appends a JSON line to `metrics.jsonl` every `every` steps and at each evaluation, and says it in words.

    A figure that is not defined is null: NaN is no JSON. A run that goes on from step k first drops the lines behind
    k: those steps will be done again.
    """

    def __init__(
        self, path: Path, total: int, batch: int, say: Callable[[str], None] = print, every: int = 50,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.path, self.total, self.batch, self.say, self.every, self.clock = path, total, batch, say, every, clock
        self._last: tuple[int, float] | None = None
        self._seen = 0

    @rank_zero_only
    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        kept = [line for line in lines if _step_of(line) <= trainer.global_step]
        if kept != lines:
            write_file(self.path, "".join(line + "\n" for line in kept).encode())
        self._last = (trainer.global_step, self.clock())
        self._seen = trainer.global_step

    def _write(self, record: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    @rank_zero_only
    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        step = trainer.global_step
        if step == self._seen:
            return  # a part of a batch whose step is still to come
        self._seen = step
        if step % self.every and step != self.total:
            return
        now = self.clock()
        record: dict[str, Any] = {"step": step, "loss": _figure(trainer.callback_metrics["loss"])}
        loss = "–" if record["loss"] is None else f"{record['loss']:.3f}"
        words = f"step {step}/{self.total}  loss {loss}"
        if self._last is not None and step > self._last[0]:
            rate = (step - self._last[0]) / max(now - self._last[1], 1e-9)
            record["images_per_second"] = round(rate * self.batch, 2)
            record["minutes_left"] = round((self.total - step) / rate / 60, 1)
            words += f"  {record['images_per_second']:.1f} images/s  {record['minutes_left']:.1f} min left"
        self._last = (step, now)
        self._write(record)
        self.say(words)

    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        scores = {k: _figure(v) for k, v in trainer.callback_metrics.items() if k.startswith("dev/")}
        step = trainer.global_step
        self._write({"step": step, **scores})
        main = [(key.removeprefix("dev/"), value) for key, value in scores.items() if key.count("/") == 1]
        words = ", ".join(f"{in_words(name)} {_in_words(value)}" for name, value in main)
        self.say(f"step {step}/{self.total}  dev: {words}")
        self._last = (step, self.clock())


def _figure(value: Any) -> float | None:
    """A number for the journal; None for one that is not defined, which JSON cannot hold."""
    number = float(value)
    return round(number, 4) if math.isfinite(number) else None


def _in_words(value: float | None) -> str:
    return "–" if value is None else str(value)


def _step_of(line: str) -> float:
    """The step of a journal line; a line cut off by a kill counts as later than all."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
