"""The latest failures, with details that are no labels.

Each is logged once. When many come at once, the log names some and counts the rest.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import msgspec

from exporter.batch.failure_codes import category
from exporter.batch.models import OTHER, ContainerInfo, FailureInfo, NameValuePair
from exporter.config.redaction import redact
from exporter.state.timestamps import Time, iso_time

log = logging.getLogger(__name__)

LATEST = 1000
"""Failures that are kept of each account."""

MAX_TEXT = 1000
"""Characters of a message, or of a detail, that are kept."""

MAX_DETAILS = 20

LINES_PER_MINUTE = 30
"""Failures of an account that are logged; the others are only counted."""

Kind = Literal["preparation", "release", "task"]


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """A preparation, release or job task that failed.

    `code`: the service's own. `category`: the label's value. `time`: when it ended. Texts are cut
    to 1,000 characters.
    """

    account: str
    job_id: str
    kind: Kind
    category: str
    code: str
    job_group: str | None = None
    time: Time | None = None
    pool_id: str | None = None
    node_id: str | None = None
    task_id: str | None = None
    exit_code: int | None = None
    message: str | None = None
    details: tuple[NameValuePair, ...] = ()

    @classmethod
    def of(
        cls,
        kind: Kind,
        info: FailureInfo | None,
        *,
        ended: float | None,
        command_lines: bool = False,
        container: ContainerInfo | None = None,
        **where: Any,
    ) -> Failure:
        """A failure from what the service says of it; the store adds whose it is.

        `ended`: Unix time. `command_lines`: whether the detail CommandLine is kept. `container`:
        its error is a detail too. `where`: ids and exit code.
        """
        given = info or FailureInfo()
        details = [
            NameValuePair(_cut(detail.name) or "", _cut(detail.value) or "")
            for detail in given.details or ()
            if command_lines or not is_command_line(detail)
        ]
        if container is not None and container.error:
            details.insert(0, NameValuePair("ContainerError", _cut(container.error)))
        return cls(
            "",
            "",
            kind,
            category(info),
            _cut(given.code) or OTHER,
            time=iso_time(ended),
            message=_cut(given.message),
            details=tuple(details[:MAX_DETAILS]),
            **where,
        )

    def __post_init__(self) -> None:
        # A state file of an earlier version may hold what was not masked then.
        if self.message and (masked := redact(self.message)) != self.message:
            msgspec.structs.force_setattr(self, "message", masked)

    @property
    def key(self) -> tuple[str | None, ...]:
        """The same for each reading of the same failure."""
        where = (self.task_id,) if self.task_id else (self.pool_id, self.node_id)
        return (self.job_id, self.kind, self.time, *where)


def is_command_line(detail: NameValuePair) -> bool:
    """Whether a detail of a failure is the command line, which may hold whatever a user wrote."""
    return (detail.name or "").lower() == "commandline"


def latest(failures: Iterable[Failure]) -> list[Failure]:
    """The latest of them, as many as are kept; the latest first."""
    return heapq.nlargest(LATEST, failures, key=_time)


class Failures:
    """The latest failures of each account. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, dict[tuple[str | None, ...], Failure]] = {}
        self._lines: dict[str, tuple[float, int]] = {}
        """By account: a minute, and how many failures came in it."""

    def restore(self, account: str, failures: Iterable[Failure]) -> None:
        """Take over what an earlier process knew."""
        self._known[account] = {each.key: each for each in failures}

    def add(self, account: str, failures: Sequence[Failure], *, is_logged: bool) -> list[Failure]:
        """Take failures, and return those that were not known. `is_logged`: they are logged."""
        known = self._known.setdefault(account, {})
        new = []
        for each in failures:
            before = known.get(each.key)
            # A watched task says on which node it failed; the list of tasks does not.
            if before is not None and (before.node_id or not each.node_id):
                continue
            known[each.key] = each
            new.append(each)
            if is_logged and before is None:
                self._log(account, each)
        if len(known) > 2 * LATEST:
            self._known[account] = {each.key: each for each in latest(known.values())}
        return new

    def leave_out_command_lines(self, account: str) -> list[Failure]:
        """Drop the detail CommandLine of known failures; returns the failures that had one."""
        known, changed = self._known.get(account, {}), []
        for key, each in known.items():
            details = tuple(detail for detail in each.details if not is_command_line(detail))
            if details != each.details:
                known[key] = msgspec.structs.replace(each, details=details)
                changed.append(known[key])
        return changed

    def of(self, account: str) -> tuple[Failure, ...]:
        """The known failures of an account, in no order."""
        return tuple(self._known.get(account, {}).values())

    def forget_account(self, account: str) -> None:
        """Show nothing of an account any more."""
        self._known.pop(account, None)

    def latest(self) -> list[Failure]:
        """The latest of every account, the latest of all first."""
        every = [each for known in self._known.values() for each in latest(known.values())]
        return sorted(every, key=_time, reverse=True)

    def _log(self, account: str, each: Failure) -> None:
        of_account = {"account": account}
        minute = self._clock() // 60
        began, lines = self._lines.get(account, (minute, 0))
        if began != minute:
            if lines > LINES_PER_MINUTE:
                suppressed = lines - LINES_PER_MINUTE
                log.warning("%d failures were not logged", suppressed, extra=of_account)
            lines = 0
        self._lines[account] = (minute, lines + 1)
        if lines >= LINES_PER_MINUTE:
            if lines == LINES_PER_MINUTE:
                log.warning(
                    "failures come too fast to log each: /api/v1/failures has the latest",
                    extra=of_account,
                )
            return
        fields = msgspec.to_builtins(each)
        del fields["kind"]
        fields.pop("details", None)
        # A log record has fields of these names already.
        for name, other in (("time", "failed_at"), ("message", "failure_message")):
            if name in fields:
                fields[other] = fields.pop(name)
        name = "task" if each.kind == "task" else f"job {each.kind} task"
        log.warning("%s failed", name, extra=fields)


def _time(each: Failure) -> str:
    return each.time or ""


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= MAX_TEXT:
        return text
    return text[:MAX_TEXT] + "…"
