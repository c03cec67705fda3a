"""Each collector: an answer of the service in, the whole text of its families out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exporter.batch.errors import (
    AuthenticationFailed,
    Forbidden,
    InvalidResponse,
    JobGone,
    ServiceError,
    TaskNotConfigured,
)
from exporter.batch.models import Job, NodeTaskStatus, PoolNodeCounts, TaskCountsResult
from exporter.batch.service_clock import ServiceClock
from exporter.batch.spellings import Spellings
from exporter.collectors import ACCOUNT_HEALTH, jobs, preparation_release, tables, task_counts
from exporter.collectors.preparation_release import PreparationRelease
from exporter.config import Account, Rule
from exporter.config.shard import WHOLE
from exporter.exposition.body import Exposition, Format
from exporter.exposition.metric import Identity
from exporter.polling.selection import discover
from exporter.state.account import AccountState
from exporter.state.counters import Counters
from exporter.state.watched_job import Outcome, WatchedJob
from tests.test_selection import NOW, rule
from tools.sample_job import nodes_read

Golden = Callable[[str, str], None]
ACCOUNT = (("account", "myaccount"),)
JOB = (*ACCOUNT, ("job_id", "job-1"))


def text(table: str, identity: Identity, snapshot: Any) -> str:
    exposition = Exposition(tables())
    exposition.put(table, identity, snapshot)
    return exposition.body(Format.TEXT).plain.decode()


# Task counts


def counts(**members: Any) -> TaskCountsResult:
    return msgspec.convert(members, TaskCountsResult)


TASKS = {"active": 5, "running": 7, "completed": 4, "succeeded": 3, "failed": 1}
SLOTS = {"active": 10, "running": 14, "completed": 8, "succeeded": 6, "failed": 2}


def test_task_counts(golden: Golden) -> None:
    snapshot = task_counts.fold(
        None, counts(taskCounts=TASKS, taskSlotCounts=SLOTS), 1000.0, False
    ).state
    golden("task_counts.prom", text("task_counts", JOB, snapshot))


def test_counts_that_the_service_did_not_give_have_no_series() -> None:
    snapshot = task_counts.fold(
        None, counts(taskCounts={"active": 1, "running": None}), 1000.0, False
    ).state
    lines = [line for line in text("task_counts", JOB, snapshot).splitlines() if line[0] != "#"]
    assert lines == [
        'azure_batch_job_tasks{account="myaccount",job_id="job-1",state="active"} 1',
        "azure_batch_job_last_progress_timestamp_seconds"
        '{account="myaccount",job_id="job-1"} 1000.0',
    ]


def test_counts_that_do_not_add_up_are_shown_as_they_are() -> None:
    # The service's counts lag behind each other; correcting them would be a lie of our own.
    reading = counts(taskCounts={"completed": 1, "succeeded": 5, "failed": 5})
    shown = text("task_counts", JOB, task_counts.fold(None, reading, 0.0, False).state)
    assert 'azure_batch_job_tasks{account="myaccount",job_id="job-1",state="completed"} 1' in shown


def test_progress_is_when_completed_last_grew() -> None:
    snapshot = None
    seen = []
    for now, completed in ((10.0, 4), (20.0, 4), (30.0, 6), (40.0, 5), (50.0, 6), (60.0, None)):
        reading = counts(taskCounts={"completed": completed})
        snapshot = task_counts.fold(snapshot, reading, now, False).state
        seen.append(snapshot.last_progress)
    assert seen == [10.0, 10.0, 30.0, 30.0, 50.0, 50.0]


# Preparation and release


def run(**members: Any) -> dict[str, Any]:
    return {"retryCount": 0, **members}


def nodes(*entries: dict[str, Any]) -> tuple[NodeTaskStatus, ...]:
    return msgspec.convert(
        [{"poolId": "pool-1", "nodeId": f"tvm-{n}", **e} for n, e in enumerate(entries)],
        tuple[NodeTaskStatus, ...],
    )


SUCCESS = run(
    state="completed",
    startTime="2026-01-01T10:00:00Z",
    endTime="2026-01-01T10:00:05Z",
    exitCode=0,
    result="success",
)
RUNNING = run(state="running", startTime="2026-01-01T11:00:00.5Z")
FAILED = run(
    state="completed",
    exitCode=3,
    result="failure",
    failureInfo={"category": "UserError", "code": "FailureExitCode", "message": "node tvm-7"},
)
DISK_FULL = run(
    state="completed", result="failure", failureInfo={"category": "ServerError", "code": "DiskFull"}
)
NEW_KIND = run(
    state="completed", result="failure", failureInfo={"category": "Cosmic", "code": "BrandNew"}
)

PREPARATION = "jobPreparationTaskExecutionInfo"
RELEASE = "jobReleaseTaskExecutionInfo"


def test_preparation_and_release(golden: Golden) -> None:
    reading = nodes_read(
        "pool-1",
        nodes(
            {PREPARATION: SUCCESS, RELEASE: SUCCESS},
            {PREPARATION: SUCCESS, RELEASE: FAILED},
            {PREPARATION: SUCCESS, RELEASE: RUNNING},
            {PREPARATION: RUNNING},
            {PREPARATION: {**RUNNING, "startTime": "2026-01-01T10:30:00Z"}},
            {PREPARATION: FAILED},
            {PREPARATION: FAILED},
            {PREPARATION: DISK_FULL, "poolId": "pool-0"},
            {PREPARATION: NEW_KIND, "poolId": "pool-0"},
            {PREPARATION: run(state="completed", exitCode=0), "poolId": "pool-0"},
            {PREPARATION: run(state="Rebooting"), "poolId": "pool-0"},
            {PREPARATION: run(state="completed", result="failure"), "poolId": "pool-0"},
        ),
    )
    folded = preparation_release.fold(None, reading, 0.0, True)
    golden("preparation_release.prom", text("preparation_release", JOB, folded.state))
    counters = Counters().add(folded.events.increments).add({})
    shown = text("preparation_release counters", JOB, counters)
    golden("preparation_release_counters.prom", shown)


# The documentation's own sample, of 2017: a result is in none of its runs.
SAMPLE: dict[str, Any] = {
    "poolId": "mypool1",
    "nodeId": "tvm-2167304207_1-20140905t174658z",
    PREPARATION: {
        "state": "completed",
        "startTime": "2015-05-01T10:20:31Z",
        "endTime": "2015-05-02T20:12:42Z",
        "taskRootDirectory": "tasks/myjob/job-1/myjobpreptask",
        "exitCode": 0,
        "retryCount": 0,
    },
    RELEASE: {
        "state": "completed",
        "startTime": "2015-05-01T10:20:31Z",
        "endTime": "2015-05-02T20:12:42Z",
        "taskRootDirectory": "tasks/myjob/job-1/myjobreleasetask",
        "retryCount": 0,
        "exitCode": 0,
    },
}
OF_SAMPLE = 'account="myaccount",job_id="job-1",pool_id="mypool1"'


def by_result(**changed: Any) -> tuple[list[str], list[str]]:
    """What is exposed of the sample's results, and of its failed preparation."""
    (record,) = nodes({**SAMPLE, PREPARATION: {**SAMPLE[PREPARATION], **changed}})
    folded = preparation_release.fold(None, nodes_read("mypool1", [record]), 0.0, True)
    counters = Counters().add(folded.events.increments).add({})
    shown = text("preparation_release", JOB, folded.state)
    shown += text("preparation_release counters", JOB, counters)
    lines = [line for line in shown.splitlines() if line[0] != "#" and not line.endswith(" 0")]
    return (
        [line for line in lines if "result=" in line],
        [line for line in lines if "category=" in line],
    )


