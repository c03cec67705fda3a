"""Opens the client of an account."""

from __future__ import annotations

from contextlib import AsyncExitStack
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from exporter.batch.auth import Auth
from exporter.batch.budget import Budget
from exporter.batch.client import BatchClient
from exporter.batch.session import Session
from exporter.batch.transport import RequestObserver, Transport
from exporter.config import Account, is_loopback
from exporter.config.problems import ConfigError


def open_client(
    stack: AsyncExitStack,
    account: Account,
    credential: Auth,
    budget: Budget,
    observer: RequestObserver,
) -> BatchClient:
    """A client whose connections, and the credential, are closed with the stack.

    ConfigError where the environment names an invalid proxy.
    """
    host = urlsplit(account.endpoint).hostname or ""
    # The proxy is for the service, not for a simulator on this machine.
    try:
        by = None if is_loopback(host) else proxy_for(host)
    except ValueError as error:
        raise ConfigError((str(error),)) from error
    transport = Transport(
        http=Session(account.endpoint, by),
        auth=credential,
        budget=budget,
        observer=observer,
        request_timeout=account.request_timeout,
    )
    stack.push_async_callback(transport.close)
    return BatchClient(account.endpoint, account.api_version, transport)


def proxy_for(host: str) -> URL | None:
    """The proxy for an https host, from HTTPS_PROXY and NO_PROXY, with its credentials.

    ValueError where the address is invalid.
    """
    address = getproxies().get("https", "")
    if not address or proxy_bypass(host):
        return None
    try:
        proxy = URL(address if "://" in address else f"http://{address}")
    except ValueError:
        proxy = URL()
    if proxy.scheme not in ("http", "https") or not proxy.host:
        # The address may hold a password, so the message does not show it.
        raise ValueError("HTTPS_PROXY is no proxy's address: write http://HOST:PORT")
    return proxy
