"""The PyTorch engine: right answers on the CPU, where it is the reference; on a GPU the same, where there is one."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

torch = pytest.importorskip("torch")

import engines
from engines import bundled
from engines.errors import DeviceError, ModelError
from engines.loading import Degraded
from engines.pytorch import engine as torch_engine
from engines.pytorch.engine import TorchEngine, _choose_precision, find_device
from pipeline.scene.drive import SyntheticScene
from tests.engines.tiny_models import (
    CONV,
    HEIGHT,
    SEGMENTER,
    WIDTH,
    _model,
    _tensor,
    bits_model,
    bits_of,
    conv_model,
    fragile_model,
    save,
)  # fmt: skip

Pictures = Callable[[int], list[NDArray[np.uint8]]]
UInt8 = NDArray[np.uint8]

DEVICES = ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """PyTorch's threads spin while they wait for each other, which on a busy machine takes for ever."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    if request.param != "cpu" and not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU that this torch can use")
    return str(request.param)


def batch_model() -> onnx.ModelProto:
    """A segmenter, the red channel, that fails while it runs in batches of another size than 1."""
    return _model(
        [
            helper.make_node("Cast", ["images"], ["x"], to=TensorProto.INT32),
            helper.make_node("Gather", ["x", "first"], ["red"], axis=3),
            helper.make_node("Reshape", ["red", "shape"], ["one"]),
            helper.make_node("Cast", ["one"], ["map"], to=TensorProto.UINT8),
        ],
        [_tensor("first", 0, np.int64), _tensor("shape", [1, HEIGHT, WIDTH], np.int64)],
        {"map": (TensorProto.UINT8, [HEIGHT, WIDTH])},
    )


@pytest.mark.parametrize("max_batch", [1, 4])
def test_class_maps_are_exact(segmenter: Path, pictures: Pictures, device: str, max_batch: int) -> None:
    with TorchEngine(segmenter, device=device, precision="fp32", max_batch=max_batch) as engine:
        assert (engine.backend, engine.precision, engine.max_batch, engine.spec) == (
            "torch", "fp32", max_batch, SEGMENTER,
        )  # fmt: skip
        assert engine.device
        for count in [*range(1, max_batch + 1), 1]:
            images = pictures(count)
            for image, prediction in zip(images, engine.submit(images).result(60), strict=True):
                np.testing.assert_array_equal(prediction.class_map, bits_of(image), strict=True)
                np.testing.assert_array_equal(prediction.confidence, image[..., 0], strict=True)
                assert prediction.boxes is prediction.scores is prediction.labels is None


def test_boxes_are_exact_and_labels_default_to_class_0(localizer: Path, pictures: Pictures, device: str) -> None:
    with TorchEngine(localizer, device=device, precision="fp32") as engine:
        images = pictures(3)
        for image, prediction in zip(images, engine.submit(images).result(60), strict=True):
            rows = image.reshape(HEIGHT, -1)[:2].astype(np.float32) / 256
            np.testing.assert_array_equal(prediction.boxes, rows[:, :4], strict=True)
            np.testing.assert_array_equal(prediction.scores, rows[:, 4], strict=True)
            np.testing.assert_array_equal(prediction.labels, np.zeros(2, np.int32), strict=True)


def test_futures_complete_in_the_order_of_submission(segmenter: Path, pictures: Pictures, device: str) -> None:
    order: list[int] = []
    with TorchEngine(segmenter, device=device, precision="fp32", in_flight=3, max_batch=4) as engine:
        submitted = []
        for number in range(40):
            images = pictures(1 + number % 4)
            future = engine.submit(images)
            future.add_done_callback(lambda _, number=number: order.append(number))  # type: ignore[misc]  # bound now
            submitted.append((images, future))
        for images, future in submitted:
            for image, prediction in zip(images, future.result(60), strict=True):
                np.testing.assert_array_equal(prediction.class_map, bits_of(image))
    assert order == list(range(40))


def test_predictions_are_the_callers_own(segmenter: Path, pictures: Pictures, device: str) -> None:
    with TorchEngine(segmenter, device=device, precision="fp32", in_flight=1) as engine:
        images = pictures(2)
        first = engine.submit(images).result(60)
        images[0][:] = 0
        for _ in range(4):
            engine.submit(pictures(2)).result(60)
        np.testing.assert_array_equal(first[1].class_map, bits_of(images[1]))
        assert first[0].class_map is not None
        first[0].class_map[:] = 9
        np.testing.assert_array_equal(engine.submit([images[1]]).result(60)[0].class_map, bits_of(images[1]))


