"""A job's task counts: as they are, and as the service answers them where it is late or wrong."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from exporter.simulator.agenda import Agenda

ACTIVE, RUNNING, SUCCEEDED, FAILED = range(4)


@dataclass(frozen=True, slots=True)
class Counts:
    """Tasks, or their slots, by state; `running` includes preparing."""

    active: int
    running: int
    succeeded: int
    failed: int

    @property
    def completed(self) -> int:
        """Succeeded and failed together."""
        return self.succeeded + self.failed


_NONE = (0, 0, 0, 0)


@dataclass(slots=True, eq=False)
class Report:
    """What is answered as a job's counts: `lag` ticks old, and too high by `excess`."""

    agenda: Agenda
    lag: int
    excess: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    """By state, as in Counts. An excess task has one slot."""
    _changes: deque[tuple[int, Sequence[int], Sequence[int]]] = field(default_factory=deque)

    def note(self, tally: Sequence[int], slots: Sequence[int]) -> None:
        """These are the counts from now on."""
        now = self.agenda.now
        if self._changes and self._changes[-1][0] == now:
            self._changes.pop()
        self._changes.append((now, tuple(tally), tuple(slots)))
        self._forget()

    def tasks(self) -> Counts:
        """The answer now, by tasks."""
        return self._answer(1)

    def slots(self) -> Counts:
        """The answer now, by slots."""
        return self._answer(2)

    def _answer(self, which: int) -> Counts:
        self._forget()
        known: Sequence[int] = _NONE
        if self._changes and self._changes[0][0] <= self.agenda.now - self.lag:
            known = self._changes[0][1] if which == 1 else self._changes[0][2]
        return Counts(*(count + more for count, more in zip(known, self.excess, strict=True)))

    def _forget(self) -> None:
        """Drop what not even a late answer shows any more."""
        changes, until = self._changes, self.agenda.now - self.lag
        while len(changes) > 1 and changes[1][0] <= until:
            changes.popleft()
