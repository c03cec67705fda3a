"""Counters from snapshots: exact, never falling, first shown as 0."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.batch.models import RESULTS, Job, NodeTaskStatus, TaskCountsResult
from exporter.batch.spellings import Spellings
from exporter.collectors import (
    incremental,
    new_store,
    preparation_release,
    tables,
    task_counts,
)
from exporter.collectors.node_runs import STATES, PoolRuns
from exporter.collectors.preparation_release import changes_since
from exporter.exposition.body import Exposition, Format
from exporter.exposition.metric import Key
from exporter.exposition.scrapes import Scrapes
from exporter.polling.selection import watch, watch_saved
from exporter.state.counters import Counters
from exporter.state.saved import Saved
from exporter.state.watched_job import SelectedJobs
from tests.test_selection import rule
from tools.sample_job import nodes_read

# Totals


def test_a_series_is_first_shown_as_zero_and_what_was_known_follows() -> None:
    key = "events_total", ("a",)
    first = Counters().add({key: 5})
    assert first.exposed == {key: 0}
    assert first.is_behind
    second = first.add({})
    assert second.exposed == {key: 5}
    assert not second.is_behind
    assert second.add({key: 2}).exposed == {key: 7}


def test_a_label_value_that_comes_later_is_first_shown_as_zero_too() -> None:
    a, b = ("events_total", ("a",)), ("events_total", ("b",))
    counters = Counters().add({a: 1}).add({a: 1, b: 3})
    assert counters.exposed == {a: 2, b: 0}
    assert counters.add({}).exposed == {a: 2, b: 3}


def test_a_counter_does_not_fall() -> None:
    with pytest.raises(ValueError, match="does not fall"):
        Counters().add({("events_total", ()): -1})


# Task counts


def counted(history: Sequence[dict[str, int]], *, is_new: bool) -> dict[str, float]:
    """All that was counted over a history of answers, by the last part of the name and result."""
    state, sums = None, Counter[str]()
    for counts in history:
        reading = msgspec.convert({"taskCounts": counts}, TaskCountsResult)
        folded = task_counts.fold(state, reading, 0.0, is_new)
        state = folded.state
        for (name, labels), amount in folded.events.increments.items():
            short = name.removeprefix("azure_batch_job_").removesuffix("_total")
            sums["_".join((short, *labels))] += amount  # type: ignore[assignment]
    return dict(sums)


def counts(active: int, running: int, succeeded: int, failed: int) -> dict[str, int]:
    completed = succeeded + failed
    return {
        "active": active,
        "running": running,
        "completed": completed,
        "succeeded": succeeded,
        "failed": failed,
    }


NOTHING = {
    "tasks_completed_success": 0,
    "tasks_completed_failure": 0,
    "tasks_started": 0,
    "tasks_added": 0,
    "task_count_regressions": 0,
}


def test_of_an_old_job_what_was_there_is_not_counted_and_of_a_new_one_it_is() -> None:
    history = [counts(5, 2, 30, 1)]
    assert counted(history, is_new=False) == NOTHING
    assert counted(history, is_new=True) == {
        "tasks_completed_success": 30,
        "tasks_completed_failure": 1,
        "tasks_started": 33,
        "tasks_added": 38,
        "task_count_regressions": 0,
    }


def test_growth_is_counted() -> None:
    history = [counts(10, 0, 0, 0), counts(6, 4, 0, 0), counts(10, 0, 3, 1), counts(0, 0, 12, 2)]
    assert counted(history, is_new=False) == {
        "tasks_completed_success": 12,
        "tasks_completed_failure": 2,
        "tasks_started": 14,
        "tasks_added": 4,
        "task_count_regressions": 0,
    }


def test_a_correction_downwards_is_a_regression_and_invents_no_failure() -> None:
    history = [counts(0, 0, 5, 2), counts(1, 0, 5, 1), counts(1, 0, 5, 1)]
    assert counted(history, is_new=False) == {**NOTHING, "task_count_regressions": 1}


def test_a_requeue_is_no_regression_and_starting_again_is_a_start() -> None:
    history = [counts(0, 3, 0, 0), counts(3, 0, 0, 0), counts(0, 3, 0, 0)]
    assert counted(history, is_new=False) == {**NOTHING, "tasks_started": 3}


def test_a_count_that_is_missing_once_is_as_it_was() -> None:
    history: list[dict[str, Any]] = [counts(0, 0, 5, 0), {"active": 1}, counts(0, 0, 7, 0)]
    got = counted(history, is_new=False)
    assert got["tasks_completed_success"] == 2
    assert got["task_count_regressions"] == 0


@given(st.lists(st.tuples(*[st.integers(0, 9)] * 4), min_size=1), st.booleans())
def test_counters_are_the_sum_of_all_growth(
    history: list[tuple[int, int, int, int]], is_new: bool
) -> None:
    got = counted([counts(*each) for each in history], is_new=is_new)
    before = (0, 0, 0, 0) if is_new else history[0]
    expected = Counter[str]()
    for active, running, succeeded, failed in history:
        expected["success"] += max(0, succeeded - before[2])
        expected["failure"] += max(0, failed - before[3])
        expected["started"] += max(0, running + succeeded + failed - sum(before[1:]))
        before = (active, running, succeeded, failed)
    assert got["tasks_completed_success"] == expected["success"]
    assert got["tasks_completed_failure"] == expected["failure"]
    assert got["tasks_started"] == expected["started"]


# Preparation and release


PREPARATION, RELEASE = (task.member for task in preparation_release.TASKS)


def time(second: int) -> str:
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=second)
    return moment.isoformat().replace("+00:00", "Z")


def record(
    node: str,
    start: int,
    end: int | None = None,
    failed: bool = False,
    retries: int = 0,
    member: str = PREPARATION,
) -> NodeTaskStatus:
    """One node's latest run: running without `end`."""
    run: dict[str, Any] = {"startTime": time(start), "retryCount": retries, "state": "running"}
    if end is not None:
        run |= {"state": "completed", "endTime": time(end), "result": "success"}
    if failed:
        run |= {"result": "failure", "failureInfo": {"category": "UserError", "code": "DiskFull"}}
    return msgspec.convert({"poolId": "p", "nodeId": node, member: run}, NodeTaskStatus)


