"""The polls of one account over hours, in virtual time, and what is exposed meanwhile."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from typing import Any, cast

import msgspec
import pytest
from yarl import URL

from exporter.batch.budget import Budget
from exporter.batch.client import BatchClient
from exporter.batch.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    Forbidden,
    JobGone,
    PollError,
    ServiceError,
    TaskNotConfigured,
)
from exporter.batch.models import (
    Counts,
    Job,
    NodeTaskStatus,
    PoolNodeCounts,
    TaskCountsResult,
)
from exporter.batch.service_clock import ServiceClock
from exporter.batch.spellings import Spellings
from exporter.collectors import new_store, tables
from exporter.config import Account, Defaults, Rule
from exporter.config.shard import WHOLE
from exporter.exposition.body import Exposition, Format
from exporter.exposition.scrapes import Scrapes
from exporter.polling.poller import AccountPoller
from tests import offline, virtual_time

EPOCH = 1_800_000_000.0
CREATED = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Api:
    """An account: jobs by id with their task counts; anything may be an error instead."""

    def __init__(self, **jobs: Any) -> None:
        self.jobs: dict[str, Any] = jobs
        self.created: dict[str, dt.datetime] = {}
        self.states: dict[str, str] = {}
        self.listing: PollError | None = None
        self.nodes: Any = ()
        self.preparation: dict[str, Any] = {}
        self.delay = 0.0
        self.hidden: set[str] = set()
        self.missing: set[str] = set()
        self.clock = ServiceClock()
        self.refused_filters: set[str] = set()
        self.spellings = Spellings()
        self.asked: list[tuple[str, float]] = []

    def _note(self, what: str) -> None:
        self.asked.append((what, asyncio.get_running_loop().time()))

    async def list_jobs(self, filter_: str | None = None) -> AsyncIterator[tuple[Job, ...]]:
        self._note("jobs")
        if self.listing:
            raise self.listing
        yield tuple(
            Job(
                job_id,
                state=self.states.get(job_id, "active"),
                creation_time=self.created.get(job_id, CREATED).isoformat(),
            )
            for job_id in self.jobs
            if job_id not in self.hidden | self.missing
        )

    async def get_job(self, job_id: str) -> Job:
        if job_id not in self.jobs:
            raise JobGone(404)
        known = self.states.get(job_id, "active")
        state = "completed" if job_id in self.hidden else known
        return Job(job_id, state=state, creation_time=self.created.get(job_id, CREATED).isoformat())

    def until(self, _: float) -> Api:
        return self

    async def get_task_counts(self, job_id: str) -> TaskCountsResult:
        self._note(job_id)
        answer = self.jobs.get(job_id, JobGone(404))
        await asyncio.sleep(self.delay)
        if isinstance(answer, Exception):
            raise answer
        return TaskCountsResult(
            task_counts=Counts(active=answer, running=0, completed=answer, succeeded=answer)
        )

    async def list_preparation_and_release_task_status(
        self, job_id: str, filter_: str | None = None
    ) -> AsyncIterator[tuple[NodeTaskStatus, ...]]:
        self._note(f"preparation of {job_id}")
        answer = self.preparation.get(job_id, TaskNotConfigured(409))
        if isinstance(answer, Exception):
            raise answer
        yield answer

    async def list_pool_node_counts(self) -> AsyncIterator[tuple[PoolNodeCounts, ...]]:
        if isinstance(self.nodes, Exception):
            raise self.nodes
        yield self.nodes


class Observer:
    """Takes what the poller tells, and keeps what it skipped."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.skipped = 0
        self.corrections = 0
        self.errors = 0
        self.ending = 0
        self.given_up = 0
        self.saved: Counter[str] = Counter()

    def poll_started(self, lag: float) -> None: ...

    def polls_skipped(self, count: int) -> None:
        self.skipped += count

    def poll_done(self, collector: str, seconds: float) -> None:
        self.done.append(collector)

    def corrected(self, collector: str, records: int) -> None:
        self.corrections += records

    def internal_error(self) -> None:
        self.errors += 1

    def polls_saved(self, count: float, reason: str) -> None:
        self.saved[reason] += count

    def last_polls(self, jobs: int) -> None:
        self.ending = jobs

    def gave_up(self) -> None:
        self.given_up += 1