def test_without_a_result_the_exit_code_0_is_a_success() -> None:
    assert by_result() == (
        [
            f'azure_batch_job_preparation_completed_tasks{{{OF_SAMPLE},result="success"}} 1',
            f'azure_batch_job_release_completed_tasks{{{OF_SAMPLE},result="success"}} 1',
            f'azure_batch_job_preparation_tasks_completed_total{{{OF_SAMPLE},result="success"}} 1',
            f'azure_batch_job_release_tasks_completed_total{{{OF_SAMPLE},result="success"}} 1',
        ],
        [],
    )


@pytest.mark.parametrize(
    ("changed", "category", "code"),
    [
        (
            {"exitCode": 3, "failureInfo": {"category": "UserError", "code": "FailureExitCode"}},
            *("usererror", "FailureExitCode"),
        ),
        ({"exitCode": None, "failureInfo": {"code": "DiskFull"}}, "unknown", "DiskFull"),
        ({"exitCode": -1073741510}, "unknown", "other"),
    ],
)
def test_without_a_result_failure_info_and_other_exit_codes_are_a_failure(
    changed: dict[str, Any], category: str, code: str
) -> None:
    results, failures = by_result(**changed)
    labels = f'{OF_SAMPLE},category="{category}",code="{code}"'
    assert results[0] == (
        f'azure_batch_job_preparation_completed_tasks{{{OF_SAMPLE},result="failure"}} 1'
    )
    assert failures == [
        f"azure_batch_job_preparation_failed_tasks{{{labels}}} 1",
        f'azure_batch_job_preparation_tasks_failed_total{{{OF_SAMPLE},category="{category}"}} 1',
        f"azure_batch_job_preparation_task_failure_codes_total{{{labels}}} 1",
    ]


