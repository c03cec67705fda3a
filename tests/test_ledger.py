"""Random histories of an account, polled at random moments, against what could be observed."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from exporter.simulator import SCENARIOS, Clock, World, serve
from exporter.simulator.ledger import RunCompleted, TaskCompleted, TaskRequeued, TaskRetried
from tests.killable import Exporter
from tests.observer import Observer, Written
from tests.truth import Series

START = datetime(2026, 6, 1, 12, tzinfo=UTC)

COUNTED = ("_total", "_bucket", "_count", "_sum")
"""How the names of counters' series end."""

ODD = dataclasses.replace(
    SCENARIOS["steady"],
    warm_up=300.0,
    node_incident_interval=60.0,
    tasks_per_job=(5, 60),
    task_failure_share=0.2,
    preparation_share=0.9,
    preparation_failure_share=0.4,
    preparation_retries=(0, 3),
    wait_for_success_share=0.5,
    release_failure_share=0.2,
    job_retention=(20.0, 90.0),
    job_recreate_share=0.3,
    shuffled_lists=True,
    repeat_share=0.3,
    page_size=10,
    task_deletion_interval=20.0,
    count_lag=2.0,
    count_correction_interval=30.0,
    clock_skew=(-40.0, 40.0),
    index_lag=8.0,
)

Step = tuple[float, str | int]
"""Seconds to wait, and what comes then: `poll`; `restart`, and a poll; or a poll in which the
process is killed when it has written so many changes, which without a state file is a restart."""

STEPS = st.lists(
    st.tuples(
        st.floats(min_value=0.5, max_value=200.0),
        st.sampled_from(["poll", "poll", "poll", "poll", "poll", "restart"])
        | st.integers(min_value=0, max_value=40),
    ),
    min_size=3,
    max_size=14,
)


def counters(shown: Series) -> Series:
    return {key: value for key, value in shown.items() if key[0].endswith(COUNTED)}


def difference(shown: Series, expected: Series) -> dict[Any, Any]:
    """What is shown and what should be, of each series where the two differ.

    Sums of durations may differ by rounding.
    """
    return {
        key: (shown.get(key), expected.get(key))
        for key in shown.keys() | expected.keys()
        if key not in shown or key not in expected or abs(shown[key] - expected[key]) > 1e-3
    }


@dataclasses.dataclass
class Play:
    """An account, an exporter that polls it, and an observer that looks when it does."""

    world: World
    clock: Clock
    exporter: Exporter
    observer: Observer
    saves: bool
    highest: Series = dataclasses.field(default_factory=dict)

    async def step(self, seconds: float, what: str | int) -> None:
        self.clock.advance(seconds)
        self.world.advance(self.clock.now())
        if isinstance(what, int) and self.saves:
            written = await self.exporter.poll_and_die(what)
            if written:  # since when the account is watched is written first of all
                self.observer.look(Written.of(written))
            await self.exporter.start()
            return
        if what != "poll":
            await self.exporter.stop()
            await self.exporter.start()
            if not self.saves:
                # All is forgotten: what came before the next look is not new.
                self.highest = {}
                self.observer = Observer(self.world, self.observer.resync_interval)
        self.observer.look()
        await self.exporter.round()
        shown = counters(self.exporter.exposed())
        fell = {
            key: (value, shown.get(key))
            for key, value in self.highest.items()
            if shown.get(key, -1) < value
        }
        assert fell == {}, fell
        self.highest = shown


async def play(
    seed: int, steps: Iterable[Step], resync: float, folder: Path, *, saves: bool
) -> None:
    world = World(ODD, seed=seed, jobs=5, nodes=8, start=START, ledger=True)
    clock = Clock(START, speed=0.0)
    async with serve(world, clock) as simulation:

        def make(*, saves: bool) -> Exporter:
            defaults = f"{{resync_interval: {resync:g}s}}"
            return Exporter(
                simulation, clock, folder, ", group: all", saves=saves, defaults=defaults
            )

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SIMULATED_KEY", simulation.account_key)
            exporter = make(saves=saves)
            await exporter.start()
            story = Play(world, clock, exporter, Observer(world, resync), saves)
            for seconds, what in steps:
                await story.step(seconds, what)
            world.index._lag = 0  # it has learnt of everything
            for _ in range(2):  # what appears in the first round is shown in full with the second
                await story.step(0.0, "poll")
            wrong = difference(counters(exporter.exposed()), story.observer.series)
            assert wrong == {}, wrong
            fresh = make(saves=False)
            await fresh.start()
            await fresh.round()
            compare_states(exporter.exposed(), fresh.exposed(), read_by_changes=resync > 0)
            await fresh.stop()
            await exporter.stop()
        story.observer.check()


def compare_states(kept: Series, full: Series, *, read_by_changes: bool) -> None:
    """The state that was read by changes is the one that a full listing gives."""
    # When something was last seen, each of the two knows for itself.
    own = (*COUNTED, "progress_timestamp_seconds", "success_timestamp_seconds")
    failed = "azure_batch_job_failed_tasks"
    oldest = "azure_batch_job_oldest_active_task_created_timestamp_seconds"
    wrong = {
        key: values for key, values in difference(kept, full).items() if not key[0].endswith(own)
    }
    if read_by_changes:
        # That a task was deleted which did not run, no filter tells: until the next full listing
        # it still waits or has failed.
        for key, (before, now) in list(wrong.items()):
            if before is not None and (
                (key[0] == failed and before > (now or 0))
                or (key[0] == oldest and (now is None or before < now))
            ):
                del wrong[key]
    assert wrong == {}, wrong


@pytest.mark.parametrize("resync", [900.0, 20.0, 0.0])
@settings(
    max_examples=settings().max_examples // 10,  # a history takes half a second
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # a history does not shrink in minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 10**6), steps=STEPS, saves=st.booleans())
def test_counters_are_what_could_be_observed(
    resync: float, seed: int, steps: list[Step], saves: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(seed, steps, resync, Path(folder), saves=saves))


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
        completed: Counter[tuple[str, str]] = Counter()  # in all pools together
        for (name, labels), value in shown.items():
            for kind in ("preparation", "release"):
                if name == f"azure_batch_job_{kind}_tasks_completed_total":
                    completed[kind, dict(labels)["result"]] += int(value)
        assert completed == runs
        tasks = Counter(event.result for event in world.ledger.of(TaskCompleted, since_tick=since))
        account = ("account", "simulated")
        for result in ("success", "failure"):
            labels = frozenset({account, ("result", result)})
            assert shown["azure_batch_account_tasks_completed_total", labels] == tasks[result]
        retries, requeues = (
            len(world.ledger.of(kind, since_tick=since)) for kind in (TaskRetried, TaskRequeued)
        )
        group = frozenset({account, ("job_group", "all")})
        assert shown["azure_batch_job_task_retries_total", group] == retries
        assert shown["azure_batch_job_task_requeues_total", group] == requeues
        assert min(*tasks.values(), *runs.values(), retries, requeues) > 0

    asyncio.run(main())
