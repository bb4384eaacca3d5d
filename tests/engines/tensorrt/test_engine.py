"""TensorRTEngine from file to answer on doubles of TensorRT and CUDA: build, cache, load, run, graphs, failures."""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import engines
from engines.errors import DeviceError, ModelError
from engines.flights import batch_ladder
from engines.graphs.fp8 import as_fp8
from engines.loading import Building, Degraded
from tests.engines.tensorrt import double_cuda
from tests.engines.tensorrt.conftest import Doubles
from tests.engines.tensorrt.double_cuda import cudaError_t
from tests.engines.tiny_models import (
    CONV,
    HEIGHT,
    SEGMENTER,
    WIDTH,
    bits_model,
    bits_of,
    conv_model,
    int8_conv_model,
    save,
)

if TYPE_CHECKING:
    from engines.tensorrt import cuda
    from engines.tensorrt.engine import TensorRTEngine

Pictures = Callable[[int], list[NDArray[np.uint8]]]


def load(path: Path, **options: Any) -> TensorRTEngine:
    from engines.tensorrt.engine import TensorRTEngine

    return TensorRTEngine(path, **{"precision": "fp32", "max_batch": 4, **options})


def test_class_maps_are_exact_at_every_batch_size(segmenter: Path, pictures: Pictures, doubles: Doubles) -> None:
    with load(segmenter) as engine:
        assert (engine.backend, engine.precision, engine.device) == ("tensorrt", "fp32", "NVIDIA Double 80GB")
        for count in (1, 4, 2, 3, 1, 4):
            images = pictures(count)
            for image, prediction in zip(images, engine.submit(images).result(30), strict=True):
                np.testing.assert_array_equal(prediction.class_map, bits_of(image))
                np.testing.assert_array_equal(prediction.confidence, image[..., 0])
        launches = doubles.cuda.launches
        engine.submit(pictures(2)).result(30)
        assert doubles.cuda.launches == launches + 1, "one launch a request"
    assert doubles.cuda.left() == []


def test_boxes_come_with_labels(localizer: Path, pictures: Pictures, doubles: Doubles) -> None:
    images = pictures(3)
    with load(localizer) as engine:
        for image, prediction in zip(images, engine.submit(images).result(30), strict=True):
            rows = image.reshape(HEIGHT, WIDTH * 3)[:2].astype(np.float32) / 256
            np.testing.assert_array_equal(prediction.boxes, rows[:, :4])
            np.testing.assert_array_equal(prediction.scores, rows[:, 4])
            np.testing.assert_array_equal(prediction.labels, np.zeros(2, np.int32))


def test_requests_in_flight_keep_their_order_and_their_pictures(
    segmenter: Path, pictures: Pictures, doubles: Doubles
) -> None:
    done: list[int] = []
    with load(segmenter, in_flight=3) as engine:
        batches = [pictures(1 + number % 4) for number in range(24)]
        kept = [[image.copy() for image in batch] for batch in batches]
        futures = []
        for number, batch in enumerate(batches):
            future = engine.submit(batch)
            future.add_done_callback(lambda _, number=number: done.append(number))
            futures.append(future)
        answers = [future.result(60) for future in futures]
    assert done == sorted(done)
    for images, predictions in zip(kept, answers, strict=True):
        for image, prediction in zip(images, predictions, strict=True):
            np.testing.assert_array_equal(prediction.class_map, bits_of(image))