class World:
    """A poller over an `Api`, and a look at what it exposes."""

    def __init__(
        self, api: Api, requests_at: Callable[[], float] = lambda: 0.0, **settings: Any
    ) -> None:
        self.api = api
        self.observer = Observer()
        self.exposition = Exposition(tables())
        self.scrapes = Scrapes(lambda: asyncio.get_running_loop().time())
        self.store = new_store(self.exposition, scrapes=self.scrapes)
        given = {"jobs": (Rule(id_regex=".*"),), "max_concurrency": 8, **settings}
        account = Account(name="acc", endpoint="https://acc.example", **given)
        self.store.add_account("acc")
        self.poller = AccountPoller(
            *(account, Defaults(), WHOLE),
            cast(BatchClient, api),
            self.store,
            self.observer,
            lambda: EPOCH + asyncio.get_running_loop().time(),
            requests_at=requests_at,
        )

    async def scrape_often(self) -> None:
        """A client that scrapes every five seconds."""
        while True:
            self.store.flush()
            self.scrapes.note(("127.0.0.1", "Prometheus"), self.scrapes.now())
            await asyncio.sleep(5.0)

    def text(self) -> str:
        self.store.flush()
        return self.exposition.body(Format.TEXT).plain.decode()

    def value(self, name: str, **labels: str) -> float | None:
        """The value of the one series of this name that has these labels."""
        found = []
        for line in self.text().splitlines():
            match = re.fullmatch(rf"{name}{{(.*)}} (\S+)", line)
            if match and all(f'{key}="{value}"' in match[1] for key, value in labels.items()):
                found.append(float(match[2]))
        assert len(found) <= 1, found
        return found[0] if found else None

    def active(self, job_id: str) -> float | None:
        return self.value("azure_batch_job_tasks", job_id=job_id, state="active")

    def success(self, job_id: str, collector: str = "task_counts") -> float | None:
        return self.value("azure_batch_job_scrape_success", job_id=job_id, collector=collector)


def play(api: Api, story: Callable[[World], Awaitable[None]], **settings: Any) -> World:
    """Let the poller run while a story is told."""

    async def main() -> World:
        world = World(api, **settings)
        running = asyncio.gather(world.poller.run(), world.scrape_often())
        await asyncio.sleep(0)
        await story(world)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return world

    return virtual_time.run(main())


def test_a_new_job_is_shown_within_a_discovery_and_an_interval() -> None:
    async def story(world: World) -> None:
        await asyncio.sleep(95)
        world.api.jobs["late"] = 7
        await asyncio.sleep(90)
        assert world.active("late") == 7

    play(Api(early=1), story)


def test_a_deleted_job_disappears_with_the_next_poll_and_leaves_the_others_alone() -> None:
    async def story(world: World) -> None:
        await asyncio.sleep(61)
        assert world.value("azure_batch_jobs", state="active") == 2
        del world.api.jobs["gone"]
        # The listing would say so at 120 s; the poll of the job itself says so before.
        await asyncio.sleep(30)
        assert 'job_id="gone"' not in world.text()
        assert world.value("azure_batch_jobs", state="active") == 1
        assert world.active("stays") == 2
        await asyncio.sleep(200)
        assert [what for what, when in world.api.asked if what == "gone" and when > 100] == []

    play(Api(gone=1, stays=2), story)


def test_a_job_that_leaves_the_selection_takes_its_series_with_it() -> None:
    async def story(world: World) -> None:
        await asyncio.sleep(31)
        assert world.active("a") == 1
        del world.api.jobs["a"]
        world.api.jobs["b"] = 2
        await asyncio.sleep(60)
        assert 'job_id="a"' not in world.text()

    play(Api(a=1), story)


