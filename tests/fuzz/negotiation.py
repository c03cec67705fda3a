"""Accept and Accept-Encoding of a scrape: whatever they say, there is an answer."""

from __future__ import annotations

from exporter.exposition.body import Format
from exporter.web.server.negotiation import accepts_gzip, choose_format


def target(data: bytes) -> None:
    """Any header gives a format, and a content type that may stand in a header."""
    text = data.decode("utf-8", "replace")
    format_, content_type = choose_format(text)
    assert format_ in Format
    assert content_type.startswith(format_.value)
    assert content_type.isascii()
    assert content_type.isprintable()
    assert isinstance(accepts_gzip(text), bool)
