"""Connects the parts, and connects them again when the configuration changes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from exporter import collectors
from exporter.batch.auth import Auth, SignIns
from exporter.batch.budget import Budget
from exporter.batch.client import open_client
from exporter.config import Account, Config, Defaults, label_name, loader, secret
from exporter.config.problems import ConfigError
from exporter.config.shard import WHOLE, Shard
from exporter.diagnosis.sign_in_causes import explain
from exporter.exposition.body import Exposition, Format
from exporter.exposition.metric import Excluded
from exporter.exposition.scrapes import Scrapes
from exporter.polling.load import Load, RequestRate, as_measured
from exporter.polling.poller import AccountPoller
from exporter.polling.selection import watch_saved
from exporter.polling.sign_in_trouble import SignInTrouble
from exporter.service.open_files import limited
from exporter.service.supervision import supervised
from exporter.service.telemetry import ROWS, AccountTelemetry, Telemetry
from exporter.state.failures import Failures
from exporter.state.journal import StateFile
from exporter.state.saved import Saved

log = logging.getLogger(__name__)

FLUSH_INTERVAL = 1.0
"""Seconds between two renderings of a group whose jobs change."""

SHARD_PLACEHOLDER = "${shard}"
"""In the path of the state file: the shard's number, so that all shards share a configuration."""

MAX_GAP = 3
"""Discovery intervals after which a shard that was away forgets its jobs."""

STUCK_AFTER = 300.0
"""Seconds without a poll, while one is due, after which an account counts as stuck."""


@dataclass(frozen=True)
class _Wanted:
    """How an account is to be polled. `secret`: digest of its secret, to notice changes."""

    account: Account
    defaults: Defaults
    secret: bytes


@dataclass
class _Polled:
    """An account that is polled. `polling`: the task that polls; None while it does not run."""

    wanted: _Wanted
    poller: AccountPoller
    budget: Budget
    observer: AccountTelemetry
    stack: AsyncExitStack
    credential: Auth
    rate: RequestRate = field(default_factory=RequestRate)
    polling: asyncio.Task[None] | None = None

    @property
    def load(self) -> Load:
        """How busy its polls are."""
        scheduler = self.poller.scheduler
        return Load(
            requests_per_second=as_measured(self.rate.per_second),
            budget_per_second=as_measured(self.budget.requests_per_second),
            polls_per_second=as_measured(scheduler.polls_per_second),
            polls_waiting=scheduler.waiting,
            lag_seconds=as_measured(self.observer.lag),
            pause_seconds=as_measured(self.budget.pause_left),
        )

    async def stop(self) -> None:
        """Stop polling and close the connections. Polls that still run are discarded."""
        if self.polling is not None:
            self.polling.cancel()
            await asyncio.gather(self.polling, return_exceptions=True)
            self.polling = None
        await self.stack.aclose()


