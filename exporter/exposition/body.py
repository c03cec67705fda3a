"""The state as a scrape sees it: each object's lines, and the bodies joined from them.

Lines are rendered when a snapshot is put here. A scrape joins what is there, family by family.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import ModuleType
from typing import Any

from exporter.exposition.metric import Identity, Metric, Samples, Table
from exporter.exposition.text import Family, header, identity_text

_zlib: ModuleType
try:
    from isal import isal_zlib as _zlib
except ImportError:  # it does not exist for every processor
    import zlib as _zlib

log = logging.getLogger(__name__)


AT_ONCE = 500
"""Objects whose lines one call joins, some 50 kB: a longer call would hold the event loop."""

_LINE = 100
"""Bytes of a line, on average."""


class Format(Enum):
    """The formats that are served, with their content types."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


Lines = tuple[bytes, ...]
"""An object's lines in one table, one entry for each family; () if it has none."""

Slot = tuple[str, Identity]
"""The name of a table and an object's identity."""

GROWTH = 1.05
"""What is shown may grow to so much of the limit."""

WAITING_AT_ONCE = 100
"""Objects that are tried again at once, after others left: a few milliseconds."""


@dataclass
class Body:
    """The exposition of the state at one moment.

    The text is made while it is sent, and is not kept. The gzip is made on demand and kept: all
    clients share it. For a large state that takes a while. A thread may do it, because nothing that
    it reads changes.
    `headers`: of each table those of its families. `objects`: of each object its lines, by table.
    `series`: number of samples.
    """

    headers: list[list[bytes]]
    objects: list[tuple[Lines, ...]]
    series: int
    _deflated: tuple[bytes, int, int] | None = None

    @property
    def size(self) -> int:
        """About how many bytes of text it has."""
        return self.series * _LINE

    def parts(self) -> Iterator[bytes]:
        """The text in parts: of each family that has lines its header, then some lines each."""
        for table, headers in enumerate(self.headers):
            shown = [lines for tables in self.objects if (lines := tables[table])]
            for family, header_ in enumerate(headers):
                is_first = True
                for start in range(0, len(shown), AT_ONCE):
                    text = b"".join([lines[family] for lines in shown[start : start + AT_ONCE]])
                    if text and is_first:
                        yield header_
                        is_first = False
                    if text:
                        yield text

    @property
    def plain(self) -> bytes:
        """The whole text."""
        return b"".join(self.parts())

    def gzip(self, rest: bytes) -> tuple[bytes, ...]:
        """The text and then `rest` as one gzip stream, in parts. Only `rest` is compressed anew."""
        if self._deflated is None:
            stream, crc, size, parts = _compressor(), 0, 0, []
            for text in self.parts():
                crc, size = _zlib.crc32(text, crc), size + len(text)
                parts.append(stream.compress(text))
            # The flush ends on a whole byte, so another stream can follow.
            parts.append(stream.flush(_zlib.Z_FULL_FLUSH))
            self._deflated = b"".join(parts), crc, size
        deflated, crc, size = self._deflated
        stream = _compressor()
        return (
            b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff",  # RFC 1952: deflate, fastest, no name
            deflated,
            stream.compress(rest) + stream.flush(),
            _zlib.crc32(rest, crc).to_bytes(4, "little"),
            ((size + len(rest)) & 0xFFFFFFFF).to_bytes(4, "little"),
        )


def _compressor() -> Any:
    # Level 1: a fifth larger than level 9 and twenty times faster.
    return _zlib.compressobj(1, _zlib.DEFLATED, -_zlib.MAX_WBITS)


