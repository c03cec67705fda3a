"""One run of a preparation or release task on a node, and the same as one whole number.

A job may have a hundred thousand nodes, so what is kept of each is a number.
"""

from __future__ import annotations

import datetime as dt

import msgspec

from exporter.batch.failure_codes import category, code
from exporter.batch.models import FailureInfo, SpecialTaskExecutionInfo, enum_value, unix_time

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

_OUTCOMES: list[Outcome] = []
_NUMBERS: dict[Outcome, int] = {}
_OUTCOME_BITS = 10
_START_BITS = 53
_RETRIES_AT = _OUTCOME_BITS + _START_BITS

_AS_GIVEN: dict[tuple[str | None, ...], int] = {}
"""Numbers of outcomes by what the service writes."""

_MOST_AS_GIVEN = 10_000

ORIGIN = 1420070400
"""Unix time of 2015, before which there was no Batch. Counted from there, microseconds and outcome
take 60 bits until 2050: the most that Python keeps in 32 bytes."""

_END = 7258118400
"""Unix time of 2200: whatever is said to be later is no time."""


def pack(run: Run) -> int:
    """A run as a number; the same for the same run, within one process."""
    return _packed(run.start, run.retries, _number_of(run.outcome))


def unpack(packed: int) -> Run:
    """The run that was packed."""
    moment = packed >> _OUTCOME_BITS & (1 << _START_BITS) - 1
    start = (moment - 1 + ORIGIN * 1_000_000) / 1_000_000 if moment else None
    outcome = _OUTCOMES[packed & (1 << _OUTCOME_BITS) - 1]
    return Run(start, *outcome, packed >> _RETRIES_AT)


def succeeded_at_once(packed: int) -> bool:
    """Whether a run was packed that is over, well, and without a retry."""
    return packed & (1 << _OUTCOME_BITS) - 1 == _SUCCEEDED and not packed >> _RETRIES_AT


def pack_given(info: SpecialTaskExecutionInfo) -> int:
    """What is kept of a run that the service shows."""
    failure = info.failure_info
    given: tuple[str | None, ...]
    if failure is None:
        given = (info.state, info.result)
    else:
        given = (info.state, info.result, failure.category, failure.code)
    number = _AS_GIVEN.get(given)
    if number is None:
        number = _learn(given, failure)
    start = info.start_time
    # Most times are as they should be, and there are very many.
    moment = start.timestamp() if start is not None and start.tzinfo is dt.UTC else None
    if moment is None or not ORIGIN <= moment < _END:
        return _packed(unix_time(start), info.retry_count or 0, number)
    run = int((moment - ORIGIN) * 1_000_000 + 1.5) << _OUTCOME_BITS | number
    retries = info.retry_count
    return retries << _RETRIES_AT | run if retries else run


def _packed(start: float | None, retries: int, outcome: int) -> int:
    moment = 0
    if start is not None and start >= ORIGIN:
        moment = int((start - ORIGIN) * 1_000_000 + 1.5)
    return (retries << _START_BITS | moment) << _OUTCOME_BITS | outcome


def _learn(given: tuple[str | None, ...], failure: FailureInfo | None) -> int:
    state = enum_value(given[0], STATES)
    result = enum_value(given[1], RESULTS) if state == "completed" else None
    failed = result == "failure"
    outcome = (
        state,
        result,
        category(failure) if failed else None,
        code(failure) if failed else None,
    )
    if len(_AS_GIVEN) >= _MOST_AS_GIVEN:  # texts of a service that has gone mad
        _AS_GIVEN.clear()
    number = _AS_GIVEN[given] = _number_of(outcome)
    return number


def _number_of(outcome: Outcome) -> int:
    number = _NUMBERS.get(outcome)
    if number is None:
        number = _NUMBERS[outcome] = len(_OUTCOMES)
        _OUTCOMES.append(outcome)
    return number


SUCCEEDED: Outcome = ("completed", "success", None, None)
_SUCCEEDED = _number_of(SUCCEEDED)
