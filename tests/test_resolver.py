"""A look-up of a name that hangs holds up nothing but the requests that need the name."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from threading import Event, Semaphore
from typing import Any

import pytest

from exporter.batch import errors
from exporter.batch.auth import SharedKeyAuth
from exporter.batch.budget import Budget
from exporter.batch.client import BatchClient
from exporter.batch.resolver import NameResolver
from exporter.batch.session import Session
from exporter.batch.transport import Transport
from tests.conftest import Observed
from tests.fake_batch import FakeBatch


class Hanging:
    """A getaddrinfo that hangs until it is released, and then says that all names are ours."""

    def __init__(self) -> None:
        self.released = Event()
        self._called = Semaphore(0)
        self.calls = 0

    async def wait_for_calls(self, count: int) -> None:
        """Wait until so many more look-ups have begun."""
        for _ in range(count):
            await asyncio.to_thread(self._called.acquire)

    def __call__(self, _host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        self.calls += 1
        self._called.release()
        self.released.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


def client_of(
    stack: AsyncExitStack, endpoint: str, hanging: Hanging, timeout: float
) -> BatchClient:
    transport = Transport(
        http=Session(endpoint, resolver=NameResolver(hanging)),
        auth=SharedKeyAuth("a", lambda: b"key"),
        budget=Budget(1000.0, lambda _: None),
        observer=Observed(),
        request_timeout=timeout,
    )
    stack.push_async_callback(transport.close)
    return BatchClient(endpoint, "2024-07-01.20.0", transport)


@pytest.fixture
async def hanging() -> AsyncIterator[Hanging]:
    found = Hanging()
    yield found
    found.released.set()


async def test_a_name_that_is_not_found_in_time_costs_its_own_account_a_timeout(
    hanging: Hanging, batch: FakeBatch
) -> None:
    batch.json("/jobs/j", {"id": "j"})
    async with AsyncExitStack() as stack:
        other = client_of(stack, batch.endpoint, hanging, 60.0)
        # As many as the default executor can have threads.
        names = [f"http://account-{number}.invalid:1" for number in range(40)]
        accounts = [client_of(stack, name, hanging, 0.1) for name in names]
        asked = [asyncio.ensure_future(account.get_job("j")) for account in accounts * 2]
        await hanging.wait_for_calls(len(accounts))
        assert (await other.get_job("j")).id == "j"
        for result in await asyncio.gather(*asked, return_exceptions=True):
            assert type(result) is errors.RequestTimeout
        assert (await other.get_job("j")).id == "j"
    assert hanging.calls == len(accounts)  # requests of one account wait for one look-up
    assert not hanging.released.is_set()


async def test_a_name_that_is_found_at_last_serves_the_next_request(
    hanging: Hanging, batch: FakeBatch
) -> None:
    batch.json("/jobs/j", {"id": "j"})
    endpoint = batch.endpoint.replace("127.0.0.1", "account.invalid")
    async with AsyncExitStack() as stack:
        impatient = client_of(stack, endpoint, hanging, 0.05)
        with pytest.raises(errors.RequestTimeout):
            await impatient.get_job("j")
        hanging.released.set()
        while True:
            try:
                assert (await impatient.get_job("j")).id == "j"
            except errors.RequestTimeout:
                continue
            break
    assert hanging.calls == 1


async def test_a_name_without_addresses_is_an_error_of_dns() -> None:
    def nothing(*_: Any, **__: Any) -> list[tuple[Any, ...]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    session = Session("https://account.invalid", resolver=NameResolver(nothing))
    with pytest.raises(socket.gaierror, match="Name or service not known"):
        await session.get("https://account.invalid/", {})
    await session.close()


async def test_an_answer_that_nobody_waits_for_any_more_does_no_harm(hanging: Hanging) -> None:
    asked = asyncio.ensure_future(NameResolver(hanging).resolve("account.invalid", 1))
    await hanging.wait_for_calls(1)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    hanging.released.set()
    found = await NameResolver(hanging).resolve("account.invalid", 1)
    assert [(each["host"], each["port"]) for each in found] == [("127.0.0.1", 1)]


PROGRAM = """
import asyncio, signal, threading
from exporter.batch.resolver import NameResolver
from exporter.batch.session import Session

def hang(*_, **__):
    print("looking up", flush=True)
    threading.Event().wait()

async def main():
    session = Session("http://account.invalid", resolver=NameResolver(hang))
    asked = asyncio.ensure_future(session.get("http://account.invalid/", {}))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.cancel)
    try:
        await asked
    except asyncio.CancelledError:
        await session.close()

asyncio.run(main())
print("ended", flush=True)
"""


def test_a_look_up_that_never_ends_does_not_hold_the_process() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"looking up\n"
            process.send_signal(signal.SIGTERM)
            assert process.stdout.readline() == b"ended\n"
            assert process.wait(60) == 0
        finally:
            process.kill()
