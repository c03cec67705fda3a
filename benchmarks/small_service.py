"""CPU of a scrape of a small service: 60 jobs, some 3,000 series.

The exporter runs as its command runs it and polls all the while, so that each scrape finds other
values, of jobs and of its own. 500 scrapes on one connection, as Prometheus sends them, alternate
with pauses of the same length; what a scrape costs is the difference, divided by the scrapes. In
it is all that the web server does. So two servers stand beside it: one that calls generate_latest
for as many gauges, and one that sends ready bytes, which is what aiohttp takes by itself. The floor
is for the making of the body; that is measured without a server, too, in this process.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from aiohttp import web
from prometheus_client import (
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
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
    PYTHON,
    Process,
    Server,
    cpu_of,
    exporting,
    head,
    median,
    row,
    serving,
    verdict,
)
from exporter.exposition.body import Format
from exporter.service.telemetry import AccountTelemetry

FLOOR = 1.0
"""ms of CPU for the making of a body."""

JOBS = 60
INTERVAL = 5
SLICES = 5
RATE = 20.0
"""Scrapes a second; more than usual, so that the measurement is over sooner."""

OPENMETRICS = "application/openmetrics-text;version=1.0.0"


class Kind(NamedTuple):
    """What a scrape asks for."""

    name: str
    accept: str
    format: Format
    zipped: bool

    @property
    def headers(self) -> dict[str, str]:
        """Of the request."""
        encoding = "gzip" if self.zipped else "identity"
        return {"Accept": self.accept, "Accept-Encoding": encoding}


KINDS = (  # Prometheus asks for the first one
    Kind("OpenMetrics, gzip", OPENMETRICS, Format.OPENMETRICS, True),
    Kind("text", "text/plain", Format.TEXT, False),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scrapes", type=int, default=500, help="(default: %(default)s)")
    parser.add_argument("--serve", choices=("gauges", "bytes"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--small", action="store_true", help="100 scrapes")
    options = parser.parse_args()
    if options.small:
        options.scrapes = 100
    if options.serve:
        web.run_app(app_of(options.serve), host="127.0.0.1", port=options.port, print=None)
        return
    found: dict[tuple[str, str], float] = {}
    series = 0
    with Process("benchmarks.simulator", "counts", f"--size={JOBS}", "--speed=1") as world:
        for name in ("generate_latest", "bytes", "exporter"):
            with exporter(world.ready) if name == "exporter" else baseline(name) as server:
                server.wait_for("/-/ready" if name == "exporter" else "/metrics")
                for kind in KINDS:
                    found[name, kind.name], series = of_a_scrape(server, kind, options.scrapes)
    print(f"{series} series: CPU ms of a scrape, the web server included\n")
    head("/metrics", "generate_latest", "ready bytes", "this exporter")
    for kind in KINDS:
        names = ("generate_latest", "bytes", "exporter")
        row(kind.name, *(f"{found[name, kind.name]:.2f}" for name in names))
    print("\nCPU ms of making the body\n")
    head("/metrics", "generate_latest", "this exporter", "floor", "holds")
    for kind in KINDS:
        in_process = made(kind, options.scrapes)
        theirs = found["generate_latest", kind.name] - found["bytes", kind.name]
        ours = found["exporter", kind.name] - found["bytes", kind.name]
        for how, cost, beside in (
            ("the scrape, less that of ready bytes", ours, f"{theirs:.2f}"),
            ("in a process without a server", in_process, ""),
        ):
            row(
                f"{kind.name}: {how}", beside, f"{cost:.2f}", f"≤ {FLOOR:g}", verdict(cost <= FLOOR)
            )
    print(flush=True)


@contextmanager
def exporter(account: Mapping[str, Any]) -> Iterator[Server]:
    """This program with the default collectors."""
    settings = {"requests_per_second": 1000}
    with exporting(account, {"interval": f"{INTERVAL}s"}, settings) as server:
        yield server


@contextmanager
def baseline(name: str) -> Iterator[Server]:
    """A server of this file."""
    way = "gauges" if name == "generate_latest" else name
    command = [PYTHON, "-m", "benchmarks.small_service", f"--serve={way}", "--port=PORT"]
    with serving(command, {}) as server:
        yield server


def of_a_scrape(server: Server, kind: Kind, scrapes: int) -> tuple[float, int]:
    """ms of CPU of a scrape, and the number of series."""
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)

    def scrape(headers: Mapping[str, str]) -> bytes:
        connection.request("GET", "/metrics", headers=dict(headers))
        response = connection.getresponse()
        assert response.status == 200
        return response.read()

    plain = scrape({"Accept": kind.accept, "Accept-Encoding": "identity"})
    series = sum(not line.startswith(b"#") for line in plain.splitlines())
    of_slice = scrapes // SLICES
    costs: list[float] = []
    for _ in range(SLICES):
        spent = []
        for count in (of_slice, 0):
            before, until = cpu_of(server.pid), time.monotonic()
            for _ in range(count):
                scrape(kind.headers)
                until += 1 / RATE
                time.sleep(max(0.0, until - time.monotonic()))
            if not count:
                time.sleep(of_slice / RATE)
            spent.append(cpu_of(server.pid) - before)
        costs.append((spent[0] - spent[1]) / of_slice * 1000)
    connection.close()
    return sum(costs) / len(costs), series


def made(kind: Kind, times: int) -> float:
    """ms of CPU to make a body here, one job and some own values having changed before each."""
    exposition, jobs = shown(JOBS * SERIES_OF_A_JOB)
    telemetry = own_metrics()
    account = AccountTelemetry(telemetry, "account")
    spent = []
    for step in range(times):
        show(exposition, polled(step % jobs, 1 + step))
        account.request_done("Job_GetTaskCounts", "200", 0.1)
        account.poll_done("task_counts", 0.1)
        before = time.process_time()
        scraped(exposition, telemetry, kind.format, zipped=kind.zipped)
        spent.append(time.process_time() - before)
    return median(spent) * 1000


async def app_of(way: str) -> web.Application:
    """The application of a baseline: bodies are made for each scrape, or once."""
    registry = gauges(JOBS)
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)

    def generate(accept: str, encoding: str) -> bytes:
        openmetrics = accept.startswith(OPENMETRICS)
        generate_text = generate_openmetrics if openmetrics else generate_latest
        text: bytes = generate_text(registry)
        return gzip.compress(text) if encoding == "gzip" else text

    body_of = generate if way == "gauges" else cache(generate)

    async def metrics(request: web.Request) -> web.Response:
        encoding = request.headers["Accept-Encoding"]
        body = body_of(request.headers.get("Accept", ""), encoding)
        return web.Response(body=body, headers={"Content-Encoding": encoding})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    return app


if __name__ == "__main__":
    main()
