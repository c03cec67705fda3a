"""The JSON API over real sockets: jobs found and sorted, one job, accounts, configuration."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from exporter import config
from exporter.batch.errors import AuthenticationFailed, ConnectionFailed
from exporter.config import loader
from exporter.polling.sign_in_trouble import SignInTrouble
from exporter.service.service import Service, open_service
from exporter.web.api.status_views import running_config
from exporter.web.app import build_app
from exporter.web.server.listener import listen
from tests.fake_batch import FakeBatch
from tests.filled import ACCOUNT, config_of, fill
from tests.tools import openapi_python
from tools import openapi
from tools.gen_docs import DOCS

JOBS = 120

NOW = 1_800_000_000.0


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service that knows `JOBS` jobs: number n has n tasks that wait."""
    async with open_service(config_of(), now=lambda: NOW + 42.0) as opened:
        fill(opened.store, JOBS, NOW)
        yield opened


@pytest.fixture
async def http(service: Service) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of `service`."""
    server = await listen(build_app(service, "/metrics"), (("127.0.0.1", 0),))
    async with aiohttp.ClientSession(server.urls[0]) as session:
        yield session
    await server.close()


async def ask(http: aiohttp.ClientSession, path: str, **query: str) -> Any:
    async with http.get(f"/api/v1/{path}", params=query) as response:
        assert response.content_type == "application/json"
        assert response.status == 200, await response.text()
        return await response.json()


async def ids(http: aiohttp.ClientSession, **query: str) -> list[str]:
    return [job["job_id"] for job in (await ask(http, "jobs", **query))["jobs"]]


def name(*numbers: int) -> list[str]:
    return [f"job-{number:05d}" for number in numbers]


async def test_a_job_is_shown_with_all_its_numbers(http: aiohttp.ClientSession) -> None:
    answer = await ask(http, "jobs", search="00010")
    (job,) = answer.pop("jobs")
    assert answer == {
        "now": "2027-01-15T08:00:42.000Z",
        "total": JOBS,
        "matched": 1,
        "limit": 100,
        "offset": 0,
    }
    counts = {"active": 10, "running": 3, "completed": 10, "succeeded": 10, "failed": 0}
    assert job == {
        "account": ACCOUNT,
        "job_id": "job-00010",
        "health": "ok",
        "display_name": "Frame 10",
        "state": "active",
        "pool_id": "pool-0",
        "priority": 0,
        "created": "2026-01-01T00:00:10.000Z",
        "started": "2026-01-01T00:00:00.000Z",
        "last_progress": "2027-01-15T08:00:00.000Z",
        "tasks": counts,
        "task_slots": counts,
        "preparation": {"running": 0, "succeeded": 1, "failed": 0},
        "release": {"running": 0, "succeeded": 0, "failed": 0},
        "last_success": "2027-01-15T08:00:00.000Z",
        "age_seconds": 42.0,
    }


async def test_a_job_that_cannot_be_polled_says_why(http: aiohttp.ClientSession) -> None:
    answer = await ask(http, "jobs", health="failing")
    assert [job["job_id"] for job in answer["jobs"]] == name(0, 100)
    assert answer["jobs"][0]["error"] == (
        "task_counts: HTTP 500 InternalError Something went wrong."
    )
    assert answer["jobs"][0]["tasks"]["active"] == 0  # the last good values stay


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"sort": "active", "order": "desc", "limit": "3"}, (119, 118, 117)),
        ({"sort": "active", "limit": "2", "offset": "5"}, (5, 6)),
        ({"sort": "running", "order": "desc", "limit": "2"}, (6, 13)),
        ({"sort": "preparation_failed", "order": "desc", "limit": "4"}, (0, 50, 100, 1)),
        ({"sort": "health", "order": "desc", "limit": "3"}, (0, 100, 1)),
        ({"sort": "created", "order": "desc", "limit": "1"}, (119,)),
        ({"search": "FRAME 9"}, (90,)),
        ({"state": "completed", "pool_id": "pool-4", "limit": "2"}, (4, 24)),
        ({"state": "deleting"}, ()),
        ({"account": "other"}, ()),
        ({"job_group": "none"}, ()),
        ({"search": "", "state": "", "sort": "", "order": "", "limit": "1"}, (0,)),
        ({"offset": "1000"}, ()),
    ],
)
async def test_jobs_are_found_and_sorted(
    http: aiohttp.ClientSession, query: dict[str, str], expected: tuple[int, ...]
) -> None:
    assert await ids(http, **query) == name(*expected)


async def test_pages_together_are_all_jobs(http: aiohttp.ClientSession) -> None:
    found = []
    for offset in range(0, JOBS, 50):
        found += await ids(http, sort="running", limit="50", offset=str(offset))
    assert sorted(found) == name(*range(JOBS))


async def test_what_is_not_known_comes_last_in_both_orders(
    service: Service, http: aiohttp.ClientSession
) -> None:
    job = service.store.jobs(ACCOUNT)["job-00007"].watched.job
    service.store.fail(ACCOUNT, "task_counts", job, ConnectionFailed("gone"), since=0.0, stale=True)
    for order in ("asc", "desc"):
        listed = await ids(http, sort="active", order=order, limit="1000")
        assert listed[-1] == "job-00007"
    (shown,) = (await ask(http, "jobs", health="stale"))["jobs"]
    assert shown["job_id"] == "job-00007"
    assert "tasks" not in shown
    assert shown["error"] == "task_counts: gone"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("jobs?limit=0", "limit must be a number from 1 to 1000, not '0'"),
        ("jobs?limit=1001", "limit must be a number from 1 to 1000, not '1001'"),
        ("jobs?offset=-1", "offset must be a number from 0 to 100000000, not '-1'"),
        ("jobs?offset=²", "offset must be a number from 0 to 100000000, not '²'"),
        ("jobs?order=up", "order must be one of asc, desc, not 'up'"),
        ("jobs?limit=1&limit=2", "limit stands 2 times: give it once"),
        ("jobs?colour=red", "unknown parameter: colour; known are: search, account, state,"),
        ("status?x=1", "unknown parameter: x; this path has no parameters"),
        ("job?account=a", "job_id is missing: The job's id."),
        ("job?account=&job_id=x", "account must not be empty"),
    ],
)
async def test_a_query_that_cannot_be_is_refused_with_the_cure(
    http: aiohttp.ClientSession, path: str, error: str
) -> None:
    async with http.get(f"/api/v1/{path}") as response:
        assert response.status == 400
        assert (await response.json())["error"].startswith(error)


async def test_one_job_has_its_polls_series_history_and_failures(
    service: Service, http: aiohttp.ClientSession
) -> None:
    answer = await ask(http, "job", account=ACCOUNT, job_id="job-00050")
    assert answer["job"] == (await ask(http, "jobs", search="00050"))["jobs"][0]
    assert [(poll["collector"], poll["health"]) for poll in answer["polls"]] == [
        ("task_counts", "ok"),
        ("preparation_release", "ok"),
    ]
    async with http.get("/metrics") as response:
        served = (await response.text()).splitlines()
    assert answer["series"] == [line for line in served if 'job_id="job-00050"' in line]
    assert len(answer["series"]) > 40
    assert answer["history"][-1] == {
        "time": "2027-01-15T08:00:00.000Z",
        "active": 50,
        "running": 1,
        "succeeded": 0,
        "failed": 0,
        "failed_nodes": 1,
    }
    listed = await ask(http, "failures", account=ACCOUNT, job_id="job-00050")
    assert answer["failures"] == listed["failures"]
    assert answer["failures"][0]["node_id"] == "node-50"


async def test_a_job_that_is_not_watched_is_not_found(http: aiohttp.ClientSession) -> None:
    for query in ({"account": "x", "job_id": "job-00001"}, {"account": ACCOUNT, "job_id": "x"}):
        async with http.get("/api/v1/job", params=query) as response:
            assert response.status == 404
            assert "api/v1/jobs lists those that are" in (await response.json())["error"]


async def test_the_status_has_accounts_with_their_state_and_load(
    service: Service, http: aiohttp.ClientSession
) -> None:
    answer = await ask(http, "status")
    (account,) = answer["accounts"]
    assert (answer["ready"], answer["shard"], answer["series"]) == (
        False,
        "0/1",
        account["series"],
    )
    assert (account["name"], account["up"], account["jobs"]) == (ACCOUNT, True, JOBS)
    assert account["jobs_by_health"] == {"ok": 118, "pending": 0, "failing": 2, "stale": 0}
    assert account["jobs_by_state"]["completed"] == JOBS // 4
    assert account["load"]["budget_per_second"] == 20.0
    assert account["polls"][0]["collector"] == "jobs"
    service.store.fail(ACCOUNT, "jobs", None, ConnectionFailed("no route"), since=0.0, stale=False)
    (account,) = (await ask(http, "status"))["accounts"]
    assert (account["up"], account["error"]) == (False, "jobs: no route")


async def test_an_account_and_a_job_that_fail_say_cause_and_cure(
    service: Service, http: aiohttp.ClientSession
) -> None:
    (account,) = (await ask(http, "status"))["accounts"]
    assert not {"error", "cause", "cure", "sign_in"} & account.keys()
    job = service.store.jobs(ACCOUNT)["job-00001"].watched.job
    error = AuthenticationFailed(403, "AuthenticationFailed")
    error.cause, error.cure = "key", "copy a key"
    advice = {"cause": "key", "cure": "copy a key"}
    service.store.fail(ACCOUNT, "task_counts", job, error, since=0.0, stale=False)
    answer = await ask(http, "job", account=ACCOUNT, job_id="job-00001")
    assert answer["job"].items() >= {**advice, "error": f"task_counts: {error}"}.items()
    failing, good = answer["polls"]
    assert failing.items() >= {**advice, "error": str(error)}.items()
    assert not {"error", "cause", "cure"} & good.keys()
    # A refusal of one job's poll is one of the account.
    (account,) = (await ask(http, "status"))["accounts"]
    assert account.items() >= {**advice, "up": False, "error": str(error)}.items()


async def test_the_metric_follows_the_cause_while_an_account_stays_down(
    service: Service, http: aiohttp.ClientSession
) -> None:
    job = service.store.jobs(ACCOUNT)["job-00001"].watched.job
    for cause in ("key", "clock"):
        error = AuthenticationFailed(403, "AuthenticationFailed")
        error.cause = cause
        service.store.fail(ACCOUNT, "task_counts", job, error, since=0.0, stale=False)
        service.store.flush()
        (account,) = (await ask(http, "status"))["accounts"]
        assert account["cause"] == cause
        async with http.get("/metrics") as response:
            line = f'azure_batch_account_failure{{account="{ACCOUNT}",cause="{cause}"}} 1\n'
            assert line in await response.text()


async def test_an_account_that_is_up_says_that_signing_in_fails(
    service: Service, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble = SignInTrouble("AADSTS7000222", "client_secret", "make a new one", NOW, NOW + 3600)
    monkeypatch.setattr(service, "sign_in_trouble", {ACCOUNT: trouble}.get)
    (account,) = (await ask(http, "status"))["accounts"]
    assert (account["up"], "error" in account) == (True, False)
    assert account["sign_in"] == {
        "error": "AADSTS7000222",
        "cause": "client_secret",
        "cure": "make a new one",
        "since": "2027-01-15T08:00:00.000Z",
        "good_until": "2027-01-15T09:00:00.000Z",
    }
    trouble = msgspec.structs.replace(trouble, good_until=None)
    monkeypatch.setattr(service, "sign_in_trouble", {ACCOUNT: trouble}.get)
    (account,) = (await ask(http, "status"))["accounts"]
    assert "good_until" not in account["sign_in"]


async def test_an_account_that_is_being_taken_over_is_left_out(
    service: Service, http: aiohttp.ClientSession
) -> None:
    kept = service._accounts.pop(ACCOUNT)  # as in a reload, while connections are made
    assert (await ask(http, "status"))["accounts"] == []
    service._accounts[ACCOUNT] = kept
    assert len((await ask(http, "status"))["accounts"]) == 1


async def test_a_job_of_a_group_shows_the_series_of_its_group(
    batch: FakeBatch, make_config: Callable[..., config.Config], official: Callable[[str], Any]
) -> None:
    batch.json("/jobs", official("JobList"))
    batch.json("/jobs/jobId/taskcounts", official("JobGetTaskCounts"))
    batch.json("/jobs/jobId/jobpreparationandreleasetaskstatus", {"value": []})
    batch.json("/nodecounts", {"value": []})
    made = make_config(batch.endpoint, jobs=[{"id_regex": ".*", "group": "g"}])
    async with open_service(made) as service:
        await service.run_once()
        server = await listen(build_app(service, "/metrics"), (("127.0.0.1", 0),))
        async with aiohttp.ClientSession(server.urls[0]) as http:
            answer = await ask(http, "job", account="myaccount", job_id="jobId")
            assert await ids(http, job_group="g") == ["jobId"]
            assert await ids(http, job_group="h") == []
        await server.close()
    assert answer["job"]["job_group"] == "g"
    assert answer["job"]["tasks"]["active"] == 5
    assert answer["series"]
    assert all('{account="myaccount",job_group="g"' in line for line in answer["series"])


async def test_a_service_that_polls_says_how_busy_it_is(
    batch: FakeBatch, make_config: Callable[..., config.Config], official: Callable[[str], Any]
) -> None:
    batch.json("/jobs", official("JobList"))
    batch.json("/jobs/jobId/taskcounts", official("JobGetTaskCounts"))
    batch.json("/jobs/jobId/jobpreparationandreleasetaskstatus", {"value": []})
    batch.json("/nodecounts", official("AccountListPoolNodeCounts"))
    made = make_config(batch.endpoint, defaults={"interval": "1s"}, discovery_interval="1s")
    async with open_service(made) as service:
        server = await listen(build_app(service, "/metrics"), (("127.0.0.1", 0),))
        polling = asyncio.create_task(service.run())
        async with aiohttp.ClientSession(server.urls[0]) as http:
            async with asyncio.timeout(200):
                load = {"requests_per_second": 0.0}
                while not load["requests_per_second"]:
                    await asyncio.sleep(0.1)
                    load = (await ask(http, "status"))["accounts"][0]["load"]
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
        await server.close()
    assert load["polls_per_second"] == 4.0  # the listing, nodes, and two collectors of one job
    assert load["budget_per_second"] == 1000.0


async def test_the_configuration_has_no_secret(
    batch: FakeBatch, make_config: Callable[..., config.Config]
) -> None:
    made = make_config(batch.endpoint, jobs=[{"id": "a", "labels": {"see": "http://u:pw@host/"}}])
    async with open_service(made) as service:
        server = await listen(build_app(service, "/metrics"), (("127.0.0.1", 0),))
        async with aiohttp.ClientSession(server.urls[0]) as http:
            shown = (await ask(http, "config"))["config"]
        await server.close()
    (account,) = shown["accounts"]
    assert account["auth"] == {
        "method": "shared_key",
        "key_env": "BATCH_KEY",
        "scope": "https://batch.core.windows.net//.default",
    }
    assert account["jobs"][0]["labels"] == {"see": "http://<redacted>@host/"}
    assert shown["defaults"]["interval"] == "30s"
    assert "states" not in account["jobs"][0]  # a job that is named is watched in any state


async def test_the_configuration_is_in_the_form_of_the_file(
    batch: FakeBatch, make_config: Callable[..., config.Config]
) -> None:
    rules = [
        {"id": "a", "tasks": ["merge"]},
        {"id": "b", "states": ["active"]},
        {"id_regex": "x.*", "interval": "5m"},
    ]
    made = make_config(batch.endpoint, jobs=rules, discovery_interval="90s")
    shown = json.dumps(running_config(made).config)
    again = loader.parse(shown, "again", Path())
    assert again == made


async def test_the_description_is_served_as_it_is_documented(
    http: aiohttp.ClientSession,
) -> None:
    async with http.get("/api/v1/openapi.json") as response:
        assert await response.text() == openapi.text(), "run make docs"


@pytest.mark.full
def test_the_description_is_valid() -> None:
    command = (openapi_python(), "-m", "openapi_spec_validator", DOCS / "openapi.yaml")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.full
async def test_the_service_does_what_the_description_says(
    service: Service, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Schemathesis asks what may be asked and what may not, and follows answers into questions."""
    url = str(http._base_url)
    started = await asyncio.create_subprocess_exec(
        openapi_python(),
        *("-m", "schemathesis.cli", "--no-color", "run", DOCS / "openapi.yaml", f"--url={url}"),
        *("--max-examples=25", "--seed=1", "--generation-database=none"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(started.communicate(), 200)
    assert started.returncode == 0, output.decode()
    assert b"Tested: 5" in output
