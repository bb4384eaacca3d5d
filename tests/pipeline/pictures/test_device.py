"""Pictures in GPU memory: the overlay drawn there is the one drawn here; what is not there is said and replaced."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engines.classes import CITYSCAPES_CLASSES
from engines.cuda.probe import lacking
from engines.errors import DeviceError
from engines.loading import Degraded
from pipeline.config import Config, StreamConfig
from pipeline.drawing.overlay import Overlay, OverlayStage, OverlayStyle
from pipeline.frame import Analysis, Box, Frame
from pipeline.pictures import device as device_pictures
from pipeline.pictures import picture as picture_module
from pipeline.pictures.colors import Colorimetry
from pipeline.pictures.inputs import network_input
from pipeline.pictures.picture import DevicePicture, Picture, Target, network_inputs
from pipeline.pictures.planes import pixel_format, plane
from pipeline.runtime import LoadedModel, Runtime, StreamPlan
from pipeline.session import Session
from pipeline.sources import decoding as decoding_module
from pipeline.sources.clips import ClipSource
from pipeline.sources.decoding import Decoding, without_nvdec
from tests.footage import write_clip
from tests.pipeline.fake_analysis import areas
from tests.pipeline.sample_pictures import noise, planes
from tests.pipeline.scripted_engine import ScriptedEngine

EVERYTHING = OverlayStyle(opacity=0.45, outlines=True, boxes=True, legend=True, heads_up=True, hide=("sky",))
BOXES = (
    Box(20.5, 40, 120, 130, 13, "car", 0.87, "test", 7),
    Box(-30, 100, 60, 400, 11, "person", 0.5, "test"),
    Box(200, 20, 310, 60, 0, "head", 0.9, "localizer", 3),
)


def analysed(image: av.VideoFrame, boxes: tuple[Box, ...] = BOXES) -> Analysis:
    class_map = areas(90, 160, seed=4)
    class_map[40:70, 30:80] = 13
    frame = Frame("drive", 0, 7, Fraction(1, 25), 0.0, 0.0, image)
    return Analysis(frame, "file", class_map=class_map, classes=CITYSCAPES_CLASSES, boxes=boxes)


# The overlay --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [(320, 180), (398, 250)])
@pytest.mark.parametrize(
    "style",
    [EVERYTHING, OverlayStyle(0.0, False, True), OverlayStyle(0.7, True, False), OverlayStyle(0.0, False, False)],
)
def test_ink_composed_on_planes_is_what_drawing_on_them_makes(size, style):
    image = noise("nv12", *size)
    overlay = Overlay(style, CITYSCAPES_CLASSES, Colorimetry("bt709", False))
    for number in range(2):  # the second on memory that the first has used
        given = analysed(image, BOXES[number:])
        wanted = planes(overlay.draw(given, "drive 1 s"))
        drawn = overlay.draw_nv12(device_pictures.borrowed(image), given, "drive 1 s")
        for own, plane_wanted in zip((drawn.luma.numpy(), drawn.chroma.numpy()), wanted, strict=True):
            # The CPU rounds colours before it blends them, and every soft edge that lies on another.
            difference = np.abs(own.astype(int) - plane_wanted)
            assert difference.max() <= 8
            assert (difference > 2).mean() < 0.001


def test_borrowed_planes_are_the_frames_own_and_outlive_it():
    image = noise("nv12", 64, 48)
    before = planes(image)
    picture = device_pictures.borrowed(image)
    del image
    assert np.array_equal(picture.luma.numpy(), before[0])
    assert np.array_equal(picture.chroma.numpy(), before[1])


@pytest.mark.parametrize("size", [(64, 48), (66, 34), (2, 2)])
def test_a_downloaded_picture_has_the_pixels_and_properties(size):
    image = noise("nv12", *size)
    image.pts, image.time_base, image.colorspace, image.color_range = 99, Fraction(1, 90_000), 1, 2
    result = device_pictures.downloaded(device_pictures.borrowed(image), image)
    assert all(np.array_equal(a, b) for a, b in zip(planes(result), planes(image), strict=True))
    assert (result.pts, result.time_base, result.colorspace, result.color_range) == (99, Fraction(1, 90_000), 1, 2)


@pytest.mark.parametrize("colour", [("bt601", 5, 1), ("bt709", 1, 2)])
@pytest.mark.parametrize("size", [(640, 360), (96, 64)])
def test_model_inputs_of_the_kernels_are_near_those_of_ffmpegs_scaler(colour, size):
    gradient = np.add.outer(np.arange(size[1]), np.arange(size[0]) * 0.7).astype(np.uint8) // 2 + 50
    rgb = np.stack([gradient, gradient[::-1], gradient[:, ::-1]], -1)
    image = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").reformat(
        format="nv12", dst_colorspace=colour[1], dst_color_range=colour[2]
    )
    image.colorspace, image.color_range = colour[1], colour[2]
    own = device_pictures.network_inputs([(image, None), (image, None)], 64, 64)
    difference = np.abs(own[0].astype(int) - network_input(image, 64, 64))
    assert difference.mean() < 1
    assert np.percentile(difference, 99) <= 4
    assert np.array_equal(own[0], own[1])


def test_pictures_in_host_memory_take_the_cpus_way():
    images = [noise("yuv420p", 64, 48), noise("nv12", 64, 48)]
    assert [Picture.of(i).in_gpu_memory for i in images] == [False, False]
    assert [pixel_format(i) for i in images] == ["yuv420p", "nv12"]
    assert Picture.of(images[0]).on_host() is images[0]
    for image, own in zip(images, network_inputs(images, 32, 32), strict=True):
        assert np.array_equal(own, network_input(image, 32, 32))


# The whole way, NV12 in host memory being taken for pictures in a GPU's ----------------------------------------------
def analyses(path: Path, told: list[Degraded]) -> list[Analysis]:
    kept: list[Analysis] = []

    class Keep:
        def consume(self, analysis: Analysis) -> None:
            kept.append(analysis)

    source, stage = ClipSource("drive", [path]), OverlayStage(EVERYTHING)
    stage.target.degraded = told.append
    plan = StreamPlan(source, source.open(), [stage], [Keep()])
    runtime = Runtime([plan], [LoadedModel(ScriptedEngine())], degraded=told.append)
    runtime.start()
    assert runtime.wait(60)
    assert runtime.result().error is None
    return kept


@pytest.mark.parametrize("room", [True, False])
def test_the_way_through_the_kernels_gives_the_analyses_and_pictures_of_the_cpus_way(tmp_path, monkeypatch, room):
    path = tmp_path / "drive.nut"
    write_clip(path, frames=6, size=(320, 180), codec="rawvideo", pix_fmt="nv12")
    told: list[Degraded] = []
    wanted = analyses(path, told)
    assert not told
    monkeypatch.setattr(picture_module, "_in_gpu_memory", lambda image: image.format.name == "nv12")
    if not room:

        def full(*_: object) -> None:
            raise device_pictures.OutOfMemory("CUDA out of memory")

        monkeypatch.setattr(DevicePicture, "on_host", lambda picture: picture.image)  # there is no other memory here
        monkeypatch.setattr(device_pictures.nv12, "blended", full)
        monkeypatch.setattr(device_pictures.nv12, "network_inputs", full)
    found = analyses(path, told)
    assert [a.frame.pts for a in found] == [a.frame.pts for a in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert (one.class_map != other.class_map).mean() < 0.02  # at the edges, a level decides
        for a, b in zip(planes(one.picture), planes(other.picture), strict=True):
            assert np.abs(a.astype(int) - b).mean() < 1
    assert {what.wanted for what in told} == (set() if room else {"model inputs", "overlays"})


# What is lacking ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("wanted", "missing", "said"),
    [
        ("cpu", ("driver", "no driver"), []),
        ("auto", ("driver", "no driver"), []),  # a machine without a GPU: nothing is amiss
        ("auto", ("nvdec", "no NVDEC"), ["nvdec"]),
        ("auto", ("library", "no torch"), ["library"]),
        ("cuda", ("driver", "no driver"), ["driver"]),
        ("cuda", ("gpu", "no GPU"), ["gpu"]),
    ],
)
def test_what_is_lacking_is_told_once_and_the_cpu_decodes(tmp_path: Path, wanted, missing, said):
    path = tmp_path / "clip.mp4"
    write_clip(path, frames=3, size=(64, 48))
    told: list[Degraded] = []
    decoding = Decoding("front", wanted, degraded=told.append, probe=lambda: missing)
    with decoding.open(str(path)) as container:
        for image in container.decode(video=0):
            decoding.check(image)
            assert not Picture.of(image).in_gpu_memory
    assert decoding.decoder == "cpu"
    assert [what.lacking for what in told] == said
    assert all(what.sentence.startswith("front: no ") and what.sentence.endswith(".") for what in told)


def test_nvdec_that_does_not_start_or_take_a_stream_is_told_and_the_cpu_decodes(tmp_path: Path):
    path = tmp_path / "clip.mp4"
    write_clip(path, frames=3, size=(64, 48))
    if without_nvdec() is None:
        pytest.skip("NVDEC is here; the machine must have none for it to fail")
    told: list[Degraded] = []
    found = iter([None, ("nvdec", "no NVDEC")])  # there when the run begins, and gone when the file is opened
    decoding = Decoding("front", "cuda", degraded=told.append, probe=lambda: next(found))
    assert decoding.decoder == "cuda"
    with decoding.open(str(path)) as container:
        assert decoding.decoder == "cpu"
        assert len(list(container.decode(video=0))) == 3
    assert [what.lacking for what in told] == ["nvdec"]
    refused = Decoding("rear", "cuda", degraded=told.append, probe=lambda: None)
    refused.check(noise("yuv420p", 64, 48))
    refused.check(noise("yuv420p", 64, 48))
    assert [what.sentence for what in told[1:]] == [
        "rear: NVDEC does not take this 64×48 stream; it is decoded on the CPU."
    ]


def test_a_missing_driver_is_found_by_trying():
    assert lacking("libno-such-driver.so.1") == ("driver", "there is no NVIDIA driver here")
    assert lacking("libc.so.6") == ("driver", "there is no NVIDIA driver here")  # a library, and not the driver


def test_nvdec_decodes_in_the_context_that_models_have_made(monkeypatch):
    """FFmpeg retains a primary context with flags of its own, and refuses the one that a model has made."""
    made: list[int] = []
    monkeypatch.setattr(decoding_module, "make_current", made.append)
    own = decoding_module.accelerator(1)
    assert made == [1], "before FFmpeg asks for it"
    assert own.options == {"primary_ctx": "0", "current_ctx": "1"}
    assert (own.device_id, own.is_hw_owned) == (1, True)


def test_without_the_drivers_decoding_library_it_is_named(monkeypatch):
    monkeypatch.setattr(decoding_module, "lacking", lambda: None)
    monkeypatch.setattr(decoding_module, "NVCUVID", "libno-such-nvcuvid.so.1")
    word, clause = without_nvdec()
    assert word == "nvdec"
    assert clause.startswith("the driver's library for decoding, libno-such-nvcuvid.so.1, is missing")


def test_an_overlay_that_ffmpeg_takes_no_frame_of_is_downloaded(monkeypatch):
    def refuse(*_args):
        raise DeviceError("FFmpeg takes no pictures of the GPU's memory.", "ffmpeg")

    monkeypatch.setattr(picture_module, "_in_gpu_memory", lambda _image: True)
    monkeypatch.setattr(device_pictures, "as_frame", refuse)
    told: list[Degraded] = []
    target = Target(told.append, lambda: True)
    overlay = Overlay(EVERYTHING, CITYSCAPES_CLASSES, Colorimetry("bt709", False), target)
    image = noise("nv12", 64, 48)
    drawn = [overlay.draw(analysed(image, ())) for _ in range(2)]
    target.stay = lambda: False
    wanted = overlay.draw(analysed(image, ()))
    for one in drawn:
        assert all(np.array_equal(a, b) for a, b in zip(planes(one), planes(wanted), strict=True))
    assert [what.lacking for what in told] == ["ffmpeg"], "once, not for every picture"


def test_a_clip_that_shall_be_decoded_on_the_gpu_is_read_without_one(tmp_path: Path):
    path = tmp_path / "clip.mp4"
    write_clip(path, frames=5, size=(64, 48))
    told: list[Degraded] = []
    source = ClipSource("front", [path], decoding=Decoding("front", "cuda", degraded=told.append))
    info = source.open()
    frames = list(source)
    source.close()
    assert len(frames) == 5
    if without_nvdec() is not None:
        assert info.pixel_format == "yuv420p"
        assert len(told) == 1


@pytest.mark.seconds
def test_a_run_counts_what_is_lacking_for_each_stream_and_says_it_once(tmp_path: Path, caplog):
    missing = without_nvdec()
    if missing is None:
        pytest.skip("NVDEC is here; the machine must have none for it to be lacking")
    path = tmp_path / "clip.mp4"
    write_clip(path, frames=3, size=(64, 48))
    streams = tuple(StreamConfig(str(path), name, decode="cuda") for name in ("front", "rear"))
    with caplog.at_level("WARNING"), Session(Config(streams=streams)) as session:
        result = session.run()
        labels = {"wanted": "nvdec", "instead": "cpu", "lacking": missing[0]}
        assert session.metrics.registry.get_sample_value("roadlens_degraded_total", labels) == 2
    assert [s.counts.emitted for s in result.streams] == [3, 3]
    assert [record.message for record in caplog.records if "decoded on the CPU" in record.message] == [
        f"front: {missing[1]}; it is decoded on the CPU."
    ]


# On a GPU -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def nvdec() -> None:
    """NVDEC on a GPU whose context PyTorch has made, as models do before sources open."""
    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")
    missing = without_nvdec()
    if missing is not None:
        pytest.skip(missing[1])


@pytest.mark.gpu
def test_decoded_on_the_gpu_a_clip_has_the_same_pixels_times_and_inputs(nvdec, tmp_path: Path):
    path = tmp_path / "clip.mp4"
    write_clip(path, frames=12, size=(640, 360), bframes=2)
    plain, own = ClipSource("cpu", [path]), ClipSource("gpu", [path], decoding=Decoding("gpu", "cuda"))
    assert (plain.open().width, own.open().pixel_format) == (640, "nv12")
    pairs = list(zip(plain, own, strict=True))
    assert len(pairs) == 12
    for expected, frame in pairs:
        assert Picture.of(frame.image).in_gpu_memory
        assert frame.pts == expected.pts
        luma = plane(Picture.of(frame.image).on_host(), 0)
        assert np.array_equal(luma, plane(expected.image, 0))  # H.264 decodes to the bit
    small = network_inputs([frame.image for _, frame in pairs], 64, 64)
    for (expected, _), made in zip(pairs, small, strict=True):
        assert np.abs(made.astype(int) - network_input(expected.image, 64, 64)).mean() < 1
    plain.close()
    own.close()


@pytest.mark.gpu
def test_nvdec_is_used_in_threads_that_have_not_touched_the_gpu(nvdec, tmp_path: Path):
    path = tmp_path / "clip.mp4"
    write_clip(path, frames=5, size=(640, 360))
    told: list[Degraded] = []

    def decoded(name: str) -> list[bool]:
        source = ClipSource(name, [path], decoding=Decoding(name, "cuda", degraded=told.append))
        source.open()
        found = [Picture.of(frame.image).in_gpu_memory for frame in source]
        source.close()
        return found

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(decoded, ("front", "rear", "left"))) == [[True] * 5] * 3
    assert told == []


@pytest.mark.gpu
def test_drawn_on_the_gpu_the_overlay_is_the_cpus(nvdec, tmp_path: Path):
    path = tmp_path / "clip.mp4"
    write_clip(path, frames=3, size=(640, 360))
    overlay = Overlay(EVERYTHING, CITYSCAPES_CLASSES, Colorimetry("bt709", False))
    source = ClipSource("gpu", [path], decoding=Decoding("gpu", "cuda"))
    source.open()
    for frame in source:
        drawn = overlay.draw(analysed(frame.image), "drive")
        wanted = overlay.draw(analysed(Picture.of(frame.image).on_host()), "drive")
        assert not Picture.of(drawn).in_gpu_memory
        for a, b in zip(planes(drawn), planes(wanted), strict=True):
            assert np.abs(a.astype(int) - b).max() <= 8
    source.close()
