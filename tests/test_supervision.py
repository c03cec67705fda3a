"""A defect in the program's own machinery is contained, counted and shown, and work goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from exporter import config
from exporter.exposition.body import Format
from exporter.polling.poller import AccountPoller
from exporter.polling.scheduler import Poll, Scheduler
from exporter.service import supervision
from exporter.service.service import STUCK_AFTER, Service, _Polled, open_service
from exporter.service.supervision import RESTART_AFTER, supervised
from exporter.web.app import build_app
from exporter.web.server.listener import listen
from tests import virtual_time
from tests.fake_batch import FakeBatch
from tests.test_scheduler import Log


def test_what_ends_begins_anew_and_is_told() -> None:
    begun: list[float] = []
    told: list[str] = []

    async def run() -> None:
        begun.append(asyncio.get_running_loop().time())
        if len(begun) == 1:
            raise RuntimeError("a defect")
        if len(begun) > 2:
            await asyncio.sleep(1e9)

    async def main() -> None:
        task = asyncio.create_task(supervised("it", run, told.append))
        await asyncio.sleep(100)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    virtual_time.run(main())
    assert begun == [0.0, RESTART_AFTER, 2 * RESTART_AFTER]
    assert told == ["it", "it"]


@pytest.fixture
def make_service(batch: FakeBatch, make_config: Callable[..., config.Config]) -> Callable[[], Any]:
    """A service of one account with one job."""
    batch.json("/jobs", {"value": [{"id": "a", "state": "active"}]})
    batch.json("/jobs/a/taskcounts", {"taskCounts": {"active": 1}})
    defaults = {"interval": "1s", "collect": ["task_counts"]}
    return lambda: open_service(make_config(batch.endpoint, defaults=defaults, pool_nodes=False))


async def test_a_scheduler_that_breaks_is_replaced_and_polls_go_on(
    make_service: Callable[[], Any], batch: FakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "RESTART_AFTER", 0.05)
    breaks = iter([False, False, True])
    start_due = Scheduler._start_due

    def broken(self: Scheduler, runs: asyncio.TaskGroup) -> None:
        if next(breaks, False):
            raise RuntimeError("a defect")
        start_due(self, runs)

    monkeypatch.setattr(Scheduler, "_start_due", broken)
    async with make_service() as service:
        running = asyncio.create_task(service.run())
        while sum(request.path == "/jobs/a/taskcounts" for request in batch.requests) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.1)  # the second poll ends
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        own = service.telemetry.text(Format.TEXT, 0).decode()
        shown = service.exposition.body(Format.TEXT).plain.decode()
    assert 'azure_batch_exporter_internal_errors_total{where="account myaccount"} 1' in own
    assert sum(request.path == "/jobs/a/taskcounts" for request in batch.requests) >= 2
    assert 'azure_batch_job_tasks{account="myaccount",job_id="a",state="active"} 1' in shown


def test_since_when_nothing_began_though_something_was_due() -> None:
    log = Log()

    async def main() -> None:
        scheduler = Scheduler(1, log)
        running = asyncio.create_task(scheduler.run())
        assert scheduler.idle_since is None
        scheduler.add(log.poll(("rare",), 10_000.0, duration=0.0))
        await asyncio.sleep(500)
        assert scheduler.idle_since is None  # nothing is due
        scheduler.add(log.poll(("endless",), 1e6, duration=1e9))
        await asyncio.sleep(100)
        scheduler.add(Poll(("waits",), 1e6, lambda _: running.get_coro()))  # type: ignore[arg-type, return-value]
        await asyncio.sleep(50)
        assert scheduler.idle_since == 600.0
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    virtual_time.run(main())


async def test_an_account_that_is_stuck_is_not_healthy(
    make_service: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_service() as service:
        running = asyncio.create_task(service.run())
        await asyncio.sleep(0.1)
        assert (await ask(service)) == (200, "Healthy.\n")
        monkeypatch.setattr(AccountPoller, "stuck_for", STUCK_AFTER + 1)
        assert (await ask(service)) == (
            503,
            "Not healthy: account myaccount: no poll has begun for 301 s though some are due.\n",
        )
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def ask(service: Service) -> tuple[int, str]:
    server = await listen(build_app(service, "/metrics"), (("127.0.0.1", 0),))
    try:
        async with (
            aiohttp.ClientSession(server.urls[0]) as session,
            session.get("/-/healthy") as answer,
        ):
            return answer.status, await answer.text()
    finally:
        await server.close()


async def test_accounts_are_closed_at_once_and_not_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closing: list[str] = []
    real = _Polled.stop
    all_are = asyncio.Event()

    async def stop(polled: _Polled) -> None:
        closing.append(polled.wanted.account.name)
        if len(closing) == 20:
            all_are.set()
        await asyncio.wait_for(all_are.wait(), 100)
        await real(polled)

    accounts = [
        {"name": f"account-{number}", "endpoint": f"https://{number}.example"}
        for number in range(20)
    ]
    made = config.Config.model_validate({"accounts": accounts})
    async with open_service(made):
        monkeypatch.setattr(_Polled, "stop", stop)
    assert len(closing) == 20