def test_without_result_failure_info_and_exit_code_nothing_is_counted() -> None:
    results, failures = by_result(exitCode=None)
    assert [line for line in results if "preparation" in line] == []
    assert failures == []


def test_a_result_that_is_new_to_us_is_other() -> None:
    results, failures = by_result(result="Vanished", exitCode=3)
    assert [line for line in results if "preparation" in line] == [
        f'azure_batch_job_preparation_completed_tasks{{{OF_SAMPLE},result="other"}} 1',
        f'azure_batch_job_preparation_tasks_completed_total{{{OF_SAMPLE},result="other"}} 1',
    ]
    assert failures == []


def test_an_account_that_is_down_says_why(golden: Golden) -> None:
    error = Forbidden(403)
    error.cause = "role"
    snapshot = AccountState(outcomes={"jobs": Outcome(None, error, 1000.5)})
    golden("account_health.prom", text(ACCOUNT_HEALTH, ACCOUNT, snapshot))


def test_every_family_has_a_golden_exposition() -> None:
    folder = Path(__file__).parent / "golden"
    shown = "".join(file.read_text() for file in folder.glob("*.prom"))
    for table in tables().values():
        for row in table.metrics:
            assert f"\n# TYPE {row.name} {row.type}\n{row.name}" in shown, (
                f"no file of tests/golden shows {row.name}:"
                " add it to a test of its collector, and run `make fix`"
            )


def test_a_job_whose_tasks_ran_nowhere_yet_shows_zeros_for_its_pool() -> None:
    snapshot = preparation_release.fold(None, nodes_read("pool-1", ()), 0.0, False).state
    shown = text("preparation_release", JOB, snapshot)
    samples = [line for line in shown.splitlines() if line[0] != "#"]
    assert samples and all(line.endswith(" 0") and 'pool_id="pool-1"' in line for line in samples)


WATCHED = WatchedJob(Job("job-1"), rule(id="job-1"))


class NodesApi:
    """Gives these pages, or an error."""

    clock = ServiceClock()

    def __init__(self, *pages: tuple[NodeTaskStatus, ...], error: Exception | None = None) -> None:
        self.pages = pages
        self.error = error
        self.refused_filters: set[str] = set()
        self.spellings = Spellings()

    async def list_preparation_and_release_task_status(
        self, job_id: str, filter_: str | None = None
    ) -> AsyncIterator[tuple[NodeTaskStatus, ...]]:
        if self.error:
            raise self.error
        for page in self.pages:
            yield page


async def test_a_node_on_two_pages_counts_once_as_it_came_last() -> None:
    (early,) = nodes({PREPARATION: run(state="running", startTime=SUCCESS["startTime"])})
    (late,) = nodes({PREPARATION: SUCCESS})
    api = NodesApi((early,), (late,))
    reading = await preparation_release.read(api, WATCHED, None, 0.0)
    state = preparation_release.fold(None, reading, 0.0, False).state
    assert state.count("preparation", "state", "completed") == 1
    assert state.count("preparation", "state", "running") == 0