class OnGpu:
    """A picture in the double's memory that is drawn, on the default stream, as late as may be."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        from engines.tensorrt import cuda

        cuda.use(0)
        self.memory = cuda.DeviceMemory(image.nbytes)
        content = image.tobytes()
        double_cuda.state.queue(0, lambda: ctypes.memmove(self.memory.pointer, content, len(content)) and None)
        self.__cuda_array_interface__ = {
            "data": (self.memory.pointer, False), "shape": image.shape, "typestr": "|u1", "version": 3, "stream": 0,
        }  # fmt: skip


def test_pictures_on_the_gpu_stay_there(segmenter: Path, pictures: Pictures, doubles: Doubles) -> None:
    with load(segmenter, in_flight=1) as engine:
        for count in (2, 3, 2):
            images = pictures(count)
            placed = [OnGpu(image) for image in images]
            mixed = [*placed[:-1], images[-1]] if count == 3 else placed
            for image, prediction in zip(images, engine.submit(mixed).result(30), strict=True):
                np.testing.assert_array_equal(prediction.class_map, bits_of(image))
            for each in placed:
                each.memory.close()
        launches = doubles.cuda.launches
        (image,) = pictures(1)
        np.testing.assert_array_equal(engine.submit([image]).result(30)[0].class_map, bits_of(image))
        assert doubles.cuda.launches == launches + 1
        turned = OnGpu(image)
        turned.__cuda_array_interface__["strides"] = (3, 48, 1)
        with pytest.raises(ValueError, match="not contiguous"):
            engine.submit([turned])
        turned.__cuda_array_interface__ |= {"strides": None, "typestr": "<f4"}
        with pytest.raises(ValueError, match="a picture of float32"):
            engine.submit([turned])
        turned.memory.close()


class Part:
    """A picture that is a part of a batch in one piece of the double's memory."""

    def __init__(self, memory: cuda.DeviceMemory, number: int, shape: tuple[int, ...]) -> None:
        self._memory, self.shape = memory, shape
        self.__cuda_array_interface__ = {
            "data": (memory.pointer + number * math.prod(shape), False), "shape": shape, "typestr": "|u1",
            "version": 3, "stream": 0,
        }  # fmt: skip

    def untyped_storage(self) -> Any:
        return SimpleNamespace(data_ptr=lambda: self._memory.pointer)


def test_a_batch_in_one_piece_is_one_copy(segmenter: Path, pictures: Pictures, doubles: Doubles) -> None:
    images = pictures(4)
    with load(segmenter, in_flight=1) as engine:
        whole = OnGpu(np.stack(images))
        parts = [Part(whole.memory, number, images[0].shape) for number in range(4)]
        alone = OnGpu(images[2])
        for batch, numbers, copies in (
            (parts, (0, 1, 2, 3), 1),
            ([parts[0], parts[1], parts[3]], (0, 1, 3), 2),
            ([parts[2], images[0], parts[0], parts[1]], (2, 0, 0, 1), 3),  # that of the host is one of its own
            ([alone, parts[3]], (2, 3), 2),
        ):
            before = doubles.cuda.calls.count("cudaMemcpyAsync")
            predictions = engine.submit(batch).result(30)
            assert doubles.cuda.calls.count("cudaMemcpyAsync") - before == copies
            for number, prediction in zip(numbers, predictions, strict=True):
                np.testing.assert_array_equal(prediction.class_map, bits_of(images[number]))
        whole.memory.close()
        alone.memory.close()


@pytest.mark.parametrize("capturable", [True, False])
def test_nothing_is_prepared_on_the_way_of_a_frame(
    segmenter: Path, pictures: Pictures, doubles: Doubles, capturable: bool
) -> None:
    """Every batch size, from the host and from the GPU, was made ready when the engine was made."""
    doubles.tensorrt.capturable = capturable
    making = ("cudaMalloc", "cudaHostAlloc", "cudaStreamBeginCapture", "cudaGraphInstantiate")
    with load(segmenter, max_batch=12, in_flight=2) as engine:
        contexts = doubles.tensorrt.contexts
        images = pictures(12)
        placed = [OnGpu(image) for image in images]
        made = [doubles.cuda.calls.count(call) for call in making]
        for count in (5, 12, 1, 7, 2, 11):
            for batch in (images[:count], placed[:count]):
                for image, prediction in zip(images, engine.submit(batch).result(30), strict=False):
                    np.testing.assert_array_equal(prediction.class_map, bits_of(image))
        assert [doubles.cuda.calls.count(call) for call in making] == made
        assert doubles.tensorrt.contexts == contexts == 2 * len(batch_ladder(12))
        for each in placed:
            each.memory.close()
    assert doubles.cuda.left() == []


