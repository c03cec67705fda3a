"""Next links: signed whatever they are, and followed to the account's own origin only."""

from __future__ import annotations

from exporter.batch.auth import string_to_sign
from exporter.batch.client import _origin
from exporter.batch.http import Client

ENDPOINT = "http://acc.westeurope.batch.azure.com"
CLIENT = Client(ENDPOINT)


def target(data: bytes) -> None:
    """What is sent is one request, to the endpoint's host, for the path that was signed."""
    text = data.decode("utf-8", "replace")
    for link in (text, ENDPOINT + text):
        try:
            signed = string_to_sign("acc", "GET", link, {"ocp-date": text})
        except ValueError:
            assert _origin(link) != _origin(ENDPOINT)
        else:
            assert signed.startswith("GET\n")
        try:
            request = CLIENT._request(link, {"If-None-Match": text})
        except ValueError:
            continue
        lines = request.decode("ascii").split("\r\n")
        path = link.partition("://")[2].partition("#")[0].partition("/")[2]
        assert lines == [
            f"GET /{path} HTTP/1.1",
            "Host: acc.westeurope.batch.azure.com",
            "Accept-Encoding: gzip",
            f"If-None-Match: {text}",
            *("", ""),
        ]
        assert "\n" not in "".join(lines)
