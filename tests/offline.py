"""The program's own parts over an account that is asked without a network, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from yarl import URL

from exporter import collectors
from exporter.batch import session
from exporter.batch.auth import Auth
from exporter.batch.budget import Budget
from exporter.batch.client import BatchClient
from exporter.batch.transport import Transport
from exporter.collectors import new_store
from exporter.config import Account, Defaults
from exporter.config.shard import WHOLE, Shard
from exporter.exposition.body import Exposition
from exporter.exposition.scrapes import Scrapes
from exporter.polling.poller import AccountPoller
from exporter.service.telemetry import AccountTelemetry, Telemetry
from exporter.state.store import Store

ENDPOINT = "http://simulated"
START = datetime(2026, 6, 1, 12, tzinfo=UTC)

Answer = Callable[[URL], tuple[int, bytes]]
"""The HTTP status and the body that the account answers a GET with."""


class _Http(session.Session):
    """No network: each request takes 20 ms."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def get(self, url: str, _: Mapping[str, str]) -> session.Answer:
        await asyncio.sleep(0.02)
        status, body = self._answer(URL(url, encoded=True))
        return session.Answer(status, "", {}, body)

    async def close(self) -> None: ...


def now() -> datetime:
    """What the clocks say: they go by the event loop's."""
    return START + timedelta(seconds=asyncio.get_running_loop().time())


@dataclass(frozen=True)
class Watch:
    """The parts of the program that poll one account and show what they find."""

    exposition: Exposition
    scrapes: Scrapes
    store: Store
    poller: AccountPoller

    async def run(self) -> None:
        """Poll, and render groups once a second, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.poller.run())
            while True:
                self.store.flush()
                await asyncio.sleep(1.0)


def watch(
    answer: Answer,
    account: Account,
    requests_per_second: float,
    observer: AccountTelemetry | None = None,
    defaults: Defaults | None = None,
    shard: Shard = WHOLE,
) -> Watch:
    """The parts as the program puts them together, for one account."""
    observer = observer or AccountTelemetry(Telemetry(""), account.name)
    exposition = Exposition(collectors.tables())
    scrapes = Scrapes(lambda: asyncio.get_running_loop().time())
    store = new_store(exposition, scrapes=scrapes)

    def seconds() -> float:
        return now().timestamp()

    budget = Budget(requests_per_second, observer.throttled)
    transport = Transport(
        http=_Http(answer),
        auth=Auth(),
        budget=budget,
        observer=observer,
        request_timeout=10.0,
        now=seconds,
    )
    client = BatchClient(ENDPOINT, "2024-07-01.20.0", transport)
    store.add_account(account.name)
    poller = AccountPoller(
        *(account, defaults or Defaults(), shard, client, store, observer, seconds),
        requests_at=lambda: budget.active_at,
    )
    return Watch(exposition, scrapes, store, poller)
