"""Decompresses gzip bodies, with ISA-L where it is installed: it takes half as long as zlib."""

from __future__ import annotations

from types import ModuleType

_zlib: ModuleType
try:
    from isal import isal_zlib as _zlib
except ImportError:  # it is not built for every processor
    import zlib as _zlib

MAX_MEMBERS = 100
"""Members of one gzip body. One is usual; after each, the rest of the body is copied."""


class NotGzip(OSError):
    """A body is not gzip, or ends too early."""

    def __init__(self, why: object) -> None:
        super().__init__(f"the answer is no gzip: {why}")


class TooLong(ValueError):
    """A body is longer than allowed."""

    def __init__(self, most: int) -> None:
        super().__init__(f"the answer is longer than {most} bytes")


def gunzip(body: bytes | bytearray, most: int) -> bytes:
    """The text of a gzip body, of one or several members. NotGzip, TooLong above `most` bytes."""
    texts: list[bytes] = []
    left = most
    while body:
        if len(texts) == MAX_MEMBERS:
            raise NotGzip(f"it has more than {MAX_MEMBERS} members")
        member = _zlib.decompressobj(wbits=_zlib.MAX_WBITS | 16)
        try:
            text = member.decompress(body, left + 1)
        except _zlib.error as error:
            raise NotGzip(error) from error
        left -= len(text)
        if left < 0:
            raise TooLong(most)
        if not member.eof:
            raise NotGzip("it ends too early")
        texts.append(text)
        body = member.unused_data
    return b"".join(texts)
