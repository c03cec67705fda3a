"""Refuses what a hostile website lets a browser send: it reaches servers that the site cannot."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from contextlib import suppress
from urllib.parse import urlsplit


def is_cross_site(method: str, headers: Mapping[str, str]) -> bool:
    """Whether another site's page sent a request that may change something.

    Browsers say so themselves: in Sec-Fetch-Site, older ones and those without TLS in Origin.
    Other clients send neither.
    """
    if method in ("GET", "HEAD", "OPTIONS"):
        return False
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("Origin")
    # An opaque origin is the word null, which has no host.
    return origin is not None and origin.partition("://")[2] != headers.get("Host")


def is_allowed_host(host: str, allowed: Collection[str]) -> bool:
    """Whether the header Host, "" for none, is one of these names, an address or localhost.

    Somebody's DNS name can come to mean this server's address (DNS rebinding). The page of that
    name then reads what is served here, but its browser still sends the name. `allowed`: in lower
    case; empty: every name.
    """
    if not allowed or not host:
        return True
    with suppress(ValueError):
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        if name == "localhost" or name in allowed:
            return True
        ipaddress.ip_address(name)
        return True
    return False
