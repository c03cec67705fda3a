"""The command line: real processes, as a user starts them."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

import exporter
from exporter.cli.flags import parse_address, parse_web_address
from exporter.cli.healthcheck import ask
from tests.conftest import KEY
from tests.fake_batch import FakeBatch, batch_error
from tests.process import finish, logged_address, program, stop, until_ready


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[..., str]:
    """Write a configuration for an endpoint; gives the flag that names it."""

    def write(endpoint: str, **account: Any) -> str:
        file = tmp_path / "config.yaml"
        auth = {"method": "shared_key", "key_env": "BATCH_KEY"}
        defaults = {"interval": "1s"}
        accounts = [{"name": "myaccount", "endpoint": endpoint, "auth": auth, **account}]
        file.write_text(json.dumps({"defaults": defaults, "accounts": accounts}))
        return f"--config.file={file}"

    return write


@pytest.fixture
def one_job(batch: FakeBatch, official: Callable[[str], Any]) -> FakeBatch:
    """An account with one job without preparation."""
    batch.json("/jobs", official("JobList"))
    batch.json("/jobs/jobId/taskcounts", official("JobGetTaskCounts"))
    batch.on(
        "/jobs/jobId/jobpreparationandreleasetaskstatus",
        batch_error(409, "JobPreparationTaskOrReleaseTaskNotSpecified", "Neither."),
    )
    batch.json("/nodecounts", official("AccountListPoolNodeCounts"))
    return batch


async def test_run_polls_and_serves_until_it_is_told_to_stop(
    one_job: FakeBatch, write_config: Callable[..., str]
) -> None:
    flag = write_config(one_job.endpoint)
    async with program("run", flag, "--web.listen-address=127.0.0.1:0") as process:
        url = await logged_address(process)
        async with aiohttp.ClientSession() as session, asyncio.timeout(200):
            await until_ready(url)
            text = await (await session.get(url)).text()
        labels = 'account="myaccount",job_id="jobId"'
        assert f'azure_batch_job_tasks{{{labels},state="running"}} 7\n' in text
        assert 'azure_batch_up{account="myaccount"} 1\n' in text
        errors = await stop(process)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert "never awaited" not in errors


async def test_run_stops_cleanly_in_the_middle_of_a_poll(
    one_job: FakeBatch, write_config: Callable[..., str]
) -> None:
    asked, answered = asyncio.Event(), asyncio.Event()

    async def hang(_: Any) -> Any:
        asked.set()
        await answered.wait()

    one_job.on("/jobs", hang)
    flag = write_config(one_job.endpoint)
    async with program("run", flag, "--web.listen-address=127.0.0.1:0") as process:
        await asyncio.wait_for(asked.wait(), 200)
        errors = await stop(process, signal.SIGINT)
        answered.set()
    assert (process.returncode, "Traceback" in errors) == (0, False)


async def test_scrape_prints_the_metrics_once(
    one_job: FakeBatch, write_config: Callable[..., str]
) -> None:
    status, output, _ = await finish("scrape", write_config(one_job.endpoint))
    assert status == 0
    assert 'azure_batch_job_completed_tasks{account="myaccount",job_id="jobId"' in output
    assert output.endswith("\n")


async def test_scrape_of_an_account_that_fails_still_prints_and_says_so_in_its_status(
    batch: FakeBatch, write_config: Callable[..., str]
) -> None:
    batch.on("/jobs", batch_error(403, "AuthenticationFailed", "Server failed to authenticate."))
    flag = write_config(batch.endpoint, pool_nodes=False)
    status, output, errors = await finish("scrape", flag, "--log.format=json")
    assert status == 1
    assert 'azure_batch_up{account="myaccount"} 0\n' in output
    (line,) = (json.loads(line) for line in errors.splitlines())
    assert line["msg"] == (
        "account cannot be polled: HTTP 403 AuthenticationFailed Server failed to authenticate."
    )
    assert (line["account"], line["level"]) == ("myaccount", "WARNING")


async def test_no_secret_is_in_the_log_at_debug_level(
    one_job: FakeBatch, write_config: Callable[..., str]
) -> None:
    flag = write_config(one_job.endpoint)
    _, output, errors = await finish("scrape", flag, "--log.level=debug")
    assert KEY not in output + errors
    assert "SharedKey" not in output + errors


async def test_check_accepts_and_refuses(
    one_job: FakeBatch, write_config: Callable[..., str], tmp_path: Path
) -> None:
    status, output, errors = await finish("check", write_config(one_job.endpoint))
    assert (status, errors) == (0, "")
    assert output == f"{tmp_path}/config.yaml: valid, 1 account(s), 1 rule(s)\n"
    flag = write_config(one_job.endpoint, api_version="2024-07-01.20.0")
    status, output, errors = await finish("check", flag)
    valid = f"{tmp_path}/config.yaml: valid, 1 account(s), 1 rule(s), 1 warning(s)\n"
    assert (status, output) == (0, valid)
    assert errors == (
        f"warning: {tmp_path}/config.yaml:1: accounts[0].api_version: 2024-07-01.20.0 is"
        " announced for retirement: write 2025-06-01\n"
    )
    status, output, errors = await finish("check", write_config(one_job.endpoint, pool_node=1))
    assert (status, output) == (2, "")
    assert errors == (
        f"{tmp_path}/config.yaml:1: accounts[0].pool_node: unknown key: did you mean pool_nodes?\n"
    )
    json_alone = await finish("check", write_config(one_job.endpoint), "--format=json")
    assert json_alone == (2, "", "--format=json needs --online, whose report it prints\n")
    assert one_job.requests == []


async def test_a_shard_polls_its_part_and_says_which(
    one_job: FakeBatch, write_config: Callable[..., str]
) -> None:
    flag = write_config(one_job.endpoint)
    outputs = [(await finish("scrape", flag, f"--shard={index}/2"))[1] for index in (0, 1)]
    jobs = ['azure_batch_jobs{account="myaccount",state="active"} 1\n' in out for out in outputs]
    assert sorted(jobs) == [False, True]
    assert ["azure_batch_pool_nodes{" in output for output in outputs] == [True, False]
    for index, output in enumerate(outputs):
        assert 'azure_batch_up{account="myaccount"} 1\n' in output
        assert f"azure_batch_exporter_shard {index}\n" in output
        assert "azure_batch_exporter_shards 2\n" in output


@pytest.mark.parametrize("command", ["run", "scrape"])
async def test_a_shard_that_cannot_be_is_wrong_usage(command: str) -> None:
    status, _, errors = await finish(command, "--config.file=none", "--shard=2/2")
    assert status == 2
    assert errors.endswith(
        "argument --shard: '2/2' is no shard: write I/N, this process's number, counted from 0,"
        " and how many there are (at most 1000), as in 0/4\n"
    )


@pytest.mark.parametrize("command", [["demo"], ["check", "--config.file=none"]])
async def test_only_what_polls_an_account_has_shards(command: list[str]) -> None:
    status, _, errors = await finish(*command, "--shard=0/2")
    assert (status, "unrecognized arguments: --shard=0/2" in errors) == (2, True)


async def test_run_without_a_configuration_says_what_is_missing() -> None:
    status, _, errors = await finish("run")
    assert status == 2
    assert "--config.file" in errors
    assert "config.example.yaml" in errors


async def test_a_port_that_is_taken_is_named(
    one_job: FakeBatch, write_config: Callable[..., str]
) -> None:
    address = one_job.endpoint.removeprefix("http://")
    flag = write_config(one_job.endpoint)
    status, _, errors = await finish("run", flag, f"--web.listen-address={address}")
    assert status == 1
    assert "address already in use" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["run", "--web.listen-address=nowhere"],
        ["run", "--web.telemetry-path="],
        ["run", "--web.telemetry-path=/config"],
        ["run", "--web.telemetry-path=/static/metrics"],
    ],
)
async def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    status, _, errors = await finish(*arguments)
    assert status == 2
    assert "usage: azure-batch-exporter" in errors


@pytest.mark.parametrize("command", ["run", "demo", "simulate", "check", "scrape", "healthcheck"])
async def test_each_command_has_help(command: str) -> None:
    status, output, _ = await finish(command, "--help")
    assert status == 0
    assert output.startswith(f"usage: azure-batch-exporter {command}")


async def test_documentation_that_is_nowhere_is_refused() -> None:
    url = {"AZURE_BATCH_EXPORTER_DOCS_URL": "javascript:alert(1)"}
    status, _, errors = await finish("demo", "--web.listen-address=127.0.0.1:0", **url)
    assert status == 2
    assert "AZURE_BATCH_EXPORTER_DOCS_URL: 'javascript:alert(1)' is not a URL" in errors


async def test_version_is_one_line() -> None:
    status, output, _ = await finish("--version", AZURE_BATCH_EXPORTER_REVISION="a" * 40)
    assert status == 0
    assert output.startswith(f"azure-batch-exporter {exporter.__version__} (revision {'a' * 40}, ")
    assert output.count("\n") == 1


async def test_healthcheck_asks_a_running_exporter(batch: FakeBatch) -> None:
    batch.json("/-/healthy", "Healthy.")
    assert (await finish("healthcheck", f"--url={batch.endpoint}/-/healthy"))[0] == 0
    assert (await finish("healthcheck", f"--url={batch.endpoint}/nothing"))[0] == 1
    status, _, errors = await finish("healthcheck", "--url=http://127.0.0.1:1/")
    assert status == 1
    assert "refused" in errors


async def test_healthcheck_prints_the_beginning_of_the_answer_or_the_status(
    batch: FakeBatch,
) -> None:
    def answer_with(**given: Any) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(**given)

        return answer

    batch.on("/long", answer_with(text="x" * 1000))
    batch.on("/not", answer_with(status=503, text="Not healthy: polls stand still."))
    batch.on("/moved", answer_with(status=302, headers={"Location": "/long"}))
    for path, answer in (
        ("/long?a=b", (True, "x" * 200)),
        ("/not", (False, f"{batch.endpoint}/not: HTTP Error 503: Service Unavailable")),
        ("/moved", (False, f"{batch.endpoint}/moved: HTTP Error 302: Found")),
    ):
        assert await asyncio.to_thread(ask, f"{batch.endpoint}{path}") == answer
    assert [request.query.get("a") for request in batch.requests] == ["b", None, None]


@pytest.mark.parametrize(
    "url", ["", "localhost", "ftp://host/", "file:///etc/passwd", "http:///-/healthy"]
)
def test_healthcheck_says_how_a_url_is_written(url: str) -> None:
    is_alive, text = ask(url)
    assert not is_alive
    assert text.startswith(f"{url}: write http://host:port/path")


@pytest.mark.parametrize("url", ["http://h:x/", "http://h:99999/", "http://h/a b", "tcp://[::1"])
def test_healthcheck_names_a_url_that_cannot_be_asked(url: str) -> None:
    is_alive, text = ask(url)
    assert not is_alive
    assert text.startswith(f"{url}: ")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":10225", (None, 10225)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:80", ("::1", 80)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_listen_addresses_are_spelled_as_in_prometheus(
    text: str, address: tuple[str | None, int]
) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "10225", "::1:80", "host:", "host:x", "host:65536"])
def test_what_is_no_listen_address_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="port"):
        parse_address(text)


def test_a_unix_socket_is_spelled_as_in_exporter_toolkit() -> None:
    assert parse_web_address("unix:/run/x.sock") == Path("/run/x.sock")
    assert parse_web_address("unix:x.sock") == Path("x.sock")
    assert parse_web_address("unix:80") == ("unix", 80)  # a host
    assert parse_web_address(":80") == (None, 80)
    with pytest.raises(argparse.ArgumentTypeError, match="unix:/path"):
        parse_web_address("unix:")


async def test_the_demo_shows_every_kind_of_series_of_several_jobs() -> None:
    async with program("demo", "--web.listen-address=127.0.0.1:0") as process, asyncio.timeout(200):
        url = await logged_address(process)
        wanted = ("job_tasks", "job_task_slots", "job_preparation_tasks", "job_release_tasks")
        jobs: dict[str, set[str]] = {}
        async with aiohttp.ClientSession() as session:
            while len(jobs) < len(wanted) or min(map(len, jobs.values())) < 3:
                await asyncio.sleep(0.2)
                text = await (await session.get(url)).text()
                found = re.findall(
                    r'^azure_batch_(\w+){account="simulated",job_id="([^"]+)', text, re.MULTILINE
                )
                jobs = {name: {j for n, j in found if n == name} for name in wanted}
        await stop(process, signal.SIGINT)
    assert process.returncode == 0


async def test_the_demo_drops_a_pause_when_the_scenario_changes() -> None:
    fault = {"faults": [{"name": "too-many-requests-hours"}]}
    async with (
        program("demo", "--web.listen-address=127.0.0.1:0") as process,
        asyncio.timeout(200),
        aiohttp.ClientSession() as session,
    ):
        url = (await logged_address(process)).replace("/metrics", "/api/v1/status")
        assert process.stdout is not None
        simulator = (await process.stdout.readline()).decode().split()[-1]

        async def pause() -> float:
            (account,) = (await (await session.get(url)).json())["accounts"]
            return float(account["load"]["pause_seconds"])

        await session.put(f"{simulator}/simulator/faults", json=fault)
        while await pause() == 0.0:  # noqa: ASYNC110 - the demo tells nobody
            await asyncio.sleep(0.1)
        await session.put(f"{simulator}/simulator/scenario", json={"scenario": "steady"})
        assert await pause() == 0.0
        await stop(process, signal.SIGINT)


async def test_the_simulator_over_tls_is_trusted_by_the_file_that_it_names(
    write_config: Callable[..., str],
) -> None:
    async with program("simulate", "--jobs=3", "--nodes=2", "--speed=50", "--tls") as process:
        assert process.stdout is not None
        lines = [(await process.stdout.readline()).decode().strip() for _ in range(4)]
        printed = dict(line.split(": ", 1) for line in lines)
        assert printed["endpoint"].startswith("https://127.0.0.1:")
        flag = write_config(printed["endpoint"])
        config = Path(flag.partition("=")[2])
        config.write_text(config.read_text().replace("myaccount", "simulated"))
        environment = {"SSL_CERT_FILE": printed["authority"], "BATCH_KEY": printed["key"]}
        status, output, errors = await finish("scrape", flag, **environment)
        assert status == 0, errors
        assert 'azure_batch_up{account="simulated"} 1\n' in output
        assert re.search(
            r'^azure_batch_job_tasks{account="simulated",job_id=', output, re.MULTILINE
        )
        await stop(process)
    assert process.returncode == 0
    assert not Path(printed["authority"]).exists()


async def test_the_simulator_alone_prints_what_a_client_needs() -> None:
    async with program("simulate", "--seed=4", "--jobs=3", "--nodes=2", "--speed=0") as process:
        assert process.stdout is not None
        lines = [(await process.stdout.readline()).decode().strip() for _ in range(3)]
        (endpoint, account, key) = (line.partition(": ")[2] for line in lines)
        assert endpoint.startswith("http://127.0.0.1:")
        assert (account, len(key)) == ("simulated", 88)
        async with aiohttp.ClientSession() as session:
            answer = await session.get(f"{endpoint}/jobs?api-version=2024-07-01.20.0")
            assert answer.status in (401, 403)  # without a signature
        await stop(process)
    assert process.returncode == 0
