"""The thread of a device: which frames of its streams are computed when, and what becomes of a batch that fails.

It alone takes a stream out of its device's list, once it has handed over everything it took from it: so nothing is lost
on the way, and nobody else waits. A batch that fails on one device and not on another one shows that the device is
lost: its streams go on on the others, and the frames that it had are computed there too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial

from engines.engine import Prediction
from engines.loading import Degraded
from pipeline.runtime.batching import batch_room, batch_window, round_robin
from pipeline.runtime.context import RunContext
from pipeline.runtime.device import Device, Picked, no_room
from pipeline.runtime.slots import Sample
from pipeline.runtime.stream import Pending, Stream

log = logging.getLogger(__name__)


class DeviceWorker:
    """Picks frames of a device's streams, submits them in batches and hands them on to be fused.

    Args:
        device: the device.
        devices: all of the run, this one among them.
        run: the circumstances.

    Attributes:
        clock: of its thread.
        thread: its thread; not started before `start`.
    """

    def __init__(self, device: Device, devices: Sequence[Device], run: RunContext) -> None:
        self.device, self._devices, self._run = device, devices, run
        self.clock = run.clock()
        self._next_stream = 0
        self._known: tuple[Stream, ...] = ()
        self._places: dict[Stream, int] = {}
        self._name = "batch" if len(devices) == 1 else f"batch {device.number}"
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        """Start its thread."""
        self.thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        device, run = self.device, self._run
        try:
            while True:
                picked = self._pick()
                if picked is None:
                    return
                try:
                    self._submit(picked)
                except Exception:
                    for stream, sample in picked:
                        stream.counter.dropped(sample.counted, "batch", "failed")
                    raise
        except Exception as error:  # noqa: BLE001  # reported as the streams' error
            for stream in device.streams:
                stream.fail(error)
            run.stop.abort()
            for stream in [stream for each in self._devices for stream in each.streams]:
                stream.abort()
        finally:
            with run.ready:
                device.over = True
                run.ready.notify_all()
            for stream in device.streams:
                stream.slot.close()
                stream.drained()

    # Picking --------------------------------------------------------------------------------------------------------
    def _pick(self) -> list[tuple[Stream, Sample]] | None:
        """Wait for frames and take those of the next batch; None when every stream is over and none may come, or the
        device is lost.
        """
        device, ready = self.device, self._run.ready
        first_ready: float | None = None
        window = 0.0
        with ready:
            while True:
                now = self._run.monotonic()
                if device.board.ended:
                    device.board.ended = False
                    self._let_go()
                if device.lost:
                    self._move_streams()
                    return None
                if self._all_over():
                    return None
                waiting = self._waiting()
                passing = [i for i in waiting if not device.streams[i].looks_next]
                if passing:
                    picked = self._taken(self._in_time(passing, now))
                    if picked:
                        return picked
                    continue
                room = self._room() if device.free else 0
                if not waiting or not room:
                    ready.wait()
                    continue
                if first_ready is None:
                    first_ready, window = now, self._window(now)
                left = first_ready + window - now
                if left > 0 and len(waiting) < room and not self._all_there(waiting, now):
                    ready.wait(left)
                    continue
                picked = self._take(round_robin(waiting, self._next_stream, len(waiting)), room, now)
                if picked:
                    return picked
                first_ready = None  # none of them would be out in time

    def _waiting(self) -> list[int]:
        """The places of the streams of which a frame can be taken."""
        streams = self.device.streams
        if streams is not self._known:
            self._known, self._places = streams, {stream: place for place, stream in enumerate(streams)}
        return sorted(self._places[stream] for stream in self.device.board.waiting)

    def _let_go(self) -> None:
        """Part with the streams of which nothing more will come."""
        device = self.device
        over = [stream for stream in device.streams if stream.exhausted]
        if over:
            for stream in over:
                stream.drained()
            device.streams = tuple(stream for stream in device.streams if stream not in over)
            self._known, self._places = (), {}
            if not device.streams and len(self._devices) > 1:
                self._run.ready.notify_all()  # the others wait for the last one to be without

    def _move_streams(self) -> None:
        """Hand the streams of a lost device to those that they are bound to by now; by the device's own thread, which
        has handed on all that it took from them, so that their frames stay in order.
        """
        for stream in self.device.streams:
            self._devices[self._run.placer.device(stream.berth)].take_on(stream)
        self.device.streams = ()
        self.device.board.waiting.clear()
        self._run.ready.notify_all()

    def _all_over(self) -> bool:
        """Whether no device has a stream and none may come; streams of one that is lost may come here until then."""
        if any(device.streams for device in self._devices) or (self._run.idle and not self._run.stop.stopping):
            return False
        for device in self._devices:
            device.over = True  # all at once: a stream that is added now would be nobody's
        self._run.ready.notify_all()
        return True

    def _window(self, now: float) -> float:
        periods = [stream.arrivals.period(now) for stream in self.device.streams if stream.mode == "live"]
        return batch_window([period for period in periods if period is not None], self.device.engine_time)

    def _room(self) -> int:
        """Frames that the engine can take now without making those of live streams too old."""
        device = self.device
        bounds = [stream.bound for stream in device.streams if stream.bound is not None]
        return batch_room(device.max_batch, device.in_engine, device.frame_time, min(bounds, default=None))

    def _all_there(self, waiting: Sequence[int], now: float) -> bool:
        """Whether no further stream could join the batch by waiting."""
        return all(i in waiting or not stream.may_come(now) for i, stream in enumerate(self.device.streams))

    def _take(self, order: Sequence[int], room: int, now: float) -> list[tuple[Stream, Sample]]:
        """Up to `room` frames for a batch, of each stream in `order` one at most."""
        chosen = self._in_time(order, now)[:room]
        if chosen:
            self._next_stream = (chosen[-1] + 1) % len(self.device.streams)
        return self._taken(chosen)

    def _in_time(self, places: Sequence[int], now: float) -> list[int]:
        """The streams whose next frame is not too old by the time it is given out. The others' are dropped: the
        engine's time is for those that are not.
        """
        chosen = []
        for i in places:
            if self.device.streams[i].in_time(now):
                chosen.append(i)
            else:
                self.device.streams[i].pass_over()
        return chosen

    def _taken(self, places: Sequence[int]) -> list[tuple[Stream, Sample]]:
        streams = [self.device.streams[i] for i in places]
        taken = [(stream, stream.take()) for stream in streams]
        return [(stream, sample) for stream, sample in taken if sample is not None]

    # Submitting -----------------------------------------------------------------------------------------------------
    def _submit(self, picked: Picked) -> None:
        device, count, submitted = self.device, len(picked), time.perf_counter()
        places: list[dict[str, tuple[Future[list[Prediction]], int]]] = [{} for _ in picked]
        futures: list[Future[list[Prediction]]] = []
        with self.clock.measure("submit"):
            for model in self._run.models:
                chosen = [k for k, (_, sample) in enumerate(picked) if model.name in sample.looks]
                if not chosen:
                    continue
                future = device.begin(model.name, [picked[k] for k in chosen])
                futures.append(future)
                for place, k in enumerate(chosen):
                    places[k][model.name] = (future, place)
        if futures:
            with self._run.ready:
                device.in_engine += count
                device.free -= 1
            futures[-1].add_done_callback(lambda _: device.done(submitted, count))
        for (stream, sample), predictions in zip(picked, places, strict=True):
            again = partial(self._again, stream, sample, tuple(predictions), count)
            stream.hand_over(Pending(sample, predictions, submitted, again))

    # After a batch failed; in the streams' threads --------------------------------------------------------------------
    def _again(
        self, stream: Stream, sample: Sample, models: Sequence[str], count: int, error: Exception
    ) -> dict[str, Prediction]:
        """A frame's predictions after its batch failed. Where there was no room for the batch it is computed alone, and
        batches are smaller from then on; else by another device, which shows that the first one is lost. Where there
        is none, or it fails there too, the error is the frame's own.
        """
        device = self.device
        if no_room(error) and count > 1 and not device.lost:
            self._take_smaller(count)
            try:
                return device.computed(models, stream, sample)
            except Exception as failed:  # noqa: BLE001  # then it is not the batch
                error = failed
        for other in [each for each in self._devices if each is not device and not each.lost]:
            try:
                found = other.computed(models, stream, sample)
            except Exception as failed:  # noqa: BLE001  # then it is not the device
                log.debug("not there either: %s", failed)
                continue
            self._lose(other, error)
            return found
        raise error

    def _take_smaller(self, count: int) -> None:
        """Give the device half of the pictures at once from now on."""
        smaller = count // 2
        with self._run.ready:
            if self.device.max_batch <= smaller:
                return
            self.device.max_batch = smaller
        name = next(engine.device for engine in self.device.engines.values())
        sentence = f"{name} had no room for a batch of {count} while it ran; taking {smaller} from now on."
        self._run.degraded(Degraded("", f"batch {count}", f"batch {smaller}", "memory", sentence))

    def _lose(self, other: Device, error: Exception) -> None:
        """Part with the device; its streams are moved by its own thread."""
        device, placer = self.device, self._run.placer
        streams = len(device.streams)
        if not placer.lose(device.number):
            return
        with self._run.ready:
            device.lost = True
            self._run.ready.notify_all()
        names = placer.devices
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        whose = "its stream" if streams == 1 else f"its {streams} streams"
        sentence = (
            f"{names[device.number]} failed and is done without ({reason}); {whose} go on on "
            f"{' and '.join(names[left] for left in placer.placement.left)}."
        )
        self._run.degraded(Degraded("", names[device.number], names[other.number], "device", sentence))
