"""The real process with 10,000 jobs at the default interval, with all default collectors.

The account is a process of its own; on a machine with two cores it has the other one. How busy it
is stands in the table: if it takes all of a core, the exporter's figures are those of a slow
service. The metrics are fetched every 15 seconds, as Prometheus does. Poll lag is what the account
sees: by how much two polls of one job's task counts are further apart than the interval. Stalls
are seen by a timer in the process (watched_exporter.py); otherwise it is the program as it is.
"""

from __future__ import annotations

import argparse
import gzip
import re
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

from benchmarks.harness import (
    Process,
    Server,
    cpu_of,
    cpu_of_all,
    exporting,
    head,
    median,
    resident,
    row,
    verdict,
)
from benchmarks.watched_exporter import STALLS_VARIABLE

CPU_FLOOR = 0.3
"""Of one core."""

MEMORY_FLOOR = 200
"""MiB."""

LAG_FLOOR = 1.0
STALL_FLOOR = 0.1
"""Seconds."""

SCRAPE_INTERVAL = 15.0


def of_family(name: str, labels: str = "") -> re.Pattern[bytes]:
    """Finds the values of one of the exporter's own families."""
    pattern = rf"^azure_batch_exporter_{name}(?:\{{[^}}]*{labels}[^}}]*\}})? (\S+)$"
    return re.compile(pattern.encode(), re.MULTILINE)


SERIES = of_family("series")
FAILED = of_family("requests_total", 'code="(?!200)')
SKIPPED = of_family("polls_skipped_total")


def scrape(url: str) -> tuple[float, bytes]:
    """Fetch the metrics; seconds that it took, and what came."""
    request = urllib.request.Request(f"{url}/metrics", headers={"Accept-Encoding": "gzip"})
    started = time.monotonic()
    with urllib.request.urlopen(request, timeout=30) as response:
        body = response.read()
    return time.monotonic() - started, gzip.decompress(body)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="(default: %(default)s)")
    parser.add_argument("--interval", type=int, default=30, help="seconds (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=3.0, help="(default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="a tenth of all three")
    options = parser.parse_args()
    size = 10 if options.small else 1
    jobs, interval = options.jobs // size, options.interval // size
    settings = {  # limits that none of this comes near
        "requests_per_second": 2000,
        "max_concurrency": 64,
        "max_jobs": jobs,
        "max_series": 5_000_000,
    }
    with (
        Process("benchmarks.simulator", "counts", f"--size={jobs}", "--speed=1") as world,
        tempfile.TemporaryDirectory() as folder,
    ):
        stalls = Path(folder) / "stalls"
        with exporting(
            world.ready,
            {"interval": f"{interval}s"},
            settings,
            module="benchmarks.watched_exporter",
            variables={STALLS_VARIABLE: str(stalls)},
        ) as server:
            print(f"{jobs} jobs, an interval of {interval} s", flush=True)
            watch(server, world, stalls, interval, options.minutes * 60 / size)


def watch(server: Server, world: Process, file: Path, interval: int, seconds: float) -> None:
    """Look on for so long, once each job was polled twice, and print."""
    ready = server.wait_for("/-/ready")
    print(f"ready after {ready:.0f} s\n", flush=True)
    took = [scrape(server.url)[0]]
    time.sleep(interval)
    world.ask("requests")
    seconds_before = len(file.read_text().splitlines())
    started, spent, of_all = time.monotonic(), cpu_of(server.pid), cpu_of_all()
    while time.monotonic() - started < seconds:
        time.sleep(min(SCRAPE_INTERVAL, max(0.0, started + seconds - time.monotonic())))
        taken_by_scrape, text = scrape(server.url)
        took.append(taken_by_scrape)
    spent, of_all = cpu_of(server.pid) - spent, cpu_of_all() - of_all
    taken = time.monotonic() - started
    asked = world.ask("requests")
    stalls = [float(line) for line in file.read_text().splitlines()[seconds_before:]]
    now, most = resident(server.pid)
    # A job that is idle is polled after several whole intervals. A poll that is late by more than
    # half an interval is among the turns left out.
    lags = [(gap + interval / 2) % interval - interval / 2 for gap in asked["gaps"]]
    lag, stall = max(lags), max(stalls)
    mean, fullest = by_second(asked["arrivals"])
    others = max(0.0, of_all - spent - asked["spent"])
    floors = (
        ("CPU, of one core", spent / taken, CPU_FLOOR, "{:.0%}"),
        ("MiB resident", now, MEMORY_FLOOR, "{:.0f}"),
        ("largest lag of a poll, s", lag, LAG_FLOOR, "{:.2f}"),
        ("longest stall of the event loop, s", stall, STALL_FLOOR, "{:.3f}"),
        ("requests not answered with 200", total(FAILED, text), 0, "{:.0f}"),
        ("turns of polls left out", total(SKIPPED, text), 0, "{:.0f}"),
    )
    head("exporter", "measured", "floor", "holds")
    for what, measured, floor, form in floors:
        row(what, form.format(measured), f"≤ {form.format(floor)}", verdict(measured <= floor))
    for what, figure in (
        ("MiB resident at most", f"{most:.0f}"),
        ("longest stall of the median second, s", f"{median(stalls):.3f}"),
        ("CPU ms a request", f"{spent / len(asked['arrivals']) * 1000:.2f}"),
        ("requests a second", f"{mean:.0f}"),
        ("fullest second / mean", f"{fullest / mean:.2f}"),
        ("series", f"{total(SERIES, text):.0f}"),
        ("MB of /metrics", f"{len(text) / 1e6:.0f}"),
        ("longest scrape, s", f"{max(took):.2f}"),
        ("the simulated account's CPU, of one core", f"{asked['spent'] / taken:.0%}"),
        ("CPU of all others on this machine, which should be idle", f"{others / taken:.0%}"),
    ):
        row(what, figure, "", "")
    print(flush=True)


def by_second(arrivals: list[float]) -> tuple[float, int]:
    """Requests a second, and those of the fullest one; seconds that were cut are left out."""
    counts = Counter(int(moment - arrivals[0]) for moment in arrivals)
    last = max(counts)
    whole = [counts[second] for second in range(last)] or [counts[0]]
    return sum(whole) / len(whole), max(whole)


def total(pattern: re.Pattern[bytes], text: bytes) -> float:
    """The values of a family's lines together."""
    return sum(map(float, pattern.findall(text)))


if __name__ == "__main__":
    main()
