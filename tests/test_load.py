"""How busy polls are said to be."""

from __future__ import annotations

import asyncio

import pytest

from exporter.batch.budget import Budget
from exporter.polling.load import WINDOW, RequestRate
from exporter.polling.scheduler import Key, Poll, Scheduler
from tests.virtual_time import run


class Unobserved:
    def poll_started(self, lag: float) -> None: ...
    def polls_skipped(self, count: int) -> None: ...


async def nothing(_: Key) -> None: ...


def test_the_rate_is_that_of_the_last_minute() -> None:
    rate = RequestRate()
    assert rate.per_second == 0.0
    for second in range(10):
        rate.note(float(second), 100 * second)
    assert rate.per_second == pytest.approx(100.0)
    for second in range(10, 10 + WINDOW + 5):
        rate.note(float(second), 900)
    assert rate.per_second == 0.0


def test_a_budget_counts_the_requests_that_began_and_says_what_is_left_of_a_pause() -> None:
    async def play() -> None:
        budget = Budget(10.0, lambda _: None)
        for _ in range(5):
            await budget.acquire(100.0)
        assert (budget.started, budget.requests_per_second) == (5, pytest.approx(10.0))
        assert budget.pause_left == 0.0
        budget.pause(30.0)
        await asyncio.sleep(10.0)
        assert budget.pause_left == pytest.approx(20.0)
        await asyncio.sleep(100.0)
        assert budget.pause_left == 0.0

    run(play())


def test_the_timetable_says_what_it_asks_for_and_what_waits() -> None:
    async def stuck(_: Key) -> None:
        await asyncio.sleep(1000.0)

    async def play() -> None:
        scheduler = Scheduler(1, Unobserved())
        scheduler.add(Poll(("stuck",), 10.0, stuck))
        for number in range(4):
            scheduler.add(Poll((str(number),), 20.0, nothing), at_once=False)
        assert scheduler.polls_per_second == pytest.approx(0.1 + 4 * 0.05)
        assert scheduler.waiting == 1
        running = asyncio.create_task(scheduler.run())
        await asyncio.sleep(15.0)
        before = scheduler.waiting
        scheduler.remove(("3",))
        await asyncio.sleep(25.0)
        assert 0 < before <= scheduler.waiting == 3
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run(play())
