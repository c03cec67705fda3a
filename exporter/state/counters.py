"""Counters made from polled values: they never fall, and their first exposed value is 0.

A collector folds a reading into increments. When a series first appears, it is exposed as 0, and
its increments later. So `increase()` sees them: Prometheus does not know what a series was before
its first sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from exporter.exposition.metric import Key, Metric, Samples

Increments = Mapping[Key, float]
"""What is to be added to each series; 0 makes a series appear."""


class Counters(msgspec.Struct, frozen=True, gc=False):
    """Running totals, and the values that are exposed. New series are exposed later.

    `exposed` is the same object as `totals` if they are equal.
    """

    totals: Mapping[Key, float] = {}
    exposed: Mapping[Key, float] = {}

    @classmethod
    def of(cls, totals: Mapping[Key, float], exposed: Mapping[Key, float]) -> Counters:
        """Counters with these totals; a series that was never exposed is exposed as 0."""
        shown = {key: exposed.get(key, 0) for key in totals}
        return cls(totals, totals if shown == totals else shown)

    def add(self, increments: Increments, *, is_held: bool = False) -> Counters:
        """The counters after these increments; new series are exposed as 0.

        Series that existed before expose their totals; where `is_held`, what they exposed before.
        ValueError for a negative increment.
        """
        totals = dict(self.totals)
        for key, amount in increments.items():
            if amount < 0:
                raise ValueError(f"{key}: a counter does not fall")
            totals[key] = totals.get(key, 0) + amount
        if is_held:
            return Counters.of(totals, self.exposed)
        return Counters.of(totals, {key: totals[key] for key in self.totals})

    @property
    def is_behind(self) -> bool:
        """Whether some of the totals are not exposed yet."""
        return self.totals is not self.exposed

    def samples(self, name: str) -> Samples:
        """The exposed samples of one family."""
        own = [(labels, value) for (of, labels), value in self.exposed.items() if of == name]
        return sorted(own)


CounterRow = Metric[Counters]


def counter(name: str, help_: str, source: str, labels: tuple[str, ...]) -> CounterRow:
    """A row of a table of counters."""
    return Metric(name, "counter", help_, source, labels, lambda counters: counters.samples(name))


def total(increments: Iterable[tuple[Key, float]]) -> Increments:
    """Increments added up by series."""
    sums: dict[Key, float] = {}
    for key, amount in increments:
        sums[key] = sums.get(key, 0) + amount
    return sums
