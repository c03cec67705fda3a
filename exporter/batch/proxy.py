"""The proxy that the environment names: HTTPS_PROXY and NO_PROXY, as curl reads them."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass


@dataclass(frozen=True, slots=True)
class Proxy:
    """`is_tls`: it is spoken to in TLS itself. `authorization`: "" where it wants none."""

    host: str
    port: int
    is_tls: bool = False
    authorization: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """Its address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a CONNECT request to it."""
        return {"Proxy-Authorization": self.authorization} if self.authorization else {}


def from_environment(host: str) -> Proxy | None:
    """The proxy by which an https host is reached. ValueError where its address is none."""
    address = getproxies().get("https", "")
    if not address or proxy_bypass(host):
        return None
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        # Not what it is: there may be a password in it.
        raise ValueError("HTTPS_PROXY is no proxy's address: write http://HOST:PORT")
    authorization = ""
    if parts.username is not None:
        given = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        authorization = f"Basic {base64.b64encode(given).decode()}"
    is_tls = parts.scheme == "https"
    return Proxy(parts.hostname, port or (443 if is_tls else 80), is_tls, authorization)
