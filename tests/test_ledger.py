"""Random histories of an account, polled at random moments, against what could be observed.

The observer here looks into the simulator's own objects whenever the exporter polls, and keeps sets
of what it saw; nothing of the exporter's folding is used.
"""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from exporter.simulator import SCENARIOS, Clock, Scenario, World, serve
from exporter.simulator.ledger import RunCompleted, TaskCompleted
from tests.killable import Exporter
from tests.truth import Series

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
WATCHED = {"active", "disabling", "disabled", "enabling", "terminating"}

Run = tuple[int, str, str, int]
"""(number of the job, node, kind, start)."""


@dataclass
class Observer:
    """What can be known by looking at the account at the moments of the polls."""

    world: World
    first_look: int | None = None
    asked: dict[int, Any] = field(default_factory=dict)
    runs: dict[Run, Any] = field(default_factory=dict)
    before: set[Run] = field(default_factory=set)
    counts: dict[int, tuple[int, int]] = field(default_factory=dict)
    grown: Counter[str] = field(default_factory=Counter)

    def look(self) -> None:
        """A round of polls."""
        if self.first_look is None:
            self.first_look = self.world.tick
            first = True
        else:
            first = False
        here = set(map(id, self.world.jobs.values()))
        selected = {job.number: job for job in self.world.jobs.values() if job.state in WATCHED}
        # A job that left is asked once more, if it still exists.
        last = {n: job for n, job in self.asked.items() if n not in selected and id(job) in here}
        for number, job in {**selected, **last}.items():
            is_new = job.created >= self.first_look and not first
            self._look_at(job, is_known=number in self.asked, is_new=is_new)
        self.asked = selected

    def _look_at(self, job: Any, *, is_known: bool, is_new: bool) -> None:
        counts = job.reported_task_counts
        now = (counts.succeeded, counts.failed)
        before = self.counts.get(job.number, (0, 0) if is_new else now)
        self.counts[job.number] = now
        for result, new, old in zip(("success", "failure"), now, before, strict=True):
            self.grown[result] += max(0, new - old)
        for record in job.records.values() if job.preparation is not None else ():
            for kind, run in (("preparation", record.preparation), ("release", record.release)):
                if run is None or run.state != "completed":
                    continue
                key = (job.number, record.node_id, kind, run.started)
                if not is_known and not is_new:
                    self.before.add(key)
                elif key not in self.before:
                    self.runs.setdefault(key, (run.result, run.failure))

    def expected(self) -> Series:
        """The counters of the account, and of the one group that all jobs are in."""
        account = {"account": "simulated"}
        series: Series = {}

        def add(name: str, value: float, **labels: str) -> None:
            series[f"azure_batch_{name}", frozenset({**account, **labels}.items())] = value

        for result, grown in self.grown.items():
            add("account_tasks_completed_total", grown, result=result)
            add("job_tasks_completed_total", grown, result=result, job_group="all")
        for kind in ("preparation", "release"):
            ended = [outcome for run, outcome in self.runs.items() if run[2] == kind]
            failures = [failure for result, failure in ended if result == "failure"]
            categories = Counter(failure.category.lower() for failure in failures)
            for category in ("usererror", "servererror", "unknown"):
                add(f"account_{kind}_tasks_failed_total", categories[category], category=category)
        return series


def completed_by_kind(shown: Series) -> Counter[tuple[str, str]]:
    """The group's completed runs, all pools together, by kind and result."""
    found: Counter[tuple[str, str]] = Counter()
    for (name, labels), value in shown.items():
        for kind in ("preparation", "release"):
            if name == f"azure_batch_job_{kind}_tasks_completed_total":
                found[kind, dict(labels)["result"]] += value  # type: ignore[assignment]
    return found


ODD = dataclasses.replace(
    SCENARIOS["steady"],
    warm_up=300.0,
    node_incident_interval=60.0,
    tasks_per_job=(5, 60),
    job_retention=(20.0, 90.0),
    job_recreate_share=0.3,
    shuffled_lists=True,
    repeat_share=0.3,
    task_deletion_interval=20.0,
    count_correction_interval=30.0,
    clock_skew=(-40.0, 40.0),
)

Step = tuple[float, str]
STEPS = st.lists(
    st.tuples(
        st.floats(min_value=0.5, max_value=200.0),
        st.sampled_from(["poll", "poll", "poll", "poll", "kill"]),
    ),
    min_size=3,
    max_size=14,
)


