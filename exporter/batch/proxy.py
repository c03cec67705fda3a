"""The proxy that the environment names: HTTPS_PROXY and NO_PROXY, as curl reads them."""

from __future__ import annotations

from urllib.request import getproxies, proxy_bypass

from yarl import URL


def from_environment(host: str) -> URL | None:
    """The proxy for an https host, with its credentials. ValueError where its address is none."""
    address = getproxies().get("https", "")
    if not address or proxy_bypass(host):
        return None
    try:
        proxy = URL(address if "://" in address else f"http://{address}")
    except ValueError:
        proxy = URL()
    if proxy.scheme not in ("http", "https") or not proxy.host:
        # Not what it is: there may be a password in it.
        raise ValueError("HTTPS_PROXY is no proxy's address: write http://HOST:PORT")
    return proxy
