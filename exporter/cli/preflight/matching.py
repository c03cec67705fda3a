"""Which rule gets which job, and which rule takes jobs from which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from exporter.batch.models import Job
from exporter.config import Rule
from exporter.polling.selection import matches, watch
from exporter.state.watched_job import WatchedJob


@dataclass
class Share:
    """The jobs of one rule. `taken_by`: how many more it matches, by the number of who has them."""

    rule: Rule
    watched: list[WatchedJob] = field(default_factory=list)
    taken_by: Counter[int] = field(default_factory=Counter)

    @property
    def matches(self) -> int:
        """Jobs that it matches, whoever has them."""
        return len(self.watched) + self.taken_by.total()


def shares(rules: Sequence[Rule], jobs: Iterable[Job], now: float) -> list[Share]:
    """What each rule gets of the jobs at the time `now`: the first that matches a job has it."""
    found = [Share(rule) for rule in rules]
    latest = {job.id.lower(): job for job in jobs}
    for _, job in sorted(latest.items()):
        matching = [number for number, rule in enumerate(rules) if matches(rule, job, now)]
        for number in matching[:1]:
            found[number].watched.append(watch(job, rules[number]))
        for number in matching[1:]:
            found[number].taken_by[matching[0]] += 1
    return found
