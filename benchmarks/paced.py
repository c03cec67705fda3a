"""CPU of a poll at 200 polls a second, each job at its own pace, over TLS.

2,000 jobs are polled for their task counts every 10 s. In turns poll: the exporter as its command
runs it, the plain poller that one would write instead (plain_poller.py), and Microsoft's client
with gauges (sdk_collector.py). Each is a process of its own, as is the simulated account. A turn is
measured once all jobs were polled. CPU is user and system time of the process, divided by the
polls that the account has seen; nobody scrapes meanwhile.
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks.harness import (
    PYTHON,
    Process,
    Server,
    cpu_of,
    exporting,
    head,
    median,
    row,
    sdk_python,
    serving,
    trust,
    verdict,
)

FLOOR = 0.7
"""The exporter's CPU of a poll, by the plain poller's."""

SHOWN = b"\nazure_batch_job_tasks{"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000, help="(default: %(default)s)")
    parser.add_argument("--interval", type=int, default=10, help="seconds (default: %(default)s)")
    parser.add_argument("--intervals", type=int, default=2, help="of a turn (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--http", action="store_true", help="without TLS")
    parser.add_argument("--without-sdk", action="store_true", help="leave Microsoft's client out")
    parser.add_argument("--small", action="store_true", help="one round, one interval")
    options = parser.parse_args()
    if options.small:
        options.intervals = options.rounds = 1
    jobs, interval = options.jobs, options.interval
    costs: dict[str, list[float]] = {"SDK": [], "plain": [], "exporter": []}
    rates: list[float] = []
    tls = () if options.http else ("--tls",)
    with Process("benchmarks.simulator", "counts", f"--size={jobs}", "--speed=1", *tls) as world:
        for _ in range(options.rounds):
            for name, start in (("plain", plain_poller), ("exporter", exporter)):
                with start(world.ready, jobs, interval) as server:
                    cost, rate = turn(server, world, jobs, interval, options.intervals)
                    costs[name].append(cost)
                    rates.append(rate)
            if not options.without_sdk:
                costs["SDK"] += sdk(world.ready, interval, options.intervals)
    over = "HTTP" if options.http else "TLS"
    print(f"{jobs} jobs, {median(rates):.0f} polls a second over {over}: CPU µs a poll\n")
    head("SDK and gauges", "plain poller", "this exporter", "by the plain poller", "floor", "holds")
    theirs, plain, ours = (median(found) for found in costs.values())
    row(
        *(f"{cost:.0f}" for cost in (theirs, plain, ours)),
        f"{ours / plain:.2f}",
        f"≤ {FLOOR}",
        verdict(ours <= FLOOR * plain),
    )
    row(*(" ".join(f"{cost:.0f}" for cost in found) for found in costs.values()), "", "", "")
    print("\nThe last row: each turn.\n", flush=True)


@contextmanager
def plain_poller(account: Mapping[str, Any], _jobs: int, interval: int) -> Iterator[Server]:
    """What one would write instead."""
    command = [
        *(PYTHON, "-m", "benchmarks.plain_poller", f"--account={json.dumps(account)}"),
        *(f"--interval={interval}", "--port=PORT"),
    ]
    with serving(command, trust(account)) as server:
        yield server


@contextmanager
def exporter(account: Mapping[str, Any], jobs: int, interval: int) -> Iterator[Server]:
    """This program: task counts alone, the jobs listed once, and no limit that would be met."""
    defaults = {"interval": f"{interval}s", "idle_interval": "0s", "collect": ["task_counts"]}
    settings = {
        "discovery_interval": "1h",
        "pool_nodes": False,
        "requests_per_second": 1000,
        "max_concurrency": 64,
        "max_jobs": jobs,
    }
    with exporting(account, defaults, settings) as server:
        yield server


def turn(
    server: Server, world: Process, jobs: int, interval: int, intervals: int
) -> tuple[float, float]:
    """µs of CPU a poll, and polls a second, once all jobs were polled and an interval is over."""
    server.wait_for("/metrics")
    while scraped(server.url).count(SHOWN) < 3 * jobs:
        time.sleep(0.5)
    time.sleep(interval)
    world.ask("requests")
    started, before = time.monotonic(), cpu_of(server.pid)
    time.sleep(intervals * interval)
    spent, taken = cpu_of(server.pid) - before, time.monotonic() - started
    polls = world.ask("requests")["polls"]
    assert abs(polls / taken * interval / jobs - 1) < 0.1, f"{polls} polls in {taken:.0f} s"
    return spent / polls * 1e6, polls / taken


def scraped(url: str) -> bytes:
    """The metrics."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as response:
        return bytes(response.read())


def sdk(account: Mapping[str, Any], interval: int, intervals: int) -> list[float]:
    """µs of CPU a poll of each interval but the first; it lists the jobs in each, too."""
    given = ("counts", f"--account={json.dumps(account)}", f"--interval={interval}")
    with Process(
        "benchmarks.sdk_collector", *given, python=sdk_python(), variables=trust(account)
    ) as process:
        process.ask("poll")  # the gauges are there from the first round on
        found = [process.ask("poll") for _ in range(intervals)]
    return [each["cpu"] / each["polls"] * 1e6 for each in found]


if __name__ == "__main__":
    main()