class Service:
    """Accounts that are polled, and what is shown of them. `configure` comes first."""

    def __init__(
        self,
        telemetry: Telemetry,
        state_file: StateFile | None,
        now: Callable[[], float],
        shard: Shard = WHOLE,
        connections: int = 2**20,
    ) -> None:
        self.telemetry = telemetry
        self.exposition = Exposition(collectors.tables())
        self.failures = Failures()
        self.scrapes = Scrapes(asyncio.get_running_loop().time)
        self.store = collectors.new_store(self.exposition, state_file, self.failures, self.scrapes)
        self._state_file = state_file
        if state_file is not None:
            state_file.snapshot = self.store.snapshot
        self.now = now
        self.shard = shard
        self._connections = connections
        self._sign_ins = SignIns(explain)
        self._config: Config | None = None
        self._accounts: dict[str, _Polled] = {}
        self._is_running = False
        self._was_ready = False

    @property
    def is_ready(self) -> bool:
        """Whether each account has finished a first round. It stays true when a reload adds one."""
        self._was_ready = self._was_ready or all(
            polled.poller.is_ready for polled in self._accounts.values()
        )
        return self._was_ready

    @property
    def config(self) -> Config:
        """The configuration in force."""
        assert self._config is not None, "configure comes first"
        return self._config

    def own_metrics(self, format_: Format, series_of_state: int) -> bytes:
        """The exporter's own metrics as text, with the end mark of OpenMetrics."""
        return self.telemetry.text(format_, series_of_state)

    def load(self, account: str) -> Load | None:
        """How busy the polls of an account are; None while it is being added."""
        polled = self._accounts.get(account)
        return polled.load if polled is not None else None

    def is_account_ready(self, account: str) -> bool:
        """Whether an account has finished a first round of polls."""
        return account in self._accounts and self._accounts[account].poller.is_ready

    def sign_in_trouble(self, account: str) -> SignInTrouble | None:
        """Why the token of an account cannot be renewed; None: it can."""
        polled = self._accounts.get(account)
        trouble = polled.credential.trouble if polled is not None else None
        if trouble is None:
            return None
        error = trouble.error
        good_until = self.now() + trouble.good_for
        return SignInTrouble(str(error), error.cause, error.cure, trouble.since, good_until)

    @property
    def problem(self) -> str | None:
        """Why the process should be restarted; None: it need not."""
        for name, polled in self._accounts.items():
            idle = polled.poller.stuck_for
            if polled.polling is not None and idle > STUCK_AFTER:
                return f"account {name}: no poll has begun for {idle:.0f} s though some are due"
        return None

    @property
    def progress(self) -> dict[str, int]:
        """How far the first round is."""
        pollers = [polled.poller for polled in self._accounts.values()]
        polls = sum(len(poller.scheduler.polls()) for poller in pollers)
        left = sum(poller.scheduler.first_round_left for poller in pollers)
        return {
            "accounts": len(pollers),
            "accounts_done": sum(poller.is_ready for poller in pollers),
            "jobs": sum(len(self.store.jobs(name)) for name in self._accounts),
            "polls": polls,
            "polls_done": polls - left,
        }

    async def configure(self, config: Config) -> None:
        """Apply a configuration, all of it or nothing.

        ConfigError where a secret cannot be read, or a change needs a restart. Accounts and jobs
        that remain keep their state; polls of unchanged accounts go on.
        """
        before = self._config
        if before is not None and before.state_file != config.state_file:
            raise ConfigError(("state_file: another file needs a restart of the process",))
        accounts = limited(config.accounts, self._connections)
        wanted = {each.name: _wanted(each, config.defaults) for each in accounts}
        changed = [
            each
            for name, each in wanted.items()
            if name not in self._accounts or self._accounts[name].wanted != each
        ]
        credentials = await self._credentials(changed)
        # From here on nothing fails.
        self._config = config
        for name in [name for name in self._accounts if name not in wanted]:
            await self._remove(name)
        if before is None or _shown(before) != _shown(config):
            await self.store.all_saved()
            self._show_anew(config)
        for each, credential in zip(changed, credentials, strict=True):
            await self._take_over(each, credential)
        if self._state_file is not None:
            self._state_file.forget_unused()
        self.store.flush()
        self.telemetry.set("config_last_reload_successful", 1)
        self.telemetry.set("config_last_reload_success_timestamp_seconds", self.now())

    async def _credentials(self, wanted: Iterable[_Wanted]) -> list[Auth]:
        """The credentials of these accounts. ConfigError where one cannot be read."""
        built: list[Auth] = []
        for each in wanted:
            try:
                built.append(self._sign_ins.auth(each.account))
            except ValueError as error:
                for credential in built:
                    await credential.close()
                raise ConfigError((f"account {each.account.name}: {error}",)) from error
        return built

    def _show_anew(self, config: Config) -> None:
        excluded = Excluded(config.exclude_metrics)
        self.telemetry.excluded = excluded
        self.exposition.reconfigure(
            collectors.tables(info_labels(config), excluded),
            limits={account.name: account.max_series for account in config.accounts},
            on_drop=self._count_dropped,
        )
        self.store.show_all()

    def _count_dropped(self, account: str, count: int) -> None:
        self.telemetry.add("series_dropped_total", count, account)

    async def _take_over(self, wanted: _Wanted, credential: Auth) -> None:
        """Poll an account as it is configured now."""
        account = wanted.account
        before = self._accounts.get(account.name)
        rate = account.requests_per_second / self.shard.count  # the other shards use the rest
        if before is None:
            observer = AccountTelemetry(self.telemetry, account.name)
            budget = Budget(rate, observer.throttled)
            saved = self._state_file.load(account.name) if self._state_file else Saved()
            self.store.add_account(account.name, saved, partial(watch_saved, account.jobs))
        else:
            credential.inherit(before.credential)
            await before.stop()
            observer, budget = before.observer, before.budget
            budget.set_rate(rate)  # a pause that was asked for goes on
        stack = AsyncExitStack()
        spellings = self.store.accounts[account.name].spellings
        client = open_client(stack, account, credential, budget, observer, spellings, self.now)
        poller = AccountPoller(
            *(account, wanted.defaults, self.shard),
            client,
            self.store,
            observer,
            self.now,
            requests_at=lambda: budget.active_at,
        )
        poller.apply_rules()
        # `run` makes a new scheduler.
        credential.on_recovery(lambda: poller.scheduler.run_soon())
        polled = _Polled(wanted, poller, budget, observer, stack, credential)
        if before is not None:
            polled.rate = before.rate
        self._accounts[account.name] = polled
        self._start(polled)

    async def _remove(self, name: str) -> None:
        polled = self._accounts.pop(name)
        await polled.stop()
        self.store.remove_account(name)
        self.telemetry.forget_account(name)

    def _start(self, polled: _Polled) -> None:
        if self._is_running and polled.polling is None:
            name = f"account {polled.wanted.account.name}"
            polled.polling = asyncio.create_task(
                supervised(name, polled.poller.run, self._count_error), name=name
            )

    def _count_error(self, where: str) -> None:
        self.telemetry.add("internal_errors_total", 1, where)

    def end_pauses(self) -> None:
        """Let all accounts send requests again, whatever their services asked for."""
        for polled in self._accounts.values():
            polled.budget.end_pause()

    async def run(self) -> None:
        """Poll until cancelled."""
        self._is_running = True
        for polled in self._accounts.values():
            self._start(polled)
        await supervised("groups", self._flush, self._count_error)

    async def _flush(self) -> None:
        # A group may have thousands of jobs: it is rendered once a second, not with each of them.
        while True:
            self.store.flush()
            for polled in self._accounts.values():
                polled.rate.note(asyncio.get_running_loop().time(), polled.budget.started)
            await asyncio.sleep(FLUSH_INTERVAL)

    async def run_once(self) -> None:
        """Poll everything once."""
        async with asyncio.TaskGroup() as group:
            for polled in self._accounts.values():
                group.create_task(polled.poller.run_once())
        self.store.flush()

    async def settle(self) -> None:
        """Wait until all that was counted is saved, and show it."""
        await self.store.all_saved()
        self.store.flush()

    async def close(self) -> None:
        """Stop polling and close all connections."""
        self._is_running = False
        await asyncio.gather(*(polled.stop() for polled in self._accounts.values()))


