"""What several dashboards ask, in PromQL with Grafana's variables, and the variables themselves.

A series is of a job (`job_id`) or of a group of jobs (`job_group`). A label that is not there is
empty to PromQL: matched by `.*`, and equal on both sides of an operator. So one query serves both.
With shards each has its part of a group: hence sums, and min or max of what is no sum.
"""

from __future__ import annotations

from tools.dashboards.building import (
    GREEN,
    GREY,
    ORANGE,
    RED,
    Column,
    Link,
    Query,
    Variable,
    board_link,
)

OVERVIEW_UID = "azure-batch-overview"
JOB_UID = "azure-batch-job"
NODES_UID = "azure-batch-nodes"
EXPORTER_UID = "azure-batch-exporter"

OF_ACCOUNT = 'account=~"$account"'
OF_JOB = f'{OF_ACCOUNT},job_id=~"$job_id",job_group=~"$job_group"'
EACH_JOB = "account, job_id, job_group"

ACCOUNT = Variable(
    "account",
    "Account",
    "Batch accounts, as the exporter's configuration names them.",
    query="label_values(azure_batch_up, account)",
    everything=".+",
)
JOB_ID = Variable(
    "job_id",
    "Job",
    "Jobs that have series of their own. Leave it at All to look at a group.",
    query='label_values(azure_batch_job_info{account=~"$account",job_id!=""}, job_id)',
    everything=".*",
)
JOB_GROUP = Variable(
    "job_group",
    "Group",
    "Groups of jobs (`group` in a job rule). Leave it at All to look at a single job.",
    query='label_values(azure_batch_job_info{account=~"$account",job_group!=""}, job_group)',
    everything=".*",
)
POOL_OF_JOBS = Variable(
    "pool_id",
    "Pool",
    "Pools on which preparation and release tasks run.",
    query=f"label_values(azure_batch_job_preparation_tasks{{{OF_JOB}}}, pool_id)",
    everything=".*",
)
POOL = Variable(
    "pool_id",
    "Pool",
    "Pools of the account.",
    query='label_values(azure_batch_pool_nodes{account=~"$account"}, pool_id)',
    everything=".*",
)
WINDOW = Variable(
    "window",
    "Pace over",
    "How far back the pace is measured, from which follows when the work will be done.",
    choices=("30m", "10m", "1h", "3h", "12h"),
)

NODE_COLORS = (
    ("running", GREEN),
    ("idle", GREY),
    ("creating", "super-light-blue"),
    ("starting", "light-blue"),
    ("waitingforstarttask", "blue"),
    ("rebooting", "semi-dark-blue"),
    ("reimaging", "dark-blue"),
    ("upgradingos", "light-purple"),
    ("leavingpool", "light-yellow"),
    ("deallocating", "yellow"),
    ("deallocated", "dark-yellow"),
    ("preempted", ORANGE),
    ("offline", "purple"),
    ("unknown", "dark-purple"),
    ("starttaskfailed", "dark-red"),
    ("unusable", RED),
)

JOB_COLUMN = Column(
    "job_id",
    "Job",
    width=200,
    link=(
        "Open the job",
        board_link(JOB_UID, account="__data.fields.account", job_id="__value.raw"),
    ),
)
GROUP_COLUMN = Column(
    "job_group",
    "Group",
    width=100,
    link=(
        "Open the group",
        board_link(JOB_UID, account="__data.fields.account", job_group="__value.raw"),
    ),
)
ACCOUNT_COLUMN = Column("account", "Account", width=105)
CAUSE_COLUMN = Column(
    "category",
    "Caused by",
    width=85,
    mappings=(("usererror", "user"), ("servererror", "service"), ("unknown", "unknown")),
)
POOL_COLUMN = Column(
    "pool_id",
    "Pool",
    width=120,
    link=(
        "Open the pool",
        board_link(NODES_UID, account="__data.fields.account", pool_id="__value.raw"),
    ),
)