def test_a_job_deleted_and_created_again_is_another_job() -> None:
    async def story(world: World) -> None:
        await asyncio.sleep(61)
        assert world.success("a", "preparation_release") == 1
        asked = [when for what, when in world.api.asked if what == "preparation of a"]
        assert len(asked) == 1  # it is known to have none
        world.api.created["a"] = CREATED + dt.timedelta(days=1)
        world.api.preparation["a"] = msgspec.convert(
            [
                {
                    "poolId": "p",
                    "nodeId": "n",
                    "jobPreparationTaskExecutionInfo": {"state": "running"},
                }
            ],
            tuple[NodeTaskStatus, ...],
        )
        await asyncio.sleep(95)
        running = world.value("azure_batch_job_preparation_tasks", state="running")
        assert running == 1

    play(Api(a=1), story)


def test_a_failed_poll_keeps_the_last_values_for_three_intervals_and_then_drops_them() -> None:
    async def story(world: World) -> None:
        await asyncio.sleep(31)
        last = world.value(
            "azure_batch_job_last_scrape_success_timestamp_seconds",
            job_id="a",
            collector="task_counts",
        )
        assert (world.active("a"), world.success("a")) == (1, 1)
        world.api.jobs["a"] = ServiceError(500, "InternalError")
        for seconds, active in ((30, 1), (30, 1), (30, None), (300, None)):
            await asyncio.sleep(seconds)
            assert (world.active("a"), world.success("a")) == (active, 0)
            assert last == world.value(
                "azure_batch_job_last_scrape_success_timestamp_seconds",
                job_id="a",
                collector="task_counts",
            )
        assert world.active("b") == 2
        assert world.success("b") == 1
        assert world.value("azure_batch_up") == 1
        assert world.value("azure_batch_job_info", job_id="a") == 1
        world.api.jobs["a"] = 5
        await asyncio.sleep(30)
        assert (world.active("a"), world.success("a")) == (5, 1)

    play(Api(a=1, b=2), story)


def test_one_collectors_failure_is_not_the_others() -> None:
    async def story(world: World) -> None:
        world.api.preparation["a"] = Forbidden(403, "InsufficientAccountPermissions")
        await asyncio.sleep(200)
        assert world.success("a", "preparation_release") == 0
        assert world.success("a", "task_counts") == 1
        assert world.active("a") == 1
        assert world.value("azure_batch_up") == 1

    play(Api(a=1), story)


def test_an_account_whose_jobs_cannot_be_listed_is_down_and_keeps_polling_its_jobs() -> None:
    async def story(world: World) -> None:
        await asyncio.sleep(59)
        world.api.listing = ServiceError(500, "InternalError")
        await until(lambda: world.value("azure_batch_up") == 0, 32)
        assert world.value("azure_batch_account_scrape_success", collector="jobs") == 0
        assert world.value("azure_batch_account_scrape_success", collector="pool_nodes") == 1
        world.api.jobs["a"] = 9
        await asyncio.sleep(35)
        assert world.active("a") == 9
        assert world.value("azure_batch_jobs", state="active") == 1
        await asyncio.sleep(100)  # three listings failed: what they gave is dropped, no more
        assert world.value("azure_batch_jobs", state="active") is None
        assert world.value("azure_batch_job_info", job_id="a") is None
        assert world.active("a") == 9
        world.api.listing = None
        await asyncio.sleep(60)
        assert world.value("azure_batch_up") == 1
        assert world.value("azure_batch_jobs", state="active") == 1
        assert world.value("azure_batch_job_info", job_id="a") == 1

    play(Api(a=1), story)


def test_refused_credentials_show_at_once_and_so_does_their_recovery() -> None:
    async def story(world: World) -> None:
        await asyncio.sleep(61)
        world.api.jobs["a"] = AuthenticationFailed(403, "AuthenticationFailed")
        await asyncio.sleep(30)
        assert world.value("azure_batch_up") == 0
        # What is known to hold without asking proves nothing about the credentials.
        assert world.success("a", "preparation_release") == 1
        world.api.jobs["a"] = 1
        await asyncio.sleep(30)
        assert world.value("azure_batch_up") == 1

    play(Api(a=1), story, pool_nodes=False, discovery_interval="1h")


