"""The README's chart shows what was measured."""

from __future__ import annotations

import re

import pytest

from tests.benchmarks.chart import CHART, chart, newest
from tests.benchmarks.peers import RESULTS


def test_the_chart_in_the_readme_is_of_the_newest_figures():
    assert CHART.read_text() == chart(RESULTS.read_text())


def test_bars_are_as_long_as_their_figures():
    text = """
## 2026-01-01, abc: x264 fast, 1×1, bf16
| roadlens | 1 | 1 |  |  |

## 2026-01-02, abc: x264 fast, 1×1, bf16
| side | frames a second | CPU ms a frame | roadlens is | roadlens auto is |
|---|---|---|---|---|
| roadlens | 50 | 40.5 |  |  |
| opencv-python 5.0.0.93 | 25 | 42 | 2.00× |  |
| ffmpeg version 5.1 | 150 | 11 | 0.33× |  |

## 2026-01-03, abc: stages
| decode | roadlens | 5.75 |  |
"""
    title, sides = newest(text)
    assert title == "2026-01-02, abc: x264 fast, 1×1, bf16"
    assert sides == [("roadlens", 50, 40.5), ("OpenCV and OpenVINO", 25, 42)]
    first, second = map(float, re.findall(r'width="([\d.]+)" height="18"', chart(text)))
    assert first == pytest.approx(2 * second, abs=0.1)
    with pytest.raises(ValueError, match="peers"):
        newest("# Results\n")
