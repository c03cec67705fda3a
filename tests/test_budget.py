"""The request budget of an account, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from exporter.batch.budget import DEFAULT_PAUSE, MAX_PAUSE, Budget
from exporter.batch.errors import Throttled
from tests import virtual_time


async def start_times(budget: Budget, count: int) -> list[float]:
    times: list[float] = []

    async def request() -> None:
        await budget.acquire(asyncio.get_running_loop().time() + 30.0)
        times.append(round(asyncio.get_running_loop().time(), 6))

    await asyncio.gather(*(request() for _ in range(count)))
    return times


def test_requests_start_evenly_spread_and_never_faster_than_the_rate() -> None:
    async def main() -> None:
        budget = Budget(4.0, lambda _: None)
        assert await start_times(budget, 5) == [0.0, 0.25, 0.5, 0.75, 1.0]
        await asyncio.sleep(100.0)  # idle time is not saved up for a burst
        assert await start_times(budget, 3) == [101.0, 101.25, 101.5]

    virtual_time.run(main())


def test_a_pause_holds_back_every_request_and_is_counted_once() -> None:
    paused: list[float] = []

    async def main() -> None:
        budget = Budget(10.0, paused.append)
        budget.pause(20.0)
        budget.pause(5.0)  # ends earlier: nothing new
        await asyncio.sleep(10.0)
        budget.pause(15.0)  # five seconds more than already asked
        assert min(await start_times(budget, 3)) == 25.0
        assert paused == [20.0, 5.0]

    virtual_time.run(main())


def test_a_pause_that_comes_while_a_request_waits_for_its_turn_holds_it_back() -> None:
    async def main() -> None:
        budget = Budget(1.0, lambda _: None)
        waiting = asyncio.create_task(start_times(budget, 2))
        await asyncio.sleep(0.5)
        budget.pause(10.0)
        times = await waiting
        assert times[0] == 0.0
        assert times[1] >= 10.5

    virtual_time.run(main())


def test_a_request_does_not_wait_longer_than_it_may() -> None:
    async def main() -> None:
        budget = Budget(10.0, lambda _: None)
        budget.pause(31.0)
        with pytest.raises(Throttled, match="31 s of it are left"):
            await budget.acquire(asyncio.get_running_loop().time() + 30.0)
        await asyncio.sleep(2.0)
        assert await start_times(budget, 1) == [31.0]

    virtual_time.run(main())


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [(None, DEFAULT_PAUSE), (1e12, MAX_PAUSE), (-5.0, 0.0)],
    ids=["not said", "absurdly long", "in the past"],
)
def test_a_pause_is_bounded(asked: float | None, seconds: float) -> None:
    paused: list[float] = []

    async def main() -> None:
        Budget(10.0, paused.append).pause(asked)

    virtual_time.run(main())
    assert sum(paused) == seconds


def test_of_a_service_that_is_down_few_requests_are_repeated() -> None:
    budget = Budget(10.0, lambda _: None)
    assert [budget.may_retry() for _ in range(25)] == [True] * 20 + [False] * 5
    for _ in range(8):
        budget.succeeded()
    assert [budget.may_retry() for _ in range(2)] == [True, False]
    for _ in range(1000):
        budget.succeeded()
    assert sum(budget.may_retry() for _ in range(100)) == 20


def test_another_rate_holds_from_then_on_and_a_pause_goes_on() -> None:
    async def main() -> None:
        budget = Budget(1.0, lambda _: None)
        budget.pause(10.0)
        budget.set_rate(2.0)
        assert await start_times(budget, 3) == [10.0, 10.5, 11.0]

    virtual_time.run(main())
