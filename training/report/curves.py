"""The curves of training runs, one chart for their score on `dev` and one for their loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from training.figures import in_words
from training.report.charts import Line, axis, line_chart, moving_average
from training.report.measuring import Measured

if TYPE_CHECKING:
    from markupsafe import Markup


def curves(models: Sequence[Measured], score: str) -> list[tuple[str, Markup]]:
    """Captions and charts of the models' runs.

    Args:
        models: of one task; those without a journal are left out.
        score: the name of what is drawn of `dev`.
    """
    runs = [(m.subject.label, m.color, m.subject.run) for m in models if m.subject.run is not None]
    charts = []
    words = in_words(score)
    scores = [Line(label, color, run.scores.get(score, ()), dots=True) for label, color, run in runs]
    if drawn := [line for line in scores if line.points]:
        caption = f"{words[0].upper()}{words[1:]} while training: on dev, the part of train set aside"
        charts.append((caption, _curve(drawn, f"{words[0].upper()}{words[1:]} on dev by training step", 0.0)))
    losses = [Line(label, color, moving_average(run.loss, 5), behind=run.loss) for label, color, run in runs]
    if drawn := [line for line in losses if line.points]:
        caption = "Training loss: single batches (faint) and the mean of five of them"
        charts.append((caption, _curve(drawn, "Training loss by step", None)))
    return charts


def _curve(lines: Sequence[Line], title: str, low: float | None) -> Markup:
    points = [point for line in lines for point in (*line.points, *line.behind)]
    y_axis = axis([y for _, y in points] + ([] if low is None else [low]))
    ends = "; ".join(f"{line.name} ends at {line.points[-1][1]:.3f}, step {line.points[-1][0]:,.0f}" for line in lines)
    return line_chart(
        lines, axis([0, *(x for x, _ in points)], 4), y_axis, title=title, description=ends, x_label="step"
    )
