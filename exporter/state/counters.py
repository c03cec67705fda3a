"""Counters made from what the service shows: they never fall, and their first value is 0.

A collector folds a reading into increments; totals are kept here, for each job, group and account.
What is known when a series first appears is exposed later only (the next time, or when the caller
holds it back no longer), so that `increase()` sees it: Prometheus cannot know what a series was
before its first sample.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from operator import methodcaller

from exporter.exposition.metric import Columns, Metric, Samples, Table
from exporter.state.series import NO_SERIES, Key, Layout

Increments = Mapping[Key, float]
"""What is to be added to each series; 0 makes a series appear."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Running totals, and what is exposed of them, which is behind where they are new.

    Jobs have the same series, so what they are is kept once, and of each job its values only.
    """

    _layout: Layout = NO_SERIES
    _totals: tuple[float, ...] = ()
    _exposed: tuple[float, ...] = ()
    """The same object where they are equal."""

    @classmethod
    def of(cls, totals: Mapping[Key, float], exposed: Mapping[Key, float]) -> Counters:
        """Counters with these totals; what nothing is exposed of is exposed as 0."""
        layout = Layout.of(totals)
        values = tuple([totals[key] for key in layout.keys])
        shown = tuple([exposed.get(key, 0) for key in layout.keys])
        return cls(layout, values, values if shown == values else shown)

    @property
    def totals(self) -> Mapping[Key, float]:
        """All series."""
        return dict(zip(self._layout.keys, self._totals, strict=True))

    @property
    def exposed(self) -> Mapping[Key, float]:
        """What is shown of them."""
        return dict(zip(self._layout.keys, self._exposed, strict=True))

    def __contains__(self, key: Key) -> bool:
        return key in self._layout.index

    def add(self, increments: Increments, held: Collection[Key] = ()) -> Counters:
        """The totals after these increments; series that were there before show all of theirs.

        Those that are `held` show what they did.
        """
        for key, amount in increments.items():
            if amount < 0:
                raise ValueError(f"{key}: a counter does not fall")
        index = self._layout.index
        if increments.keys() <= index.keys():
            values = list(self._totals)
            for key, amount in increments.items():
                values[index[key]] += amount
            totals = tuple(values)
            if not held:
                return Counters(self._layout, totals, totals)
            shown = list(totals)
            for key in held:
                if key in index:
                    shown[index[key]] = self._exposed[index[key]]
            exposed = tuple(shown)
            return Counters(self._layout, totals, totals if exposed == totals else exposed)
        sums = dict(self.totals)
        for key, amount in increments.items():
            sums[key] = sums.get(key, 0) + amount
        known = self.exposed
        return Counters.of(
            sums,
            {
                key: known.get(key, 0) if key in held or key not in known else value
                for key, value in sums.items()
            },
        )

    @property
    def is_behind(self) -> bool:
        """Whether some of the totals are not exposed yet."""
        return self._totals is not self._exposed

    def samples(self, name: str) -> Samples:
        """The exposed samples of one name."""
        (labels,), (values,) = self.columns((name,))
        return labels, values

    def columns(self, names: tuple[str, ...]) -> Columns:
        """The exposed samples of each name."""
        exposed = self._exposed
        labels, places = self._layout.columns(names)
        return labels, [exposed[where] for where in places]


CounterRow = Metric[Counters]


class CounterTable(Table[Counters]):
    """A table of counters, whose rows are read at once: which there are is known by the layout."""

    def reader(self) -> Callable[[Counters], Columns]:
        """What gives the samples of all rows."""
        return methodcaller("columns", tuple([metric.name for metric in self.metrics]))


def counter(name: str, help_: str, source: str, labels: tuple[str, ...]) -> CounterRow:
    """A row of a table of counters."""
    return Metric(name, "counter", help_, source, labels, methodcaller("samples", name))


def total(increments: Iterable[tuple[Key, float]]) -> Increments:
    """Increments added up by series."""
    sums: dict[Key, float] = {}
    for key, amount in increments:
        sums[key] = sums.get(key, 0) + amount
    return sums