def test_pool_nodes_that_cannot_be_read_are_dropped_after_three_intervals() -> None:
    async def story(world: World) -> None:
        world.api.nodes = (PoolNodeCounts("p", {"idle": 3}, None),)
        await asyncio.sleep(31)
        assert world.value("azure_batch_pool_nodes", state="idle") == 3
        world.api.nodes = Forbidden(403)
        await asyncio.sleep(60)
        assert world.value("azure_batch_pool_nodes", state="idle") == 3
        await asyncio.sleep(31)
        assert world.value("azure_batch_pool_nodes", state="idle") is None
        assert world.value("azure_batch_up") == 1  # a missing permission on pools is not an outage
        world.api.nodes = ConnectionFailed("refused")
        await asyncio.sleep(31)
        assert world.value("azure_batch_up") == 0

    play(Api(a=1), story)


def test_a_defect_costs_one_poll_and_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story(world: World) -> None:
        world.api.jobs["a"] = RuntimeError("a defect")
        await asyncio.sleep(61)
        assert world.success("a") == 0
        assert world.active("b") == 2
        world.api.jobs["a"] = 4
        await asyncio.sleep(30)
        assert world.active("a") == 4

    world = play(Api(a=1, b=2), story)
    assert world.observer.errors > 0
    assert any(record.exc_info and "a defect" in caplog.text for record in caplog.records)


def test_an_outage_is_one_line_in_the_log_and_its_end_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def story(world: World) -> None:
        await asyncio.sleep(61)
        down = ConnectionFailed("connection refused")
        world.api.listing = world.api.nodes = down
        for job_id in world.api.jobs:
            world.api.jobs[job_id] = down
        await asyncio.sleep(600)
        assert world.value("azure_batch_up") == 0
        world.api.listing, world.api.nodes = None, ()
        for job_id in world.api.jobs:
            world.api.jobs[job_id] = 1
        await asyncio.sleep(120)
        assert world.value("azure_batch_up") == 1

    play(Api(**{f"job-{number}": 1 for number in range(20)}), story)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "account cannot be polled: connection refused"),
        ("INFO", "account can be polled again"),
    ]


def test_causes_that_change_with_each_poll_are_a_line_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def story(world: World) -> None:
        await asyncio.sleep(61)
        for number in range(600):
            errors = (ConnectionFailed("reset"), AuthenticationFailed(401, "AuthenticationFailed"))
            error = errors[number // 10 % 2]
            world.api.listing = world.api.nodes = world.api.jobs["a"] = error
            await asyncio.sleep(1)

    play(Api(a=1), story, discovery_interval="10s")
    lines = [each for each in caplog.records if "cannot be polled" in each.getMessage()]
    assert 2 <= len(lines) <= 11


def test_a_job_that_fails_as_if_the_account_did_is_one_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def story(world: World) -> None:
        await asyncio.sleep(61)
        world.api.jobs["a"] = ConnectionFailed("connection reset")
        await asyncio.sleep(600)

    play(Api(a=1, b=2), story)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "account cannot be polled: connection reset"),
        ("INFO", "account can be polled again"),
    ]


def test_a_slow_poll_skips_turns_and_its_late_answer_for_a_job_that_left_is_ignored() -> None:
    async def story(world: World) -> None:
        world.api.delay = 100.0
        await asyncio.sleep(40)
        del world.api.jobs["a"]
        await asyncio.sleep(400)
        assert 'job_id="a"' not in world.text()
        assert world.active("b") == 2
        assert world.observer.skipped >= 9  # three turns in each hundred seconds

    play(Api(a=1, b=2), story)


def test_the_account_is_ready_when_every_poll_was_tried_once_however_it_went() -> None:
    async def story(world: World) -> None:
        assert not world.poller.is_ready
        await asyncio.sleep(31)
        assert world.poller.is_ready

    play(Api(a=1, b=ServiceError(500)), story)
    broken = Api()
    broken.listing = broken.nodes = ConnectionFailed("refused")
    play(broken, story)


def test_one_round_polls_everything_once() -> None:
    async def main() -> None:
        world = World(Api(a=1, b=2))
        await world.poller.run_once()
        assert (world.active("a"), world.active("b")) == (1, 2)
        assert sorted(world.observer.done) == [
            "jobs",
            "pool_nodes",
            "preparation_release",
            "preparation_release",
            "task_counts",
            "task_counts",
        ]

    virtual_time.run(main())


