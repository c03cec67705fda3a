"""The process, its accounts and its configuration as they are shown."""

from __future__ import annotations

import exporter
from exporter import config
from exporter.batch.models import enum_value
from exporter.collectors.jobs import STATES
from exporter.config.redaction import redact_all
from exporter.polling.load import Load
from exporter.polling.sign_in_trouble import SignInTrouble
from exporter.state.account import JOBS, POOL_NODES, AccountState
from exporter.state.timestamps import iso_time
from exporter.state.watched_job import NOT_POLLED
from exporter.web.api.job_views import collector_status, diagnosis_of, health_of, in_turns
from exporter.web.api.models import HEALTHS, AccountView, RunningConfig, SignIn, Status
from exporter.web.backend import Backend


async def status(service: Backend) -> Status:
    """The process and its accounts."""
    accounts = service.config.accounts
    views = []
    for account in accounts:
        # One that a reload is about to add, or has just removed, is left out.
        state, load = service.store.accounts.get(account.name), service.load(account.name)
        if state is not None and load is not None:
            views.append(await _account(service, account, state, load))
    return Status(
        now=iso_time(service.now()) or "",
        version=exporter.__version__,
        ready=service.is_ready,
        shard=str(service.shard),
        series=sum(service.exposition.series(account.name) for account in accounts),
        accounts=tuple(views),
        problem=service.problem,
    )


async def _account(
    service: Backend, account: config.Account, state: AccountState, load: Load
) -> AccountView:
    name, now = account.name, service.now()
    by_state = dict.fromkeys(STATES, 0)
    by_health: dict[str, int] = dict.fromkeys(HEALTHS, 0)
    async for job in in_turns(state.jobs.values()):
        known = enum_value(job.watched.job.state, STATES) or "unknown"
        by_state[known] = by_state.get(known, 0) + 1
        by_health[health_of(job)] += 1
    selected = state.outcomes.get(JOBS, NOT_POLLED).shown
    collectors = (JOBS, POOL_NODES) if POOL_NODES in state.outcomes else (JOBS,)
    outcomes = {each: state.outcomes.get(each, NOT_POLLED) for each in collectors}
    # What azure_batch_account_failure names; else why an account that is up lacks its nodes.
    error = state.problem or state.outcomes.get(POOL_NODES, NOT_POLLED).error
    source = next((f"{each}: " for each, found in outcomes.items() if found.error is error), "")
    cause, cure, trace = diagnosis_of(error)
    return AccountView(
        name=name,
        endpoint=account.endpoint,
        ready=service.is_account_ready(name),
        jobs=len(state.jobs),
        jobs_dropped=selected.dropped if selected else 0,
        jobs_by_state=by_state,
        jobs_by_health=by_health,
        series=service.exposition.series(name),
        load=load,
        polls=tuple(collector_status(each, found, now) for each, found in outcomes.items()),
        up=state.is_up,
        error=f"{source}{error}" if error else None,
        cause=cause,
        cure=cure,
        trace=trace,
        sign_in=_sign_in(service.sign_in_trouble(name)),
    )


def _sign_in(trouble: SignInTrouble | None) -> SignIn | None:
    if trouble is None:
        return None
    return SignIn(
        error=trouble.error,
        cause=trouble.cause,
        cure=trouble.cure,
        since=iso_time(trouble.since) or "",
        good_until=iso_time(trouble.good_until),
    )


def running_config(loaded: config.Config) -> RunningConfig:
    """The configuration in force, as a file would have it.

    A secret is never in the file, only where it is found. One that somebody wrote into a text, a
    URL for example, is masked.
    """
    shown = loaded.model_dump(mode="json", exclude_none=True)
    return RunningConfig(redact_all(shown))
