"""Metrics of several processes as one: counters and histograms are added up, of a state the newest word counts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import Counter, Gauge, Metric
from prometheus_client.registry import Collector

ADDED = frozenset({"counter", "histogram"})
_CREATED = "_created"

Families = list[Metric]


def summed(parts: Iterable[Families]) -> Families:
    """One family of each name, with one sample of each set of labels.

    Counters and histograms are sums; of a gauge that several processes have, such as an engine's state, it is the
    largest value; of the moments at which counting began, the first.
    """
    families: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for family in (family for part in parts for family in part):
        known = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
        sums = values.setdefault(known.name, {})
        for sample in family.samples:
            key = sample.name, tuple(sample.labels.items())
            before = sums.get(key)
            if before is None:
                sums[key] = sample.value
            elif sample.name.endswith(_CREATED):
                sums[key] = min(before, sample.value)
            else:
                sums[key] = before + sample.value if family.type in ADDED else max(before, sample.value)
    for name, family in families.items():
        for (sample_name, labels), value in values[name].items():
            family.add_sample(sample_name, dict(labels), value)
    return list(families.values())


def lasting(families: Families) -> Families:
    """What goes on counting when the process is gone that counted it."""
    return [family for family in families if family.type in ADDED]


def without(families: Families, stream: str) -> Families:
    """All but the series of a stream."""
    kept = []
    for family in families:
        left = Metric(family.name, family.documentation, family.type)
        left.samples = [sample for sample in family.samples if sample.labels.get("stream") != stream]
        kept.append(left)
    return kept


class Sum(Collector):
    """Metrics of all workers, those that died included, and how often that was; what Prometheus scrapes.

    Args:
        changing: held while a worker that died goes over from the living to the past.
        look: looks at the workers that are there.
        living: what they had counted then; called with `changing` held.
    """

    def __init__(
        self, changing: threading.RLock, look: Callable[[], object], living: Callable[[], Iterable[Families]]
    ) -> None:
        self._changing, self._look, self._living = changing, look, living
        self._past: Families = []
        self._restarts = Counter(
            "roadlens_worker_restarts", "Workers that died and were replaced.", ["worker"], registry=None
        )
        self._up = Gauge("roadlens_worker_up", "1 while a worker takes streams.", ["worker"], registry=None)

    def up(self, number: int, up: bool) -> None:
        """Whether a worker takes streams."""
        self._restarts.labels(str(number))
        self._up.labels(str(number)).set(up)

    def died(self, number: int, last: Families) -> None:
        """A worker died; `last` is what it had counted. `changing` is held."""
        self.up(number, False)
        self._restarts.labels(str(number)).inc()
        self._past = summed([self._past, lasting(last)])

    def forget(self, stream: str) -> None:
        """A stream was removed, and so are its series."""
        with self._changing:
            self._past = without(self._past, stream)

    def collect(self) -> Iterator[Metric]:
        """prometheus_client's way of asking."""
        self._look()
        with self._changing:
            whole = summed([self._past, *self._living()])
        yield from whole
        yield from self._restarts.collect()
        yield from self._up.collect()