def test_what_a_job_does_between_its_last_poll_and_leaving_is_counted() -> None:
    async def story(world: World) -> None:
        await asyncio.sleep(61)
        world.api.jobs["short"] = 3
        await asyncio.sleep(90)
        done = world.value("azure_batch_account_tasks_completed_total", result="success")
        assert done == 3
        world.api.jobs["short"] = 8
        world.api.hidden.add("short")  # it completed: the listing leaves it out
        await asyncio.sleep(100)  # twice, because tasks of it wait
        assert 'job_id="short"' not in world.text()
        done = world.value("azure_batch_account_tasks_completed_total", result="success")
        assert done == 8
        asked = len(world.api.asked)
        await asyncio.sleep(29)
        assert [what for what, _ in world.api.asked[asked:] if what == "short"] == []

    api = Api(other=0)
    api.created["short"] = dt.datetime.fromtimestamp(EPOCH + 61, dt.UTC)
    play(api, story)


def test_a_job_created_again_is_not_asked_for_what_the_one_before_it_did_last() -> None:
    async def story(world: World) -> None:
        await asyncio.sleep(119.9)
        world.api.jobs["again"] = 50
        world.api.created["again"] = CREATED + dt.timedelta(days=1)
        world.api.hidden.add("again")  # the new one has completed already
        await asyncio.sleep(25)
        done = world.value("azure_batch_account_tasks_completed_total", result="success")
        assert done == 0

    play(Api(again=3), story)


async def until(condition: Callable[[], bool], seconds: int) -> None:
    """Wait for something to happen, for so long at most."""
    for _ in range(seconds):
        if condition():
            return
        await asyncio.sleep(1)
    raise AssertionError("it did not happen")


def times_of(world: World, what: str) -> list[float]:
    return [when for asked, when in world.api.asked if asked == what]


def test_an_idle_job_is_polled_less_often_until_something_happens() -> None:
    async def story(world: World) -> None:
        await asyncio.sleep(1000)
        asked = times_of(world, "idle")
        gaps = [later - before for before, later in pairwise(asked)]
        # It is not new and quiet at once: its first tasks may be on their way.
        assert 15.0 <= gaps[0] <= 45.0
        assert gaps[1:4] == [30.0] * 3
        # Then its moment in four intervals is one of those that it had in one.
        assert gaps[4] in (30.0, 60.0, 90.0, 120.0)
        assert gaps[5:] == [120.0] * len(gaps[5:]) and len(gaps) > 8
        assert world.observer.saved["idle"] == 3.0 * len(gaps[4:]) + 3.0
        world.api.jobs["idle"] = 5
        await asyncio.sleep(121)
        assert world.active("idle") == 5
        seen = world.api.asked[-1][1]
        await asyncio.sleep(300)
        after = [when for when in times_of(world, "idle") if when > seen]
        assert [later - before for before, later in pairwise(after)] == [30.0] * (len(after) - 1)
        assert len(times_of(world, "busy")) > 40  # the other was polled as ever

    play(Api(idle=0, busy=1), story)


def test_all_of_a_job_is_polled_more_often_at_once_when_something_happens() -> None:
    async def story(world: World) -> None:
        world.api.preparation["idle"] = ()
        await asyncio.sleep(1000)
        late = times_of(world, "preparation of idle")
        assert late[-1] - late[-2] == 120.0
        polls = len(times_of(world, "idle"))
        await until(lambda: len(times_of(world, "idle")) > polls, 121)
        world.api.jobs["idle"] = 5
        await asyncio.sleep(120)
        seen = asyncio.get_running_loop().time()
        await asyncio.sleep(31)
        assert [when for when in times_of(world, "preparation of idle") if when > seen]

    play(Api(idle=0), story)


def test_a_failure_of_an_idle_jobs_poll_is_looked_at_as_often_as_any() -> None:
    async def story(world: World) -> None:
        await asyncio.sleep(600)
        world.api.jobs["idle"] = ConnectionFailed("no")
        await until(lambda: world.success("idle") == 0, 121)
        await asyncio.sleep(45)
        assert world.active("idle") == 0  # the last values stay for three intervals
        await asyncio.sleep(30)
        assert world.active("idle") is None

    play(Api(idle=0), story)


