"""Which faults are active now, and on which requests they are played."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from random import Random
from types import MappingProxyType

from aiohttp import web

from exporter.simulator.faults.answers import close
from exporter.simulator.faults.catalogue import CATALOGUE
from exporter.simulator.faults.fault import JOB_OPERATIONS, Fault, Stage
from exporter.simulator.faults.outages import FAULT_SCENARIOS
from exporter.simulator.operations import OPERATIONS, Call
from exporter.simulator.server import Proceed

FAULTS: Mapping[str, Fault] = MappingProxyType({**FAULT_SCENARIOS, **CATALOGUE})
"""Everything that can be made active, by name."""


@dataclass(frozen=True)
class Rule:
    """A fault, and which requests it is for; ValueError where there can be none.

    `operation`: only requests of this one. `job_id`: only those on this job. `share`: of these,
    those that are hit, drawn by chance; None: as many as the fault itself says, mostly all.
    `count`: only so many of them, then no more.
    """

    name: str
    operation: str | None = None
    job_id: str | None = None
    share: float | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        """Check that the rule can ever apply."""
        _check_known("fault", self.name, FAULTS)
        if self.operation is not None:
            _check_known("operation", self.operation, OPERATIONS)
        if not self.operations:
            own = FAULTS[self.name].operations
            place = "on one job" if self.operation is None else f"on {self.operation}"
            both = " with a job_id" if self.operation is not None and self.job_id else ""
            raise ValueError(
                f"{self.name} cannot be played {place}{both}: it is for {', '.join(sorted(own))};"
                f" a job_id goes with {', '.join(sorted(JOB_OPERATIONS))}"
            )
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"share {self.share}: write a number above 0 and up to 1")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count {self.count}: write 1 or more, or leave it out")

    @property
    def operations(self) -> frozenset[str]:
        """Those on whose requests the fault may be played."""
        possible = FAULTS[self.name].operations
        if self.operation is not None:
            possible &= {self.operation}
        return possible if self.job_id is None else possible & JOB_OPERATIONS

    def is_for(self, call: Call) -> bool:
        """Whether it is a request of the kind."""
        if call.operation not in self.operations:
            return False
        return self.job_id is None or call.ids[0].lower() == self.job_id.lower()


def _check_known(kind: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        near = get_close_matches(name, known, 1)
        cure = f"did you mean {near[0]}?" if near else "GET /simulator/faults names all"
        raise ValueError(f"there is no {kind} {name}: {cure}")


class _Active:
    """A rule at work: the fault with what it remembers, and how often it may still be played."""

    def __init__(self, rule: Rule, stage: Stage) -> None:
        fault = FAULTS[rule.name]
        self.rule = rule
        self.share = fault.share if rule.share is None else rule.share
        self.left = rule.count
        self.play = fault.start(stage)


class Faults:
    """Plays the active faults; the first whose turn it is has the request for itself.

    An interceptor: pass it to `serve`. `played` counts by the faults' names, of `garbage` also
    what it drew. The same `seed` draws the same; `now` is what waves of throttling go by.
    `on_change` is called after others were set.
    """

    on_change: Callable[[], None] = staticmethod(lambda: None)

    def __init__(
        self, *rules: Rule, seed: int = 0, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.played: Counter[str] = Counter()
        self._seed = seed
        self._now = now
        self._random = Random()
        self._active: tuple[_Active, ...] = ()
        self.set(*rules)

    def set(self, *rules: Rule) -> None:
        """Make these the active ones, in place of all that were; chance begins anew."""
        self._random = Random(f"faults {self._seed}")
        stage = Stage(self._random, self._now, self.played)
        self._active = tuple(_Active(rule, stage) for rule in rules)
        self.on_change()

    def clear(self) -> None:
        """All is well again. A request that hangs already does so until its client gives up."""
        self.set()

    @property
    def active(self) -> tuple[Rule, ...]:
        """What is active, each with the share it has and the count that is left."""
        return tuple(
            replace(active.rule, share=active.share, count=active.left)
            for active in self._active
            if active.left != 0
        )

    async def __call__(
        self, request: web.Request, call: Call, proceed: Proceed
    ) -> web.StreamResponse:
        """Play a fault on the request, or let it pass."""
        active = self._next(call)
        if active is None:
            return await proceed()
        self.played[active.rule.name] += 1
        try:
            return await active.play(request, call, proceed)
        except ConnectionError:  # the client hung up on us, as it should on an endless body
            return close(request)

    def _next(self, call: Call) -> _Active | None:
        for active in self._active:
            if active.left == 0 or not active.rule.is_for(call):
                continue
            if active.share < 1 and self._random.random() >= active.share:
                continue
            if active.left is not None:
                active.left -= 1
            return active
        return None
