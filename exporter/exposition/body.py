"""The state as bytes: text format 0.0.4 and OpenMetrics 1.0, rendered once per change.

Each snapshot is rendered when it is put here; a scrape gets what lies ready. What a scrape of
unchanged state costs is a dictionary look-up.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import cached_property
from typing import Any

from exporter.batch.compression import compressor, crc32
from exporter.exposition.blocks import Blocks, Piece, deflate
from exporter.exposition.metric import Identity, Table
from exporter.exposition.text import Renderer, Unwritten

log = logging.getLogger(__name__)


class Format(Enum):
    """The formats that are served, with their content types."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Body:
    """One exposition of the state, in pieces. `series`: number of its samples."""

    def __init__(self, pieces: tuple[Piece, ...], series: int) -> None:
        self.pieces = pieces
        self.series = series
        self.size = sum(len(piece.text) for piece in pieces)
        self._deflated: tuple[bytes, ...] = ()
        self._is_asked_again = False

    @property
    def parts(self) -> tuple[bytes, ...]:
        """The text in parts."""
        return tuple([piece.text for piece in self.pieces])

    @property
    def plain(self) -> bytes:
        """The whole text."""
        return b"".join(self.parts)

    @property
    def is_deflated(self) -> bool:
        """Whether the work for a gzip body is done."""
        return "crc" in vars(self)

    def deflate(self) -> None:
        """Do that work now; other threads run meanwhile."""
        if not self.is_deflated:
            deflate(self.pieces)
            self._deflated = tuple([piece.deflated or b"" for piece in self.pieces])
            _ = self.crc

    def deflated(self) -> tuple[bytes, ...]:
        """The text in parts of a gzip stream.

        From the second time on they are one: with as many parts as there are, to put them together
        takes longer than to send them, and until it changes it may be asked for often.
        """
        self.deflate()
        if self._is_asked_again:
            self._deflated = (b"".join(self._deflated),)
        self._is_asked_again = True
        return self._deflated

    @cached_property
    def crc(self) -> int:
        """CRC-32 of the whole text."""
        crc = 0
        for piece in self.pieces:
            crc = crc32(piece.text, crc)
        return crc


class _Shown:
    """What is shown of one table."""

    def __init__(self, table: Table[Any], kept: Callable[[Identity], Identity]) -> None:
        self.table = table
        self.renderer = Renderer(table)
        self.blocks = Blocks(len(table.metrics), kept)
        self._headers = {
            format_: [
                Piece(metric.header(openmetrics=format_ is Format.OPENMETRICS).encode())
                for metric in table.metrics
            ]
            for format_ in Format
        }

    def pieces(self, format_: Format) -> Iterable[Piece]:
        """Each family with a header before its lines; none of one that has no lines."""
        pieces = self.blocks.pieces()
        for header, lines in zip(self._headers[format_] if pieces else (), pieces, strict=True):
            if lines:
                yield header
                yield from lines


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
        self._shown: dict[str, _Shown] = {}
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
        for shown in self._shown.values():
            shown.blocks.clear()
        self._shown = {name: _Shown(table, self._kept) for name, table in tables.items()}
        self._limits = limits or {}
        self._on_drop = on_drop
        self._series: Counter[str] = Counter()
        self._dropped: set[tuple[str, Identity]] = set()
        self._bodies: dict[Format, tuple[int, Body]] = {}
        self.generation += 1

    def put(self, table: str, identity: Identity, snapshot: Any) -> None:
        """Replace what `table` shows for `identity`."""
        self._put(table, identity, self._shown[table].renderer.lines(identity, snapshot))

    def put_group(self, table: str, identity: Identity, snapshots: Iterable[Any]) -> None:
        """Replace what `table` shows for a group by its members' snapshots taken together."""
        self._put(table, identity, self._shown[table].renderer.group_lines(identity, snapshots))

    def _put(self, table: str, identity: Identity, lines: Unwritten) -> None:
        series = lines.pattern.series
        if not series:
            self.remove(table, identity)
            return
        blocks = self._shown[table].blocks
        if self._limits and identity not in blocks:
            account = _account(identity)
            limit = self._limits.get(account)
            if limit is not None and self._series[account] + series > limit:
                self._drop(table, identity, account, series)
                return
            self._dropped.discard((table, identity))
        changed, more = blocks.put(identity, lines)
        if more:
            self._series[_account(identity)] += more
        self.generation += changed

    def _kept(self, identity: Identity) -> Identity:
        """The object that other tables keep of it: of a job there are several."""
        of_tables = (shown.blocks.kept(identity) for shown in self._shown.values())
        return next((kept for kept in of_tables if kept is not None), identity)

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
        blocks = self._shown[table].blocks
        self._dropped.discard((table, identity))
        if identity in blocks:
            self._series[_account(identity)] -= blocks.remove(identity)
            self.generation += 1

    def remove_account(self, account: str) -> None:
        """Show nothing of an account any more."""
        for name, shown in self._shown.items():
            for identity in [each for each in shown.blocks if _account(each) == account]:
                self.remove(name, identity)

    def lines(self, identity: Identity) -> bytes:
        """All sample lines of an identity, as they are served."""
        return b"".join(b"".join(shown.blocks.lines(identity)) for shown in self._shown.values())

    def series(self, account: str) -> int:
        """How many samples an account has."""
        return self._series[account]

    def body(self, format_: Format) -> Body:
        """The whole state, without the end mark of OpenMetrics."""
        generation, body = self._bodies.get(format_, (-1, None))
        if body is None or generation != self.generation:
            pieces = (piece for shown in self._shown.values() for piece in shown.pieces(format_))
            body = Body(tuple(pieces), self._series.total())
            self._bodies[format_] = (self.generation, body)
        return body


def _account(identity: Identity) -> str:
    return identity[0][1] if identity else ""


def gzip_parts(state: Body, rest: bytes) -> tuple[bytes, ...]:
    """The text of `state` and then `rest` as one gzip stream, in parts.

    Of the state only what is new is compressed now.
    """
    stream = compressor()
    size = state.size + len(rest)
    return (
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff",  # RFC 1952: deflate, fastest, no name
        *state.deflated(),
        stream.compress(rest),
        stream.flush(),
        crc32(rest, state.crc).to_bytes(4, "little"),
        (size & 0xFFFFFFFF).to_bytes(4, "little"),
    )
