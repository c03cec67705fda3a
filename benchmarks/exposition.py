"""/metrics of 100,000 series against prometheus_client's generate_latest for the same series.

What is measured is the making of the body: rendering what polls bring, and all that a scrape then
does but sending it. The baseline has its gauges set already.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import time
from collections.abc import Callable
from itertools import count

from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from benchmarks.content import SERIES_OF_A_JOB, Polled, gauges, polled, show, shown
from benchmarks.harness import head, median, row
from exporter import collectors
from exporter.exposition.body import Format, gzip_parts
from exporter.service.telemetry import Telemetry


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--small", action="store_true", help="a tenth of the series, three rounds")
    options = parser.parse_args()
    if options.small:
        options.series, options.rounds = 10_000, 3

    exposition, jobs = shown(options.series)
    registry = gauges(jobs)
    text = exposition.body(Format.TEXT).plain
    same = [each for each in generate_latest(registry).splitlines() if not each.startswith(b"#")]
    assert len(same) == jobs * SERIES_OF_A_JOB
    gc.collect()
    gc.freeze()  # as the daemon does; and what is measured is not the collector's look at the other
    telemetry = Telemetry("benchmark")
    poll_everything(telemetry)
    steps = count(1)

    def changing(
        share: float, format_: Format, *, zipped: bool
    ) -> Callable[[], Callable[[], object]]:
        # Spread over all, as jobs change.
        some = range(0, jobs, round(1 / share)) if share else range(0)

        def prepare() -> Callable[[], object]:
            step = next(steps)
            news = [each for number in some for each in polled(number, step)]
            return lambda: run(news)

        def run(news: list[Polled]) -> tuple[bytes, ...]:
            show(exposition, news)
            body = exposition.body(format_)
            own = telemetry.text(format_, body.series)
            return gzip_parts(body, own) if zipped else (*body.parts, own)

        return prepare

    print(f"{jobs} jobs, {jobs * SERIES_OF_A_JOB} series, {len(text)} bytes; ms for a body\n")
    head("/metrics", "jobs changed since", "generate_latest", "this exporter", "times faster")
    shares = {"none": 0.0, "1 %": 0.01, "all": 1.0}
    for format_, zipped in ((f, z) for f in Format for z in (False, True)):
        generate = generate_latest if format_ is Format.TEXT else generate_openmetrics
        baseline: Callable[[], object] = lambda generate=generate: generate(registry)  # noqa: E731
        if zipped:
            # With what prometheus_client itself compresses.
            baseline = lambda generate=generate: gzip.compress(generate(registry))  # noqa: E731
        ways = {name: changing(share, format_, zipped=zipped) for name, share in shares.items()}
        times: dict[str, list[float]] = {"baseline": [], **{name: [] for name in ways}}
        for _ in range(options.rounds):  # in turns: a slow moment of the machine meets all alike
            times["baseline"].append(taken(baseline))
            for name, prepare in ways.items():
                changing(0, format_, zipped=zipped)()()  # what others changed is not its business
                times[name].append(taken(prepare()))
        label = f"{format_.name.lower()}{', gzip' if zipped else ''}"
        theirs = median(times["baseline"])
        for name in ways:
            ours = median(times[name])
            figures = (
                f"{theirs * 1000:.0f}",
                f"{ours * 1000:.2f}",
                f"{theirs / ours:.{0 if theirs > 100 * ours else 1}f}",
            )
            row(label, name, *figures)


def taken(run: Callable[[], object]) -> float:
    """Seconds of CPU."""
    started = time.process_time()
    run()
    return time.process_time() - started


def poll_everything(telemetry: Telemetry) -> None:
    """The exporter's own series of one account, as they are after a while."""
    account = telemetry.for_account("account")
    for operation in ("Job_List", "Job_GetTaskCounts", "Account_ListPoolNodeCounts"):
        for code in ("200", "429", "500", "timeout"):
            account.request_done(operation, code, 0.1)
    for collector in ("jobs", "pool_nodes", *collectors.JOB_COLLECTORS):
        account.poll_done(collector, 0.1)


if __name__ == "__main__":
    main()
