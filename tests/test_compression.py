"""gzip by ISA-L, and by zlib where that is not to be had: the same of both."""

from __future__ import annotations

import importlib.util
import sys
import zlib
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.batch import compression


def without_isal() -> ModuleType:
    """The module as it is on a machine for which ISA-L was not built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "isal", None)
        spec = importlib.util.spec_from_file_location("without_isal", compression.__file__)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


WAYS = pytest.mark.parametrize(
    "way", [compression, without_isal()], ids=["with ISA-L", "without it"]
)
TEXTS = st.lists(
    st.binary() | st.builds(lambda text, n: text * n, st.binary(), st.integers(0, 99)),
    max_size=100,
)


def test_both_ways_are_tried() -> None:
    isal = pytest.importorskip("isal.isal_zlib", reason="ISA-L is not built for this processor")
    assert compression._zlib is isal
    assert without_isal()._zlib is zlib


@WAYS
@given(texts=TEXTS)
def test_pieces_that_are_flushed_are_one_stream_in_any_order(
    way: ModuleType, texts: list[bytes]
) -> None:
    stream = way.compressor()
    pieces = [stream.compress(text) + stream.flush(way.Z_FULL_FLUSH) for text in texts]
    end = stream.flush()
    for order in (1, -1):
        body = b"".join(pieces[::order]) + end
        inflating = zlib.decompressobj(-zlib.MAX_WBITS)
        assert inflating.decompress(body) == b"".join(texts[::order])
        assert inflating.eof


@WAYS
@given(texts=TEXTS)
def test_the_sum_of_parts_is_that_of_the_whole(way: ModuleType, texts: list[bytes]) -> None:
    crc = 0
    for text in texts:
        crc = way.crc32(text, crc)
    assert crc == zlib.crc32(b"".join(texts))