async def play(
    scenario: Scenario, seed: int, steps: Iterable[Step], resync: str, folder: Path, key: str
) -> None:
    world = World(scenario, seed=seed, jobs=5, nodes=8, start=START, ledger=True)
    clock = Clock(START, speed=0.0)
    async with serve(world, clock) as simulation:
        defaults = f"{{resync_interval: {resync}}}"

        def make(folder: Path, *, saves: bool) -> Exporter:
            return Exporter(
                simulation, clock, folder, ", group: all", saves=saves, defaults=defaults
            )

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(key, simulation.account_key)
            exporter = make(folder, saves=True)
            await exporter.start()
            observer = Observer(world)
            highest: Series = {}
            for seconds, what in [*steps, (0.0, "poll"), (0.0, "poll")]:
                clock.advance(seconds)
                world.advance(clock.now())
                if what == "kill":
                    await exporter.stop()
                    await exporter.start()
                observer.look()
                shown = await exporter.round()
                for series, value in highest.items():
                    assert shown[series] >= value, series
                highest = shown
            expected = observer.expected()
            assert {series: shown[series] for series in expected} == expected
            ended = Counter((run[2], outcome[0]) for run, outcome in observer.runs.items())
            assert +completed_by_kind(shown) == ended

            # The state that was read by changes is the one that a full listing gives.
            fresh = make(folder, saves=False)
            await fresh.start()
            await fresh.round()
            # What is counted, and when, each of the two has seen for itself. That a task was
            # deleted which did not run, no filter tells: it is there until the next full listing.
            own = ("_total", "_bucket", "_count", "_sum", "progress_timestamp_seconds")
            own += ("job_failed_tasks", "job_oldest_active_task_created_timestamp_seconds")
            kept, full = (
                {
                    key: value
                    for key, value in each.exposed().items()
                    if not key[0].endswith((*own, "success_timestamp_seconds"))
                }
                for each in (exporter, fresh)
            )
            wrong = {key: (kept.get(key), full.get(key)) for key, _ in kept.items() ^ full.items()}
            assert wrong == {}, wrong
            await fresh.stop()
            await exporter.stop()
        check_the_observer(world, observer)


def check_the_observer(world: World, observer: Observer) -> None:
    """What was seen is part of what truly happened."""
    true = {
        (event.job, event.node_id, event.kind, event.started): event.result
        for event in world.ledger.of(RunCompleted)
    }
    assert {run: result for run, (result, _) in observer.runs.items()}.items() <= true.items()


@pytest.mark.parametrize("resync", ["15m", "20s", "0s"])
@settings(
    max_examples=12,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # a history does not shrink in minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 10**6), steps=STEPS)
def test_completions_and_failures_counted_are_what_could_be_observed(
    resync: str, seed: int, steps: list[Step]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(ODD, seed, steps, resync, Path(folder), "SIMULATED_KEY"))


def test_who_looks_often_misses_nothing() -> None:
    """Polled every second, the counters are the ledger's own: no run and no task is missed."""

    async def main() -> None:
        world = World(SCENARIOS["steady"], seed=4, jobs=6, nodes=4, start=START, ledger=True)
        clock = Clock(START, speed=0.0)
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            async with serve(world, clock) as simulation:
                patch.setenv("SIMULATED_KEY", simulation.account_key)
                exporter = Exporter(simulation, clock, Path(folder), ", group: all", saves=False)
                await exporter.start()
                await exporter.round()
                since = world.tick
                for _ in range(120):
                    clock.advance(1.0)
                    await exporter.poll()
                await exporter.round()
                shown = await exporter.round()
                await exporter.stop()
        runs = Counter(
            (event.kind, event.result) for event in world.ledger.of(RunCompleted, since_tick=since)
        )
        assert completed_by_kind(shown) == runs
        tasks = Counter(event.result for event in world.ledger.of(TaskCompleted, since_tick=since))
        account = ("account", "simulated")
        for result in ("success", "failure"):
            labels = frozenset({account, ("result", result)})
            assert shown["azure_batch_account_tasks_completed_total", labels] == tasks[result]
        assert min(*tasks.values(), *runs.values()) > 0

    asyncio.run(main())
