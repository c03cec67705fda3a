"""The job dashboard's section on what is done on each node before and after the tasks."""

from __future__ import annotations

from tools.dashboards.building import BLUE, GREEN, RED, Column, Lines, Panel, Query, Rows, Section
from tools.dashboards.vocabulary import (
    ACCOUNT_COLUMN,
    CAUSE_COLUMN,
    NODES_UID,
    OF_JOB,
    POOL_COLUMN,
    sum_of,
    to_board,
)

OF_JOB_AND_POOL = f'{OF_JOB},pool_id=~"$pool_id"'

NO_PREPARATION = "The job has no preparation task, or none was run yet."
NO_RELEASE = "The job has no release task, or none was run yet."


def _by_pool(kind: str, title: str, empty: str) -> Panel:
    counts = f"azure_batch_job_{kind}"
    oldest = f"azure_batch_job_{kind}_oldest_running_start_timestamp_seconds"
    by = "account, pool_id"
    return Rows(
        f"{title} by pool",
        f"Nodes by state and result of their latest run of the {kind} task, and for how long the"
        " longest has been running.",
        empty,
        (
            Query(sum_of(f"{counts}_tasks", f'{OF_JOB_AND_POOL},state="running"', by), "running"),
            Query(
                sum_of(f"{counts}_completed_tasks", f'{OF_JOB_AND_POOL},result="success"', by),
                "succeeded",
            ),
            Query(
                sum_of(f"{counts}_completed_tasks", f'{OF_JOB_AND_POOL},result="failure"', by),
                "failed",
            ),
            Query(f"time() - min by ({by}) ({oldest}{{{OF_JOB_AND_POOL}}})", "longest"),
        ),
        width=12,
        height=7,
        columns=(
            POOL_COLUMN,
            Column("running", "Running", width=80),
            Column("succeeded", "Succeeded", width=95),
            Column("failed", "Failed", width=70, alarming=True),
            Column("longest", "Running for", unit="dtdurations"),
            ACCOUNT_COLUMN,
        ),
        sort="Failed",
    )


def _runs(kind: str, title: str, empty: str) -> Panel:
    return Lines(
        f"{title} over time",
        f"Nodes by state and result of their latest run of the {kind} task.",
        empty,
        (
            Query(
                sum_of(
                    f"azure_batch_job_{kind}_completed_tasks", f'{OF_JOB_AND_POOL},result="success"'
                ),
                "succeeded",
            ),
            Query(
                sum_of(f"azure_batch_job_{kind}_tasks", f'{OF_JOB_AND_POOL},state="running"'),
                "running",
            ),
            Query(
                sum_of(
                    f"azure_batch_job_{kind}_completed_tasks", f'{OF_JOB_AND_POOL},result="failure"'
                ),
                "failed",
            ),
        ),
        stacked=True,
        colors=(("succeeded", GREEN), ("running", BLUE), ("failed", RED)),
    )


def _failed_runs(kind: str, title: str, scenario: str, runbook: str) -> Panel:
    return Rows(
        f"Why {kind} fails",
        f"Nodes whose latest run of the {kind} task failed, by pool, category and code. Exit code,"
        " message and node of the latest ones: /api/v1/failures of the exporter.",
        f"{title} fails on no node.",
        (
            Query(
                sum_of(
                    f"azure_batch_job_{kind}_failed_tasks",
                    OF_JOB_AND_POOL,
                    "account, pool_id, category, code",
                ),
                "nodes",
                scenario,
            ),
        ),
        width=12,
        height=7,
        columns=(
            POOL_COLUMN,
            CAUSE_COLUMN,
            Column("code", "Code"),
            Column("nodes", "Nodes", width=75, alarming=True),
            ACCOUNT_COLUMN,
        ),
        sort="Nodes",
        links=(to_board(NODES_UID, "Nodes"),),
        runbook=runbook,
    )


PREPARATION = Section(
    "Preparation and release",
    (
        _by_pool("preparation", "Preparation", NO_PREPARATION),
        _by_pool("release", "Release", NO_RELEASE),
        _runs("preparation", "Preparation", NO_PREPARATION),
        _runs("release", "Release", NO_RELEASE),
        _failed_runs("preparation", "Preparation", "prep-storm", "AzureBatchPreparationFailing"),
        _failed_runs("release", "Release", "flaky-tasks", "AzureBatchReleaseTasksFailing"),
    ),
)
