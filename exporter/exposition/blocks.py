"""The rendered lines of one table, family by family, in the order of their identities.

Most of them stay as they are from one scrape to the next. So neighbours are kept joined, in pieces
of some kilobytes that are served and compressed as they are; a change takes one piece apart, and
the next scrape joins it again. Each line is kept once.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from operator import attrgetter

import msgspec

from exporter.batch.compression import Z_FULL_FLUSH, compressor
from exporter.exposition.metric import Identity
from exporter.exposition.text import Unwritten, write

NEIGHBOURS = 64
"""Identities whose lines are kept joined, at most: a change joins and compresses so many anew."""


class Piece:
    """Some text of a body, and what it is as a part of a gzip stream once somebody asked."""

    __slots__ = ("deflated", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.deflated: bytes | None = None


def deflate(pieces: Iterable[Piece]) -> None:
    """Compress those that are not yet.

    Each becomes blocks that refer to nothing before them, end on a byte and do not end the stream.
    """
    stream = compressor()
    for piece in pieces:
        if piece.deflated is None:
            piece.deflated = stream.compress(piece.text) + stream.flush(Z_FULL_FLUSH)


class _Lines(msgspec.Struct, gc=False, eq=False):
    """The lines of one identity, and where they are.

    `new`: they, where they have changed since its neighbours' were joined. `series`: their number.
    `digest`: of what they are. `index`: which of the joined ones they were.
    """

    identity: Identity
    new: Unwritten | None
    series: int
    digest: int
    neighbours: _Neighbours
    index: int = 0

    def by_family(self) -> list[bytes]:
        """They, one text a family."""
        return self.neighbours.cut(self.index) if self.new is None else write([self.new])


class _Neighbours:
    """Identities that follow each other, and their lines: joined by family, but of those that have
    changed since.

    `changed`: how many have, or are new here; or whether one is gone.
    """

    __slots__ = ("_pieces", "_sizes", "changed", "members")

    def __init__(
        self, members: list[_Lines], pieces: Iterable[Piece], sizes: Iterable[array[int]]
    ) -> None:
        self.members = members
        self.changed = 0
        self._pieces = list(pieces)
        self._sizes = list(sizes)
        for each in members:
            each.neighbours = self

    @classmethod
    def none(cls, families: int) -> _Neighbours:
        """Nobody yet."""
        return cls([], [_NOTHING] * families, [_NO_SIZES] * families)

    def cut(self, index: int) -> list[bytes]:
        """Some of the joined lines, by family."""
        pairs = zip(self._pieces, self._sizes, strict=True)
        begins = ((piece.text, sum(sizes[:index]), sizes[index]) for piece, sizes in pairs)
        return [text[begin : begin + size] for text, begin, size in begins]

    def joined(self) -> list[Piece]:
        """The lines of all, one piece a family: the one that was, where nothing has changed."""
        if self.changed:
            runs, families = _runs(self.members), len(self._pieces)
            new = [each.new for each in self.members if each.new is not None]
            written = write(new) if new else []
            for family in range(families):
                self._join(family, runs, written[family::families])
            for index, each in enumerate(self.members):
                each.new, each.index = None, index
            self.changed = 0
        return self._pieces

    def _join(self, family: int, runs: list[_Run], new: list[bytes]) -> None:
        """Join the lines of a family: runs of what was joined already, and of what is new."""
        known, known_sizes = self._pieces[family].text, self._sizes[family].tolist()
        ends = [0, *accumulate(known_sizes)]
        parts: list[bytes] = []
        sizes: list[int] = []
        for is_new, start, stop in runs:
            if is_new:
                lines = new[start:stop]
                parts += lines
                sizes += map(len, lines)
            else:
                parts.append(known[ends[start] : ends[stop]])
                sizes += known_sizes[start:stop]
        text = b"".join(parts)
        if text != known:
            self._pieces[family] = Piece(text)
        if sizes != known_sizes:
            self._sizes[family] = array("I", sizes)

    def insert(self, index: int, lines: _Lines) -> None:
        """Take in an identity."""
        self.members.insert(index, lines)
        self.changed += 1

    def remove(self, lines: _Lines) -> None:
        """Forget an identity."""
        del self.members[bisect_left(self.members, lines.identity, key=_identity)]
        self.changed += 1

    def split(self) -> _Neighbours:
        """Give away the second half."""
        half = len(self.members) // 2
        other = _Neighbours(self.members[half:], self._pieces, self._sizes)
        del self.members[half:]
        self.changed = other.changed = 1
        return other


_NOTHING = Piece(b"")
_NO_SIZES = array("I")

_Run = tuple[bool, int, int]
"""Whether lines are new, the first of them, and the one behind the last."""


def _runs(members: Iterable[_Lines]) -> list[_Run]:
    """Where the lines of each of these are: of those that are new, or of the joined ones."""
    runs: list[_Run] = []
    is_new, start, stop, new = True, 0, 0, 0
    for each in members:
        known = each.new is None
        at = each.index if known else new
        new += not known
        if is_new == known or at != stop:
            runs.append((is_new, start, stop))
            is_new, start = not known, at
        stop = at + 1
    return [*runs, (is_new, start, stop)]


class Blocks:
    """The lines of all identities of a table.

    `families`: how many rows it has. `kept`: gives of an identity the object that is kept.
    """

    def __init__(
        self, families: int, kept: Callable[[Identity], Identity] = lambda identity: identity
    ) -> None:
        self._families = families
        self._kept = kept
        self._all: list[_Neighbours] = []
        self._of: dict[Identity, _Lines] = {}

    def __iter__(self) -> Iterator[Identity]:
        """The identities, in no order."""
        return iter(self._of)

    def __contains__(self, identity: Identity) -> bool:
        return identity in self._of

    def kept(self, identity: Identity) -> Identity | None:
        """The object that is kept of an identity; None where it is not here."""
        lines = self._of.get(identity)
        return None if lines is None else lines.identity

    def lines(self, identity: Identity) -> list[bytes]:
        """An identity's lines, by family; none where it is not here."""
        lines = self._of.get(identity)
        return [] if lines is None else lines.by_family()

    def put(self, identity: Identity, new: Unwritten) -> tuple[bool, int]:
        """Replace an identity's lines.

        Gives whether anything is new, and by how many lines they are more.
        """
        lines, series = self._of.get(identity), new.pattern.series
        if lines is None:
            self._insert(identity, new)
            return True, series
        digest = new.digest
        if digest == lines.digest:
            return False, 0
        more, place = series - lines.series, lines.neighbours
        place.changed += lines.new is None
        lines.new, lines.series, lines.digest = new, series, digest
        if place.changed >= len(place.members):
            place.joined()  # all are new: to wait for the scrape would only make that longer
        return True, more

    def _insert(self, identity: Identity, new: Unwritten) -> None:
        identity = self._kept(identity)
        if not self._all:
            self._all.append(_Neighbours.none(self._families))
        number = max(0, bisect_right(self._all, identity, key=_first) - 1)
        place = self._all[number]
        lines = _Lines(identity, new, new.pattern.series, new.digest, place)
        self._of[identity] = lines
        place.insert(bisect_left(place.members, identity, key=_identity), lines)
        if len(place.members) > NEIGHBOURS:
            self._all.insert(number + 1, place.split())
            for half in self._all[number : number + 2]:
                half.joined()  # else what both were cut from would be there, too

    def remove(self, identity: Identity) -> int:
        """Forget an identity; gives the number of its lines, 0 where it is not here."""
        lines = self._of.pop(identity, None)
        if lines is None:
            return 0
        place = lines.neighbours
        place.remove(lines)
        if not place.members:
            self._all.remove(place)
        return lines.series

    def clear(self) -> None:
        """Forget all; else neighbours and their members would keep each other."""
        for place in self._all:
            place.members.clear()
        self._all.clear()
        self._of.clear()

    def pieces(self) -> list[list[Piece]]:
        """All lines of each family, in the order of the identities; nothing of no identities."""
        families = zip(*[place.joined() for place in self._all], strict=True)
        return [[piece for piece in pieces if piece.text] for pieces in families]


_identity = attrgetter("identity")


def _first(place: _Neighbours) -> Identity:
    return place.members[0].identity if place.members else ()
