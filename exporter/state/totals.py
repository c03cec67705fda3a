"""The counters of jobs, groups and accounts: added up here, saved, and only then shown."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from exporter.exposition.body import Exposition
from exporter.exposition.metric import Key
from exporter.exposition.scrapes import Scrapes
from exporter.state.account import Owner, identity_of
from exporter.state.counters import Counters, Increments
from exporter.state.saved import Changes, Saved, SavedJob
from exporter.state.table_names import ACCOUNT_COUNTERS, OF_GROUPS, counters_of

ACCOUNT = ""
"""In place of a collector's name: the counters of an account are those of all collectors."""

Place = tuple[str, Owner, str]
"""(account, owner, collector)."""

SHOWN_AT_ONCE = 300
"""Places that one flush shows anew because they were read: some 20 ms."""

LOOKS = 16
"""For each of them, one flush looks at so many places. Most have nothing new to show."""

NOT_YET = math.inf


@dataclass(slots=True)
class Held:
    """The totals of a place that has new series, until their 0 was read.

    `since`: when the 0 was first exposed.
    """

    totals: Mapping[Key, float]
    since: float = NOT_YET


class Journal(Protocol):
    """Where changes are saved before they are shown."""

    def write(self, changes: Changes, done: Callable[[], None]) -> None:
        """Save, then call `done`; in the order of the calls."""


