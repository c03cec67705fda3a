"""How the polls themselves went: of each job and of each account."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.exposition.metric import Metric, Samples, info, only
from exporter.state.account import AccountState
from exporter.state.watched_job import Health

Polls = Mapping[str, Health]
"""How the polls go, by collector."""


def _success(polls: Polls) -> Samples:
    return [((name,), int(succeeds)) for name, (succeeds, _) in polls.items()]


def _last_success(polls: Polls) -> Samples:
    return [((name,), succeeded_at) for name, (_, succeeded_at) in polls.items()]


def _of_account(account: AccountState) -> Polls:
    outcomes = sorted(account.outcomes.items())
    return {name: (outcome.error is None, outcome.succeeded_at) for name, outcome in outcomes}


def _up(account: AccountState) -> Samples:
    return only(None if account.is_up is None else int(account.is_up))


def _failure(account: AccountState) -> Samples:
    return info(account.problem.cause) if account.problem else []


JOB_METRICS: tuple[Metric[Polls], ...] = (
    Metric(
        "azure_batch_job_scrape_success",
        "gauge",
        "Whether the last poll of the job by this collector succeeded",
        "the exporter's own polls",
        ("collector",),
        _success,
        merge=min,
    ),
    Metric(
        "azure_batch_job_last_scrape_success_timestamp_seconds",
        "gauge",
        "When a poll of the job by this collector last succeeded",
        "the exporter's own polls",
        ("collector",),
        _last_success,
        merge=min,
    ),
)

ACCOUNT_METRICS: tuple[Metric[AccountState], ...] = (
    Metric(
        "azure_batch_up",
        "gauge",
        "Whether the account's last poll round had no failure that concerns the whole account",
        "the exporter's own polls",
        (),
        _up,
    ),
    Metric(
        "azure_batch_account_failure",
        "gauge",
        "Why azure_batch_up is 0, as the log says it in full; always 1, and absent while it is 1",
        "the exporter's own polls",
        ("cause",),
        _failure,
    ),
    Metric(
        "azure_batch_account_scrape_success",
        "gauge",
        "Whether the last poll of the account by this collector succeeded",
        "the exporter's own polls",
        ("collector",),
        lambda account: _success(_of_account(account)),
    ),
    Metric(
        "azure_batch_account_last_scrape_success_timestamp_seconds",
        "gauge",
        "When a poll of the account by this collector last succeeded",
        "the exporter's own polls",
        ("collector",),
        lambda account: _last_success(_of_account(account)),
    ),
)
