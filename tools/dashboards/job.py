"""One job or one group: how far it is, when it will be done, and what fails."""

from __future__ import annotations

from tools.dashboards.building import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PER_MINUTE,
    RED,
    Board,
    Column,
    Figure,
    Lines,
    Panel,
    Query,
    Rows,
    Section,
)
from tools.dashboards.job_preparation import PREPARATION
from tools.dashboards.vocabulary import (
    ACCOUNT,
    ACCOUNT_COLUMN,
    CAUSE_COLUMN,
    EACH_JOB,
    JOB_GROUP,
    JOB_ID,
    JOB_UID,
    OF_JOB,
    POOL_COLUMN,
    POOL_OF_JOBS,
    WINDOW,
    done_in,
    pace,
    per_minute,
    quantiles,
    remaining,
    sum_of,
)

EACH_TASK = f"{EACH_JOB}, task_id"

NO_JOB = "No such job: it was deleted, no rule selects it, or a job and a group are chosen at once."
NO_TASKS_READ = "Single tasks are not read: add `tasks` to the job rule's `collect`."
NO_TASK_WATCHED = "No task is watched: name some in `tasks` of the job rule."


def _tasks(state: str) -> str:
    return sum_of("azure_batch_job_tasks", f'{OF_JOB},state="{state}"')


def _slots(state: str) -> str:
    return sum_of("azure_batch_job_task_slots", f'{OF_JOB},state="{state}"')


def _completed(result: str) -> str:
    return sum_of("azure_batch_job_completed_tasks", f'{OF_JOB},result="{result}"')


def _oldest(metric: str) -> str:
    return f"time() - min(azure_batch_job_{metric}_timestamp_seconds{{{OF_JOB}}})"


def _highest(metric: str, by: str, condition: str = "") -> str:
    return f"max by ({by}) (azure_batch_{metric}{{{OF_JOB}}}{f' {condition}' if condition else ''})"


PROGRESS = Section(
    "Progress",
    (
        Figure(
            "Waiting",
            "Tasks in the state active: queued for a node, or waiting for other tasks.",
            NO_JOB,
            (Query(_tasks("active")),),
        ),
        Figure(
            "Running",
            "Tasks on a node, those that still wait for the job's preparation among them.",
            NO_JOB,
            (Query(_tasks("running")),),
        ),
        Figure(
            "Succeeded",
            "Tasks that completed with success, of all that are there now.",
            NO_JOB,
            (Query(_completed("success")),),
            steps=((None, GREEN),),
        ),
        Figure(
            "Failed",
            "Tasks that completed with failure, of all that are there now.",
            NO_JOB,
            (Query(_completed("failure")),),
            steps=((None, GREEN), (1, RED)),
            runbook="AzureBatchTasksFailing",
        ),
        Figure(
            "Pace",
            "Tasks that completed per minute, in the time chosen above.",
            NO_JOB,
            (Query(f"sum({pace(OF_JOB)})"),),
            unit=PER_MINUTE,
            decimals=1,
        ),
        Figure(
            "Done in",
            "When the tasks that wait and run now are done at this pace; of several jobs, the last"
            " of them. Tasks to come are not known.",
            "No telling: no task completed.",
            (Query(f"max({done_in(OF_JOB)})"),),
            unit="dtdurations",
        ),
        Figure(
            "Since progress",
            "Since when no task completed, as the exporter saw it.",
            NO_JOB,
            (Query(f"time() - max(azure_batch_job_last_progress_timestamp_seconds{{{OF_JOB}}})"),),
            unit="dtdurations",
            steps=((None, GREEN), (1800, ORANGE)),
            runbook="AzureBatchJobStalled",
        ),
        Figure(
            "Completed",
            "Tasks that completed, of all that are there now.",
            NO_JOB,
            (Query(f"{_tasks('completed')} / {sum_of('azure_batch_job_tasks', OF_JOB)}"),),
            unit="percentunit",
            decimals=0,
        ),
        Lines(
            "Tasks",
            "Tasks of the job by state. It goes on where running tasks are many and waiting ones"
            " become fewer.",
            NO_JOB,
            (
                Query(_tasks("completed"), "completed"),
                Query(_tasks("running"), "running"),
                Query(_tasks("active"), "waiting"),
            ),
            stacked=True,
            colors=(("completed", GREY), ("running", GREEN), ("waiting", ORANGE)),
        ),
        Lines(
            "Throughput",
            "Tasks that were added, started and completed, per minute. More starts than ends for"
            " long: tasks are queued again, or retried.",
            NO_JOB,
            (
                Query(per_minute("azure_batch_job_tasks_added_total", OF_JOB), "added"),
                Query(per_minute("azure_batch_job_tasks_started_total", OF_JOB), "started"),
                Query(
                    per_minute("azure_batch_job_tasks_completed_total", OF_JOB, "result"),
                    "{{result}}",
                ),
            ),
            unit=PER_MINUTE,
            colors=(("added", GREY), ("started", BLUE), ("success", GREEN), ("failure", RED)),
        ),
        Lines(
            "Task slots",
            "Slots that the tasks need: what the pool must offer.",
            NO_JOB,
            (Query(_slots("running"), "in use"), Query(_slots("active"), "wanted")),
            stacked=True,
            colors=(("in use", GREEN), ("wanted", ORANGE)),
        ),
        Lines(
            "Left to do",
            "Tasks that wait and run, of each job or group that is chosen.",
            NO_JOB,
            (Query(remaining(OF_JOB), "{{job_id}}{{job_group}}"),),
        ),
    ),
)


