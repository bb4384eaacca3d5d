"""States, signs of life, classes and pictures: what beside the analyses goes out, to whom, and what it costs others."""

from __future__ import annotations

import threading
import time
from typing import Any

import cv2
import numpy as np
import pytest
import zmq

from engines.errors import UsageError
from pipeline import messages, publish
from pipeline.frame import Box
from pipeline.messages import (
    AnalysisMessage,
    EndMessage,
    HeartbeatMessage,
    MessageError,
    PictureMessage,
    Received,
    StatusMessage,
)
from pipeline.publish import PictureOptions, Publisher
from pipeline.received import describe
from pipeline.state import SourceState, StateChange
from pipeline.subscriber import Gap, StreamTally, Subscriber
from tests.pipeline.fake_analysis import PICTURE, analysis
from tests.pipeline.test_publish import ANYWHERE, until_subscribed

CONNECTING = StateChange("drive", SourceState.CONNECTING, at=1.0, attempt=1)
STREAMING = StateChange("drive", SourceState.STREAMING, at=2.0)
AWAY = StateChange("drive", SourceState.BACKING_OFF, "nothing listens there", "refused", 3.0, 2, 1, 0.5)


def plain_sub(endpoint: str, *prefixes: bytes) -> zmq.Socket[bytes]:
    """An ordinary SUB, as any language has it."""
    socket = zmq.Context.instance().socket(zmq.SUB)
    socket.set_hwm(1000)
    for prefix in prefixes:
        socket.setsockopt(zmq.SUBSCRIBE, prefix)
    socket.connect(endpoint)
    return socket


def heard(socket: zmq.Socket[bytes], last: bytes = b"/end") -> list[bytes]:
    """The topics that come until one that ends so."""
    topics: list[bytes] = []
    while not topics or not topics[-1].endswith(last):
        assert socket.poll(60_000), f"nothing more after {topics}"
        topics.append(socket.recv_multipart()[0])
    return topics


# Topics ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([messages.class_topic("bus", "drive"), 1], "does not fit"),
        ([b"roadlens/v1-with/car/other/analysis", 1], "does not fit"),
        ([b"roadlens/v1-picture/drive/analysis", 1], "does not fit"),
        ([messages.topic("drive", "picture"), 2], "no JPEG"),
        ([messages.topic("drive", "picture"), 2, b"GIF"], "no JPEG"),
        ([messages.topic("drive", "status"), 3, b"x"], "does not describe"),
    ],
)
def test_topics_headers_and_payloads_belong_together(parts: list[Any], said: str) -> None:
    headers = {
        1: messages.from_analysis(analysis(), 0),
        2: messages.picture_of(analysis(), 0, (4, 4)),
        3: messages.from_change(AWAY, 0),
    }
    packed = [messages.encode(headers[part])[1] if isinstance(part, int) else part for part in parts]
    with pytest.raises(MessageError, match=said):
        messages.decode(packed)


def test_an_analysis_fits_the_topics_of_its_classes() -> None:
    header = messages.from_analysis(analysis(area={"traffic light": 0.001, "sky": 0.0009}), 0)
    assert messages.classes_seen(header) == {"car", "person", "traffic light"}
    for name in messages.classes_seen(header):
        assert messages.decode([messages.class_topic(name, "drive"), messages.encode(header)[1]]).header == header


def test_nobody_who_subscribes_to_everything_gets_a_frame_twice() -> None:
    """Neither tree on request begins like the one for everybody."""
    assert not messages.class_topic("person", "front").startswith(messages.PREFIX)
    assert not messages.topic("front", "picture").startswith(messages.PREFIX)


# States ---------------------------------------------------------------------------------------------------------------


