"""The real process with 10,000 jobs, each polled by two collectors once a minute.

The account is a process of its own; on a machine of two cores it has the other one, and its share
of that is printed: were it whole, the figures of the exporter would be those of a slow service.
Goals: half a core, polls less than a second late, and 1.2 times the mean of requests in the
fullest second.

The metrics are fetched every 15 seconds, as Prometheus does. How late polls begin is noted for
each of them by a listener inside (watched_exporter.py); else it is the program as it is.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    PYTHON,
    ROOT,
    Process,
    cpu_of,
    cpu_of_all,
    environment,
    head,
    median,
    resident,
    row,
)
from benchmarks.startup import KEY_VARIABLE, answers, free_port
from benchmarks.watched_exporter import LAGS_VARIABLE

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
    started = time.monotonic()
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as response:
        text = response.read()
    return time.monotonic() - started, text


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="(default: %(default)s)")
    parser.add_argument("--interval", type=int, default=60, help="seconds (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=3.0, help="(default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="a tenth of all three")
    options = parser.parse_args()
    size = 10 if options.small else 1
    jobs, interval = options.jobs // size, options.interval // size
    with (
        Process("benchmarks.simulator", "counts", f"--jobs={jobs}", "--speed=1") as world,
        tempfile.TemporaryDirectory() as folder,
    ):
        config = Path(folder) / "config.yaml"
        config.write_text(json.dumps(config_of(world.ready, jobs, interval)))
        lags = Path(folder) / "lags"
        port = free_port()
        exporter = subprocess.Popen(
            [
                *(PYTHON, "-m", "benchmarks.watched_exporter", "run"),
                f"--config.file={config}",
                *(f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"),
            ],
            cwd=ROOT,
            env={
                **environment(),
                KEY_VARIABLE: world.ready["key"],
                LAGS_VARIABLE: str(lags),
            },
        )
        try:
            print(f"{jobs} jobs, an interval of {interval} s", flush=True)
            seconds = options.minutes * 60 / size
            watch(exporter.pid, f"http://127.0.0.1:{port}", world, lags, seconds)
        finally:
            exporter.terminate()
            exporter.wait()


def config_of(account: Mapping[str, Any], jobs: int, interval: int) -> dict[str, object]:
    """All jobs, with limits that none of this comes near."""
    return {
        "defaults": {
            "interval": f"{interval}s",
            "collect": ["task_counts", "preparation_release"],
        },
        "accounts": [
            {
                "name": account["account"],
                "endpoint": account["endpoint"],
                "auth": {"method": "shared_key", "key_env": KEY_VARIABLE},
                "requests_per_second": 1000,
                "max_concurrency": 64,
                "max_jobs": jobs,
                "max_series": 5_000_000,
                "pool_nodes": False,
            }
        ],
    }


def watch(pid: int, url: str, world: Process, lags: Path, seconds: float) -> None:
    """Wait for the first round, look on for so long, and print."""
    started = time.monotonic()
    while not answers(f"{url}/-/ready"):
        time.sleep(0.5)
    print(f"the first round took {time.monotonic() - started:.0f} s\n", flush=True)
    took = [scrape(url)[0]]
    world.ask("requests")
    seconds_before = len(lags.read_text().splitlines())
    started, spent, of_all = time.monotonic(), cpu_of(pid), cpu_of_all()
    while time.monotonic() - started < seconds:
        time.sleep(min(SCRAPE_INTERVAL, max(0.0, started + seconds - time.monotonic())))
        taken_by_scrape, text = scrape(url)
        took.append(taken_by_scrape)
    spent, of_all = cpu_of(pid) - spent, cpu_of_all() - of_all
    taken = time.monotonic() - started
    asked = world.ask("requests")
    late = [float(line) for line in lags.read_text().splitlines()[seconds_before:]]
    idle, most = resident(pid)
    mean, fullest = by_second(asked["arrivals"])
    head("exporter", "measured", "goal")
    row("CPU, of one core", f"{spent / taken:.0%}", "50 %")
    row("CPU ms a request", f"{spent / len(asked['arrivals']) * 1000:.2f}", "")
    row("largest lag of a poll, s", f"{max(late):.2f}", "1")
    row("the same in the median second", f"{median(late):.3f}", "")
    row("requests a second", f"{mean:.0f}", "")
    row("fullest second / mean", f"{fullest / mean:.2f}", "1.2")
    row("requests not answered with 200", f"{total(FAILED, text):.0f}", "0")
    row("turns of polls left out", f"{total(SKIPPED, text):.0f}", "0")
    row("series", f"{total(SERIES, text):.0f}", "")
    row("MB of /metrics", f"{len(text) / 1e6:.0f}", "")
    row("longest scrape, s", f"{max(took):.2f}", "")
    row("MB resident, now and at most", f"{idle:.0f}, {most:.0f}", "")
    row("the simulated account's CPU, of one core", f"{asked['spent'] / taken:.0%}", "")
    others = max(0.0, of_all - spent - asked["spent"])
    row("all others on this machine, which should be idle", f"{others / taken:.0%}", "0 %")
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