FAILURES = Section(
    "Failed tasks",
    (
        Rows(
            "Why tasks fail",
            "Failed tasks that are there now, by category and code. FailureExitCode: the task's"
            " own program said so. Exit code, message and task id of the latest ones:"
            " /api/v1/failures of the exporter.",
            f"No task is failed. {NO_TASKS_READ}",
            (
                Query(
                    sum_of("azure_batch_job_failed_tasks", OF_JOB, "category, code"),
                    "tasks",
                    "flaky-tasks",
                ),
            ),
            width=8,
            columns=(
                CAUSE_COLUMN,
                Column("code", "Code"),
                Column("tasks", "Tasks", alarming=True),
            ),
            sort="Tasks",
            runbook="AzureBatchTasksFailing",
        ),
        Lines(
            "Failures",
            "Tasks that failed per minute, by who caused it: the user's program and files, or the"
            " service.",
            NO_TASKS_READ,
            (
                Query(
                    per_minute("azure_batch_job_tasks_failed_total", OF_JOB, "category"),
                    "{{category}}",
                ),
            ),
            unit=PER_MINUTE,
            width=8,
        ),
        Lines(
            "Retried and queued again",
            "Retries after a failure, and tasks that were put back into the queue, as when they"
            " lost their node; per minute.",
            NO_TASKS_READ,
            (
                Query(per_minute("azure_batch_job_task_retries_total", OF_JOB), "retried"),
                Query(per_minute("azure_batch_job_task_requeues_total", OF_JOB), "queued again"),
            ),
            unit=PER_MINUTE,
            width=8,
            colors=(("retried", ORANGE), ("queued again", BLUE)),
        ),
    ),
)

# A histogram is of a group, or of all jobs without one: this finds those of the jobs chosen.
MATCHED = f" and on (account, job_group) azure_batch_job_info{{{OF_JOB}}}"


def _durations(title: str, what: str, histogram: str, empty: str, pool: str = "") -> Panel:
    selector = f'account=~"$account"{pool}'
    return Lines(
        title,
        f"Within which time half and 95% of {what}. Of the whole group; of a job without a group,"
        " of all such jobs of the account.",
        empty,
        quantiles(f"azure_batch_{histogram}_seconds", "account, job_group", selector, MATCHED),
        unit="s",
        bridged=True,
    )


POOL_CHOSEN = ',pool_id=~"$pool_id"'

DURATIONS = Section(
    "Durations",
    (
        _durations("How long tasks run", "the tasks ran", "task_run", NO_TASKS_READ),
        _durations(
            "How long tasks wait", "the tasks waited for a node", "task_wait", NO_TASKS_READ
        ),
        _durations(
            "How long preparation takes",
            "the preparation tasks ended on a node",
            "preparation_task_duration",
            "No preparation task ended in this time.",
            POOL_CHOSEN,
        ),
        _durations(
            "How long release takes",
            "the release tasks ended on a node",
            "release_task_duration",
            "No release task ended in this time.",
            POOL_CHOSEN,
        ),
        Lines(
            "The oldest",
            "For how long the oldest task has been waiting and running, and the oldest preparation"
            " and release task have been running. A line that only rises: something hangs.",
            "Nothing waits or runs, or single tasks are not read.",
            (
                Query(_oldest("oldest_active_task_created"), "task waits"),
                Query(_oldest("oldest_running_task_start"), "task runs"),
                Query(_oldest("preparation_oldest_running_start"), "preparation runs"),
                Query(_oldest("release_oldest_running_start"), "release runs"),
            ),
            unit="s",
            runbook="AzureBatchTasksQueuedTooLong",
        ),
        Lines(
            "Age of the data",
            "Since when the collectors did not read these jobs. Above some minutes: see the"
            " exporter's dashboard.",
            NO_JOB,
            (
                Query(
                    "time() - min by (collector)"
                    f" (azure_batch_job_last_scrape_success_timestamp_seconds{{{OF_JOB}}})",
                    "{{collector}}",
                ),
            ),
            unit="s",
            runbook="AzureBatchDataStale",
        ),
    ),
)