def test_a_completed_job_is_idle_though_tasks_of_it_wait() -> None:
    api = Api(over=3)
    api.states["over"] = "completed"

    async def story(world: World) -> None:
        await asyncio.sleep(1000)
        asked = times_of(world, "over")
        assert asked[-1] - asked[-2] == 120.0
        api.states["over"] = "active"  # a discovery says so
        seen = asyncio.get_running_loop().time()
        await asyncio.sleep(100)
        after = [when for when in times_of(world, "over") if when > seen]
        assert len(after) >= 2 and after[-1] - after[-2] == 30.0

    rules = (Rule(id_regex=".*", states=("active", "completed")),)
    play(api, story, jobs=rules)


@pytest.mark.parametrize("wrong", [-86400.0, -600.0, 86400.0])
def test_a_date_that_is_wrong_when_the_watch_begins_makes_no_job_new_or_old(wrong: float) -> None:
    async def story(world: World) -> None:
        await asyncio.sleep(70)
        for _ in range(2):
            world.api.clock.note(0.0)
        world.api.jobs |= {"old": 3, "new": 4}
        await asyncio.sleep(90)
        done = world.value("azure_batch_account_tasks_completed_total", result="success")
        assert done == 4

    api = Api()
    for _ in range(2):
        api.clock.note(wrong)
    for job_id, second in (("old", -5), ("new", 65)):
        api.created[job_id] = dt.datetime.fromtimestamp(EPOCH + second, dt.UTC)

    play(api, story)


@pytest.mark.parametrize("offset", [-86400.0, -1000.0, 1000.0])
def test_whether_a_job_is_new_is_told_by_the_services_clock(offset: float) -> None:
    async def story(world: World) -> None:
        await asyncio.sleep(61)
        world.api.jobs |= {"old": 3, "new": 4}
        await asyncio.sleep(90)
        done = world.value("azure_batch_account_tasks_completed_total", result="success")
        assert done == 4

    class Ahead(Api):
        async def list_jobs(self, filter_: str | None = None) -> AsyncIterator[tuple[Job, ...]]:
            self.clock.note(offset)
            async for page in super().list_jobs(filter_):
                yield page

    api = Ahead()
    for job_id, second in (("old", -5), ("new", 5)):
        api.created[job_id] = dt.datetime.fromtimestamp(EPOCH + offset + second, dt.UTC)

    play(api, story)


@pytest.mark.parametrize("seen_gone_by", ["its poll", "the listing"])
def test_nothing_is_kept_of_a_job_that_is_gone_but_what_it_was_called(seen_gone_by: str) -> None:
    async def story(world: World) -> None:
        await asyncio.sleep(61)
        world.api.jobs["short"] = 3
        await asyncio.sleep(90)
        assert world.active("short") == 3
        if seen_gone_by == "its poll":
            del world.api.jobs["short"]
        else:
            world.api.hidden.add("short")
        await asyncio.sleep(90)
        state = world.store._accounts["acc"]
        assert [job_id for job_id, _ in state.left] == ["short"]
        assert "short" not in state.jobs and "short" not in state.leaving
        assert "short" not in world.poller._busy_at

    api = Api(other=0)
    api.created["short"] = dt.datetime.fromtimestamp(EPOCH + 61, dt.UTC)
    play(api, story)


def test_a_job_that_one_listing_does_not_hold_is_not_lost() -> None:
    async def story(world: World) -> None:
        def done() -> float | None:
            return world.value("azure_batch_account_tasks_completed_total", result="success")

        await asyncio.sleep(150)
        world.api.missing.add("a")
        for tasks in range(4, 10):
            world.api.jobs["a"] = tasks
            await asyncio.sleep(20)
        world.api.missing.clear()
        await asyncio.sleep(150)
        assert world.active("a") == 9
        assert done() == 6  # from three, that it had at first, to nine: none was missed
        assert world.value("azure_batch_jobs", state="active") == 2
        assert world.observer.errors == 0

    play(Api(a=3, b=1), story)


