"""Where a picture's pixels lie is looked at in one place, and everything asked of a picture goes by that."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import av
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engines.loading import Degraded
from pipeline.pictures import device as device_pictures
from pipeline.pictures import picture as picture_module
from pipeline.pictures.conversion import converted
from pipeline.pictures.fields import UPPER, order_of
from pipeline.pictures.inputs import network_input
from pipeline.pictures.picture import DevicePicture, HostPicture, Picture, Target, network_inputs
from tests.pipeline.sample_pictures import noise, planes


def in_gpu(pixels: str = "nv12", width: int = 64, height: int = 48, **more: Any) -> av.VideoFrame:
    """What FFmpeg says of a picture that NVDEC left in GPU memory; it has no pixels here."""
    names = {"format": SimpleNamespace(name="cuda"), "sw_format": SimpleNamespace(name=pixels)}
    return cast("av.VideoFrame", SimpleNamespace(width=width, height=height, **names, **more))


@pytest.fixture
def taken_for_gpu(monkeypatch: pytest.MonkeyPatch) -> list[av.VideoFrame]:
    """Takes NV12 for pictures in GPU memory; lists those that were downloaded."""
    downloaded: list[av.VideoFrame] = []

    def on_host(picture: DevicePicture) -> av.VideoFrame:
        downloaded.append(picture.image)
        return converted_to_planar(picture.image)

    monkeypatch.setattr(picture_module, "_in_gpu_memory", lambda image: image.format.name == "nv12")
    monkeypatch.setattr(DevicePicture, "on_host", on_host)
    return downloaded


def converted_to_planar(image: av.VideoFrame) -> av.VideoFrame:
    result = image.reformat(format="yuv420p")
    result.colorspace, result.color_range, result.color_trc = image.colorspace, image.color_range, image.color_trc
    return result


def test_the_memory_decides_which_picture_it_is() -> None:
    host, device = Picture.of(noise("nv12", 64, 48)), Picture.of(in_gpu())
    assert (type(host), host.in_gpu_memory, type(device), device.in_gpu_memory) == (
        HostPicture, False, DevicePicture, True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("pixels", "width", "height", "workable"),
    [("nv12", 64, 48, True), ("p010le", 64, 48, False), ("nv12", 63, 48, False), ("nv12", 64, 47, False)],
)
def test_in_gpu_memory_only_nv12_of_even_size_is_worked_on(
    pixels: str, width: int, height: int, workable: bool
) -> None:
    picture = Picture.of(in_gpu(pixels, width, height))
    assert picture.workable is workable
    if not workable:
        assert picture.for_device_encoder() is None


@pytest.mark.parametrize("pixels", ["yuv420p", "nv12", "yuv422p"])
def test_in_host_memory_every_picture_is_worked_on_as_it_is(pixels: str) -> None:
    image = noise(pixels, 63, 47) if pixels == "yuv444p" else noise(pixels, 64, 48)
    picture = Picture.of(image)
    assert picture.workable
    assert picture.on_host() is image
    assert picture.for_device_encoder() is None
    assert np.array_equal(picture.network_input(24, 32), network_input(image, 24, 32))


def test_an_encoder_gets_a_frame_of_its_own_of_the_same_memory(taken_for_gpu: list[av.VideoFrame]) -> None:
    image = noise("nv12", 64, 48)
    image.pts = 7
    own = Picture.of(image).for_device_encoder()
    assert own is not None
    assert own is not image
    own.pts = 8
    assert image.pts == 7
    assert device_pictures.borrowed(own).luma.data_ptr() == device_pictures.borrowed(image).luma.data_ptr()
    assert taken_for_gpu == []


def test_a_batch_keeps_its_order_wherever_its_pictures_lie(taken_for_gpu: list[av.VideoFrame]) -> None:
    images = [noise(pixels, 64, 48, seed=k) for k, pixels in enumerate(["yuv420p", "nv12", "nv12", "yuv420p", "nv12"])]
    images[2].color_trc = 16  # PQ: tone-mapped on the CPU
    made = network_inputs(images, 24, 32)
    by_kernels = device_pictures.network_inputs([(images[1], None), (images[4], None)], 24, 32)
    wanted = [
        network_input(images[0], 24, 32), by_kernels[0], network_input(converted_to_planar(images[2]), 24, 32),
        network_input(images[3], 24, 32), by_kernels[1],
    ]  # fmt: skip
    assert all(np.array_equal(one, other) for one, other in zip(made, wanted, strict=True))
    assert taken_for_gpu == [images[2]], "a picture that the kernels take is not downloaded"
    assert np.array_equal(Picture.of(images[1]).network_input(24, 32), by_kernels[0])


def test_without_room_a_batch_is_made_on_the_cpu_and_that_is_told(
    taken_for_gpu: list[av.VideoFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> list[Any]:
        raise device_pictures.OutOfMemory("CUDA out of memory")

    monkeypatch.setattr(device_pictures.nv12, "network_inputs", full)
    images, told = [noise("nv12", 64, 48, seed=k) for k in range(2)], list[Degraded]()
    made = network_inputs(images, 24, 32, degraded=told.append)
    wanted = [network_input(converted_to_planar(image), 24, 32) for image in images]
    assert all(np.array_equal(one, other) for one, other in zip(made, wanted, strict=True))
    assert [what.wanted for what in told] == ["model inputs"]


def test_what_needs_pixels_in_host_memory_downloads_them_once(taken_for_gpu: list[av.VideoFrame]) -> None:
    image = noise("nv12", 64, 48)
    _, width, height = Picture.of(image).jpeg(max_width=32)
    assert (width, height) == (32, 24)
    assert taken_for_gpu == [image]
    assert converted(image, "yuv444p").format.name == "yuv444p"
    assert taken_for_gpu == [image, image]


@pytest.mark.parametrize(("stays", "downloads"), [(True, 0), (False, 1)])
def test_what_is_drawn_stays_where_encoders_read_it(
    taken_for_gpu: list[av.VideoFrame], monkeypatch: pytest.MonkeyPatch, stays: bool, downloads: int
) -> None:
    delivered: list[object] = []
    real: Callable[..., av.VideoFrame] = device_pictures.downloaded
    monkeypatch.setattr(device_pictures, "downloaded", lambda *given: delivered.append(given) or real(*given))
    image, target = noise("nv12", 64, 48), Target(stay=lambda: stays)
    drawn = target.drawn(image, device_pictures.nv12.copied, lambda _image: pytest.fail("it lies in GPU memory"))
    assert all(np.array_equal(one, other) for one, other in zip(planes(drawn), planes(image), strict=True))
    assert len(delivered) == downloads
    host = noise("yuv420p", 64, 48)
    assert target.drawn(host, lambda _planes: pytest.fail("it lies in host memory"), lambda given: given) is host
    assert taken_for_gpu == []


def test_the_fields_of_a_picture_in_gpu_memory_are_not_looked_at() -> None:
    assert order_of(in_gpu(interlaced_frame=True)) == 0
    clip = noise("yuv420p", 64, 48)
    assert order_of(clip) == 0
    assert UPPER == 2
