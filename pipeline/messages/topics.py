"""Topics: the first part of a message, by which ZeroMQ selects.

Topics are three trees, whose first letters differ. ZeroMQ selects by the beginning of a topic, and `roadlens` goes on
meaning everything once: what only some ask for, frames by class and pictures, stands beside it and costs nothing until
somebody subscribes to that tree. A subscription to less than a tree's beginning, to nothing at all for instance, does
not count as one: it would make pictures and a copy of each frame a class.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from urllib.parse import quote

from pipeline.messages.headers import KINDS, VERSION, AnalysisMessage

PREFIX = f"roadlens/v{VERSION}/".encode()
"""What the topics begin with that are for everybody: `roadlens/v1/<stream>/<kind>`."""

WITH_PREFIX = f"with.roadlens/v{VERSION}/".encode()
"""Analyses by class, for who subscribes: `with.roadlens/v1/<class>/<stream>/analysis`."""

PICTURE_PREFIX = f"picture.roadlens/v{VERSION}/".encode()
"""Pictures, for who subscribes: `picture.roadlens/v1/<stream>/picture`."""

EARLIER = {WITH_PREFIX: b"roadlens/v1-with/", PICTURE_PREFIX: b"roadlens/v1-picture/"}
"""How these two began once. For one release they are still there, for who subscribes to them."""

CLASS_TREES = (WITH_PREFIX, EARLIER[WITH_PREFIX])
"""What the topics of analyses by class begin with."""

SEEN_SHARE = 0.001
"""Share of the picture from which on a class is in it without a box."""


def topic(stream: str, kind: str = "") -> bytes:
    """The first part of a message: `roadlens/v1/<stream>/<kind>`, the stream percent-encoded.

    Without a kind it is the prefix to subscribe to for everything of that stream but its pictures.

    >>> topic("camera 1/left", "analysis")
    b'roadlens/v1/camera%201%2Fleft/analysis'
    >>> topic("front", "picture")
    b'picture.roadlens/v1/front/picture'
    """
    return (PICTURE_PREFIX if kind == "picture" else PREFIX) + f"{_quoted(stream)}/{kind}".encode("ascii")


def class_topic(class_name: str, stream: str | None = None) -> bytes:
    """The topic of a stream's analyses in which a class is seen; without a stream the prefix of all streams' ones.

    >>> class_topic("person", "front")
    b'with.roadlens/v1/person/front/analysis'
    >>> class_topic("traffic light")
    b'with.roadlens/v1/traffic%20light/'
    """
    return WITH_PREFIX + f"{_quoted(class_name)}/{'' if stream is None else _quoted(stream) + '/analysis'}".encode(
        "ascii"
    )


def classes_seen(message: AnalysisMessage) -> set[str]:
    """Names of the classes by which a message can be asked for: of its boxes, and of what covers a thousandth."""
    seen = {box.label for box in message.boxes}
    seen.update(name for name, share in message.area.items() if share >= SEEN_SHARE)
    return seen


def class_topics(message: AnalysisMessage) -> list[bytes]:
    """The topics of a message by the classes seen in it, in the order of their names."""
    return [class_topic(name, message.stream) for name in sorted(classes_seen(message))]


def current(subject: bytes) -> bytes:
    """A topic as it is called now."""
    for now, before in EARLIER.items():
        if subject.startswith(before):
            return now + subject.removeprefix(before)
    return subject


def asked_for(subject: bytes, wanted: Callable[[bytes, bytes], bool]) -> list[bytes]:
    """Under which topics somebody wants a message: its own, and the one of its earlier name.

    Args:
        subject: its own.
        wanted: whether a topic is wanted, given what a subscription has to begin with to count; see `Outlet.wanted`.
    """
    subject = current(subject)
    tree = next((tree for tree in EARLIER if subject.startswith(tree)), b"")
    names = {subject: tree} if not tree else {subject: tree, EARLIER[tree] + subject.removeprefix(tree): EARLIER[tree]}
    return [name for name, begins in names.items() if wanted(name, begins)]


def of_unknown_kind(subject: bytes) -> bool:
    """Whether a topic of this version names a kind that came later; anything else is for `decode` to judge."""
    ours = current(subject).startswith((PREFIX, WITH_PREFIX, PICTURE_PREFIX))
    return ours and subject.rpartition(b"/")[2].decode("latin-1") not in KINDS


def _quoted(name: str) -> str:
    # What is kept of names is bounded: a publisher's hundreds of names may be of megabytes each.
    return _short(name) if len(name) <= _SHORT else quote(name, safe="")


_SHORT = 256


@lru_cache(maxsize=4096)
def _short(name: str) -> str:
    return quote(name, safe="")
