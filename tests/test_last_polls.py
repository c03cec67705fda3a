"""The end of jobs: what they did last, jobs that nobody saw begin, ids that are used again."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from exporter.batch.errors import JobGone, ServiceError
from exporter.batch.models import (
    Counts,
    Job,
    JobExecutionInfo,
    NodeTaskStatus,
    SpecialTaskExecutionInfo,
    TaskCountsResult,
)
from exporter.config import Rule
from tests.test_poller import EPOCH, Api, World, play


def at(second: float) -> str:
    return dt.datetime.fromtimestamp(EPOCH + second, dt.UTC).isoformat()


def counts(running: int = 0, succeeded: int = 0, failed: int = 0, active: int = 0) -> Counts:
    return Counts(active, running, succeeded + failed, succeeded, failed)


class Account(Api):
    """Jobs as Job_Get shows them. A listing has those that its $filter asks for.

    `lost`: answers of Job_Get and Job_GetTaskCounts, by job id, that come before the true ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Job] = {}
        self.lost: dict[str, list[Exception]] = {}

    def put(self, job_id: str, state: str, created: float, **more: Any) -> None:
        self.known[job_id] = Job(job_id, state=state, creation_time=at(created), **more)

    async def list_jobs(self, filter_: str | None = None) -> Any:
        self._note("jobs")
        if self.listing:
            raise self.listing
        text = filter_ or ""
        yield tuple(job for job in self.known.values() if f"state eq '{job.state}'" in text)

    async def get_job(self, job_id: str) -> Job:
        self._note(f"get {job_id}")
        self._lose(job_id)
        if job_id not in self.known:
            raise JobGone(404)
        return self.known[job_id]

    async def get_task_counts(self, job_id: str) -> TaskCountsResult:
        self._note(job_id)
        self._lose(job_id)
        if job_id not in self.known:
            raise JobGone(404)
        return TaskCountsResult(task_counts=self.jobs.get(job_id, counts()))

    def _lose(self, job_id: str) -> None:
        if self.lost.get(job_id):
            raise self.lost[job_id].pop(0)


def new_job(first: Counts, story: Callable[[World], Awaitable[None]]) -> Any:
    """The story of a job that is created 10 s after the account was first listed."""

    async def whole(world: World) -> None:
        await asyncio.sleep(10)
        assert isinstance(world.api, Account)
        world.api.put("job", "active", 10)
        world.api.jobs["job"] = first
        await story(world)

    return whole


def completed(world: World, result: str = "success") -> float | None:
    return world.value("azure_batch_account_tasks_completed_total", result=result)


def release(node: str, state: str, result: str | None = None) -> NodeTaskStatus:
    run = SpecialTaskExecutionInfo(state=state, start_time=at(200), result=result)
    return NodeTaskStatus("p", node, release=run)


def test_a_job_deleted_while_active_is_read_until_it_is_gone() -> None:
    async def story(world: World) -> None:
        api = world.api
        assert isinstance(api, Account)
        await asyncio.sleep(100)
        api.put("job", "deleting", 10)
        api.jobs["job"] = counts(succeeded=3, failed=2)
        api.preparation["job"] = [release("a", "running"), release("b", "running")]
        await asyncio.sleep(65)
        assert world.active("job") is None
        assert completed(world, "failure") == 2
        own = "azure_batch_job_tasks_completed_total"
        assert world.value(own, job_id="job", result="failure") == 2
        api.preparation["job"] = [release(node, "completed", "failure") for node in "ab"]
        await asyncio.sleep(65)
        failed = "azure_batch_account_release_tasks_failed_total"
        assert world.value(failed, category="unknown") == 2
        del api.known["job"]
        await asyncio.sleep(65)
        assert world.observer.ending == 0
        assert world.value("azure_batch_jobs_ended_total", reason="deleted") == 1
        asked = len(api.asked)
        await asyncio.sleep(300)
        assert {what for what, _ in api.asked[asked:]} == {"jobs"}

    api = Account()
    api.preparation["job"] = []
    play(api, new_job(counts(running=5), story))


