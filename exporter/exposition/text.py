"""How samples become text.

A sample line is the same in the text format 0.0.4 and in OpenMetrics 1.0; only the headers of a
family differ. So lines are written once, when a value changes, and serve both.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from itertools import chain
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from exporter.exposition.metric import Identity, Labels, Metric, Table, columns, merged

T = TypeVar("T")

BETWEEN = b"\xff"
"""Stands between the lines of one row and those of the next. UTF-8 does not have it."""

MAX_LABEL = 512
"""Characters of a label value. Ids of the service have 64 at most, display names 1,024."""

REMEMBERED = 256
"""Sets of labels of a table and of a family whose lines are kept: jobs on a pool have the same."""

MAX_DIGITS = 308
"""Of a whole number that a double can hold in any case."""

LATEST = 8
"""Of those, the latest that are looked at one by one."""

_IDENTITY = b"\0"
"""Stands in lines where an identity's labels go; `escape` leaves none in labels."""


class Unwritten(msgspec.Struct, frozen=True, gc=False):
    """The lines of one snapshot before they are written.

    `identity`: the labels for one kind of gap. `numbers`: those for the other, with commas.
    """

    pattern: Pattern
    identity: bytes
    numbers: bytes

    @property
    def digest(self) -> int:
        """Of the same lines of an identity the same."""
        return self.pattern.digest ^ hash(self.numbers)


class Pattern(NamedTuple):
    """The lines of a table with gaps for numbers, taken apart at the gaps for the identity.

    `labels`: those of the samples, by row. `brackets`: what JSON puts around and between as many
    numbers. `series`: their number. `digest`: of the same labels the same.
    """

    labels: tuple[tuple[Labels, ...], ...]
    parts: list[bytes]
    brackets: bytes
    series: int
    digest: int


def write(all_lines: Sequence[Unwritten]) -> list[bytes]:
    """The lines of snapshots of one table: of the first by row, then of the next.

    Many at once are written in half the time that one after the other would take.
    """
    gaps = BETWEEN.join([each.identity.join(each.pattern.parts) for each in all_lines])
    numbers = b",".join([each.numbers for each in all_lines]).translate(None, b"[]")
    return (gaps % tuple(filter(None, numbers.split(b",")))).split(BETWEEN)


class Renderer(Generic[T]):
    """Makes of one table's snapshots what is to be written.

    Jobs have nearly the same lines. So those of a whole table are kept with gaps where the labels
    of the identity and the values go, and all values become text at once.
    """

    def __init__(self, table: Table[T]) -> None:
        self._metrics = table.metrics
        self._read = table.reader()
        self._pattern = _patterns(table)
        self._latest: tuple[Pattern, ...] = ()

    def lines(self, identity: Identity, snapshot: T) -> Unwritten:
        """Of one snapshot."""
        return self._unwritten(identity, *self._read(snapshot))

    def group_lines(self, identity: Identity, snapshots: Iterable[T]) -> Unwritten:
        """Of many snapshots merged into one."""
        members = list(snapshots)
        rows = [merged(metric, members) for metric in self._metrics]
        return self._unwritten(identity, *columns(rows))

    def _unwritten(
        self,
        identity: Identity,
        labels: tuple[tuple[Labels, ...], ...],
        values: Sequence[Sequence[float]],
    ) -> Unwritten:
        for pattern in self._latest:
            if pattern.labels == labels:  # sooner done than to work out their hash
                break
        else:
            pattern = self._pattern(labels)
            self._latest = (pattern, *self._latest[: LATEST - 1])
        numbers = _encode(values)
        if (
            # As many for each row as it should be, and no null, true or false between them.
            numbers.translate(None, _NUMERALS) != pattern.brackets
            or (len(numbers) > MAX_DIGITS and _is_any_huge(numbers))
        ):
            numbers = self._one_by_one(labels, values)
        return Unwritten(pattern, _identity_labels(identity), numbers)

    def _one_by_one(
        self, labels: Sequence[tuple[Labels, ...]], values: Sequence[Sequence[float]]
    ) -> bytes:
        for metric, of_row, numbers in zip(self._metrics, labels, values, strict=True):
            if len(of_row) != len(numbers):
                # Were they as many in all, they would stand behind other samples than their own.
                raise ValueError(f"{metric.name}: {len(of_row)} labels, {len(numbers)} values")
        return ",".join([format_value(value) for value in chain.from_iterable(values)]).encode()


