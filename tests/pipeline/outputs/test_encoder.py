"""Which encoder is used, and how often a machine is asked for one that it has not."""

from __future__ import annotations

from fractions import Fraction

import av
import av.error
import pytest
from av.video.codeccontext import VideoCodecContext

from engines.errors import OutputError
from pipeline.outputs import encoder
from pipeline.outputs.encoder import ABSENT_SECONDS, NVENC, Absences, created, open_first


class Machine:
    """A machine whose encoders in hardware take pictures of some widths. What has another name is FFmpeg's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, takes: range) -> None:
        self.takes, self.opened, self.now = takes, list[str](), 0.0
        monkeypatch.setattr(encoder, "created", self._created)
        monkeypatch.setattr(encoder, "_absent", Absences(lambda: self.now))

    def _created(self, name: str) -> VideoCodecContext:
        context = created("libx264")
        if name == "libx264":
            return context
        machine = self

        class Hardware:
            def __setattr__(self, key: str, value: object) -> None:
                object.__setattr__(self, key, value)
                setattr(context, key, value)

            def open(self) -> None:
                machine.opened.append(name)
                if context.width not in machine.takes:
                    raise av.error.ExternalError(0, "Generic error in an external library", name)
                context.open()

        return Hardware()  # type: ignore[return-value]  # what is asked of a context here


def opened(width: int = 320, names: tuple[str, ...] = (NVENC, "h264_qsv", "libx264")) -> str:
    def configure(context: VideoCodecContext, _name: str) -> None:
        context.width, context.height, context.pix_fmt = width, 240, "yuv420p"
        context.time_base, context.framerate = Fraction(1, 25), Fraction(25)

    return open_first(names, configure, "pictures")[0]


def test_a_machine_without_an_encoder_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, range(0))
    for _ in range(3):
        assert opened() == "libx264"
    assert machine.opened == [NVENC, NVENC, "h264_qsv", "h264_qsv"], "once for the stream, once for plain pictures"
    machine.now = ABSENT_SECONDS + 1  # a consumer card at its limit, where somebody has stopped by now
    machine.takes = range(10_000)
    assert opened() == NVENC


def test_a_stream_that_it_does_not_take_says_nothing_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, range(160, 4097))
    assert opened(96) == "libx264"
    assert opened(8000) == "libx264"
    assert opened(1920) == NVENC
    assert machine.opened.count(NVENC) == 5, "two that were refused, with a look at plain pictures each, and one"


def test_an_encoder_that_is_asked_for_by_name_is_always_tried_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, range(0))
    assert opened() == "libx264"
    before = machine.opened.count(NVENC)
    with pytest.raises(
        OutputError, match=r"no encoder opens for pictures \(tried h264_nvenc: a library that FFmpeg uses fails"
    ):
        opened(names=(NVENC,))
    assert machine.opened.count(NVENC) == before + 1


def test_without_nvidias_driver_no_second_stream_asks_for_nvenc(monkeypatch: pytest.MonkeyPatch) -> None:
    """With FFmpeg's own NVENC, on a machine without a GPU."""
    from engines.cuda.probe import has_driver

    if has_driver():
        pytest.skip("there is an NVIDIA driver here; the machine must have none for NVENC to be absent")
    asked = list[str]()

    def counted(name: str) -> VideoCodecContext:
        asked.append(name)
        return created(name)

    monkeypatch.setattr(encoder, "created", counted)
    monkeypatch.setattr(encoder, "_absent", Absences())
    for _ in range(3):
        assert opened(names=(NVENC, "libx264")) == "libx264"
    assert asked == [NVENC, NVENC, "libx264", "libx264", "libx264"]
