"""gzip bodies are decompressed the same by ISA-L and, where that is not to be had, by zlib."""

from __future__ import annotations

import gzip
import importlib.util
import sys
import zlib
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.batch import gunzip


def without_isal() -> ModuleType:
    """The module as it is on a machine for which ISA-L was not built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "isal", None)
        spec = importlib.util.spec_from_file_location("gunzip_without_isal", gunzip.__file__)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


WAYS = pytest.mark.parametrize("way", [gunzip, without_isal()], ids=["with ISA-L", "without it"])
TEXTS = st.lists(
    st.binary() | st.builds(lambda text, n: text * n, st.binary(), st.integers(0, 99)),
    max_size=gunzip.MAX_MEMBERS,
)


def test_both_ways_are_tried() -> None:
    isal = pytest.importorskip("isal.isal_zlib", reason="ISA-L is not built for this processor")
    assert gunzip._zlib is isal
    assert without_isal()._zlib is zlib


@WAYS
@given(texts=TEXTS)
def test_members_are_inflated_one_after_the_other(way: ModuleType, texts: list[bytes]) -> None:
    body = b"".join(gzip.compress(text, 1) for text in texts)
    whole = b"".join(texts)
    assert way.gunzip(body, len(whole)) == whole
    if whole:
        with pytest.raises(ValueError, match="is longer than"):
            way.gunzip(body, len(whole) - 1)


@WAYS
def test_of_members_there_may_be_so_many(way: ModuleType) -> None:
    member = gzip.compress(b"x")
    assert way.gunzip(member * way.MAX_MEMBERS, 1000) == b"x" * way.MAX_MEMBERS
    with pytest.raises(OSError, match="more than 100 members"):
        way.gunzip(member * (way.MAX_MEMBERS + 1), 1000)


@WAYS
@pytest.mark.parametrize("cut", [1, 5, 9, 11, 20, -9, -8, -1])
def test_what_ends_too_early_is_no_gzip(way: ModuleType, cut: int) -> None:
    with pytest.raises(OSError, match="is no gzip"):
        way.gunzip(gzip.compress(bytes(range(256)))[:cut], 1000)


@WAYS
@pytest.mark.parametrize("at", [0, 1, 2, 15, -5, -1])
def test_what_is_damaged_is_no_gzip(way: ModuleType, at: int) -> None:
    body = bytearray(gzip.compress(bytes(range(256)) * 9))
    body[at] ^= 0xFF
    with pytest.raises((OSError, ValueError)):
        way.gunzip(bytes(body), 100_000)
