"""How the polls themselves went: of each job and of each account."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.exposition.metric import Metric, Samples, info, only
from exporter.state.account import AccountHealth, Health


def _success(collectors: Mapping[str, Health]) -> Samples:
    return [((name,), int(health.success)) for name, health in collectors.items()]


def _last_success(collectors: Mapping[str, Health]) -> Samples:
    return [((name,), health.succeeded_at) for name, health in collectors.items()]


JOB_METRICS: tuple[Metric[Mapping[str, Health]], ...] = (
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

ACCOUNT_METRICS: tuple[Metric[AccountHealth], ...] = (
    Metric(
        "azure_batch_up",
        "gauge",
        "Whether the account's last poll round had no failure that concerns the whole account",
        "the exporter's own polls",
        (),
        lambda health: only(None if health.up is None else int(health.up)),
    ),
    Metric(
        "azure_batch_account_failure",
        "gauge",
        "Why azure_batch_up is 0, as the log says it in full; always 1, and absent while it is 1",
        "the exporter's own polls",
        ("cause",),
        lambda health: [] if health.cause is None else info(health.cause),
    ),
    Metric(
        "azure_batch_account_scrape_success",
        "gauge",
        "Whether the last poll of the account by this collector succeeded",
        "the exporter's own polls",
        ("collector",),
        lambda health: _success(health.collectors),
    ),
    Metric(
        "azure_batch_account_last_scrape_success_timestamp_seconds",
        "gauge",
        "When a poll of the account by this collector last succeeded",
        "the exporter's own polls",
        ("collector",),
        lambda health: _last_success(health.collectors),
    ),
)