async def test_a_job_with_neither_task_shows_nothing_and_need_not_be_asked_again() -> None:
    api = NodesApi(error=TaskNotConfigured(409))
    reading = await preparation_release.read(api, WATCHED, None, 0.0)
    snapshot = preparation_release.fold(None, reading, 0.0, False).state
    assert snapshot == PreparationRelease(configured=False)
    assert text("preparation_release", JOB, snapshot) == ""
    assert preparation_release.COLLECTOR.is_settled(snapshot)


async def test_a_job_that_had_either_task_is_not_believed_to_have_neither() -> None:
    api = NodesApi(error=TaskNotConfigured(409))
    with pytest.raises(InvalidResponse):
        await preparation_release.read(api, WATCHED, PreparationRelease(configured=True), 0.0)


# Jobs


def watched(job: Job) -> WatchedJob:
    return WatchedJob(job, rule(id="job-1"))


def test_jobs(golden: Golden) -> None:
    job = msgspec.convert(
        {
            "id": "job-1",
            "displayName": 'Nightly "render"\n',
            "state": "Completed",
            "priority": -10,
            "usesTaskDependencies": True,
            "creationTime": "2026-01-01T10:00:00.1234567Z",
            "executionInfo": {
                "startTime": "2026-01-01T10:00:01Z",
                "endTime": "2026-01-01T11:00:00Z",
                "poolId": "0fd5f1a0-guid",
            },
        },
        Job,
    )
    golden("jobs.prom", text("job", JOB, watched(job)))


def test_ends_of_jobs(golden: Golden) -> None:
    error = {"category": "UserError", "code": "AutoPoolCreationFailedWithQuotaReached"}
    info = {"terminateReason": "AllTasksComplete", "schedulingError": error}
    over = msgspec.convert({"id": "a", "state": "completed", "executionInfo": info}, Job)
    counters = Counters().add(jobs.ended(None, over, Spellings())).add({})
    golden("job_ends.prom", text("job ends", ACCOUNT, counters))


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("AllTasksComplete", "alltaskscomplete"),
        ("TaskFailed", "taskfailed"),
        ("MaxWallClockTimeExpiry", "maxwallclocktimeexpiry"),
        ("JMComplete", "jmcomplete"),
        ("TerminateJobSchedule", "terminatejobschedule"),
        ("TerminateWorkitem", "terminatejobschedule"),
        ("UserTerminate", "user"),
        ("whatever a user wrote", "user"),
        (None, "none"),
    ],
)
def test_why_a_job_ended_is_one_of_a_few_words(given: str | None, shown: str) -> None:
    over = msgspec.convert(
        {"id": "a", "state": "completed", "executionInfo": {"terminateReason": given}}, Job
    )
    active, gone = Job("a", state="active"), Job("a", state="deleting")

    def ended(before: Job | None, after: Job | None) -> list[str]:
        increments = jobs.ended(before, after, Spellings())
        return [labels[0] for (_, labels), more in increments.items() if more]

    assert ended(active, over) == ended(None, over) == [shown]
    assert ended(over, over) == ended(over, None) == ended(active, gone) == []
    assert ended(active, None) == ended(gone, None) == ["deleted"]


def test_codes_of_jobs_that_could_not_be_started_are_bounded_and_have_one_spelling() -> None:
    spellings = Spellings()

    def code(given: str) -> str:
        info = {"schedulingError": {"category": "UserError", "code": given}}
        over = msgspec.convert({"id": "a", "state": "completed", "executionInfo": info}, Job)
        (labels,) = [
            labels
            for name, labels in jobs.ended(None, over, spellings)
            if name == "azure_batch_job_scheduling_errors_total"
        ]
        return labels[1]

    assert [code("NewCode"), code("newcode"), code("no word")] == ["NewCode", "NewCode", "other"]
    assert [code(f"More{number}") for number in range(60)][-1] == "other"


def test_what_a_job_does_not_say_has_no_series() -> None:
    samples = [
        line for line in text("job", JOB, watched(Job("job-1"))).splitlines() if line[0] != "#"
    ]
    assert samples == [
        'azure_batch_job_info{account="myaccount",job_id="job-1",display_name="",pool_id=""} 1'
    ]


def test_a_job_state_that_is_new_to_us_is_other() -> None:
    shown = text("job", JOB, watched(Job("job-1", state="hibernating")))
    assert 'state="other"} 1\n' in shown
    assert shown.count("azure_batch_job_state{") == len(jobs.STATES) + 1


