"""What a metric is declared with: its name, what it counts, and the values of its labels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True, slots=True)
class Label:
    """A dimension of a metric, with all the values it can take."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the catalogue. `name` is what Prometheus sees."""

    name: str
    help: str
    labels: tuple[Label, ...] = ()

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @property
    def children(self) -> tuple[tuple[str, ...], ...]:
        """Every combination of label values, in the order of `label_names`; none without labels."""
        return tuple(product(*(label.values for label in self.labels))) if self.labels else ()


@dataclass(frozen=True, slots=True)
class Counter(Metric):
    """Only grows."""


@dataclass(frozen=True, slots=True)
class Gauge(Metric):
    """Goes up and down."""


@dataclass(frozen=True, slots=True)
class Histogram(Metric):
    """Counts observations up to each of its upper bounds, `+Inf` understood."""

    buckets: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Objective:
    """A promise to users: `ratio` of the observations of `metric` are at most `threshold`.

    The threshold is one of the metric's bucket bounds: the ratio is counted, not interpolated.
    """

    metric: Histogram
    threshold: float
    ratio: float


def series_of(metric: Metric) -> frozenset[str]:
    """The names under which a metric's samples appear in queries."""
    if isinstance(metric, Histogram):
        return frozenset(metric.name + suffix for suffix in ("_bucket", "_sum", "_count"))
    return frozenset({metric.name})