class Nodes:
    """Folds readings of one job one after the other."""

    def __init__(self, *, is_new: bool = False) -> None:
        self.is_new = is_new
        self.state: preparation_release.PreparationRelease | None = None
        self.sums = Counter[str]()
        self.corrections = 0
        self.saved: dict[tuple[str, ...], bytes] = {}

    def read(self, *nodes: NodeTaskStatus, at: int = 0, changes: bool = False) -> dict[str, int]:
        """What this reading counted, by the last parts of the name and the labels."""
        since = None
        if changes:
            assert self.state is not None
            since = self.state.read_at - incremental.OVERLAP
        reading = nodes_read("p", nodes, at + EPOCH, since)
        folded = preparation_release.fold(self.state, reading, 0.0, self.is_new)
        self.state = folded.state
        self.corrections += folded.events.corrections
        for key, run in folded.records:
            self.saved.pop(key, None)
            if run is not None:
                self.saved[key] = msgspec.json.encode(run)
        loaded = preparation_release.load(preparation_release.dump(folded.state), self.saved)
        assert loaded == folded.state
        got = {
            "_".join((name.removeprefix("azure_batch_job_").removesuffix("_total"), *labels[1:])): n
            for (name, labels), n in folded.events.increments.items()
            if n
        }
        self.sums.update(got)
        return got


EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()
FAILED_ONCE = {
    "preparation_tasks_completed_failure": 1,
    "preparation_tasks_failed_usererror": 1,
    "preparation_task_failure_codes_usererror_DiskFull": 1,
}
DONE_ONCE = {"preparation_tasks_completed_success": 1}


@pytest.mark.parametrize("changes", [False, True])
def test_a_node_that_one_listing_does_not_hold_is_not_counted_again(changes: bool) -> None:
    nodes = Nodes(is_new=True)
    assert nodes.read(record("a", 0, 5, failed=True), record("b", 0, 5)) == {
        **FAILED_ONCE,
        **DONE_ONCE,
    }
    assert nodes.read(record("b", 0, 5)) == {}  # pages are no snapshot
    assert nodes.state is not None
    assert list(nodes.state.runs["preparation", "p"].latest) == ["b"]
    assert nodes.read(record("a", 0, 5, failed=True), record("b", 0, 5), changes=changes) == {}
    assert nodes.state.count("preparation", "result", "failure") == 1
    assert nodes.read(record("a", 9, 15), changes=changes) == DONE_ONCE  # it ran again


