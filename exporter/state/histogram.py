"""Histograms made of counters: each bucket, the sum and the count is one of `Counters`."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import accumulate

from exporter.exposition.metric import Labels, Metric
from exporter.state.counters import CounterRow, Counters, Increments


@dataclass(frozen=True)
class Histogram:
    """A row of a table of histograms. `bounds`: upper bounds of its buckets, +Inf left out."""

    row: CounterRow
    bounds: tuple[float, ...]

    def observed(self, values: Mapping[tuple[str, ...], Collection[float]]) -> Increments:
        """What these values, by label values, add to the buckets, the sum and the count.

        Where there are no values, the series appear with 0. A value below 0 counts as 0: it is a
        duration between two clocks.
        """
        increments: dict[tuple[str, tuple[str, ...]], float] = {}
        bounds = (*map(str, self.bounds), "+Inf")
        for labels, observed in values.items():
            # Without a sorted copy: a first listing may have 100,000 values.
            smallest = Counter(bisect_left(self.bounds, value) for value in observed)
            at_most = accumulate(smallest[number] for number in range(len(bounds)))
            for bound, number in zip(bounds, at_most, strict=True):
                increments[self.row.name, (*labels, "_bucket", bound)] = number
            increments[self.row.name, (*labels, "_count", "")] = len(observed)
            # Times have microseconds; less than that is an error of floating point.
            longer = sum(value for value in observed if value > 0)
            increments[self.row.name, (*labels, "_sum", "")] = round(longer, 6)
        return increments


def histogram(
    name: str, help_: str, source: str, labels: tuple[str, ...], bounds: tuple[float, ...]
) -> Histogram:
    """A row of a table of histograms. `bounds`: ascending, each below a million.

    From a million on, Go and Python write a number each in its own way, and `le` is text.
    """
    row = Metric[Counters](
        name,
        "histogram",
        help_,
        source,
        labels,
        lambda counters: sorted(counters.samples(name), key=_position),
    )
    return Histogram(row, bounds)


def _position(sample: tuple[Labels, float | None]) -> tuple[Labels, str, float]:
    *labels, suffix, bound = sample[0]
    return tuple(labels), suffix, float(bound or 0)
