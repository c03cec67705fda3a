"""The rendered lines of one table, family by family, in the order of their identities.

Most of them stay as they are from one scrape to the next. So neighbours are kept joined, in pieces
of some kilobytes that are served and compressed as they are; a change takes one piece apart, and
the next scrape joins it again. Each line is kept once.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise

from exporter.compression import Z_FULL_FLUSH, compressor
from exporter.metric import Identity

NEIGHBOURS = 32
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


class _Family:
    """The lines that neighbours have in one family: joined, or apart where one has changed."""

    __slots__ = ("_apart", "_ends", "_piece")

    def __init__(self, lines: list[bytes]) -> None:
        self._apart: list[bytes] | None = lines
        self._ends = _NO_ENDS
        self._piece = _NOTHING

    def apart(self) -> list[bytes]:
        """The lines of each; whoever changes one calls this each time."""
        if self._apart is None:
            text = self._piece.text
            self._apart = [text[start:end] for start, end in pairwise(self._ends)]
        return self._apart

    def of(self, index: int) -> bytes:
        """The lines of one."""
        if self._apart is not None:
            return self._apart[index]
        return self._piece.text[self._ends[index] : self._ends[index + 1]]

    def replace(self, index: int, text: bytes) -> bool:
        """Give one its lines; whether they are others than it had."""
        apart = self._apart
        if apart is None:
            if text == self.of(index):
                return False
            apart = self.apart()
        elif apart[index] == text:
            return False
        apart[index] = text
        return True

    def joined(self) -> Piece:
        """The lines of all."""
        if self._apart is not None:
            self._piece = Piece(b"".join(self._apart))
            self._ends = array("I", (0, *accumulate(map(len, self._apart))))
            self._apart = None
        return self._piece


_NOTHING = Piece(b"")
_NO_ENDS = array("I")


class _Neighbours:
    """Identities that follow each other, and their lines by family.

    `series`: number of lines of each.
    """

    __slots__ = ("families", "identities", "series")

    def __init__(
        self, identities: list[Identity], series: list[int], families: tuple[_Family, ...]
    ) -> None:
        self.identities = identities
        self.series = series
        self.families = families

    def split(self) -> _Neighbours:
        """Give away the second half."""
        half = len(self.identities) // 2
        other = _Neighbours(
            self.identities[half:],
            self.series[half:],
            tuple(_Family(family.apart()[half:]) for family in self.families),
        )
        del self.identities[half:], self.series[half:]
        for family in self.families:
            del family.apart()[half:]
        return other


class Blocks:
    """The lines of all identities of a table. `families`: how many rows it has."""

    def __init__(self, families: int) -> None:
        self._families = families
        self._all: list[_Neighbours] = []
        self._where: dict[Identity, _Neighbours] = {}

    def __iter__(self) -> Iterator[Identity]:
        """The identities, in no order."""
        return iter(self._where)

    def __contains__(self, identity: Identity) -> bool:
        return identity in self._where

    def lines(self, identity: Identity) -> list[bytes]:
        """An identity's lines, one text a family; none where it is not here."""
        place = self._where.get(identity)
        if place is None:
            return []
        index = bisect_left(place.identities, identity)
        return [family.of(index) for family in place.families]

    def put(self, identity: Identity, lines: Sequence[bytes], series: int) -> tuple[bool, int]:
        """Replace an identity's lines, one text a family.

        Gives whether anything is new, and by how many lines they are more.
        """
        place = self._where.get(identity)
        if place is None:
            self._insert(identity, lines, series)
            return True, series
        index = bisect_left(place.identities, identity)
        more = series - place.series[index]
        place.series[index] = series
        changed = False
        for family, text in zip(place.families, lines, strict=True):
            if family.replace(index, text):
                changed = True
        return changed, more

    def _insert(self, identity: Identity, lines: Sequence[bytes], series: int) -> None:
        number = bisect_right(self._all, identity, key=lambda each: each.identities[0]) - 1
        if number < 0:
            if not self._all:
                families = tuple(_Family([]) for _ in range(self._families))
                self._all.append(_Neighbours([], [], families))
            number = 0
        place = self._all[number]
        index = bisect_left(place.identities, identity)
        place.identities.insert(index, identity)
        place.series.insert(index, series)
        for family, text in zip(place.families, lines, strict=True):
            family.apart().insert(index, text)
        self._where[identity] = place
        if len(place.identities) > NEIGHBOURS:
            other = place.split()
            for family in place.families:
                family.joined()  # else all lines would be there apart while jobs are added
            self._all.insert(number + 1, other)
            self._where.update(dict.fromkeys(other.identities, other))

    def remove(self, identity: Identity) -> int:
        """Forget an identity; gives the number of its lines, 0 where it is not here."""
        place = self._where.pop(identity, None)
        if place is None:
            return 0
        index = bisect_left(place.identities, identity)
        series = place.series[index]
        del place.identities[index], place.series[index]
        for family in place.families:
            del family.apart()[index]
        if not place.identities:
            self._all.remove(place)
        return series

    def pieces(self, family: int) -> list[Piece]:
        """All lines of one family, in the order of the identities."""
        found = [place.families[family].joined() for place in self._all]
        return [piece for piece in found if piece.text]
