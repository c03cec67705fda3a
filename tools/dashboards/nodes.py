"""Nodes and what is done on them before and after a job: which pools fail to prepare, and why."""

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
    GROUP_COLUMN,
    JOB_COLUMN,
    NODE_COLORS,
    NODES_UID,
    OF_ACCOUNT,
    POOL,
    POOL_COLUMN,
    happened,
    per_minute,
    quantiles,
    sum_of,
    waiting_slots_by_pool,
)

OF_POOL = f'{OF_ACCOUNT},pool_id=~"$pool_id"'
BY_POOL = "account, pool_id"
BROKEN = "unusable|starttaskfailed|offline|unknown"
ARRIVING = "creating|starting|waitingforstarttask|rebooting|reimaging|upgradingos"
LEAVING = "leavingpool|deallocating|deallocated"

NO_NODES = "No pool, or `pool_nodes` is off in the exporter's configuration."
NO_PREPARATION = "No job on these pools has a preparation task."
NO_RELEASE = "No job on these pools has a release task that was run."
NOTHING_PREPARED = "No preparation task ended in this time."


def _nodes(states: str = "", by: str = "") -> str:
    selector = f'{OF_POOL},state=~"{states}"' if states else OF_POOL
    return sum_of("azure_batch_pool_nodes", selector, by)


def _runs(kind: str, what: str, value: str, by: str = "") -> str:
    """Nodes by state or result of their latest run of a preparation or release task."""
    metric = f"azure_batch_job_{kind}_tasks"
    if what == "result":
        metric = f"azure_batch_job_{kind}_completed_tasks"
    return sum_of(metric, f'{OF_POOL},{what}="{value}"', by)


def _longest(kind: str, by: str) -> str:
    metric = f"azure_batch_job_{kind}_oldest_running_start_timestamp_seconds"
    return f"time() - min by ({by}) ({metric}{{{OF_POOL}}})"


def _durations(kind: str) -> tuple[Query, ...]:
    histogram = f"azure_batch_{kind}_task_duration_seconds"
    return quantiles(histogram, "pool_id", OF_POOL, shares=(("", 0.95),))


NOW = Section(
    "Now",
    (
        Figure(
            "Nodes",
            "Nodes of the pools, in whatever state.",
            NO_NODES,
            (Query(_nodes()),),
            width=4,
            history=True,
        ),
        Figure(
            "Nodes at work",
            "Nodes on which a task runs.",
            NO_NODES,
            (Query(_nodes("running")),),
            width=4,
            history=True,
        ),
        Figure(
            "Nodes idle",
            "Nodes that could run tasks and have none. Idle nodes while tasks wait: preparation"
            " fails there, or no node has as many free slots as a task needs.",
            NO_NODES,
            (Query(_nodes("idle")),),
            width=4,
            history=True,
        ),
        Figure(
            "Nodes broken",
            "Nodes that are unusable, offline, unknown or whose start task failed: they cost money"
            " and take no tasks.",
            NO_NODES,
            (Query(_nodes(BROKEN)),),
            width=4,
            steps=((None, GREEN), (1, RED)),
            runbook="AzureBatchNodesUnusable",
        ),
        Figure(
            "Nodes preempted",
            "Low-priority nodes that Azure has taken back; their tasks are queued again.",
            NO_NODES,
            (Query(_nodes("preempted")),),
            width=4,
            steps=((None, GREEN), (1, ORANGE)),
        ),
        Figure(
            "Nodes not prepared",
            "Nodes whose latest run of a preparation task failed. A node counts for each job.",
            NO_PREPARATION,
            (Query(_runs("preparation", "result", "failure")),),
            width=4,
            steps=((None, GREEN), (1, RED)),
            runbook="AzureBatchPreparationFailing",
        ),
    ),
)

POOLS = Section(
    "Pools",
    (
        Rows(
            "Pools",
            "A row for each pool. Slots wanted: of the tasks that wait of jobs and groups that run"
            " on one pool only.",
            NO_NODES,
            (
                Query(_nodes(by=BY_POOL), "nodes"),
                Query(_nodes("running", BY_POOL), "running"),
                Query(_nodes("idle", BY_POOL), "idle"),
                Query(_nodes(ARRIVING, BY_POOL), "arriving"),
                Query(_nodes(LEAVING, BY_POOL), "leaving"),
                Query(_nodes("preempted", BY_POOL), "preempted"),
                Query(_nodes(BROKEN, BY_POOL), "broken"),
                Query(waiting_slots_by_pool(OF_ACCOUNT, 'pool_id=~"$pool_id"'), "wanted"),
                Query(_runs("preparation", "state", "running", BY_POOL), "preparing"),
                Query(_runs("preparation", "result", "failure", BY_POOL), "unprepared"),
                Query(_longest("preparation", BY_POOL), "longest"),
            ),
            height=9,
            columns=(
                ACCOUNT_COLUMN,
                Column("pool_id", "Pool", width=200),
                Column("nodes", "Nodes", width=75),
                Column("running", "Running", width=85),
                Column("idle", "Idle", width=65),
                Column("arriving", "Arriving", width=85),
                Column("leaving", "Leaving", width=85),
                Column("preempted", "Preempted", width=95),
                Column("broken", "Broken", width=80, alarming=True),
                Column("wanted", "Slots wanted", width=110),
                Column("preparing", "Preparing", width=95),
                Column("unprepared", "Not prepared", width=110, alarming=True),
                Column("longest", "Preparing for", unit="dtdurations"),
            ),
            sort="Not prepared",
        ),
        Lines(
            "Nodes by state",
            "Nodes of the pools by state; states without a node are left out.",
            NO_NODES,
            (Query(f"{_nodes(by='state')} > 0", "{{state}}"),),
            stacked=True,
            colors=NODE_COLORS,
        ),
        Lines(
            "Nodes by pool",
            "Nodes of each pool, dedicated and low-priority.",
            NO_NODES,
            (Query(_nodes(by="pool_id, kind"), "{{pool_id}} {{kind}}"),),
            stacked=True,
            beside=True,
        ),
    ),
)

