"""When polls run: intervals, spreading, overruns, concurrency. All in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest

from exporter.batch.budget import TICK
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
        async def run(_: Key) -> float | None:
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

EVEN_ENOUGH = 1.25
"""Most polls in a second, by the average: moments that a hash chooses are no more even."""


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
        scheduler.add(log.poll(("a",), 30.0, duration=7.0))

    log = run_for(200.0, main)
    first, second, *later = log.times(("a",))
    assert first == 0.0
    assert 15.0 <= second <= 45.1
    assert later == [second + 30.0 * number for number in range(1, len(later) + 1)]
    assert len(later) >= 4
    assert log.skipped == []
    assert set(log.lags) == {0.0}


def test_every_poll_runs_at_once_and_then_they_are_spread_over_the_interval() -> None:
    began_at = 17.34

    async def main(log: Log, scheduler: Scheduler) -> None:
        await asyncio.sleep(began_at)
        for number in range(JOBS):
            add_job(log, scheduler, number)

    log = run_for(17.4 + 4 * MINUTE, main)
    assert [time for time, _ in log.starts[: 2 * JOBS]] == [17.4] * 2 * JOBS
    first = {key: time for time, key in log.starts[: 2 * JOBS]}
    second = {key: time for time, key in log.starts[2 * JOBS : 4 * JOBS]}
    assert first.keys() == second.keys()
    gaps = [second[key] - first[key] for key in first]
    assert min(gaps) >= MINUTE / 2 and max(gaps) <= MINUTE * 3 / 2 + TICK
    for since in (17.4 + 1.5 * MINUTE, 17.4 + 2.5 * MINUTE):
        assert largest_second(log, since, since + MINUTE) < EVEN_ENOUGH
    turns = Counter(key for time, key in log.starts if 120.0 <= time < 120.0 + 2 * MINUTE)
    assert len(turns) == 2 * JOBS and set(turns.values()) == {2}


def test_polls_that_fall_due_within_a_tick_start_together() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        for number in range(1000):
            scheduler.add(log.poll((f"job-{number}",), 7.77))

    log = run_for(40.0, main)
    times = {time for time, _ in log.starts}
    assert all(time == round(time, 1) for time in times)
    assert len(times) < 400 < len(log.starts) / 10
    assert set(log.lags) == {0.0}


@pytest.mark.full
def test_polls_stay_spread_while_jobs_come_and_go() -> None:
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

    log = run_for(5 * MINUTE, main)
    assert largest_second(log, 3.5 * MINUTE, 4.5 * MINUTE) < EVEN_ENOUGH


@pytest.mark.full
def test_polls_of_an_account_that_shrank_are_spread_evenly_enough() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        for number in range(JOBS):
            add_job(log, scheduler, number)
        await asyncio.sleep(1.5 * MINUTE)
        for number in Random(1).sample(range(JOBS), JOBS // 2):
            remove_job(scheduler, number)

    assert largest_second(run_for(3 * MINUTE, main), 1.5 * MINUTE, 2.5 * MINUTE) < EVEN_ENOUGH


class Quiet:
    """Jobs of which nothing happens until a certain second; their polls are slowed down."""

    def __init__(self, log: Log, scheduler: Scheduler) -> None:
        self._log = log
        self._scheduler = scheduler
        self._until = dict.fromkeys(range(JOBS), 0.0)

    def add(self, number: int) -> None:
        for collector in COLLECTORS:
            noted = self._log.poll((collector, f"job-{number}"), MINUTE)

            async def run(key: Key, noted: Poll = noted) -> float | None:
                await noted.run(key)
                is_quiet = asyncio.get_running_loop().time() < self._until[number]
                return 2 * MINUTE if is_quiet else None

            self._scheduler.add(replace(noted, run=run))

    def turn(self, number: int, until: float) -> None:
        """A job that is quiet wakes up, another is quiet from now on."""
        self._until[number] = 0.0 if self._until[number] else until
        if not self._until[number]:
            for collector in COLLECTORS:
                self._scheduler.hasten((collector, f"job-{number}"))


@pytest.mark.full
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
        await asyncio.sleep(MINUTE / 2)
        for number in range(JOBS):  # all wake up at once
            quiet.turn(number, 0.0)

    log = run_for(6 * MINUTE, main)
    spread = [largest_second(log, since, since + MINUTE) for since in range(90, 330, 60)]
    assert max(spread) < EVEN_ENOUGH, spread


def test_polls_of_one_key_have_other_moments_in_schedulers_of_other_names() -> None:
    log = Log()

    async def main() -> None:
        schedulers = [Scheduler(4, log, f"account {number}") for number in range(10)]
        for scheduler in schedulers:
            scheduler.add(log.poll(("jobs",), 60.0))
        running = [asyncio.create_task(scheduler.run()) for scheduler in schedulers]
        await asyncio.sleep(90.1)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    virtual_time.run(main())
    assert len({time for time in log.times(("jobs",)) if time > 0.0}) == 10


def test_a_poll_that_outlasts_its_interval_skips_turns_and_never_overlaps_with_itself() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        scheduler.add(log.poll(("slow",), 10.0, duration=25.0))

    log = run_for(120.0, main)
    first, second, third, fourth, *_ = log.times(("slow",))
    assert first == 0.0
    assert 25.0 <= second <= 35.0
    assert (third, fourth) == (second + 30.0, second + 60.0)
    assert log.skipped[:3] == [2, 2, 2]


def test_no_more_polls_are_under_way_than_allowed_and_the_others_are_late() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        for number in range(6):
            scheduler.add(log.poll((str(number),), 60.0, duration=5.0))

    log = run_for(30.0, main, slots=2)
    assert log.most_under_way == 2
    assert [time for time, _ in log.starts] == [0.0, 0.0, 5.0, 5.0, 10.0, 10.0]
    assert log.lags == [0.0, 0.0, 5.0, 5.0, 10.0, 10.0]


def test_a_removed_poll_does_not_run_again_and_one_under_way_ends() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        scheduler.add(log.poll(("a",), 10.0, duration=4.0))
        scheduler.add(log.poll(("b",), 10.0))
        await asyncio.sleep(2.0)
        assert log.under_way == {("a",)}
        scheduler.remove(("a",))
        scheduler.remove(("unknown",))

    log = run_for(45.0, main)
    assert log.times(("a",)) == [0.0]
    assert log.under_way == set()
    first, second, *later = log.times(("b",))
    assert (first, later[:2]) == (0.0, [second + 10.0, second + 20.0])


@pytest.mark.parametrize("interval", [60.0, 20.0])
def test_a_poll_removed_while_it_runs_and_added_again_runs_when_that_run_has_ended(
    interval: float,
) -> None:
    """A job came under another rule while its long listing ran: both runs counted the same."""

    async def main(log: Log, scheduler: Scheduler) -> None:
        scheduler.add(log.poll(("a",), 60.0, duration=100.0))
        await asyncio.sleep(10.0)
        for _ in range(3):
            scheduler.remove(("a",))
            scheduler.add(log.poll(("a",), interval, duration=1.0))
            await asyncio.sleep(1.0)
        assert scheduler.waiting == 0  # it is not late

    log = run_for(250.0, main)  # `Log.poll` asserts that no poll overlaps with itself
    first, second, third, *_ = log.times(("a",))
    assert (first, second) == (0.0, 100.0)
    assert interval / 2 <= third - second <= interval * 3 / 2 + TICK
    assert set(log.lags) == {0.0}


def test_a_scheduler_ends_when_its_polls_have_ended_though_it_is_cancelled_twice() -> None:
    """What polls the same jobs after a reload must find no poll that still runs."""
    ended: list[float] = []

    async def main() -> None:
        async def run(_: Key) -> None:
            try:
                await asyncio.sleep(1e9)
            finally:
                await asyncio.sleep(5.0)
                ended.append(asyncio.get_running_loop().time())

        scheduler = Scheduler(4, Log())
        scheduler.add(Poll(("a",), 10.0, run))
        running = asyncio.create_task(scheduler.run())
        await asyncio.sleep(10.0)
        for _ in range(3):
            running.cancel()
            await asyncio.sleep(1.0)
        await asyncio.wait([running])
        assert running.cancelled()
        assert ended == [15.0]

    virtual_time.run(main())


def test_a_poll_that_raises_ends_the_scheduler_with_its_error() -> None:
    async def main() -> None:
        async def run(_: Key) -> None:
            raise RuntimeError("a defect")

        scheduler = Scheduler(4, Log())
        scheduler.add(Poll(("a",), 10.0, run))
        with pytest.raises(ExceptionGroup) as caught:
            await scheduler.run()
        assert caught.group_contains(RuntimeError, match="a defect")

    virtual_time.run(main())


def test_a_poll_of_which_a_part_is_cancelled_has_its_next_turn() -> None:
    times: list[float] = []

    async def main(_: Log, scheduler: Scheduler) -> None:
        async def run(_: Key) -> None:
            times.append(asyncio.get_running_loop().time())
            part = asyncio.get_running_loop().create_future()
            part.cancel()
            await part

        scheduler.add(Poll(("a",), 10.0, run))

    run_for(45.0, main)
    assert len(times) >= 4


def test_a_poll_that_is_not_run_at_once_has_its_turn_at_its_moment_in_the_interval() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        scheduler.add(log.poll(("a",), 30.0))
        await asyncio.sleep(100.0)
        for _ in range(50):
            scheduler.remove(("a",))
            scheduler.add(log.poll(("a",), 30.0), at_once=False)
            await asyncio.sleep(1.0)

    _, second, *later = run_for(200.0, main).times(("a",))
    assert later == [second + 30.0 * number for number in range(1, len(later) + 1)]
    assert len(later) >= 4


def test_a_poll_added_later_does_not_wait_for_those_before_it() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        scheduler.add(log.poll(("rare",), 3600.0))
        await asyncio.sleep(5.0)
        scheduler.add(log.poll(("new",), 60.0))

    log = run_for(20.0, main)
    assert log.times(("new",)) == [5.0]


def test_the_first_round_is_over_when_every_poll_ran_once_or_was_removed() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        scheduler.add(log.poll(("a",), 10.0, duration=2.0))
        scheduler.add(log.poll(("b",), 1000.0, duration=100.0))
        scheduler.add(log.poll(("ran before",), 1000.0), at_once=False)
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

        async def discover(_: Key) -> None:
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
        scheduler.add(log.poll(("endless",), 10.0, duration=1e9))

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
        scheduler.add(log.poll(("a",), 10.0))

    times = run_for(250.0, main).times(("a",))
    gaps = [round(later - before, 6) for before, later in pairwise(times)]
    assert 5.0 <= gaps[0] <= 15.0
    # Whole intervals, never less than one. The first time it may be sooner than it asked for.
    assert gaps[1] in (10.0, 20.0, 30.0)
    assert gaps[2:4] == [30.0, 30.0]
    assert gaps[4] in (10.0, 20.0, 30.0, 40.0, 50.0, 60.0)
    assert gaps[5:8] == [10.0] * 3


def test_a_poll_that_waits_for_long_can_be_hastened() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        log.waits = [1000.0]
        scheduler.add(log.poll(("a",), 10.0))
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
        scheduler.add(log.poll(("a",), 10.0, duration=8.0))
        await asyncio.sleep(5.0)
        scheduler.hasten(("a",))

    first, second, third, *_ = run_for(35.0, main).times(("a",))
    assert first == 0.0
    assert 8.0 <= second <= 15.0
    assert third == second + 10.0


def test_polls_that_defer_run_after_those_that_fall_due_later_but_not_for_ever() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        scheduler.add(log.poll(("blocks",), 1e6, duration=30.0))
        await asyncio.sleep(1.0)
        listing = log.poll(("listing",), 1e6, duration=1.0)
        scheduler.add(replace(listing, defer=15.0))
        for number in range(4):
            await asyncio.sleep(5.0)
            scheduler.add(log.poll((f"cheap-{number}",), 1e6, duration=1.0))

    log = run_for(60.0, main, slots=1)
    order = [key[0] for _, key in log.starts]
    assert order == ["blocks", "cheap-0", "cheap-1", "listing", "cheap-2", "cheap-3"]


def test_in_the_first_round_cheap_polls_run_before_listings() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        for number in range(100):
            listing = log.poll(("listing", str(number)), 300.0, duration=1.0)
            scheduler.add(replace(listing, defer=150.0))
            scheduler.add(log.poll(("counts", str(number)), 300.0, duration=1.0))

    log = run_for(60.0, main)
    kinds = [key[0] for _, key in log.starts[:200]]
    assert kinds == ["counts"] * 100 + ["listing"] * 100
