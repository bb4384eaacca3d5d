"""The OpenVINO engine: right answers, in order, owned by the caller, for every batch size and precision."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray

import engines
from engines import bundled, openvino
from engines.engine import Hint, Precision, Prediction
from engines.errors import ModelError
from engines.openvino import OpenVINOEngine, _choose_precision
from engines.squash import squash
from tests.engines.tiny_models import HEIGHT, SEGMENTER, WIDTH, bits_model, bits_of, fragile_model, save

Pictures = Callable[[int], list[NDArray[np.uint8]]]
HAS_BF16 = "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
PRECISIONS = [
    "auto",
    "fp32",
    pytest.param("bf16", marks=pytest.mark.skipif(not HAS_BF16, reason="this CPU does not compute in bf16")),
]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("max_batch", [1, 4])
def test_class_maps_are_exact(segmenter: Path, pictures: Pictures, precision: Precision, max_batch: int) -> None:
    with OpenVINOEngine(segmenter, precision=precision, max_batch=max_batch) as engine:
        for count in [*range(1, max_batch + 1), 1]:
            images = pictures(count)
            predictions = engine.submit(images).result()
            assert len(predictions) == count
            for image, prediction in zip(images, predictions, strict=True):
                np.testing.assert_array_equal(prediction.class_map, bits_of(image), strict=True)
                np.testing.assert_array_equal(prediction.confidence, image[..., 0], strict=True)
                assert prediction.boxes is prediction.scores is prediction.labels is None


def test_boxes_are_exact_and_labels_default_to_class_0(localizer: Path, pictures: Pictures) -> None:
    with OpenVINOEngine(localizer, precision="fp32") as engine:
        images = pictures(3)
        for image, prediction in zip(images, engine.submit(images).result(), strict=True):
            rows = image.reshape(HEIGHT, -1)[:2].astype(np.float32) / 256
            np.testing.assert_array_equal(prediction.boxes, rows[:, :4], strict=True)
            np.testing.assert_array_equal(prediction.scores, rows[:, 4], strict=True)
            np.testing.assert_array_equal(prediction.labels, np.zeros(2, np.int32), strict=True)
            assert prediction.class_map is None


def test_what_it_says_of_itself(segmenter: Path) -> None:
    with OpenVINOEngine(segmenter, max_batch=3, in_flight=1, threads=1) as engine:
        assert engine.spec == SEGMENTER
        assert engine.backend == "openvino"
        assert engine.precision == ("bf16" if HAS_BF16 else "fp32")
        assert engine.device == str(ov.Core().get_property("CPU", "FULL_DEVICE_NAME")).strip()
        assert (engine.max_batch, engine.in_flight, engine.threads) == (3, 1, 1)


def test_for_throughput_requests_run_side_by_side_on_threads_that_give_way(segmenter: Path, pictures: Pictures) -> None:
    before = _niceness()
    with OpenVINOEngine(segmenter, hint="throughput", threads=2, max_batch=2) as engine:
        assert engine.in_flight == 3
        submitted = [(images, engine.submit(images)) for images in (pictures(1 + n % 2) for n in range(20))]
        for images, future in submitted:
            for image, prediction in zip(images, future.result(), strict=True):
                np.testing.assert_array_equal(prediction.class_map, bits_of(image), strict=True)
        started = {thread: nice for thread, nice in _niceness().items() if thread not in before}
        assert all(before.get(thread, nice) == nice for thread, nice in _niceness().items()), "others stay as they were"
        if sys.platform == "linux":
            assert 10 in started.values()


def _niceness() -> dict[int, int]:
    """The niceness of every thread of this process, where the system has one by thread."""
    if sys.platform != "linux":
        return {}
    return {int(t.name): os.getpriority(os.PRIO_PROCESS, int(t.name)) for t in Path("/proc/self/task").iterdir()}


def test_futures_complete_in_the_order_of_submission(segmenter: Path, pictures: Pictures) -> None:
    order: list[int] = []
    with OpenVINOEngine(segmenter, in_flight=3, max_batch=4) as engine:
        submitted = []
        for number in range(40):
            images = pictures(1 + number % 4)
            future = engine.submit(images)
            future.add_done_callback(lambda _, number=number: order.append(number))  # type: ignore[misc]  # bound now
            submitted.append((images, future))
        for images, future in submitted:
            for image, prediction in zip(images, future.result(), strict=True):
                np.testing.assert_array_equal(prediction.class_map, bits_of(image))
    assert order == list(range(40))


def test_predictions_are_the_callers_own(segmenter: Path, pictures: Pictures) -> None:
    with OpenVINOEngine(segmenter, in_flight=1) as engine:
        images = pictures(2)
        first = engine.submit(images).result()
        images[0][:] = 0  # the future is done, so the picture is ours again
        for _ in range(4):
            engine.submit(pictures(2)).result()
        np.testing.assert_array_equal(first[1].class_map, bits_of(images[1]))
        assert first[0].class_map is not None
        first[0].class_map[:] = 9
        np.testing.assert_array_equal(engine.submit([images[1]]).result()[0].class_map, bits_of(images[1]))


def test_submit_waits_while_as_many_are_in_flight(segmenter: Path, pictures: Pictures) -> None:
    """A future's callback holds the collecting thread, so the next batch stays in flight and the one after waits."""
    (image,) = pictures(1)
    release, held = threading.Event(), threading.Event()
    caller = threading.current_thread()
    futures: list[Future[list[Prediction]]] = []

    def hold(_: Future[list[Prediction]]) -> None:
        if threading.current_thread() is not caller:
            held.set()
            release.wait(60)

    with OpenVINOEngine(segmenter, in_flight=1) as engine:
        while not held.is_set():
            future = engine.submit([image])
            future.add_done_callback(hold)  # a future that is done already calls back here, and the next one is tried
            futures.append(future)
            if not future.done():
                held.wait(1)
        futures.append(engine.submit([image]))
        waiting = threading.Thread(target=lambda: futures.append(engine.submit([image])))
        count = len(futures)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        assert len(futures) == count
        release.set()
        waiting.join(60)
        assert len(futures) == count + 1
        assert all(len(future.result(60)) == 1 for future in futures)