def test_the_plan_is_built_once_and_then_loaded(
    segmenter: Path, pictures: Pictures, doubles: Doubles, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    seen: list[Any] = []
    for _ in range(2):
        with load(segmenter, observe=seen.append) as engine:
            engine.submit(pictures(1)).result(30)
    assert doubles.tensorrt.builds == 1
    assert "bits fp32: there is no plan of it yet; building it for NVIDIA Double 80GB" in caplog.text
    fractions = [event.fraction for event in seen if isinstance(event, Building)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert doubles.tensorrt.profiles == [((1, HEIGHT, WIDTH, 3), (4, HEIGHT, WIDTH, 3), (4, HEIGHT, WIDTH, 3))]
    assert doubles.tensorrt.typed == [True], "strongly typed, with either version"
    assert doubles.tensorrt.flags == [set()], "TF32 is off"
    assert doubles.tensorrt.workspaces == [4096 << 20]


def test_a_plan_for_larger_batches_does(segmenter: Path, pictures: Pictures, doubles: Doubles) -> None:
    load(segmenter, max_batch=6).close()
    with load(segmenter, max_batch=2) as engine:
        assert engine.max_batch == 2
        images = pictures(2)
        np.testing.assert_array_equal(engine.submit(images).result(30)[1].class_map, bits_of(images[1]))
    assert doubles.tensorrt.builds == 1
    load(segmenter, max_batch=7).close()
    assert doubles.tensorrt.builds == 2


def test_options_reach_the_builder(segmenter: Path, doubles: Doubles) -> None:
    from engines.tensorrt.plan import BuildOptions

    load(segmenter, options=BuildOptions(opt_batch=2, workspace_mib=64, tf32=True)).close()
    assert [shape[0] for shape in doubles.tensorrt.profiles[0]] == [1, 2, 4]
    assert doubles.tensorrt.flags == [{"TF32"}]
    assert doubles.tensorrt.workspaces == [64 << 20]


def test_the_second_build_on_a_machine_knows_the_timings_of_the_first(segmenter: Path, doubles: Doubles) -> None:
    load(segmenter).close()
    load(segmenter, max_batch=6).close()
    doubles.cuda.name = "NVIDIA Other"
    load(segmenter).close()
    assert doubles.tensorrt.timings == [b"", b"TIMINGNVIDIA Double 80GB", b""]


def test_half_precision_agrees_with_fp32(conv: Path, doubles: Doubles) -> None:
    images = list(np.random.default_rng(3).integers(0, 256, (4, CONV.height, CONV.width, 3), dtype=np.uint8))
    maps = {}
    for precision in ("fp32", "auto"):
        with load(conv, precision=precision) as engine:
            maps[engine.precision] = np.stack([p.class_map for p in engine.submit(images).result(60)])
    assert set(maps) == {"fp32", "fp16"}
    assert np.mean(maps["fp32"] == maps["fp16"]) > 0.99


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: setattr(d.cuda, "name", "NVIDIA L4"), "was built for GPU NVIDIA Double 80GB and this is NVIDIA L4"),
        (lambda d: setattr(d.cuda, "capability", (8, 9)), "was built for compute capability 9.0 and this is 8.9"),
        (lambda d: setattr(d.cuda, "driver", 14000), "was built for driver for CUDA 13 and this is 14"),
    ],
)
def test_a_plan_of_another_machine_is_rejected_in_a_line_and_built_anew(
    segmenter: Path, doubles: Doubles, caplog: pytest.LogCaptureFixture, change: Any, sentence: str
) -> None:
    load(segmenter).close()
    change(doubles)
    load(segmenter).close()
    assert doubles.tensorrt.builds == 2
    (line,) = [record.getMessage() for record in caplog.records if "this is" in record.getMessage()]
    assert f"its plan {sentence}; building it" in line
    load(segmenter).close()
    assert doubles.tensorrt.builds == 2


def test_a_plan_of_another_tensorrt_or_model_is_built_anew(
    segmenter: Path, doubles: Doubles, caplog: pytest.LogCaptureFixture
) -> None:
    from tests.engines.tensorrt import double_tensorrt

    load(segmenter).close()
    double_tensorrt.reset("11.9.0.1")
    load(segmenter).close()
    assert "and this is 11.9.0.1" in caplog.text
    caplog.clear()
    model = bits_model()
    model.doc_string = "exported again"
    save(model, SEGMENTER, segmenter)
    load(segmenter).close()
    assert "was built from another export of the model" in caplog.text
    assert double_tensorrt.state.builds == 2


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.seconds
@pytest.mark.parametrize(
    ("suffix", "damage", "sentence"),
    [
        (".plan", _truncate, "its plan is damaged"),
        (".plan", lambda path: path.write_bytes(b"x" + path.read_bytes()[1:]), "its plan is damaged"),
        (".plan", Path.unlink, "its plan cannot be read (No such file or directory)"),
        (".json", _truncate, "its side-car is damaged"),
        (".json", lambda path: path.write_text('{"schema": 1}'), "its side-car is damaged"),
        (".json", lambda path: path.write_text(path.read_text().replace('"schema": 1', '"schema": 9')), "of schema 9"),
        (".json", lambda path: path.write_text(path.read_text().replace("80GB", "40GB")), "this is NVIDIA Double 80GB"),
    ],
)
def test_what_is_damaged_is_said_and_built_anew(
    segmenter: Path, doubles: Doubles, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    suffix: str, damage: Callable[[Path], object], sentence: str,
) -> None:  # fmt: skip
    load(segmenter).close()
    (path,) = (tmp_path / "cache" / "plans").glob(f"*{suffix}")
    damage(path)
    load(segmenter).close()
    assert sentence in caplog.text
    assert doubles.tensorrt.builds == 2
    load(segmenter).close()
    assert doubles.tensorrt.builds == 2


