"""Results that are read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.errors import UsageError
from training.metrics.segmentation import (
    SegmentationEvaluation,
)
from training.results import read_evaluation


@pytest.mark.parametrize("content", [None, b"{", b'{"model": "x"}', b'{"model": "\xff"}'])
def test_what_is_not_an_evaluation(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"evaluation\.json"):
        read_evaluation(path, SegmentationEvaluation)
