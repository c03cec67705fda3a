"""Which series there are. Jobs have the same: that is kept once, and of each its numbers only."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from weakref import WeakValueDictionary

from exporter.exposition.metric import Labels

Key = tuple[str, Labels]
"""A series: the name of its sample, and the values of the row's own labels."""

_Places = tuple[tuple[tuple[Labels, ...], ...], list[slice]]


class Layout:
    """Series, in the order of their keys.

    `index`: where in the numbers a series is. `by_name`: the labels of the series of each name, and
    where in the numbers they are, one after another.
    """

    __slots__ = ("__weakref__", "_columns", "by_name", "index", "keys")

    def __init__(self, keys: tuple[Key, ...]) -> None:
        self.keys = keys
        self.index = {key: index for index, key in enumerate(keys)}
        self.by_name: dict[str, tuple[tuple[Labels, ...], slice]] = {}
        for name, group in groupby(keys, itemgetter(0)):
            labels = tuple([labels for _, labels in group])
            start = self.index[name, labels[0]]
            self.by_name[name] = labels, slice(start, start + len(labels))
        self._columns: dict[tuple[str, ...], _Places] = {}

    def columns(self, names: tuple[str, ...]) -> _Places:
        """Labels and places of the series of several names; a name without series has none."""
        found = self._columns.get(names)
        if found is None:
            rows = [self.by_name.get(name, _NOTHING) for name in names]
            found = tuple([labels for labels, _ in rows]), [where for _, where in rows]
            self._columns[names] = found
        return found

    @classmethod
    def of(cls, keys: Iterable[Key]) -> Layout:
        """That of these series, in whatever order they are given."""
        ordered = tuple(sorted(keys))
        layout = _LAYOUTS.get(ordered)
        if layout is None:
            layout = _LAYOUTS[ordered] = cls(ordered)
        return layout


_NOTHING: tuple[tuple[Labels, ...], slice] = ((), slice(0))
_LAYOUTS: WeakValueDictionary[tuple[Key, ...], Layout] = WeakValueDictionary()
NO_SERIES = Layout.of(())
