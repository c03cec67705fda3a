"""When polls run: intervals, spreading, overruns, concurrency. All in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest

from exporter.polling.scheduler import Key, Poll, Scheduler
from tests import virtual_time


class Log:
    """What a scheduler told and what its polls did, with the time of each."""

    def __init__(self) -> None:
        self.lags: list[float] = []
        self.skipped: list[int] = []
        self.starts: list[tuple[float, Key]] = []
        self.under_way: set[Key] = set()
        self.most_under_way = 0
        self.waits: list[float | None] = []

    def poll_started(self, lag: float) -> None:
        self.lags.append(lag)

    def polls_skipped(self, count: int) -> None:
        self.skipped.append(count)

    def poll(self, key: Key, interval: float, duration: float = 0.0) -> Poll:
        async def run() -> float | None:
            assert key not in self.under_way, "a poll overlaps with itself"
            self.starts.append((asyncio.get_running_loop().time(), key))
            self.under_way.add(key)
            self.most_under_way = max(self.most_under_way, len(self.under_way))
            if duration:
                await asyncio.sleep(duration)
            self.under_way.remove(key)
            return self.waits.pop(0) if self.waits else None

        return Poll(key, interval, run)

    def times(self, key: Key) -> list[float]:
        return [time for time, started in self.starts if started == key]


JOBS = 10_000
COLLECTORS = ("task_counts", "preparation_release")
MINUTE = 60.0


def largest_second(log: Log, since: float, until: float) -> float:
    """The most polls that started in any second, by how many do on average."""
    times = sorted(time for time, _ in log.starts if since <= time < until)
    first = most = 0
    for last, time in enumerate(times):
        while times[first] <= time - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most / (len(times) / (until - since))


def add_job(log: Log, scheduler: Scheduler, number: int) -> None:
    for collector in COLLECTORS:
        scheduler.add(log.poll((collector, f"job-{number}"), MINUTE))


def remove_job(scheduler: Scheduler, number: int) -> None:
    for collector in COLLECTORS:
        scheduler.remove((collector, f"job-{number}"))


def run_for(
    seconds: float, main: Callable[[Log, Scheduler], Awaitable[None]], slots: int = 4
) -> Log:
    """Let a scheduler run so long, set up by `main`."""
    log = Log()

    async def run() -> None:
        scheduler = Scheduler(slots, log)
        running = asyncio.create_task(scheduler.run())
        await main(log, scheduler)
        await asyncio.sleep(seconds - asyncio.get_running_loop().time())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    virtual_time.run(run())
    return log


def test_a_poll_runs_at_its_interval_without_drift() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        scheduler.add(log.poll(("a",), 30.0, duration=7.0), at_once=True)

    log = run_for(100.0, main)
    assert log.times(("a",)) == [0.0, 30.0, 60.0, 90.0]
    assert log.skipped == []
    assert log.lags == [0.0] * 4


def test_polls_are_spread_evenly_from_the_first_second_on() -> None:
    began_at = 17.3

    async def main(log: Log, scheduler: Scheduler) -> None:
        await asyncio.sleep(began_at)
        for number in range(JOBS):
            add_job(log, scheduler, number)

    log = run_for(began_at + 2 * MINUTE, main)
    for minute in (0.0, MINUTE):
        since = began_at + minute
        assert largest_second(log, since, since + MINUTE) < 1.02
    turns = Counter(key for _, key in log.starts)
    assert len(turns) == 2 * JOBS and set(turns.values()) == {2}


def test_a_few_polls_are_spread_evenly_too() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        for number in range(7):
            scheduler.add(log.poll((f"job-{number}",), 70.0))

    times = sorted(time for time, _ in run_for(70.0, main).starts)
    gaps = [later - before for before, later in pairwise((*times, times[0] + 70.0))]
    assert min(gaps) > 5.0 and max(gaps) < 17.0, gaps


def test_polls_stay_spread_evenly_while_jobs_come_and_go() -> None:
    chance = Random(1)

    async def main(log: Log, scheduler: Scheduler) -> None:
        alive = list(range(JOBS))
        for number in alive:
            add_job(log, scheduler, number)
        for _ in range(12):
            await asyncio.sleep(10.0)
            chance.shuffle(alive)
            for number in alive[: JOBS // 5]:
                remove_job(scheduler, number)
            newest = max(alive)
            new = range(newest + 1, newest + 1 + JOBS // 5)
            for number in new:
                add_job(log, scheduler, number)
            alive = [*alive[JOBS // 5 :], *new]

    log = run_for(3 * MINUTE, main)
    during = largest_second(log, 0.0, 2 * MINUTE)
    after = largest_second(log, 2 * MINUTE + 1.0, 3 * MINUTE)
    assert (during < 1.2, after < 1.02) == (True, True), (during, after)


def test_polls_of_an_account_that_shrank_are_spread_evenly_enough() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        for number in range(JOBS):
            add_job(log, scheduler, number)
        await asyncio.sleep(MINUTE)
        for number in Random(1).sample(range(JOBS), JOBS // 2):
            remove_job(scheduler, number)

    assert largest_second(run_for(2 * MINUTE, main), MINUTE, 2 * MINUTE) < 1.2


class Quiet:
    """Jobs of which nothing happens until a certain second; their polls are slowed down."""

    def __init__(self, log: Log, scheduler: Scheduler) -> None:
        self._log = log
        self._scheduler = scheduler
        self._until = dict.fromkeys(range(JOBS), 0.0)

    def add(self, number: int) -> None:
        for collector in COLLECTORS:
            noted = self._log.poll((collector, f"job-{number}"), MINUTE)

            async def run(noted: Poll = noted) -> float | None:
                await noted.run()
                is_quiet = asyncio.get_running_loop().time() < self._until[number]
                return 2 * MINUTE if is_quiet else None

            self._scheduler.add(replace(noted, run=run))

    def turn(self, number: int, until: float) -> None:
        """A job that is quiet wakes up, another is quiet from now on."""
        self._until[number] = 0.0 if self._until[number] else until
        if not self._until[number]:
            for collector in COLLECTORS:
                self._scheduler.hasten((collector, f"job-{number}"))


def test_polls_that_slow_down_and_are_hastened_stay_spread_evenly() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        quiet, chance = Quiet(log, scheduler), Random(1)
        for number in range(JOBS):
            quiet.add(number)
        for number in range(0, JOBS, 3):
            quiet.turn(number, 4 * MINUTE)
        await asyncio.sleep(2 * MINUTE)
        for _ in range(12):
            await asyncio.sleep(10.0)
            for number in chance.sample(range(JOBS), 200):
                quiet.turn(number, 4 * MINUTE)
        for number in range(JOBS):  # all wake up at once
            quiet.turn(number, 0.0)

    log = run_for(5 * MINUTE, main)
    spread = [largest_second(log, since, since + MINUTE) for since in range(0, 300, 60)]
    assert spread[0] < 1.02 and max(spread[1:4]) < 1.2 and spread[4] < 1.02, spread


def test_schedulers_side_by_side_do_not_begin_with_the_same_moment() -> None:
    log = Log()

    async def main() -> None:
        schedulers = [Scheduler(4, log, number / 10) for number in range(10)]
        for number, scheduler in enumerate(schedulers):
            scheduler.add(log.poll((f"job-{number}",), 10.0))
        running = [asyncio.create_task(scheduler.run()) for scheduler in schedulers]
        await asyncio.sleep(10.0)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    virtual_time.run(main())
    assert len(log.starts) == 10
    assert largest_second(log, 0.0, 10.0) <= 2.0


def test_a_poll_that_outlasts_its_interval_skips_turns_and_never_overlaps_with_itself() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        scheduler.add(log.poll(("slow",), 10.0, duration=25.0), at_once=True)

    log = run_for(80.0, main)
    assert log.times(("slow",)) == [0.0, 30.0, 60.0]
    assert log.skipped == [2, 2]


def test_no_more_polls_are_under_way_than_allowed_and_the_others_are_late() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        for number in range(6):
            scheduler.add(log.poll((str(number),), 60.0, duration=5.0), at_once=True)

    log = run_for(30.0, main, slots=2)
    assert log.most_under_way == 2
    assert [time for time, _ in log.starts] == [0.0, 0.0, 5.0, 5.0, 10.0, 10.0]
    assert log.lags == [0.0, 0.0, 5.0, 5.0, 10.0, 10.0]


def test_a_removed_poll_does_not_run_again_and_one_under_way_ends() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        scheduler.add(log.poll(("a",), 10.0, duration=4.0), at_once=True)
        scheduler.add(log.poll(("b",), 10.0), at_once=True)
        await asyncio.sleep(12.0)
        assert log.under_way == {("a",)}
        scheduler.remove(("a",))
        scheduler.remove(("unknown",))

    log = run_for(45.0, main)
    assert log.times(("a",)) == [0.0, 10.0]
    assert log.under_way == set()
    assert log.times(("b",)) == [0.0, 10.0, 20.0, 30.0, 40.0]


def test_a_poll_added_later_does_not_wait_for_those_before_it() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        scheduler.add(log.poll(("rare",), 3600.0), at_once=True)
        await asyncio.sleep(5.0)
        scheduler.add(log.poll(("new",), 60.0), at_once=True)

    log = run_for(20.0, main)
    assert log.times(("new",)) == [5.0]


def test_the_first_round_is_over_when_every_poll_ran_once_or_was_removed() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        scheduler.add(log.poll(("a",), 10.0, duration=2.0), at_once=True)
        scheduler.add(log.poll(("b",), 1000.0))
        await asyncio.sleep(5.0)
        assert not scheduler.first_round_done
        scheduler.remove(("b",))
        assert scheduler.first_round_done
        scheduler.add(log.poll(("later",), 1000.0))
        assert scheduler.first_round_done  # once over, it stays over

    run_for(6.0, main)


def test_one_round_runs_every_poll_once_and_those_added_meanwhile() -> None:
    log = Log()

    async def main() -> None:
        scheduler = Scheduler(2, log)

        async def discover() -> None:
            for number in range(5):
                scheduler.add(log.poll((f"job-{number}",), 30.0, duration=1.0))

        scheduler.add(Poll(("jobs",), 60.0, discover))
        await scheduler.run_once()
        assert scheduler.first_round_done

    virtual_time.run(main())
    assert sorted(key for _, key in log.starts) == [(f"job-{number}",) for number in range(5)]
    assert log.most_under_way == 2


def test_cancelling_the_scheduler_cancels_the_polls_under_way() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        scheduler.add(log.poll(("endless",), 10.0, duration=1e9), at_once=True)

    log = run_for(1000.0, main)
    assert log.starts == [(0.0, ("endless",))]


@pytest.mark.parametrize("count", [2, 5])
def test_the_same_keys_give_the_same_timetable(count: int) -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        for number in range(count):
            scheduler.add(log.poll((f"job-{number}",), 30.0))

    assert run_for(100.0, main).starts == run_for(100.0, main).starts


def test_a_poll_may_say_when_its_next_turn_is() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        log.waits = [None, 35.0, 35.0, 35.0, 60.0, 1.0, None]
        scheduler.add(log.poll(("a",), 10.0), at_once=True)

    log = run_for(150.0, main)
    # Whole intervals, never less than one. The first time it may be sooner than it asked for.
    assert log.times(("a",)) == [0.0, 10.0, 30.0, 60.0, 90.0, 110.0, 120.0, 130.0, 140.0]


def test_a_poll_that_waits_for_long_can_be_hastened() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        log.waits = [1000.0]
        scheduler.add(log.poll(("a",), 10.0), at_once=True)
        await asyncio.sleep(50.0)
        scheduler.hasten(("a",))
        scheduler.hasten(("a",))  # it is on its way: nothing is gained
        scheduler.hasten(("unknown",))

    log = run_for(75.0, main)
    first, second, third, *_ = log.times(("a",))
    assert first == 0.0
    assert 50.0 <= second < 60.0
    assert third == second + 10.0


def test_a_poll_under_way_is_not_hastened_beside_itself() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        scheduler.add(log.poll(("a",), 10.0, duration=8.0), at_once=True)
        await asyncio.sleep(5.0)
        scheduler.hasten(("a",))

    assert run_for(25.0, main).times(("a",)) == [0.0, 10.0, 20.0]


def test_those_with_patience_let_others_go_first_but_not_for_ever() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        scheduler.add(log.poll(("blocks",), 1e6, duration=30.0), at_once=True)
        await asyncio.sleep(1.0)
        listing = log.poll(("listing",), 1e6, duration=1.0)
        scheduler.add(replace(listing, patience=15.0), at_once=True)
        for number in range(4):
            await asyncio.sleep(5.0)
            scheduler.add(log.poll((f"cheap-{number}",), 1e6, duration=1.0), at_once=True)

    log = run_for(60.0, main, slots=1)
    order = [key[0] for _, key in log.starts]
    assert order == ["blocks", "cheap-0", "cheap-1", "listing", "cheap-2", "cheap-3"]
