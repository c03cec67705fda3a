"""All accounts: what waits, what fails and why, when it will be done."""

from __future__ import annotations

from tools.dashboards.building import (
    GREEN,
    ORANGE,
    PER_MINUTE,
    RED,
    Board,
    Column,
    Figure,
    Lines,
    Query,
    Rows,
    Section,
)
from tools.dashboards.vocabulary import (
    ACCOUNT,
    ACCOUNT_COLUMN,
    CAUSE_COLUMN,
    EACH_JOB,
    EXPORTER_UID,
    GROUP_COLUMN,
    JOB_COLUMN,
    NODE_COLORS,
    NODES_UID,
    OF_ACCOUNT,
    OVERVIEW_UID,
    POOL_COLUMN,
    WINDOW,
    done_in,
    happened,
    in_range,
    pace,
    per_minute,
    sum_of,
    to_board,
    without_progress,
)

NO_JOBS = "No job is watched: see `jobs` in the exporter's configuration."
STUCK_AFTER = 1800  # seconds

NOW = Section(
    "Now",
    (
        Figure(
            "Accounts that fail",
            "Accounts that the exporter cannot poll at all: no network, no permission, or"
            " throttled.",
            "No account: does Prometheus scrape the exporter?",
            (Query(f"sum(min by (account) (azure_batch_up{{{OF_ACCOUNT}}}) == bool 0)"),),
            steps=((None, GREEN), (1, RED)),
            links=(to_board(EXPORTER_UID, "Which, and is the exporter well?"),),
            runbook="AzureBatchAccountUnreachable",
        ),
        Figure(
            "Active jobs",
            "Selected jobs in the state active; the others are disabled, terminating or completed.",
            NO_JOBS,
            (Query(sum_of("azure_batch_jobs", f'{OF_ACCOUNT},state="active"')),),
            history=True,
        ),
        Figure(
            "Tasks waiting",
            "Tasks in the state active: queued for a node, or waiting for other tasks.",
            NO_JOBS,
            (Query(sum_of("azure_batch_job_tasks", f'{OF_ACCOUNT},state="active"')),),
            history=True,
        ),
        Figure(
            "Tasks running",
            "Tasks on a node, those that still wait for the job's preparation among them.",
            NO_JOBS,
            (Query(sum_of("azure_batch_job_tasks", f'{OF_ACCOUNT},state="running"')),),
            history=True,
        ),
        Figure(
            "Tasks failed",
            "Tasks that failed in the time shown. One that succeeded in a retry did not fail.",
            NO_JOBS,
            (
                Query(
                    in_range(
                        "azure_batch_account_tasks_completed_total",
                        f'{OF_ACCOUNT},result="failure"',
                    )
                ),
            ),
            decimals=0,
            steps=((None, GREEN), (1, ORANGE)),
            runbook="AzureBatchTasksFailing",
        ),
        Figure(
            "Preparation failed",
            "Nodes whose latest run of a job's preparation task failed: no task of the job runs"
            " there.",
            "No job has a preparation task.",
            (
                Query(
                    sum_of(
                        "azure_batch_job_preparation_completed_tasks",
                        f'{OF_ACCOUNT},result="failure"',
                    )
                ),
            ),
            steps=((None, GREEN), (1, RED)),
            links=(to_board(NODES_UID, "On which nodes' pools?"),),
            runbook="AzureBatchPreparationFailing",
        ),
        Figure(
            "Without progress",
            "Jobs and groups of which tasks wait, none runs, and none completed for half an hour.",
            NO_JOBS,
            (Query(without_progress(OF_ACCOUNT, STUCK_AFTER)),),
            steps=((None, GREEN), (1, RED)),
            runbook="AzureBatchJobStalled",
        ),
        Figure(
            "Oldest data",
            "Age of the oldest of all values shown here. It is at most the polling interval while"
            " all is well; of idle jobs `idle_interval`.",
            NO_JOBS,
            (
                Query(
                    "time() - min(azure_batch_job_last_scrape_success_timestamp_seconds"
                    f"{{{OF_ACCOUNT}}})"
                ),
            ),
            unit="s",
            decimals=0,
            steps=((None, GREEN), (300, ORANGE), (900, RED)),
            links=(to_board(EXPORTER_UID, "Why is it old?"),),
            runbook="AzureBatchDataStale",
        ),
    ),
)

JOBS = Section(
    "Jobs and groups",
    (
        Rows(
            "Jobs and groups",
            "A row for each job that has series of its own, and for each group. Done in: the tasks"
            " that wait and run now, at the pace of the time chosen above; tasks to come are not"
            " known. A click on the name opens it.",
            NO_JOBS,
            (
                Query(
                    sum_of("azure_batch_job_tasks", f'{OF_ACCOUNT},state="active"', EACH_JOB),
                    "waiting",
                ),
                Query(
                    sum_of("azure_batch_job_tasks", f'{OF_ACCOUNT},state="running"', EACH_JOB),
                    "running",
                ),
                Query(
                    sum_of(
                        "azure_batch_job_completed_tasks",
                        f'{OF_ACCOUNT},result="success"',
                        EACH_JOB,
                    ),
                    "succeeded",
                ),
                Query(
                    sum_of(
                        "azure_batch_job_completed_tasks",
                        f'{OF_ACCOUNT},result="failure"',
                        EACH_JOB,
                    ),
                    "failed",
                ),
                Query(
                    sum_of(
                        "azure_batch_job_preparation_completed_tasks",
                        f'{OF_ACCOUNT},result="failure"',
                        EACH_JOB,
                    ),
                    "unprepared",
                ),
                Query(pace(OF_ACCOUNT), "pace"),
                Query(done_in(OF_ACCOUNT), "done in"),
                Query(
                    f"time() - max by ({EACH_JOB})"
                    f" (azure_batch_job_last_progress_timestamp_seconds{{{OF_ACCOUNT}}})",
                    "since progress",
                ),
            ),
            height=12,
            columns=(
                ACCOUNT_COLUMN,
                JOB_COLUMN,
                GROUP_COLUMN,
                Column("waiting", "Waiting", width=90),
                Column("running", "Running", width=90),
                Column("succeeded", "Succeeded", width=95),
                Column("failed", "Failed", width=80, alarming=True),
                Column("unprepared", "Not prepared", width=110, alarming=True),
                Column("pace", "Per minute", width=95, decimals=1),
                Column("done in", "Done in", unit="dtdurations"),
                Column("since progress", "Since progress", unit="dtdurations"),
            ),
            sort="Waiting",
        ),
    ),
)