@pytest.mark.parametrize("error", [ConnectionFailed("no"), RuntimeError("a defect")])
def test_of_an_error_that_is_kept_nothing_hangs_on_to_what_was_read(error: Exception) -> None:
    async def story(world: World) -> None:
        await asyncio.sleep(61)
        kept = world.store.outcome("acc", "task_counts", "a").error
        assert kept is not None
        assert (kept.__traceback__, kept.__cause__, kept.__context__) == (None, None, None)

    play(Api(a=error), story)


# Never two polls of one thing at the same time


def finished_runs(count: int) -> tuple[NodeTaskStatus, ...]:
    run = {
        "state": "completed",
        "result": "success",
        "exitCode": 0,
        "startTime": "2027-01-15T08:01:30Z",
        "endTime": "2027-01-15T08:01:40Z",
    }
    nodes = [
        {"poolId": "p", "nodeId": f"n{number}", "jobPreparationTaskExecutionInfo": run}
        for number in range(count)
    ]
    return msgspec.convert(nodes, tuple[NodeTaskStatus, ...])


class SlowListing(Api):
    """Listings of preparation tasks that take longer than a discovery; `most`: at once."""

    def __init__(self, seconds: float, **jobs: Any) -> None:
        super().__init__(**jobs)
        self.seconds = seconds
        self.running = self.most = 0

    async def list_preparation_and_release_task_status(
        self, job_id: str, filter_: str | None = None
    ) -> AsyncIterator[tuple[NodeTaskStatus, ...]]:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            async for page in super().list_preparation_and_release_task_status(job_id, filter_):
                await asyncio.sleep(self.seconds)
                yield page
        finally:
            self.running -= 1


TWO_RULES = (
    Rule(id_regex=".*", states=("active",)),
    Rule.model_validate({"id_regex": ".*", "states": ["disabled"], "interval": "20s"}),
)


@pytest.mark.parametrize("leaves_first", [False, True])
def test_a_job_that_comes_under_another_rule_during_a_long_listing_is_counted_once(
    leaves_first: bool,
) -> None:
    api = SlowListing(400.0, other=0)
    api.preparation["a"] = finished_runs(100)
    api.created["a"] = dt.datetime.fromtimestamp(EPOCH + 95, dt.UTC)

    async def story(world: World) -> None:
        await asyncio.sleep(95)
        api.jobs["a"] = 0
        await until(lambda: api.running == 1, 65)
        if leaves_first:
            api.hidden.add("a")
            await asyncio.sleep(65)
            assert world.value("azure_batch_jobs", state="active") == 1
            api.hidden.clear()
        api.states["a"] = "disabled"
        await asyncio.sleep(900)
        assert api.most == 1 + leaves_first  # the last poll of a job that left is one of its own
        assert completed(world) == 100

    play(api, story, jobs=TWO_RULES)


def completed(world: World) -> float | None:
    name = "azure_batch_job_preparation_tasks_completed_total"
    return world.value(name, job_id="a", result="success")


def test_a_poller_that_begins_anew_waits_for_the_polls_that_still_run() -> None:
    class Lingering(Api):
        running = 0

        async def get_task_counts(self, job_id: str) -> TaskCountsResult:
            self.running += 1
            assert self.running == 1
            try:
                return await super().get_task_counts(job_id)
            finally:
                await asyncio.sleep(3.0)  # it takes a while to close a connection
                self.running -= 1

    async def main() -> None:
        world = World(Lingering(a=1))
        world.api.delay = 1e9
        for _ in range(5):
            running = asyncio.create_task(world.poller.run())
            await asyncio.sleep(1.0)
            for _ in range(2):
                running.cancel()
                await asyncio.sleep(0.1)
            await asyncio.wait([running])
        assert len(times_of(world, "a")) == 5
        assert world.observer.errors == 0

    virtual_time.run(main())


def test_a_reading_made_from_another_state_is_ignored() -> None:
    async def story(world: World) -> None:
        await asyncio.sleep(31)
        watched = world.store.jobs("acc")["a"].watched
        known = world.store.outcome("acc", "task_counts", "a")
        reading = TaskCountsResult(task_counts=Counts(0, 0, 9, 9, 0))

        def put(made_from: Any) -> object:
            return world.store.put_reading(
                "acc", watched.job, "task_counts", reading, made_from, EPOCH
            )

        assert put(None) is None
        assert put(msgspec.structs.replace(known.state)) is None
        assert world.store.outcome("acc", "task_counts", "a") is known
        assert put(known.state) is not None
        assert put(known.state) is None  # it was folded into another one

    play(Api(a=1), story)


