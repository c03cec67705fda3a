"""The state as bytes: text format 0.0.4 and OpenMetrics 1.0, rendered once per change.

Each snapshot is rendered when it is put here; a scrape joins what lies ready. What a scrape of
unchanged state costs is a dictionary look-up.
"""

from __future__ import annotations

import logging
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

from exporter.metric import Identity, Table, render, render_group

log = logging.getLogger(__name__)


class Format(Enum):
    """The formats that are served, with their content types."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@dataclass(frozen=True)
class Body:
    """One exposition of the state. `series`: number of its samples."""

    plain: bytes
    series: int

    @cached_property
    def deflated(self) -> bytes:
        """`plain` as raw deflate blocks that end on a byte and do not end the stream.

        So a gzip body can go on behind them.
        """
        # Level 1: a fifth larger than level 9 and twenty times faster.
        deflate = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        return deflate.compress(self.plain) + deflate.flush(zlib.Z_FULL_FLUSH)

    @property
    def is_deflated(self) -> bool:
        """Whether the work for `deflated` and `crc` is done."""
        return "deflated" in vars(self) and "crc" in vars(self)

    def deflate(self) -> None:
        """Do the work for `deflated` and `crc` now; zlib lets other threads run meanwhile."""
        _ = self.deflated, self.crc

    @cached_property
    def crc(self) -> int:
        """CRC-32 of `plain`."""
        return zlib.crc32(self.plain)


class _Blocks:
    """The rendered snapshots of one table, by identity."""

    def __init__(self, table: Table[Any]) -> None:
        self.table = table
        self.texts: dict[Identity, tuple[bytes, ...]] = {}
        self._ordered: list[Identity] | None = None
        self._joined: tuple[bytes, ...] | None = None
        self._series = 0

    def put(self, identity: Identity, lines: tuple[str, ...]) -> bool:
        texts = tuple(text.encode() for text in lines)
        before = self.texts.get(identity)
        if texts == before:
            return False
        if before is None:
            self._ordered = None
        self.texts[identity] = texts
        self._joined = None
        return True

    def remove(self, identity: Identity) -> bool:
        if self.texts.pop(identity, None) is None:
            return False
        self._ordered = None
        self._joined = None
        return True

    def series(self, identity: Identity) -> int:
        """Number of the lines of one identity."""
        return sum(lines.count(b"\n") for lines in self.texts.get(identity, ()))

    def joined(self) -> tuple[tuple[bytes, ...], int]:
        """The lines of each family, in the order of the identities, and their number."""
        if self._joined is None:
            if self._ordered is None:
                self._ordered = sorted(self.texts)
            rows = [self.texts[identity] for identity in self._ordered]
            self._joined = tuple(map(b"".join, zip(*rows, strict=True))) if rows else ()
            self._series = sum(lines.count(b"\n") for lines in self._joined)
        return self._joined, self._series


class Exposition:
    """The rendered state. `generation` grows with each change of what is served."""

    def __init__(
        self,
        tables: Mapping[str, Table[Any]],
        *,
        limits: Mapping[str, int] | None = None,
        on_drop: Callable[[str, int], None] | None = None,
    ) -> None:
        self.generation = 0
        self.reconfigure(tables, limits=limits, on_drop=on_drop)

    def reconfigure(
        self,
        tables: Mapping[str, Table[Any]],
        *,
        limits: Mapping[str, int] | None = None,
        on_drop: Callable[[str, int], None] | None = None,
    ) -> None:
        """Begin anew, with nothing shown.

        `limits`: most series of each account; `on_drop(account, count)`: so many are not shown. A
        limit keeps out what is new; what is shown already goes on being shown.
        """
        self._blocks = {name: _Blocks(table) for name, table in tables.items()}
        self._limits = limits or {}
        self._on_drop = on_drop
        self._series: Counter[str] = Counter()
        self._dropped: set[tuple[str, Identity]] = set()
        self._bodies: dict[Format, tuple[int, Body]] = {}
        self.generation += 1

    def put(self, table: str, identity: Identity, snapshot: Any) -> None:
        """Replace what `table` shows for `identity`."""
        self._put(table, identity, render(self._blocks[table].table, identity, snapshot))

    def put_group(self, table: str, identity: Identity, snapshots: Iterable[Any]) -> None:
        """Replace what `table` shows for a group by its members' snapshots taken together."""
        self._put(table, identity, render_group(self._blocks[table].table, identity, snapshots))

    def _put(self, table: str, identity: Identity, lines: tuple[str, ...]) -> None:
        blocks, account = self._blocks[table], _account(identity)
        before = blocks.series(identity)
        more = sum(text.count("\n") for text in lines) - before
        limit = self._limits.get(account)
        if not before and limit is not None and self._series[account] + more > limit:
            self._drop(table, identity, account, more)
            return
        self._dropped.discard((table, identity))
        self._series[account] += more
        self.generation += blocks.put(identity, lines)

    def _drop(self, table: str, identity: Identity, account: str, count: int) -> None:
        if (table, identity) in self._dropped:
            return
        if not self._dropped:
            log.warning(
                "max_series is reached: what is new is left out", extra={"account": account}
            )
        self._dropped.add((table, identity))
        if self._on_drop is not None:
            self._on_drop(account, count)

    def remove(self, table: str, identity: Identity) -> None:
        """Show nothing of `identity` in `table` any more."""
        blocks = self._blocks[table]
        self._dropped.discard((table, identity))
        self._series[_account(identity)] -= blocks.series(identity)
        self.generation += blocks.remove(identity)

    def remove_account(self, account: str) -> None:
        """Show nothing of an account any more."""
        for name, blocks in self._blocks.items():
            for identity in [each for each in blocks.texts if _account(each) == account]:
                self.remove(name, identity)

    def body(self, format_: Format) -> Body:
        """The whole state, without the end mark of OpenMetrics."""
        generation, body = self._bodies.get(format_, (-1, None))
        if body is None or generation != self.generation:
            body = self._render(format_)
            self._bodies[format_] = (self.generation, body)
        return body

    def _render(self, format_: Format) -> Body:
        parts: list[bytes] = []
        series = 0
        for blocks in self._blocks.values():
            families, count = blocks.joined()
            series += count
            for metric, lines in zip(blocks.table.metrics, families, strict=False):
                if lines:
                    header = metric.header(openmetrics=format_ is Format.OPENMETRICS)
                    parts += (header.encode(), lines)
        return Body(b"".join(parts), series)


def _account(identity: Identity) -> str:
    return identity[0][1] if identity else ""


def gzip_parts(state: Body, rest: bytes) -> tuple[bytes, ...]:
    """`state.plain + rest` as one gzip stream, in parts; only `rest` is compressed now."""
    deflate = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    size = len(state.plain) + len(rest)
    return (
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff",  # RFC 1952: deflate, fastest, no name
        state.deflated,
        b"".join(
            (
                deflate.compress(rest),
                deflate.flush(),
                zlib.crc32(rest, state.crc).to_bytes(4, "little"),
                (size & 0xFFFFFFFF).to_bytes(4, "little"),
            )
        ),
    )