def test_states_are_told_and_who_comes_late_gets_the_newest_at_once() -> None:
    with Publisher(ANYWHERE, heartbeat=3600) as publisher:
        publisher.status(CONNECTING)
        publisher.status(STREAMING)
        with Subscriber(publisher.endpoint, kinds=["status"], timeout=60) as early:
            first = early.receive().header
            assert isinstance(first, StatusMessage)
            assert (first.sequence, first.state) == (1, SourceState.STREAMING)
            publisher.status(AWAY)
            second = early.receive().header
            assert second == messages.from_change(AWAY, 2, run=first.run)
            with Subscriber(publisher.endpoint, streams=["drive"], kinds=["status"], timeout=60) as late:
                assert late.receive().header == second
            # PUB cannot address one subscriber: those that were there hear it again, under the same number.
            assert early.receive().header == second


def test_nobody_hears_of_a_stream_that_was_removed_and_its_name_begins_anew() -> None:
    with Publisher(ANYWHERE, heartbeat=3600) as publisher:
        with Subscriber(publisher.endpoint, kinds=["analysis"], timeout=60) as early:
            until_subscribed(publisher)
            publisher.status(STREAMING)
            publisher.consume(analysis(0))
            first = early.receive().header
            publisher.end("drive", "stopped")
            publisher.forget("drive")
        until_subscribed(publisher, wanted=False)
        with Subscriber(publisher.endpoint, kinds=["status", "analysis"], timeout=60) as late:
            until_subscribed(publisher)
            publisher.consume(analysis(0))
            again = late.receive().header
    assert isinstance(first, AnalysisMessage)
    assert isinstance(again, AnalysisMessage), "no state of the stream before"
    assert (again.sequence, again.run_start) == (0, 0)
    assert again.run != first.run


def test_a_state_is_not_sent_to_who_subscribes_to_something_else() -> None:
    with Publisher(ANYWHERE, heartbeat=3600) as publisher:
        publisher.status(STREAMING)
        socket = plain_sub(
            publisher.endpoint, b"roadlens/v1/drive/analysis", b"roadlens/v1/other/", b"roadlens/v1/drive/end"
        )
        until_subscribed(publisher)
        publisher.consume(analysis())
        publisher.end("drive")
        assert heard(socket) == [b"roadlens/v1/drive/analysis", b"roadlens/v1/drive/end"]
        socket.close(0)


def test_states_keep_their_place_among_the_analyses_over_push() -> None:
    with (
        Publisher(ANYWHERE, "push") as publisher,
        Subscriber(publisher.endpoint, "pull", kinds=messages.KINDS, until_end=True, timeout=60) as subscriber,
    ):
        publisher.status(CONNECTING)
        publisher.status(STREAMING)
        publisher.consume(analysis(0))
        publisher.status(AWAY)
        publisher.end("drive", "failed")
        kinds = [(messages.kind_of(r.header), r.header.sequence) for r in subscriber]
    assert kinds == [("status", 0), ("status", 1), ("analysis", 0), ("status", 2), ("end", 1)]


def test_telling_a_state_never_waits_for_a_reader() -> None:
    """The thread that calls is the source's own; the reader of PUSH may be away for hours."""
    stopped = threading.Event()
    with Publisher(ANYWHERE, "push", stop=stopped.is_set, linger=0) as publisher:
        consuming = threading.Thread(target=publisher.consume, args=(analysis(),))
        consuming.start()
        for _ in range(10_000):
            publisher.status(AWAY)
        stopped.set()
        consuming.join(60)
        assert not consuming.is_alive()
        assert len(publisher._changes) <= publish._CHANGES


# Signs of life --------------------------------------------------------------------------------------------------------