class Exposition:
    """The rendered lines of all objects, by family and identity."""

    def __init__(
        self,
        tables: Mapping[str, Table[Any]],
        *,
        limits: Mapping[str, int] | None = None,
        on_drop: Callable[[str, int], None] | None = None,
    ) -> None:
        self.reconfigure(tables, limits=limits, on_drop=on_drop)

    def reconfigure(
        self,
        tables: Mapping[str, Table[Any]],
        *,
        limits: Mapping[str, int] | None = None,
        on_drop: Callable[[str, int], None] | None = None,
    ) -> None:
        """Begin anew, with nothing shown.

        `limits`: most series of each account; `on_drop(account, count)`: so many were left out. A
        limit keeps out new objects, and those that grow much. What is evictable makes room first.
        """
        self._tables = tables
        self._places = {name: place for place, name in enumerate(tables)}
        self._families = {
            name: [Family(metric.name, metric.type, metric.labels) for metric in table.metrics]
            for name, table in tables.items()
        }
        self._headers = {
            format_: [
                [
                    header(
                        *(metric.name, metric.type, metric.documentation),
                        openmetrics=format_ is Format.OPENMETRICS,
                    )
                    for metric in table.metrics
                ]
                for table in tables.values()
            ]
            for format_ in Format
        }
        self._objects: dict[str, tuple[Lines, ...]] = {}
        """By identity: the object's lines in each table."""
        self._limits = limits or {}
        self._on_drop = on_drop
        self._series: Counter[str] = Counter()
        self._evictable: dict[str, dict[Slot, None]] = defaultdict(dict)
        self._dropped: dict[str, dict[Slot, bool]] = defaultdict(dict)
        """By account: what the limit leaves out, and whether it is evictable."""
        self._has_room: set[str] = set()
        self._bodies: dict[Format, Body] = {}

    def metrics(self, table: str) -> tuple[Metric[Any], ...]:
        """The rows of a table."""
        return self._tables[table].metrics

    def put(
        self,
        table: str,
        identity: Identity,
        snapshot: Any,
        *,
        samples: Iterable[Samples] | None = None,
        evictable: bool = False,
    ) -> bool:
        """Replace what `table` shows for `identity`. False: the account's limit leaves it out.

        `samples`: by family, instead of a snapshot. `evictable`: it makes room for others when the
        limit is reached.
        """
        if samples is None:
            samples = [metric.samples(snapshot) for metric in self._tables[table].metrics]
        key, account, slot = identity_text(identity), _account(identity), (table, identity)
        families = self._families[table]
        texts = tuple(
            [family.render(key, each) for family, each in zip(families, samples, strict=True)]
        )
        if not any(texts):
            texts = ()
        known, place = self._objects.get(key, self._nothing), self._places[table]
        before = known[place]
        if not evictable:
            self._evictable[account].pop(slot, None)
        elif slot not in self._evictable[account]:
            self._evictable[account][slot] = None
            if before and self._dropped[account]:
                self._has_room.add(account)
        if texts == before:
            return True
        more = sum([text.count(b"\n") for text in texts]) - _count(before)
        if more > 0 and not self._fits(account, more, evictable=evictable, has_lines=bool(before)):
            self._drop(account, slot, _count(before) + more, evictable=evictable)
            if before:
                self._clear(account, key, place)
            return False
        if self._dropped[account].pop(slot, None) is not None:
            self._has_room.add(account)  # perhaps there is room for more
        self._objects[key] = (*known[:place], texts, *known[place + 1 :])
        self._changed(account, key, more)
        return True

    @property
    def _nothing(self) -> tuple[Lines, ...]:
        return ((),) * len(self._tables)

    def _clear(self, account: str, key: str, place: int) -> None:
        """Show nothing of an object in a table any more."""
        known = self._objects[key]
        self._objects[key] = (*known[:place], (), *known[place + 1 :])
        self._changed(account, key, -_count(known[place]))

    def _changed(self, account: str, key: str, more: int) -> None:
        if not any(self._objects[key]):
            del self._objects[key]
        self._series[account] += more
        if more < 0 and self._dropped[account]:
            self._has_room.add(account)
        self._bodies.clear()

    def _fits(self, account: str, more: int, *, evictable: bool, has_lines: bool) -> bool:
        """Whether so many more series are within the limit, after evicting what is evictable.

        `has_lines`: they are of an object that is shown. It may go a little past the limit: to
        leave it out for one new failure code would be worse.
        """
        limit = self._limits.get(account, math.inf)
        if has_lines:
            limit *= GROWTH
        while not evictable and self._series[account] + more > limit and self._evictable[account]:
            (table, identity), _ = self._evictable[account].popitem()
            key, place = identity_text(identity), self._places[table]
            shown = _count(self._objects.get(key, self._nothing)[place])
            if shown:
                self._drop(account, (table, identity), shown, evictable=True)
                self._clear(account, key, place)
        return self._series[account] + more <= limit

    def _drop(self, account: str, slot: Slot, count: int, *, evictable: bool) -> None:
        if slot in self._dropped[account]:
            self._dropped[account].pop(slot)
            self._dropped[account][slot] = evictable  # after others, which have their turn
            return
        if not self._dropped[account]:
            log.warning(
                "max_series is reached: what is new is left out", extra={"account": account}
            )
        self._dropped[account][slot] = evictable
        if self._on_drop is not None:
            self._on_drop(account, count)

    def waiting(self) -> list[Slot]:
        """Some of the objects that the limit left out, of accounts that have room again.

        What is evictable comes last.
        """
        accounts, self._has_room = self._has_room, set()
        return [
            slot
            for account in accounts
            for slot in sorted(self._dropped[account], key=self._dropped[account].__getitem__)[
                :WAITING_AT_ONCE
            ]
        ]

    def remove(self, table: str, identity: Identity) -> None:
        """Show nothing of `identity` in `table` any more."""
        account, slot = _account(identity), (table, identity)
        self._dropped[account].pop(slot, None)
        self._evictable[account].pop(slot, None)
        key, place = identity_text(identity), self._places[table]
        if self._objects.get(key, self._nothing)[place]:
            self._clear(account, key, place)

    def remove_account(self, account: str) -> None:
        """Show nothing of an account any more."""
        own = identity_text((("account", account),))

        def is_own(key: str) -> bool:
            return key == own or key.startswith(f"{own},")

        self._objects = {key: lines for key, lines in self._objects.items() if not is_own(key)}
        for by_account in (self._dropped, self._evictable, self._series):
            by_account.pop(account, None)
        self._bodies.clear()

    def lines(self, identity: Identity) -> bytes:
        """All sample lines of an identity, as they are served."""
        tables = self._objects.get(identity_text(identity), ())
        return b"".join([text for lines in tables for text in lines])

    def series(self, account: str) -> int:
        """How many samples an account has."""
        return self._series[account]

    def body(self, format_: Format) -> Body:
        """The whole state as it is now, without the end mark of OpenMetrics."""
        body = self._bodies.get(format_)
        if body is None:
            objects = list(self._objects.values())
            body = Body(self._headers[format_], objects, self._series.total())
            self._bodies[format_] = body
        return body


def _account(identity: Identity) -> str:
    return identity[0][1] if identity else ""


def _count(texts: Lines) -> int:
    """How many samples these lines are."""
    return sum([text.count(b"\n") for text in texts])
