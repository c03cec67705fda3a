"""The account as the simulation's events see it: entities, time, chance, and what is to settle."""

from dataclasses import dataclass, field
from random import Random

from exporter.simulator.agenda import Agenda
from exporter.simulator.failure_texts import FAILURE_KINDS, FailureKind
from exporter.simulator.late_index import LateIndex
from exporter.simulator.ledger import Ledger
from exporter.simulator.model import Job, Node, Pool
from exporter.simulator.scenario import Scenario, Span, Weights
from exporter.simulator.ticks import SECOND


@dataclass(slots=True)
class State:
    """Everything an event may read or change.

    Events do not call each other across subjects: they note whom they concern in the `…_to_…`
    dictionaries (used as ordered sets, for the order must not depend on hashes), and the world
    settles those after each event.
    """

    scenario: Scenario
    random: Random
    agenda: Agenda
    wanted_jobs: int
    nodes_per_pool: int
    ledger: Ledger
    index: LateIndex
    oddities: Random
    jobs: dict[str, Job] = field(default_factory=dict)
    jobs_by_key: dict[str, Job] = field(default_factory=dict)
    """The same by their ids in lower case: the service compares ids without case."""
    pools: dict[str, Pool] = field(default_factory=dict)
    nodes_to_fill: dict[Node, None] = field(default_factory=dict)
    pools_to_fill: dict[Pool, None] = field(default_factory=dict)
    jobs_to_settle: dict[Job, None] = field(default_factory=dict)
    image_broken: bool = False
    scheduling_stopped: bool = False
    jobs_made: int = 0
    pools_made: int = 0

    @property
    def now(self) -> int:
        """The current tick."""
        return self.agenda.now

    def has_job(self, job: Job) -> bool:
        """Whether the account still lists this very job, and not another of its id."""
        return self.jobs.get(job.id) is job

    def between(self, span: Span) -> int:
        """Ticks drawn evenly from a pair of seconds."""
        low, high = span
        return int((low + (high - low) * self.random.random()) * SECOND)

    def around(self, median: float, spread: float) -> int:
        """Ticks drawn log-normally around a median in seconds."""
        return int(median * self.random.lognormvariate(0.0, spread) * SECOND)

    def chance(self, share: float) -> bool:
        """True in this share of calls."""
        return self.random.random() < share

    def pick(self, weights: Weights) -> str:
        """One of the names, by weight."""
        return self.random.choices(
            [name for name, _ in weights], [weight for _, weight in weights]
        )[0]

    def fails(self, share: float, kinds: Weights) -> FailureKind | None:
        """A way to fail, in this share of calls."""
        return FAILURE_KINDS[self.pick(kinds)] if self.chance(share) else None
