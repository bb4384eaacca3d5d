"""Jaccard index and confusion matrices of masks by picture, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from training.metrics.masks import confusions, jaccard
from training.metrics.segmentation import confusion_matrix

maps = arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 3))


@given(maps, maps, arrays(np.bool_, (3, 4, 5)))
@settings(max_examples=60, deadline=None)
def test_against_the_definitions(truth: np.ndarray, found: np.ndarray, counted: np.ndarray) -> None:
    every, sure = confusions(truth, found, 4), confusions(truth, found, 4, counted)
    for i in range(3):
        np.testing.assert_array_equal(every[i], confusion_matrix(truth[i], found[i], 4)[:, :-1])
        np.testing.assert_array_equal(sure[i], confusion_matrix(truth[i][counted[i]], found[i][counted[i]], 4)[:, :-1])
        wanted = truth[i][..., None] == np.arange(4)
        masks = (found[i][..., None] == np.arange(4)) & counted[i][..., None]
        assert jaccard(every, sure)[i] == pytest.approx((wanted & masks).sum() / (wanted | masks).sum())
        one, other = wanted[..., 1], masks[..., 1]
        index = (one & other).sum() / (one | other).sum() if (one | other).any() else 1
        assert jaccard(every, sure, slice(1, 2))[i] == pytest.approx(index)
