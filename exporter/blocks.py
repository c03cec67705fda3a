"""The rendered lines of one table, family by family, in the order of their identities.

Most of them stay as they are from one scrape to the next. So neighbours are kept joined, in pieces
of some kilobytes that are served and compressed as they are; a change takes one piece apart, and
the next scrape joins it again. Each line is kept once.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from operator import attrgetter
from struct import Struct, pack

import msgspec

from exporter.compression import Z_FULL_FLUSH, compressor
from exporter.metric import Identity

NEIGHBOURS = 64
"""Identities whose lines are kept joined, at most: a change joins and compresses so many anew."""

BETWEEN = b"\xff"
"""Stands between the lines of one family and those of the next. UTF-8 does not have it."""

_BEHIND = (BETWEEN, b"")


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

    `series`: their number. `new`: they, where they have changed since its neighbours' were joined.
    """

    identity: Identity
    new: bytes | None
    series: int
    neighbours: _Neighbours
    index: int = 0

    def by_family(self) -> list[bytes]:
        """They, one text a family."""
        return self.neighbours.cut(self.index) if self.new is None else self.new.split(BETWEEN)


class _Neighbours:
    """Identities that follow each other, and their lines: joined by family, but of those that have
    changed since.
    """

    __slots__ = ("_ends", "_pieces", "changed", "members")

    def __init__(self, families: int, members: list[_Lines]) -> None:
        self.members = members
        self.changed = True
        self._pieces = [_NOTHING] * families
        self._ends = [_NO_ENDS] * families
        self._number()

    def _number(self) -> None:
        for index, each in enumerate(self.members):
            each.neighbours, each.index = self, index

    def cut(self, index: int) -> list[bytes]:
        """The joined lines of one of them, by family."""
        at, pairs = index * _SIZE, zip(self._pieces, self._ends, strict=True)
        return [piece.text[slice(*_ends(ends, at))] for piece, ends in pairs]

    def has(self, index: int, lines: bytes) -> bool:
        """Whether these are the joined lines of one of them."""
        # Family by family: where one differs, as it mostly does, the others need not be cut out.
        at, begin = index * _SIZE, 0
        for piece, ends in zip(self._pieces, self._ends, strict=True):
            known = piece.text[slice(*_ends(ends, at))]
            end = begin + len(known)
            if lines[begin:end] != known or lines[end : end + 1] not in _BEHIND:
                return False
            begin = end + 1
        return True

    def joined(self) -> list[Piece]:
        """The lines of all, one piece a family: the one that was, where nothing has changed."""
        if self.changed:
            ends = f"{len(self.members) + 1}I"
            all_lines = zip(*[each.by_family() for each in self.members], strict=True)
            for family, lines in enumerate(all_lines):
                text = b"".join(lines)
                if text != self._pieces[family].text:
                    self._pieces[family] = Piece(text)
                elif self._ends[family]:
                    continue  # nothing has changed here, nor has who is here
                self._ends[family] = pack(ends, 0, *accumulate(map(len, lines)))
            for each in self.members:
                each.new = None
            self.changed = False
        return self._pieces

    def insert(self, index: int, lines: _Lines) -> None:
        """Take in an identity."""
        self._take_apart()
        self.members.insert(index, lines)
        self._number()

    def remove(self, index: int) -> None:
        """Forget an identity."""
        self._take_apart()
        del self.members[index]
        self._number()

    def split(self) -> _Neighbours:
        """Give away the second half."""
        self._take_apart()
        half = len(self.members) // 2
        other = _Neighbours(len(self._pieces), self.members[half:])
        del self.members[half:]
        return other

    def _take_apart(self) -> None:
        for index, each in enumerate(self.members):
            if each.new is None:
                each.new = BETWEEN.join(self.cut(index))
        self._ends = [_NO_ENDS] * len(self._pieces)
        self.changed = True


_NOTHING = Piece(b"")
_NO_ENDS = b""
_SIZE, _ends = 4, Struct("2I").unpack_from
"""Where the lines of one end in a joined text, and those of the next, from what `pack` made."""


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

    def put(self, identity: Identity, lines: bytes, series: int) -> tuple[bool, int]:
        """Replace an identity's lines, with BETWEEN between those of one family and the next.

        Gives whether anything is new, and by how many lines they are more.
        """
        known = self._of.get(identity)
        if known is None:
            self._insert(identity, lines, series)
            return True, series
        place = known.neighbours
        if lines == known.new or (known.new is None and place.has(known.index, lines)):
            return False, 0
        more = series - known.series
        known.new, known.series, place.changed = lines, series, True
        return True, more

    def _insert(self, identity: Identity, lines: bytes, series: int) -> None:
        identity = self._kept(identity)
        if not self._all:
            self._all.append(_Neighbours(self._families, []))
        number = bisect_right(self._all, identity, key=_first) - 1
        place = self._all[max(0, number)]
        of_it = self._of[identity] = _Lines(identity, lines, series, place)
        place.insert(bisect_left(place.members, identity, key=_identity), of_it)
        if len(place.members) > NEIGHBOURS:
            self._all.insert(max(0, number) + 1, place.split())
            place.joined()  # else all lines would be there apart while jobs are added

    def remove(self, identity: Identity) -> int:
        """Forget an identity; gives the number of its lines, 0 where it is not here."""
        lines = self._of.pop(identity, None)
        if lines is None:
            return 0
        place = lines.neighbours
        place.remove(lines.index)
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
