"""The exporter's own metrics: counts of its own events, rendered when they have changed.

The `process_*` and `python_*` families are those of prometheus_client.
"""

from __future__ import annotations

import math
import platform
from bisect import bisect_left
from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as PrometheusMetric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

import exporter
from exporter.config.shard import WHOLE, Shard
from exporter.exposition.body import Format
from exporter.exposition.metric import Labels
from exporter.exposition.text import Family, header


@dataclass(frozen=True)
class Row:
    """One family of the exporter's own. `buckets`: upper bounds of a histogram, in seconds."""

    name: str
    type: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


ROWS: tuple[Row, ...] = (
    Row(
        "azure_batch_exporter_build_info",
        "gauge",
        "What is running; always 1.",
        ("version", "revision", "python_version"),
    ),
    Row(
        "azure_batch_exporter_shard",
        "gauge",
        "Which part of the jobs this process polls, counted from 0 (--shard).",
    ),
    Row(
        "azure_batch_exporter_shards",
        "gauge",
        "Into how many parts the jobs are split; 1 where this process polls them all.",
    ),
    Row(
        "azure_batch_exporter_requests_total",
        "counter",
        "HTTP attempts by operation of the Batch REST API and by status, or timeout, connection,"
        " invalid.",
        ("account", "operation", "code"),
    ),
    Row(
        "azure_batch_exporter_request_duration_seconds",
        "histogram",
        "Duration of HTTP attempts, the answer's body included.",
        ("account", "operation"),
        (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
    ),
    Row(
        "azure_batch_exporter_retries_total",
        "counter",
        "Requests that were repeated because an attempt failed.",
        ("account", "operation"),
    ),
    Row(
        "azure_batch_exporter_throttled_seconds_total",
        "counter",
        "Time for which the account was paused because the service asked for it.",
        ("account",),
    ),
    Row(
        "azure_batch_exporter_poll_duration_seconds",
        "histogram",
        "Duration of polls, all requests and waiting for the request budget included.",
        ("account", "collector"),
        (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
    ),
    Row(
        "azure_batch_exporter_polls_skipped_total",
        "counter",
        "Turns of polls that were left out; overrun: the poll's previous turn was not over.",
        ("account", "reason"),
    ),
    Row(
        "azure_batch_exporter_polls_saved_total",
        "counter",
        "Polls that were not needed; idle: of a job of which nothing waits, runs or changes;"
        " settled: of what cannot change in the life of its job.",
        ("account", "reason"),
    ),
    Row(
        "azure_batch_exporter_poll_lag_seconds",
        "gauge",
        "How late the latest poll started.",
        ("account",),
    ),
    Row(
        "azure_batch_exporter_resync_corrections_total",
        "counter",
        "Records that a full listing found other than reading by changes had left them.",
        ("account", "collector"),
    ),
    Row(
        "azure_batch_exporter_series_dropped_total",
        "counter",
        "Series that were left out when max_series was reached.",
        ("account",),
    ),
    Row(
        "azure_batch_exporter_state_file_works",
        "gauge",
        "Whether what was counted is saved: 1 while it is, 0 from the first error on, NaN without a"
        " state_file.",
    ),
    Row(
        "azure_batch_exporter_internal_errors_total",
        "counter",
        "Defects of the exporter that were contained, by where they showed: please report them.",
        ("where",),
    ),
    Row(
        "azure_batch_exporter_config_last_reload_successful",
        "gauge",
        "Whether the configuration was loaded the last time it was tried.",
    ),
    Row(
        "azure_batch_exporter_config_last_reload_success_timestamp_seconds",
        "gauge",
        "When the configuration was last loaded.",
    ),
)

SERIES = Row(
    "azure_batch_exporter_series", "gauge", "Series in this exposition, this one included."
)


class Telemetry:
    """The exporter's own metrics.

    `revision`: of the source that was built. `shard`: what this process polls.
    """

    def __init__(self, revision: str, shard: Shard = WHOLE) -> None:
        # _created lines would double the series of counters, and no alert reads them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)
        GCCollector(registry=self._process)
        self._excluded: Container[str] = ()
        self._rows = {row.name: row for row in ROWS}
        self._families = {row.name: Family(row.name, row.type, row.labels) for row in ROWS}
        self._headers = {
            (row.name, format_): header(
                row.name, row.type, row.help, openmetrics=format_ is Format.OPENMETRICS
            )
            for row in (*ROWS, SERIES)
            for format_ in Format
        }
        self._values: dict[str, dict[Labels, float]] = {row.name: {} for row in ROWS}
        """Of gauges and counters, by family and label values."""
        self._observed: dict[str, dict[Labels, list[float]]] = {row.name: {} for row in ROWS}
        """Of histograms: for each bucket how many observations it has, then their sum."""
        self._lines: dict[str, bytes] = {}
        """The rendered families; one that has changed is not here."""
        for row in ROWS:
            if row.type != "histogram" and not row.labels:
                self.set(row.name, 0)
        self.set("azure_batch_exporter_state_file_works", math.nan)
        self.set("azure_batch_exporter_shard", shard.index)
        self.set("azure_batch_exporter_shards", shard.count)
        version = (exporter.__version__, revision, platform.python_version())
        self.set("azure_batch_exporter_build_info", 1, *version)

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._values[name][labels] = value
        self._lines.pop(name, None)

    def add(self, name: str, amount: float, *labels: str) -> None:
        """Add to a counter; 0 makes the series appear."""
        values = self._values[name]
        values[labels] = values.get(labels, 0) + amount
        self._lines.pop(name, None)

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Add an observation to a histogram."""
        bounds, observed = self._rows[name].buckets, self._observed[name]
        if labels not in observed:
            observed[labels] = [0] * (len(bounds) + 1) + [0.0]
        observed[labels][bisect_left(bounds, value)] += 1
        observed[labels][-1] += value
        self._lines.pop(name, None)

    def exclude(self, excluded: Container[str]) -> None:
        """Names of families that are not shown from now on."""
        self._excluded = excluded

    def config_loaded(self, now: float) -> None:
        """The configuration was loaded at the Unix time `now`."""
        self.set("azure_batch_exporter_config_last_reload_successful", 1)
        self.set("azure_batch_exporter_config_last_reload_success_timestamp_seconds", now)

    def config_refused(self) -> None:
        """Another configuration was tried, and could not be used."""
        self.set("azure_batch_exporter_config_last_reload_successful", 0)

    def state_file_works(self, works: bool) -> None:
        """Whether what is counted is saved."""
        self.set("azure_batch_exporter_state_file_works", int(works))

    def internal_error(self, where: str) -> None:
        """An internal error was caught."""
        self.add("azure_batch_exporter_internal_errors_total", 1, where)

    def series_dropped(self, account: str, count: int) -> None:
        """So many series of an account were left out, because its limit is reached."""
        self.add("azure_batch_exporter_series_dropped_total", count, account)

    def forget_account(self, account: str) -> None:
        """Show nothing of an account any more."""
        for row in ROWS:
            if "account" in row.labels:
                position = row.labels.index("account")
                for known in (self._values[row.name], self._observed[row.name]):
                    for labels in [each for each in known if each[position] == account]:
                        del known[labels]
                self._lines.pop(row.name, None)

    def for_account(self, account: str) -> AccountTelemetry:
        """What counts the events of one account."""
        return AccountTelemetry(self, account)

    def total(self, name: str) -> float:
        """All series of a family together: values, or the sums of a histogram's observations."""
        sums = [observed[-1] for observed in self._observed[name].values()]
        return math.fsum([*self._values[name].values(), *sums])

    def text(self, format_: Format, series_of_state: int) -> bytes:
        """All of it as text, the count of all series included, and the end mark of OpenMetrics."""
        parts: list[bytes] = []
        series = series_of_state
        for row in ROWS:
            lines = self._lines.get(row.name)
            if lines is None:
                lines = self._lines[row.name] = self._render(row)
            if row.name not in self._excluded:
                parts += self._headers[row.name, format_], lines
                series += lines.count(b"\n")
        process = self._process_text(format_)
        series += sum(not line.startswith(b"#") for line in process.splitlines())
        parts.append(process)
        if SERIES.name not in self._excluded:
            header_ = self._headers[SERIES.name, format_]
            parts += header_, f"{SERIES.name} {series + 1}\n".encode()
        return b"".join([*parts, b"# EOF\n" if format_ is Format.OPENMETRICS else b""])

    def _render(self, row: Row) -> bytes:
        family = self._families[row.name]
        if row.type != "histogram":
            return family.render("", self._values[row.name].items())
        bounds = [*map(str, row.buckets), "+Inf"]
        lines = [
            sample
            for labels, (*counts, total) in self._observed[row.name].items()
            for sample in (
                *(
                    ((*labels, "_bucket", bound), count)
                    for bound, count in zip(bounds, accumulate(counts), strict=True)
                ),
                ((*labels, "_count", ""), sum(counts)),
                ((*labels, "_sum", ""), total),
            )
        ]
        return family.render("", lines)

    def collect(self) -> Iterator[PrometheusMetric]:
        """The families of the process that are shown; prometheus_client asks for them."""
        for family in self._process.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            if name not in self._excluded:
                yield family

    def _process_text(self, format_: Format) -> bytes:
        if format_ is Format.OPENMETRICS:
            text = bytes(generate_openmetrics(self))  # type: ignore[no-untyped-call]
            return text.removesuffix(b"# EOF\n")
        return generate_latest(self)


class AccountTelemetry:
    """Counts the events of one account.

    `pages`: answers with status 200.
    `lag`: how late the latest poll started, in seconds.
    """

    def __init__(self, telemetry: Telemetry, account: str) -> None:
        self._account = account
        self._telemetry = telemetry
        self.pages = 0
        self.lag = 0.0
        self.throttled(0)
        self.polls_skipped(0)
        for reason in ("idle", "settled"):
            self.polls_saved(0, reason)
        telemetry.series_dropped(account, 0)
        self.poll_started(0)

    def request_done(self, operation: str, code: str, seconds: float) -> None:
        """An HTTP attempt ended."""
        self.pages += code == "200"
        count, observe = self._telemetry.add, self._telemetry.observe
        count("azure_batch_exporter_requests_total", 1, self._account, operation, code)
        name = "azure_batch_exporter_request_duration_seconds"
        observe(name, seconds, self._account, operation)

    def retried(self, operation: str) -> None:
        """An attempt is repeated."""
        self._telemetry.add("azure_batch_exporter_retries_total", 1, self._account, operation)

    def throttled(self, seconds: float) -> None:
        """The service asked for a pause."""
        name = "azure_batch_exporter_throttled_seconds_total"
        self._telemetry.add(name, seconds, self._account)

    def poll_started(self, lag: float) -> None:
        """A poll started `lag` seconds late."""
        self.lag = lag
        self._telemetry.set("azure_batch_exporter_poll_lag_seconds", lag, self._account)

    def polls_skipped(self, count: int) -> None:
        """So many turns were left out."""
        name = "azure_batch_exporter_polls_skipped_total"
        self._telemetry.add(name, count, self._account, "overrun")

    def internal_error(self) -> None:
        """A poll ended with an internal error."""
        self._telemetry.internal_error("poll")

    def polls_saved(self, count: float, reason: str) -> None:
        """So many polls were not needed."""
        self._telemetry.add("azure_batch_exporter_polls_saved_total", count, self._account, reason)

    def corrected(self, collector: str, records: int) -> None:
        """A full listing made so many corrections."""
        name = "azure_batch_exporter_resync_corrections_total"
        self._telemetry.add(name, records, self._account, collector)

    def poll_done(self, collector: str, seconds: float) -> None:
        """A poll ended."""
        name = "azure_batch_exporter_poll_duration_seconds"
        self._telemetry.observe(name, seconds, self._account, collector)