def to_board(uid: str, title: str) -> Link:
    """A link to another dashboard, with the account that is chosen here."""
    return title, f"{board_link(uid)}&${{account:queryparam}}"


def _summed(expression: str, by: str) -> str:
    return f"sum by ({by}) ({expression})" if by else f"sum({expression})"


def sum_of(metric: str, selector: str, by: str = "") -> str:
    """A gauge, summed over all other labels."""
    return _summed(f"{metric}{{{selector}}}", by)


def per_minute(counter: str, selector: str, by: str = "") -> str:
    """Events per minute."""
    return f"60 * {_summed(f'rate({counter}{{{selector}}}[$__rate_interval])', by)}"


def in_range(counter: str, selector: str, by: str = "") -> str:
    """Events in the time that is shown."""
    return _summed(f"increase({counter}{{{selector}}}[$__range])", by)


def happened(counter: str, selector: str, by: str) -> str:
    """Those of the events in the time that is shown of which there was one at least.

    A half: increase() guesses what happened at both ends of the time, so one is not just 1.
    """
    return f"{in_range(counter, selector, by)} > 0.5"


def pace(selector: str) -> str:
    """Tasks that complete per minute, of each job or group that is still there.

    By the minutes in which the window has samples of it: a job need not be as old as the window.
    """
    counter = f"azure_batch_job_tasks_completed_total{{{selector}}}"
    return (
        f"sum by ({EACH_JOB}) (increase({counter}[$window]))"
        f" / max by ({EACH_JOB}) (count_over_time({counter}[$window:1m]))"
        f" and {remaining(selector)}"
    )


def remaining(selector: str) -> str:
    """Tasks that are not completed, of each job or group."""
    return sum_of("azure_batch_job_tasks", f'{selector},state=~"active|running"', EACH_JOB)


def done_in(selector: str) -> str:
    """Seconds until the tasks of each job or group that are there now are done, at this pace."""
    return f"60 * {remaining(selector)} / ({pace(selector)} > 0)"


def without_progress(selector: str, seconds: int) -> str:
    """How many jobs and groups have tasks that wait, none that runs, and no progress for long."""
    waits = sum_of("azure_batch_job_tasks", f'{selector},state="active"', EACH_JOB)
    runs = sum_of("azure_batch_job_tasks", f'{selector},state="running"', EACH_JOB)
    progress = f"azure_batch_job_last_progress_timestamp_seconds{{{selector}}}"
    return (
        f"sum(({waits} > bool 0) * ({runs} == bool 0)"
        f" * (time() - max by ({EACH_JOB}) ({progress}) > bool {seconds}))"
    )


def waiting_slots_by_pool(selector: str, pool: str) -> str:
    """Task slots that jobs and groups with a single pool wait for, by pool."""

    def info(selected: str) -> str:
        return f"max by ({EACH_JOB}, pool_id) (azure_batch_job_info{{{selected}}})"

    slots = sum_of("azure_batch_job_task_slots", f'{selector},state="active"', EACH_JOB)
    return (
        f"sum by (account, pool_id) ({slots} * on ({EACH_JOB}) group_left (pool_id)"
        f" ({info(f'{selector},{pool}')}"
        f" and on ({EACH_JOB}) count by ({EACH_JOB}) ({info(selector)}) == 1))"
    )


def quantiles(
    histogram: str,
    by: str,
    selector: str,
    matched: str = "",
    shares: tuple[tuple[str, float], ...] = (("half within", 0.5), ("95% within", 0.95)),
) -> tuple[Query, ...]:
    """Quantiles of a histogram, by labels.

    `matched`: what stands behind the sum, so that only some of the histograms count. `shares`: what
    they are called, and which.
    """
    buckets = f"sum by (le, {by}) (rate({histogram}_bucket{{{selector}}}[$__rate_interval]))"
    shown = " ".join(f"{{{{{label}}}}}" for label in by.split(", ") if label != "account")
    return tuple(
        Query(f"histogram_quantile({share}, {buckets}{matched})", f"{shown} {text}".strip())
        for text, share in shares
    )
