"""Failures for people: the latest that were seen, with what may not be a label.

Each is told once in the log, too; a storm of them is cut short there and said to be.
"""

from __future__ import annotations

import datetime as dt
import heapq
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import msgspec

from exporter.batch.failure_codes import category, code
from exporter.batch.models import FailureInfo

log = logging.getLogger(__name__)

LATEST = 1000
"""Failures that are kept of each account."""

MAX_TEXT = 1000
"""Characters of a message, or of a detail, that are kept."""

MAX_DETAILS = 20

LINES_AT_ONCE = 30
LINES_PER_SECOND = 0.5
"""How many log lines an account may write: at once, and in the long run."""

Kind = Literal["preparation", "release", "task"]


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """A preparation, release or job task that failed. `time`: Unix time of its end, where known.

    `code` is the service's own, `category` the label's value. Texts are cut to `MAX_TEXT`.
    """

    kind: Kind
    category: str
    code: str
    time: float | None = None
    pool_id: str | None = None
    node_id: str | None = None
    task_id: str | None = None
    exit_code: int | None = None
    message: str | None = None
    details: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(
        cls, kind: Kind, info: FailureInfo | None, *, ended: float | None, **where: Any
    ) -> Failure:
        """A failure from what the service says of it. `where`: ids and exit code."""
        given = info or FailureInfo()
        details = (given.details or ())[:MAX_DETAILS]
        return cls(
            kind,
            category(info),
            _cut(given.code) or code(info),
            ended,
            message=_cut(given.message),
            details=tuple((_cut(item.name) or "", _cut(item.value) or "") for item in details),
            **where,
        )


class JobFailure(msgspec.Struct, frozen=True, omit_defaults=True):
    """A failure, and whose it is."""

    account: str
    job_id: str
    job_group: str | None
    failure: Failure

    @property
    def key(self) -> tuple[Any, ...]:
        """The same for each reading of the same failure."""
        failure = self.failure
        where = (failure.task_id,) if failure.task_id else (failure.pool_id, failure.node_id)
        return (self.job_id, failure.kind, failure.time, *where)

    @property
    def shown(self) -> dict[str, Any]:
        """As JSON has it: the time in ISO 8601, and nothing that is not known."""
        known = {
            "account": self.account,
            "job_id": self.job_id,
            "job_group": self.job_group,
            **{name: getattr(self.failure, name) for name in Failure.__struct_fields__},
            "time": None if self.failure.time is None else iso_time(self.failure.time),
            "details": [{"name": n, "value": v} for n, v in self.failure.details] or None,
        }
        return {name: value for name, value in known.items() if value is not None}


def latest(failures: Iterable[Failure]) -> list[Failure]:
    """The latest of them, as many as are kept."""
    return heapq.nlargest(LATEST, failures, key=lambda each: each.time or 0.0)


class Failures:
    """The latest failures of each account. `clock`: seconds that only grow."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, dict[tuple[Any, ...], JobFailure]] = {}
        self._lines: dict[str, _Lines] = {}

    def restore(self, account: str, failures: Iterable[JobFailure]) -> None:
        """What an earlier process knew."""
        self._known[account] = {each.key: each for each in failures}

    def add(
        self, account: str, failures: Sequence[JobFailure], *, is_news: bool
    ) -> list[JobFailure]:
        """Take failures; gives those that were not known. `is_news`: they are told in the log."""
        known = self._known.setdefault(account, {})
        new = []
        for each in failures:
            before = known.get(each.key)
            # A watched task says on which node it failed; the list of tasks does not.
            if before is not None and (before.failure.node_id or not each.failure.node_id):
                continue
            known[each.key] = each
            new.append(each)
            if is_news and before is None:
                self._tell(account, each)
        if len(known) > 2 * LATEST:
            kept = heapq.nlargest(LATEST, known.values(), key=_time)
            self._known[account] = {each.key: each for each in kept}
        return new

    def forget_account(self, account: str) -> None:
        """Show nothing of an account any more."""
        self._known.pop(account, None)

    def latest(self) -> list[JobFailure]:
        """The latest of every account, the latest of all first."""
        return sorted(
            (
                each
                for known in self._known.values()
                for each in heapq.nlargest(LATEST, known.values(), key=_time)
            ),
            key=_time,
            reverse=True,
        )

    def _tell(self, account: str, each: JobFailure) -> None:
        now = self._clock()
        lines = self._lines.setdefault(account, _Lines(now))
        of_account = {"account": account}
        if not lines.may_write(now):
            if lines.silenced == 1:
                log.warning(
                    "failures come too fast to log each: /api/v1/failures has the latest",
                    extra=of_account,
                )
            return
        if lines.silenced:
            log.warning("%d failures were not logged", lines.silenced, extra=of_account)
            lines.silenced = 0
        shown = each.shown
        # Names that a log record has itself, or that say it already.
        for name, other in (("time", "failed_at"), ("message", "failure_message")):
            if name in shown:
                shown[other] = shown.pop(name)
        extra = {name: value for name, value in shown.items() if name not in ("kind", "details")}
        log.warning("%s failed", _NAMES[each.failure.kind], extra=extra)


class _Lines:
    """Whether a line may be written now. `silenced`: how many might not since the last one."""

    def __init__(self, now: float) -> None:
        self._left = float(LINES_AT_ONCE)
        self._then = now
        self.silenced = 0

    def may_write(self, now: float) -> bool:
        """Take a line, if one may be written."""
        self._left = min(LINES_AT_ONCE, self._left + (now - self._then) * LINES_PER_SECOND)
        self._then = now
        if self._left < 1.0:
            self.silenced += 1
            return False
        self._left -= 1.0
        return True


_NAMES = {
    "preparation": "job preparation task",
    "release": "job release task",
    "task": "task",
}


def _time(each: JobFailure) -> float:
    return each.failure.time or 0.0


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= MAX_TEXT:
        return text
    return text[:MAX_TEXT] + "…"


def iso_time(moment: float) -> str | None:
    """A Unix time in ISO 8601, as JSON has it; None where no calendar has it."""
    try:
        found = dt.datetime.fromtimestamp(moment, dt.UTC)
    except (ValueError, OverflowError):
        return None  # the first year and the last, in another zone: no time that anything ended
    return found.isoformat(timespec="milliseconds").replace("+00:00", "Z")