WATCHED = Section(
    "Watched tasks",
    (
        Rows(
            "Watched tasks",
            "The tasks that the job rule names in `tasks`.",
            NO_TASK_WATCHED,
            (
                Query(_highest("task_state", f"{EACH_TASK}, state", "== 1"), "is"),
                Query(_highest("task_exit_code", EACH_TASK), "exit code"),
                Query(
                    _highest("task_failure", f"{EACH_TASK}, category, code"),
                    "failure",
                    "flaky-tasks",
                ),
                Query(sum_of("azure_batch_task_retries", OF_JOB, EACH_TASK), "retries"),
                Query(sum_of("azure_batch_task_requeues", OF_JOB, EACH_TASK), "requeues"),
                Query(sum_of("azure_batch_task_stats_wait_seconds", OF_JOB, EACH_TASK), "waited"),
                Query(
                    sum_of("azure_batch_task_stats_wall_clock_seconds", OF_JOB, EACH_TASK), "ran"
                ),
                Query(sum_of("azure_batch_task_stats_cpu_seconds", OF_JOB, EACH_TASK), "cpu"),
                Query(sum_of("azure_batch_task_stats_read_bytes", OF_JOB, EACH_TASK), "read"),
                Query(sum_of("azure_batch_task_stats_written_bytes", OF_JOB, EACH_TASK), "written"),
            ),
            columns=(
                Column("job_id", "Job"),
                Column("job_group", "Group"),
                Column("task_id", "Task"),
                Column("state", "State"),
                Column("exit code", "Exit code", alarming=True),
                CAUSE_COLUMN,
                Column("code", "Code"),
                Column("retries", "Retries"),
                Column("requeues", "Queued again"),
                Column("waited", "Waited", unit="dtdurations"),
                Column("ran", "Ran", unit="dtdurations"),
                Column("cpu", "CPU time", unit="dtdurations"),
                Column("read", "Read", unit="bytes"),
                Column("written", "Written", unit="bytes"),
            ),
        ),
    ),
)

ABOUT = Section(
    "About the job",
    (
        Rows(
            "Jobs",
            "What the jobs are called, where they run, and when they were created, started and"
            " ended. A group has a row for each pool, and no state or times.",
            NO_JOB,
            (
                Query(_highest("job_info", f"{EACH_JOB}, display_name, pool_id"), "info"),
                Query(_highest("job_state", f"{EACH_JOB}, state", "== 1"), "is"),
                Query(_highest("job_priority", EACH_JOB), "priority"),
                *(
                    Query(f"1000 * {_highest(f'job_{event}_timestamp_seconds', EACH_JOB)}", event)
                    for event in ("created", "started", "ended")
                ),
            ),
            columns=(
                ACCOUNT_COLUMN,
                Column("job_id", "Job"),
                Column("job_group", "Group"),
                Column("display_name", "Name"),
                POOL_COLUMN,
                Column("state", "State"),
                Column("priority", "Priority"),
                Column("created", "Created", unit="dateTimeAsLocal"),
                Column("started", "Started", unit="dateTimeAsLocal"),
                Column("ended", "Ended", unit="dateTimeAsLocal"),
            ),
            sort="Created",
        ),
    ),
)

BOARD = Board(
    JOB_UID,
    "Azure Batch / Job",
    "One job or one group of jobs: choose either, and leave the other at All.",
    (ACCOUNT, JOB_ID, JOB_GROUP, POOL_OF_JOBS, WINDOW),
    (PROGRESS, PREPARATION, FAILURES, DURATIONS, WATCHED, ABOUT),
)