@pytest.mark.parametrize("hint", ["latency", "throughput"])
def test_a_failing_request_fails_its_own_future_only(tmp_path: Path, hint: Hint) -> None:
    spec = msgspec.structs.replace(SEGMENTER, outputs={"class_map": "map"})
    path = save(fragile_model(), spec, tmp_path / "fragile.onnx")
    good = np.full((HEIGHT, WIDTH, 3), 5, np.uint8)
    good[0, 0] = (HEIGHT, WIDTH, 1)
    bad, worse = good.copy(), good.copy()
    bad[0, 0], worse[0, 0] = (7, 11, 13), (7, 11, 17)  # OpenVINO does not look at sizes again that it has just refused
    with OpenVINOEngine(path, in_flight=2, hint=hint) as engine:
        batches = ([good], [bad], [good], [worse, good], [good] if hint == "latency" else [good, good, good])
        futures = [engine.submit(images) for images in batches]
        errors = [future.exception(60) for future in futures]
        assert [error is None for error in errors] == [True, False, True, False, True]
        np.testing.assert_array_equal(futures[4].result()[0].class_map, good[..., 0])


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ([], "a batch of 0 pictures; wanted are 1 to 2"),
        ([np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 3, "a batch of 3 pictures"),
        ([np.zeros((WIDTH, HEIGHT, 3), np.uint8)], r"a picture of uint8 \(32, 16, 3\); wanted is uint8 \(16, 32, 3\)"),
        ([np.zeros((HEIGHT, WIDTH, 3), np.float32)], "a picture of float32"),
        ([np.zeros((HEIGHT, WIDTH), np.uint8)], "a picture of uint8"),
    ],
)
def test_batches_that_are_refused(segmenter: Path, images: list[NDArray[Any]], sentence: str) -> None:
    with OpenVINOEngine(segmenter, max_batch=2) as engine:
        with pytest.raises(ValueError, match=sentence):
            engine.submit(images)
        assert engine.submit([np.zeros((HEIGHT, WIDTH, 3), np.uint8)]).result()


@pytest.mark.parametrize("option", [{"max_batch": 0}, {"in_flight": 0}, {"threads": 0}])
def test_numbers_that_are_refused(segmenter: Path, option: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="is 0; wanted is at least 1"):
        OpenVINOEngine(segmenter, **option)  # type: ignore[arg-type]  # a table of options