def test_a_plan_that_tensorrt_will_not_load_is_built_once_more(
    segmenter: Path, doubles: Doubles, caplog: pytest.LogCaptureFixture
) -> None:
    load(segmenter).close()
    doubles.tensorrt.refuses_plans = 1
    load(segmenter).close()
    assert "cannot load the plan of bits: Error Code 1: Serialization" in caplog.text
    assert doubles.tensorrt.builds == 2
    doubles.tensorrt.refuses_plans = 2
    with pytest.raises(DeviceError, match="cannot load the plan of bits") as raised:
        load(segmenter)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("hurdle", ["a file in its place", "a full disk"])
def test_a_cache_that_cannot_be_written_is_said_and_done_without(
    segmenter: Path, pictures: Pictures, doubles: Doubles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hurdle: str
) -> None:
    from engines.tensorrt import cache

    if hurdle == "a file in its place":
        (tmp_path / "cache").write_text("")
    else:

        def full(path: Path, content: bytes) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(cache, "_write", full)
    seen: list[Any] = []
    with load(segmenter, observe=seen.append) as engine:
        (image,) = pictures(1)
        np.testing.assert_array_equal(engine(image).class_map, bits_of(image))
    (event,) = [event for event in seen if isinstance(event, Degraded)]
    assert (event.wanted, event.lacking) == ("plan cache", "cache")
    assert "The plan of bits cannot be kept in" in event.sentence


def test_a_build_without_room_takes_a_smaller_batch(
    segmenter: Path, pictures: Pictures, doubles: Doubles, caplog: pytest.LogCaptureFixture
) -> None:
    doubles.tensorrt.largest_build = 2
    seen: list[Any] = []
    with load(segmenter, max_batch=8, observe=seen.append) as engine:
        assert engine.max_batch == 2
        engine.submit(pictures(2)).result(30)
        with pytest.raises(ValueError, match="a batch of 3 pictures; wanted are 1 to 2"):
            engine.submit(pictures(3))
    degraded = [(e.wanted, e.instead, e.lacking) for e in seen if isinstance(e, Degraded)]
    assert degraded == [("batch 8", "batch 4", "memory"), ("batch 4", "batch 2", "memory")]
    assert "has no room for bits in batches of 8; taking 4." in caplog.text
    doubles.tensorrt.largest_build = 0
    with pytest.raises(DeviceError, match=r"no room for bits even in batches of 1 .*OutOfMemory \(Requested size"):
        load(segmenter, max_batch=3)


def test_a_gpu_without_room_to_run_takes_a_smaller_batch(segmenter: Path, pictures: Pictures, doubles: Doubles) -> None:
    doubles.cuda.memory = 300_000  # scratch: 65 kB a picture of the profile, twice
    with load(segmenter, max_batch=4) as engine:
        assert engine.max_batch == 2
        images = pictures(2)
        np.testing.assert_array_equal(engine.submit(images).result(30)[1].class_map, bits_of(images[1]))
    assert doubles.cuda.left() == []


def test_a_batch_size_without_room_runs_as_a_part_of_a_larger_one(
    segmenter: Path, pictures: Pictures, doubles: Doubles
) -> None:
    seen: list[Any] = []
    # Two graphs a batch size, 4, 3, 2 and 1: the second of 3 finds no room, then the first of 2.
    ok, full = cudaError_t.cudaSuccess, cudaError_t.cudaErrorMemoryAllocation
    doubles.cuda.faults["cudaGraphInstantiate"] = [ok, ok, ok, full, full]
    with load(segmenter, in_flight=1, observe=seen.append) as engine:
        for count in (2, 3, 1, 4):
            images = pictures(count)
            for image, prediction in zip(images, engine.submit(images).result(30), strict=True):
                np.testing.assert_array_equal(prediction.class_map, bits_of(image))
    degraded = [event.sentence for event in seen if isinstance(event, Degraded)]
    said = "NVIDIA Double 80GB has no room to run bits in batches of {}; they run as a part of 4."
    assert degraded == [said.format(count) for count in (3, 2)]
    assert doubles.cuda.left() == []


