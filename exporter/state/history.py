"""How the numbers of each job came to be what they are, since the process began: for small charts.

A job costs little: only changes are kept, as whole numbers in one array, and when these are too
many they are thinned out evenly. Nothing of it is saved.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import NamedTuple

POINTS = 48
"""Of a job, at most. From then on only half as many times are told apart."""

FIRST_STEP = 5
"""Seconds within which only the latest values are kept, at first."""

UNKNOWN = 2**32 - 1
"""In place of a number that was not read yet."""

_MOST = UNKNOWN - 1


class Point(NamedTuple):
    """What was known from `time` (Unix seconds) on.

    `failed_nodes`: those whose latest run of the preparation task failed.
    """

    time: int
    active: int
    running: int
    succeeded: int
    failed: int
    failed_nodes: int


_WIDTH = len(Point._fields)

_NOTHING = Point(0, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)


class History:
    """Points by account and job. An array has the step in seconds first, then the points."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], array[int]] = {}

    def add(self, account: str, job_id: str, values: Mapping[str, int], now: float) -> None:
        """Note some fields of a point that were read at the Unix time `now`."""
        if not values:
            return
        key = (account, job_id)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = array("I", (FIRST_STEP,))
        before = Point(*known[-_WIDTH:]) if len(known) > 1 else _NOTHING
        capped = {name: min(value, _MOST) for name, value in values.items()}
        after = before._replace(**capped)
        if len(known) > 1 and after == before:
            return
        after = after._replace(time=int(min(max(now, 0), _MOST)))
        step = known[0]
        # The first is where the chart begins; it stays.
        if len(known) > 1 + _WIDTH and before.time // step == after.time // step:
            del known[-_WIDTH:]
        known.extend(after)
        if len(known) > 1 + POINTS * _WIDTH:
            self._known[key] = _thinned(known)

    def points(self, account: str, job_id: str) -> list[Point]:
        """What is known of a job, the earliest first."""
        known = self._known.get((account, job_id), ())
        return [Point(*known[start : start + _WIDTH]) for start in range(1, len(known), _WIDTH)]

    def forget(self, account: str, job_id: str) -> None:
        """A job is not watched any more."""
        self._known.pop((account, job_id), None)

    def forget_account(self, account: str) -> None:
        """Nor is the whole account."""
        for key in [key for key in self._known if key[0] == account]:
            del self._known[key]


def _thinned(known: array[int]) -> array[int]:
    """Of each step, made longer until that is half as much, the latest point; and the first."""
    step = known[0]
    starts = range(1 + _WIDTH, len(known), _WIDTH)
    kept: dict[int, int] = {}
    while len(kept) > POINTS // 2 or not kept:
        step *= 2
        kept = {known[start] // step: start for start in starts}
    thin = array("I", (step, *known[1 : 1 + _WIDTH]))
    for start in kept.values():
        thin.extend(known[start : start + _WIDTH])
    return thin
