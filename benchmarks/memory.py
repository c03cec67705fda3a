"""Memory of 100,000 series, against prometheus_client's gauges, and of a million node records.

Each figure is the growth of a process of its own over what it was with everything imported. Ours
has polled jobs behind the series, and has served both a plain and a gzip body of them.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import msgspec
from prometheus_client import generate_latest

from benchmarks.content import SERIES_OF_A_JOB, gauges
from benchmarks.harness import ROOT, environment, head, resident, row
from exporter import collectors
from exporter.batch.models import (
    Counts,
    Job,
    JobExecutionInfo,
    NodeTaskStatus,
    Page,
    TaskCountsResult,
)
from exporter.batch.models import SpecialTaskExecutionInfo as Info
from exporter.collectors import preparation_release
from exporter.config import Defaults, JobRule
from exporter.config.resolved_rule import resolve
from exporter.exposition.body import Exposition, Format, gzip_parts
from exporter.service.allocator import fix_thresholds
from exporter.state.failures import Failures
from exporter.state.journal import Saved
from exporter.state.store import Store
from exporter.state.totals import Totals
from exporter.state.watched_job import SelectedJobs, WatchedJob
from tools.sample_job import nodes_read

ON_A_PAGE = 1000
START = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--small", action="store_true", help="a tenth of both")
    options = parser.parse_args()
    if options.small:
        options.series, options.records = 10_000, 100_000
    size = {"gauges": options.series, "jobs": options.series}
    if options.measure:
        way = options.measure
        fix_thresholds()  # as the daemon does
        print(grown(lambda: WAYS[way](size.get(way, options.records))))
        return
    found = {way: measured(way, options.series, options.records) for way in WAYS}
    print(f"{options.series} series: MB\n")
    head("", "gauges", "this exporter", "times less")
    figures = (f"{found['gauges'] / 1e6:.0f}", f"{found['jobs'] / 1e6:.1f}")
    row("grown by", *figures, f"{found['gauges'] / found['jobs']:.1f}")
    print(f"\n{options.records} preparation records, ids of 72 characters: bytes a record\n")
    head("", "objects of the decoded pages", "kept", "times less")
    decoded, kept = (found[way] / options.records for way in ("objects", "records"))
    row("preparation", f"{decoded:.0f}", f"{kept:.0f}", f"{decoded / kept:.1f}")


def measured(way: str, series: int, records: int) -> float:
    """Bytes by which a process of its own grows."""
    arguments = (f"--measure={way}", f"--series={series}", f"--records={records}")
    command = [sys.executable, "-m", "benchmarks.memory", *arguments]
    given = subprocess.run(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True, check=True
    )
    return float(given.stdout)


def grown(make: Callable[[], object]) -> float:
    """Bytes of resident memory more, while what was made is held."""
    gc.collect()
    before, _ = resident(os.getpid())
    made = make()
    gc.collect()
    after, _ = resident(os.getpid())
    assert made is not None
    return (after - before) * 1e6


def as_gauges(series: int) -> object:
    """Gauges, having been scraped."""
    registry = gauges(-(-series // SERIES_OF_A_JOB))
    generate_latest(registry)
    return registry


def as_jobs(series: int) -> object:
    """A store of polled jobs with their exposition, having been scraped."""
    exposition = Exposition(collectors.tables())
    store = Store(exposition, Totals(exposition), Failures())
    rule = resolve(JobRule(id_regex=".*"), Defaults())
    store.add_account("account", Saved(), lambda _: None)
    jobs = [
        Job(
            f"nf-rnaseq-{number}",
            state="active",
            creation_time=START,
            priority=0,
            uses_task_dependencies=False,
            execution_info=JobExecutionInfo(start_time=START, pool_id="pool-1"),
        )
        for number in range(-(-series // SERIES_OF_A_JOB))
    ]
    watched = tuple(WatchedJob(job, rule) for job in jobs)
    store.select("account", SelectedJobs(watched), 1.0, 1.0)
    running = Info(state="running", start_time=START)
    for number, job in (pair for _ in range(2) for pair in enumerate(jobs)):  # two polls of each
        counts = Counts(10, 2, number, number, 0)
        result = TaskCountsResult(task_counts=counts, task_slot_counts=counts)
        _put(store, job, "task_counts", result)
        nodes = (NodeTaskStatus("pool-1", f"node-{number}", running, running),)
        reading = nodes_read(None, "pool-1", nodes, 1.0)
        _put(store, job, "preparation_release", reading)
    store.flush()
    body = exposition.body(Format.TEXT)
    assert body.series >= series, body.series
    gzip_parts(body, b"")
    return store


def _put(store: Store, job: Job, collector: str, reading: Any) -> None:
    state = store.outcome("account", collector, job.id).state
    store.put_reading("account", job, collector, reading, state, 1.0)


def pages_of(records: int) -> Iterator[Page[NodeTaskStatus]]:
    """Pages as the service answers them, decoded: nodes that were prepared one after the other."""
    random = Random(1)
    decoder = msgspec.json.Decoder(Page[NodeTaskStatus], strict=False)
    for first in range(0, records, ON_A_PAGE):
        page = [record(random, number) for number in range(first, first + ON_A_PAGE)]
        yield decoder.decode(msgspec.json.encode({"value": page}))


def record(random: Random, number: int) -> dict[str, object]:
    """One record on the wire."""
    start = START + dt.timedelta(seconds=number, microseconds=random.randrange(1_000_000))
    times = (start, start + dt.timedelta(seconds=random.uniform(5, 60)))
    return {
        "poolId": "pool-1",
        "nodeId": f"tvmps_{random.getrandbits(256):064x}_d",
        "jobPreparationTaskExecutionInfo": {
            **dict(zip(("startTime", "endTime"), times, strict=True)),
            "state": "completed",
            "exitCode": 0,
            "result": "success",
            "retryCount": 0,
        },
    }


def as_objects(records: int) -> object:
    """All pages as they were decoded."""
    return list(pages_of(records))


def as_records(records: int) -> object:
    """What the collector keeps of them."""
    pages = preparation_release.no_pages(None)
    for page in pages_of(records):
        for of_kind in pages:
            of_kind.add(page.value)
    reading = preparation_release.Reading("pool-1", pages)
    return preparation_release.fold(None, reading, 0.0, False).state


WAYS: dict[str, Callable[[int], object]] = {
    "gauges": as_gauges,
    "jobs": as_jobs,
    "objects": as_objects,
    "records": as_records,
}


if __name__ == "__main__":
    main()
