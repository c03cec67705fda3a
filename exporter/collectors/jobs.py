"""The jobs of an account: what each of them is (Job_List, Job_Get)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from exporter.batch.client import BatchClient
from exporter.batch.errors import JobGone, PollError
from exporter.batch.failure_codes import category
from exporter.batch.models import Job, JobExecutionInfo, enum_value
from exporter.batch.spellings import Spellings
from exporter.collectors.wire_values import value_at
from exporter.exposition.metric import Key, Merge, Metric, Samples, info, only, state_set
from exporter.state.counters import Increments, counter
from exporter.state.watched_job import SelectedJobs, WatchedJob

log = logging.getLogger(__name__)

STATES = (
    "active",
    "disabling",
    "disabled",
    "enabling",
    "terminating",
    "completed",
    "deleting",
)


async def read(
    client: BatchClient,
    filter_: str | None,
    named: Iterable[str],
    owns: Callable[[str], bool],
    known: Mapping[str, Job],
) -> tuple[Job, ...]:
    """List jobs with a $filter (None: list none), and get the named ones that are not listed.

    `owns`: whether this process watches a job, by the job's id; other jobs are left out.
    `known`: jobs of the last round by id in lower case. A named job that cannot be read stays as
    it was known; other jobs are not affected.
    """
    found: dict[str, Job] = {}
    if filter_ is not None:
        async for page in client.list_jobs(filter_):
            found.update((job.id.lower(), job) for job in page if owns(job.id))
    for job_id in named:
        if job_id.lower() in found or not owns(job_id):
            continue
        try:
            job = await client.get_job(job_id)
        except JobGone:
            continue
        except PollError as error:
            if error.account_wide:
                raise
            log.warning("job could not be read: %s", error, extra={"job_id": job_id})
            job = known.get(job_id.lower()) or Job(id=job_id)
        found[job.id.lower()] = job
    return tuple(found.values())


ENDED = counter(
    "azure_batch_jobs_ended_total",
    "Jobs that ended, by reason; deleted: gone, and never seen completed; user: a text that is not"
    " the service's own; none: completed without a reason",
    "Job_List and Job_Get state, executionInfo.terminateReason",
    ("reason",),
)
SCHEDULING_ERRORS = counter(
    "azure_batch_job_scheduling_errors_total",
    "Jobs that the service completed because it could not start them, by category and code",
    "Job_List and Job_Get executionInfo.schedulingError",
    ("category", "code"),
)
COUNTERS = (ENDED, SCHEDULING_ERRORS)

DELETED = "deleted"
_REASONS = {
    "alltaskscomplete": "alltaskscomplete",
    "taskfailed": "taskfailed",
    "maxwallclocktimeexpiry": "maxwallclocktimeexpiry",
    "jmcomplete": "jmcomplete",
    "terminatejobschedule": "terminatejobschedule",
    "terminateworkitem": "terminatejobschedule",  # what is on the wire
}
_TRANSIENT = "jobterminationawaitingnodeprocessing"

_ZEROS: Mapping[Key, float] = {
    (ENDED.name, (reason,)): 0 for reason in (*_REASONS.values(), "user", DELETED, "none")
}


def is_completed(job: Job) -> bool:
    """Whether the job is over."""
    return (job.state or "").lower() == "completed"


def ended(before: Job | None, after: Job | None, spellings: Spellings) -> Increments:
    """What is counted of a job's end, where it is seen now.

    `before`: the job as it was known; None: it is new. `after`: None: it does not exist any more.
    """
    if (before is not None and is_completed(before)) or (
        after is not None and not is_completed(after)
    ):
        return _ZEROS
    if after is None:
        return {**_ZEROS, (ENDED.name, (DELETED,)): 1}
    info = after.execution_info or JobExecutionInfo()
    given = (info.terminate_reason or "").lower()
    reason = _REASONS.get(given, "user") if given else "none"
    increments = {**_ZEROS, (ENDED.name, (reason,)): 1}
    error = info.scheduling_error
    if error is not None and (error.code or "").lower() != _TRANSIENT:
        increments[SCHEDULING_ERRORS.name, (category(error), spellings.code(error.code))] = 1
    return increments


def _job_samples(selected: SelectedJobs) -> Samples:
    states = Counter(dict.fromkeys(STATES, 0))
    states.update(enum_value(found.job.state, STATES) or "unknown" for found in selected.jobs)
    return [((state,), number) for state, number in states.items()]


ACCOUNT_METRICS: tuple[Metric[SelectedJobs], ...] = (
    Metric(
        "azure_batch_jobs",
        "gauge",
        "Jobs that the rules of the configuration select, by state",
        "Job_List and Job_Get state",
        ("state",),
        _job_samples,
    ),
    Metric(
        "azure_batch_jobs_dropped",
        "gauge",
        "Jobs that the rules select and that are left out, because max_jobs is reached",
        "Job_List and Job_Get",
        (),
        lambda selected: only(selected.dropped),
    ),
)


def _info(labels: tuple[str, ...]) -> Callable[[WatchedJob], Samples]:
    def samples(watched: WatchedJob) -> Samples:
        # The name of one job says nothing of its group.
        name = (watched.job.display_name or "") if watched.group is None else ""
        given = dict(watched.labels) if labels else {}
        return info(name, watched.job.pool_id, *[given.get(label, "") for label in labels])

    return samples


def _row(
    name: str,
    help_: str,
    path: str,
    samples: Callable[[WatchedJob], Samples] | None = None,
    labels: tuple[str, ...] = (),
    merge: Merge | None = None,
) -> Metric[WatchedJob]:
    """A row of the table. `samples`: None: the value at the path."""
    source = f"Job_List and Job_Get {path}"
    found = samples or _only(path)
    return Metric(f"azure_batch_job_{name}", "gauge", help_, source, labels, found, merge)


def _only(path: str) -> Callable[[WatchedJob], Samples]:
    value = value_at(path, Job, JobExecutionInfo)
    return lambda watched: only(value(watched.job))


def metrics(info_labels: tuple[str, ...] = ()) -> tuple[Metric[WatchedJob], ...]:
    """The families of a job; `info_labels`: names of the labels that the configuration adds."""
    return (
        _row(
            "info",
            "What a job is called and where it runs; always 1",
            "displayName, executionInfo.poolId or poolInfo.poolId, metadata",
            _info(info_labels),
            ("display_name", "pool_id", *info_labels),
            merge=max,
        ),
        _row(
            "state",
            "State of the job: 1 for the current one, 0 for the others",
            "state",
            lambda watched: state_set(STATES, enum_value(watched.job.state, STATES)),
            ("state",),
        ),
        _row("priority", "Priority of the job", "priority"),
        _row(
            "uses_task_dependencies",
            "Whether tasks of the job may depend on others, and so wait though nodes are idle",
            "usesTaskDependencies",
            merge=max,
        ),
        _row("created_timestamp_seconds", "When the job was created", "creationTime"),
        _row("started_timestamp_seconds", "When the job started", "executionInfo.startTime"),
        _row("ended_timestamp_seconds", "When the job completed", "executionInfo.endTime"),
    )
