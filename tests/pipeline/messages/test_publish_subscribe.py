"""States, signs of life, classes and pictures: what beside the analyses goes out, to whom, and what it costs others."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import cv2
import numpy as np
import pytest
import zmq

from engines.classes import CITYSCAPES_CLASSES
from engines.errors import UsageError
from pipeline.commands.received import describe
from pipeline.frame import Box
from pipeline.messages import composing, headers, publish, topics, wire
from pipeline.messages.headers import (
    AnalysisMessage,
    EndMessage,
    HeartbeatMessage,
    MessageError,
    PictureMessage,
    StatusMessage,
)
from pipeline.messages.publish import PictureOptions, Publisher
from pipeline.messages.recording import Recorded
from pipeline.messages.replay import replay
from pipeline.messages.sockets.outlet import Outlet
from pipeline.messages.subscriber import Gap, StreamTally, Subscriber
from pipeline.messages.wire import Received
from pipeline.pictures import picture as picture_module
from pipeline.state import SourceState, StateChange
from tests.pipeline.fake_analysis import PICTURE, analysis
from tests.pipeline.messages.test_publish import ANYWHERE, until_subscribed

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
        ([topics.class_topic("bus", "drive"), 1], "does not fit"),
        ([b"with.roadlens/v1/car/other/analysis", 1], "does not fit"),
        ([b"picture.roadlens/v1/drive/analysis", 1], "does not fit"),
        ([topics.topic("drive", "picture"), 2], "no JPEG"),
        ([topics.topic("drive", "picture"), 2, b"GIF"], "no JPEG"),
        ([topics.topic("drive", "status"), 3, b"x"], "does not describe"),
    ],
)
def test_topics_headers_and_payloads_belong_together(parts: list[Any], said: str) -> None:
    made = {
        1: composing.from_analysis(analysis(), 0),
        2: composing.picture_of(analysis(), 0, (4, 4)),
        3: composing.from_change(AWAY, 0),
    }
    packed = [wire.encode(made[part]).parts[1] if isinstance(part, int) else part for part in parts]
    with pytest.raises(MessageError, match=said):
        wire.decode(packed)


def test_an_analysis_fits_the_topics_of_its_classes() -> None:
    header = composing.from_analysis(analysis(area={"traffic light": 0.001, "sky": 0.0009}), 0)
    assert topics.classes_seen(header) == {"car", "person", "traffic light"}
    for name in topics.classes_seen(header):
        assert wire.decode([topics.class_topic(name, "drive"), wire.encode(header).parts[1]]).header == header


def test_nobody_who_subscribes_to_everything_gets_a_frame_twice() -> None:
    """Neither tree on request begins like the one for everybody, not even with its first letter."""
    assert topics.class_topic("person", "front")[:1] != topics.PREFIX[:1]
    assert topics.topic("front", "picture")[:1] != topics.PREFIX[:1]


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
            assert second == composing.from_change(AWAY, 2, run=first.run)
            plain = plain_sub(publisher.endpoint, b"roadlens/v1/drive/status")
            assert wire.decode(plain.recv_multipart()).header == second
            with Subscriber(publisher.endpoint, streams=["drive"], kinds=["status"], timeout=60) as late:
                assert late.receive().header == second
            # PUB cannot address one subscriber: those that were there hear it again, under the same number,
            assert plain.poll(60_000)
            assert wire.decode(plain.recv_multipart()).header == second
            plain.close(0)
            # which the client library passes over.
            publisher.status(STREAMING)
            assert early.receive().header == composing.from_change(STREAMING, 3, run=first.run)


def test_a_late_comer_behind_a_proxy_gets_the_state() -> None:
    """A proxy passes on that somebody subscribes only the first time; nothing but repetition reaches the second."""
    context = zmq.Context()
    front, back = context.socket(zmq.XSUB), context.socket(zmq.XPUB)
    with Publisher(ANYWHERE, heartbeat=0.06) as publisher:
        front.connect(publisher.endpoint)
        back.bind(ANYWHERE)
        address = back.getsockopt_string(zmq.LAST_ENDPOINT)
        proxy = threading.Thread(target=lambda: _proxied(front, back))
        proxy.start()
        publisher.status(AWAY)
        with (
            Subscriber(address, kinds=["status"], timeout=60) as early,
            Subscriber(address, kinds=["status"], timeout=60) as late,
        ):
            first = early.receive().header
            assert isinstance(first, StatusMessage)
            assert first == composing.from_change(AWAY, 0, run=first.run)
            assert late.receive().header == first
        for change in (STREAMING, StateChange("drive", SourceState.FAILED, "given up", "refused", 4.0)):
            publisher.status(change)
            for _ in range(2):  # the proxy knows the prefix already
                socket = plain_sub(address, b"roadlens")
                kinds = []
                while "status" not in kinds:
                    assert socket.poll(60_000)
                    kinds.append(headers.kind_of(wire.decode(socket.recv_multipart()).header))
                assert kinds.count("heartbeat") <= 1
                socket.close(0)
    context.term()
    proxy.join()


def _proxied(front: zmq.Socket[bytes], back: zmq.Socket[bytes]) -> None:
    """Pass on both ways until the context is terminated."""
    with contextlib.suppress(zmq.ContextTerminated):
        zmq.proxy(front, back)
    front.close(0)
    back.close(0)


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
        Subscriber(publisher.endpoint, "pull", kinds=headers.KINDS, until_end=True, timeout=60) as subscriber,
    ):
        publisher.status(CONNECTING)
        publisher.status(STREAMING)
        publisher.consume(analysis(0))
        publisher.status(AWAY)
        publisher.end("drive", "failed")
        kinds = [(headers.kind_of(r.header), r.header.sequence) for r in subscriber]
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
    tally.add(composing.from_analysis(analysis(), 5, run="a"))
    assert tally.overdue(beat(6)).count == 0
    assert tally.overdue(beat(9, run="b")).count == 0, "of another run it says nothing yet"
    assert tally.overdue(beat(9)) == Gap("drive", 6, 3)
    assert tally.overdue(beat(9)).count == 0, "once"
    assert tally.add(composing.from_analysis(analysis(), 10, run="a")) == Gap("drive", 9, 1)
    assert (tally.received, tally.missed) == (2, 4)


# Classes --------------------------------------------------------------------------------------------------------------


def with_class(index: int, *names: str, area: dict[str, float] | None = None) -> Any:
    boxes = tuple(Box(0, 0, 5, 5, 0, name, 0.9, "m") for name in names)
    return analysis(index, boxes=boxes, area=area or {})


def test_an_ordinary_sub_gets_only_the_frames_with_its_class_and_nobody_else_gets_more() -> None:
    with Publisher(ANYWHERE, heartbeat=3600) as publisher:
        persons = plain_sub(publisher.endpoint, b"with.roadlens/v1/person/drive/", b"roadlens/v1/drive/end")
        roads = plain_sub(publisher.endpoint, b"with.roadlens/v1/road/", b"roadlens/v1/drive/end")
        everything = plain_sub(publisher.endpoint, b"roadlens/v1/")
        for subject in (topics.class_topic("person", "drive"), topics.class_topic("road"), topics.PREFIX):
            until_subscribed(publisher, subject=subject)
        publisher.consume(with_class(0))
        publisher.consume(with_class(1, "person", "person"))
        publisher.consume(with_class(2, "car", area={"road": 0.4}))
        publisher.consume(with_class(3, "person", area={"road": 0.0005}))
        publisher.end("drive")
        assert heard(persons) == [b"with.roadlens/v1/person/drive/analysis"] * 2 + [b"roadlens/v1/drive/end"]
        assert heard(roads) == [b"with.roadlens/v1/road/drive/analysis", b"roadlens/v1/drive/end"]
        assert heard(everything) == [b"roadlens/v1/drive/analysis"] * 4 + [b"roadlens/v1/drive/end"]
        for socket in (persons, roads, everything):
            socket.close(0)


def test_no_beginning_of_ours_gets_what_others_ask_for() -> None:
    with Publisher(ANYWHERE, heartbeat=3600, picture=PictureOptions()) as publisher:
        publisher.status(STREAMING)
        short = [plain_sub(publisher.endpoint, prefix) for prefix in (b"r", b"roadlens", b"roadlens/v1")]
        for socket in short:
            assert socket.poll(60_000)  # it is subscribed: it has been told the state
        asking = plain_sub(publisher.endpoint, b"with.roadlens/v1/", b"picture.roadlens/v1/", b"roadlens/v1/drive/end")
        for subject in (b"with.roadlens/v1/", b"picture.roadlens/v1/"):
            until_subscribed(publisher, subject=subject)
        publisher.consume(with_class(0, "person", "car"))
        publisher.end("drive")
        for socket in short:
            got = [subject for subject in heard(socket) if not subject.endswith(b"/status")]
            assert got == [b"roadlens/v1/drive/analysis", b"roadlens/v1/drive/end"]
        assert heard(asking) == [
            b"with.roadlens/v1/car/drive/analysis", b"with.roadlens/v1/person/drive/analysis",
            b"picture.roadlens/v1/drive/picture", b"roadlens/v1/drive/end",
        ]  # fmt: skip
        for socket in (*short, asking):
            socket.close(0)


def test_the_earlier_names_are_answered_for_a_release() -> None:
    with Publisher(ANYWHERE, heartbeat=3600, picture=PictureOptions()) as publisher:
        old = b"roadlens/v1-with/person/", b"roadlens/v1-picture/drive/"
        before = plain_sub(publisher.endpoint, *old, b"roadlens/v1/drive/end")
        for subject in old:
            until_subscribed(publisher, subject=subject)
        publisher.consume(with_class(0, "person"))
        publisher.end("drive")
        messages = [before.recv_multipart() for _ in range(3)]
        assert [parts[0] for parts in messages] == [
            b"roadlens/v1-with/person/drive/analysis", b"roadlens/v1-picture/drive/picture", b"roadlens/v1/drive/end",
        ]  # fmt: skip
        assert [headers.kind_of(wire.decode(parts).header) for parts in messages] == ["analysis", "picture", "end"]
        before.close(0)


@pytest.mark.parametrize("prefix", [b"", b"roadlens/", b"roadlens/v1"])
def test_who_subscribes_to_more_than_there_is_gets_a_frame_once_and_no_pictures(prefix: bytes) -> None:
    with Publisher(ANYWHERE, heartbeat=3600, picture=PictureOptions()) as publisher:
        everything = plain_sub(publisher.endpoint, prefix)
        until_subscribed(publisher)
        for index in range(3):
            publisher.consume(analysis(index))
        publisher.end("drive")
        assert heard(everything) == [b"roadlens/v1/drive/analysis"] * 3 + [b"roadlens/v1/drive/end"]
        everything.close(0)


def test_a_replay_to_everything_sends_each_message_once() -> None:
    outlet = Outlet(ANYWHERE)
    everything = plain_sub(outlet.endpoint, b"")
    picture = [*wire.encode(composing.picture_of(analysis(), 0, (4, 4))).parts, b"\xff\xd8"]
    plain = [
        wire.encode(composing.from_analysis(analysis(), 0)).parts,
        wire.encode(headers.EndMessage(stream="drive", sequence=1, frames=1, dropped=0, reason="complete")).parts,
    ]
    recorded = [Recorded(0, tuple(parts)) for parts in (picture, *plain)]
    replay(recorded, [outlet], speed=None, wait=True)
    assert heard(everything) == [b"roadlens/v1/drive/analysis", b"roadlens/v1/drive/end"]
    everything.close(0)
    outlet.close()


def test_a_replay_repeats_the_state_with_each_heartbeat() -> None:
    outlet = Outlet(ANYWHERE)
    reader = plain_sub(outlet.endpoint, b"roadlens/v1/")
    beat = HeartbeatMessage(
        stream="drive", sequence=0, run="a", at=1.0, uptime_s=1.0, interval_s=1.0, next_sequence=0, sent=0, dropped=0
    )
    end = headers.EndMessage(stream="drive", sequence=0, frames=0, dropped=0, reason="complete")
    recorded = [wire.encode(each).parts for each in (composing.from_change(AWAY, 0, run="a"), beat, beat, end)]
    replay([Recorded(0, tuple(parts)) for parts in recorded], [outlet], speed=None, wait=True)
    kinds = [subject.rpartition(b"/")[2].decode() for subject in heard(reader)]
    assert kinds == ["status", "status", "heartbeat", "status", "heartbeat", "end"]
    reader.close(0)
    outlet.close()


def test_zeromq_is_asked_once_a_frame_who_wants_what(monkeypatch: pytest.MonkeyPatch) -> None:
    area = {info.name: 1 / 19 for info in CITYSCAPES_CLASSES}
    with Publisher(ANYWHERE, heartbeat=3600, high_water=64) as publisher:
        reader = plain_sub(publisher.endpoint, topics.class_topic("road"), topics.class_topic("sky"))
        until_subscribed(publisher, subject=topics.class_topic("sky", "drive"))
        asked, hear, own = [], publisher._outlet.hear, threading.get_ident()
        monkeypatch.setattr(publisher._outlet, "hear", lambda: (asked.append(threading.get_ident()), hear())[1])
        for index in range(10):
            publisher.consume(analysis(index, area=area))
        assert asked.count(own) == 10
        came = [reader.recv_multipart()[0] for _ in range(20)]
        assert came == [topics.class_topic("road", "drive"), topics.class_topic("sky", "drive")] * 10
        reader.close(0)


def test_an_outlet_knows_what_is_wanted_while_subscriptions_come_and_go() -> None:
    """Compared with what a beginning is, over all subscriptions."""
    prefixes = [b"", b"a", b"ab", b"abc", b"b", b"bc", b"abcd/"]
    outlet = Outlet(ANYWHERE, trees=(b"ab", b"bc"))
    reader = plain_sub(outlet.endpoint)
    held: set[bytes] = set()
    random = np.random.default_rng(3)
    for step in range(60):
        prefix = prefixes[random.integers(len(prefixes))]
        reader.setsockopt(zmq.UNSUBSCRIBE if prefix in held else zmq.SUBSCRIBE, prefix)
        held ^= {prefix}
        reader.setsockopt(zmq.SUBSCRIBE, b"step %03d" % step)  # what was said before it has arrived when it has
        deadline = time.monotonic() + 60
        while not outlet.wanted(b"step %03d" % step, b"step") and time.monotonic() < deadline:
            outlet.hear()
        for subject in (b"abcd/e", b"abc", b"bcd", b"x", b""):
            for tree in (b"", b"ab", b"abcd/"):
                wanted = any(subject.startswith(p) and len(p) >= len(tree) for p in held)
                assert outlet.wanted(subject, tree) is wanted, (subject, tree, held)
        assert outlet.anybody_in_trees() is any(p.startswith((b"ab", b"bc")) for p in held), held
    reader.close(0)
    outlet.close()


def test_the_client_library_asks_by_class_and_gets_a_frame_with_two_of_them_once() -> None:
    with (
        Publisher(ANYWHERE, heartbeat=0.1) as publisher,
        Subscriber(
            publisher.endpoint, streams=["drive"], classes=["person", "car"], until_end=True, timeout=60
        ) as subscriber,
    ):
        until_subscribed(publisher, subject=topics.class_topic("person", "drive"))
        until_subscribed(publisher, subject=topics.class_topic("car", "drive"))
        until_subscribed(publisher, subject=topics.topic("drive", "end"))
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
        until_subscribed(publisher, subject=topics.topic("drive", "picture"))
        until_subscribed(publisher, subject=topics.topic("drive", "end"))
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
    encode_jpeg = picture_module.encode_jpeg
    monkeypatch.setattr(picture_module, "encode_jpeg", lambda *a: made.append(0) or encode_jpeg(*a))
    with (
        Publisher(ANYWHERE, picture=PictureOptions()) as publisher,
        Subscriber(publisher.endpoint, timeout=60) as everything,
    ):
        until_subscribed(publisher, subject=topics.PREFIX)
        publisher.consume(analysis(0))
        assert isinstance(everything.receive().header, AnalysisMessage)
        assert made == []
        with Subscriber(publisher.endpoint, kinds=["picture"], timeout=60) as viewer:
            until_subscribed(publisher, subject=topics.topic("drive", "picture"))
            publisher.consume(analysis(1))
            assert viewer.receive().header.sequence == 1
        assert made == [0]


def test_a_picture_that_is_overlaid_already_is_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "Overlay", None)
    with (
        Publisher(ANYWHERE, picture=PictureOptions(overlay=True)) as publisher,
        Subscriber(publisher.endpoint, kinds=["picture"], timeout=60) as viewer,
    ):
        until_subscribed(publisher, subject=topics.topic("drive", "picture"))
        publisher.consume(analysis(0, picture=PICTURE))
        assert viewer.receive().header.sequence == 0


def test_every_kind_is_a_line_for_people() -> None:
    beat = HeartbeatMessage(
        stream="drive", sequence=4, at=1.5, uptime_s=2.0, interval_s=1.0, next_sequence=3, sent=7, dropped=0
    )
    picture = composing.picture_of(analysis(anonymized=True), 2, (32, 18), overlaid=True)
    assert [describe(h) for h in (composing.from_change(AWAY, 0), beat, picture)] == [
        "drive  backing_off: nothing listens there, again in 0.5 s",
        "drive  alive: 7 messages, 0 frames dropped, up 2 s",
        "drive #2  picture 32×18, overlaid, anonymized",
    ]
