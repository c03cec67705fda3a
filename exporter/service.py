"""The parts wired together: from a configuration to running polls and a rendered state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

from exporter import collectors
from exporter.batch import auth
from exporter.batch.budget import Budget
from exporter.batch.client import BatchClient
from exporter.batch.transport import Transport
from exporter.config import Account, Config, Defaults, is_loopback, label_name
from exporter.errors import ConfigError
from exporter.exposition import Exposition
from exporter.failures import Failures
from exporter.metric import Excluded
from exporter.poller import NOTHING_SAVED, AccountPoller, Plan
from exporter.selection import resolve
from exporter.state_file import StateFile
from exporter.store import Store
from exporter.telemetry import AccountTelemetry, Telemetry
from exporter.totals import Totals

FLUSH_INTERVAL = 1.0
"""Seconds between two renderings of a group of which a job has changed."""


@dataclass(frozen=True)
class Service:
    """Accounts that are polled, and what is shown of them."""

    pollers: tuple[AccountPoller, ...]
    exposition: Exposition
    telemetry: Telemetry
    store: Store
    failures: Failures

    @property
    def is_ready(self) -> bool:
        """Whether each account has finished a first round."""
        return all(poller.is_ready for poller in self.pollers)

    async def run(self) -> None:
        """Poll until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._flush())
            for poller in self.pollers:
                group.create_task(poller.run())

    async def _flush(self) -> None:
        # A group may have thousands of jobs: it is rendered once a second, not with each of them.
        while True:
            self.store.flush()
            await asyncio.sleep(FLUSH_INTERVAL)

    async def run_once(self) -> None:
        """Poll everything once."""
        async with asyncio.TaskGroup() as group:
            for poller in self.pollers:
                group.create_task(poller.run_once())
        self.store.flush()


@asynccontextmanager
async def open_service(
    config: Config, *, revision: str = "", now: Callable[[], float] = time.time
) -> AsyncIterator[Service]:
    """Connect a configuration's accounts; nothing is polled yet.

    ConfigError where a secret cannot be read. `now`: Unix time, for what is exposed of it.
    """
    excluded = Excluded(config.exclude_metrics)
    telemetry = Telemetry(revision, excluded)
    exposition = Exposition(
        collectors.tables(_info_labels(config), excluded),
        limits={account.name: account.max_series for account in config.accounts},
        on_drop=telemetry.series_dropped,
    )
    async with AsyncExitStack() as stack:
        state_file = None
        if config.state_file is not None:
            state_file = StateFile(config.state_file, telemetry.state_file_works)
            stack.push_async_callback(state_file.close)
        failures = Failures()
        store = Store(exposition, Totals(exposition, state_file), failures)
        pollers = []
        for account in config.accounts:
            observer = telemetry.for_account(account.name)
            client = await _connect(stack, account, observer)
            plan = _plan(account, config.defaults)
            saved = state_file.load(account.name) if state_file else NOTHING_SAVED
            pollers.append(AccountPoller(plan, client, store, observer, now, saved))
        telemetry.config_loaded(now())
        yield Service(tuple(pollers), exposition, telemetry, store, failures)


async def _connect(
    stack: AsyncExitStack, account: Account, observer: AccountTelemetry
) -> BatchClient:
    try:
        authentication = auth.build(account)
    except ValueError as error:
        raise ConfigError((f"account {account.name}: {error}",)) from error
    stack.push_async_callback(authentication.close)
    session = await stack.enter_async_context(
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=account.max_concurrency),
            timeout=aiohttp.ClientTimeout(total=None),  # the client bounds each request itself
            cookie_jar=aiohttp.DummyCookieJar(),
            # A proxy from the environment is for the service, not for a simulator beside us.
            trust_env=not is_loopback(urlsplit(account.endpoint).hostname or ""),
        )
    )
    transport = Transport(
        session=session,
        auth=authentication,
        budget=Budget(account.requests_per_second, observer.throttled),
        observer=observer,
        request_timeout=account.request_timeout,
    )
    return BatchClient(account.endpoint, account.api_version, transport)


def _info_labels(config: Config) -> tuple[str, ...]:
    rules = [rule for account in config.accounts for rule in account.jobs]
    names = {name for rule in rules for name in rule.labels}
    return tuple(sorted(names | {label_name(n) for rule in rules for n in rule.metadata_labels}))


def _plan(account: Account, defaults: Defaults) -> Plan:
    return Plan(
        account=account.name,
        rules=tuple(resolve(rule, defaults) for rule in account.jobs),
        discovery_interval=account.discovery_interval,
        pool_nodes=account.pool_nodes,
        interval=defaults.interval,
        stale_after=defaults.stale_after,
        max_concurrency=account.max_concurrency,
        max_jobs=account.max_jobs,
    )
