from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.reordering import DEEPEST, DecodeOrder

GROUPS = {
    0: [0],
    1: [3, 1, 2],  # P B B
    2: [4, 2, 1, 3],  # P, a B-frame that others refer to, B B
    3: [8, 4, 2, 1, 3, 6, 5, 7],
}


def coded(kind: int, groups: int, period: float) -> list[float]:
    """Presentation times in decoding order."""
    group = GROUPS[kind]
    if kind == 0:
        return [n * period for n in range(groups * 4)]
    return [0.0, *((len(group) * g + n) * period for g in range(groups) for n in group)]


@given(kind=st.sampled_from(sorted(GROUPS)), groups=st.integers(8, 20), period=st.floats(0.01, 2))
def test_the_nth_smallest_presentation_time_is_the_nth_decoding_time(kind: int, groups: int, period: float) -> None:
    times = coded(kind, groups, period)
    depth = max(sum(earlier > time for earlier in times[:n]) for n, time in enumerate(times))
    order = DecodeOrder()
    placed = [order.place(time)[0] for time in times]
    assert order.depth == depth
    settled = 2 * len(GROUPS[kind]) + DEEPEST
    ordered = sorted(times)
    assert placed[settled:] == [ordered[n - depth] for n in range(settled, len(times))]


@given(kind=st.sampled_from(sorted(GROUPS)), back=st.floats(0.5, 9), period=st.sampled_from([1 / 30, 0.04, 0.1]))
def test_a_step_back_begins_a_new_clock_within_the_depth(kind: int, back: float, period: float) -> None:
    times = coded(kind, 40, period)
    order = DecodeOrder()
    for time in times:
        order.place(time)
    after = [time - back + times[-1] + period for time in times[:20]]
    assert any(order.place(time)[1] for time in after[: order.depth + 2])
    assert not any(order.place(time)[1] for time in [t + after[-1] + period for t in times[:20]])


@given(times=st.lists(st.floats(0, 100), max_size=60))
def test_decoding_times_of_one_clock_never_go_back(times: list[float]) -> None:
    order, last = DecodeOrder(), float("-inf")
    for time in times:
        placed, begins = order.place(time)
        if begins:
            last = float("-inf")
        if placed is not None:
            assert placed >= last or begins
            last = placed