def test_counts_that_are_late_at_the_end_are_waited_for() -> None:
    async def story(world: World) -> None:
        api = world.api
        assert isinstance(api, Account)
        await asyncio.sleep(100)
        info = JobExecutionInfo(end_time=at(100), terminate_reason="AllTasksComplete")
        api.put("job", "completed", 10, execution_info=info)
        await asyncio.sleep(100)
        assert (completed(world), world.observer.ending) == (3, 1)
        api.jobs["job"] = counts(succeeded=6, failed=4)
        await asyncio.sleep(40)
        assert (completed(world), completed(world, "failure")) == (6, 4)
        assert world.observer.ending == 0
        assert world.value("azure_batch_jobs_ended_total", reason="alltaskscomplete") == 1

    play(Account(), new_job(counts(running=7, succeeded=3), story))


def test_an_end_that_cannot_be_read_for_a_while_is_read_later() -> None:
    async def story(world: World) -> None:
        api = world.api
        assert isinstance(api, Account)
        await asyncio.sleep(100)
        api.put("job", "completed", 10, execution_info=JobExecutionInfo(end_time=at(100)))
        api.jobs["job"] = counts(succeeded=6, failed=4)
        api.lost["job"] = [ServiceError(500) for _ in range(3)]
        await asyncio.sleep(200)
        assert (completed(world), completed(world, "failure")) == (6, 4)
        assert world.observer.given_up == 0

    play(Account(), new_job(counts(), story))


