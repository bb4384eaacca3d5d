"""The original picture leaves in no output: every one of them is opened and looked at for detail.

Everything the segmenter knows counts as a person here, so that nothing of a picture may be left sharp.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from engines.errors import UsageError
from pipeline.config import Config, ModelConfig, PublishConfig, StreamConfig, VideoConfig
from pipeline.drawing.anonymize import AnonymizeOptions
from pipeline.drawing.overlay import OverlayStyle
from pipeline.frame import Analysis
from pipeline.messages.headers import AnalysisMessage, PictureMessage
from pipeline.messages.publish import PictureOptions
from pipeline.messages.subscriber import Subscriber
from pipeline.messages.topics import topic
from pipeline.outputs.event_clip import EventClipOptions
from pipeline.outputs.live.hls import HlsOptions
from pipeline.outputs.live.opening import OutputOptions
from pipeline.outputs.live.segments import RecordingOptions
from pipeline.outputs.snapshots import LiveView
from pipeline.pictures.planes import plane
from pipeline.session import Session
from tests.engines.tiny_models import SEGMENTER
from tests.pipeline.messages.test_publish import until_subscribed

BARE = OverlayStyle(opacity=0, outlines=False, boxes=False)
SERVES = find_spec("uvicorn") is not None
EVERYBODY = AnonymizeOptions(people=tuple(info.name for info in SEGMENTER.classes), vehicles=())


def detail(luma: np.ndarray) -> float:
    """How much there is that no blur leaves: the spread of the second differences."""
    return float(np.std(cv2.Laplacian(luma, cv2.CV_32F)))


def jpeg_detail(jpeg: bytes) -> float:
    return detail(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE))


def video_detail(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [detail(plane(frame, 0)) for frame in container.decode(video=0)]


class Collector:
    """A sink and stage of one's own: whatever pictures it is shown, and the newest as viewers get it."""

    def __init__(self) -> None:
        self.found: dict[str, list[float]] = {"stage": [], "frame": [], "picture": [], "view": []}
        self.said: list[bool] = []
        self.view = LiveView()

    def process(self, analysis: Analysis) -> Analysis:
        self.found["stage"].append(detail(plane(analysis.frame.image, 0)))
        return analysis

    def consume(self, analysis: Analysis) -> None:
        self.found["frame"].append(detail(plane(analysis.frame.image, 0)))
        if analysis.picture is not None:
            self.found["picture"].append(detail(plane(analysis.picture, 0)))
        self.view.consume(analysis)
        shown = self.view.snapshot(analysis.frame.stream)
        assert shown is not None
        self.found["view"].append(jpeg_detail(shown.jpeg))
        self.said.append(analysis.anonymized)


def run(folder: Path, segmenter: Path, anonymize: AnonymizeOptions | None) -> tuple[dict[str, list[float]], Collector]:
    """Detail by output."""
    collector = Collector()
    config = Config(
        streams=(StreamConfig("synthetic:?seconds=0.6&width=320&height=192", "drive"),),
        models=(ModelConfig(str(segmenter)),),
        overlay=BARE,
        video=VideoConfig(path=folder / "video.mp4"),
        outputs=OutputOptions(hls=HlsOptions(folder / "hls"), record=RecordingOptions(folder / "recording")),
        publish=(PublishConfig("tcp://127.0.0.1:0", picture=PictureOptions()),),
        anonymize=anonymize,
    )
    gate, pictures, headers = threading.Event(), [], []

    class Gate:
        """Holds the first frame until the subscriber is there."""

        def process(self, analysis: Analysis) -> Analysis:
            assert gate.wait(60)
            return analysis

    with Session(config, stages=[collector, Gate()], sinks=[collector]) as session:
        publisher: Any = next(s for s in session.plans[0].sinks if type(s).__name__ == "Publisher")
        endpoint = publisher.endpoint

        def read() -> None:
            with Subscriber(
                endpoint, streams=["drive"], kinds=["picture", "analysis", "end"], until_end=True, timeout=60,
                high_water=1000,
            ) as subscriber:  # fmt: skip
                for received in subscriber:
                    headers.append(received.header)
                    if isinstance(received.header, PictureMessage) and received.payload is not None:
                        pictures.append(jpeg_detail(received.payload))

        reading = threading.Thread(target=read)
        reading.start()
        for subject in (topic("drive", "analysis"), topic("drive", "picture")):
            until_subscribed(publisher, subject=subject)
        gate.set()
        result = session.run()
        reading.join(60)
    assert result.error is None
    assert all(getattr(h, "anonymized") == (anonymize is not None) for h in headers if hasattr(h, "anonymized"))  # noqa: B009  # of a union
    assert any(isinstance(h, AnalysisMessage) for h in headers)
    found = dict(collector.found)
    found["picture topic"] = pictures
    found["video"] = video_detail(folder / "video.mp4")
    for output, pattern in (("hls", "*.m3u8"), ("recording", "*.mp4")):
        found[output] = [d for path in sorted((folder / output).rglob(pattern)) for d in video_detail(path)]
    return found, collector


@pytest.mark.seconds
def test_no_output_has_the_original(tmp_path: Path, segmenter: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "blurred").mkdir()
    plain, _ = run(tmp_path / "plain", segmenter, None)
    blurred, collector = run(tmp_path / "blurred", segmenter, EVERYBODY)
    assert collector.said
    assert all(collector.said)
    outputs = {"stage", "frame", "picture", "view", "picture topic", "video", "hls", "recording"}
    assert plain.keys() == blurred.keys() == outputs
    for output in outputs:
        assert plain[output], f"{output} showed nothing, so nothing would be proved"
        assert blurred[output], output
        assert max(blurred[output]) < 0.35 * min(plain[output]), output


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"event_clips": EventClipOptions(Path("events"))}, "in which nothing is blurred"),
        ({"anonymize": AnonymizeOptions()}, "cannot blur person, rider"),
        ({"every": 2}, "look at every frame"),
    ],
)
def test_what_would_let_the_original_out_is_refused(
    tmp_path: Path, segmenter: Path, changes: dict[str, Any], said: str
) -> None:
    every = changes.pop("every", 1)
    config = Config(
        streams=(StreamConfig("synthetic:?seconds=1&width=160&height=96"),),
        models=(ModelConfig(str(segmenter), every=every),),
        jsonl=str(tmp_path / "lines.jsonl"),
        **({"anonymize": EVERYBODY} | changes),
    )
    with pytest.raises(UsageError, match=said):
        Session(config)
    assert not list(tmp_path.iterdir())


@pytest.mark.seconds
@pytest.mark.parametrize(
    "command",
    [
        ("run", "synthetic:?seconds=0.4&width=160&height=96", "-o", "out.mp4"),
        pytest.param(("serve", "--port", "0"), marks=pytest.mark.skipif(not SERVES, reason="no extra `serve`")),
    ],
)
def test_the_commands_anonymize(roadlens: Callable[..., Any], segmenter: Path, command: tuple[str, ...]) -> None:
    done = roadlens(*command, "--model", segmenter, "--anonymize")
    assert done.returncode == 2
    assert "anonymize cannot blur person, rider" in done.stderr
