"""Pictures that are encoded where they lie: by a stand-in for NVENC, in whose place x264 does the work.

NV12 in host memory is taken for pictures in a GPU's, as in `test_device_pictures`; what only a GPU can show is in
`pytest -m gpu`.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import av
import av.error
import numpy as np
import pytest
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import CudaContext
from av.video.stream import VideoStream

torch = pytest.importorskip("torch")

from engines.cuda import nv12
from engines.errors import OutputError
from engines.loading import Degraded
from pipeline.contracts import StreamInfo
from pipeline.drawing.overlay import OverlayStage, OverlayStyle
from pipeline.frame import Analysis, Frame
from pipeline.outputs import encoder, mp4
from pipeline.outputs.live.encoder import LiveEncoder, LiveEncoderOptions
from pipeline.outputs.mp4 import VideoOptions, VideoWriter
from pipeline.pictures import device as device_pictures
from pipeline.pictures import picture as picture_module
from pipeline.pictures.picture import DevicePicture, Picture
from pipeline.pictures.planes import copy_properties, plane
from tests.engines.cuda.planes import uploaded
from tests.pipeline.sample_pictures import noise, planes

SIZE = (96, 64)
INFO = StreamInfo(*SIZE, "nv12", Fraction(1, 25), Fraction(25), None)
INFO_LARGE = StreamInfo(640, 360, "nv12", Fraction(1, 25), Fraction(25), None)


@pytest.fixture(autouse=True)
def nothing_known_of_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another test found absent on this machine is of no account: encoders here are doubles."""
    monkeypatch.setattr(encoder, "_absent", encoder.Absences())


class Nvenc:
    """NVENC as PyAV shows it: opened by its first picture, of the memory that it was told. Records what it is given."""

    made: list[Nvenc]

    def __init__(self, takes_device: bool, opens: bool) -> None:
        self._real = av.CodecContext.create("libx264", "w")
        self._takes_device, self._opens = takes_device, opens
        self._pix_fmt = ""
        self.given: list[av.VideoFrame] = []
        self.name = encoder.NVENC

    @property
    def pix_fmt(self) -> str:
        return self._pix_fmt

    @pix_fmt.setter
    def pix_fmt(self, name: str) -> None:
        self._pix_fmt = name
        self._real.pix_fmt = "nv12" if name == "cuda" else name

    def open(self, strict: bool = True) -> None:
        if not self._opens:
            raise av.error.ExternalError(-542398533, "Generic error in an external library")
        self._real.options = {"preset": "ultrafast", "tune": "zerolatency"}
        self._real.open(strict)

    def encode(self, frame: av.VideoFrame | None = None) -> list[Packet[VideoStream]]:
        if not self.given and self._pix_fmt == "cuda":
            if not self._takes_device:
                raise av.error.ExternalError(-542398533, "Generic error in an external library")
            self.open(strict=False)
        if frame is not None:
            self.given.append(frame)
        return self._real.encode(frame)

    def __setattr__(self, name: str, value: object) -> None:
        if name in {"width", "height", "time_base", "framerate", "colorspace", "color_range", "color_primaries",
                    "color_trc", "gop_size", "max_b_frames", "thread_count"}:  # fmt: skip
            setattr(self._real, name, value)
        else:
            object.__setattr__(self, name, value)