def test_a_run_is_counted_once_however_often_it_is_read() -> None:
    nodes = Nodes()
    assert nodes.read(record("a", 0)) == {}
    assert nodes.read(record("a", 0, 5, failed=True)) == FAILED_ONCE
    for _ in range(3):
        assert nodes.read(record("a", 0, 5, failed=True)) == {}
        twice = (record("a", 0, 5, failed=True), record("a", 0, 5, failed=True))
        assert nodes.read(*twice, changes=True) == {}


def test_a_run_again_on_the_same_node_is_counted_again() -> None:
    nodes = Nodes()
    nodes.read(record("a", 0, 5))
    assert nodes.read(record("a", 10, 15)) == DONE_ONCE
    assert nodes.read(record("a", 20)) == {}
    assert nodes.read(record("a", 20, 25, failed=True)) == FAILED_ONCE


def test_of_an_old_job_the_first_listing_counts_nothing_and_of_a_new_one_all() -> None:
    assert Nodes().read(record("a", 0, 5)) == {}
    assert Nodes(is_new=True).read(record("a", 0, 5)) == DONE_ONCE


def test_a_node_that_comes_later_is_counted_whole() -> None:
    nodes = Nodes()
    nodes.read(record("a", 0, 5))
    assert nodes.read(record("a", 0, 5), record("b", 3, 9, retries=2)) == {
        **DONE_ONCE,
        "preparation_task_retries": 2,
    }


def test_a_record_that_is_older_than_what_is_known_changes_nothing() -> None:
    nodes = Nodes()
    nodes.read(record("a", 0))
    assert nodes.read(record("a", 10, 15), record("a", 0, 5)) == DONE_ONCE
    assert nodes.read(record("a", 10)) == {}  # a page from before it completed
    assert nodes.read(record("a", 10, 15)) == {}
    assert nodes.state is not None
    assert nodes.state.runs["preparation", "p"].latest["a"].start == EPOCH + 10


def test_retries_are_the_growth_of_their_count_and_begin_anew_with_a_run() -> None:
    nodes = Nodes()
    nodes.read(record("a", 0))
    assert nodes.read(record("a", 3, retries=1)) == {"preparation_task_retries": 1}
    assert nodes.read(record("a", 9, 12, retries=3)) == {
        **DONE_ONCE,
        "preparation_task_retries": 2,
    }
    assert nodes.read(record("a", 20, retries=1)) == {"preparation_task_retries": 1}


@pytest.mark.parametrize(("end", "retries"), [(5, 1), (5, 2), (None, 1)])
def test_a_run_that_cannot_be_the_one_before_it_counts_all_its_retries(
    end: int | None, retries: int
) -> None:
    nodes = Nodes()
    nodes.read(record("a", 0, end, retries=1))
    # That one was over, or its count would have grown with its start.
    assert nodes.read(record("a", 20, retries=retries)) == {"preparation_task_retries": retries}


def test_release_is_counted_apart() -> None:
    nodes = Nodes()
    nodes.read(record("a", 0, member=RELEASE))
    assert nodes.read(record("a", 0, 5, member=RELEASE)) == {"release_tasks_completed_success": 1}


def test_a_full_listing_that_finds_what_changes_did_not_bring_counts_a_correction() -> None:
    nodes = Nodes()
    nodes.read(record("a", 0), at=10)
    nodes.read(at=1000, changes=True)
    # It ended long before the last reading, which should have brought it.
    assert nodes.read(record("a", 0, 300), at=1010) == DONE_ONCE
    assert nodes.corrections == 1
    assert nodes.read(record("a", 0, 300), record("b", 1008, 1009), at=1020) == DONE_ONCE
    assert nodes.corrections == 1  # that one is simply new


RECORDS = st.builds(
    record,
    st.sampled_from("abc"),
    st.integers(0, 5),
    st.none() | st.integers(6, 9),
)


