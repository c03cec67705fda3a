"""The process, its accounts and its configuration as they are shown."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import exporter
from exporter import config
from exporter.batch.models import enum_value
from exporter.collectors.jobs import STATES
from exporter.polling.load import Load
from exporter.state.account import JOBS, POOL_NODES, AccountState, identity_of
from exporter.state.timestamps import iso_time
from exporter.web.api import job_views as jobs
from exporter.web.api import models
from exporter.web.api.job_views import Found
from exporter.web.backend import Backend

FAILURES_OF_A_JOB = 100


async def status(service: Backend) -> models.Status:
    """The process and its accounts."""
    now, exposition = service.now(), service.exposition
    healths = await jobs.healths(service.store.accounts)
    return models.Status(
        now=iso_time(now) or "",
        version=exporter.__version__,
        ready=service.is_ready,
        shard=str(service.shard),
        series=sum(exposition.series(each.name) for each in service.config.accounts),
        # One that a reload is about to add, or has just removed, is left out.
        accounts=tuple(
            _account(service, each, load, healths[each.name], now)
            for each in service.config.accounts
            if each.name in healths and (load := service.load(each.name)) is not None
        ),
        problem=service.problem,
    )


def _account(
    service: Backend, account: config.Account, load: Load, healths: Counter[str], now: float
) -> models.Account:
    name = account.name
    state = service.store.accounts[name]
    selected = service.store.outcome(name, JOBS).shown
    states = Counter(dict.fromkeys(STATES, 0))
    given = Counter(
        [each.watched.job.state for each in state.jobs.values()]
    )  # few, of very many jobs
    for written, count in given.items():
        states[enum_value(written, STATES) or "unknown"] += count
    collectors = (JOBS, POOL_NODES) if POOL_NODES in state.outcomes else (JOBS,)
    return models.Account(
        name=name,
        endpoint=account.endpoint,
        ready=service.is_account_ready(name),
        jobs=len(state.jobs),
        jobs_dropped=selected.dropped if selected else 0,
        jobs_by_state=dict(states),
        jobs_by_health=dict(healths),
        series=service.exposition.series(name),
        load=models.Load(
            requests_per_second=_rounded(load.requests_per_second),
            budget_per_second=_rounded(load.budget_per_second),
            polls_per_second=_rounded(load.polls_per_second),
            polls_waiting=load.polls_waiting,
            lag_seconds=_rounded(load.lag_seconds),
            pause_seconds=_rounded(load.pause_seconds),
        ),
        polls=jobs.polls(collectors, state.outcomes, now),
        up=state.is_up,
        error=_why_down(state),
    )


def _rounded(value: float) -> float:
    """As far as it was measured."""
    return float(f"{value:.3g}") if value >= 1.0 else round(value, 3)


def _why_down(state: AccountState) -> str | None:
    for name in (JOBS, POOL_NODES):
        outcome = state.outcomes.get(name)
        if outcome is not None and outcome.error is not None:
            return f"{name}: {outcome.error}"
    if state.refusal is not None:
        return "the credentials are refused"
    return None


def job(service: Backend, account: str, job_id: str) -> models.JobDetail | None:
    """All that is known of a job; None where it is not watched."""
    state = service.store.accounts.get(account)
    entry = state.jobs.get(job_id) if state is not None else None
    if entry is None:
        return None
    now, watched = service.now(), entry.watched
    lines = service.exposition.lines(identity_of(account, watched.owner))
    failures = [
        each
        for each in service.failures.latest()
        if each.account == account and each.job_id == job_id
    ]
    return models.JobDetail(
        now=iso_time(now) or "",
        job=jobs.job(Found(account, watched, entry.outcomes), now),
        polls=jobs.polls(watched.rule.collect, entry.outcomes, now),
        series=tuple(lines.decode().splitlines()),
        history=service.store.history.points(account, job_id),
        failures=tuple(failures[:FAILURES_OF_A_JOB]),
    )


_USER_INFO = re.compile(r"//[^/@\s]*@")


def running_config(loaded: config.Config) -> models.RunningConfig:
    """The configuration in force, as a file would have it.

    A secret never stands in the file, only where it is to be found. What somebody may have written
    into a URL is left out.
    """
    shown = loaded.model_dump(mode="json", exclude_none=True)
    return models.RunningConfig(_redacted(shown))


def _redacted(value: Any) -> Any:
    if isinstance(value, dict):
        return {_redacted(key): _redacted(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_redacted(each) for each in value]
    return _USER_INFO.sub("//<redacted>@", value) if isinstance(value, str) else value
