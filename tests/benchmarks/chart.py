"""The README's chart of speed, drawn from the newest figures with video in RESULTS.md.

    python tests/benchmarks/peers.py FOOTAGE --python PEERS --record && python -m tests.benchmarks.chart

The test beside it says when the picture is no longer of the newest figures.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

from tests.benchmarks.peers import RESULTS

CHART = Path(__file__).parents[2] / "deploy/docs/speed.svg"
NAMES = {
    "roadlens": "roadlens", "roadlens auto": "roadlens, --every auto", "opencv-python": "OpenCV and OpenVINO",
    "supervision": "OpenCV, supervision", "inference": "InferencePipeline", "vidgear": "vidgear",
}  # fmt: skip
"""What a side is called for people; FFmpeg alone looks at nothing and is no side of the chart."""
LEFT, WIDTH, ROW, TOP = 190, 640, 26, 46


def newest(text: str) -> tuple[str, list[tuple[str, float, float]]]:
    """Title and sides (name, frames a second, CPU milliseconds a frame) of the newest section with video, by speed.

    Raises:
        ValueError: there is none.
    """
    for section in reversed(re.split(r"^## ", text, flags=re.MULTILINE)):
        title, _, body = section.partition("\n")
        if ": x264" not in title:
            continue
        sides = []
        for name, rate, cost in re.findall(r"^\| ([a-z][^|]*?) \| ([\d.]+) \| ([\d.]+) \|", body, re.MULTILINE):
            tool = re.sub(r" [\d.]+$", "", name)
            if tool in NAMES:
                sides.append((NAMES[tool], float(rate), float(cost)))
        return title, sorted(sides, key=lambda side: -side[1])
    raise ValueError(f"{RESULTS.name} has no figures with video; run tests/benchmarks/peers.py --record")


def chart(text: str) -> str:
    """The SVG of RESULTS.md, legible on light and dark pages."""
    title, sides = newest(text)
    height, longest = TOP + ROW * len(sides) + 12, max(rate for _, rate, _ in sides)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        '<g font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#fff"/>',
        '<text x="12" y="20" font-weight="600">Frames a second, and CPU milliseconds a frame</text>',
        f'<text x="12" y="37" font-size="11" fill="#57606a">{escape(title)}</text>',
    ]
    for place, (name, rate, cost) in enumerate(sides):
        y, long = TOP + ROW * place, (WIDTH - LEFT - 150) * rate / longest
        color = "#0969da" if name.startswith("roadlens") else "#8c959f"
        lines += [
            f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LEFT}" y="{y + 2}" width="{long:.1f}" height="18" rx="2" fill="{color}"/>',
            f'<text x="{LEFT + long + 8:.1f}" y="{y + 15}">{rate:g} <tspan fill="#57606a">({cost:g} ms)</tspan></text>',
        ]
    return "\n".join([*lines, "</g>", "</svg>", ""])


if __name__ == "__main__":
    CHART.write_text(chart(RESULTS.read_text()))
    print(f"wrote {CHART}")
