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


def gunzip(body: bytes | bytearray, most: int) -> bytes:
    """The text of a gzip body, of one or several members.

    OSError where the body is not gzip. ValueError where the text is longer than `most` bytes.
    """
    texts: list[bytes] = []
    left = most
    while body:
        if len(texts) == MAX_MEMBERS:
            raise OSError(f"the answer is no gzip: it has more than {MAX_MEMBERS} members")
        member = _zlib.decompressobj(wbits=_zlib.MAX_WBITS | 16)
        try:
            text = member.decompress(body, left + 1)
        except _zlib.error as error:
            raise OSError(f"the answer is no gzip: {error}") from error
        left -= len(text)
        if left < 0:
            raise ValueError(f"the answer is longer than {most} bytes")
        if not member.eof:
            raise OSError("the answer is no gzip: it ends too early")
        texts.append(text)
        body = member.unused_data
    return b"".join(texts)
