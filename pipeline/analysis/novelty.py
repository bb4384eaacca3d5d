"""How new a stream's pictures are to the models that look at them: `engines.novelty`, about once a second.

It takes what the models said of the picture anyway, and no picture: 0.1 to 0.2 ms of one core a look at 320 × 256.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from engines.engine import Prediction
from engines.novelty.distance import Distance, figures
from engines.spec import ModelSpec

PERIOD = 1.0
"""Seconds on a stream's timeline from one look to the next, at least."""


class NoveltyWatch:
    """The novelty of one stream's pictures to each model that has something familiar.

    Args:
        specs: of the models.

    Raises:
        ModelError: what is familiar to one of them contradicts itself.
    """

    def __init__(self, specs: Iterable[ModelSpec]) -> None:
        known = {spec.name: spec for spec in specs if spec.familiar is not None}
        self._distances = {name: Distance(spec.familiar) for name, spec in known.items() if spec.familiar is not None}
        self._ids = {name: [info.id for info in spec.classes] for name, spec in known.items()}
        self._last: dict[str, float] = {}

    def look(self, time: float, predictions: Mapping[str, Prediction]) -> dict[str, float]:
        """The novelty of a picture by model, where it is due: about 1 for one as in training, see `Distance`.

        Args:
            time: of the frame, seconds on the stream's timeline.
            predictions: of the models that looked at it, as they come from the engines, by model name.
        """
        found = {}
        for name, distance in self._distances.items():
            told = predictions.get(name)
            if told is None or told.class_map is None or 0 <= time - self._last.get(name, float("-inf")) < PERIOD:
                continue
            self._last[name] = time
            found[name] = distance.of(figures(told.class_map, told.confidence, self._ids[name]))
        return found
