"""Pictures of a batch that lie in a GPU's memory one behind the other, as one launch makes them for all streams: copied
at once, and not each by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple


class Place(NamedTuple):
    """Where a picture lies.

    Attributes:
        memory: the address at which the memory begins that was asked for, of which the picture is a part.
        address: the picture's own.
    """

    memory: int
    address: int


def place_of(image: Any) -> Place | None:
    """Where a picture lies in a GPU's memory; None for one in host memory. What does not say which memory it is a part
    of is one by itself: a copy must not reach from one into another, even where they touch."""
    interface = getattr(image, "__cuda_array_interface__", None)
    if interface is None:
        return None
    address = int(interface["data"][0])
    return Place(int(image.untyped_storage().data_ptr()) if hasattr(image, "untyped_storage") else address, address)


def pieces(places: Sequence[Place | None], size: int) -> Iterator[tuple[int, int]]:
    """The fewest copies that bring pictures of `size` bytes each to one place: of each copy the number of its first
    picture, and how many it is of. Those at None are left out.

    >>> batch = [Place(64, 64), Place(64, 74), None, Place(64, 94), Place(64, 104), Place(114, 114)]
    >>> list(pieces(batch, 10))
    [(0, 2), (3, 2), (5, 1)]
    """
    begin = 0
    for number, place in enumerate(places):
        if place is None:
            begin = number + 1
            continue
        following = places[number + 1] if number + 1 < len(places) else None
        if following != Place(place.memory, place.address + size):
            yield begin, number - begin + 1
            begin = number + 1
