"""What is shown of the accounts' states: each change of a job at once, those of groups together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporter import collectors
from exporter.collectors.health import AccountHealth
from exporter.collectors.jobs import NAME as JOBS
from exporter.collectors.pool_nodes import NAME as POOL_NODES
from exporter.exposition.body import Exposition
from exporter.state.account import (
    NOT_POLLED,
    AccountState,
    Outcome,
    health_of,
    identity_of,
    is_up_now,
    owner_of,
    problem_of,
)
from exporter.state.watched_job import WatchedJob

OF_JOBS = (collectors.JOB, collectors.JOB_HEALTH, *collectors.JOB_COLLECTORS)
"""Tables that a job, or the group it is in, has gauges in."""


class Display:
    """Renders states into an exposition. It changes none of them. `accounts`: by name."""

    def __init__(self, exposition: Exposition, accounts: Mapping[str, AccountState]) -> None:
        self._exposition = exposition
        self._accounts = accounts
        self._dirty: dict[tuple[str, tuple[str, str], str], None] = {}

    def job(self, account: str, watched: WatchedJob, table: str, snapshot: Any) -> None:
        """Show a job's snapshot; that of a group's job with the next `flush`."""
        if watched.group is None:
            self._exposition.put(table, identity_of(account, owner_of(watched)), snapshot)
        else:
            self._dirty[account, owner_of(watched), table] = None

    def hide_job(self, account: str, watched: WatchedJob, table: str) -> None:
        """Show nothing of a job in a table any more."""
        if watched.group is None:
            self._exposition.remove(table, identity_of(account, owner_of(watched)))
        else:
            self._dirty[account, owner_of(watched), table] = None

    def of_account(self, account: str, table: str, snapshot: Any) -> None:
        """Show a snapshot of the account itself; None: nothing of it."""
        if snapshot is None:
            self._exposition.remove(table, identity_of(account))
        else:
            self._exposition.put(table, identity_of(account), snapshot)

    def health(self, account: str) -> None:
        """Show how the account's own polls went."""
        state = self._accounts[account]
        problem = problem_of(state)
        cause = problem.cause or problem.reason if problem is not None else None
        health = AccountHealth(is_up_now(state), health_of(state.outcomes), cause)
        self._exposition.put(collectors.ACCOUNT_HEALTH, identity_of(account), health)

    def flush(self) -> None:
        """Render the groups of which a job has changed."""
        dirty, self._dirty = self._dirty, {}
        for account, owner, table in dirty:
            state = self._accounts[account]
            identity = identity_of(account, owner)
            snapshots = [
                snapshot
                for job_id in state.members.get(owner, {})
                if (snapshot := _snapshot(state, job_id, table)) is not None
            ]
            if snapshots:
                self._exposition.put_group(table, identity, snapshots)
            else:
                self._exposition.remove(table, identity)

    def everything(self) -> None:
        """Show everything, in an exposition that begins anew."""
        for account, state in self._accounts.items():
            for table, name in (
                (collectors.SELECTED_JOBS, JOBS),
                (collectors.POOL_NODES, POOL_NODES),
            ):
                self.of_account(account, table, _outcome(state.outcomes, name).shown)
            if state.outcomes:
                self.health(account)
            for job_id, watched in state.jobs.items():
                for table in OF_JOBS:
                    snapshot = _snapshot(state, job_id, table)
                    if snapshot is not None:
                        self.job(account, watched, table, snapshot)
        self.flush()

    def remove_account(self, account: str) -> None:
        """Show nothing of an account any more."""
        self._dirty = {key: None for key in self._dirty if key[0] != account}
        self._exposition.remove_account(account)


def _outcome(outcomes: Mapping[str, Outcome], collector: str) -> Outcome:
    return outcomes.get(collector, NOT_POLLED)


def _snapshot(state: AccountState, job_id: str, table: str) -> Any:
    """What there is to show of a job in a table, or None."""
    if table == collectors.JOB:
        is_shown = _outcome(state.outcomes, JOBS).shown is not None
        return state.jobs.get(job_id) if is_shown else None
    outcomes = state.job_outcomes.get(job_id, {})
    if table == collectors.JOB_HEALTH:
        return health_of(outcomes) if outcomes else None
    return _outcome(outcomes, table).shown
