"""The index behind a list's `$filter`, which learns of a change only some time after it."""

from collections import deque
from copy import copy
from dataclasses import replace

from exporter.simulator.agenda import Agenda
from exporter.simulator.model import NodeRecord, Task


class LateIndex:
    """What tasks and records were `lag` ticks ago; only those that changed since are held.

    A list without a filter on times does not ask it and shows every change at once.
    """

    def __init__(self, agenda: Agenda, lag: int) -> None:
        """Start with nothing known; with no lag nothing ever is."""
        self._agenda = agenda
        self._lag = lag
        self._changes: deque[tuple[int, Task | NodeRecord]] = deque()
        self._earlier: dict[object, deque[tuple[int, Task | NodeRecord | None]]] = {}

    @property
    def late(self) -> bool:
        """Whether it ever shows anything but what is."""
        return self._lag > 0

    def before_change(self, entity: Task | NodeRecord) -> None:
        """Remember the entity, which is about to change."""
        if self._lag and not self._changed_now(entity):
            self._remember(entity, _copied(entity))

    def after_creation(self, entity: Task | NodeRecord) -> None:
        """Remember that the entity was not there before now."""
        if self._lag:
            self._remember(entity, None)

    def seen(self, entity: object) -> object | None:
        """The entity as a filter sees it now: itself or an earlier copy; None if not at all."""
        self._forget()
        earlier = self._earlier.get(entity)
        return entity if earlier is None else earlier[0][1]

    def _changed_now(self, entity: Task | NodeRecord) -> bool:
        earlier = self._earlier.get(entity)
        return earlier is not None and earlier[-1][0] == self._agenda.now

    def _remember(self, entity: Task | NodeRecord, before: Task | NodeRecord | None) -> None:
        self._forget()
        self._changes.append((self._agenda.now, entity))
        self._earlier.setdefault(entity, deque()).append((self._agenda.now, before))

    def _forget(self) -> None:
        """The index has learnt of every change that is older than the lag."""
        changes, until = self._changes, self._agenda.now - self._lag
        while changes and changes[0][0] <= until:
            _, entity = changes.popleft()
            earlier = self._earlier[entity]
            earlier.popleft()
            if not earlier:
                del self._earlier[entity]


def _copied(entity: Task | NodeRecord) -> Task | NodeRecord:
    if isinstance(entity, Task):
        return copy(entity)
    release = entity.release
    return replace(
        entity,
        preparation=copy(entity.preparation),
        release=None if release is None else copy(release),
    )
