"""How the polls themselves went: of each job and of each account."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from exporter.exposition.metric import NO_SAMPLES, Labels, Metric, Samples, info, only, present


@dataclass(frozen=True, slots=True)
class Health:
    """The last poll of one collector. `succeeded_at`: Unix time of the last good one."""

    success: bool
    succeeded_at: float | None


@dataclass(frozen=True)
class AccountHealth:
    """The last polls of an account's own collectors, by collector.

    `up`: None until a first poll was finished. `cause`: why it is not up, as a fixed word.
    """

    up: bool | None
    collectors: Mapping[str, Health]
    cause: str | None = None


@lru_cache(maxsize=100)
def _labels(*collectors: str) -> tuple[Labels, ...]:
    return tuple((name,) for name in collectors)


def _success(collectors: Mapping[str, Health]) -> Samples:
    return _labels(*collectors), [int(health.success) for health in collectors.values()]


def _last_success(collectors: Mapping[str, Health]) -> Samples:
    return present(_labels(*collectors), [each.succeeded_at for each in collectors.values()])


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
        lambda health: NO_SAMPLES if health.cause is None else info(health.cause),
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