def test_what_cannot_be_captured_is_queued_call_by_call(segmenter: Path, pictures: Pictures, doubles: Doubles) -> None:
    doubles.tensorrt.capturable = False
    seen: list[Any] = []
    with load(segmenter, observe=seen.append) as engine:
        for count in (1, 3, 4, 2):
            images = pictures(count)
            for image, prediction in zip(images, engine.submit(images).result(30), strict=True):
                np.testing.assert_array_equal(prediction.class_map, bits_of(image))
    assert doubles.cuda.launches == 0
    lacking = [event.lacking for event in seen if isinstance(event, Degraded)]
    assert lacking == ["capture"] * 2, "once for each request that may be in flight"
    assert doubles.cuda.left() == []


def test_a_failing_request_fails_its_own_future_only(segmenter: Path, pictures: Pictures, doubles: Doubles) -> None:
    with load(segmenter) as engine:
        engine.submit(pictures(1)).result(30)
        doubles.cuda.faults["cudaGraphLaunch"] = [cudaError_t.cudaErrorIllegalAddress]
        assert "IllegalAddress" in str(engine.submit(pictures(1)).exception(30))
        (image,) = pictures(1)
        np.testing.assert_array_equal(engine.submit([image]).result(30)[0].class_map, bits_of(image))
    doubles.tensorrt.capturable = False
    with load(segmenter) as engine:
        doubles.tensorrt.fails_to_run = 1
        assert "TensorRT cannot run bits: Error Code 7: a myelin error" in str(engine.submit(pictures(2)).exception(30))
        (image,) = pictures(1)
        np.testing.assert_array_equal(engine.submit([image]).result(30)[0].class_map, bits_of(image))


def test_an_operator_that_tensorrt_has_not_is_named_with_its_node(tmp_path: Path, doubles: Doubles) -> None:
    model = bits_model()
    node = next(node for node in model.graph.node if node.op_type == "Mul")
    node.op_type, node.name = "Conjure", "decoder/spell"
    path = save(model, SEGMENTER, tmp_path / "m.onnx")
    with pytest.raises(DeviceError, match=r"cannot take bits: node `decoder/spell` \(Conjure\): No importer") as raised:
        load(path)
    assert raised.value.lacking == "operator"
    assert "\n" not in str(raised.value)
    assert not list((tmp_path / "cache").rglob("*.plan"))


def test_an_interrupted_build_ends_and_leaves_nothing(segmenter: Path, doubles: Doubles, tmp_path: Path) -> None:
    def interrupt(event: Building | Degraded) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(segmenter, observe=interrupt)
    assert [path.suffix for path in (tmp_path / "cache" / "plans").iterdir()] == [".lock"]
    load(segmenter).close()


def test_closing_waits_for_what_is_in_flight_and_may_be_repeated(
    segmenter: Path, pictures: Pictures, doubles: Doubles
) -> None:
    engine = load(segmenter)
    futures = [engine.submit(pictures(2)) for _ in range(6)]
    engine.close()
    assert all(len(future.result(0)) == 2 for future in futures)
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.submit(pictures(1))
    assert doubles.cuda.left() == []


def test_a_gpu_may_take_larger_batches_than_a_cpu(segmenter: Path, pictures: Pictures, doubles: Doubles) -> None:
    with engines.load(segmenter, "cuda", "fp32", max_batch=2, gpu_batch=16) as engine:  # type: ignore[attr-defined]
        assert (engine.backend, engine.max_batch) == ("tensorrt", 16)
        assert len(engine.submit(pictures(16)).result(30)) == 16
    with engines.load(segmenter, "cpu", "fp32", max_batch=2, gpu_batch=16) as engine:  # type: ignore[attr-defined]
        assert engine.max_batch == 2


