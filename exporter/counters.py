"""Counters made from what the service shows: they never fall, and their first value is 0.

A collector folds a reading into increments; totals are kept here, for each job, group and account.
What is known when a series first appears is exposed later only (the next time, or when the caller
holds it back no longer), so that `increase()` sees it: Prometheus cannot know what a series was
before its first sample.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from exporter.metric import Metric, Sample

Key = tuple[str, tuple[str, ...]]
"""A series: the name of its sample, and the values of the row's own labels."""

Increments = Mapping[Key, float]
"""What is to be added to each series; 0 makes a series appear."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Running totals. `exposed`: what is shown of them, which is behind where they are new.

    Both are in the order of their keys, and the same object where they are equal.
    """

    totals: Mapping[Key, float] = field(default_factory=dict)
    exposed: Mapping[Key, float] = field(default_factory=dict)

    def add(self, increments: Increments, held: Collection[Key] = ()) -> Counters:
        """The totals after these increments; series that were there before show all of theirs.

        Those that are `held` show what they did.
        """
        totals = dict(self.totals)
        for key, amount in increments.items():
            if amount < 0:
                raise ValueError(f"{key}: a counter does not fall")
            totals[key] = totals.get(key, 0) + amount
        if len(totals) == len(self.exposed) and not held:
            return Counters(totals, totals)
        totals = dict(sorted(totals.items()))
        exposed = {
            key: self.exposed.get(key, 0) if key in held or key not in self.exposed else total
            for key, total in totals.items()
        }
        return Counters(totals, totals if exposed == totals else exposed)

    @classmethod
    def restored(cls, totals: Mapping[Key, float], exposed: Mapping[Key, float]) -> Counters:
        """Counters as they were once, in whatever order."""
        totals, exposed = dict(sorted(totals.items())), dict(sorted(exposed.items()))
        return cls(totals, totals if exposed == totals else exposed)

    @property
    def is_behind(self) -> bool:
        """Whether some of the totals are not exposed yet."""
        return self.totals is not self.exposed and self.totals != self.exposed

    def samples(self, name: str) -> list[Sample]:
        """The exposed samples of one name."""
        return [(labels, value) for (known, labels), value in self.exposed.items() if known == name]


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
