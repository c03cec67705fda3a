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
from aiohttp import web
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from exporter.simulator import SCENARIOS, Call, Clock, Proceed, Scenario, World, serve
from exporter.simulator.ledger import RunCompleted, TaskCompleted, TaskRequeued, TaskRetried
from tests.killable import Exporter
from tests.mishaps import DAYS, FILE, MISHAPS, Mishaps
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
    job_terminate_share=0.2,
    job_delete_active_share=0.2,
    job_recreate_share=0.4,
    job_recreate_case_share=0.2,
    job_recreate_twice_share=0.4,
    auto_pool_failure_share=0.3,
    shuffled_lists=True,
    repeat_share=0.3,
    page_size=10,
    task_deletion_interval=20.0,
    count_lag=2.0,
    count_correction_interval=30.0,
    clock_skew=(-40.0, 40.0),
    index_lag=8.0,
)

SHORT = dataclasses.replace(
    ODD,
    tasks_per_job=(1, 6),
    task_median=5.0,
    later_tasks_share=0.0,
    preparation_median=2.0,
    release_median=1.0,
    job_retention=(2.0, 60.0),
    job_delete_active_after=(2.0, 20.0),
    job_recreate_share=0.7,
    job_storm_interval=(40.0, 120.0),
    job_storm_size=(3, 12),
)
"""Jobs of seconds, and storms of them."""

AGAIN = dataclasses.replace(
    ODD,
    tasks_per_job=(5, 20),
    task_median=6.0,
    preparation_median=3.0,
    node_incident_interval=30.0,
    job_retention=(0.5, 10.0),
    job_deletion=(0.2, 1.0),
    job_delete_active_share=0.8,
    job_delete_active_after=(2.0, 60.0),
    job_recreate_share=1.0,
    job_recreate_case_share=0.3,
)
"""Jobs that their users delete and make again, so that one id is now this job's, now that one's."""

HISTORIES = {"odd": ODD, "short jobs": SHORT, "made again": AGAIN}

Step = tuple[float, str | int, str]
"""Seconds to wait; what comes then: `poll`; `blind`, a poll in which the jobs are not listed;
`restart`, and a poll; or a poll in which the process is killed when it has written so many changes,
which without a state file is a restart; and what goes wrong meanwhile, one of MISHAPS or nothing.
"""

STEPS = st.lists(
    st.tuples(
        st.floats(min_value=0.5, max_value=20.0) | st.floats(min_value=0.5, max_value=200.0),
        st.sampled_from(["poll", "poll", "poll", "blind", "blind", "restart"])
        | st.integers(min_value=0, max_value=40),
        st.sampled_from(["", "", "", *MISHAPS]),
    ),
    min_size=3,
    max_size=14,
)


def counters(shown: Series) -> Series:
    return {
        key: value
        for key, value in shown.items()
        if key[0].endswith(COUNTED) and "jobs_ended" not in key[0] and "scheduling" not in key[0]
    }


def difference(shown: Series, expected: Series, most: Series | None = None) -> dict[Any, Any]:
    """What is shown and what should be, of each series where the two differ.

    `most`: what may be at most, where that is more. Sums of durations may differ by rounding.
    """
    most = expected if most is None else most
    return {
        key: (shown.get(key), expected.get(key), most.get(key))
        for key in shown.keys() | expected.keys()
        if (key not in shown or shown[key] < expected.get(key, 0) - 1e-3)
        or (key not in most or shown[key] > most[key] + 1e-3)
    }