@given(st.lists(st.tuples(st.lists(RECORDS), st.booleans())))
@example([([record("a", 0, 6), record("a", 1)], False)])  # one page has a node twice
def test_reading_by_changes_leaves_the_state_that_counting_all_nodes_gives(
    readings: list[tuple[list[NodeTaskStatus], bool]],
) -> None:
    nodes = Nodes()
    nodes.read()
    for records, changes in readings:
        nodes.read(*records, changes=changes)
    assert nodes.state is not None
    runs = nodes.state.runs.get(("preparation", "p"), PoolRuns())
    latest = runs.latest.values()
    states = Counter(run.state for run in latest)
    results = Counter(run.result for run in latest)
    count = partial(nodes.state.count, "preparation")
    assert {state: count("state", state) for state in STATES} == {s: states[s] for s in STATES}
    assert {value: count("result", value) for value in RESULTS} == {r: results[r] for r in RESULTS}
    starts = [run.start for run in latest if run.state == "running" and run.start is not None]
    assert runs.oldest_running == min(starts, default=None)
    assert nodes.sums["preparation_tasks_completed_success"] >= results["success"]


RUNS = st.fixed_dictionaries(
    {},
    optional={
        "startTime": st.sampled_from(["2026-01-01T00:00:01Z", "2026-01-01T00:00:02", None]),
        "endTime": st.sampled_from(["2026-01-01T00:00:03Z", "0001-01-01T00:00:00Z"]),
        "state": st.sampled_from(["running", "completed", "Completed", "new"]),
        "result": st.sampled_from(["success", "Success", "failure", "new"]),
        "failureInfo": st.just({"category": "UserError", "code": "DiskFull"}),
        "retryCount": st.integers(0, 2),
    },
)
ANY_RECORDS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "poolId": st.sampled_from(["p", "q", ""]),
            "nodeId": st.sampled_from("abcd"),
            PREPARATION: RUNS,
            RELEASE: RUNS,
        },
    )
)


A_POOL_THAT_IS_MISSING_OR_EMPTY: list[dict[str, Any]] = [
    {},
    {"nodeId": "a", "poolId": "", PREPARATION: {"startTime": "2026-01-01T00:00:01Z"}},
    {"nodeId": "a", PREPARATION: {}},
]


@given(st.lists(st.tuples(ANY_RECORDS, st.booleans()), max_size=4), st.booleans())
@example([(A_POOL_THAT_IS_MISSING_OR_EMPTY, False)], False)
def test_a_page_comes_to_what_its_records_come_to_one_by_one(
    readings: list[tuple[list[dict[str, Any]], bool]], is_new: bool
) -> None:
    together: preparation_release.PreparationRelease | None = None
    alone: preparation_release.PreparationRelease | None = None
    for number, (given_records, changes) in enumerate(readings):
        records = msgspec.convert(given_records, tuple[NodeTaskStatus, ...])
        since = EPOCH if changes and number else None
        one_page = nodes_read("p", records, EPOCH + number, since)
        reading = nodes_read("p", (), EPOCH + number, since)
        assert reading.listing is not None
        for each in records:
            preparation_release.add_page(reading.listing, (each,), Spellings(), set())
        expected = preparation_release.fold(alone, reading, 0.0, is_new)
        found = preparation_release.fold(together, one_page, 0.0, is_new)
        assert found.state == expected.state
        assert nonzero(found.events.increments) == nonzero(expected.events.increments)
        assert nonzero(found.events.observations) == nonzero(expected.events.observations)
        assert found.events.corrections == expected.events.corrections
        assert sorted(found.events.failures, key=repr) == sorted(expected.events.failures, key=repr)
        assert dict(found.records) == dict(expected.records)
        together, alone = found.state, expected.state


def nonzero(increments: Mapping[Key, float]) -> dict[Key, float]:
    """Those that count something; 0 makes a series appear."""
    return {key: amount for key, amount in increments.items() if amount}


def test_the_filter_asks_for_what_started_ended_or_runs() -> None:
    since = "DateTime'2026-01-01T00:00:00.500000Z'"
    assert changes_since(EPOCH + 0.5) == " or ".join(
        f"({member}/{term})"
        for member in (PREPARATION, RELEASE)
        for term in (f"startTime ge {since}", f"endTime ge {since}", "state eq 'running'")
    )


# Jobs, groups and accounts


