"""When polls run: intervals, spreading, overruns, concurrency. All in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from exporter.scheduler import Key, Poll, Scheduler
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
            await asyncio.sleep(duration)
            self.under_way.remove(key)
            return self.waits.pop(0) if self.waits else None

        return Poll(key, interval, run)

    def times(self, key: Key) -> list[float]:
        return [time for time, started in self.starts if started == key]


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


def test_first_polls_are_spread_evenly_over_the_interval() -> None:
    async def main(log: Log, scheduler: Scheduler) -> None:
        for number in range(1000):
            scheduler.add(log.poll(("task_counts", f"job-{number}"), 30.0))

    log = run_for(29.999, main)
    assert len(log.starts) == 1000
    thirds = [sum(low <= time < low + 10 for time, _ in log.starts) for low in (0, 10, 20)]
    assert all(280 < count < 390 for count in thirds), thirds


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
        log.waits = [None, 35.0, 60.0, 1.0, None]
        scheduler.add(log.poll(("a",), 10.0), at_once=True)

    log = run_for(140.0, main)
    # It is never sooner than the interval.
    assert log.times(("a",)) == [0.0, 10.0, 45.0, 105.0, 115.0, 125.0, 135.0]


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
