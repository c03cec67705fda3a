"""The request budget of an account, in virtual time."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from random import Random

import pytest

from exporter.batch.budget import DEFAULT_PAUSE, MAX_PAUSE, PROBE_INTERVAL, TICK, Budget
from exporter.batch.errors import Throttled
from tests import virtual_time


async def start_times(budget: Budget, count: int) -> list[float]:
    times: list[float] = []

    async def request() -> None:
        await budget.acquire(asyncio.get_running_loop().time() + 30.0)
        times.append(round(asyncio.get_running_loop().time(), 6))

    await asyncio.gather(*(request() for _ in range(count)))
    return times


def test_requests_start_at_the_rate_on_ticks() -> None:
    async def main() -> None:
        budget = Budget(4.0, lambda _: None)
        assert await start_times(budget, 6) == [0.0, 0.2, 0.4, 0.7, 0.9, 1.2]
        await asyncio.sleep(100.0)  # idle time is not saved up for a burst
        assert await start_times(budget, 3) == [101.2, 101.4, 101.6]

    virtual_time.run(main())


def test_requests_that_come_together_start_together_up_to_a_small_burst() -> None:
    async def main() -> None:
        budget = Budget(20.0, lambda _: None)
        assert await start_times(budget, 5) == [0.0] * 5
        await asyncio.sleep(10.0)
        times = Counter(await start_times(budget, 5 + 40))
        assert times.pop(10.0) == 5
        assert list(times) == [pytest.approx(10.0 + number / 10) for number in range(1, 21)]
        assert set(times.values()) == {2}

    virtual_time.run(main())


@pytest.mark.parametrize("rate", [0.7, 3.0, 20.0, 333.0])
def test_never_more_requests_start_than_the_rate_and_a_burst_permit(rate: float) -> None:
    burst = max(rate / 4, 1.0 + rate / 10)
    times: list[float] = []

    async def main() -> None:
        budget, chance = Budget(rate, lambda _: None), Random(1)

        async def request(after: float) -> None:
            await asyncio.sleep(after)
            await budget.acquire(1e9)
            times.append(asyncio.get_running_loop().time())

        await asyncio.gather(*(request(chance.uniform(0, 250 / rate)) for _ in range(500)))

    virtual_time.run(main())
    for first in range(0, 500, 7):
        for last in range(first, 500):
            most = (times[last] - times[first]) * rate + burst + 1e-3
            assert last - first + 1 <= most
    # And no fewer: there was always somebody who waited.
    assert times[-1] <= 500 / rate * 1.03 + TICK


def test_requests_start_in_the_order_in_which_they_came() -> None:
    order: list[int] = []

    async def main() -> None:
        budget = Budget(50.0, lambda _: None)

        async def request(number: int) -> None:
            await asyncio.sleep(number / 1000)
            await budget.acquire(1e9)
            order.append(number)

        await asyncio.gather(*(request(number) for number in range(100)))

    virtual_time.run(main())
    assert order == list(range(100))


def test_a_request_is_counted_once_though_pauses_come_while_it_waits() -> None:
    async def main() -> None:
        budget = Budget(10.0, lambda _: None)
        waiting = asyncio.create_task(start_times(budget, 20))
        for _ in range(5):
            await asyncio.sleep(0.35)
            budget.pause(2.0)
        assert len(await waiting) == budget.started == 20

    virtual_time.run(main())


def test_after_a_pause_the_requests_that_wait_start_at_the_rate() -> None:
    async def main() -> None:
        budget = Budget(20.0, lambda _: None)
        budget.pause(10.0)
        times = await start_times(budget, 9)
        assert times == [10.0, *[10.1] * 2, *[10.2] * 2, *[10.3] * 2, *[10.4] * 2]

    virtual_time.run(main())


@pytest.mark.parametrize(("rate", "pause"), [(1.0, 0.0), (0.2, 1.0), (20.0, 0.0)])
def test_pauses_that_are_short_let_no_request_more_start(rate: float, pause: float) -> None:
    async def main() -> int:
        budget = Budget(rate, lambda _: None)

        async def poll() -> None:
            while True:
                await budget.acquire(math.inf)
                await asyncio.sleep(0.02)
                budget.pause(pause)

        polls = [asyncio.create_task(poll()) for _ in range(16)]
        await asyncio.sleep(100.0)
        for each in polls:
            each.cancel()
        return budget.started

    burst = max(rate / 4, 1.0 + rate / 10)
    assert virtual_time.run(main()) <= 100.0 * rate + burst


def test_a_request_that_may_not_wait_so_long_fails_as_the_pause_begins() -> None:
    async def main() -> None:
        budget, loop = Budget(1.0, lambda _: None), asyncio.get_running_loop()
        await budget.acquire(0.0)
        short = asyncio.create_task(budget.acquire(30.0))
        long = asyncio.create_task(budget.acquire(100.0))
        await asyncio.sleep(0.5)
        budget.pause(60.0)
        with pytest.raises(Throttled, match="60 s of it are left"):
            await short
        assert loop.time() == 0.5
        await long
        assert loop.time() == pytest.approx(60.5, abs=0.11)
        assert budget.started == 2

    virtual_time.run(main())


def test_a_request_that_nobody_waits_for_any_more_takes_nothing_of_the_budget() -> None:
    async def main() -> None:
        budget = Budget(1.0, lambda _: None)
        await budget.acquire(0.0)
        given_up = [asyncio.create_task(budget.acquire(1e9)) for _ in range(10)]
        waiting = asyncio.create_task(start_times(budget, 1))
        await asyncio.sleep(0.5)
        for task in given_up:
            task.cancel()
        assert await waiting == [pytest.approx(0.9, abs=0.11)]
        assert budget.started == 2

    virtual_time.run(main())


def test_a_request_given_up_in_the_moment_of_its_start_takes_nothing_of_the_budget() -> None:
    async def main() -> None:
        budget, loop = Budget(1.0, lambda _: None), asyncio.get_running_loop()
        await budget.acquire(0.0)
        given_up = asyncio.create_task(budget.acquire(1e9))
        loop.call_at(0.9, lambda: loop.call_soon(given_up.cancel))
        await asyncio.wait([given_up])
        started = loop.time()
        await budget.acquire(1e9)
        assert (given_up.cancelled(), budget.started) == (True, 2)
        assert loop.time() - started < 0.2

    virtual_time.run(main())


def test_when_the_last_request_started_or_the_last_pause_ends() -> None:
    async def main() -> None:
        budget = Budget(1.0, lambda _: None)
        await asyncio.sleep(7.0)
        await budget.acquire(7.0)
        assert budget.active_at == 7.0
        budget.pause(100.0)
        assert budget.active_at == 107.0
        await budget.acquire(1e9)
        assert budget.active_at == pytest.approx(107.0, abs=0.11)
        assert budget.active_at == asyncio.get_running_loop().time()

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
    [(None, DEFAULT_PAUSE), (MAX_PAUSE, MAX_PAUSE), (1e12, PROBE_INTERVAL), (-5.0, 0.0)],
    ids=["not said", "long", "absurdly long", "in the past"],
)
def test_a_pause_is_bounded(asked: float | None, seconds: float) -> None:
    paused: list[float] = []

    async def main() -> None:
        Budget(10.0, paused.append).pause(asked)

    virtual_time.run(main())
    assert sum(paused) == seconds


def test_during_a_pause_of_hours_one_request_a_minute_is_tried() -> None:
    paused: list[float] = []
    times: list[float] = []

    async def poll(budget: Budget, patience: float) -> None:
        while True:
            with suppress(Throttled):
                await budget.acquire(asyncio.get_running_loop().time() + patience)
                times.append(asyncio.get_running_loop().time())
                if times[-1] < 200.0:
                    budget.pause(6 * 3600.0)
                elif times[-1] > 300.0:  # the one before was not answered
                    budget.succeeded()
            await asyncio.sleep(1.0)

    async def main() -> None:
        budget = Budget(10.0, paused.append)
        budget.pause(6 * 3600.0)
        budget.succeeded()  # a request that was on the way before it
        polls = [asyncio.create_task(poll(budget, patience)) for patience in (0.5, 30.0, 1e9)]
        await asyncio.sleep(400.0)
        for task in polls:
            task.cancel()

    virtual_time.run(main())
    early = [time for time in times if time < 330.0]
    assert len(early) == 5
    assert early[0] >= 60.0
    assert all(60.0 <= after - before <= 62.0 for before, after in pairwise(early))
    assert len(times) > 50  # the one that succeeded let the others go
    assert sum(paused) in (360.0, 420.0)


def test_a_pause_can_be_dropped() -> None:
    async def main() -> None:
        budget = Budget(10.0, lambda _: None)
        budget.pause(20.0)
        waiting = asyncio.create_task(start_times(budget, 1))
        await asyncio.sleep(5.0)
        budget.end_pause()
        assert await waiting == [pytest.approx(5.1, abs=0.11)]
        assert budget.pause_left == 0.0

    virtual_time.run(main())


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
