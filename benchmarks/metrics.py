"""One /metrics of 1,000 jobs against prometheus_client's generate_latest for the same content.

Prints a table: medians in milliseconds, and how many times faster than the baseline. The baseline
is what one would write without this project's exposition: a Gauge with a child for each series.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from exporter import collectors
from exporter.collectors.health import Health
from exporter.collectors.task_counts import TaskCounts
from exporter.exposition import Exposition, Format, gzip_parts
from exporter.telemetry import Telemetry
from tools.sample_job import SAMPLE_SNAPSHOTS

ROUNDS = 15


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--small", action="store_true", help="a tenth of the jobs")
    options = parser.parse_args()
    jobs = options.jobs // 10 if options.small else options.jobs

    exposition = Exposition(collectors.tables())
    telemetry = Telemetry("benchmark")
    poll_everything(telemetry)
    change(exposition, range(jobs), 0)
    registry = same_in_prometheus_client(exposition)
    state = exposition.body(Format.TEXT)

    def serve(format_: Format = Format.TEXT, *, gzip: bool = False) -> bytes:
        body = exposition.body(format_)
        own = telemetry.text(format_, body.series)
        return b"".join(gzip_parts(body, own)) if gzip else body.plain + own

    step = iter(range(1, 10**9))

    def after_change(count: int) -> Callable[[], object]:
        def run() -> bytes:
            change(exposition, range(count), next(step))
            return serve()

        return run

    cases: dict[str, Callable[[], object]] = {
        "generate_latest": lambda: generate_latest(registry),
        "nothing changed": serve,
        "nothing changed, OpenMetrics": lambda: serve(Format.OPENMETRICS),
        "nothing changed, gzip": lambda: serve(gzip=True),
        "1 % of jobs changed": after_change(jobs // 100),
        "every job changed": after_change(jobs),
    }
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):  # in turns, so that a slow moment of the machine meets all alike
        for name, run in cases.items():
            if name.startswith("nothing"):
                run()  # what the cases before it changed is none of its business
            started = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - started)

    per_job = state.series / jobs, len(state.plain) / jobs
    print(f"{jobs} jobs, {state.series} series, {len(state.plain)} bytes;")
    print(f"a job: {per_job[0]:.0f} series, {per_job[1]:.0f} bytes of text\n")
    baseline = statistics.median(taken["generate_latest"])
    print("| /metrics | ms | times faster |\n|---|---|---|")
    for name, times in taken.items():
        median = statistics.median(times)
        print(f"| {name} | {median * 1000:.2f} | {baseline / median:.1f} |")
    print(flush=True)


def poll_everything(telemetry: Telemetry) -> None:
    """The exporter's own series of one account, as they are after a while."""
    account = telemetry.for_account("account")
    for operation in ("Job_List", "Job_GetTaskCounts", "Account_ListPoolNodeCounts"):
        for code in ("200", "429", "500", "timeout"):
            account.request_done(operation, code, 0.1)
    for collector in ("jobs", "pool_nodes", *collectors.JOB_COLLECTORS):
        account.poll_done(collector, 0.1)


def change(exposition: Exposition, jobs: range, step: int) -> None:
    """New snapshots of these jobs, each number of which differs from the step before."""
    for number in jobs:
        identity = (("account", "account"), ("job_id", f"nf-rnaseq-{number}"))
        for table, snapshot in SAMPLE_SNAPSHOTS.items():
            exposition.put(table, identity, changed(snapshot, step))


def changed(snapshot: Any, step: int) -> Any:
    """The snapshot with other numbers in it, as a poll would bring them."""
    if isinstance(snapshot, TaskCounts):
        tasks = msgspec.structs.replace(snapshot.tasks, completed=step)
        return dataclasses.replace(snapshot, tasks=tasks, last_progress=float(step))
    if isinstance(snapshot, Mapping):
        return {name: Health(True, float(step)) for name in snapshot}
    return snapshot


def same_in_prometheus_client(exposition: Exposition) -> CollectorRegistry:
    """Gauges with exactly the series of the exposition."""
    registry = CollectorRegistry()
    text = exposition.body(Format.TEXT).plain.decode()
    for family in text_string_to_metric_families(text):
        names = list(family.samples[0].labels)
        gauge = Gauge(family.name, family.documentation, names, registry=registry)
        for sample in family.samples:
            gauge.labels(*sample.labels.values()).set(sample.value)
    assert generate_latest(registry).count(b"\n") == text.count("\n")
    return registry


if __name__ == "__main__":
    main()
