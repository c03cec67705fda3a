"""Time from the start of the process until it is ready, by what the request budget permits.

1,000 jobs at `interval: 5m`, with the default 20 requests a second: each job takes a request for
its task counts, and one more for its preparation. So there is a least time that no exporter with
this budget can be below. The floor allows 2 s and a twentieth more, for the start of the process
and the listing of the jobs.
"""

from __future__ import annotations

import argparse

from benchmarks.harness import Process, exporting, head, row, verdict

RATE = 20

COLLECT = {
    "task_counts": ["task_counts"],
    "task_counts and preparation_release": ["task_counts", "preparation_release"],
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000, help="(default: %(default)s)")
    parser.add_argument("--interval", default="5m", help="(default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="a tenth of the jobs, 30 s")
    options = parser.parse_args()
    if options.small:
        options.jobs, options.interval = 100, "30s"
    print(f"{options.jobs} jobs, interval {options.interval}, {RATE} requests a second\n")
    head("collectors", "s until ready", "requests until then", "least, s", "floor, s", "holds")
    for name, collect in COLLECT.items():
        with Process(
            "benchmarks.simulator", "counts", f"--size={options.jobs}", "--speed=1"
        ) as world:
            defaults = {"interval": options.interval, "collect": collect}
            settings = {"requests_per_second": RATE}
            with exporting(world.ready, defaults, settings) as server:
                ready = server.wait_for("/-/ready")
                requests = len(world.ask("requests")["arrivals"])
        least = options.jobs * len(collect) / RATE
        floor = 1.05 * least + 2.0
        cells = (f"{ready:.1f}", str(requests), f"{least:g}", f"≤ {floor:.1f}")
        row(name, *cells, verdict(ready <= floor))
    print(flush=True)


if __name__ == "__main__":
    main()