def test_views_and_read_only_pictures_are_taken(segmenter: Path, pictures: Pictures) -> None:
    (image,) = pictures(1)
    flipped = image[::-1, ::-1]
    flipped.flags.writeable = False
    with OpenVINOEngine(segmenter) as engine:
        np.testing.assert_array_equal(engine.submit([flipped]).result()[0].class_map, bits_of(flipped))


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (2 * HEIGHT, 2 * WIDTH), (48, 64), (5, 7), (720, 9)])
def test_calling_takes_a_picture_of_any_size(segmenter: Path, size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    image[:, size[1] // 2 :] = (255, 0, 255)
    with OpenVINOEngine(segmenter) as engine:
        class_map = engine(image).class_map
    assert class_map is not None
    assert class_map.shape == (HEIGHT, WIDTH)
    # Left of the edge black, right of it red and blue; the two columns at the edge may be either.
    assert (class_map[:, : WIDTH // 2 - 2] == 0).all()
    assert (class_map[:, WIDTH // 2 + 2 :] == 5).all()


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 0, 3), np.uint8)]
)
def test_calling_refuses_what_is_no_picture(segmenter: Path, image: NDArray[np.uint8]) -> None:
    with OpenVINOEngine(segmenter) as engine, pytest.raises(ValueError, match="wanted is uint8"):
        engine(image)


def test_squashing_down_averages() -> None:
    """Where one pixel covers whole source pixels it is their mean, so nothing is skipped."""
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    means = image.reshape(4, 2, 4, 3, 3).mean((1, 3))
    np.testing.assert_allclose(squash(image, 4, 4), means, atol=0.51)
    assert squash(image, 8, 12) is image
    np.testing.assert_array_equal(squash(image, 16, 12), cv2.resize(image, (12, 16), interpolation=cv2.INTER_LINEAR))


def test_closing_waits_for_what_is_in_flight_and_may_be_repeated(segmenter: Path, pictures: Pictures) -> None:
    engine = OpenVINOEngine(segmenter, in_flight=2)
    futures = [engine.submit(pictures(2)) for _ in range(6)]
    engine.close()
    assert all(future.done() for future in futures)
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.submit(pictures(1))


@pytest.mark.seconds
def test_closing_frees_the_memory(segmenter: Path) -> None:
    engine = OpenVINOEngine(segmenter)
    lanes = [engine._flights._free.get() for _ in range(engine.in_flight)]
    freed = [weakref.ref(part) for lane in lanes for request in lane._requests for part in (request, request._memory)]
    for lane in lanes:
        engine._flights._free.put(lane)
    del lanes, lane
    engine.close()
    gc.collect()
    assert [reference() for reference in freed] == [None] * (2 * engine.in_flight * engine.max_batch)


def test_a_process_ends_in_order_with_engines_open_and_at_work(segmenter: Path) -> None:
    code = f"""
from pathlib import Path
import numpy as np
from engines.openvino import OpenVINOEngine
engines = [OpenVINOEngine(Path({str(segmenter)!r}), hint=hint) for hint in ("latency", "throughput")]
futures = [engine.submit([np.zeros(({HEIGHT}, {WIDTH}, 3), np.uint8)] * 4) for engine in engines for _ in range(3)]
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_process_ends_in_order_just_after_an_engine_was_forgotten() -> None:
    """What frees its memory has come to its end by then."""
    code = """
import time
from engines.flights import Flights

def free():
    time.sleep(0.5)
    print("freed")

flights = Flights([], "slow", free)
del flights
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "freed\n", "")


def test_a_batch_that_waits_while_the_engine_is_closed_is_refused(segmenter: Path, pictures: Pictures) -> None:
    """It neither hangs nor comes back with a future that nobody will ever resolve."""
    for _ in range(4):
        engine = OpenVINOEngine(segmenter, in_flight=1)
        outcomes: list[bool] = []

        def work(engine: OpenVINOEngine = engine, outcomes: list[bool] = outcomes) -> None:
            try:
                while True:
                    outcomes.append(len(engine.submit(pictures(1)).result(60)) == 1)
            except RuntimeError:
                return

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        while not outcomes:
            threads[0].join(0.001)
        engine.close()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert all(outcomes)


@pytest.mark.seconds
def test_a_forgotten_engine_ends_its_thread(segmenter: Path, pictures: Pictures) -> None:
    engine = OpenVINOEngine(segmenter)
    engine.submit(pictures(1)).result()
    (thread,) = [t for t in threading.enumerate() if t.name == "openvino-bits"]
    del engine
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("asked", "stored", "has_bf16", "chosen"),
    [
        ("auto", "fp32", True, "bf16"),
        ("auto", "fp32", False, "fp32"),
        ("auto", "fp16", False, "fp32"),
        ("auto", "int8", True, "int8"),
        ("fp32", "fp32", True, "fp32"),
        ("bf16", "fp32", True, "bf16"),
        ("int8", "int8", False, "int8"),
        ("bf16", "fp32", False, "This CPU does not compute in bf16"),
        ("int8", "fp32", True, "is not quantised .* `roadlens models quantize`"),
        ("fp32", "int8", True, "is quantised to int8 and cannot run in fp32"),
        ("bf16", "int8", True, "is quantised to int8 and cannot run in bf16"),
    ],
)
def test_precision(asked: Precision, stored: Any, has_bf16: bool, chosen: str) -> None:
    spec = msgspec.structs.replace(SEGMENTER, precision=stored)
    if chosen in {"fp32", "bf16", "int8"}:
        assert _choose_precision(asked, spec, Path("m.onnx"), has_bf16) == chosen
    else:
        with pytest.raises(ModelError, match=chosen):
            _choose_precision(asked, spec, Path("m.onnx"), has_bf16)


