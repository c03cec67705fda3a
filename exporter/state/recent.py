"""What was counted lately of each job id, until a listing has confirmed which job that was.

A user may delete a job and create another one under its id. Task counts do not say to which of the
two they belong, so until the next listing what is read of the new job is counted as growth of the
old one. When the new job is found, that part is not counted again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import msgspec

from exporter.batch.models import Job, unix_time
from exporter.exposition.metric import Key
from exporter.state.collector import Events

MAX_AGE = 600.0
"""Seconds for which counts of an id that no listing has are kept. Pages of a listing are no
snapshot, so a new job may be missing from the first one."""


class Counted(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one reading added to the counters.

    `created`: creation time of the job that it was counted for, Unix seconds. `read_at`: when the
    reading ended, in Unix seconds of the service. `series`, `amounts`: what was added to each; as
    most readings add to the same series, they share them.
    """

    created: float | None
    read_at: float
    collector: str
    series: tuple[Key, ...]
    amounts: tuple[float, ...]


class RecentCounts:
    """What was counted lately, by job id in lower case, because the service ignores case."""

    def __init__(self, known: Mapping[str, Sequence[Counted]] | None = None) -> None:
        self._by_id = {job_id: tuple(counted) for job_id, counted in (known or {}).items()}
        self._series: dict[tuple[Key, ...], tuple[Key, ...]] = {}
        """To be shared, since the last listing."""

    @property
    def all(self) -> Mapping[str, Sequence[Counted]]:
        """All of it, to be saved."""
        return dict(self._by_id)

    def take(
        self, job: Job, collector: str, events: Events, read_at: float
    ) -> tuple[Events, dict[str, Sequence[Counted]]]:
        """Events of a reading without what was counted already, and what to save.

        Already counted is what readings since the job's creation brought under its predecessor.
        """
        key, created = job.id.lower(), unix_time(job.creation_time)
        before = self._by_id.get(key, ())
        kept = []
        for each in before:
            is_mine = each.collector == collector and each.read_at >= (created or 0.0)
            if each.created == created or not is_mine:
                kept.append(each)
                continue
            events, left = _less(events, dict(zip(each.series, each.amounts, strict=True)))
            if left:
                kept.append(self._counted(each.created, read_at, collector, left))
        amounts = {**events.increments, **events.observations}
        if grown := {key: amount for key, amount in amounts.items() if amount}:
            kept.append(self._counted(created, read_at, collector, grown))
        after = tuple(kept)
        if after == before:
            return events, {}
        self._by_id[key] = after
        return events, {key: after}

    def _counted(
        self, created: float | None, read_at: float, collector: str, amounts: Mapping[Key, float]
    ) -> Counted:
        series = tuple(amounts)
        series = self._series.setdefault(series, series)
        return Counted(created, read_at, collector, series, tuple(amounts.values()))

    def listed(
        self,
        asked_at: float,
        created: Callable[[str], float | None],
        is_read: Callable[[str, str], bool],
    ) -> dict[str, Sequence[Counted]]:
        """Drop what a listing has confirmed; returns the ids that have nothing any more.

        `asked_at`: when it began. `created(id)`: creation time of the listed job, None: not listed.
        `is_read(id, collector)`: whether that job was read already.
        """
        self._series = {}
        forgotten: dict[str, Sequence[Counted]] = {}
        for key, counted in list(self._by_id.items()):
            now = created(key)
            since = asked_at - MAX_AGE if now is None else asked_at
            kept = tuple(
                each
                for each in counted
                if since <= each.read_at <= asked_at + MAX_AGE  # else a clock was wrong
                or (now not in (None, each.created) and not is_read(key, each.collector))
            )
            if kept:
                self._by_id[key] = kept
            else:
                del self._by_id[key]
                forgotten[key] = ()
        return forgotten


def _less(events: Events, counted: dict[Key, float]) -> tuple[Events, dict[Key, float]]:
    """The events without what was counted, and what of that they did not have yet."""

    def less(amounts: Mapping[Key, float]) -> dict[Key, float]:
        found = dict(amounts)
        for key in found.keys() & counted.keys():
            both = min(found[key], counted[key])
            found[key] -= both
            counted[key] -= both
        return found

    increments, observations = less(events.increments), less(events.observations)
    left = {key: amount for key, amount in counted.items() if amount > 0}
    return replace(events, increments=increments, observations=observations), left
