"""Figures for people: how a score is called and written."""

from __future__ import annotations

_SPELLED = {"iou": "IoU", "ap": "AP", "auc": "AUC"}


def in_words(name: str) -> str:
    """The name of a score as it stands in text.

    >>> in_words("mean_iou")
    'mean IoU'
    """
    return " ".join(_SPELLED.get(word, word) for word in name.split("_"))