class Totals:
    """Running totals by account, owner and collector.

    A new series is exposed as 0 until each client that scrapes has read the 0. Its place shows what
    it counts meanwhile only then, all of it together: so sums by code and by category agree.
    What is forgotten is exposed until each client has read its last value.
    `scrapes`: what clients have read. `journal`: saves changes; None: they are not saved. `zeros`:
    series that every account has from the start.
    """

    def __init__(
        self,
        exposition: Exposition,
        scrapes: Scrapes,
        journal: Journal | None = None,
        zeros: Collection[Key] = (),
    ) -> None:
        self._zeros = zeros
        self._exposition = exposition
        self._scrapes = scrapes
        self._journal = journal
        self._counters: dict[Place, Counters] = {}
        self._hidden: set[Place] = set()
        self._collectors: set[str] = set()
        """The collectors for which something was counted."""
        self._held: dict[Place, list[Held]] = {}
        """By place what waits to be read, the oldest first."""
        self._gone: dict[Place, float] = {}
        """Places that are forgotten, and since when their last value is exposed."""
        self._unread: deque[tuple[float, Place]] = deque()
        """When a place exposed something that is to be read, in the order of time."""
        self._dirty: dict[Place, Counters] = {}
        self._with_jobs: set[tuple[str, Owner]] = set()
        """Groups that have jobs."""

    @property
    def is_saved(self) -> bool:
        """Whether changes are saved at all."""
        return self._journal is not None

    def add_account(self, account: str, saved: Saved) -> None:
        """An account's counters are there from the start, or go on where they stopped."""
        watched = {
            ("job_id", job_id)
            for job_id, job in saved.jobs.items()
            if job.left_at is None and job.group is None
        }
        for (owner, collector), counters in saved.counters.items():
            place = (account, owner, collector)
            self._counters[place] = counters
            self._collectors.add(collector)
            if not all(counters.exposed.values()):
                # Maybe no client has read the 0 that an earlier process exposed.
                self._held[place] = [Held(counters.totals)]
            if owner in watched:
                self._hidden.add(place)  # until it is polled
            elif not _outlives_jobs(owner):
                self._gone[place] = NOT_YET
            self._show(place, counters)
        self.count(Changes(account), [(None, ACCOUNT, dict.fromkeys(self._zeros, 0))])

    def count(
        self, changes: Changes, increments: Iterable[tuple[Owner, str, Increments]] = ()
    ) -> None:
        """Add increments by owner and collector; save them with the changes they come from."""
        account = changes.account
        changed: dict[Place, Counters] = {}
        for owner, collector, amounts in increments:
            place = (account, owner, collector)
            if place in self._gone:
                self.keep(account, owner)
            before = self._counters.get(place, _NONE)
            # Most polls count nothing, and there may be many series to write and to render.
            grown = {k: n for k, n in amounts.items() if n or k not in before.totals}
            if grown or not self._is_shown(place):
                changed[place] = self._add(place, before, grown)
                self._collectors.add(collector)
                self._hidden.discard(place)
        self._change(changes, changed)

    def _add(self, place: Place, before: Counters, grown: Increments) -> Counters:
        held = self._held.get(place, [])
        is_exposed = not held or held[-1].since != NOT_YET
        if is_exposed and any(key not in before.totals for key in grown):
            held = self._held[place] = [*held, Held({})]
        after = before.add(grown, is_held=bool(held))
        if held:
            held[-1].totals = after.totals
        return after

    def _change(self, changes: Changes, counters: Mapping[Place, Counters]) -> None:
        """Take over counters, and show them once they are saved."""
        rows = []
        for place, after in counters.items():
            before = self._counters.get(place, _NONE)
            self._counters[place] = after
            keys = _changed(before, after) if self._journal is not None else frozenset()
            rows.append((*place[1:], after, keys))

        def show() -> None:
            for place, after in counters.items():
                self._show(place, after)

        if rows or not changes.is_empty:
            self._save(replace(changes, counters=tuple(rows)), show)

    def has(self, account: str, owner: Owner, collector: str) -> bool:
        """Whether an owner has counters of a collector."""
        return (account, owner, collector) in self._counters

    def forget(self, account: str, owner: Owner, jobs: Mapping[str, SavedJob | None]) -> None:
        """Forget an owner's counters once each client has read their last value.

        `jobs`: what is saved of jobs from now on; None: nothing.
        """
        places = {place: self._counters[place] for place in self._places(account, owner)}
        for place in places:
            self._gone.setdefault(place, NOT_YET)
            if place in self._held:
                self._hidden.discard(place)  # else what is hidden was read

        def show() -> None:
            for place, counters in places.items():
                if place in self._hidden:
                    self._note_exposed(place, counters)
                elif place in self._gone:  # else it is back
                    self._show(place, counters)

        if places or jobs:
            self._save(Changes(account, jobs=jobs), show)

    def keep(self, account: str, owner: Owner) -> None:
        """Go on with an owner's counters, if it is back before they are forgotten."""
        back = [place for place in self._places(account, owner) if place in self._gone]
        rows = []
        for place in back:
            del self._gone[place]
            counters = self._counters[place]
            rows.append((*place[1:], counters, frozenset(counters.totals)))
        if rows:  # the file has already forgotten those of a group
            self._save(Changes(account, counters=tuple(rows)), lambda: None)

    def save(self, changes: Changes) -> None:
        """Save changes that count nothing; even if there are none, the file notes the time."""
        self._save(changes, lambda: None)

    def saved(self, account: str) -> dict[tuple[Owner, str], Counters]:
        """All counters of an account, as they are saved."""
        return {place[1:]: known for place, known in self._counters.items() if place[0] == account}

    def flush(self) -> None:
        """Render what has changed in groups and accounts, and show what waited to be read."""
        self._release(SHOWN_AT_ONCE)
        dirty, self._dirty = self._dirty, {}
        for place, counters in dirty.items():
            if self._is_shown(place):
                self._put(place, counters)

    def count_as_read(self) -> None:
        """Take all that was exposed so far as read by every client."""
        for of_place in self._held.values():
            for held in of_place:
                held.since = -math.inf
        self._gone = dict.fromkeys(self._gone, -math.inf)
        self._unread = deque((-math.inf, place) for place in {*self._held, *self._gone})
        self._release(len(self._unread))

    def _release(self, most: int) -> None:
        """Show what was held until the 0 was read, and remove what is gone and was read."""
        read_until = self._scrapes.read_until(self._scrapes.now())
        due: dict[str, dict[Place, Counters]] = defaultdict(dict)
        forgotten: dict[str, list[Owner]] = defaultdict(list)
        for _ in range(min(len(self._unread), LOOKS * most)):
            since, place = self._unread[0]
            if since >= read_until or most <= 0:
                break
            self._unread.popleft()
            account, owner, _ = place
            if self._gone.get(place, NOT_YET) < read_until:
                self._remove(place)
                if not self._places(account, owner):
                    forgotten[account].append(owner)
                most -= 1
            elif (after := self._after_read(place, read_until)) is not None:
                due[account][place] = after
                most -= 1
        for account in {*due, *forgotten}:
            self._change(Changes(account, forgotten=tuple(forgotten[account])), due[account])

    def _after_read(self, place: Place, read_until: float) -> Counters | None:
        """The counters once what was exposed before `read_until` is read; None: the same."""
        held = self._held.get(place, [])
        read = [each for each in held if each.since < read_until]
        if not read:
            return None
        self._held[place] = held[len(read) :]
        if not self._held[place]:
            del self._held[place]
        before = self._counters[place]
        return Counters.of(before.totals, read[-1].totals) if before.is_behind else None

    def hide(self, account: str, owner: Owner, collector: str) -> None:
        """Stop showing these counters until something is counted again."""
        place = (account, owner, collector)
        if place in self._counters and place not in self._gone:
            self._hidden.add(place)
            for held in self._held.get(place, ()):
                held.since = NOT_YET
            self._exposition.remove(_table(place), identity_of(*place[:2]))

    def set_has_jobs(self, account: str, group: Owner, *, has_jobs: bool) -> None:
        """Note whether a group has jobs. A group without jobs makes room for others' series."""
        if has_jobs == ((account, group) in self._with_jobs):
            return
        (self._with_jobs.add if has_jobs else self._with_jobs.discard)((account, group))
        self.show_again(account, group)

    def show_all(self) -> None:
        """Show everything again, in an exposition that begins anew; all of it must be saved."""
        for place in sorted(self._counters, key=self._is_evictable):  # living jobs first
            self._show(place, self._counters[place])
        self.flush()

    def show_again(self, account: str, owner: Owner) -> None:
        """Show an owner's counters again, once all that was counted is saved."""
        for collector in self._collectors:
            place = (account, owner, collector)
            if self._is_shown(place):
                self._save(Changes(account), partial(self._show, place, self._counters[place]))

    def forget_account(self, account: str) -> None:
        """Show nothing of an account any more; what is saved stays."""
        for place in [place for place in self._counters if place[0] == account]:
            self._remove(place)
        self._with_jobs = {living for living in self._with_jobs if living[0] != account}

    async def all_saved(self) -> None:
        """Wait until all that was counted so far is saved and shown."""
        if self._journal is not None:
            done = asyncio.Event()
            self._journal.write(Changes(""), done.set)
            await done.wait()

    def _is_shown(self, place: Place) -> bool:
        return place in self._counters and place not in self._hidden

    def _places(self, account: str, owner: Owner) -> list[Place]:
        """The places of an owner, by collector."""
        places = [(account, owner, collector) for collector in self._collectors]
        return [place for place in places if place in self._counters]

    def _remove(self, place: Place) -> None:
        del self._counters[place]
        self._hidden.discard(place)
        self._held.pop(place, None)
        self._gone.pop(place, None)
        self._dirty.pop(place, None)
        self._exposition.remove(_table(place), identity_of(*place[:2]))

    def _is_evictable(self, place: Place) -> bool:
        account, owner, _ = place
        if place in self._gone:
            return True
        is_group = owner is not None and owner[0] == "job_group"
        return is_group and (account, owner) not in self._with_jobs

    def _save(self, changes: Changes, done: Callable[[], None]) -> None:
        if self._journal is None:
            done()
        else:
            self._journal.write(changes, done)

    def _show(self, place: Place, counters: Counters) -> None:
        # Saving took a while: the owner may be gone, or its values dropped as stale.
        if not self._is_shown(place):
            return
        if _outlives_jobs(place[1]):
            # Many jobs count there, and each time all of its series would be rendered.
            self._dirty[place] = counters
        else:
            self._put(place, counters)

    def _put(self, place: Place, counters: Counters) -> None:
        identity, is_evictable = identity_of(*place[:2]), self._is_evictable(place)
        # The account's limit may leave it out. Of what is gone nothing more can be read then.
        if self._exposition.put(_table(place), identity, counters, evictable=is_evictable):
            self._note_exposed(place, counters)
        elif place in self._gone:
            self._note_exposed(place, self._counters[place])

    def _note_exposed(self, place: Place, counters: Counters) -> None:
        """Note since when each client can read these counters."""
        now = self._scrapes.now()
        is_unread = False
        for held in self._held.get(place, ()):
            # These may be older counters, without the new series: saving takes a while.
            if held.since == NOT_YET and len(held.totals) <= len(counters.exposed):
                held.since, is_unread = now, True
        is_last = counters is self._counters[place] and not counters.is_behind
        if is_last and self._gone.get(place) == NOT_YET:
            self._gone[place], is_unread = now, True
        if is_unread:
            self._unread.append((now, place))


_NONE = Counters()


def _changed(before: Counters, after: Counters) -> frozenset[Key]:
    """The series of which the total, or what is shown of it, has changed."""
    return frozenset(
        key
        for key, value in after.totals.items()
        if before.totals.get(key) != value or before.exposed.get(key) != after.exposed[key]
    )


def _outlives_jobs(owner: Owner) -> bool:
    """Whether these are a group's or the account's own, which outlive the jobs."""
    return owner is None or owner[0] == "job_group"


def _table(place: Place) -> str:
    collector = place[2]
    if collector in OF_GROUPS:
        return collector
    return counters_of(collector) if collector else ACCOUNT_COUNTERS
