"""Event loop time of a group of jobs, beyond what the same jobs take without a group.

Each job is polled once in an interval of 30 s, by two collectors, and has other counts each time.
Once a second the group is rendered. Measured is the CPU time of the store in one second of polls:
with a group, and without.
"""

from __future__ import annotations

import argparse
import time

from benchmarks.harness import head, median, row, verdict
from exporter import collectors
from exporter.batch.models import (
    Counts,
    Job,
    JobExecutionInfo,
    NodeTaskStatus,
    SpecialTaskExecutionInfo,
    TaskCountsResult,
)
from exporter.config import Rule
from exporter.exposition.body import Exposition
from exporter.state.store import Store
from exporter.state.watched_job import SelectedJobs, WatchedJob
from tools.sample_job import nodes_read

FLOOR = 5.0
"""ms in a second."""

INTERVAL = 30
ACCOUNT = "account"
CREATED = "2026-01-01T00:00:00Z"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=5000, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=20, help="(default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="500 jobs for 5 seconds")
    options = parser.parse_args()
    if options.small:
        options.jobs, options.seconds = 500, 5
    plain = median([ms for _, ms in spent(options.jobs, None, options.seconds)])
    seconds = list(spent(options.jobs, "all", options.seconds))
    grouped, rendering = median([ms for _, ms in seconds]), median([ms for ms, _ in seconds])
    print(f"{options.jobs} jobs of one group, polled every {INTERVAL} s: CPU ms in one second\n")
    head("part", "ms", "floor", "holds")
    row("polls of jobs without a group", f"{plain:.1f}", "", "")
    row("polls and rendering of the group", f"{grouped:.1f}", "", "")
    row("of it the rendering, in one piece", f"{rendering:.1f}", "", "")
    beyond = grouped - plain
    row("beyond the polls", f"{beyond:.1f}", f"≤ {FLOOR:g}", verdict(beyond <= FLOOR))


def spent(count: int, group: str | None, seconds: int) -> list[tuple[float, float]]:
    """Of each second, ms of CPU of the rendering, and of all."""
    store, jobs = filled(count, group)
    times = []
    turn = 0
    for second in range(seconds):
        began = time.process_time()
        for _ in range(count // INTERVAL):
            poll(store, jobs[turn % count], turn, float(second))
            turn += 1
        polled = time.process_time()
        store.flush()
        ended = time.process_time()
        times.append(((ended - polled) * 1000, (ended - began) * 1000))
    return times


def filled(count: int, group: str | None) -> tuple[Store, list[Job]]:
    """A store of jobs that were polled once."""
    store = collectors.new_store(Exposition(collectors.tables()))
    store.add_account(ACCOUNT)
    rule = Rule(id_regex=".*")
    jobs = [
        Job(
            f"job-{number}",
            state="active",
            creation_time=CREATED,
            execution_info=JobExecutionInfo(start_time=CREATED, pool_id="pool"),
        )
        for number in range(count)
    ]
    watched = tuple(WatchedJob(job, rule, group) for job in jobs)
    store.select(ACCOUNT, SelectedJobs(watched), 0.0)
    for number, job in enumerate(jobs):
        poll(store, job, number, 0.0)
    store.flush()
    return store, jobs


def poll(store: Store, job: Job, turn: int, now: float) -> None:
    """What both collectors read of a job: other counts each time."""
    counts = Counts(turn % 97, turn % 13, turn, turn, 0)
    readings = {
        "task_counts": TaskCountsResult(task_counts=counts, task_slot_counts=counts),
        "preparation_release": nodes_read("pool", (NODE,)),
    }
    for name, reading in readings.items():
        state = store.outcome(ACCOUNT, name, job.id).state
        store.put_reading(ACCOUNT, job, name, reading, state, now)


NODE = NodeTaskStatus(
    "pool",
    "node",
    SpecialTaskExecutionInfo(
        state="completed",
        result="success",
        start_time=CREATED,
        end_time=CREATED,
    ),
)


if __name__ == "__main__":
    main()
