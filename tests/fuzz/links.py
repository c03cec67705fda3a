"""Next links: signed whatever they are, and followed to the account's own origin only."""

from __future__ import annotations

from exporter.batch.auth import string_to_sign
from exporter.batch.client import _origin
from exporter.batch.session import request_target

ENDPOINT = "http://acc.westeurope.batch.azure.com"


def target(data: bytes) -> None:
    """What is sent is one request, to the endpoint's host, for the path that was signed."""
    text = data.decode("utf-8", "replace")
    for link in (text, ENDPOINT + text):
        try:
            signed = string_to_sign("acc", link, text)
        except ValueError:
            assert _origin(link) != _origin(ENDPOINT)
        else:
            assert signed.startswith("GET\n")
        try:
            sent = request_target(ENDPOINT, link)
        except ValueError:
            continue
        path = link.partition("://")[2].partition("#")[0].partition("/")[2]
        assert sent.raw_authority == "acc.westeurope.batch.azure.com"
        # No query is sent for a question mark without one: the signature has none either.
        assert sent.raw_path_qs.removesuffix("?") == f"/{path}".removesuffix("?")
        assert sent.raw_path_qs.isascii() and sent.raw_path_qs.isprintable()
