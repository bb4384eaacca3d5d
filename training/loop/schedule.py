"""The learning rate as a pure function of the step."""

from __future__ import annotations


def warmup_poly(step: int, total: int, warmup: int, power: float = 0.9) -> float:
    """Factor of the peak learning rate: linear to 1 over `warmup` steps, then (1 − progress)^power down to 0.

    >>> [round(warmup_poly(s, 100, 10), 3) for s in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.536, 0.017]
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(total - warmup, 1)
    return float((1 - min(progress, 1.0)) ** power)
