"""What the store shows at the edges of a job's life, and under other rules."""

from __future__ import annotations

import msgspec

from exporter.batch.errors import ConnectionFailed
from exporter.batch.models import TaskCountsResult
from exporter.state.watched_job import SelectedJobs
from tests.test_counters import Account, counts, job

PROGRESS = "azure_batch_job_last_progress_timestamp_seconds"


def read(account: Account, job_id: str, now: float, **tasks: int) -> None:
    """A poll at some time, of a job that is selected or leaving."""
    reading = msgspec.convert({"taskCounts": {**counts(0, 0, 0, 0), **tasks}}, TaskCountsResult)
    state = account.store.outcome("acc", "task_counts", job_id).state
    account.store.put_reading("acc", job(job_id), "task_counts", reading, state, now)


def test_a_job_that_returns_during_its_last_poll_shows_when_it_progressed() -> None:
    account = Account()
    account.select(job("a"))
    read(account, "a", 1000.0, completed=1, succeeded=1)
    account.select()
    read(account, "a", 2000.0, completed=2, succeeded=2)  # its last poll
    account.select(job("a"))
    assert account.values(PROGRESS) == {'job_id="a"': 2000.0}


def test_other_rules_during_an_outage_show_no_values_that_were_dropped() -> None:
    account = Account()
    account.select(job("a"), job("b"))
    for each in ("a", "b"):
        read(account, each, 1000.0)
    error = ConnectionFailed("no route")
    account.store.fail("acc", "jobs", None, error, since=0.0, stale=True)
    for each in ("a", "b"):
        account.store.fail("acc", "task_counts", job(each), error, since=0.0, stale=True)
    shown = ("azure_batch_job_info", "azure_batch_job_tasks", "azure_batch_jobs", PROGRESS)
    assert [account.values(name) for name in shown] == [{}] * 4
    known = account.store.outcome("acc", "jobs").state
    account.store.select_anew("acc", SelectedJobs(known.jobs[:1]))
    account.store.show_all()
    assert [account.values(name) for name in shown] == [{}] * 4
    assert account.values("azure_batch_job_scrape_success") == {
        'job_id="a",collector="task_counts"': 0
    }


def test_a_collector_that_the_rule_has_no_more_is_not_shown_and_is_gone_on_from() -> None:
    account = Account()
    account.select(job("a"))
    read(account, "a", 1000.0, completed=1, succeeded=1)
    counting, account.rule = account.rule, account.rule.model_copy(update={"collect": ("tasks",)})
    account.select(job("a"))
    read(account, "a", 2000.0, completed=2, succeeded=2)  # a poll that was under way
    assert account.values("azure_batch_job_tasks") == {}
    assert account.values("azure_batch_job_scrape_success") == {}
    assert account.values("azure_batch_job_tasks_completed_total") == {}
    account.rule = counting
    account.select(job("a"))
    read(account, "a", 3000.0, completed=5, succeeded=5)
    account.read()
    assert account.values("azure_batch_account_tasks_completed_total")['result="success"'] == 4