def test_int8_runs_the_twin(segmenter: Path, pictures: Pictures) -> None:
    with pytest.raises(ModelError, match="models quantize"):
        engines.load(segmenter, precision="int8")
    twin = msgspec.structs.replace(SEGMENTER, precision="int8", version="twin")
    path = save(bits_model(), twin, segmenter.with_suffix(".int8.onnx"))
    for engine in (engines.load(segmenter, precision="int8"), engines.load(path), engines.load(path, precision="int8")):
        assert (engine.precision, engine.spec.version) == ("int8", "twin")
        (image,) = pictures(1)
        np.testing.assert_array_equal(engine(image).class_map, bits_of(image))
        engine.close()


@pytest.mark.parametrize(("layers", "exact", "sentences"), [(2, False, 1), (0, False, 0), (2, True, 0)])
def test_layers_that_may_saturate_are_told_of(
    segmenter: Path, monkeypatch: Any, caplog: Any, layers: int, exact: bool, sentences: int
) -> None:
    monkeypatch.setattr(openvino, "adds_bytes_exactly", lambda: exact)
    monkeypatch.setattr(openvino, "fit_weights", lambda _: layers)
    engines.load(segmenter).close()
    assert sum("sums of 2 layers of bits in int8 may saturate" in message for message in caplog.messages) == sentences


@pytest.mark.parametrize("has_bf16", [True, False])
def test_a_cpu_without_bf16_computes_bundled_models_in_int8(segmenter: Path, monkeypatch: Any, has_bf16: bool) -> None:
    twin = msgspec.structs.replace(SEGMENTER, precision="int8", version="twin")
    save(bits_model(), twin, segmenter.with_suffix(".int8.onnx"))
    monkeypatch.setattr(openvino, "_has_bf16", lambda _: has_bf16)
    for folder, expected in ((bundled.FOLDER, "fp32"), (segmenter.parent, "int8")):
        monkeypatch.setattr(bundled, "FOLDER", folder)
        with engines.load(segmenter, device="cpu") as engine:
            assert engine.precision == ("bf16" if has_bf16 else expected)
            assert engine.spec.version == ("twin" if engine.precision == "int8" else SEGMENTER.version)
        with engines.load(segmenter, device="cpu", precision="fp32") as engine:
            assert engine.precision == "fp32"


def test_load_takes_text_and_all_options(segmenter: Path) -> None:
    engine = engines.load(str(segmenter), "cpu", "fp32", 2, 1, 1)
    assert (engine.precision, engine.max_batch, engine.in_flight) == ("fp32", 2, 1)
    engine.close()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"device": "gpu"}, "no device `gpu`; use auto, cpu, cuda or cuda:N"),
        ({"precision": "fp16", "device": "cpu"}, "no precision `fp16` on the CPU; use fp32, bf16, int8 or auto"),
        ({"model": "citiscapes"}, "no model `citiscapes`"),
    ],
)
def test_loading_what_there_is_not(segmenter: Path, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        engines.load(**{"model": segmenter, **options})


def test_a_graph_that_openvino_cannot_compile(tmp_path: Path) -> None:
    model = bits_model()
    next(node for node in model.graph.node if node.op_type == "Mul").op_type = "Conjure"
    path = save(model, SEGMENTER, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"OpenVINO cannot compile .*m\.onnx") as raised:
        engines.load(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", [b"ReduceSum", b"Cast", b"images", b"roadlens", b"Gather"])
def test_a_graph_with_names_that_are_no_text_is_one_sentence(tmp_path: Path, name: bytes) -> None:
    path = save(bits_model(), SEGMENTER, tmp_path / "bits.onnx")
    content = path.read_bytes()
    assert name in content
    path.write_bytes(content.replace(name, b"\xff\xfe" + name[2:]))
    with pytest.raises(ModelError):
        engines.load(path, device="cpu")


def test_importing_engines_is_cheap() -> None:
    """`roadlens --help` imports it; what is heavy waits until a model is loaded."""
    heavy = {"openvino", "onnx", "cv2", "nncf", "torch", "onnxruntime", "numpy", "yaml"}
    code = "import sys, engines, engines.errors; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not heavy & set(loaded.split())