OVER_TIME = Section(
    "Over time",
    (
        Lines(
            "Tasks",
            "Tasks of all selected jobs that wait and run.",
            NO_JOBS,
            (
                Query(sum_of("azure_batch_job_tasks", f'{OF_ACCOUNT},state="running"'), "running"),
                Query(sum_of("azure_batch_job_tasks", f'{OF_ACCOUNT},state="active"'), "waiting"),
            ),
            stacked=True,
            colors=(("running", GREEN), ("waiting", ORANGE)),
        ),
        Lines(
            "Tasks that complete",
            "Tasks that completed per minute, by result; those of jobs that are gone by now, too.",
            NO_JOBS,
            (
                Query(
                    per_minute("azure_batch_account_tasks_completed_total", OF_ACCOUNT, "result"),
                    "{{result}}",
                ),
            ),
            unit=PER_MINUTE,
            colors=(("success", GREEN), ("failure", RED)),
        ),
        Lines(
            "Task slots",
            "Slots that the tasks need. A task may need several: this, not the number of tasks, is"
            " what a pool must offer.",
            NO_JOBS,
            (
                Query(
                    sum_of("azure_batch_job_task_slots", f'{OF_ACCOUNT},state="running"'), "in use"
                ),
                Query(
                    sum_of("azure_batch_job_task_slots", f'{OF_ACCOUNT},state="active"'), "wanted"
                ),
            ),
            stacked=True,
            colors=(("in use", GREEN), ("wanted", ORANGE)),
        ),
        Lines(
            "Nodes",
            "Nodes of all pools by state; states without a node are left out.",
            "No pool has a node, or `pool_nodes` is off in the exporter's configuration.",
            (Query(f"{sum_of('azure_batch_pool_nodes', OF_ACCOUNT, 'state')} > 0", "{{state}}"),),
            stacked=True,
            colors=NODE_COLORS,
            links=(to_board(NODES_UID, "Nodes by pool"),),
        ),
    ),
)

FAILURES = Section(
    "What fails, and why",
    (
        Lines(
            "Failures",
            "Failed tasks and failed runs of preparation and release on nodes, per minute, by who"
            " caused it: the user's program and files, or the service. Of tasks where the"
            " collector `tasks` reads them.",
            NO_JOBS,
            tuple(
                Query(
                    per_minute(f"azure_batch_account_{counter}_total", OF_ACCOUNT, "category"),
                    f"{what}: {{{{category}}}}",
                )
                for what, counter in (
                    ("task", "tasks_failed"),
                    ("preparation", "preparation_tasks_failed"),
                    ("release", "release_tasks_failed"),
                )
            ),
            unit=PER_MINUTE,
            width=24,
        ),
        Rows(
            "Failed tasks by code",
            "Tasks that failed in the time shown, by the service's category and code."
            " FailureExitCode: the task's own program said so.",
            "No task failed in this time, or no job has `tasks` in `collect`.",
            (
                Query(
                    happened(
                        "azure_batch_job_task_failure_codes_total",
                        OF_ACCOUNT,
                        f"{EACH_JOB}, category, code",
                    ),
                    "failures",
                    "flaky-tasks",
                ),
            ),
            width=11,
            decimals=0,
            columns=(
                JOB_COLUMN,
                GROUP_COLUMN,
                CAUSE_COLUMN,
                Column("code", "Code"),
                Column("failures", "Tasks", width=60),
                ACCOUNT_COLUMN,
            ),
            sort="Tasks",
            runbook="AzureBatchTasksFailing",
        ),
        Rows(
            "Failed preparation by code",
            "Runs of preparation tasks on nodes that failed in the time shown, by pool, category"
            " and code. One code on all nodes of a pool: its image or its start task.",
            "No preparation failed in this time.",
            (
                Query(
                    happened(
                        "azure_batch_job_preparation_task_failure_codes_total",
                        OF_ACCOUNT,
                        f"{EACH_JOB}, pool_id, category, code",
                    ),
                    "failures",
                    "prep-storm",
                ),
            ),
            width=13,
            decimals=0,
            columns=(
                JOB_COLUMN,
                GROUP_COLUMN,
                POOL_COLUMN,
                CAUSE_COLUMN,
                Column("code", "Code"),
                Column("failures", "Runs", width=60),
                ACCOUNT_COLUMN,
            ),
            sort="Runs",
            runbook="AzureBatchPreparationFailing",
        ),
    ),
)

BOARD = Board(
    OVERVIEW_UID,
    "Azure Batch / Overview",
    "All jobs of all accounts: what waits, what fails and why, when it will be done.",
    (ACCOUNT, WINDOW),
    (NOW, JOBS, OVER_TIME, FAILURES),
)