class Account:
    """A store of one account, and a look at what it exposes."""

    def __init__(self, **settings: Any) -> None:
        self.rule = rule(**({"id_regex": ".*"} | settings))
        self.exposition = Exposition(tables(tuple(sorted(dict(self.rule.labels)))))
        self.seconds = 0.0
        self.scrapes = Scrapes(lambda: self.seconds)
        self.store = new_store(self.exposition, scrapes=self.scrapes)
        self.store.add_account("acc", Saved(), partial(watch_saved, (self.rule,)))

    def select(self, *jobs: Job, at: float = 0.0) -> None:
        selected = SelectedJobs(tuple(watch(job, self.rule) for job in jobs))
        self.store.select("acc", selected, at, at)
        self.store.flush()

    def poll(self, job: Job, **tasks: int) -> None:
        reading = msgspec.convert({"taskCounts": {**counts(0, 0, 0, 0), **tasks}}, TaskCountsResult)
        state = self.store.outcome("acc", "task_counts", job.id).state
        self.store.put_reading("acc", job, "task_counts", reading, state, 0.0)
        self.store.flush()

    def read(self, client: str = "prometheus") -> None:
        """A client scrapes; what waited for that is shown then."""
        self.seconds += 1
        self.scrapes.note((client, ""), self.seconds)
        self.seconds += 1
        self.store.flush()

    def values(self, name: str) -> dict[str, float]:
        """The samples of one name: labels but the account's, and values."""
        self.store.flush()
        found = {}
        for line in self.exposition.body(Format.TEXT).plain.decode().splitlines():
            if line.startswith(f"{name}{{"):
                labels, _, value = line.removeprefix(f"{name}{{").rpartition("} ")
                found[labels.removeprefix('account="acc"').removeprefix(",")] = float(value)
        return found


def job(job_id: str, created: float = -100.0, pool: str = "p") -> Job:
    return msgspec.convert(
        {
            "id": job_id,
            "state": "active",
            "creationTime": dt.datetime.fromtimestamp(created, dt.UTC).isoformat(),
            "executionInfo": {"poolId": pool},
        },
        Job,
    )


FAILED = "azure_batch_job_tasks_completed_total"
OF_ACCOUNT = "azure_batch_account_tasks_completed_total"


def test_account_totals_outlive_the_jobs_and_are_there_from_the_start() -> None:
    account = Account()
    assert account.values(OF_ACCOUNT) == {'result="failure"': 0, 'result="success"': 0}
    a = job("a")
    account.select(a)
    account.read()
    account.poll(a, failed=1)
    account.read()
    account.poll(a, failed=4)
    account.store.lose("acc", "a", 0.0)
    assert account.values(OF_ACCOUNT)['result="failure"'] == 3
    account.read()
    assert account.values(FAILED) == {}


def test_a_job_created_while_we_watch_is_counted_whole_and_an_older_one_is_not() -> None:
    account = Account()
    account.select(job("first", created=5.0), at=10.0)
    # Seen later only, but older than our watch: it was disabled, say.
    old, new = job("old", created=9.0), job("new", created=10.0)
    account.select(job("first", created=5.0), old, new, at=70.0)
    for each in (job("first", created=5.0), old, new):
        account.poll(each, failed=5)
        account.read()
    assert account.values(OF_ACCOUNT)['result="failure"'] == 5
    assert account.values(FAILED) == {
        f'job_id="{name}",result="{result}"': 5 if (name, result) == ("new", "failure") else 0
        for name in ("first", "new", "old")
        for result in ("failure", "success")
    }


def test_a_job_deleted_and_created_again_under_its_id_counts_from_nothing() -> None:
    account = Account()
    one, two = job("a", created=1.0), job("a", created=50.0)
    account.select(one)
    account.poll(one, failed=7)
    account.select(two, at=60.0)
    account.poll(two, failed=2)
    account.read()
    assert account.values(FAILED)['job_id="a",result="failure"'] == 2
    assert account.values(OF_ACCOUNT)['result="failure"'] == 2
    account.poll(one, failed=9)  # an answer about the job that is no more
    assert account.values(OF_ACCOUNT)['result="failure"'] == 2


def test_a_job_that_leaves_and_comes_back_is_not_counted_twice() -> None:
    account = Account()
    account.select()
    a = job("a", created=5.0)
    account.select(a, at=60.0)
    account.poll(a, failed=3)
    account.select(at=120.0)
    account.select(a, at=180.0)
    account.poll(a, failed=4)
    account.select(at=240.0)
    account.store.forget_leaving("acc", "a", 250.0, is_gone=False)  # it was asked for the last time
    account.select(a, at=300.0)
    account.poll(a, failed=5)
    account.poll(a, failed=6)
    account.read()
    # The fifth failed while nobody watched the job.
    assert account.values(OF_ACCOUNT)['result="failure"'] == 5


