"""Batches between `submit` and their future, whatever computes them: lanes taken in turn, results in order."""

from __future__ import annotations

import atexit
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from engines.engine import Prediction
from engines.spec import ModelSpec, OutputRole
from engines.squash import check_picture, squash


class Lane(Protocol):
    """What one batch in flight needs: its memory, its stream or request."""

    def start(self, images: Sequence[Any]) -> None:
        """Take the pictures and begin; in the submitting thread."""
        ...

    def results(self, count: int) -> dict[OutputRole, NDArray[Any]]:
        """Wait for what was started; arrays of the caller's own, (count, …) each. In the collecting thread."""
        ...


@dataclass(slots=True)
class _Flight:
    lane: Lane
    future: Future[list[Prediction]]
    count: int
    error: Exception | None = None


class Flights:
    """Hands batches to free lanes and resolves their futures, in the order of submission, in a thread of its own.

    Args:
        lanes: as many as there may be batches in flight.
        name: of the thread.
        end: frees what the lanes stand on; called in that thread, once, with nothing in flight. It must not know the
            engine, so that one which is forgotten is freed.
    """

    def __init__(self, lanes: Sequence[Lane], name: str, end: Callable[[], None]) -> None:
        self._free: SimpleQueue[Lane] = SimpleQueue()
        for lane in lanes:
            self._free.put(lane)
        self._flights: SimpleQueue[_Flight | None] = SimpleQueue()
        self._closed = False
        self._gate = threading.Lock()  # between a submit and a close: no flight may start behind the last one
        self._collector = threading.Thread(
            target=_collect, args=(self._flights, self._free, end), name=name, daemon=True
        )
        self._collector.start()
        _collectors.add(self._collector)
        self._end = weakref.finalize(self, self._flights.put, None)
        self._end.atexit = False
        _open.add(self)

    def submit(self, images: Sequence[Any]) -> Future[list[Prediction]]:
        """Start a batch on the next lane, waiting for one; what goes wrong is the future's.

        Raises:
            RuntimeError: closed.
        """
        lane = self._free.get()  # when closed there are free ones, too
        with self._gate:
            if self._closed:
                self._free.put(lane)
                raise RuntimeError("this engine is closed")
            flight = _Flight(lane, Future(), len(images))
            flight.future.set_running_or_notify_cancel()
            try:
                lane.start(images)
            except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to whoever holds the future
                flight.error = error
            self._flights.put(flight)
        return flight.future

    def close(self) -> None:
        """Wait for what is in flight, then free everything. May be repeated."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._end.detach()  # called at the interpreter's exit, too, when finalizers do nothing any more
                self._flights.put(None)
        self._collector.join()


_open: weakref.WeakSet[Flights] = weakref.WeakSet()
_collectors: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


@atexit.register
def _close_those_open() -> None:
    """A thread that the interpreter stops while a library frees its memory brings the process down with a signal; so
    would that of an engine which was forgotten just before.
    """
    for flights in list(_open):
        flights.close()
    for collector in list(_collectors):
        collector.join()


class FlightEngine(ABC):
    """What engines over `Flights` have in common: all but `submit`, which looks at the pictures first."""

    spec: ModelSpec
    _flights: Flights

    @abstractmethod
    def submit(self, images: Sequence[Any]) -> Future[list[Prediction]]: ...

    def __call__(self, image: NDArray[np.uint8]) -> Prediction:
        check_picture(image)
        return self.submit([squash(image, self.spec.height, self.spec.width)]).result()[0]

    def close(self) -> None:
        self._flights.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _collect(flights: SimpleQueue[_Flight | None], free: SimpleQueue[Lane], end: Callable[[], None]) -> None:
    """Resolve flights until None comes."""
    while (flight := flights.get()) is not None:
        predictions, error = None, flight.error
        if error is None:
            try:
                predictions = split(flight.lane.results(flight.count), flight.count)
            except Exception as raised:  # noqa: BLE001 - whatever it is, it belongs to whoever holds the future
                error = raised
        free.put(flight.lane)  # before the future: whoever waits for it may submit at once
        if error is not None:
            flight.future.set_exception(error)
        elif predictions is not None:
            flight.future.set_result(predictions)
        # Nothing of this flight may stay alive while the thread waits for the next.
        del flight, predictions, error
    end()


def split(arrays: dict[OutputRole, NDArray[Any]], count: int) -> list[Prediction]:
    """A batch's outputs, picture by picture; boxes without labels are all of class 0."""
    fields: dict[str, NDArray[Any]] = {str(role): array for role, array in arrays.items()}
    if "boxes" in fields:
        fields["labels"] = fields.get("labels", np.zeros(fields["scores"].shape)).astype(np.int32, copy=False)
    return [Prediction(**{role: array[place] for role, array in fields.items()}) for place in range(count)]


def batch_ladder(max_batch: int) -> list[int]:
    """The batch sizes that a GPU's engine is prepared for, largest first: 1, 2, 3, 4, 6, 8, 12, 16 … and `max_batch`.

    A batch of another size is computed as a part of the next larger one: at most a third of it is padding.

    >>> batch_ladder(10)
    [10, 8, 6, 4, 3, 2, 1]
    """
    sizes, step = {max_batch}, 1
    while step < max_batch:
        sizes.update(size for size in (step, step * 3 // 2) if size < max_batch)
        step *= 2
    return sorted(sizes, reverse=True)


def check_numbers(**numbers: int | None) -> None:
    """Refuse what an engine cannot have fewer than one of; None is left to the backend.

    Raises:
        ValueError: a number below 1; the sentence has its name.
    """
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}; wanted is at least 1")


def check_batch(images: Sequence[Any], spec: ModelSpec, max_batch: int, kinds: Sequence[Any] = (np.uint8,)) -> None:
    """Refuse a batch that is not 1 to `max_batch` pictures of the model's size; `kinds` are the types of uint8.

    Raises:
        ValueError: it is not.
    """
    if not 1 <= len(images) <= max_batch:
        raise ValueError(f"a batch of {len(images)} pictures; wanted are 1 to {max_batch}")
    wanted = (spec.height, spec.width, 3)
    for image in images:
        if tuple(image.shape) != wanted or image.dtype not in kinds:
            raise ValueError(f"a picture of {image.dtype} {tuple(image.shape)}; wanted is uint8 {wanted}")
