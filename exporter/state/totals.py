"""The counters of jobs, groups and accounts: added up here, saved, and only then shown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Protocol

from exporter.exposition.body import Exposition
from exporter.exposition.metric import Key
from exporter.state.account import Owner, identity_of
from exporter.state.counters import Counters, Increments
from exporter.state.saved import Changes, Saved, SavedJob
from exporter.state.table_names import ACCOUNT_COUNTERS, HISTOGRAMS, counters_of

ACCOUNT = ""
"""In place of a collector's name: the counters of an account are those of all collectors."""

Place = tuple[str, Owner, str]
"""(account, owner, collector)."""

HELD = 2
"""A new series of a group or account is shown as 0 for so many listings of the jobs.

Many jobs count there, so the next poll may come at once. Without this no scrape would see the 0.
"""


class Journal(Protocol):
    """Where changes are saved before they are shown."""

    def write(self, changes: Changes, done: Callable[[], None]) -> None:
        """Save, then call `done`; in the order of the calls."""


class Totals:
    """Running totals by account, owner and collector.

    `journal`: saves them; None: they are not saved. `zeros`: series that every account has from
    the start.
    """

    def __init__(
        self, exposition: Exposition, journal: Journal | None = None, zeros: Collection[Key] = ()
    ) -> None:
        self._zeros = zeros
        self._exposition = exposition
        self._journal = journal
        self._counters: dict[Place, Counters] = {}
        self._hidden: set[Place] = set()
        self._collectors: set[str] = set()
        """The collectors for which something was counted."""
        self._held: dict[Place, dict[Key, int]] = {}
        self._dirty: dict[Place, Counters] = {}
        self._with_jobs: set[tuple[str, Owner]] = set()
        """Groups that have jobs."""

    @property
    def is_saved(self) -> bool:
        """Whether changes are saved at all."""
        return self._journal is not None

    def add_account(self, account: str, saved: Saved) -> None:
        """An account's counters are there from the start, or go on where they stopped."""
        for (owner, collector), counters in saved.counters.items():
            place = (account, owner, collector)
            self._counters[place] = counters
            self._collectors.add(collector)
            if _outlives_jobs(owner):
                # Maybe no scrape has seen the 0 of the process before.
                zeros = [key for key, value in counters.exposed.items() if not value]
                self._held[place] = dict.fromkeys(zeros, HELD)
                self._show(place, counters)
            else:
                self._hidden.add(place)
        self.count(Changes(account), [(None, ACCOUNT, dict.fromkeys(self._zeros, 0))])

    def count(
        self, changes: Changes, increments: Iterable[tuple[Owner, str, Increments]] = ()
    ) -> None:
        """Add increments by owner and collector; save them with the changes they come from."""
        account = changes.account
        changed = []
        for owner, collector, amounts in increments:
            place = (account, owner, collector)
            before = self._counters.get(place, _NONE)
            # Most polls count nothing, and there may be many series to write and to render.
            grown = {k: n for k, n in amounts.items() if n or k not in before.totals}
            if not grown and not before.is_behind and self._is_shown(place):
                continue
            held = self._held.get(place, {})
            if _outlives_jobs(owner):
                new = dict.fromkeys((key for key in grown if key not in before.totals), HELD)
                held = self._held[place] = {**held, **new}
            after = before.add(grown, held)
            if after == before and self._is_shown(place):
                continue
            self._counters[place] = after
            self._collectors.add(collector)
            self._hidden.discard(place)
            keys = _changed(before, after) if self._journal is not None else frozenset()
            changed.append((owner, collector, after, keys))

        def show() -> None:
            for owner, collector, counters, _ in changed:
                self._show((account, owner, collector), counters)

        if changed or not changes.is_empty:
            self._save(replace(changes, counters=tuple(changed)), show)

    def forget(self, account: str, owner: Owner, jobs: Mapping[str, SavedJob | None]) -> None:
        """Forget an owner's counters, and save what `jobs` are from now on; None: forgotten too."""
        for collector in self._collectors:
            place = (account, owner, collector)
            if self._counters.pop(place, None) is not None:
                self._hidden.discard(place)
                self._held.pop(place, None)
                self._exposition.remove(_table(place), identity_of(*place[:2]))
        self.count(Changes(account, jobs=jobs, forgotten=(owner,)))

    def save(self, changes: Changes) -> None:
        """Save changes that count nothing; even if there are none, the file notes the time."""
        self._save(changes, lambda: None)

    def saved(self, account: str) -> dict[tuple[Owner, str], Counters]:
        """All counters of an account, as they are saved."""
        return {place[1:]: known for place, known in self._counters.items() if place[0] == account}

    def flush(self) -> None:
        """Render the counters of groups and accounts that have changed."""
        dirty, self._dirty = self._dirty, {}
        for place, counters in dirty.items():
            if self._is_shown(place):
                self._put(place, counters)

    def hide(self, account: str, owner: Owner, collector: str) -> None:
        """Stop showing these counters until something is counted again."""
        place = (account, owner, collector)
        if place in self._counters:
            self._hidden.add(place)
            self._exposition.remove(_table(place), identity_of(*place[:2]))

    def set_has_jobs(self, account: str, group: Owner, *, has_jobs: bool) -> None:
        """Note whether a group has jobs. A group without jobs makes room for others' series."""
        if has_jobs == ((account, group) in self._with_jobs):
            return
        (self._with_jobs.add if has_jobs else self._with_jobs.discard)((account, group))
        self.show_again(account, group)

    def catch_up(self, account: str) -> None:
        """Show the whole value of series that were shown as 0 for long enough."""
        due: list[tuple[Owner, str, Increments]] = []
        for place, held in self._held.items():
            if place[0] == account and held:
                self._held[place] = {key: turns - 1 for key, turns in held.items() if turns > 1}
                due.append((*place[1:], {}))
        self.count(Changes(account), due)

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
            del self._counters[place]
            self._hidden.discard(place)
            self._held.pop(place, None)
        self._with_jobs = {living for living in self._with_jobs if living[0] != account}

    async def all_saved(self) -> None:
        """Wait until all that was counted so far is saved and shown."""
        if self._journal is not None:
            done = asyncio.Event()
            self._journal.write(Changes(""), done.set)
            await done.wait()

    def _is_shown(self, place: Place) -> bool:
        return place in self._counters and place not in self._hidden

    def _is_evictable(self, place: Place) -> bool:
        account, owner, _ = place
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
        identity = identity_of(*place[:2])
        self._exposition.put(_table(place), identity, counters, evictable=self._is_evictable(place))


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
    if collector == HISTOGRAMS:
        return HISTOGRAMS
    return counters_of(collector) if collector else ACCOUNT_COUNTERS
