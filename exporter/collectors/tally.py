"""How many nodes of a job there are of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from operator import itemgetter

from exporter.exposition.metric import Labels
from exporter.state.series import NO_SERIES, Key, Layout

Tallied = Key
"""What is counted of nodes, `state`, `result` or `failure`; the pool's id and the values."""


class Tally(Mapping[Tallied, int]):
    """Numbers of nodes. Jobs tally the same, so what that is is kept once: the layout."""

    __slots__ = ("layout", "numbers")

    def __init__(self, numbers: Mapping[Tallied, int]) -> None:
        self.layout = Layout.of(numbers) if numbers else NO_SERIES
        self.numbers = tuple([numbers[key] for key in self.layout.keys])

    def __getitem__(self, key: Tallied) -> int:
        return self.numbers[self.layout.index[key]]

    def __iter__(self) -> Iterator[Tallied]:
        return iter(self.layout.keys)

    def __len__(self) -> int:
        return len(self.numbers)


Take = Callable[[tuple[int, ...]], tuple[int, ...]]
"""Takes some numbers out of those of a tally with a zero behind them."""


def finder(
    what: str, known: tuple[str, ...]
) -> Callable[[Layout, tuple[str, ...]], tuple[tuple[Labels, ...], Take]]:
    """What finds, for a layout and pools, the labels of what is tallied, and their numbers.

    Of each known value in each pool there is at least a zero.
    """

    @lru_cache(1000)  # jobs on a pool have the same, and to look takes longer than all the rest
    def found(layout: Layout, pools: tuple[str, ...]) -> tuple[tuple[Labels, ...], Take]:
        here, _ = layout.by_name.get(what, ((), None))
        labels = tuple(sorted({*here, *((pool_id, value) for pool_id in pools for value in known)}))
        return labels, _getter([layout.index.get((what, each), -1) for each in labels])

    return found


def _getter(positions: list[int]) -> Take:
    if not positions:
        return lambda _: ()
    if len(positions) == 1:  # of one itemgetter makes no tuple
        return lambda numbers: (numbers[positions[0]],)
    return itemgetter(*positions)