def test_values_that_were_dropped_as_stale_are_not_counted_again() -> None:
    from exporter.batch.errors import ServiceError

    account = Account()
    a = job("a")
    account.select(a)
    account.poll(a, failed=3)
    account.store.fail("acc", "task_counts", a, ServiceError(500), since=0.0, stale=True)
    assert account.values(FAILED) == {}
    account.poll(a, failed=5)
    account.read()
    assert account.values(FAILED)['job_id="a",result="failure"'] == 2
    assert account.values(OF_ACCOUNT)['result="failure"'] == 2


def test_a_group_sums_the_gauges_of_its_jobs_and_keeps_what_they_counted() -> None:
    account = Account(id_regex="nf-(?P<pipeline>[a-z]+)-.*", group="${pipeline}/${pool_id}")
    a, b = job("nf-rna-1"), job("nf-rna-2")
    account.select(a, b)
    account.poll(a, active=2, failed=1)
    account.poll(b, active=3, failed=1)
    group = 'job_group="rna/p"'
    tasks = account.values("azure_batch_job_tasks")
    assert tasks[f'{group},state="active"'] == 5
    account.poll(a, active=1, failed=4)
    account.poll(b, active=1, failed=2)
    account.read()
    assert account.values("azure_batch_job_tasks")[f'{group},state="active"'] == 2
    assert account.values(FAILED)[f'{group},result="failure"'] == 4
    account.store.lose("acc", "nf-rna-1", 0.0)
    account.store.flush()
    assert account.values("azure_batch_job_tasks")[f'{group},state="active"'] == 1
    account.select(at=60.0)
    assert account.values("azure_batch_job_tasks") == {}
    assert account.values(FAILED)[f'{group},result="failure"'] == 4
    assert 'job_id="' not in account.exposition.body(Format.TEXT).plain.decode()


def test_what_a_group_counts_is_shown_even_when_its_last_job_is_gone() -> None:
    account = Account(id_regex=".*", group="all")
    account.select()
    a = job("a", created=5.0)
    account.select(a, at=60.0)
    account.poll(a, failed=3)
    assert account.values(FAILED)['job_group="all",result="failure"'] == 0
    account.store.lose("acc", "a", 0.0)
    account.read()
    assert account.values(FAILED)['job_group="all",result="failure"'] == 3


def test_a_group_has_no_families_of_single_jobs_and_is_as_well_as_its_worst_job() -> None:
    from exporter.batch.errors import ServiceError

    account = Account(id_regex=".*", group="all", labels={"team": "genomics"})
    a, b = job("a"), job("b")
    account.select(a, b)
    account.poll(a)
    account.poll(b)
    account.store.fail("acc", "task_counts", b, ServiceError(500), since=0.0, stale=False)
    account.store.flush()
    text = account.exposition.body(Format.TEXT).plain.decode()
    for name in ("state", "priority", "created_timestamp_seconds"):
        assert f"azure_batch_job_{name}{{" not in text
    health = account.values("azure_batch_job_scrape_success")
    assert health == {'job_group="all",collector="task_counts"': 0}
    info = 'job_group="all",display_name="",pool_id="p",team="genomics"'
    assert account.values("azure_batch_job_info") == {info: 1}


@pytest.mark.parametrize(
    ("settings", "group"),
    [
        ({"group": "fixed"}, "fixed"),
        ({"group": "${metadata.project}-${pool_id}"}, "x-p"),
        ({"group": "${metadata.nothing}"}, "none"),
        ({"id_regex": "(?P<a>n)(?P<b>x)?.*", "group": "${a}${b}"}, "n"),
    ],
    ids=str,
)
def test_a_group_is_named_by_regular_expression_metadata_and_pool(
    settings: dict[str, Any], group: str
) -> None:
    watched = watch(
        msgspec.convert(
            {
                "id": "nightly",
                "poolInfo": {"poolId": "p"},
                "metadata": [
                    {"name": "project", "value": "x"},
                    {"name": "cost-center", "value": "7"},
                ],
            },
            Job,
        ),
        rule(**({"id_regex": ".*", "metadata_labels": ["cost-center", "none"]} | settings)),
    )
    assert watched.group == group
    assert watched.labels == (("cost_center", "7"), ("none", ""))
