"""How the numbers of jobs came to be what they are: few bytes, evenly thinned out."""

from __future__ import annotations

import sys
from datetime import datetime
from itertools import pairwise

from exporter.batch.models import Counts, TaskCountsResult
from exporter.collectors import task_counts
from exporter.state.history import POINTS, UNKNOWN, History, Point


def read(history: History, now: float, active: int = 0, succeeded: int = 0) -> None:
    counts = Counts(active, 0, succeeded, succeeded, 0)
    folded = task_counts.fold(None, TaskCountsResult(task_counts=counts), now, True)
    history.add("acc", "job-1", folded.points, now)


def times(history: History) -> list[float]:
    """The times of the points of the one job, in Unix seconds."""
    found = history.points("acc", "job-1")
    return [datetime.fromisoformat(point.time).timestamp() for point in found]


def test_only_changes_are_kept() -> None:
    history = History()
    for now in range(0, 1000, 10):
        read(history, now, active=7 if now < 500 else 8)
    first, second = history.points("acc", "job-1")
    assert first == Point("1970-01-01T00:00:00.000Z", 7, 0, 0, 0)
    assert second == Point("1970-01-01T00:08:20.000Z", 8, 0, 0, 0)


def test_of_what_comes_within_a_step_the_latest_is_kept() -> None:
    history = History()
    for now in (100, 105, 106, 109, 110):
        read(history, now, active=now)
    assert times(history) == [100, 109, 110]


def test_a_long_life_is_kept_from_its_beginning_in_even_steps() -> None:
    history = History()
    for now in range(0, 30 * 86400, 300):
        read(history, now, succeeded=now)
        assert len(history.points("acc", "job-1")) <= POINTS
    points = history.points("acc", "job-1")
    moments = times(history)
    assert moments[0] == 0
    assert points[-1].succeeded == moments[-1] == 30 * 86400 - 300
    gaps = [after - before for before, after in pairwise(moments[1:])]
    assert len(points) > POINTS // 3
    assert max(gaps) - min(gaps[:-1]) < 600


def test_changes_that_are_rare_are_all_kept() -> None:
    history = History()
    for number in range(POINTS):
        read(history, number * 86400.0, active=number)
    assert [point.active for point in history.points("acc", "job-1")] == list(range(POINTS))


def test_a_job_costs_little_more_than_a_kilobyte() -> None:
    history = History()
    largest = 0
    for now in range(0, 86400, 5):
        read(history, now, active=now)
        largest = max(largest, *(sys.getsizeof(each) for each in history._known.values()))
    assert largest < 1400  # docs/page.md says so


def test_what_no_chart_needs_and_who_left_is_not_kept() -> None:
    history = History()
    history.add("acc", "job-1", {}, 1.0)
    assert history.points("acc", "job-1") == ()
    read(history, 1.0, active=2**40)
    assert history.points("acc", "job-1")[0].active == UNKNOWN - 1
    history.forget("acc", "job-1")
    assert history.points("acc", "job-1") == ()
    read(history, 1.0)
    history.forget_account("other")
    assert history.points("acc", "job-1")
    history.forget_account("acc")
    assert history.points("acc", "job-1") == ()
