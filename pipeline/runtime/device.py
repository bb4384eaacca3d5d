"""A device of a run: an engine for each model, what its batches cost, and the streams bound to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future

from engines.engine import Prediction
from pipeline.pictures.picture import network_inputs
from pipeline.runtime.context import RunContext
from pipeline.runtime.slots import Sample, UInt8
from pipeline.runtime.stream import Board, Stream

Picked = Sequence[tuple[Stream, Sample]]
"""Frames of a batch, with the streams that they are of."""


class Device:
    """What computes batches.

    Args:
        number: its place among the devices of the run.
        run: the circumstances.

    Attributes:
        streams: bound to it, but for those of which nothing more comes; guarded by `run.ready`, as the rest is.
        board: where they say whether a frame can be taken.
        max_batch: frames of a batch at most.
        free: batches that may be submitted besides those in the engines.
        in_engine: frames submitted that are not through.
        engine_time: smoothed seconds that a batch takes; 0 while unknown.
        frame_time: smoothed seconds that a frame takes while the device is busy; 0 while unknown.
        lost: whether it failed, and others do its work.
        over: whether it takes no more streams.
    """

    def __init__(self, number: int, run: RunContext) -> None:
        self.number, self._run = number, run
        self.engines = {model.name: model.engines[number] for model in run.models}
        self.max_batch = min((engine.max_batch for engine in self.engines.values()), default=8)
        self.free = max(1, min((e.in_flight for e in self.engines.values()), default=8))
        self.streams: tuple[Stream, ...] = ()
        self.board = Board()
        self.in_engine = 0
        self.engine_time = self.frame_time = 0.0
        self.lost = self.over = False
        self._alone = len(run.placer.devices) == 1
        self._done_at = 0.0
        self._submitting = threading.Lock()

    def take_on(self, stream: Stream) -> None:
        """Bind a stream to this device; `run.ready` is held."""
        self.streams = (*self.streams, stream)
        stream.board = self.board
        stream.note()

    def begin(self, model: str, picked: Picked) -> Future[list[Prediction]]:
        """Give a batch to an engine. Where there are other devices, what goes wrong here is the future's, like what
        goes wrong later.
        """
        engine = self.engines[model]
        # In GPU memory for an engine of the GPU that decodes; those of a stream that was moved go by way of the host.
        at_home = all(stream.berth.first == self.number for stream, _ in picked)
        stay = at_home and engine.backend in {"tensorrt", "tensorrt-rtx", "torch"}
        try:
            images = self._images([sample for _, sample in picked], (engine.spec.height, engine.spec.width), stay)
            with self._submitting:
                future = engine.submit(images)
        except Exception as error:
            if self._alone:
                raise
            failed: Future[list[Prediction]] = Future()
            failed.set_exception(error)
            return failed
        # Those made just now are nobody's else, and the engine's until it is done.
        future.add_done_callback(_holding(images))
        return future

    def _images(self, samples: Sequence[Sample], size: tuple[int, int], stay: bool) -> list[UInt8]:
        """The model inputs of a batch; those that were not made while decoding are made here."""
        waiting = [sample.frame for sample in samples if size not in sample.inputs]
        images = [frame.image for frame in waiting]
        crops = [frame.crop for frame in waiting]
        made = iter(network_inputs(images, *size, stay, self._run.degraded, crops))
        return [sample.inputs[size] if size in sample.inputs else next(made) for sample in samples]

    def computed(self, models: Iterable[str], stream: Stream, sample: Sample) -> dict[str, Prediction]:
        """The predictions of one frame, in a batch by itself; waits for them.

        Raises:
            Exception: whatever the engine raises.
        """
        futures = {model: self.begin(model, [(stream, sample)]) for model in models}
        return {model: future.result()[0] for model, future in futures.items()}

    def done(self, submitted: float, count: int) -> None:
        """A batch of `count` frames, submitted at a time of `time.perf_counter`, is through."""
        now = time.perf_counter()
        elapsed = now - submitted
        with self._run.ready:
            self.engine_time += 0.1 * (elapsed - self.engine_time) if self.engine_time else elapsed
            # What a frame costs: since the batch before it was through, if that was later than its own begin.
            busy = (now - max(submitted, self._done_at)) / count
            self.frame_time += 0.1 * (busy - self.frame_time) if self.frame_time else busy
            self._done_at = now
            self.in_engine -= count
            self.free += 1
            if not self._alone:
                self._run.placer.measure(self.number, self.frame_time)
            self._run.ready.notify_all()


def no_room(error: Exception) -> bool:
    """Whether memory ran out: by our engines' word, Python's exception, or PyTorch's, which nothing here imports."""
    return (
        getattr(error, "lacking", "") == "memory"
        or type(error).__name__ == "OutOfMemoryError"
        or isinstance(error, MemoryError)
    )


def _holding(images: list[UInt8]) -> Callable[[object], None]:
    """A callback for a future: it does nothing, and keeps the images as long as the future may need them."""

    def done(_future: object) -> None:
        _ = images

    return done
