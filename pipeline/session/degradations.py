"""What a session goes without, such as a GPU's encoder: counted each time, said once."""

from __future__ import annotations

import logging

from engines.loading import Degraded
from pipeline.metrics import Metrics

log = logging.getLogger(__name__)


class Degradations:
    """Counts what could not be had, and says it once, however many streams go without."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._said: set[tuple[str, str]] = set()

    def count(self, what: Degraded) -> None:
        """Count something that has been said elsewhere."""
        self._metrics.degraded(what.wanted, what.instead, what.lacking)

    def say(self, what: Degraded) -> None:
        """Count it, and say it where it has not been said yet."""
        self.count(what)
        if (what.wanted, what.lacking) not in self._said:
            self._said.add((what.wanted, what.lacking))
            log.warning("%s", what.sentence)