@dataclasses.dataclass
class Play:
    """An account, an exporter that polls it, and an observer that stands between them."""

    world: World
    clock: Clock
    exporter: Exporter
    mishaps: Mishaps
    observer: Observer
    saves: bool
    highest: Series = dataclasses.field(default_factory=dict)

    async def step(self, seconds: float, what: str | int, mishap: str = "") -> None:
        self.clock.advance(seconds)
        self.world.advance(self.clock.now())
        restarts = what == "restart" or isinstance(what, int)
        begins = self.observer.first_listing is None or (restarts and not self.saves)
        if begins and mishap in DAYS:
            mishap = ""  # the exporter corrects that by the time that passes, and here none does
        self.mishaps.begin(mishap)
        removes = self.saves and mishap == FILE
        if isinstance(what, int) and self.saves:
            written = await self.exporter.poll_and_die(what)
            self.observer.end_round(Written.of(written))
            if removes:
                self.exporter.remove_file()
                self.forget()
            await self.exporter.start()
            return
        if restarts:
            await self.exporter.stop()
            if removes:
                self.exporter.remove_file()
            if removes or not self.saves:
                self.forget()
            await self.exporter.start()
        elif removes:
            self.exporter.remove_file()
        await self.exporter.round(lists_jobs=what != "blind")
        if removes:
            await self.exporter.file_works()
        self.observer.end_round()
        self.check_round()

    def forget(self) -> None:
        """All is forgotten: what came before the next look is not new."""
        self.highest = {}
        known = self.observer
        self.observer = Observer(known.world, known.mishaps, known.resync_interval, known.group)

    def check_round(self) -> None:
        shown = counters(self.exporter.exposed())
        fell = {
            key: (value, shown.get(key))
            for key, value in self.highest.items()
            if shown.get(key, -1) < value
        }
        assert fell == {}, fell
        too_high = {
            key: (value, self.observer.may.get(key))
            for key, value in shown.items()
            if value > self.observer.may.get(key, 0) + 1e-3
        }
        assert too_high == {}, too_high
        self.highest = shown


async def play(
    scenario: Scenario,
    seed: int,
    steps: Iterable[Step],
    resync: float,
    folder: Path,
    *,
    saves: bool,
) -> None:
    world = World(scenario, seed=seed, jobs=5, nodes=8, start=START, ledger=True)
    clock = Clock(START, speed=0.0)
    mishaps = Mishaps(seed)
    story: Play

    async def look(request: web.Request, call: Call, proceed: Proceed) -> web.StreamResponse:
        return await story.observer(request, call, proceed)

    async with serve(world, clock, interceptors=(look, mishaps), simulated_date=True) as simulation:

        def make(*, saves: bool) -> Exporter:
            defaults = f"{{resync_interval: {resync:g}s}}"
            return Exporter(
                simulation, clock, folder, ", group: all", saves=saves, defaults=defaults
            )

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SIMULATED_KEY", simulation.account_key)
            exporter = make(saves=saves)
            observer = Observer(world, mishaps, resync, "all")
            story = Play(world, clock, exporter, mishaps, observer, saves)
            await exporter.start()
            for step in steps:
                await story.step(*step)
            world.index._lag = 0  # it has learnt of everything
            if any(mishap == "missing" for *_, mishap in steps):
                await story.step(resync, "poll")  # what was missing is found by a full listing
            for _ in range(2):  # what appears in the first round is shown in full with the second
                await story.step(0.0, "poll")
            must, may = story.observer.must, story.observer.may
            # A pool is known by its job, too, of which maybe nothing else was read.
            shown = {
                key: value
                for key, value in counters(exporter.exposed()).items()
                if value or key in must
            }
            wrong = difference(shown, must, may)
            assert wrong == {}, wrong
            fresh = make(saves=False)
            story.observer = Observer(world, mishaps, resync, "all")
            await fresh.start()
            await fresh.round()
            compare_states(exporter.exposed(), fresh.exposed(), read_by_changes=resync > 0)
            await fresh.stop()
            await exporter.stop()
        observer.check()


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
        for key, (before, now, _) in list(wrong.items()):
            if before is not None and (
                (key[0] == failed and before > (now or 0))
                or (key[0] == oldest and (now is None or before < now))
            ):
                del wrong[key]
    assert wrong == {}, wrong


@pytest.mark.parametrize("resync", [900.0, 20.0, 0.0])
@settings(
    max_examples=settings().max_examples // 3,  # a history takes half a second
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # a history does not shrink in minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    scenario=st.sampled_from([*HISTORIES]),
    seed=st.integers(0, 10**6),
    steps=STEPS,
    saves=st.booleans(),
)
def test_counters_are_what_could_be_observed(
    resync: float, scenario: str, seed: int, steps: list[Step], saves: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(HISTORIES[scenario], seed, steps, resync, Path(folder), saves=saves))


def test_who_looks_often_misses_nothing() -> None:
    """Polled every second, the counters are the ledger's own: no run and no task is missed."""

    async def main() -> None:
        world = World(SCENARIOS["steady"], seed=4, jobs=6, nodes=4, start=START, ledger=True)
        clock = Clock(START, speed=0.0)
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            async with serve(world, clock, simulated_date=True) as simulation:
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