@pytest.fixture
def in_gpu_memory(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Takes NV12 for pictures in GPU memory, and says what was brought to the host, where it is no longer NV12."""
    brought: list[str] = []

    def on_host(picture: DevicePicture) -> av.VideoFrame:
        brought.append(picture.image.format.name)
        result = picture.image.reformat(format="yuv420p")
        copy_properties(picture.image, result)
        return result

    monkeypatch.setattr(picture_module, "_in_gpu_memory", lambda image: image.format.name == "nv12")
    monkeypatch.setattr(DevicePicture, "on_host", on_host)
    return brought


def nvenc(monkeypatch: pytest.MonkeyPatch, takes_device: bool = True, opens: bool = True) -> list[Nvenc]:
    made: list[Nvenc] = []
    real = encoder.created

    def created(name: str) -> VideoCodecContext:
        if name != encoder.NVENC:
            return real(name)
        made.append(Nvenc(takes_device, opens))
        return cast("VideoCodecContext", made[-1])

    monkeypatch.setattr(encoder, "created", created)
    return made


def address(image: av.VideoFrame) -> int:
    return device_pictures.borrowed(image).luma.data_ptr()


def host_info() -> StreamInfo:
    return StreamInfo(*SIZE, "yuv420p", Fraction(1, 25), Fraction(25), None)


def test_the_stand_in_has_what_pyav_has() -> None:
    for name in ("pix_fmt", "open", "encode", "name", "width", "height", "time_base", "framerate", "gop_size"):
        assert hasattr(VideoCodecContext, name), name
    assert CudaContext(device_id=1).device_id == 1  # asks no driver before its first frame
    assert CudaContext(device_id=0).primary_ctx, "which is why ours says that it is not"


def test_frames_are_made_in_the_context_that_is_there() -> None:
    """FFmpeg retains a primary context with flags of its own, and refuses the one that PyTorch has made."""
    context = device_pictures._context(1)
    assert (context.device_id, context.primary_ctx, context.current_ctx) == (1, False, True)
    assert device_pictures._context(1) is context


@pytest.fixture
def no_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg takes no picture of the GPU's memory, as where it has no context there."""

    def refuse(*_: object, **__: object) -> av.VideoFrame:
        raise av.error.ExternalError(-542398533, "Generic error in an external library")

    monkeypatch.setattr(
        device_pictures, "av", SimpleNamespace(VideoFrame=SimpleNamespace(from_dlpack=refuse), error=av.error)
    )


def test_a_live_stream_outlives_frames_that_ffmpeg_does_not_take(
    monkeypatch: pytest.MonkeyPatch, in_gpu_memory: list[str], no_frames: None
) -> None:
    nvenc(monkeypatch)
    live, told = LiveEncoder(host_info(), LiveEncoderOptions()), list[int]()
    live.degraded = lambda: told.append(1)
    encoded = [live.encode(noise("nv12", *SIZE, seed=k), k * 3600, 0.0) for k in range(3)]
    assert [each[0].pts for each in encoded] == [0, 3600, 7200]
    assert (live.takes_device, told, len(in_gpu_memory)) == (False, [1], 3)


@pytest.mark.parametrize("size", [(64, 48), (66, 34), (2, 2)])
def test_a_frame_is_the_picture_itself_and_keeps_it_alive(size: tuple[int, int]) -> None:
    image = noise("nv12", *size)
    image.pts, image.time_base, image.colorspace, image.color_range = 99, Fraction(1, 90_000), 1, 2
    wanted = planes(image)
    drawn = nv12.copied(device_pictures.borrowed(image))
    frame = device_pictures.as_frame(drawn, image)
    assert address(frame) == drawn.luma.data_ptr()
    del drawn
    assert all(np.array_equal(a, b) for a, b in zip(planes(frame), wanted, strict=True))
    assert (frame.pts, frame.time_base, frame.colorspace, frame.color_range) == (99, Fraction(1, 90_000), 1, 2)


def test_a_live_encoder_takes_pictures_where_they_lie(
    monkeypatch: pytest.MonkeyPatch, in_gpu_memory: list[str]
) -> None:
    made = nvenc(monkeypatch)
    live = LiveEncoder(INFO, LiveEncoderOptions())
    assert (live.name, live.takes_device) == (encoder.NVENC, True)
    images = [noise("nv12", *SIZE, seed=k) for k in range(4)]
    encoded = [live.encode(image, k * 3600, 0.0) for k, image in enumerate(images)]
    opened, used = made  # the first was opened to see whether it opens, before there was a picture
    assert opened.given == []
    assert [address(frame) for frame in used.given] == [address(image) for image in images]
    assert all(frame is not image for frame, image in zip(used.given, images, strict=True))
    assert [image.pts for image in images] == [None] * 4, "the shared picture keeps its own time"
    assert [each[0].pts for each in encoded] == [0, 3600, 7200, 10800]
    assert encoded[0][0].key
    assert in_gpu_memory == []


def test_a_live_encoder_that_takes_none_says_so_once_and_has_them_downloaded(
    monkeypatch: pytest.MonkeyPatch, in_gpu_memory: list[str]
) -> None:
    nvenc(monkeypatch, takes_device=False)
    live, told = LiveEncoder(host_info(), LiveEncoderOptions()), list[int]()
    live.degraded = lambda: told.append(1)
    encoded = [live.encode(noise("nv12", *SIZE, seed=k), k * 3600, 0.0) for k in range(4)]
    assert [each[0].pts for each in encoded] == [0, 3600, 7200, 10800]
    assert not live.takes_device
    assert told == [1]
    assert len(in_gpu_memory) == 4


def test_without_nvenc_every_picture_is_downloaded_for_x264(
    monkeypatch: pytest.MonkeyPatch, in_gpu_memory: list[str]
) -> None:
    nvenc(monkeypatch, opens=False)
    live = LiveEncoder(host_info(), LiveEncoderOptions())
    assert (live.name, live.takes_device) == ("libx264", False)
    assert live.encode(noise("nv12", *SIZE), 0, 0.0)[0].key
    assert len(in_gpu_memory) == 1
    with pytest.raises(OutputError, match="no encoder opens"):
        LiveEncoder(host_info(), LiveEncoderOptions(encoder="h264_nvenc"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_on_a_gpu_a_frame_is_the_picture_itself() -> None:
    image = noise("nv12", 640, 360)
    luma, chroma = planes(image)
    drawn = uploaded(luma, chroma, "bt709", False, "cuda:0")
    frame = device_pictures.as_frame(drawn, image)
    assert Picture.of(frame).in_gpu_memory
    assert device_pictures.borrowed(frame).luma.data_ptr() == drawn.luma.data_ptr()
    back = Picture.of(frame).on_host()
    assert all(np.array_equal(a, b) for a, b in zip(planes(back), (luma, chroma), strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_on_a_gpu_with_nvenc_pictures_are_encoded_where_they_lie() -> None:
    live = LiveEncoder(INFO_LARGE, LiveEncoderOptions())
    if live.name != encoder.NVENC:
        pytest.skip("this GPU has no NVENC")
    image = noise("nv12", 640, 360)
    luma, chroma = planes(image)
    frame = device_pictures.as_frame(uploaded(luma, chroma, "bt709", False, "cuda:0"), image)
    encoded = [part for k in range(5) for part in live.encode(frame, k * 3600, 0.0)]
    assert live.takes_device
    assert encoded[0].key
    assert [part.pts for part in encoded] == [0, 3600, 7200, 10800, 14400]


# Files ---------------------------------------------------------------------------------------------------------------
class Track:
    """A container's video track whose encoder is NVENC; x264 does its work."""

    def __init__(self, real: VideoStream) -> None:
        self._real = real
        self.codec_context = self
        self.name, self.pix_fmt = encoder.NVENC, "nv12"
        self.metadata: dict[str, str] = {}
        self.given: list[tuple[str, av.VideoFrame]] = []

    def encode(self, frame: av.VideoFrame | None = None) -> list[Packet[VideoStream]]:
        if frame is not None:
            self.given.append((self.pix_fmt, frame))
        return self._real.encode(frame)


@pytest.fixture
def track(monkeypatch: pytest.MonkeyPatch) -> list[Track]:
    tracks: list[Track] = []
    real = mp4.open_encoder

    def opened(container: av.container.OutputContainer, info: StreamInfo, options: VideoOptions) -> Track:
        tracks.append(Track(real(container, info, VideoOptions(encoder="libx264", preset="ultrafast"))))
        return tracks[-1]

    monkeypatch.setattr(mp4, "open_encoder", opened)
    return tracks


def analyses(images: list[av.VideoFrame]) -> list[Analysis]:
    return [Analysis(Frame("front", k, k, Fraction(1, 25), 0.0, 0.0, i), "file") for k, i in enumerate(images)]


@pytest.mark.parametrize("takes", [True, False])
def test_a_file_is_written_from_pictures_where_they_lie_or_downloaded(
    monkeypatch: pytest.MonkeyPatch, in_gpu_memory: list[str], track: list[Track], tmp_path: Path, takes: bool
) -> None:
    nvenc(monkeypatch, takes_device=takes)
    told: list[Degraded] = []
    info = INFO if takes else host_info()
    writer = VideoWriter(tmp_path / "o.mp4", info, VideoOptions())
    writer.observe(told.append)
    assert writer.takes_device
    images = [noise("nv12", *SIZE, seed=k) for k in range(5)]
    for analysis in analyses(images):
        writer.consume(analysis)
    writer.finish()
    assert writer.takes_device is takes
    assert len(in_gpu_memory) == (0 if takes else 5)
    assert [what.lacking for what in told] == ([] if takes else ["nvenc"])
    assert [memory for memory, _ in track[0].given] == ["cuda" if takes else "nv12"] * 5
    if takes:
        assert [address(frame) for _, frame in track[0].given] == [address(image) for image in images]
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx([k / 25 for k in range(5)])


def test_a_file_is_written_though_ffmpeg_does_not_take_frames(
    monkeypatch: pytest.MonkeyPatch, in_gpu_memory: list[str], track: list[Track], no_frames: None, tmp_path: Path
) -> None:
    nvenc(monkeypatch)
    told: list[Degraded] = []
    writer = VideoWriter(tmp_path / "o.mp4", host_info(), VideoOptions())
    writer.observe(told.append)
    for analysis in analyses([noise("nv12", *SIZE, seed=k) for k in range(3)]):
        writer.consume(analysis)
    writer.finish()
    assert ([what.lacking for what in told], writer.takes_device, len(in_gpu_memory)) == (["nvenc"], False, 3)
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert len(list(container.decode(video=0))) == 3


def test_a_file_whose_first_picture_is_in_host_memory_has_the_others_downloaded(
    monkeypatch: pytest.MonkeyPatch, in_gpu_memory: list[str], track: list[Track], tmp_path: Path
) -> None:
    nvenc(monkeypatch)
    writer = VideoWriter(tmp_path / "o.mp4", host_info(), VideoOptions())
    for analysis in analyses([noise("yuv420p", *SIZE), noise("nv12", *SIZE)]):
        writer.consume(analysis)
    writer.finish()
    assert not writer.takes_device
    assert len(in_gpu_memory) == 1


def test_the_overlay_stays_in_gpu_memory_as_long_as_all_encoders_take_it_there(
    monkeypatch: pytest.MonkeyPatch, in_gpu_memory: list[str]
) -> None:
    downloads: list[object] = []
    real = device_pictures.downloaded

    def downloaded(drawn: nv12.Nv12, like: av.VideoFrame) -> av.VideoFrame:
        downloads.append(drawn)
        return real(drawn, like)

    monkeypatch.setattr(device_pictures, "downloaded", downloaded)
    stage, stays = OverlayStage(OverlayStyle(heads_up=True)), True
    stage.target.stay = lambda: stays
    (analysis,) = analyses([noise("nv12", *SIZE)])
    drawn = stage.process(analysis).picture
    assert drawn is not None
    assert downloads == []
    stays = False
    again = stage.process(analysis).picture
    assert again is not None
    assert len(downloads) == 1
    for one, other in zip(planes(drawn), planes(again), strict=True):
        assert np.array_equal(one, other)
    assert (plane(drawn, 0) != plane(analysis.frame.image, 0)).any()