# Health


class Paged(Api):
    """Listings of preparation tasks that never end, of a page a request."""

    def __init__(self, budget: Budget, **jobs: Any) -> None:
        super().__init__(**jobs)
        self.budget = budget
        self.pages = 0

    async def list_preparation_and_release_task_status(
        self, job_id: str, filter_: str | None = None
    ) -> AsyncIterator[tuple[NodeTaskStatus, ...]]:
        while True:
            await self.budget.acquire(1e9)
            self.pages += 1
            yield ()


def most_stuck_for(api: Api, budget: Budget, seconds: int, **settings: Any) -> float:
    """The longest time for which the poller of an account with one slot was stuck."""

    async def main() -> float:
        world = World(api, max_concurrency=1, requests_at=lambda: budget.active_at, **settings)
        running = asyncio.create_task(world.poller.run())
        most = 0.0
        for _ in range(seconds):
            await asyncio.sleep(1.0)
            most = max(most, world.poller.stuck_for)
        assert world.poller.scheduler.waiting > 0
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return most

    return virtual_time.run(main())


def test_an_account_is_not_stuck_while_a_long_listing_gets_its_pages() -> None:
    budget = Budget(0.5, lambda _: None)
    api = Paged(budget, a=1, b=1)
    assert most_stuck_for(api, budget, 3000) < 5.0
    assert api.pages > 1000


def test_an_account_is_not_stuck_during_a_pause() -> None:
    budget = Budget(10.0, lambda _: None)

    class Pausing(Paged):
        async def get_task_counts(self, job_id: str) -> TaskCountsResult:
            self.budget.pause(900.0)
            await self.budget.acquire(1e9)
            return await super().get_task_counts(job_id)

    assert most_stuck_for(Pausing(budget, a=1, b=1), budget, 1200) < 5.0


def test_an_account_is_stuck_where_polls_are_due_and_all_slots_wait_for_what_never_comes() -> None:
    budget = Budget(10.0, lambda _: None)
    api = Api(a=1, b=1)
    api.delay = 1e9
    assert most_stuck_for(api, budget, 400) == pytest.approx(400.0, abs=2.0)


# The first round


@pytest.mark.parametrize(
    ("collect", "seconds"),
    [(("task_counts",), 50), (("task_counts", "preparation_release"), 100)],
    ids=["task counts", "task counts and preparation"],
)
def test_the_first_round_is_as_fast_as_the_request_budget_permits(
    collect: tuple[str, ...], seconds: float
) -> None:
    count = 1000
    jobs = {"value": [{"id": f"job-{number}", "state": "active"} for number in range(count)]}
    bodies = {
        "jobs": msgspec.json.encode(jobs),
        "taskcounts": b'{"taskCounts": {"active": 1, "running": 0, "completed": 0}}',
        "jobpreparationandreleasetaskstatus": b'{"value": []}',
    }
    asked: list[str] = []

    def answer(url: URL) -> tuple[int, bytes]:
        asked.append(url.name)
        return 200, bodies[url.name]

    rule = Rule.model_validate({"id_regex": ".*", "interval": "5m", "collect": collect})
    endpoint = "https://acc.example"
    account = Account(
        name="acc", endpoint=endpoint, jobs=(rule,), pool_nodes=False, max_concurrency=8
    )

    async def main() -> float:
        watched = offline.watch(answer, account, 20.0)
        running = asyncio.create_task(watched.poller.run())
        while not watched.poller.is_ready:  # noqa: ASYNC110 - the poller has no events
            await asyncio.sleep(0.1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(main()) == pytest.approx(seconds, abs=2.0)
    polls = [name for name in asked if name != "jobs"]
    assert len(polls) == len(collect) * count
    if len(collect) == 2:  # what each job's state is comes before the listings
        assert set(polls[:count]) == {"taskcounts"}
