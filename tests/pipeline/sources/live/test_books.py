from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.contracts import SourceCounts
from pipeline.sources.live.books import Books, Coded


@given(
    fates=st.lists(st.sampled_from(["frame", "lost", "refused", "start", "untaken"]), max_size=120), b=st.integers(0, 3)
)
def test_every_packet_is_a_frame_or_has_its_reason(fates: list[str], b: int) -> None:
    """Pictures in groups of P and `b` B-frames; the decoder hands them out as they are shown, a group later."""
    counts, frames = SourceCounts(), 0
    books = Books(counts)
    size = b + 1
    waiting: list[int] = []
    for number, fate in enumerate(fates):
        group, place = divmod(number, size)
        shown = group * size + (b if place == 0 else place - 1)
        if fate == "start":
            books.skipped("start")
            continue
        books.put(Coded(shown, number * 0.04, 0.0))
        if fate == "refused":
            books.failed()
        elif fate != "lost":
            waiting.append(shown)
        while len(waiting) > size:
            frame = min(waiting)
            waiting.remove(frame)
            coded = books.frame(frame)
            assert coded is not None
            assert coded.pts == frame
            frames += 1
    books.close(kept=len(waiting))
    assert counts.packets == len(fates) == frames + sum(counts.skipped.values()) + counts.decode_errors
    assert counts.skipped["end"] == len(waiting)
    assert counts.skipped["start"] == fates.count("start")
    assert counts.skipped["undecoded"] == fates.count("lost")
    assert counts.decode_errors == fates.count("refused")
