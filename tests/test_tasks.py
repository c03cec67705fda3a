"""The collector `tasks`: answers of the service in, text, counts and observations out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from exporter.batch.errors import ServiceError, TooLarge, UnsupportedVersion
from exporter.batch.models import Job, Task
from exporter.batch.service_clock import ServiceClock
from exporter.batch.spellings import Spellings
from exporter.collectors import known_records, preparation_release, tasks
from exporter.collectors.task_records import TaskRecord, Tasks
from exporter.collectors.tasks import JobTasks, Reading
from exporter.state import table_names
from exporter.state.counters import Counters, Increments
from exporter.state.watched_job import WatchedJob
from tests.test_collectors import ACCOUNT, DISK_FULL, FAILED, JOB, PREPARATION, SUCCESS, nodes, text
from tests.test_selection import rule
from tools.sample_job import nodes_read, tasks_read

Golden = Callable[[str, str], None]

USER = {"category": "UserError", "code": "FailureExitCode", "message": "task a on node tvm-7"}


def at(clock: str) -> str:
    return f"2026-01-01T{clock}Z"


def task(task_id: str, state: str, changed: str = "10:00:00", **execution: Any) -> dict[str, Any]:
    """A task as it is listed. Times are those of a day; `created` 09:00 if not given."""
    created = execution.pop("created", "09:00:00")
    for name in ("startTime", "endTime"):
        if execution.get(name):
            execution[name] = at(execution[name])
    return {
        "id": task_id,
        "state": state,
        "stateTransitionTime": at(changed),
        "creationTime": at(created),
        "executionInfo": {"retryCount": 0, "requeueCount": 0, **execution},
    }


def active(task_id: str, changed: str = "09:00:00", **execution: Any) -> dict[str, Any]:
    return task(task_id, "active", changed, **execution)


def running(task_id: str, started: str = "10:00:00", **execution: Any) -> dict[str, Any]:
    changed = execution.pop("changed", started)
    return task(task_id, "running", changed, startTime=started, **execution)


def succeeded(task_id: str, ended: str = "10:00:30", **execution: Any) -> dict[str, Any]:
    given = {"startTime": "10:00:00", "exitCode": 0, "result": "Success", **execution}
    return task(task_id, "completed", ended, endTime=ended, **given)


def failed(task_id: str, ended: str = "10:01:00", **execution: Any) -> dict[str, Any]:
    given = {"startTime": "10:00:00", "exitCode": 1, "result": "Failure", "failureInfo": USER}
    return task(task_id, "completed", ended, endTime=ended, **{**given, **execution})


def listed(
    *pages: list[dict[str, Any]], since: float | None = None, started: float = 0.0
) -> Reading:
    found = [msgspec.convert(page, tuple[Task, ...]) for page in pages]
    return tasks_read(*found, started=started, since=since)


def changed(*pages: list[dict[str, Any]]) -> Reading:
    return listed(*pages, since=0.0)


class Watch:
    """Folds readings of one job, and adds up what they count."""

    def __init__(self, *, is_new: bool = True) -> None:
        self.is_new = is_new
        self.state: JobTasks | None = None
        self.counted: dict[str, float] = {}
        self.corrections = 0
        self.saved = b""
        self.records: dict[tuple[str, ...], bytes] = {}

    def restart(self) -> Watch:
        """Go on with what was saved."""
        self.state = tasks.load(self.saved, self.records)
        return self

    def read(self, *readings: Reading) -> Watch:
        for reading in readings:
            folded = tasks.fold(self.state, reading, 0.0, self.is_new)
            self.state = folded.state
            self.saved = tasks.dump(folded.state)
            for key, record in folded.records:
                self.records.pop(key, None)
                if record is not None:
                    self.records[key] = msgspec.json.encode(record)
            assert tasks.load(self.saved, self.records) == self.state
            self.corrections += folded.events.corrections
            self._add(folded.events.increments)
            self._add(folded.events.observations)
        return self

    def _add(self, increments: Increments) -> None:
        for (name, labels), amount in increments.items():
            short = " ".join(
                [name.removeprefix("azure_batch_").removeprefix("job_"), *filter(None, labels)]
            )
            if amount and "_bucket" not in short:
                self.counted[short] = self.counted.get(short, 0) + amount


FAILED_ONCE = {
    "tasks_failed_total usererror": 1,
    "task_failure_codes_total usererror FailureExitCode": 1,
}


def ran(runs: int, seconds: float, starts: int, waited: float) -> dict[str, float]:
    """What histograms count."""
    found = {
        "task_run_seconds _count": runs,
        "task_run_seconds _sum": seconds,
        "task_wait_seconds _count": starts,
        "task_wait_seconds _sum": waited,
    }
    return {name: value for name, value in found.items() if value}


# What is shown


STORY = listed(
    [
        active("a", created="09:30:00"),
        active("b", created="09:10:00.5"),
        task("p", "preparing", created="08:00:00"),
        running("r1", "09:45:00"),
        running("r2", "09:40:00", retryCount=2),
        succeeded("s"),
        failed("f1"),
        failed("f2"),
    ],
    [
        failed(
            "exit code 0", exitCode=0, failureInfo={"category": "ServerError", "code": "DiskFull"}
        ),
        failed("new kind", failureInfo={"category": "Cosmic", "code": "BrandNew"}),
        failed("nothing said", failureInfo=None),
        task("odd", "Hibernating"),
        {"id": "bare"},
    ],
)


def test_gauges(golden: Golden) -> None:
    golden("tasks.prom", text("tasks", JOB, Watch().read(STORY).state))


def test_counters(golden: Golden) -> None:
    folded = tasks.fold(None, STORY, 0.0, True)
    counters = Counters().add(folded.events.increments)
    appeared = text("tasks counters", JOB, counters)
    assert {line.split()[-1] for line in appeared.splitlines() if line[0] != "#"} == {"0"}
    golden("tasks_counters.prom", text("tasks counters", JOB, counters.add({})))


def test_histograms(golden: Golden) -> None:
    reading = nodes_read(
        "pool-1",
        nodes({PREPARATION: SUCCESS}, {PREPARATION: FAILED}, {PREPARATION: DISK_FULL}),
    )
    counters = Counters()
    for folded in (
        tasks.fold(None, STORY, 0.0, True),
        preparation_release.fold(None, reading, 0.0, True),
    ):
        counters = counters.add(folded.events.observations)
    golden("histograms.prom", text(table_names.HISTOGRAMS, ACCOUNT, counters.add({})))


def test_a_job_without_tasks_has_counters_and_no_gauges() -> None:
    watch = Watch().read(listed())
    assert text("tasks", JOB, watch.state) == ""
    assert watch.counted == {}


def test_a_failure_is_what_the_result_says_and_not_the_exit_code() -> None:
    odd = [
        succeeded("a", exitCode=3),
        failed("b", exitCode=0),
        running("d", result="failure", failureInfo=USER),  # what it was before it ran again
        succeeded("e", result="Vanished"),
    ]
    watch = Watch().read(listed(odd))
    assert watch.state is not None
    assert watch.state.tasks.failed == {("usererror", "FailureExitCode"): 1}
    assert watch.counted == {**FAILED_ONCE, **ran(3, 120, 4, 4 * 3600)}


def test_without_a_result_failure_info_and_exit_code_say_what_failed() -> None:
    silent = [
        failed("a", result=None, exitCode=None),
        failed("b", result=None, failureInfo=None, exitCode=3),
        succeeded("c", result=None),
        succeeded("d", result=None, exitCode=None),  # nobody can know
        running("e", exitCode=1, failureInfo=USER),  # what it was before it ran again
    ]
    reading = listed(silent)
    watch = Watch().read(reading)
    assert watch.state is not None
    assert watch.state.tasks.failed == {
        ("usererror", "FailureExitCode"): 1,
        ("unknown", "other"): 1,
    }
    kept = {name: type(found).__name__ for name, found in watch.state.tasks.latest.items()}
    assert (kept["c"], kept["d"]) == ("float", "TaskRecord")
    assert {name: n for name, n in watch.counted.items() if "fail" in name} == {
        **FAILED_ONCE,
        "tasks_failed_total unknown": 1,
        "task_failure_codes_total unknown other": 1,
    }
    assert {each.task_id for each in reading.failures} == {"a", "b"}


# What is counted


def test_of_an_old_job_the_first_listing_is_where_counting_begins() -> None:
    first = listed([failed("f", retryCount=3, requeueCount=1), succeeded("s"), running("r")])
    watch = Watch(is_new=False).read(first)
    assert watch.counted == {}
    watch.read(changed([failed("r", retryCount=1)]))
    assert watch.counted == {**FAILED_ONCE, "task_retries_total": 1, **ran(1, 60, 0, 0)}


def test_of_a_new_job_everything_counts() -> None:
    first = listed([failed("f", retryCount=3, requeueCount=1), succeeded("s"), running("r")])
    assert Watch().read(first).counted == {
        **FAILED_ONCE,
        "task_retries_total": 3,
        "task_requeues_total": 1,
        **ran(2, 90, 2, 2 * 3600),  # nobody knows when a task that was retried first started
    }


def test_a_record_read_again_counts_nothing() -> None:
    page = [failed("f", retryCount=1), succeeded("s"), running("r", retryCount=2), active("a")]
    watch = Watch().read(listed(page))
    before = dict(watch.counted)
    watch.read(changed(page), listed(page), changed(page, page), listed(page[::-1]))
    assert watch.counted == before


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 4, 0, 1, 3)])
def test_pages_that_are_older_than_what_is_known_change_nothing(order: tuple[int, ...]) -> None:
    history = [
        active("t"),
        running("t", "10:00:00"),
        running("t", "10:00:20", changed="10:00:00", retryCount=1),
        running("t", "10:00:40", changed="10:00:00", retryCount=2),
        failed("t", "10:01:00", startTime="10:00:40", retryCount=2),
    ]
    watch = Watch().read(listed([history[0]]))
    for moment in order:
        watch.read(changed([history[moment]]))
    watch.read(listed([history[moment] for moment in order]))
    assert watch.state is not None
    assert watch.state.tasks.failed == {("usererror", "FailureExitCode"): 1}
    starts = watch.counted.pop("task_wait_seconds _count", 0)
    assert starts == (order == (0, 1, 2, 3, 4))
    watch.counted.pop("task_wait_seconds _sum", 0)
    assert watch.counted == {**FAILED_ONCE, "task_retries_total": 2, **ran(1, 20, 0, 0)}


def test_a_retry_shows_while_the_task_goes_on_running() -> None:
    watch = Watch().read(listed([running("t")]))
    watch.read(changed([running("t", "10:00:30", changed="10:00:00", retryCount=1)]))
    watch.read(changed([running("t", "10:00:50", changed="10:00:00", retryCount=3)]))
    assert watch.counted == {"task_retries_total": 3, **ran(0, 0, 1, 3600)}


def test_a_task_that_lost_its_node_waits_again_and_was_not_waiting_all_the_while() -> None:
    watch = Watch().read(
        listed([running("t")]),
        changed([active("t", "10:05:00", requeueCount=1)]),
        changed([running("t", "10:07:00", requeueCount=1)]),
        changed([succeeded("t", "10:08:00", startTime="10:07:00", requeueCount=1)]),
    )
    assert watch.counted == {"task_requeues_total": 1, **ran(1, 60, 1, 3600)}


def test_a_task_that_is_reactivated_may_fail_again() -> None:
    watch = Watch().read(listed([failed("t", retryCount=1)]))
    watch.read(changed([active("t", "10:10:00")]))
    assert watch.state is not None
    assert watch.state.tasks.failed == {}
    watch.read(changed([failed("t", "10:20:00", startTime="10:19:00", retryCount=1)]))
    assert watch.counted["tasks_failed_total usererror"] == 2
    assert watch.counted["task_retries_total"] == 2
    assert watch.counted["task_run_seconds _count"] == 2


def test_a_reactivation_that_fell_between_two_readings_is_known_by_its_times() -> None:
    watch = Watch().read(
        listed([failed("t", retryCount=1)]),
        changed([failed("t", "10:20:00", startTime="10:19:00", retryCount=2)]),
    )
    assert watch.counted["tasks_failed_total usererror"] == 2
    assert watch.counted["task_retries_total"] == 3  # reactivated, it counts from 0


def test_a_result_that_comes_after_the_state_is_counted_when_it_comes() -> None:
    late = failed("t", result=None, failureInfo=None, exitCode=None)
    watch = Watch().read(listed([late]), changed([failed("t")]), changed([failed("t")]))
    assert watch.counted == {**FAILED_ONCE, **ran(1, 60, 1, 3600)}


def test_a_task_that_never_ran_is_no_run_and_no_wait() -> None:
    ended = failed("t", startTime=None, exitCode=None)
    assert Watch().read(listed([ended])).counted == FAILED_ONCE


def test_clocks_that_differ_make_no_negative_durations() -> None:
    early = succeeded("t", "10:00:00", startTime="08:59:59")
    skewed = succeeded("u", "10:00:00", startTime="10:00:01")
    counted = Watch().read(listed([early, skewed])).counted
    assert counted["task_wait_seconds _sum"] == 3601
    assert counted["task_run_seconds _sum"] == 3601


# What goes


def test_a_deleted_task_leaves_the_gauges_and_its_counters_stay() -> None:
    watch = Watch().read(listed([failed("t"), active("a")]), changed([]))
    assert watch.state is not None
    assert watch.state.tasks.failed
    before = dict(watch.counted)
    watch.read(listed([]))
    assert text("tasks", JOB, watch.state) == ""
    assert watch.counted == before
    assert watch.corrections == 0


def test_a_task_that_a_full_listing_lost_between_two_pages_is_not_counted_again() -> None:
    page = [failed("f", retryCount=1), succeeded("s")]
    watch = Watch().read(listed(page))
    before = dict(watch.counted)
    watch.read(listed([]), listed(page))
    assert watch.counted == before
    watch.read(listed([]), changed(page), listed(page))
    assert watch.counted == before
    assert watch.state is not None
    assert watch.state.tasks.missing == {}


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_task_that_two_full_listings_lack_is_not_counted_again(is_restarted: bool) -> None:
    page = [failed("f", retryCount=1), succeeded("s"), running("r", retryCount=2)]
    watch = Watch().read(listed(page))
    before = dict(watch.counted)
    watch.read(listed([]), listed([]))
    if is_restarted:
        watch.restart()
    assert watch.read(listed(page)).counted == before
    assert watch.read(listed([]), changed([]), listed([]), changed(page)).counted == before


def test_of_missing_tasks_the_latest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_records, "MAX_MISSING", 2)
    watch = Watch()
    for task_id in "abcd":  # each succeeds and is deleted
        watch.read(listed([succeeded(task_id)]), listed([]))
    watch.read(listed([]))
    assert watch.state is not None
    assert list(watch.state.tasks.missing) == ["c", "d"]
    assert [type(kept) for kept in watch.state.tasks.missing.values()] == [float, float]
    assert sorted(watch.records) == [("c", "missing"), ("d", "missing")]


@pytest.mark.parametrize("lost", [listed([]), changed([])], ids=["all", "changes"])
def test_a_task_that_was_lost_is_known_again_after_a_restart(lost: Reading) -> None:
    watch = Watch().read(listed([running("r", retryCount=1), failed("f"), succeeded("s")]), lost)
    before = dict(watch.counted)
    watch.restart().read(listed([running("r", retryCount=1), failed("f"), succeeded("s")]))
    assert watch.counted == before


@pytest.mark.parametrize("lost", [listed([]), changed([])], ids=["all", "changes"])
def test_a_task_that_came_back_is_saved_as_it_is_and_not_as_it_was_lost(lost: Reading) -> None:
    watch = Watch().read(listed([running("r")]), lost, changed([failed("r")]), changed([]))
    before = dict(watch.counted)
    watch.restart().read(changed([failed("r")]))
    assert watch.counted == before


@pytest.mark.parametrize("first", [failed("t", retryCount=1), succeeded("t", retryCount=1)])
def test_a_task_created_again_under_its_id_is_another_task(first: dict[str, Any]) -> None:
    again = failed("t", "12:01:00", created="11:00:00", startTime="12:00:00", retryCount=1)
    watch = Watch().read(listed([first]))
    before = watch.counted.get("tasks_failed_total usererror", 0)
    watch.read(changed([again]), changed([first, again, first]))
    assert watch.counted["tasks_failed_total usererror"] == before + 1
    assert watch.counted["task_retries_total"] == 2
    assert watch.counted["task_run_seconds _count"] == 2


def test_corrections_are_what_reading_by_changes_should_have_brought() -> None:
    watch = Watch().read(listed([running("r"), active("a")], started=0.0))
    seconds = TaskRecord.of(msgspec.convert(running("x", "12:00:00"), Task), Spellings()).changed
    watch.read(listed([running("r"), active("a")], since=0.0, started=seconds))
    watch.read(listed([failed("r"), running("a"), failed("late", "11:59:00")], started=seconds))
    assert watch.corrections == 1  # `late` is within the overlap, and what runs is read each time


def test_of_what_succeeded_only_its_id_and_time_are_kept() -> None:
    state = Watch().read(listed([succeeded("s"), failed("f")])).state
    assert state is not None
    assert {key: type(kept) for key, kept in state.tasks.latest.items()} == {
        "s": float,
        "f": TaskRecord,
    }


def test_a_state_file_has_one_array_per_task_and_the_time_of_those_that_succeeded() -> None:
    saved = b'{"read_at":9.5,"listed_at":2.0}'
    records = {
        ("f",): b'[0.5,3.0,1.5,3.0,"completed","failure","usererror","DiskFull",2,1]',
        ("r",): b'[0.5,1.5,1.5,null,"running",null,null,null,0,0]',
        ("s",): b"2.5",
        ("t", "missing"): b"3.5",
        ("u", "missing"): b'[0.5,0.5,null,null,"active",null,null,null,0,0]',
    }
    state = tasks.load(saved, records)
    assert tasks.dump(state) == saved
    assert (state.tasks.failed, state.tasks.oldest_running) == ({("usererror", "DiskFull"): 1}, 1.5)
    assert {
        (task_id, *suffix): msgspec.json.encode(task)
        for suffix, found in (((), state.tasks.latest), (("missing",), state.tasks.missing))
        for task_id, task in found.items()
    } == records


# How it is read


class Api:
    """Lists these pages, and notes how it was asked."""

    def __init__(self, *pages: list[dict[str, Any]]) -> None:
        self.pages = pages
        self.clock = ServiceClock()
        self.error: ServiceError | None = None
        self.refused_filters: set[str] = set()
        self.spellings = Spellings()
        self.asked: list[str | None] = []

    async def list_tasks(
        self, job_id: str, filter_: str | None = None, select: tuple[str, ...] = ()
    ) -> AsyncIterator[tuple[Task, ...]]:
        self.asked.append(filter_)
        assert (job_id, select) == ("job-1", tasks.FIELDS)
        if filter_ and self.error:
            raise self.error
        for page in self.pages:
            yield msgspec.convert(page, tuple[Task, ...])


WATCHED = WatchedJob(Job("job-1"), rule(id="job-1"))
FIVE_PAST_SIX = 1_767_247_500.0
SINCE = (
    "(stateTransitionTime ge DateTime'2026-01-01T06:04:00.000000Z')"
    " or (state eq 'running') or (state eq 'preparing')"
)


async def test_after_a_full_listing_what_changed_or_runs_is_read() -> None:
    api = Api([running("a")], [active("b")])
    reading = await tasks.read(api, WATCHED, None, FIVE_PAST_SIX)
    assert reading.ids == ["a", "b"]
    assert (reading.started, reading.since) == (FIVE_PAST_SIX, None)
    state = tasks.fold(None, reading, 0.0, False).state
    assert (state.read_at, state.listed_at) == (FIVE_PAST_SIX, FIVE_PAST_SIX)
    reading = await tasks.read(api, WATCHED, state, FIVE_PAST_SIX + 30)
    state = tasks.fold(state, reading, 0.0, False).state
    assert api.asked == [None, SINCE]
    assert (state.read_at, state.listed_at) == (FIVE_PAST_SIX + 30, FIVE_PAST_SIX)
    for _ in range(2):
        api.clock.note(290.0)  # by the service's clock it is time for a full one
    reading = await tasks.read(api, WATCHED, state, FIVE_PAST_SIX + 670)
    assert api.asked[2:] == [None]
    assert reading.started == FIVE_PAST_SIX + 960


async def test_a_service_that_refuses_the_filter_is_asked_for_all_from_then_on() -> None:
    api = Api([running("a")])
    state = JobTasks(read_at=FIVE_PAST_SIX, listed_at=FIVE_PAST_SIX)
    api.error = ServiceError(400, "InvalidQueryParameterValue")
    for _ in range(2):
        reading = await tasks.read(api, WATCHED, state, FIVE_PAST_SIX)
        assert reading.since is None
    assert api.asked == [SINCE, None, None]
    assert api.refused_filters == {tasks.OPERATION}


@pytest.mark.parametrize(
    "error", [ServiceError(500, "InternalError"), UnsupportedVersion(400, "x")]
)
async def test_other_errors_are_no_refusal(error: ServiceError) -> None:
    api = Api()
    api.error = error
    state = JobTasks(read_at=FIVE_PAST_SIX, listed_at=FIVE_PAST_SIX)
    with pytest.raises(ServiceError):
        await tasks.read(api, WATCHED, state, FIVE_PAST_SIX)
    assert api.asked == [SINCE]
    assert api.refused_filters == set()


def test_more_tasks_than_are_kept_fail_the_poll_and_change_nothing() -> None:
    most = known_records.MAX_RECORDS
    state = JobTasks(1.0, 1.0, Tasks({str(number): 1.0 for number in range(most)}))
    one = Reading(started=2.0, since=1.0)
    one.add_page((msgspec.convert(active("0"), Task),), Spellings(), command_lines=False)
    tasks.fold(state, one, 2.0, False)
    one.add_page((msgspec.convert(active("new"), Task),), Spellings(), command_lines=False)
    with pytest.raises(TooLarge, match=f"more than {most} records"):
        tasks.fold(state, one, 2.0, False)