class JobsApi:
    """Lists these jobs and gives those, or raises."""

    def __init__(self, listed: tuple[Job, ...] = (), **named: Job | Exception) -> None:
        self.listed = listed
        self.named = named
        self.filters: list[str | None] = []
        self.got: list[str] = []

    async def get_job(self, job_id: str) -> Job:
        self.got.append(job_id)
        answer = self.named.get(job_id, JobGone(404))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def list_jobs(self, filter_: str | None = None) -> AsyncIterator[tuple[Job, ...]]:
        self.filters.append(filter_)
        yield self.listed[:1]
        yield self.listed[1:]


async def read_jobs(api: JobsApi, *rules: Rule, known: dict[str, Job] | None = None) -> list[Job]:
    account = Account(name="acc", endpoint="https://acc.example", jobs=rules)
    found, _ = await discover(api, account, WHOLE, known or {}, NOW.timestamp())
    return [watched.job for watched in found.jobs]


async def test_a_named_job_is_read_where_it_is_not_listed_and_left_out_where_it_is_gone() -> None:
    done = Job("done", state="completed")
    api = JobsApi((Job("a", state="active"),), done=done)
    found = await read_jobs(api, rule(id="done"), rule(id="gone"), rule(id="A"), rule(id_regex="b"))
    assert [job.id for job in found] == ["a", "done"]
    assert api.got == ["done", "gone"]


async def test_named_jobs_alone_cause_no_listing() -> None:
    api = JobsApi(a=Job("a"))
    assert await read_jobs(api, rule(id="a")) == [Job("a")]
    assert api.filters == []


async def test_trouble_with_one_named_job_is_not_that_of_the_others() -> None:
    api = JobsApi(bad=ServiceError(500), fresh=ServiceError(500), good=Job("good"))
    rules = (rule(id="bad"), rule(id="fresh"), rule(id="good"))
    known = {"bad": Job("bad", priority=5)}
    assert await read_jobs(api, *rules, known=known) == [
        Job("bad", priority=5),
        Job("fresh"),
        Job("good"),
    ]


async def test_trouble_with_the_whole_account_fails_the_reading() -> None:
    api = JobsApi(bad=AuthenticationFailed(401))
    with pytest.raises(AuthenticationFailed):
        await read_jobs(api, rule(id="bad"))


# Pool nodes


def test_pool_nodes_of_every_kind_and_state(official: Callable[[str], Any], golden: Golden) -> None:
    pools = msgspec.convert(
        official("AccountListPoolNodeCounts")["value"], tuple[PoolNodeCounts, ...]
    )
    golden("pool_nodes.prom", text("pool nodes", ACCOUNT, pools))


def test_a_node_state_that_is_new_to_us_is_other_and_no_total_is_shown() -> None:
    counts = {"idle": 2, "unknown": 1, "someNewState": 20, "total": 23}
    pool = PoolNodeCounts("p", counts, {"total": 0})
    shown = text("pool nodes", ACCOUNT, (pool,))
    prefix = 'azure_batch_pool_nodes{account="myaccount",pool_id="p",kind="dedicated"'
    samples = sorted(line for line in shown.splitlines() if line[0] != "#")
    assert samples == [
        f'{prefix},state="idle"}} 2',
        f'{prefix},state="other"}} 20',
        f'{prefix},state="unknown"}} 1',
    ]


async def test_past_the_limit_jobs_are_left_out_and_those_watched_already_stay() -> None:
    api = JobsApi(tuple(Job(job_id, state="active") for job_id in "edcba"))
    known = {"e": Job("e"), "c": Job("c")}
    account = Account(
        name="acc", endpoint="https://acc.example", jobs=(rule(id_regex=".*"),), max_jobs=3
    )
    found, _ = await discover(api, account, WHOLE, known, NOW.timestamp())
    assert [watched.job.id for watched in found.jobs] == ["a", "c", "e"]
    assert found.dropped == 2
    shown = text("selected jobs", ACCOUNT, found)
    assert 'azure_batch_jobs{account="myaccount",state="active"} 3\n' in shown
    assert 'azure_batch_jobs_dropped{account="myaccount"} 2\n' in shown
