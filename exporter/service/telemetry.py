"""The exporter's own events: ordinary prometheus_client metrics in a registry of their own."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import prometheus_client
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as PrometheusMetric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

import exporter
from exporter.config.shard import WHOLE, Shard
from exporter.exposition.body import Format

K = TypeVar("K")
C = TypeVar("C")


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
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._excluded: Container[str] = ()
        self._metrics = {row.name: _metric(row, self.registry) for row in ROWS}
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.gauge("azure_batch_exporter_state_file_works").set(math.nan)
        self.gauge("azure_batch_exporter_shard").set(shard.index)
        self.gauge("azure_batch_exporter_shards").set(shard.count)
        self.gauge("azure_batch_exporter_build_info").labels(
            exporter.__version__, revision, platform.python_version()
        ).set(1)

    def exclude(self, excluded: Container[str]) -> None:
        """Names of families that are not shown from now on."""
        self._excluded = excluded

    def config_refused(self) -> None:
        """Another configuration was tried, and could not be used."""
        self.gauge("azure_batch_exporter_config_last_reload_successful").set(0)

    def internal_error(self, where: str) -> None:
        """Something happened that nobody foresaw."""
        self.counter("azure_batch_exporter_internal_errors_total").labels(where).inc()

    def forget_account(self, account: str) -> None:
        """Show nothing of an account any more."""
        for row in ROWS:
            if "account" in row.labels:
                self._metrics[row.name].remove_by_labels({"account": account})

    def config_loaded(self, now: float) -> None:
        """The configuration was loaded at the Unix time `now`."""
        self.gauge("azure_batch_exporter_config_last_reload_successful").set(1)
        self.gauge("azure_batch_exporter_config_last_reload_success_timestamp_seconds").set(now)

    def state_file_works(self, works: bool) -> None:
        """Whether what is counted is saved."""
        self.gauge("azure_batch_exporter_state_file_works").set(works)

    def series_dropped(self, account: str, count: int) -> None:
        """So many series of an account were left out, because its limit is reached."""
        name = "azure_batch_exporter_series_dropped_total"
        self.counter(name).labels(account).inc(count)

    def collect(self) -> Iterator[PrometheusMetric]:
        """The families that are shown; so this is what prometheus_client writes."""
        for family in self.registry.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            if name not in self._excluded:
                yield family

    def for_account(self, account: str) -> AccountTelemetry:
        """What counts the events of one account."""
        return AccountTelemetry(self, account)

    def gauge(self, name: str) -> Gauge:
        """A gauge by name."""
        metric = self._metrics[name]
        assert isinstance(metric, Gauge)
        return metric

    def counter(self, name: str) -> Counter:
        """A counter by name."""
        metric = self._metrics[name]
        assert isinstance(metric, Counter)
        return metric

    def histogram(self, name: str) -> Histogram:
        """A histogram by name."""
        metric = self._metrics[name]
        assert isinstance(metric, Histogram)
        return metric

    def text(self, format_: Format, series_of_state: int) -> bytes:
        """All of it as text, the count of all series included, and the end mark of OpenMetrics."""
        if format_ is Format.OPENMETRICS:
            own = bytes(generate_openmetrics(self))  # type: ignore[no-untyped-call]
            own = own.removesuffix(b"# EOF\n")
        else:
            own = generate_latest(self)
        lines = own.count(b"\n")
        comments = own.count(b"\n#") + own.startswith(b"#")
        text = ""
        if SERIES.name not in self._excluded:
            text = (
                f"# HELP {SERIES.name} {SERIES.help}\n"
                f"# TYPE {SERIES.name} {SERIES.type}\n"
                f"{SERIES.name} {series_of_state + lines - comments + 1}\n"
            )
        end = "# EOF\n" if format_ is Format.OPENMETRICS else ""
        return own + (text + end).encode()


class _Children(dict[K, C]):
    """Children of a metric, each looked up once: that takes longer than to count."""

    def __init__(self, make: Callable[[K], C]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, labels: K) -> C:
        child = self[labels] = self._make(labels)
        return child


class AccountTelemetry:
    """Counts the events of one account; children of the metrics are looked up once.

    `pages`: answers that were as they should be.
    `lag`: how late the latest poll started, in seconds.
    """

    def __init__(self, telemetry: Telemetry, account: str) -> None:
        self._account = account
        self._telemetry = telemetry
        requests = telemetry.counter("azure_batch_exporter_requests_total")
        self._attempts: _Children[tuple[str, str], Counter] = _Children(
            lambda of: requests.labels(account, *of)
        )
        durations = telemetry.histogram("azure_batch_exporter_request_duration_seconds")
        self._durations: _Children[str, Histogram] = _Children(
            lambda operation: durations.labels(account, operation)
        )
        self._retries = telemetry.counter("azure_batch_exporter_retries_total")
        polls = telemetry.histogram("azure_batch_exporter_poll_duration_seconds")
        self._polls: _Children[str, Histogram] = _Children(
            lambda collector: polls.labels(account, collector)
        )
        self._throttled = telemetry.counter("azure_batch_exporter_throttled_seconds_total").labels(
            account
        )
        self._skipped = telemetry.counter("azure_batch_exporter_polls_skipped_total").labels(
            account, "overrun"
        )
        self._saved = telemetry.counter("azure_batch_exporter_polls_saved_total")
        for reason in ("idle", "settled"):
            self.polls_saved(0, reason)
        corrections = telemetry.counter("azure_batch_exporter_resync_corrections_total")
        self._corrections: _Children[str, Counter] = _Children(
            lambda collector: corrections.labels(account, collector)
        )
        telemetry.series_dropped(account, 0)
        self.lag = 0.0
        self._lag = telemetry.gauge("azure_batch_exporter_poll_lag_seconds").labels(account)
        self.pages = 0

    def request_done(self, operation: str, code: str, seconds: float) -> None:
        """An HTTP attempt ended."""
        self.pages += code == "200"
        self._attempts[operation, code].inc()
        self._durations[operation].observe(seconds)

    def retried(self, operation: str) -> None:
        """An attempt is repeated."""
        self._retries.labels(self._account, operation).inc()

    def throttled(self, seconds: float) -> None:
        """The service asked for a pause."""
        self._throttled.inc(seconds)

    def poll_started(self, lag: float) -> None:
        """A poll started `lag` seconds late."""
        self.lag = lag
        self._lag.set(lag)

    def polls_skipped(self, count: int) -> None:
        """So many turns were left out."""
        self._skipped.inc(count)

    def internal_error(self) -> None:
        """A poll ended with an error that nobody foresaw."""
        self._telemetry.internal_error("poll")

    def polls_saved(self, count: float, reason: str) -> None:
        """So many polls were not needed."""
        self._saved.labels(self._account, reason).inc(count)

    def corrected(self, collector: str, records: int) -> None:
        """A full listing made so many corrections."""
        self._corrections[collector].inc(records)

    def poll_done(self, collector: str, seconds: float) -> None:
        """A poll ended."""
        self._polls[collector].observe(seconds)


def _metric(row: Row, registry: CollectorRegistry) -> Gauge | Counter | Histogram:
    if row.type == "histogram":
        return Histogram(row.name, row.help, row.labels, buckets=row.buckets, registry=registry)
    kinds: Mapping[str, type[Gauge] | type[Counter]] = {"gauge": Gauge, "counter": Counter}
    return kinds[row.type](row.name, row.help, row.labels, registry=registry)
