"""How samples become text.

A sample line is the same in the text format 0.0.4 and in OpenMetrics 1.0; only the headers of a
family differ. So lines are written once, when a value changes, and serve both.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar

from exporter.metric import Identity, Metric, Sample, Table, merged

T = TypeVar("T")

MAX_LABEL = 512
"""Characters of a label value. Ids of the service have 64 at most, display names 1,024."""

REMEMBERED = 10_000
"""Label values of a family whose text is kept: states and pools are few, names of tasks not."""


class Renderer(Generic[T]):
    """Writes the sample lines of one table's snapshots: a text for each of its rows.

    What the lines of all jobs have in common is worked out once: a line is put together from four
    pieces, of which the labels of the identity and the value are the only new ones.
    """

    def __init__(self, table: Table[T]) -> None:
        self._metrics = table.metrics
        self._rows = [_Row(metric, bool(table.identity)) for metric in table.metrics]

    def lines(self, identity: Identity, snapshot: T) -> tuple[list[bytes], int]:
        """Of one snapshot; b"" where a row has no samples. And how many lines they are."""
        return self._write(identity, [metric.samples(snapshot) for metric in self._metrics])

    def group_lines(self, identity: Identity, snapshots: Iterable[T]) -> tuple[list[bytes], int]:
        """Of many snapshots merged into one."""
        members = list(snapshots)
        return self._write(
            identity,
            [merged(metric, members) if metric.merge else () for metric in self._metrics],
        )

    def _write(
        self, identity: Identity, samples: Sequence[Iterable[Sample]]
    ) -> tuple[list[bytes], int]:
        # One loop, for calls would take as long as what they do: it runs for each series that
        # polls bring anew.
        own, texts, count = _identity_labels(identity), [], 0
        for row, of_row in zip(self._rows, samples, strict=True):
            pieces, lines = row.pieces, []
            for values, value in of_row:
                before, after = pieces.get(values) or row.learn(values)
                if type(value) is int and -_PLAIN < value < _PLAIN:
                    lines.append(f"{before}{own}{after}{value}\n")
                else:
                    lines.append(f"{before}{own}{after}{format_value(value)}\n")
            texts.append("".join(lines).encode() if lines else b"")
            count += len(lines)
        return texts, count


class _Row:
    """A row of a table. `pieces`: what stands before and after the identity in its lines."""

    def __init__(self, metric: Metric[Any], has_identity: bool) -> None:
        self.pieces: dict[tuple[str, ...], tuple[str, str]] = {}
        self._metric = metric
        self._has_identity = has_identity

    def learn(self, values: tuple[str, ...]) -> tuple[str, str]:
        """The pieces for these labels, which are not known yet."""
        if len(self.pieces) >= REMEMBERED:
            self.pieces.clear()
        found = self.pieces[values] = self._pieces_of(values)
        return found

    def _pieces_of(self, values: tuple[str, ...]) -> tuple[str, str]:
        name, names = self._metric.name, self._metric.labels
        if self._metric.type == "histogram":
            *own, suffix, bound = values
            name += suffix
            names, values = (*names, "le"), (*own, bound)
            if not bound:
                names, values = names[:-1], values[:-1]
        labels = _labels(zip(names, values, strict=True))  # strict: else it were another series
        if self._has_identity:
            return name + "{", f",{labels}}} " if labels else "} "
        return name, f"{{{labels}}} " if labels else " "


@lru_cache(maxsize=256)  # what a poll brings of a job stands in several tables
def _identity_labels(identity: Identity) -> str:
    return _labels(identity)


def _labels(pairs: Iterable[tuple[str, str]]) -> str:
    return ",".join([f'{name}="{escape(value)}"' for name, value in pairs])


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


_PLAIN = 2**53


def format_value(value: float) -> str:
    """A sample's value; whole numbers without a point."""
    if type(value) is float and -math.inf < value < math.inf:
        return repr(value)
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
