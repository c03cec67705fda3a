"""Histograms made of counters: each bucket, the sum and the count is one of `Counters`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from exporter.exposition.metric import Labels, Metric
from exporter.state.counters import CounterRow, Counters, Increments


@dataclass(frozen=True)
class Histogram:
    """A row of a table of histograms. `bounds`: upper bounds of its buckets, +Inf left out."""

    row: CounterRow
    bounds: tuple[float, ...]

    def observed(self, values: Mapping[tuple[str, ...], Iterable[float]]) -> Increments:
        """What these values, by label values, add to the buckets, the sum and the count.

        Where there are no values, the series appear with 0. A value below 0 counts as 0: it is a
        duration between two clocks.
        """
        increments: dict[tuple[str, tuple[str, ...]], float] = {}
        for labels, given in values.items():
            observed = sorted(given)
            for bound in self.bounds:
                at_most = bisect_right(observed, bound)
                increments[self.row.name, (*labels, "_bucket", str(bound))] = at_most
            increments[self.row.name, (*labels, "_bucket", "+Inf")] = len(observed)
            increments[self.row.name, (*labels, "_count", "")] = len(observed)
            # Times are known to the microsecond; what is below that is none of the service's.
            longer = observed[bisect_right(observed, 0.0) :]
            increments[self.row.name, (*labels, "_sum", "")] = round(sum(longer), 6)
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
