"""The counters of jobs, groups and accounts: added up here, saved, and only then shown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from exporter.exposition.body import Exposition
from exporter.exposition.metric import Identity, Key
from exporter.state.account import identity_of
from exporter.state.counters import Counters, Increments
from exporter.state.failures import JobFailure
from exporter.state.journal import Changes, Owner, Saved, SavedJob
from exporter.state.table_names import ACCOUNT_COUNTERS, HISTOGRAMS, counters_of

ACCOUNT = ""
"""In place of a collector's name: the counters of an account are those of all collectors."""

Place = tuple[str, Owner, str]
"""(account, owner, collector)."""

HELD = 2
"""Catch-ups until a new series of a group or account is shown with more than 0.

It is of many jobs, so the next poll may come at once, and no scrape would have seen the 0. From one
listing of the jobs to the next there is time for a scrape.
"""


class Journal(Protocol):
    """Where changes are saved before they are shown."""

    def write(self, changes: Changes, done: Callable[[], None]) -> None:
        """Save, then call `done`; in the order of the calls."""


class Totals:
    """Running totals by account, owner and collector.

    `journal`: None: nothing is saved. `zeros`: series that every account has from the start.
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
        """All that anything was counted for."""
        self._held: dict[Place, dict[Key, int]] = {}
        self._dirty: dict[Place, Counters] = {}

    @property
    def is_saved(self) -> bool:
        """Whether what jobs were is of use to anybody."""
        return self._journal is not None

    def add_account(self, account: str, saved: Saved) -> None:
        """An account's counters are there from the start, or go on where they stopped."""
        for (owner, collector), counters in saved.counters.items():
            self._counters[account, owner, collector] = counters
            self._collectors.add(collector)
            if _is_lasting(owner):
                # Whether anybody saw the 0 of an earlier process is not known.
                zeros = [key for key, value in counters.exposed.items() if not value]
                self._held[account, owner, collector] = dict.fromkeys(zeros, HELD)
                self._show((account, owner, collector), counters)
            else:
                self._hidden.add((account, owner, collector))
        self.count(account, [(None, ACCOUNT, dict.fromkeys(self._zeros, 0))])

    def count(
        self,
        account: str,
        increments: Iterable[tuple[Owner, str, Increments]],
        *,
        jobs: Mapping[str, SavedJob | None] | None = None,
        failures: Sequence[JobFailure] = (),
        watched_since: float | None = None,
    ) -> None:
        """Add increments by owner and collector; save them with what they were counted from."""
        changed = []
        for owner, collector, amounts in increments:
            place = (account, owner, collector)
            before = self._counters.get(place, _NONE)
            # Most polls count nothing, and there may be many series to write and to render.
            news = {k: n for k, n in amounts.items() if n or k not in before.totals}
            if not news and not before.is_behind and self._is_shown(place):
                continue
            held = self._held.get(place, {})
            if _is_lasting(owner):
                new = dict.fromkeys((key for key in news if key not in before.totals), HELD)
                held = self._held[place] = {**held, **new}
            after = before.add(news, held)
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

        if changed or jobs or watched_since is not None:
            counters = tuple(changed)
            changes = Changes(account, watched_since, counters, jobs or {}, failures=failures)
            self._save(changes, show)

    def save_jobs(self, account: str, jobs: Mapping[str, SavedJob | None]) -> None:
        """Save what is known of jobs, nothing having been counted."""
        self._save(Changes(account, jobs=jobs), lambda: None)

    def forget(self, account: str, owner: Owner, jobs: Mapping[str, SavedJob | None]) -> None:
        """An owner's counters are gone, and with them what these jobs were."""
        for collector in self._collectors:
            place = (account, owner, collector)
            if self._counters.pop(place, None) is not None:
                self._hidden.discard(place)
                self._exposition.remove(_table(place), _identity(place))
        self._save(Changes(account, jobs=jobs, forgotten=(owner,)), lambda: None)

    def flush(self) -> None:
        """Render the counters of groups and accounts that have changed."""
        dirty, self._dirty = self._dirty, {}
        for place, counters in dirty.items():
            self._exposition.put(_table(place), _identity(place), counters)

    def hide(self, account: str, owner: Owner, collector: str) -> None:
        """Do not show these until something is counted again."""
        place = (account, owner, collector)
        if place in self._counters:
            self._hidden.add(place)
            self._exposition.remove(_table(place), _identity(place))

    def catch_up(self, account: str) -> None:
        """Show in full what was new when this was called last, and is there for long enough now."""
        due: list[tuple[Owner, str, Increments]] = []
        for place, held in self._held.items():
            if place[0] == account and held:
                self._held[place] = {key: turns - 1 for key, turns in held.items() if turns > 1}
                due.append((*place[1:], {}))
        self.count(account, due)

    def show_all(self) -> None:
        """Show everything again, in an exposition that begins anew."""
        for place in [place for place in self._counters if self._is_shown(place)]:
            self._show(place, self._counters[place])
        self.flush()

    def forget_account(self, account: str) -> None:
        """Show nothing of an account any more; what is saved stays."""
        for place in [place for place in self._counters if place[0] == account]:
            del self._counters[place]
            self._hidden.discard(place)
            self._dirty.pop(place, None)

    async def settled(self) -> None:
        """Wait until all that was counted so far is saved and shown."""
        if self._journal is not None:
            done = asyncio.Event()
            self._journal.write(Changes(""), done.set)
            await done.wait()

    def _is_shown(self, place: Place) -> bool:
        return place in self._counters and place not in self._hidden

    def _save(self, changes: Changes, done: Callable[[], None]) -> None:
        if self._journal is None:
            done()
        else:
            self._journal.write(changes, done)

    def _show(self, place: Place, counters: Counters) -> None:
        # Saving took a while: the owner may be gone, or its values dropped as stale.
        if not self._is_shown(place):
            return
        if _is_lasting(place[1]):
            # Many jobs count there, and each time all of its series would be rendered.
            self._dirty[place] = counters
        else:
            self._exposition.put(_table(place), _identity(place), counters)


_NONE = Counters()


def _changed(before: Counters, after: Counters) -> frozenset[Key]:
    """The series that are other than before, in what they are or in what is shown of them."""
    known, shown = before.totals, before.exposed
    exposed = after.exposed
    return frozenset(
        key
        for key, value in after.totals.items()
        if known.get(key) != value or shown.get(key) != exposed[key]
    )


def _is_lasting(owner: Owner) -> bool:
    """Whether these are a group's or the account's own, which outlive the jobs."""
    return owner is None or owner[0] == "job_group"


def _table(place: Place) -> str:
    collector = place[2]
    if collector == HISTOGRAMS:
        return HISTOGRAMS
    return counters_of(collector) if collector else ACCOUNT_COUNTERS


def _identity(place: Place) -> Identity:
    return identity_of(*place[:2])