@pytest.mark.seconds
def test_a_forgotten_engine_frees_the_gpu(segmenter: Path, pictures: Pictures, doubles: Doubles) -> None:
    engine = load(segmenter)
    engine.submit(pictures(1)).result(30)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "tensorrt-bits"]
    del engine
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()
    assert doubles.cuda.left() == []


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ([], "a batch of 0 pictures; wanted are 1 to 4"),
        ([np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 5, "a batch of 5 pictures"),
        ([np.zeros((WIDTH, HEIGHT, 3), np.uint8)], r"a picture of uint8 \(32, 16, 3\); wanted is uint8 \(16, 32, 3\)"),
        ([np.zeros((HEIGHT, WIDTH, 3), np.float32)], "a picture of float32"),
    ],
)
def test_batches_that_are_refused(segmenter: Path, doubles: Doubles, images: list[NDArray[Any]], sentence: str) -> None:
    with load(segmenter) as engine, pytest.raises(ValueError, match=sentence):
        engine.submit(images)


@pytest.mark.parametrize(
    ("device", "change", "sentence", "lacking"),
    [
        ("cuda:3", {}, "There is no GPU cuda:3 here, only cuda:0", "gpu"),
        ("cuda:4", {"count": 4}, "There is no GPU cuda:4 here, cuda:0 to cuda:3", "gpu"),
        ("cuda:x", {}, "There is no device `cuda:x`; use auto, cpu, cuda or cuda:N", "device"),
        ("cuda", {"count": 0}, "an NVIDIA driver and no GPU to be seen", "gpu"),
        ("cuda", {"driver": 0}, "There is no NVIDIA driver here", "driver"),
        ("cuda", {"driver": 12060}, r"The NVIDIA driver is for CUDA 12.6 and this CUDA is 13.0; update", "driver"),
    ],
)
def test_gpus_that_are_not_there(
    segmenter: Path, doubles: Doubles, device: str, change: dict[str, int], sentence: str, lacking: str
) -> None:
    for name, value in change.items():
        setattr(doubles.cuda, name, value)
    with pytest.raises(DeviceError, match=sentence) as raised:
        load(segmenter, device=device)
    assert raised.value.lacking == lacking


def test_a_tensorrt_that_does_not_start(segmenter: Path, doubles: Doubles) -> None:
    doubles.tensorrt.starts = False
    with pytest.raises(DeviceError, match=r"TensorRT does not start: .*update the NVIDIA driver"):
        load(segmenter)


def test_bf16_wants_a_gpu_that_has_it(conv: Path, doubles: Doubles) -> None:
    doubles.cuda.capability = (7, 5)
    with pytest.raises(ModelError, match=r"does not compute in bf16 \(compute capability 7.5"):
        load(conv, precision="bf16")


def test_fp8_wants_a_gpu_that_has_it(tmp_path: Path, doubles: Doubles) -> None:
    spec = msgspec.structs.replace(CONV, precision="fp8")
    path = save(as_fp8(*int8_conv_model()), spec, tmp_path / "conv.fp8.onnx")
    doubles.cuda.capability = (8, 6)
    for asked in ("auto", "fp8"):
        with pytest.raises(ModelError, match=r"does not compute in fp8 \(compute capability 8.6, wanted is 8.9: Ada"):
            load(path, precision=asked)
    doubles.cuda.capability = (8, 9)
    engine = load(path, precision="auto")
    assert engine.precision == "fp8"
    engine.close()


def test_int8_wants_a_quantised_file(conv: Path, doubles: Doubles) -> None:
    with pytest.raises(ModelError, match="models quantize"):
        load(conv, precision="int8")


def test_load_takes_the_gpu_where_there_is_one(segmenter: Path, pictures: Pictures, doubles: Doubles) -> None:
    for device in ("auto", "cuda", "cuda:0"):
        engine = engines.load(segmenter, device=device, precision="fp32", backend="auto")
        assert engine.backend == "tensorrt"
        engine.close()
    engine = engines.load(segmenter, device="cpu")
    assert engine.backend == "openvino"
    engine.close()


def test_onnx_of_the_plan_is_what_was_lowered(conv: Path, doubles: Doubles, tmp_path: Path) -> None:
    """Precision lives in the graph: TensorRT is given half-precision weights, no flag."""
    save(conv_model(), CONV, conv)
    load(conv, precision="fp16").close()
    (plan,) = (tmp_path / "cache" / "plans").glob("*.plan")
    model = onnx.load_model_from_string(plan.read_bytes().partition(b"\n")[2])
    assert {w.data_type for w in model.graph.initializer if w.name.startswith("w")} == {onnx.TensorProto.FLOAT16}
