"""How a client of an account is made."""

from __future__ import annotations

from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import aiohttp

from exporter.batch.auth import Auth
from exporter.batch.budget import Budget
from exporter.batch.client import BatchClient
from exporter.batch.transport import RequestObserver, Transport
from exporter.config import Account, is_loopback


async def open_client(
    stack: AsyncExitStack,
    account: Account,
    credential: Auth,
    budget: Budget,
    observer: RequestObserver,
) -> BatchClient:
    """A client whose connections, and the credential, are closed with the stack."""
    session = await stack.enter_async_context(
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=account.max_concurrency),
            timeout=aiohttp.ClientTimeout(total=None),  # the transport bounds each request itself
            cookie_jar=aiohttp.DummyCookieJar(),
            # A proxy from the environment is for the service, not for a simulator beside us.
            trust_env=not is_loopback(urlsplit(account.endpoint).hostname or ""),
        )
    )
    transport = Transport(
        session=session,
        auth=credential,
        budget=budget,
        observer=observer,
        request_timeout=account.request_timeout,
    )
    stack.push_async_callback(transport.close)
    return BatchClient(account.endpoint, account.api_version, transport)
