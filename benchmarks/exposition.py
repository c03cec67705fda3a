"""CPU and memory of 100,000 series, against prometheus_client's gauges of the same series.

Rendering is what a poll does with its values: the row functions and the text. The body is what a
scrape then does except sending; against it stands `generate_latest`, and `gzip.compress` as
prometheus_client calls it. Its gauges are set already. Memory is the growth of a process of its
own over what it takes with everything imported; ours keeps the polled jobs behind the series, has
made both a plain and a gzip body, and has polled one job since.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import gzip
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count

from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from benchmarks.content import (
    SERIES_OF_A_JOB,
    gauges,
    own_metrics,
    polled,
    scraped,
    show,
    shown,
)
from benchmarks.harness import (
    MIB,
    ROOT,
    environment,
    head,
    less,
    median,
    resident,
    row,
    verdict,
)
from exporter import collectors
from exporter.batch.models import Counts, Job, JobExecutionInfo, NodeTaskStatus, TaskCountsResult
from exporter.batch.models import SpecialTaskExecutionInfo as Info
from exporter.config import Rule
from exporter.exposition.body import Exposition, Format
from exporter.state.watched_job import SelectedJobs, WatchedJob
from tools.sample_job import nodes_read

TEXT_FLOOR, GZIP_FLOOR = 50.0, 30.0
"""Times less CPU than generate_latest, whatever share of the jobs has changed."""

RENDERING_FLOOR = 1.5
"""µs of CPU a series."""

MEMORY_FLOOR = 4.0
"""Times less than gauges."""

SHARES = {"none": 0.0, "1 %": 0.01, "50 %": 0.5, "all": 1.0}
START = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=100_000, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--memory", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--small", action="store_true", help="a tenth of the series, three rounds")
    options = parser.parse_args()
    if options.small:
        options.series, options.rounds = 10_000, 3
    if options.memory:
        print(grown(WAYS[options.memory], options.series))
        return
    compare_cpu(options.series, options.rounds)
    compare_memory(options.series)


def compare_cpu(series: int, rounds: int) -> None:
    """Bodies after any share of the jobs has changed, and the rendering of what changed."""
    exposition, jobs = shown(series)
    series = jobs * SERIES_OF_A_JOB
    registry = gauges(jobs)
    same = [each for each in generate_latest(registry).splitlines() if not each.startswith(b"#")]
    assert len(same) == series
    del same
    gc.collect()
    gc.freeze()  # the garbage collector must not look at the gauges while the exporter is measured
    telemetry = own_metrics()
    steps = count(1)
    rendering: list[float] = []

    def change(share: float) -> None:
        # Spread over all, as jobs change.
        numbers = range(0, jobs, round(1 / share)) if share else range(0)
        step = next(steps)
        news = [each for number in numbers for each in polled(number, step)]
        spent = cpu_of(lambda: show(exposition, news))
        if share == 1.0:
            rendering.append(spent)

    print(f"{series} series of {jobs} jobs: CPU ms of a body\n")
    head("/metrics", "jobs changed", "generate_latest", "this exporter", "less", "floor", "holds")
    for format_, zipped in ((f, z) for f in Format for z in (False, True)):
        generate = generate_latest if format_ is Format.TEXT else generate_openmetrics
        baseline: list[float] = []
        found: dict[str, list[float]] = {name: [] for name in SHARES}
        for _ in range(rounds):  # in turns: a slow moment of the machine meets all alike
            baseline.append(
                cpu_of(
                    (lambda: gzip.compress(generate(registry)))  # noqa: B023 - called at once
                    if zipped
                    else (lambda: generate(registry))  # noqa: B023
                )
            )
            for name, share in SHARES.items():
                scraped(exposition, telemetry, format_, zipped=zipped)  # nothing is left to do
                change(share)
                found[name].append(
                    cpu_of(lambda: scraped(exposition, telemetry, format_, zipped=zipped))  # noqa: B023
                )
        theirs, floor = median(baseline), GZIP_FLOOR if zipped else TEXT_FLOOR
        for name, of_share in found.items():
            ours = median(of_share)
            row(
                f"{format_.name.lower()}{', gzip' if zipped else ''}",
                name,
                f"{theirs * 1000:.0f}",
                f"{ours * 1000:.2f}",
                less(theirs, ours),
                f"≥ {floor:.0f}x",
                verdict(theirs >= floor * ours),
            )
    print()
    head("rendering, all jobs changed", "measured", "floor", "holds")
    cost = median(rendering) / series * 1e6
    floor_text = f"≤ {RENDERING_FLOOR}"
    row("CPU µs a series", f"{cost:.2f}", floor_text, verdict(cost <= RENDERING_FLOOR))
    print(flush=True)


def cpu_of(run: Callable[[], object]) -> float:
    """Seconds of CPU, of all threads."""
    started = time.process_time()
    run()
    return time.process_time() - started


def compare_memory(series: int) -> None:
    """Gauges beside polled jobs with their exposition."""
    found = {way: measured(way, series) / MIB for way in WAYS}
    theirs, ours = found["gauges"], found["jobs"]
    head(f"memory of {series} series, MiB", "gauges", "this exporter", "less", "floor", "holds")
    row(
        "grown by",
        f"{theirs:.0f}",
        f"{ours:.1f}",
        less(theirs, ours),
        f"≥ {MEMORY_FLOOR:.0f}x",
        verdict(theirs >= MEMORY_FLOOR * ours),
    )
    print(flush=True)


def measured(way: str, series: int) -> float:
    """Bytes by which a process of its own grows."""
    command = [sys.executable, "-m", "benchmarks.exposition"]
    given = subprocess.run(
        [*command, f"--memory={way}", f"--series={series}"],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(given.stdout)


def grown(make: Callable[[int], object], series: int) -> float:
    """Bytes of resident memory more, while what was made is held."""
    gc.collect()
    before, _ = resident(os.getpid())
    made = make(series)
    gc.collect()
    after, _ = resident(os.getpid())
    assert made is not None
    return (after - before) * MIB


def as_gauges(series: int) -> object:
    """Gauges, having been scraped."""
    registry = gauges(-(-series // SERIES_OF_A_JOB))
    generate_latest(registry)
    return registry


def as_jobs(series: int) -> object:
    """A store of polled jobs with their exposition, having been scraped."""
    exposition = Exposition(collectors.tables())
    store = collectors.new_store(exposition)
    rule = Rule(id_regex=".*")
    store.add_account("account")
    jobs = [
        Job(
            f"nf-rnaseq-{number}",
            state="active",
            creation_time=START.isoformat(),
            priority=0,
            uses_task_dependencies=False,
            execution_info=JobExecutionInfo(start_time=START.isoformat(), pool_id="pool-1"),
        )
        for number in range(-(-series // SERIES_OF_A_JOB))
    ]
    watched = tuple(WatchedJob(job, rule) for job in jobs)
    store.select("account", SelectedJobs(watched), 1.0, 1.0)
    running = Info(state="running", start_time=START.isoformat())
    for number, job in (pair for _ in range(2) for pair in enumerate(jobs)):  # two polls of each
        counts = Counts(10, 2, number, number, 0)
        result = TaskCountsResult(task_counts=counts, task_slot_counts=counts)
        before = store.outcome("account", "task_counts", job.id).state
        store.put_reading("account", job, "task_counts", result, before, 1.0)
        nodes = (NodeTaskStatus("pool-1", f"node-{number}", running, running),)
        before = store.outcome("account", "preparation_release", job.id).state
        reading = nodes_read("pool-1", nodes, 1.0)
        store.put_reading("account", job, "preparation_release", reading, before, 1.0)
    store.flush()
    telemetry = own_metrics()
    for zipped in (False, True):
        scraped(exposition, telemetry, Format.TEXT, zipped=zipped)
    # The next poll: bodies are kept until something changes.
    before = store.outcome("account", "task_counts", jobs[0].id).state
    store.put_reading("account", jobs[0], "task_counts", result, before, 2.0)
    assert exposition.body(Format.TEXT).series >= series
    return store


WAYS: dict[str, Callable[[int], object]] = {"gauges": as_gauges, "jobs": as_jobs}


if __name__ == "__main__":
    main()
