"""Another configuration while the service runs: all of it or nothing, and what is known is kept."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.config import loader
from exporter.config.problems import ConfigError
from exporter.exposition.body import Format
from exporter.service.service import Service, open_service
from exporter.simulator import SCENARIOS, Clock, Simulation, World, serve
from tests.certificates import Authority
from tests.process import logged_address, program, stop
from tests.scraping import read
from tests.truth import Series

START = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
async def account(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Simulation, Clock]]:
    """A simulated account whose time stands still."""
    world = World(SCENARIOS["steady"], seed=6, jobs=6, nodes=4, start=START)
    clock = Clock(START, speed=0.0)
    async with serve(world, clock, simulated_date=True) as simulation:
        monkeypatch.setenv("SIMULATED_KEY", simulation.account_key)
        yield simulation, clock


def settings(simulation: Simulation, **changes: Any) -> dict[str, Any]:
    account = {
        "name": simulation.account_name,
        "endpoint": simulation.endpoint,
        "auth": {"method": "shared_key", "key_env": "SIMULATED_KEY"},
        "requests_per_second": 1000,
        "jobs": [{"id_regex": ".*"}],
    }
    return {"accounts": [{**account, **changes}]}


def parse(data: dict[str, Any], folder: Path) -> Any:
    return loader.parse(json.dumps(data), "c.yaml", folder)


def shown(service: Service) -> Series:
    text = service.exposition.body(Format.TEXT).plain.decode()
    series: Series = {}
    for family in parse_text(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in series, key
            series[key] = sample.value
    return series


def differences(before: Series, after: Series) -> dict[Any, Any]:
    return {
        key: (before.get(key), after.get(key))
        for key in before.keys() | after.keys()
        if before.get(key) != after.get(key)
    }


@asynccontextmanager
async def counting(
    account: tuple[Simulation, Clock], folder: Path, **changes: Any
) -> AsyncIterator[Service]:
    """A service that has counted something."""
    simulation, clock = account
    data = parse(settings(simulation, **changes), folder)
    async with open_service(data, now=lambda: clock.now().timestamp()) as service:
        await service.run_once()
        for _ in range(3):
            read(service)
            clock.advance(20.0)
            await service.run_once()
        for _ in range(2):  # of what appeared last the 0 and the value
            read(service)
        yield service


COMPLETED = "azure_batch_account_tasks_completed_total"


async def test_the_same_configuration_again_changes_nothing(
    account: tuple[Simulation, Clock], tmp_path: Path
) -> None:
    async with counting(account, tmp_path) as service:
        before = shown(service)
        pollers = [polled.poller for polled in service._accounts.values()]
        await service.configure(parse(settings(account[0]), tmp_path))
        assert differences(before, shown(service)) == {}
        assert [polled.poller for polled in service._accounts.values()] == pollers


async def test_counters_and_states_go_on_under_other_rules(
    account: tuple[Simulation, Clock], tmp_path: Path
) -> None:
    simulation, clock = account
    async with counting(account, tmp_path) as service:
        before = shown(service)
        assert sum(value for (name, _), value in before.items() if name == COMPLETED) > 0
        rules = [{"id_regex": ".*", "labels": {"team": "x"}, "interval": "60s"}]
        await service.configure(parse(settings(simulation, jobs=rules), tmp_path))
        after = shown(service)
        # Only the label of the job's info is another, before anything was polled again.
        changed = differences(before, after)
        assert {name for name, _ in changed} == {"azure_batch_job_info"}
        added = [labels for name, labels in after if name == "azure_batch_job_info"]
        assert all(("team", "x") in labels for labels in added)
        # What happens from now on is counted from where it stood.
        clock.advance(20.0)
        await service.run_once()
        later = shown(service)
        for key, value in before.items():
            if key in later and key[0].endswith("_total"):
                assert later[key] >= value, key


async def test_the_gauges_of_jobs_that_no_rule_wants_go_at_once_and_counters_once_they_are_read(
    account: tuple[Simulation, Clock], tmp_path: Path
) -> None:
    simulation, _ = account

    def jobs(service: Service, *, counters: bool) -> set[str]:
        return {
            dict(labels)["job_id"]
            for name, labels in shown(service)
            if "job_id" in dict(labels) and name.endswith("_total") == counters
        }

    async with counting(account, tmp_path) as service:
        before = jobs(service, counters=True)
        kept = min(before)
        await service.configure(parse(settings(simulation, jobs=[{"id": kept}]), tmp_path))
        assert jobs(service, counters=False) == {kept}
        assert jobs(service, counters=True) == before
        await service.run_once()
        read(service)
        assert jobs(service, counters=True) == {kept}


async def test_an_account_that_goes_takes_all_its_series_with_it_and_another_comes(
    account: tuple[Simulation, Clock], tmp_path: Path
) -> None:
    simulation, clock = account
    async with counting(account, tmp_path) as service:
        assert 'account="simulated"' in service.telemetry.text(Format.TEXT, 0).decode()
        other = World(SCENARIOS["steady"], seed=7, jobs=3, nodes=2, start=START)
        async with serve(other, clock, simulated_date=True) as second:
            data = settings(simulation)
            (one,) = data["accounts"]
            # SharedKey signs for the account's name, so the second has the same key and name.
            renamed = {**one, "name": "second", "endpoint": second.endpoint}
            await service.configure(parse({"accounts": [renamed]}, tmp_path))
            assert {dict(labels).get("account") for _, labels in shown(service)} == {"second"}
            own = service.telemetry.text(Format.TEXT, 0).decode()
            assert 'account="simulated"' not in own
            await service.configure(parse({"accounts": [one, renamed]}, tmp_path))
            await service.run_once()
            accounts = {dict(labels).get("account") for _, labels in shown(service)}
            assert accounts == {"simulated", "second"}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"auth": {"method": "shared_key", "key_file": "gone"}}, "gone cannot be read"),
        ({"state_file": "other.db"}, "state_file: another file needs a restart"),
    ],
)
async def test_what_cannot_be_used_changes_nothing(
    changes: dict[str, Any], problem: str, account: tuple[Simulation, Clock], tmp_path: Path
) -> None:
    simulation, _ = account
    async with counting(account, tmp_path) as service:
        before = shown(service)
        good = parse(settings(simulation, jobs=[{"id": "none"}]), tmp_path)
        if "auth" in changes:
            (tmp_path / "gone").write_text(simulation.account_key)
            bad = parse(settings(simulation, **changes, jobs=[{"id": "none"}]), tmp_path)
            (tmp_path / "gone").unlink()
        else:
            bad = good.model_copy(update={"state_file": tmp_path / "other.db"})
        with pytest.raises(ConfigError, match=problem):
            await service.configure(bad)
        assert differences(before, shown(service)) == {}
        await service.configure(good)  # and a good one still works
        assert differences(before, shown(service)) != {}


async def test_a_pause_that_the_service_asked_for_outlives_a_reload(
    account: tuple[Simulation, Clock], tmp_path: Path
) -> None:
    simulation, _ = account
    async with counting(account, tmp_path) as service:
        (polled,) = service._accounts.values()
        polled.budget.pause(600.0)
        before = simulation.requests.total()
        await service.configure(parse(settings(simulation, requests_per_second=900), tmp_path))
        await service.run_once()
        assert simulation.requests.total() == before
        assert {
            value for (name, _), value in shown(service).items() if name == "azure_batch_up"
        } == {0}


async def test_a_secret_that_changed_is_read_again(
    account: tuple[Simulation, Clock], tmp_path: Path
) -> None:
    simulation, _ = account
    (tmp_path / "key").write_text("AAAA")
    auth = {"method": "shared_key", "key_file": "key"}
    data = parse(settings(simulation, auth=auth), tmp_path)
    async with open_service(data) as service:
        await service.run_once()
        assert not service.store.accounts["simulated"].is_up
        (tmp_path / "key").write_text(simulation.account_key)
        await service.configure(data)
        await service.run_once()
        assert service.store.accounts["simulated"].is_up


@pytest.mark.full
async def test_polls_have_their_turn_though_the_configuration_changes_all_the_time(
    account: tuple[Simulation, Clock], tmp_path: Path
) -> None:
    """Each poll has its moment in its interval, whenever it was planned."""
    simulation, _ = account
    async with counting(account, tmp_path) as service:
        running = asyncio.create_task(service.run())
        defaults = {"defaults": {"interval": "2s"}}
        counted = simulation.requests["Job_GetTaskCounts"]
        started = time.monotonic()
        for number in range(10):
            data = settings(simulation, max_jobs=100 + number)
            await service.configure(parse({**defaults, **data}, tmp_path))
            await asyncio.sleep(0.4)
        taken = time.monotonic() - started
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    polls = simulation.requests["Job_GetTaskCounts"] - counted
    jobs = len(service.store.jobs("simulated"))
    # A slow machine takes longer, and polls more often meanwhile.
    assert jobs <= polls <= (taken / 2 + 1) * jobs


# The process


async def metric(session: aiohttp.ClientSession, url: str, name: str) -> str:
    text = await (await session.get(url)).text()
    (found,) = [line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")]
    return found


RELOADED = "azure_batch_exporter_config_last_reload_successful"


@pytest.mark.parametrize("how", ["signal", "request"])
async def test_a_process_reloads(
    how: str, account: tuple[Simulation, Clock], tmp_path: Path
) -> None:
    simulation, _ = account
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(settings(simulation)))
    async with (
        program(
            "run",
            f"--config.file={file}",
            "--web.listen-address=127.0.0.1:0",
            "--web.enable-lifecycle",
            SIMULATED_KEY=simulation.account_key,
        ) as process,
        aiohttp.ClientSession() as session,
        asyncio.timeout(200),
    ):
        url = await logged_address(process)
        reload_url = url.replace("/metrics", "/-/reload")

        async def reload() -> tuple[int, str]:
            if how == "request":
                async with session.post(reload_url) as answer:
                    return answer.status, await answer.text()
            process.send_signal(signal.SIGHUP)
            assert process.stderr is not None
            async for line in process.stderr:
                if b"reloaded" in line:
                    return (500 if b"not reloaded" in line else 200), line.decode()
            raise AssertionError("the process ended")

        assert await metric(session, url, RELOADED) == "1"
        file.write_text(json.dumps(settings(simulation, max_job=1)))
        status, text = await reload()
        assert status == 500
        assert f"{file}:1: accounts[0].max_job: unknown key: did you mean max_jobs?" in text
        assert await metric(session, url, RELOADED) == "0"
        file.write_text(json.dumps(settings(simulation, max_jobs=7)))
        status, text = await reload()
        assert status == 200
        assert await metric(session, url, RELOADED) == "1"
        async with session.get(reload_url) as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "POST")
            assert "Use POST" in await answer.text()
        await stop(process)
        assert process.returncode == 0


async def test_sighup_reads_client_authorities_and_certificates_that_look_unchanged(
    account: tuple[Simulation, Clock], tmp_path: Path
) -> None:
    simulation, _ = account
    (tmp_path / "config.yaml").write_text(json.dumps(settings(simulation)))
    folders = [tmp_path / "old", tmp_path / "new"]
    for folder in folders:
        folder.mkdir()
    authorities = [Authority(folder) for folder in folders]
    clients = [authority.client("a.example") for authority in authorities]
    # As a copy that keeps the time makes them, and by chance of the same size.
    texts = [[file.read_bytes() for file in (a.file, *a.server())] for a in authorities]
    names = ("clients.crt", "server.crt", "server.key")
    sizes = [max(map(len, each)) for each in zip(*texts, strict=True)]
    web = {"cert_file": "server.crt", "key_file": "server.key", "client_ca_file": "clients.crt"}
    web["client_auth_type"] = "RequireAndVerifyClientCert"
    (tmp_path / "web.yaml").write_text(json.dumps({"tls_server_config": web}))

    def install(number: int) -> None:
        for name, size, text in zip(names, sizes, texts[number], strict=True):
            (tmp_path / name).write_bytes(text.ljust(size, b"\n"))
            os.utime(tmp_path / name, (1, 1))

    async def answers(number: int) -> bool:
        trusted = authorities[number].trust(clients[number])
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(url, ssl=trusted) as response,
            ):
                return response.status == 200
        except (aiohttp.ClientError, OSError):
            return False

    install(0)
    async with (
        program(
            "run",
            f"--config.file={tmp_path / 'config.yaml'}",
            f"--web.config.file={tmp_path / 'web.yaml'}",
            "--web.listen-address=127.0.0.1:0",
            SIMULATED_KEY=simulation.account_key,
        ) as process,
        asyncio.timeout(200),
    ):
        url = await logged_address(process)
        assert (await answers(0), await answers(1)) == (True, False)
        install(1)
        process.send_signal(signal.SIGHUP)
        await logged(process, b"configuration reloaded")
        assert (await answers(0), await answers(1)) == (False, True)
        (tmp_path / "clients.crt").write_bytes(b"none")
        process.send_signal(signal.SIGHUP)
        line = await logged(process, b"not reloaded")
        assert b"client_ca_file: holds no certificate" in line
        assert await answers(1)


async def logged(process: asyncio.subprocess.Process, text: bytes) -> bytes:
    """The next line of the log that holds `text`."""
    assert process.stderr is not None
    async for line in process.stderr:
        if text in line:
            return line
    raise AssertionError("the process ended")


async def test_reloading_by_request_must_be_allowed(
    account: tuple[Simulation, Clock], tmp_path: Path, make_app: Callable[..., Any]
) -> None:
    async with (
        counting(account, tmp_path) as service,
        make_app(service) as session,
        session.post("/-/reload") as answer,
    ):
        assert answer.status == 403
        assert "--web.enable-lifecycle" in await answer.text()


@pytest.fixture
def make_app() -> Callable[..., Any]:
    """Serves a service; gives a client of it."""
    from exporter.web.app import build_app
    from exporter.web.server.listener import listen

    @asynccontextmanager
    async def make(service: Service) -> AsyncIterator[aiohttp.ClientSession]:
        server = await listen(build_app(service, "/metrics"), (("127.0.0.1", 0),))
        async with aiohttp.ClientSession(server.urls[0]) as session:
            yield session
        await server.close()

    return make