def test_an_end_that_never_comes_is_given_up_and_said(caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        api = world.api
        assert isinstance(api, Account)
        await asyncio.sleep(100)
        api.put("job", "completed", 10, execution_info=JobExecutionInfo(end_time=at(100)))
        await asyncio.sleep(1800)
        assert (world.observer.given_up, world.observer.ending) == (0, 1)
        await asyncio.sleep(200)
        assert (world.observer.given_up, world.observer.ending) == (1, 0)
        assert "the end of the job was not seen" in caplog.text

    play(Account(), new_job(counts(running=7), story))


def test_jobs_that_begin_and_end_between_two_listings_are_counted_and_have_no_series() -> None:
    async def story(world: World) -> None:
        api = world.api
        assert isinstance(api, Account)
        await asyncio.sleep(70)
        for number in range(3):
            name = f"short-{number}"
            api.put(name, "completed", 80, execution_info=JobExecutionInfo(end_time=at(100)))
            api.jobs[name] = counts(succeeded=40, failed=2)
        api.put("older", "completed", -80, execution_info=JobExecutionInfo(end_time=at(100)))
        api.jobs["older"] = counts(succeeded=1000)
        await asyncio.sleep(200)
        assert (completed(world), completed(world, "failure")) == (120, 6)
        assert 'job_id="' not in world.text()
        assert world.value("azure_batch_jobs_ended_total", reason="none") == 3
        assert sum(what == "short-1" for what, _ in api.asked) == 1
        assert not any(what.startswith("get ") for what, _ in api.asked)
        await asyncio.sleep(100)  # they stay listed for a while
        assert completed(world) == 120

    play(Account(), story)


@pytest.mark.parametrize("other", ["job", "JOB"])
def test_what_was_read_of_a_new_job_under_an_old_one_counts_once(other: str) -> None:
    async def story(world: World) -> None:
        api = world.api
        assert isinstance(api, Account)
        await asyncio.sleep(175)
        assert completed(world) == 10
        listings = sum(what == "jobs" for what, _ in api.asked)
        for _ in range(600):
            if sum(what == "jobs" for what, _ in api.asked) > listings:
                break
            await asyncio.sleep(0.1)
        del api.known["job"]
        api.put(other, "active", asyncio.get_running_loop().time())
        api.known["job"] = api.known[other]  # the service finds it in any case of letters
        api.jobs = {"job": counts(succeeded=1000), other: counts(succeeded=1000)}
        await asyncio.sleep(40)
        assert completed(world) == 1000
        if other != "job":
            del api.known["job"]
        await asyncio.sleep(100)
        assert completed(world) == 1010
        if other == "job":
            own = "azure_batch_job_tasks_completed_total"
            assert world.value(own, job_id="job", result="success") == 1010

    play(Account(), new_job(counts(succeeded=10), story))


def test_what_still_changes_is_not_given_up_though_another_part_fails() -> None:
    async def story(world: World) -> None:
        api = world.api
        assert isinstance(api, Account)
        await asyncio.sleep(100)
        api.put("job", "completed", 10, execution_info=JobExecutionInfo(end_time=at(100)))
        api.preparation["job"] = ServiceError(500)
        for minute in range(40):
            api.jobs["job"] = counts(running=40, succeeded=minute)
            await asyncio.sleep(60)
        assert (world.observer.given_up, world.observer.ending) == (0, 1)

    api = Account()
    api.preparation["job"] = []
    play(api, new_job(counts(running=7), story))


def test_nothing_is_given_up_right_after_an_outage() -> None:
    async def story(world: World) -> None:
        api = world.api
        assert isinstance(api, Account)
        await asyncio.sleep(100)
        api.put("job", "completed", 10, execution_info=JobExecutionInfo(end_time=at(100)))
        await asyncio.sleep(100)
        api.listing = ServiceError(503)
        api.lost["job"] = [ServiceError(503) for _ in range(10_000)]
        await asyncio.sleep(3600)
        api.listing = None
        api.lost["job"] = [ServiceError(503) for _ in range(6)]
        api.jobs["job"] = counts(succeeded=7)
        await asyncio.sleep(600)
        assert (completed(world), world.observer.given_up) == (7, 0)

    play(Account(), new_job(counts(running=7), story))


def test_a_living_job_in_a_state_that_no_rule_wants_is_read_while_it_changes() -> None:
    async def story(world: World) -> None:
        api = world.api
        assert isinstance(api, Account)
        await asyncio.sleep(100)
        api.put("job", "disabled", 10)
        for minute in range(1, 41):
            api.jobs["job"] = counts(running=50 - minute, succeeded=minute)
            await asyncio.sleep(60)
        await asyncio.sleep(60)
        assert world.active("job") is None
        assert completed(world) == 40
        api.put("job", "active", 10)
        await asyncio.sleep(100)
        api.jobs["job"] = counts(succeeded=50)
        await asyncio.sleep(60)
        assert completed(world) == 50
        api.put("job", "disabled", 10)
        await asyncio.sleep(2000)
        assert (world.observer.ending, world.observer.given_up) == (0, 0)

    api = Account()
    rules = (Rule(id_regex=".*", states=("active",)),)
    play(api, new_job(counts(running=50), story), jobs=rules)


@pytest.mark.parametrize("other", ["job", "JOB"])
def test_a_job_that_ended_unseen_is_not_taken_for_the_next_one_of_its_id(other: str) -> None:
    async def story(world: World) -> None:
        api = world.api
        assert isinstance(api, Account)
        await asyncio.sleep(70)
        api.put("job", "completed", 80, execution_info=JobExecutionInfo(end_time=at(100)))
        api.lost["job"] = [ServiceError(500) for _ in range(9)]
        api.preparation["job"] = ServiceError(500)
        await asyncio.sleep(90)
        del api.known["job"]
        api.put(other, "active", 150)
        api.jobs = {"job": counts(succeeded=7), other: counts(succeeded=7)}
        await asyncio.sleep(600)
        assert completed(world) == 7
        assert world.observer.ending == 0

    play(Account(), story)


@pytest.mark.parametrize("is_new", [True, False])
def test_a_404_that_passes_loses_nothing(is_new: bool) -> None:
    async def story(world: World) -> None:
        api = world.api
        assert isinstance(api, Account)
        await asyncio.sleep(100)
        before = 0 if is_new else 10
        api.lost["job"] = [JobGone(404)]
        api.jobs["job"] = counts(succeeded=before + 100)
        await asyncio.sleep(40)
        shown = world.value("azure_batch_job_tasks", job_id="job", state="completed")
        assert shown in (before, before + 100)
        await asyncio.sleep(40)
        assert completed(world) == 100
        assert world.success("job") == 1

    if is_new:
        play(Account(), new_job(counts(), story))
    else:
        api = Account()
        api.put("job", "active", -5)
        api.jobs["job"] = counts(succeeded=10)
        play(api, story)


@pytest.mark.parametrize("state", ["active", "completed"])
def test_a_job_that_is_not_found_for_a_moment_is_not_counted_again(state: str) -> None:
    async def story(world: World) -> None:
        api = world.api
        assert isinstance(api, Account)
        await asyncio.sleep(100)
        assert completed(world) == 100
        api.put("job", state, 10, execution_info=JobExecutionInfo(end_time=at(100)))
        await asyncio.sleep(70)
        api.lost["job"] = [JobGone(404) for _ in range(3)]
        await asyncio.sleep(25)
        api.jobs["job"] = counts(running=1, succeeded=101)
        await asyncio.sleep(120)
        assert completed(world) == 101
        if state == "active":
            # Its own counters went with the job, once they were read, and began at 0 again.
            own = "azure_batch_job_tasks_completed_total"
            assert world.value(own, job_id="job", result="success") == 1
            assert world.value("azure_batch_jobs_ended_total", reason="deleted") == 0
        assert world.value("azure_batch_jobs_ended_total", reason="none") == (state == "completed")

    play(Account(), new_job(counts(running=1, succeeded=100), story))


def test_a_listing_that_still_has_a_deleted_job_counts_its_end_once() -> None:
    async def story(world: World) -> None:
        api = world.api
        assert isinstance(api, Account)
        await asyncio.sleep(100)
        api.lost["job"] = [JobGone(404) for _ in range(10_000)]
        await asyncio.sleep(200)
        assert world.active("job") is None
        del api.known["job"]
        await asyncio.sleep(100)
        assert completed(world) == 100
        assert world.value("azure_batch_jobs_ended_total", reason="deleted") == 1
        assert world.observer.ending == 0

    play(Account(), new_job(counts(running=1, succeeded=100), story))


def test_a_job_that_is_deleted_before_its_end_is_read_is_asked_about_no_more() -> None:
    async def story(world: World) -> None:
        api = world.api
        assert isinstance(api, Account)
        await asyncio.sleep(70)
        api.put("job", "completed", 80, execution_info=JobExecutionInfo(end_time=at(100)))
        api.lost["job"] = [JobGone(404) for _ in range(10_000)]
        await asyncio.sleep(20)  # it is listed
        del api.known["job"]
        await asyncio.sleep(120)
        assert world.observer.ending == 0
        asked = len(api.asked)
        await asyncio.sleep(600)
        assert {what for what, _ in api.asked[asked:]} == {"jobs"}
        assert world.observer.given_up == 0

    play(Account(), story)


def test_a_job_that_could_not_be_started_is_counted_with_its_code() -> None:
    async def story(world: World) -> None:
        api = world.api
        assert isinstance(api, Account)
        await asyncio.sleep(70)
        info: Callable[..., Any] = JobExecutionInfo
        error = {"category": "UserError", "code": "AutoPoolCreationFailedWithQuotaReached"}
        given = info(end_time=at(83), scheduling_error=failure(**error))
        api.put("auto", "completed", 80, execution_info=given)
        await asyncio.sleep(120)
        name = "azure_batch_job_scheduling_errors_total"
        assert world.value(name, category="usererror") == 1

    play(Account(), story)


def failure(**members: str) -> Any:
    from exporter.batch.models import FailureInfo

    return FailureInfo(**members)