PREPARATION = Section(
    "Preparation",
    (
        Rows(
            "Which jobs fail to prepare",
            "Nodes whose latest run of the preparation task failed, by job, pool, category and"
            " code. One code on all nodes of a pool: its image or start task. One job on all"
            " pools: its own preparation task.",
            "No node fails to prepare.",
            (
                Query(
                    sum_of(
                        "azure_batch_job_preparation_failed_tasks",
                        OF_POOL,
                        f"{EACH_JOB}, pool_id, category, code",
                    ),
                    "nodes",
                    "prep-storm",
                ),
            ),
            columns=(
                JOB_COLUMN,
                GROUP_COLUMN,
                POOL_COLUMN,
                CAUSE_COLUMN,
                Column("code", "Code"),
                Column("nodes", "Nodes", width=75, alarming=True),
                ACCOUNT_COLUMN,
            ),
            sort="Nodes",
            runbook="AzureBatchPreparationFailingEverywhere",
        ),
        Lines(
            "Nodes not prepared by pool",
            "Nodes whose latest run of a preparation task failed, by pool.",
            NO_PREPARATION,
            (Query(_runs("preparation", "result", "failure", "pool_id"), "{{pool_id}}"),),
            stacked=True,
            beside=True,
        ),
        Lines(
            "Preparation that fails",
            "Runs of preparation tasks on nodes that failed, per minute, by pool.",
            NO_PREPARATION,
            (
                Query(
                    per_minute(
                        "azure_batch_job_preparation_tasks_failed_total", OF_POOL, "pool_id"
                    ),
                    "{{pool_id}}",
                ),
            ),
            unit=PER_MINUTE,
            beside=True,
        ),
        Lines(
            "Preparation that succeeds",
            "Runs of preparation tasks on nodes that succeeded, per minute, by pool.",
            NO_PREPARATION,
            (
                Query(
                    per_minute(
                        "azure_batch_job_preparation_tasks_completed_total",
                        f'{OF_POOL},result="success"',
                        "pool_id",
                    ),
                    "{{pool_id}}",
                ),
            ),
            unit=PER_MINUTE,
            beside=True,
        ),
        Lines(
            "Retries of preparation",
            "Retries of preparation tasks on nodes, per minute, by pool: they fail, and may yet"
            " succeed.",
            NO_PREPARATION,
            (
                Query(
                    per_minute(
                        "azure_batch_job_preparation_task_retries_total", OF_POOL, "pool_id"
                    ),
                    "{{pool_id}}",
                ),
            ),
            unit=PER_MINUTE,
            beside=True,
        ),
        Lines(
            "How long preparation takes",
            "Within which time 95% of the preparation tasks ended, by pool; of all jobs of"
            " the account.",
            NOTHING_PREPARED,
            _durations("preparation"),
            unit="s",
            bridged=True,
            beside=True,
        ),
        Lines(
            "Longest preparation that runs",
            "For how long the oldest preparation task has been running, by pool. Far above the"
            " usual: it hangs, and the job's tasks wait for it on that node.",
            "No preparation task runs.",
            (Query(_longest("preparation", "pool_id"), "{{pool_id}}"),),
            unit="s",
            beside=True,
        ),
    ),
)

RELEASE = Section(
    "Release",
    (
        Rows(
            "Failed release by code",
            "Runs of release tasks on nodes that failed in the time shown.",
            "No release task failed in this time.",
            (
                Query(
                    happened(
                        "azure_batch_job_release_task_failure_codes_total",
                        OF_POOL,
                        f"{EACH_JOB}, pool_id, category, code",
                    ),
                    "runs",
                    "flaky-tasks",
                ),
            ),
            width=12,
            decimals=0,
            columns=(
                JOB_COLUMN,
                GROUP_COLUMN,
                POOL_COLUMN,
                CAUSE_COLUMN,
                Column("code", "Code"),
                Column("runs", "Runs"),
                ACCOUNT_COLUMN,
            ),
            sort="Runs",
            runbook="AzureBatchReleaseTasksFailing",
        ),
        Lines(
            "How long release takes",
            "Within which time 95% of the release tasks ended, by pool; of all jobs of the"
            " account.",
            NO_RELEASE,
            _durations("release"),
            unit="s",
            bridged=True,
            beside=True,
        ),
    ),
)

BOARD = Board(
    NODES_UID,
    "Azure Batch / Nodes",
    "Nodes of the pools, and which of them fail to prepare for a job.",
    (ACCOUNT, POOL),
    (NOW, POOLS, PREPARATION, RELEASE),
)