def test_tensors_of_the_device_are_taken_where_they_are(segmenter: Path, pictures: Pictures, device: str) -> None:
    images = pictures(3)
    with TorchEngine(segmenter, device=device, precision="fp32") as engine:
        tensors = [torch.from_numpy(image).to(device) for image in images]
        for image, prediction in zip(images, engine.submit(tensors).result(60), strict=True):
            np.testing.assert_array_equal(prediction.class_map, bits_of(image), strict=True)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_real_arithmetic_agrees_with_openvino(conv: Path, device: str, precision: Any) -> None:
    """fp32 to the pixel but for ties; half precision differs where two classes are as good as equal."""
    openvino = pytest.importorskip("engines.openvino")
    images = list(np.random.default_rng(3).integers(0, 256, (3, CONV.height, CONV.width, 3), dtype=np.uint8))
    with openvino.OpenVINOEngine(conv, precision="fp32") as reference:
        expected = np.stack([p.class_map for p in reference.submit(images).result() if p.class_map is not None])
    with TorchEngine(conv, device=device, precision=precision) as engine:
        assert engine.precision == precision
        for count in (1, 3):
            found = np.stack([p.class_map for p in engine.submit(images[:count]).result(60) if p.class_map is not None])
            agreement = (found == expected[:count]).mean()
            assert agreement >= {"fp32": 0.999, "fp16": 0.99, "bf16": 0.95}[precision]


@pytest.mark.slow
@pytest.mark.parametrize("name", bundled.names())
def test_bundled_models_agree_with_openvino_in_fp32(name: str) -> None:
    openvino = pytest.importorskip("engines.openvino")
    path = bundled.resolve(name)
    with openvino.OpenVINOEngine(path, precision="fp32") as reference, TorchEngine(path, device="cpu") as engine:
        scene = SyntheticScene(engine.spec.width, engine.spec.height, Fraction(1))
        images = [scene.frame(index)[0] for index in range(3)]
        for count in (1, 3):
            pairs = zip(reference.submit(images[:count]).result(), engine.submit(images[:count]).result(), strict=True)
            for expected, found in pairs:
                if expected.class_map is not None:
                    assert (found.class_map == expected.class_map).mean() >= 0.999
                else:
                    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-4)
                    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


def test_auto_is_fp32_on_the_cpu_where_it_is_the_reference(conv: Path) -> None:
    with TorchEngine(conv, device="cpu") as engine:
        assert engine.precision == "fp32"


@pytest.mark.parametrize(
    ("asked", "stored", "device", "chosen"),
    [
        ("auto", "fp32", "cpu", "fp32"),
        ("auto", "fp32", "cuda", "fp16"),
        ("auto", "bf16", "cuda", "bf16"),
        ("auto", "int8", "cuda", "int8"),
        ("fp32", "fp32", "cuda", "fp32"),
    ],
)
def test_precision(asked: Any, stored: Any, device: str, chosen: str) -> None:
    spec = msgspec.structs.replace(SEGMENTER, precision=stored)
    assert _choose_precision(asked, spec, torch.device(device)) == chosen


def test_a_failing_request_fails_its_own_future_only(tmp_path: Path, pictures: Pictures) -> None:
    spec = msgspec.structs.replace(SEGMENTER, outputs={"class_map": "map"})
    path = save(batch_model(), spec, tmp_path / "fragile.onnx")
    with TorchEngine(path, device="cpu", in_flight=2) as engine:
        futures = [engine.submit(pictures(count)) for count in (1, 2, 1, 2, 1)]
        assert [future.exception(60) is None for future in futures] == [True, False, True, False, True]


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ([], "a batch of 0 pictures; wanted are 1 to 2"),
        ([np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 3, "a batch of 3 pictures"),
        ([np.zeros((WIDTH, HEIGHT, 3), np.uint8)], r"a picture of uint8 \(32, 16, 3\); wanted is uint8 \(16, 32, 3\)"),
        ([np.zeros((HEIGHT, WIDTH, 3), np.float32)], "a picture of float32"),
        ([torch.zeros((HEIGHT, WIDTH, 3))], "a picture of torch.float32"),
        ([np.zeros((HEIGHT, WIDTH), np.uint8)], "a picture of uint8"),
    ],
)
def test_batches_that_are_refused(segmenter: Path, images: list[Any], sentence: str) -> None:
    with TorchEngine(segmenter, device="cpu", max_batch=2) as engine:
        with pytest.raises(ValueError, match=sentence):
            engine.submit(images)
        assert engine.submit([np.zeros((HEIGHT, WIDTH, 3), np.uint8)]).result(60)


