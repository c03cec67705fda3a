"""One run of a preparation or release task on a node, and what is kept of it.

A job may have a hundred thousand nodes, nearly all of which did what they should at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import msgspec

from exporter.batch.failure_codes import category, code
from exporter.batch.models import FailureInfo, SpecialTaskExecutionInfo, enum_value

STATES = ("running", "completed")
RESULTS = ("success", "failure")


class Run(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One run on a node, as last seen. `start`: Unix time."""

    start: float | None
    state: str | None
    result: str | None
    category: str | None
    code: str | None
    retries: int

    @property
    def outcome(self) -> Outcome:
        """How it went."""
        return (self.state, self.result, self.category, self.code)

    @property
    def is_completed(self) -> bool:
        """Whether it is over."""
        return self.state == "completed"


Outcome = tuple[str | None, str | None, str | None, str | None]
"""State, result, category and code of a run, as they are exposed: less than two hundred."""

SUCCEEDED: Outcome = ("completed", "success", None, None)

Kept = Run | float
"""What is kept of a run: of one that succeeded without a retry its start, else all of it."""


def keep(run: Run) -> Kept:
    """What is kept of a run; the same of the same run."""
    if run.start is None or run.retries or run.outcome != SUCCEEDED:
        return run
    return run.start


def run_of(kept: Kept) -> Run:
    """The run of which this was kept."""
    return kept if isinstance(kept, Run) else Run(kept, *SUCCEEDED, 0)


def keep_given(
    infos: Sequence[SpecialTaskExecutionInfo], starts: Iterable[float | None]
) -> list[Kept]:
    """What is kept of runs that the service shows. `starts`: their Unix times."""
    return [
        start
        # Written out for those that are as most are: a call would take longer than all of it.
        if start is not None
        and info.result == "success"
        and info.state == "completed"
        and info.failure_info is None
        and not info.retry_count
        else _keep_given(info, start)
        for info, start in zip(infos, starts, strict=True)
    ]


def _keep_given(info: SpecialTaskExecutionInfo, start: float | None) -> Kept:
    failure = info.failure_info
    words = (failure.category, failure.code) if failure else (None, None)
    return keep(Run(start, *_outcome(info.state, info.result, *words), info.retry_count or 0))


@lru_cache(maxsize=1000)
def _outcome(
    state: str | None, result: str | None, category_: str | None, code_: str | None
) -> Outcome:
    """How a run went, from what the service writes."""
    state = enum_value(state, STATES)
    result = enum_value(result, RESULTS) if state == "completed" else None
    if result != "failure":
        return (state, result, None, None)
    failure = FailureInfo(category_, code_)
    return (state, result, category(failure), code(failure))
