"""The history of each job's numbers since the process began, for small charts.

It takes little memory: only changes are kept, in one array of whole numbers for each job. When
there are too many points, they are thinned out evenly. Nothing of it is saved.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping

import msgspec

from exporter.state.timestamps import Time, iso_time

POINTS = 48
"""Most points of a job. One more, and the array is thinned out to half of that."""

FIRST_STEP = 5
"""Seconds: of two points within one step only the later is kept. Thinning out doubles the step."""

UNKNOWN = 2**32 - 1
"""Stands in an array for a number that was not read yet."""

_MOST = UNKNOWN - 1


class Point(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was known of a job from `time` on; the same until the next point.

    `failed_nodes`: nodes whose latest run of the preparation task failed.
    """

    time: Time
    active: int | None = None
    running: int | None = None
    succeeded: int | None = None
    failed: int | None = None
    failed_nodes: int | None = None


_NAMES = Point.__struct_fields__[1:]
_WIDTH = len(Point.__struct_fields__)


class History:
    """Points by account and job. An array has the step in seconds first, then the points."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], array[int]] = {}

    def add(self, account: str, job_id: str, values: Mapping[str, int], now: float) -> None:
        """Note some fields of a point that were read at the Unix time `now`."""
        if not values:
            return
        key = (account, job_id)
        known = self._known.setdefault(key, array("I", (FIRST_STEP,)))
        before = known[-_WIDTH:] if len(known) > 1 else array("I", (0, *[UNKNOWN] * len(_NAMES)))
        after = before[:]
        for name, value in values.items():
            after[1 + _NAMES.index(name)] = min(value, _MOST)
        if len(known) > 1 and after == before:
            return
        after[0] = int(min(max(now, 0), _MOST))
        step = known[0]
        # The first point stays: the chart begins there.
        if len(known) > 1 + _WIDTH and before[0] // step == after[0] // step:
            del known[-_WIDTH:]
        known.extend(after)
        if len(known) > 1 + POINTS * _WIDTH:
            self._known[key] = _thinned(known)

    def points(self, account: str, job_id: str) -> tuple[Point, ...]:
        """What is known of a job, the earliest first."""
        known = self._known.get((account, job_id), ())
        return tuple(
            Point(
                iso_time(known[start]) or "",
                *[None if n == UNKNOWN else n for n in known[start + 1 : start + _WIDTH]],
            )
            for start in range(1, len(known), _WIDTH)
        )

    def forget(self, account: str, job_id: str) -> None:
        """A job is not watched any more."""
        self._known.pop((account, job_id), None)

    def forget_account(self, account: str) -> None:
        """An account is not watched any more."""
        for key in [key for key in self._known if key[0] == account]:
            del self._known[key]


def _thinned(known: array[int]) -> array[int]:
    """The first point, and the latest of each step; the step grows until half of them are left."""
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
