"""The search of the capacity benchmark, and what it says of the limit."""

from __future__ import annotations

import time
from collections import Counter
from fractions import Fraction

import msgspec
import pytest
import zmq

from pipeline.messages.topics import topic
from tests.benchmarks.capacity import Ages, Drain, Measured, delays, limit, search


@pytest.mark.parametrize("most", [1, 2, 5, 8, 31])
@pytest.mark.parametrize("capacity", [0, 1, 2, 3, 4, 7, 8, 30, 99])
def test_the_largest_number_that_holds_is_found_and_none_is_tried_twice(capacity, most):
    tried = []

    def holds(count: int) -> bool:
        tried.append(count)
        return count <= capacity

    assert search(holds, most) == min(capacity, most)
    assert len(set(tried)) == len(tried)
    assert max(tried) <= most


@pytest.mark.parametrize(
    ("cpu", "busy", "stages", "gpu", "expected"),
    [
        (3.0, 3.1, {"decode": 0.5}, {"decoder": 99.0, "sm": 40.0}, "decoding: NVDEC"),
        (3.0, 3.1, {"decode": 0.5}, {"decoder": 50.0, "sm": 97.0}, "the network: the GPU"),
        (3.9, 4.0, {"decode": 3.0, "fuse": 0.3}, {}, "decoding and scaling"),
        (3.9, 4.0, {"decode": 0.5, "fuse": 0.3}, {}, "the network and encoders"),
        (3.9, 4.0, {"decode": 0.5, "fuse": 3.0}, {}, "Python and the rest"),
        (1.2, 1.4, {"decode": 0.5, "fuse": 0.3}, {"decoder": 20.0, "sm": 30.0}, "Python: one interpreter lock"),
        (1.2, 4.0, {"decode": 0.5, "fuse": 0.3}, {}, "other processes: they use 2.8 of 4 cores"),
    ],
)
def test_the_limit_is_what_is_full(cpu, busy, stages, gpu, expected):
    over = Measured(9, False, 100, 30.0, 50.0, 200.0, 0.0, 0, cpu, busy, stages, gpu)
    assert limit(over, 4).startswith(expected)


@pytest.mark.parametrize("count", [1, 2, 5, 15, 29, 30, 31, 60, 64])
def test_streams_start_apart_in_pictures_and_in_key_frames(count):
    starts = [Fraction(delay).limit_denominator(10**6) * 30 for delay in delays(count, Fraction(30))]  # in pictures
    within = sorted(start % 1 for start in starts)
    assert within == [Fraction(number, count) for number in range(count)], "no two pictures come at once"
    slots = Counter(int(start) for start in starts)
    assert set(slots) <= set(range(30))
    assert max(slots.values()) == -(-count // 30), "as few key frames in the time of a picture as can be"


def test_frames_count_that_were_published_in_the_span():
    ages = Ages()
    ages.noted = [(1.0, 0.1), (2.0, 0.2), (2.5, 0.3), (3.0, 0.4)]
    assert ages.between(2.0, 3.0) == [0.2, 0.3]


def test_the_subscriber_counts_what_it_receives_in_sequence():
    """Two streams of eight messages, of one of which the fourth and the fifth are lost: one gap."""
    context = zmq.Context()
    with context.socket(zmq.PUB) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        drain = Drain(f"tcp://127.0.0.1:{port}", ["a", "b"])
        while not drain.received():  # until its subscription is here: messages of another run
            send(socket, "a", 0)
        # What came too early is one sequence that begins at 0 again and again; only the first of it counts.
        before = drain.received()
        for sequence in range(1, 9):
            send(socket, "a", sequence)
            if sequence not in {4, 5}:
                send(socket, "b", sequence)
        send(socket, "c", 1)
        while drain.received() < before + 13:
            time.sleep(0.01)
        assert drain.received() == before + 13, "8 of a; 6 of b, of which the one after the gap does not count"
        drain.close()
    context.term()


def send(socket, stream: str, sequence: int) -> None:
    header = msgspec.msgpack.encode({"stream": stream, "sequence": sequence, "kind": "analysis"})
    socket.send_multipart([topic(stream, "analysis"), header, b"mask"])