def test_heartbeats_tell_of_state_counts_and_what_was_lost_at_the_end() -> None:
    with (
        Publisher(ANYWHERE, heartbeat=0.1) as publisher,
        Subscriber(publisher.endpoint, kinds=["heartbeat"], timeout=60) as subscriber,
    ):
        publisher.status(STREAMING)
        until_subscribed(publisher, subject=b"roadlens/v1/")
        publisher.consume(analysis(0, dropped_since_last=3))
        publisher.consume(analysis(1))
        while True:
            beat = subscriber.receive().header
            assert isinstance(beat, HeartbeatMessage)
            if beat.next_sequence == 2:
                break
        assert (beat.state, beat.dropped, beat.interval_s) == (SourceState.STREAMING, 3, 0.1)
        assert beat.sent >= 2
        assert beat.uptime_s > 0
        following = subscriber.receive().header
        assert following.sequence == beat.sequence + 1
        publisher.end("drive")
        until_quiet = time.monotonic() + 60
        while publisher._streams["drive"].alive and time.monotonic() < until_quiet:
            time.sleep(0.01)
        count = publisher._streams["drive"].heartbeats
        time.sleep(0.3)
        assert publisher._streams["drive"].heartbeats == count, "a stream that has ended shows no life"


def test_a_heartbeat_tells_of_a_loss_that_no_later_message_shows() -> None:
    def beat(next_sequence: int, run: str = "a") -> HeartbeatMessage:
        return HeartbeatMessage(
            stream="drive", sequence=0, run=run, at=1.0, uptime_s=1.0, interval_s=1.0, next_sequence=next_sequence,
            sent=0, dropped=0,
        )  # fmt: skip

    tally = StreamTally(first=5)
    assert tally.overdue(beat(9)).count == 0, "what was sent before joining is not missed"
    tally.add(messages.from_analysis(analysis(), 5, run="a"))
    assert tally.overdue(beat(6)).count == 0
    assert tally.overdue(beat(9, run="b")).count == 0, "of another run it says nothing yet"
    assert tally.overdue(beat(9)) == Gap("drive", 6, 3)
    assert tally.overdue(beat(9)).count == 0, "once"
    assert tally.add(messages.from_analysis(analysis(), 10, run="a")) == Gap("drive", 9, 1)
    assert (tally.received, tally.missed) == (2, 4)


# Classes --------------------------------------------------------------------------------------------------------------


def with_class(index: int, *names: str, area: dict[str, float] | None = None) -> Any:
    boxes = tuple(Box(0, 0, 5, 5, 0, name, 0.9, "m") for name in names)
    return analysis(index, boxes=boxes, area=area or {})


def test_an_ordinary_sub_gets_only_the_frames_with_its_class_and_nobody_else_gets_more() -> None:
    with Publisher(ANYWHERE, heartbeat=3600) as publisher:
        persons = plain_sub(publisher.endpoint, b"roadlens/v1-with/person/drive/", b"roadlens/v1/drive/end")
        roads = plain_sub(publisher.endpoint, b"roadlens/v1-with/road/", b"roadlens/v1/drive/end")
        everything = plain_sub(publisher.endpoint, b"roadlens/v1/")
        for subject in (messages.class_topic("person", "drive"), messages.class_topic("road"), messages.PREFIX):
            until_subscribed(publisher, subject=subject)
        publisher.consume(with_class(0))
        publisher.consume(with_class(1, "person", "person"))
        publisher.consume(with_class(2, "car", area={"road": 0.4}))
        publisher.consume(with_class(3, "person", area={"road": 0.0005}))
        publisher.end("drive")
        assert heard(persons) == [b"roadlens/v1-with/person/drive/analysis"] * 2 + [b"roadlens/v1/drive/end"]
        assert heard(roads) == [b"roadlens/v1-with/road/drive/analysis", b"roadlens/v1/drive/end"]
        assert heard(everything) == [b"roadlens/v1/drive/analysis"] * 4 + [b"roadlens/v1/drive/end"]
        for socket in (persons, roads, everything):
            socket.close(0)