@asynccontextmanager
async def open_service(
    config: Config,
    *,
    revision: str = "",
    shard: Shard = WHOLE,
    now: Callable[[], float] = time.time,
    connections: int = 2**20,
) -> AsyncIterator[Service]:
    """Connect a configuration's accounts; nothing is polled yet.

    ConfigError where a secret cannot be read. `now`: Unix time. `connections`: to Batch, at most.
    """
    telemetry = Telemetry(revision, shard)
    async with AsyncExitStack() as stack:
        state_file = None
        if config.state_file is not None:
            path = state_path(config.state_file, shard)
            on_works = partial(telemetry.set, "state_file_works")
            state_file = StateFile(
                *(path, collectors.JOB_COLLECTORS, on_works, shard),
                on_internal_error=partial(telemetry.add, "internal_errors_total", 1),
                now=now,
                max_gap=MAX_GAP * max(account.discovery_interval for account in config.accounts),
            )
            stack.push_async_callback(state_file.close)
        service = Service(telemetry, state_file, now, shard, connections)
        stack.push_async_callback(service.close)
        await service.configure(config)
        yield service


def state_path(state_file: Path, shard: Shard) -> Path:
    """The state file of a shard."""
    return Path(str(state_file).replace(SHARD_PLACEHOLDER, str(shard.index)))


def _wanted(account: Account, defaults: Defaults) -> _Wanted:
    try:
        return _Wanted(account, defaults, secret.digest(account.auth))
    except ValueError as error:
        raise ConfigError((f"account {account.name}: {error}",)) from error


def _shown(config: Config) -> object:
    """The parts of a configuration that decide which families, labels and series are shown."""
    limits = {account.name: account.max_series for account in config.accounts}
    return info_labels(config), config.exclude_metrics, limits


def info_labels(config: Config) -> tuple[str, ...]:
    """Names of the labels that the rules add to `azure_batch_job_info`."""
    rules = [rule for account in config.accounts for rule in account.jobs]
    names = {name for rule in rules for name in rule.labels}
    return tuple(sorted(names | {label_name(n) for rule in rules for n in rule.metadata_labels}))


FAMILIES = frozenset(
    [row.name for table in collectors.tables().values() for row in table.metrics]
    + [row.name for row in ROWS]
)
"""Every family of the exporter's own, `process_*` and `python_*` left out."""


def load_config(file: Path) -> Config:
    """Read and check a configuration file. ConfigError names every problem, as loader.load does."""
    return loader.load(file, FAMILIES)