def _patterns(table: Table[Any]) -> Callable[[tuple[tuple[Labels, ...], ...]], Pattern]:
    """What gives the lines of a table by the labels of its samples, row by row."""
    rows = [lru_cache(REMEMBERED)(partial(_row, table, metric)) for metric in table.metrics]

    @lru_cache(REMEMBERED)
    def of(labels: tuple[tuple[Labels, ...], ...]) -> Pattern:
        lines = [lines_of(of_row) for lines_of, of_row in zip(rows, labels, strict=True)]
        numbers = list(map(len, labels))
        parts = BETWEEN.join(lines).split(_IDENTITY)
        return Pattern(labels, parts, _brackets(*numbers), sum(numbers), hash(labels))

    return of


@lru_cache(REMEMBERED)
def _brackets(*numbers: int) -> bytes:
    """What JSON puts around and between so many numbers of each row."""
    return _encode([[0] * count for count in numbers]).translate(None, _NUMERALS)


def _row(table: Table[Any], metric: Metric[Any], labels: tuple[Labels, ...]) -> bytes:
    """The lines of a family, by the labels of its samples."""
    lines = []
    for values in labels:
        name, names = metric.name, metric.labels
        if metric.type == "histogram":
            *own, suffix, bound = values
            name += suffix
            names, values = (*names, "le"), (*own, bound)
            if not bound:
                names, values = names[:-1], values[:-1]
        escaped = [escape(value).replace("%", "%%") for value in values]
        # More or fewer than there are names are an error, else it were another series.
        lines.append(_line(name, names, bool(table.identity)) % tuple(escaped))
    return "".join(lines).encode()


@lru_cache(REMEMBERED)
def _line(name: str, names: tuple[str, ...], has_identity: bool) -> str:
    """A line with gaps for everything."""
    identity = ["\0"] if has_identity else []
    labels = ",".join([*identity, *[f'{each}="%s"' for each in names]])
    return f"{name}{{{labels}}} %%b\n" if labels else f"{name} %%b\n"


@lru_cache(REMEMBERED)  # what a poll brings of a job stands in several tables
def _identity_labels(identity: Identity) -> bytes:
    text = ",".join([f'{name}="{escape(value)}"' for name, value in identity])
    return text.replace("%", "%%").encode()


# A NUL is legal, and where it stands Prometheus takes the exposition to be over.
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"', "\0": "\ufffd"})
_NEEDS_NO_ESCAPE = re.compile(r"[ !#-\[\]-~]*").fullmatch


def escape(value: str) -> str:
    """A label value between its quotes. Any text is legal there but a lone surrogate.

    One that is too long is cut, and ends in a digest of the whole: two stay two.
    """
    if len(value) > MAX_LABEL:
        digest = hashlib.sha256(value.encode("utf-8", "replace")).hexdigest()[:16]
        return escape(f"{value[: MAX_LABEL - 20]}... {digest}")
    if _NEEDS_NO_ESCAPE(value):
        return value
    return value.encode("utf-8", "replace").decode().translate(_ESCAPES)


_encode = msgspec.json.Encoder().encode
"""JSON writes nearly all numbers as they are written here, and does so fast."""

_NUMERALS = b"0123456789.-+e"


def _is_any_huge(numbers: bytes) -> bool:
    """Whether one may be too large for a double."""
    return max(map(len, numbers.split(b","))) > MAX_DIGITS


def format_value(value: float) -> str:
    """A sample's value; whole numbers without a point."""
    if isinstance(value, int):
        # What no double can hold is refused by Prometheus, and the whole exposition with it.
        if abs(value) < 2**1023:
            return str(int(value))
        value = math.inf if value > 0 else -math.inf
    if math.isfinite(value):
        return repr(value)
    if math.isnan(value):
        return "NaN"
    return "+Inf" if value > 0 else "-Inf"