def test_the_client_library_asks_by_class_and_gets_a_frame_with_two_of_them_once() -> None:
    with (
        Publisher(ANYWHERE, heartbeat=0.1) as publisher,
        Subscriber(
            publisher.endpoint, streams=["drive"], classes=["person", "car"], until_end=True, timeout=60
        ) as subscriber,
    ):
        until_subscribed(publisher, subject=messages.class_topic("person", "drive"))
        until_subscribed(publisher, subject=messages.class_topic("car", "drive"))
        until_subscribed(publisher, subject=messages.topic("drive", "end"))
        for index, names in enumerate([(), ("person", "car"), (), ("car",), ("bus",)]):
            publisher.consume(with_class(index, *names))
        publisher.end("drive")
        received = list(subscriber)
    assert [r.header.sequence for r in received] == [1, 3, 5]
    assert [r.missed for r in received] == [0, 0, 0], "what was not asked for is not missed"
    assert isinstance(received[-1].header, EndMessage)


@pytest.mark.parametrize(
    ("options", "said"), [({"pattern": "pull"}, "topics of PUB"), ({"until_end": True}, "name the streams")]
)
def test_what_does_not_go_together_is_refused(options: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Subscriber("tcp://127.0.0.1:5555", classes=["person"], **options)


# Pictures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", [False, True])
def test_pictures_are_made_for_who_asks(overlay: bool) -> None:
    with (
        Publisher(ANYWHERE, picture=PictureOptions(every=2, max_width=32, overlay=overlay)) as publisher,
        Subscriber(publisher.endpoint, streams=["drive"], kinds=["picture", "end"], timeout=60) as subscriber,
    ):
        until_subscribed(publisher, subject=messages.topic("drive", "picture"))
        until_subscribed(publisher, subject=messages.topic("drive", "end"))
        for index in range(4):
            publisher.consume(analysis(index))
        publisher.end("drive")
        received: list[Received] = []
        while not received or not isinstance(received[-1].header, EndMessage):
            received.append(subscriber.receive())
    assert [r.header.sequence for r in received] == [0, 2, 4]
    header = received[1].header
    assert isinstance(header, PictureMessage)
    assert (header.frame, header.width, header.height, header.overlaid) == (2, 32, 18, overlay)
    assert received[1].payload is not None
    picture = cv2.imdecode(np.frombuffer(received[1].payload, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (18, 32, 3)


def test_no_picture_is_encoded_while_nobody_asks_for_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    encode_jpeg = publish.encode_jpeg
    monkeypatch.setattr(publish, "encode_jpeg", lambda *a: made.append(0) or encode_jpeg(*a))
    with (
        Publisher(ANYWHERE, picture=PictureOptions()) as publisher,
        Subscriber(publisher.endpoint, timeout=60) as everything,
    ):
        until_subscribed(publisher, subject=messages.PREFIX)
        publisher.consume(analysis(0))
        assert isinstance(everything.receive().header, AnalysisMessage)
        assert made == []
        with Subscriber(publisher.endpoint, kinds=["picture"], timeout=60) as viewer:
            until_subscribed(publisher, subject=messages.topic("drive", "picture"))
            publisher.consume(analysis(1))
            assert viewer.receive().header.sequence == 1
        assert made == [0]


def test_a_picture_that_is_overlaid_already_is_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "Overlay", None)
    with (
        Publisher(ANYWHERE, picture=PictureOptions(overlay=True)) as publisher,
        Subscriber(publisher.endpoint, kinds=["picture"], timeout=60) as viewer,
    ):
        until_subscribed(publisher, subject=messages.topic("drive", "picture"))
        publisher.consume(analysis(0, picture=PICTURE))
        assert viewer.receive().header.sequence == 0


def test_every_kind_is_a_line_for_people() -> None:
    beat = HeartbeatMessage(
        stream="drive", sequence=4, at=1.5, uptime_s=2.0, interval_s=1.0, next_sequence=3, sent=7, dropped=0
    )
    picture = messages.picture_of(analysis(anonymized=True), 2, (32, 18), overlaid=True)
    assert [describe(h) for h in (messages.from_change(AWAY, 0), beat, picture)] == [
        "drive  backing_off: nothing listens there, again in 0.5 s",
        "drive  alive: 7 messages, 0 frames dropped, up 2 s",
        "drive #2  picture 32×18, overlaid, anonymized",
    ]