@pytest.mark.parametrize("option", [{"max_batch": 0}, {"in_flight": 0}])
def test_numbers_that_are_refused(segmenter: Path, option: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="is 0; wanted is at least 1"):
        TorchEngine(segmenter, device="cpu", **option)  # type: ignore[arg-type]  # a table of options


def test_calling_takes_a_picture_of_any_size(segmenter: Path) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, 32:] = (255, 0, 255)
    with TorchEngine(segmenter, device="cpu") as engine:
        class_map = engine(image).class_map
        with pytest.raises(ValueError, match="wanted is uint8"):
            engine(image[..., 0])
    assert class_map is not None
    assert (class_map[:, : WIDTH // 2 - 2] == 0).all()
    assert (class_map[:, WIDTH // 2 + 2 :] == 5).all()


def test_closing_waits_for_what_is_in_flight_and_may_be_repeated(
    segmenter: Path, pictures: Pictures, device: str
) -> None:
    engine = TorchEngine(segmenter, device=device, precision="fp32")
    futures = [engine.submit(pictures(2)) for _ in range(6)]
    engine.close()
    assert all(future.done() for future in futures)
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.submit(pictures(1))


@pytest.mark.seconds
def test_closing_frees_the_memory(segmenter: Path, device: str) -> None:
    engine = TorchEngine(segmenter, device=device, precision="fp32")
    lanes = [engine._flights._free.get() for _ in range(engine.in_flight)]
    memory = [weakref.ref(lane._images) for lane in lanes]  # type: ignore[attr-defined]  # of either kind
    engine.close()
    gc.collect()
    assert [reference() for reference in memory] == [None] * engine.in_flight


@pytest.mark.slow
def test_inductor_gives_the_same_or_is_done_without(conv: Path) -> None:
    """Whether there is a compiler on this machine or not."""
    images = [np.random.default_rng(3).integers(0, 256, (CONV.height, CONV.width, 3), dtype=np.uint8)]
    told: list[Any] = []
    maps = []
    for compiled in (False, True):
        with TorchEngine(conv, device="cpu", max_batch=1, compiled=compiled, observe=told.append) as engine:
            maps.append(engine.submit(images).result(280)[0].class_map)
    assert (maps[0] == maps[1]).mean() >= 0.999
    assert [type(each).__name__ + each.lacking for each in told] in ([], ["Degradedcompiler"])


@pytest.mark.seconds
def test_a_forgotten_engine_ends_its_thread(segmenter: Path, pictures: Pictures) -> None:
    engine = TorchEngine(segmenter, device="cpu")
    engine.submit(pictures(1)).result(60)
    (thread,) = [t for t in threading.enumerate() if t.name == "torch-bits"]
    del engine
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


def test_cudnn_measures_the_largest_batches_for_as_long_as_a_load_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock in place of cuDNN's measuring: four seconds a batch size, three begin within ten seconds."""
    now, measured = [100.0], dict[int, bool]()

    class Network(torch_engine._Network):
        def _capture(self, batch: int, measure: bool) -> Any:
            measured[batch] = measure
            now[0] += 4.0 if measure else 0.1
            return None, torch.zeros(0), {}

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    network = Network(Any, {}, SEGMENTER, torch.device("cpu"), False, lambda *_: None, lambda: now[0])
    network.capture(8)
    assert measured == {8: True, 6: True, 4: True, 3: False, 2: False, 1: False}
    network.capture(2)
    assert measured[2], "another try, of less, measures again"


def test_pictures_that_lie_one_behind_the_other_are_copied_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = torch.arange(6 * 4 * 5 * 3, dtype=torch.int32).to(torch.uint8).reshape(6, 4, 5, 3)
    copies = list[tuple[int, ...]]()
    plain = torch.Tensor.copy_

    def counted(self: torch.Tensor, source: torch.Tensor, *further: Any, **named: Any) -> torch.Tensor:
        copies.append(tuple(source.shape))
        return plain(self, source, *further, **named)

    monkeypatch.setattr(torch.Tensor, "copy_", counted)
    turned = batch.flip(0).permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)
    for images, pieces in (
        (list(batch), [6]),
        ([batch[0], batch[1], batch[3]], [2, 1]),
        ([batch[1].clone(), batch[0], batch[1]], [1, 2]),
        (list(turned), [1] * 6),  # their rows are not theirs alone
    ):
        copies.clear()
        memory = torch.zeros((8, 4, 5, 3), dtype=torch.uint8)
        torch_engine._gather(images, memory)
        assert [shape[0] for shape in copies] == pieces
        assert torch.equal(memory[: len(images)], torch.stack(images))
        assert not memory[len(images) :].any()


@pytest.mark.parametrize(("name", "sentence"), [("gpu", "no device `gpu`"), ("cuda:x", "no device `cuda:x`")])
def test_devices_that_nothing_is_called(name: str, sentence: str) -> None:
    with pytest.raises(DeviceError, match=sentence):
        find_device(name)


def test_a_gpu_that_is_not_there(segmenter: Path) -> None:
    with pytest.raises(DeviceError, match=r"no NVIDIA GPU|There is no GPU `cuda:99`|built without CUDA") as raised:
        TorchEngine(segmenter, device="cuda:99")
    assert raised.value.lacking in {"gpu", "library"}


def test_an_operator_that_is_not_known_is_named_with_its_node(tmp_path: Path) -> None:
    model = bits_model()
    node = next(node for node in model.graph.node if node.op_type == "Mul")
    node.op_type, node.name = "Conjure", "weigh"
    path = save(model, SEGMENTER, tmp_path / "m.onnx")
    with pytest.raises(DeviceError, match="cannot run node `weigh`: operator Conjure is not known here; export") as it:
        TorchEngine(path, device="cpu")
    assert it.value.lacking == "operator"


def test_a_shape_that_hangs_on_the_picture_is_refused_when_loading(tmp_path: Path) -> None:
    spec = msgspec.structs.replace(SEGMENTER, outputs={"class_map": "map"})
    path = save(fragile_model(), spec, tmp_path / "fragile.onnx")
    with pytest.raises(DeviceError, match=r"node `number 5`: operator Reshape needs a constant input 2 here"):
        TorchEngine(path, device="cpu")


def test_files_that_do_not_go_with_a_precision(conv: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not quantised"):
        TorchEngine(conv, device="cpu", precision="int8")
    half = save(conv_model(), msgspec.structs.replace(CONV, precision="fp16"), tmp_path / "half.onnx")
    with pytest.raises(ModelError, match=r"is fp16 and cannot run in fp32; give the fp32 file"):
        TorchEngine(half, device="cpu", precision="fp32")


def test_it_is_loaded_by_name_of_backend(segmenter: Path, pictures: Pictures) -> None:
    engine = engines.load(segmenter, device="cpu", backend="torch", max_batch=2)
    (image,) = pictures(1)
    assert engine.backend == "torch"
    np.testing.assert_array_equal(engine(image).class_map, bits_of(image))
    engine.close()


def test_a_capture_that_fails_for_lack_of_memory_is_told_from_one_that_cannot_be() -> None:
    """Ending a capture that memory ran out in fails as well, and hides why."""

    def ended(first: str) -> RuntimeError:
        try:
            try:
                raise RuntimeError(first)
            finally:
                raise RuntimeError("operation failed due to a previous error during capture")
        except RuntimeError as error:
            return error

    for said in (
        "CUDA error: out of memory",
        "CUDNN_STATUS_ALLOC_FAILED",
        "CUDA out of memory. Tried to allocate 2 GiB",
    ):
        found = torch_engine._lack_of_memory(ended(said))
        assert found is not None
        assert str(found) == said
    assert torch_engine._lack_of_memory(torch.OutOfMemoryError("no room")) is not None
    assert torch_engine._lack_of_memory(ended("operation not permitted when stream is capturing")) is None


@pytest.mark.gpu
def test_a_batch_that_the_gpu_has_no_room_for_becomes_smaller(conv: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU that this torch can use")
    told: list[Any] = []
    free, total = torch.cuda.mem_get_info()
    del free
    torch.cuda.set_per_process_memory_fraction(64e6 / total)
    try:
        with TorchEngine(conv, device="cuda", precision="fp32", max_batch=4096, observe=told.append) as engine:
            assert engine.max_batch < 4096
            assert len(engine.submit([np.zeros((32, 64, 3), np.uint8)] * engine.max_batch).result(60)) > 0
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert isinstance(told[0], Degraded)
    assert told[0].lacking == "memory"


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_gpu_agrees_with_the_cpu_on_the_bundled_model(precision: Any) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU that this torch can use")
    path = bundled.resolve("cityscapes-unet")
    with TorchEngine(path, device="cpu", precision=precision) as cpu, TorchEngine(path, precision=precision) as gpu:
        scene = SyntheticScene(cpu.spec.width, cpu.spec.height, Fraction(1))
        images = [scene.frame(index)[0] for index in range(3)]
        maps = [
            np.stack([p.class_map for p in engine.submit(images).result() if p.class_map is not None])
            for engine in (cpu, gpu)
        ]
    assert (maps[0] == maps[1]).mean() >= {"fp32": 0.999, "fp16": 0.995, "bf16": 0.97}[precision]
