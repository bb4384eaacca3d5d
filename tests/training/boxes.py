"""Boxes drawn by hypothesis."""

from __future__ import annotations

import torch
from hypothesis import strategies as st


@st.composite
def box(draw: st.DrawFn) -> list[float]:
    left, top = draw(st.floats(0, 0.9)), draw(st.floats(0, 0.9))
    return [left, top, draw(st.floats(left + 0.01, 1.0)), draw(st.floats(top + 0.01, 1.0))]


PAIRS = st.lists(st.tuples(box(), box()), min_size=1, max_size=6)


def split(pairs: list[tuple[list[float], list[float]]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([p[0] for p in pairs]), torch.tensor([p[1] for p in pairs])
