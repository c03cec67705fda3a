"""The ceiling of an account's series: who is left out, and who comes back."""

from __future__ import annotations

from typing import Any

import msgspec

from exporter.batch.models import NodeTaskStatus
from exporter.collectors import new_store, tables
from exporter.config import Rule
from exporter.exposition.body import Exposition, Format
from exporter.polling.selection import watch
from exporter.state.watched_job import SelectedJobs
from tests.test_counters import Account, job
from tools.sample_job import nodes_read


class Limited(Account):
    """An account with a ceiling."""

    def __init__(self, most: int, **rule: Any) -> None:
        super().__init__(**rule)
        self.dropped: list[int] = []
        self.exposition = Exposition(
            tables(), limits={"acc": most}, on_drop=lambda _, count: self.dropped.append(count)
        )
        self.store = new_store(self.exposition, scrapes=self.scrapes)
        self.store.add_account("acc")

    def names_of(self, job_id: str) -> set[str]:
        """The names of the samples of a job."""
        text = self.exposition.body(Format.TEXT).plain.decode()
        mark = f'job_id="{job_id}"'
        return {line.partition("{")[0] for line in text.splitlines() if mark in line}


ROUNDS = 10
"""Flushes after which what was left out is shown again, where there is room."""


def test_once_there_is_room_again_a_job_has_all_of_its_series() -> None:
    whole = Limited(10_000)
    whole.select(job("b"))
    whole.poll(job("b"), failed=1)
    needed = whole.exposition.series("acc")
    for most in range(needed, 2 * needed):
        account = Limited(most)
        a, b = job("a"), job("b")
        account.select(a, b)
        account.poll(a, failed=1)
        account.poll(b, failed=1)
        was_whole = account.names_of("b") == whole.names_of("b")
        assert was_whole == (not account.dropped)
        account.select(b)
        account.store.forget_leaving("acc", "a", 0.0, is_gone=False)
        account.read()
        for _ in range(ROUNDS):
            account.store.flush()
        assert account.names_of("b") == whole.names_of("b"), most
        assert "azure_batch_job_info" in account.names_of("b")
        assert account.exposition.series("acc") <= most


def test_a_job_that_grows_far_past_the_ceiling_is_left_out_and_counted() -> None:
    account = Limited(200)
    one = job("a")
    account.select(one)
    account.poll(one)
    shown = account.exposition.series("acc")
    runs = [{"nodeId": "n", "poolId": f"p{number}"} for number in range(400)]
    failed = {"state": "completed", "startTime": "2026-01-01T10:00:00Z", "result": "failure"}
    for size in (1, 400):
        records = [{**run, "jobPreparationTaskExecutionInfo": failed} for run in runs[:size]]
        reading = nodes_read("p", msgspec.convert(records, tuple[NodeTaskStatus, ...]), float(size))
        state = account.store.outcome("acc", "preparation_release", "a").state
        account.store.put_reading("acc", one, "preparation_release", reading, state, 0.0)
        account.store.flush()
        assert account.exposition.series("acc") <= 200 * 1.05
    assert account.dropped and account.exposition.series("acc") >= shown


def test_living_jobs_come_before_the_totals_of_groups_that_are_gone() -> None:
    grouped = Rule(id_regex=".*", group="gone-${pool_id}")
    account = Limited(200)
    for number in range(40):  # groups whose jobs are over; what they counted is kept
        one = job(f"old-{number}", pool=f"p{number}")
        watched = watch(one, grouped)
        account.store.select("acc", SelectedJobs((watched,)), 0.0, 0.0)
        account.poll(one, failed=1)
    account.select()
    assert account.dropped
    assert account.exposition.series("acc") <= 200
    living = [job("a"), job("b"), job("c")]
    account.select(*living)
    for each in living:
        account.poll(each, failed=1)
    whole = Limited(10_000)
    whole.select(living[0])
    whole.poll(living[0], failed=1)
    for each in ("a", "b", "c"):
        assert account.names_of(each) == whole.names_of("a"), each
    assert account.exposition.series("acc") <= 200
    # With the jobs gone, there is room for the totals again.
    account.select()
    for _ in range(ROUNDS):
        account.store.flush()
    assert account.exposition.series("acc") > 180


def test_after_a_restart_living_jobs_come_first_too() -> None:
    account = Limited(200)
    grouped = Rule(id_regex=".*", group="gone-${pool_id}")
    for number in range(40):
        one = job(f"old-{number}", pool=f"p{number}")
        account.store.select("acc", SelectedJobs((watch(one, grouped),)), 0.0, 0.0)
        account.poll(one, failed=1)
    a = job("a")
    account.select(a)
    account.poll(a, failed=1)
    names = account.names_of("a")
    account.exposition.reconfigure(tables(), limits={"acc": 200})
    account.store.show_all()
    assert account.names_of("a") == names


def test_a_living_job_that_was_left_out_does_not_wait_behind_groups_that_are_gone() -> None:
    grouped = Rule(id_regex="old-.*", group="g-${pool_id}")
    account = Limited(200)
    old = [watch(job(f"old-{number}", pool=f"p{number}"), grouped) for number in range(200)]
    for one in old:  # more groups than are tried again at once
        account.store.select("acc", SelectedJobs((one,)), 0.0, 0.0)
        account.poll(one.job, failed=1)
    left_out = watch(job("a"), account.rule)
    account.store.select("acc", SelectedJobs((left_out, *old[:40])), 0.0, 0.0)
    for each in (*old[:40], left_out):
        account.poll(each.job, failed=1)
    whole = Limited(10_000)
    whole.select(left_out.job)
    whole.poll(left_out.job, failed=1)
    assert account.names_of("a") != whole.names_of("a")
    account.select(left_out.job)
    for _ in range(ROUNDS):
        account.store.flush()
    assert account.names_of("a") == whole.names_of("a")
