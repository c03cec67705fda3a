"""The exporter's own metrics: counts of its own events, rendered when they have changed.

The `process_*` and `python_*` families are those of prometheus_client.
"""

from __future__ import annotations

import logging
import math
import platform
import re
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

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

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One family of the exporter's own.

    `key`: its name without the prefix. `buckets`: upper bounds of a histogram, in seconds.
    """

    key: str
    type: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """The whole name."""
        return f"azure_batch_exporter_{self.key}"


ROWS: tuple[Row, ...] = (
    Row(
        "build_info",
        "gauge",
        "What is running; always 1.",
        ("version", "revision", "python_version"),
    ),
    Row("shard", "gauge", "Which part of the jobs this process polls, counted from 0 (--shard)."),
    Row(
        "shards",
        "gauge",
        "Into how many parts the jobs are split; 1 where this process polls them all.",
    ),
    Row(
        "requests_total",
        "counter",
        "HTTP attempts by operation of the Batch REST API and by status, or timeout, connection,"
        " invalid.",
        ("account", "operation", "code"),
    ),
    Row(
        "request_duration_seconds",
        "histogram",
        "Duration of HTTP attempts, the answer's body included.",
        ("account", "operation"),
        (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
    ),
    Row(
        "retries_total",
        "counter",
        "Requests that were repeated because an attempt failed.",
        ("account", "operation"),
    ),
    Row(
        "records_invalid_total",
        "counter",
        "Records of lists that were left out: they could not be read, are of a pool beyond the"
        " limit (20 of a job, 2,000 of an account), or are jobs whose id has a secret. The other"
        " records of the page are used.",
        ("account", "operation"),
    ),
    Row(
        "throttled_seconds_total",
        "counter",
        "Time for which the account was paused because the service asked for it.",
        ("account",),
    ),
    Row(
        "poll_duration_seconds",
        "histogram",
        "Duration of polls, all requests and waiting for the request budget included.",
        ("account", "collector"),
        (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
    ),
    Row(
        "polls_skipped_total",
        "counter",
        "Turns of polls that were left out; overrun: the poll's previous turn was not over.",
        ("account", "reason"),
    ),
    Row(
        "polls_saved_total",
        "counter",
        "Polls that were not needed; idle: of a job of which nothing waits, runs or changes;"
        " settled: of what cannot change in the life of its job.",
        ("account", "reason"),
    ),
    Row(
        "jobs_ending",
        "gauge",
        "Jobs that completed, are being deleted or left the selection, and are still polled for"
        " their last counts.",
        ("account",),
    ),
    Row(
        "last_polls_given_up_total",
        "counter",
        "Jobs that were polled for their last counts and given up after 30 minutes without any."
        " Their end was not seen, so counters may lack their last tasks.",
        ("account",),
    ),
    Row("poll_lag_seconds", "gauge", "How late the latest poll started.", ("account",)),
    Row(
        "resync_corrections_total",
        "counter",
        "Records that a full listing found other than reading by changes had left them.",
        ("account", "collector"),
    ),
    Row(
        "series_dropped_total",
        "counter",
        "Series that were left out when max_series was reached.",
        ("account",),
    ),
    Row(
        "log_lines_dropped_total",
        "counter",
        "Lines of the log that were dropped because nobody read standard error.",
    ),
    Row(
        "state_file_works",
        "gauge",
        "Whether counters are saved to the state file: 1 if they are; 0 after an error, until the"
        " file is written anew; NaN without a state_file.",
    ),
    Row(
        "internal_errors_total",
        "counter",
        "Defects of the exporter that were contained, by where they showed: please report them.",
        ("where",),
    ),
    Row(
        "config_last_reload_successful",
        "gauge",
        "Whether the configuration was loaded the last time it was tried.",
    ),
    Row(
        "config_last_reload_success_timestamp_seconds",
        "gauge",
        "When the configuration was last loaded.",
    ),
    Row("series", "gauge", "Series in this exposition, this one included."),
)


class Telemetry:
    """The exporter's own metrics. Methods take the key of a row.

    `revision`: of the source that was built. `shard`: what this process polls.
    `excluded`: names of families that are not shown.
    """

    def __init__(self, revision: str, shard: Shard = WHOLE) -> None:
        # _created lines would double the series of counters, and no alert reads them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._process = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._process)
        self.excluded: Container[str] = ()
        self._families = {row.key: Family(row.name, row.type, row.labels) for row in ROWS}
        self._values: dict[str, dict[Labels, Any]] = {row.key: {} for row in ROWS}
        """By row and labels. Of a histogram: how many observations each bucket has, and their
        sum."""
        self._texts: dict[str, dict[Format, bytes]] = {}
        """The rendered families by row; one that has changed is not here."""
        for row in ROWS:
            if row.type != "histogram" and not row.labels:
                self.set(row.key, 0)
        self.set("state_file_works", math.nan)
        self.set("shard", shard.index)
        self.set("shards", shard.count)
        self.set("build_info", 1, exporter.__version__, revision, platform.python_version())

    def set(self, key: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._values[key][labels] = value
        self._texts.pop(key, None)

    def add(self, key: str, amount: float, *labels: str) -> None:
        """Add to a counter; 0 makes the series appear."""
        self.set(key, self._values[key].get(labels, 0) + amount, *labels)

    def observe(self, key: str, value: float, *labels: str) -> None:
        """Add an observation to a histogram."""
        bounds, known = _BUCKETS[key], self._values[key]
        if labels not in known:
            known[labels] = [0] * (len(bounds) + 1) + [0.0]
        known[labels][bisect_left(bounds, value)] += 1
        known[labels][-1] += value
        self._texts.pop(key, None)

    def forget_account(self, account: str) -> None:
        """Remove the series of an account."""
        for row in ROWS:
            if row.labels[:1] == ("account",):
                known = self._values[row.key]
                self._values[row.key] = {k: v for k, v in known.items() if k[0] != account}
                self._texts.pop(row.key, None)

    def text(self, format_: Format, series_of_state: int) -> bytes:
        """All families as text, with the number of all series and the end mark of OpenMetrics."""
        process = self._process_text(format_)
        parts = [*self._shown(format_), process]
        series = sum(not line.startswith(b"#") for part in parts for line in part.splitlines())
        self.set("series", series_of_state + series)
        end = b"# EOF\n" if format_ is Format.OPENMETRICS else b""
        return b"".join([*self._shown(format_), process, end])

    def _shown(self, format_: Format) -> list[bytes]:
        return [self._text_of(row, format_) for row in ROWS if row.name not in self.excluded]

    def _text_of(self, row: Row, format_: Format) -> bytes:
        texts = self._texts.setdefault(row.key, {})
        if format_ not in texts:
            values = self._values[row.key].items()
            samples = _buckets(row, values) if row.type == "histogram" else values
            lines = self._families[row.key].render("", samples)
            is_openmetrics = format_ is Format.OPENMETRICS
            head = header(row.name, row.type, row.help, openmetrics=is_openmetrics)
            texts[format_] = head + lines
        return texts[format_]

    def collect(self) -> Iterator[PrometheusMetric]:
        """The families of the process that are shown; prometheus_client asks for them."""
        for family in self._process.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            if name not in self.excluded:
                yield family

    def _process_text(self, format_: Format) -> bytes:
        if format_ is Format.OPENMETRICS:
            text = bytes(generate_openmetrics(self))  # type: ignore[no-untyped-call]
            return text.removesuffix(b"# EOF\n")
        return generate_latest(self)


_BUCKETS = {row.key: row.buckets for row in ROWS}


def _buckets(row: Row, values: Iterable[tuple[Labels, list[float]]]) -> list[tuple[Labels, float]]:
    """The samples of a histogram; its buckets are cumulative."""
    bounds = [*map(str, row.buckets), "+Inf"]
    samples: list[tuple[Labels, float]] = []
    for labels, (*counts, total) in values:
        cumulative = zip(bounds, accumulate(counts), strict=True)
        samples += [((*labels, "_bucket", bound), count) for bound, count in cumulative]
        samples += [((*labels, "_count", ""), sum(counts)), ((*labels, "_sum", ""), total)]
    return samples


class AccountTelemetry:
    """Counts the events of one account.

    `lag`: how late the latest poll started, in seconds.
    """

    def __init__(self, telemetry: Telemetry, account: str) -> None:
        self._telemetry = telemetry
        self._account = account
        self._warned: set[tuple[str, str]] = set()
        self.throttled(0)
        self.polls_skipped(0)
        self.polls_saved(0, "idle")
        self.polls_saved(0, "settled")
        telemetry.add("series_dropped_total", 0, account)
        telemetry.add("last_polls_given_up_total", 0, account)
        self.last_polls(0)
        self.poll_started(0)

    def request_done(self, operation: str, code: str, seconds: float) -> None:
        """An HTTP attempt ended."""
        self._telemetry.add("requests_total", 1, self._account, operation, code)
        self._telemetry.observe("request_duration_seconds", seconds, self._account, operation)

    def retried(self, operation: str) -> None:
        """An attempt is repeated."""
        self._telemetry.add("retries_total", 1, self._account, operation)

    def page_read(self, operation: str, problems: Sequence[str]) -> None:
        """A page of a list was read. `problems`: of each record that had to be left out."""
        self._telemetry.add("records_invalid_total", len(problems), self._account, operation)
        for problem in problems:
            kind = operation, re.sub(r"\d+", "", problem)  # whichever record it is
            if kind not in self._warned:
                self._warned.add(kind)
                text = "%s: a record is left out: %s"
                log.warning(text, operation, problem, extra={"account": self._account})

    def throttled(self, seconds: float) -> None:
        """The service asked for a pause."""
        self._telemetry.add("throttled_seconds_total", seconds, self._account)

    def poll_started(self, lag: float) -> None:
        """A poll started `lag` seconds late."""
        self.lag = lag
        self._telemetry.set("poll_lag_seconds", lag, self._account)

    def polls_skipped(self, count: int) -> None:
        """`count` turns of a poll were skipped."""
        self._telemetry.add("polls_skipped_total", count, self._account, "overrun")

    def internal_error(self) -> None:
        """A poll ended with an internal error."""
        self._telemetry.add("internal_errors_total", 1, "poll")

    def polls_saved(self, count: float, reason: str) -> None:
        """`count` polls were not needed."""
        self._telemetry.add("polls_saved_total", count, self._account, reason)

    def last_polls(self, jobs: int) -> None:
        """So many jobs are still polled for their end."""
        self._telemetry.set("jobs_ending", jobs, self._account)

    def gave_up(self) -> None:
        """The end of a job was not seen."""
        self._telemetry.add("last_polls_given_up_total", 1, self._account)

    def corrected(self, collector: str, records: int) -> None:
        """A full listing corrected so many records."""
        self._telemetry.add("resync_corrections_total", records, self._account, collector)

    def poll_done(self, collector: str, seconds: float) -> None:
        """A poll ended."""
        self._telemetry.observe("poll_duration_seconds", seconds, self._account, collector)
