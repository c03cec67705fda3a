"""The types of a metric table: a row is a family, and a function from a snapshot to its samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

Labels = tuple[str, ...]
"""The values of a row's own labels."""

Samples = Iterable[tuple[Labels, float | None]]
"""The labels and the value of each sample. A value of None is unknown: it has no series."""

Key = tuple[str, Labels]
"""A series of one owner: the name of its family, and the values of the row's own labels."""

Identity = tuple[tuple[str, str], ...]
"""The labels that identify the object, as (name, value): account, and job_id or job_group."""

Merge = Callable[[Iterable[float]], float]
"""How the values of a group's jobs with the same labels become the group's value."""


@dataclass(frozen=True)
class Metric(Generic[T]):
    """One family: a row of a collector's table.

    `help`: a sentence that a stranger understands, without a full stop.
    `source`: the API operation and field that the value comes from; it is part of HELP.
    `labels`: names of the row's own labels; those of the table's identity come before them.
    `samples`: the samples of one snapshot. Those of a histogram have two label values more: the
    suffix of the sample's name, and `le` or "".
    `merge`: how a group merges the values of its jobs; None: a group does not have the family.
    `sum` is for whole numbers: of others, what is added and taken away again leaves a rest.
    `math.fsum` adds those up.
    """

    name: str
    type: Literal["gauge", "counter", "histogram"]
    help: str
    source: str
    labels: tuple[str, ...]
    samples: Callable[[T], Samples]
    merge: Merge | None = sum

    @property
    def documentation(self) -> str:
        """The text of HELP."""
        return f"{self.help}. Source: {self.source}; polled, not fetched on scrape."


@dataclass(frozen=True)
class Table(Generic[T]):
    """The families that come from one kind of snapshot.

    `identity`: names of the labels that identify the object, on every row. A group has `job_group`
    in place of `job_id`.
    """

    identity: tuple[str, ...]
    metrics: tuple[Metric[T], ...]


class Excluded:
    """Names of metrics that are left out, with `*` as wildcard."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._patterns = tuple(patterns)

    def __contains__(self, name: object) -> bool:
        return any(fnmatchcase(str(name), pattern) for pattern in self._patterns)


def only(value: float | None) -> Samples:
    """The one sample of a row without labels."""
    return [((), value)]


def info(*labels: str) -> Samples:
    """The one sample of a row whose labels carry the information; its value is always 1."""
    return [(labels, 1)]


def state_set(known: tuple[str, ...], current: str | None) -> Samples:
    """One sample for each known state: 1 for the current one, 0 for the others.

    A state that is not known adds a sample of its own; None, no state, has no samples.
    """
    if current is None:
        return []
    states = known if current in known else (*known, current)
    return [((state,), int(state == current)) for state in states]
