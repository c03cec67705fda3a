"""The kept lines of a table against a dictionary of them, through any changes."""

from __future__ import annotations

import gc
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.exposition import blocks
from exporter.exposition.blocks import NEIGHBOURS, Blocks, Piece
from exporter.exposition.metric import Identity, Metric, Samples, Table
from exporter.exposition.text import Renderer, Unwritten

FAMILIES = 3

Change = tuple[int, list[int] | None]
"""Whose lines, and how many of each family; None: it goes. 99: look at all."""

LOOK = (99, None)


def identity(number: int) -> Identity:
    return (("account", "a"), ("job_id", f"job-{number:02}"))


def row(family: int) -> Metric[list[int]]:
    def samples(sizes: list[int]) -> Samples:
        size = sizes[family]
        return tuple((str(n),) for n in range(size)), [size] * size

    return Metric(f"f{family}", "gauge", "H", "S", ("n",), samples)


TABLE = Table(("account", "job_id"), tuple(map(row, range(FAMILIES))))
RENDERER = Renderer(TABLE)


def unwritten(number: int, sizes: list[int]) -> Unwritten:
    return RENDERER.lines(identity(number), sizes)


def lines(number: int, sizes: list[int]) -> list[bytes]:
    labels = ",".join(f'{name}="{value}"' for name, value in identity(number))
    return [
        "".join(f'f{family}{{{labels},n="{n}"}} {size}\n' for n in range(size)).encode()
        for family, size in enumerate(sizes)
    ]


SIZES = st.lists(st.integers(0, 3), min_size=FAMILIES, max_size=FAMILIES)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 20), SIZES),
        st.tuples(st.integers(0, 20), st.none()),
        st.just(LOOK),
    ),
    max_size=60,
)


@given(CHANGES)
def test_what_is_kept_is_what_was_put(changes: list[Change]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "NEIGHBOURS", 3)  # so that few are many
        kept, expected = Blocks(FAMILIES), dict[Identity, list[bytes]]()
        before: list[list[Piece]] = []
        for number, sizes in [*changes, LOOK]:
            who = identity(number)
            if (number, sizes) == LOOK:
                texts = [b"".join(piece.text for piece in pieces) for pieces in kept.pieces()]
                assert texts == (
                    [b"".join(expected[each][f] for each in sorted(expected)) for f in range(3)]
                    if expected
                    else []
                )
                before = kept.pieces()
            elif sizes is None:
                gone = expected.pop(who, [])
                assert kept.remove(who) == sum(text.count(b"\n") for text in gone)
                assert who not in kept
            else:
                old, new = expected.get(who), lines(number, sizes)
                more = sum(sizes) - sum(text.count(b"\n") for text in old or [])
                assert kept.put(who, unwritten(number, sizes)) == (new != old, more)
                expected[who] = new
            assert set(kept) == set(expected)
            assert all(kept.lines(each) == of_each for each, of_each in expected.items())
        again = chain.from_iterable(kept.pieces())
        assert all(a is b for a, b in zip(chain.from_iterable(before), again, strict=True))


def test_of_neighbours_only_the_families_that_change_become_other_pieces() -> None:
    kept = Blocks(FAMILIES)
    for number in range(10):
        kept.put(identity(number), unwritten(number, [1, 2, 3]))
    first = [piece for (piece,) in kept.pieces()]
    kept.put(identity(4), unwritten(4, [1, 3, 3]))
    second = [piece for (piece,) in kept.pieces()]
    assert [a is b for a, b in zip(first, second, strict=True)] == [True, False, True]


def test_what_is_cleared_goes_without_the_garbage_collector() -> None:
    def living() -> int:
        return sum(type(each).__module__ == blocks.__name__ for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = living()
        kept = Blocks(FAMILIES)
        for number in range(3 * NEIGHBOURS):
            kept.put(identity(number), unwritten(number, [1, 2, 3]))
        assert living() > before + 3
        kept.clear()
        assert kept.pieces() == [] == list(kept)
        assert living() == before + 1
    finally:
        gc.enable()
