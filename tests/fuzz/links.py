"""Next links: signed whatever they are, and followed to the account's own origin only."""

from __future__ import annotations

from yarl import URL

from exporter.batch.auth import string_to_sign
from exporter.batch.client import _origin

ENDPOINT = "https://acc.westeurope.batch.azure.com"


def target(data: bytes) -> None:
    """What we take for the endpoint's origin is where aiohttp would send the credentials."""
    text = data.decode("utf-8", "replace")
    for link in (text, ENDPOINT + text):
        try:
            signed = string_to_sign("acc", "GET", link, {"ocp-date": text})
        except ValueError:
            assert _origin(link) != _origin(ENDPOINT)
        else:
            assert signed.startswith("GET\n")
        if _origin(link) == _origin(ENDPOINT):
            try:
                url = URL(link, encoded=True)
                sent_to = (url.scheme, url.host, url.port)
            except ValueError:
                continue
            assert sent_to == _origin(ENDPOINT)
