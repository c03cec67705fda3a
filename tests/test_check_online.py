"""`check --online`: the real program against a simulated account, and what it says of it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from jsonschema import Draft202012Validator

from exporter.batch.auth import SignIns
from exporter.cli.preflight.account_check import (
    AccountCheck,
    check_accounts,
)
from exporter.config import loader
from exporter.simulator import (
    SCENARIOS,
    Call,
    Clock,
    Faults,
    Proceed,
    Rule,
    World,
    serve,
    serve_identity,
)
from exporter.simulator.error_answers import authentication_failed
from tests.certificates import Authority
from tests.process import finish

ROOT = Path(__file__).parent.parent
START = datetime(2026, 6, 1, 12, tzinfo=UTC)

EVERYTHING = [
    {"id_regex": r"nf-(?P<pipeline>[a-z]+)-.*", "group": "${pipeline}"},
    {"id": "nobody-has-this", "tasks": ["merge"]},
    {"id_regex": ".*", "collect": ["task_counts", "preparation_release", "tasks"]},
    {"id_regex": "nf-.*"},
]
"""Rules that need every operation there is; the last never gets a job."""


def world(jobs: int = 8) -> World:
    return World(SCENARIOS["steady"], seed=2, jobs=jobs, nodes=3, start=START)


def configuration(endpoint: str, **account: Any) -> str:
    made = {
        "name": "simulated",
        "endpoint": endpoint,
        "auth": {"method": "shared_key", "key_env": "KEY"},
        "requests_per_second": 1000,
        "request_timeout": "30s",
        **account,
    }
    return json.dumps({"accounts": [made]})


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Any]:
    """Run `check --online` as a process; gives exit status and what it prints."""

    async def run(
        endpoint: str, environment: dict[str, str], *flags: str, **account: Any
    ) -> tuple[int, str]:
        file = tmp_path / "config.yaml"
        file.write_text(configuration(endpoint, **account))
        status, output, errors = await finish(
            "check", "--online", f"--config.file={file}", *flags, **environment
        )
        assert errors == ""
        return status, output

    return run


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """What `check --online --format=json` prints, without starting a process."""

    async def run(endpoint: str, environment: dict[str, str], **account: Any) -> Any:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        loaded = loader.parse(configuration(endpoint, **account), "config.yaml", tmp_path)
        return msgspec.to_builtins(await check_accounts(loaded, "config.yaml"))

    return run


@asynccontextmanager
async def tls_server(app: web.Application, certificate: Path, key: Path) -> AsyncIterator[int]:
    """Serve an application over TLS on a loopback port, which it gives."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def causes(found: Any) -> dict[str, str]:
    """Cause of each error, by where it is or by the operation that failed."""
    (account,) = found["accounts"]
    return {
        problem["text"].partition(",")[0]: problem["cause"]
        for problem in account["problems"]
        if problem["level"] == "error"
    }


async def test_what_a_configuration_will_meet_and_cost_is_foretold(
    check: Callable[..., Any], golden: Callable[[str, str], None]
) -> None:
    async with serve(world(), Clock(START, speed=0.0)) as simulation:
        key = {"KEY": simulation.account_key}
        status, text = await check(simulation.endpoint, key, jobs=EVERYTHING)
    assert status == 0
    text = re.sub(r"\S+/config.yaml", "config.yaml", text)
    golden("check_online.txt", text.replace(simulation.endpoint, "http://127.0.0.1:PORT"))


async def test_the_report_as_json_has_the_shape_that_is_documented(
    check: Callable[..., Any],
) -> None:
    async with serve(world(), Clock(START, speed=0.0)) as simulation:
        key = {"KEY": simulation.account_key}
        status, output = await check(simulation.endpoint, key, "--format=json", jobs=EVERYTHING)
    found = json.loads(output)
    schema = json.loads((ROOT / "docs" / "check.schema.json").read_text())
    validator = Draft202012Validator(schema)
    assert not list(validator.iter_errors(found))
    assert list(validator.iter_errors({**found, "ok": "yes"}))
    assert (status, found["ok"], found["version"]) == (0, True, 1)


async def test_rules_that_take_jobs_from_each_other_are_told(report: Callable[..., Any]) -> None:
    async with serve(world(), Clock(START, speed=0.0)) as simulation:
        key = {"KEY": simulation.account_key}
        found = await report(simulation.endpoint, key, jobs=EVERYTHING)
        states = {job.id: job.state for job in simulation.world.jobs.values()}
    ids = {job_id for job_id, state in states.items() if state not in ("completed", "deleting")}
    (account,) = found["accounts"]
    pipelines = {each for each in ids if each.startswith("nf-")}
    first, named, rest, shadowed = account["rules"]
    assert pipelines and ids - pipelines
    assert first["matches"] == first["jobs"] == len(pipelines)
    assert (rest["matches"], rest["jobs"]) == (len(ids), len(ids - pipelines))
    assert (shadowed["matches"], shadowed["jobs"]) == (len(pipelines), 0)
    assert named["matches"] == 0
    problems = {problem["where"]: problem["cause"] for problem in account["problems"]}
    assert problems == {"accounts[0].jobs[1]": "no_match", "accounts[0].jobs[3]": "shadowed"}


async def test_each_job_that_a_rule_names_is_read(report: Callable[..., Any]) -> None:
    async with serve(world(30), Clock(START, speed=0.0)) as simulation:
        key = {"KEY": simulation.account_key}
        named = [{"id": each.id, "states": [each.state]} for each in simulation.world.jobs.values()]
        found = await report(simulation.endpoint, key, jobs=named)
    (account,) = found["accounts"]
    assert [rule["jobs"] for rule in account["rules"]] == [1] * len(named)
    assert account["problems"] == []


async def test_two_rules_without_a_job_are_no_problem(report: Callable[..., Any]) -> None:
    rules = [{"id_regex": ".*", "metadata": {"stage": name}} for name in ("dev", "test")]
    async with serve(world(), Clock(START, speed=0.0)) as simulation:
        found = await report(simulation.endpoint, {"KEY": simulation.account_key}, jobs=rules)
    (account,) = found["accounts"]
    assert [rule["requests_per_minute"] for rule in account["rules"]] == [0, 0]
    assert {problem["cause"] for problem in account["problems"]} == {"no_match"}


async def test_a_check_that_needs_too_many_requests_says_so(report: Callable[..., Any]) -> None:
    async with serve(world(), Clock(START, speed=0.0)) as simulation:
        key = {"KEY": simulation.account_key}
        many = [{"id": f"nobody-has-this-{number}"} for number in range(100)]
        found = await report(simulation.endpoint, key, jobs=many)
    assert sum(simulation.requests.values()) == 200
    causes = [problem["cause"] for problem in found["accounts"][0]["problems"]]
    assert causes == ["no_match"] * 100 + ["incomplete"]


async def test_the_series_that_are_foretold_are_those_that_a_scrape_then_has(
    report: Callable[..., Any], tmp_path: Path
) -> None:
    async with serve(world(30), Clock(START, speed=0.0)) as simulation:
        key = {"KEY": simulation.account_key}
        found = await report(simulation.endpoint, key, jobs=EVERYTHING)
        file = tmp_path / "config.yaml"
        file.write_text(configuration(simulation.endpoint, jobs=EVERYTHING))
        _, output, _ = await finish("scrape", f"--config.file={file}", **key)
    (account,) = found["accounts"]
    own = "azure_batch_exporter_"
    lines = [line for line in output.splitlines() if line[0] != "#" and not line.startswith(own)]
    assert account["series"] == pytest.approx(len(lines), rel=0.15)
    assert sum(simulation.requests.values()) < 100  # those of the scrape too


async def test_the_ceilings_that_will_be_met_are_told(report: Callable[..., Any]) -> None:
    async with serve(world(30), Clock(START, speed=0.0)) as simulation:
        key = {"KEY": simulation.account_key}
        often = [{"id_regex": ".*", "interval": "1s"}]
        found = await report(
            simulation.endpoint,
            key,
            jobs=often,
            max_jobs=2,
            max_series=1000,
            requests_per_second=10,
        )
    (account,) = found["accounts"]
    told = {each["cause"]: each["where"] for each in account["problems"]}
    assert told == {
        each: f"accounts[0].{each}" for each in ("max_jobs", "max_series", "requests_per_second")
    }
    assert found["ok"]  # it will run
    assert account["jobs"] == 2


OPERATIONS = {
    "Job_List": "jobs",
    "Job_Get": "jobs",
    "Job_GetTaskCounts": "jobs",
    "Job_ListPreparationAndReleaseTaskStatus": "jobs",
    "Task_List": "jobs",
    "Task_Get": "jobs",
    "Account_ListPoolNodeCounts": "pools",
}


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_permission_that_is_missing_is_named_with_the_role(
    operation: str, report: Callable[..., Any]
) -> None:
    faults = Faults(Rule("forbidden", operation=operation))
    async with (
        serve(world(), Clock(START, speed=0.0), interceptors=(faults,)) as simulation,
        serve_identity(simulation.tokens) as identity,
    ):
        found = await report(
            simulation.endpoint,
            {"AZURE_POD_IDENTITY_AUTHORITY_HOST": identity.url},
            auth={"method": "managed_identity"},
            jobs=EVERYTHING,
        )
    assert not found["ok"]
    (account,) = found["accounts"]
    tried = {each["name"]: each["is_ok"] for each in account["operations"]}
    assert tried == {"sign_in": True} | {name: name != operation for name in OPERATIONS}
    (problem,) = [each for each in account["problems"] if each["level"] == "error"]
    assert problem["cause"] == "role"
    assert f"{operation}, which" in problem["text"]
    right = f"Microsoft.Batch/batchAccounts/{OPERATIONS[operation]}/read"
    assert problem["text"].endswith(f"what is missing is {right}")
    assert "Azure Batch Account Reader" in problem["cure"]


async def test_permissions_are_tried_where_there_is_no_job_yet(report: Callable[..., Any]) -> None:
    faults = Faults(Rule("forbidden", operation="Job_GetTaskCounts"))
    async with serve(world(), Clock(START, speed=0.0), interceptors=(faults,)) as simulation:
        key = {"KEY": simulation.account_key}
        found = await report(simulation.endpoint, key, jobs=[{"id_regex": "to-come-.*"}])
    assert causes(found) == {"Job_GetTaskCounts": "permission"}  # a key has every role


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("date-ahead", "clock"),
        ("date-behind", "clock"),
        ("date-missing", None),
        ("unsupported-version", "api_version"),
        ("html-instead", "invalid"),
        ("moved-permanently", "endpoint"),
        ("not-found-html", "endpoint"),
        ("account-disabled", "account_disabled"),
        ("too-many-requests-huge", "throttled"),
    ],
)
async def test_each_trouble_of_an_account_is_known_by_its_cause(
    fault: str, cause: str | None, report: Callable[..., Any]
) -> None:
    faults = Faults(Rule(fault))
    async with serve(world(), Clock(START, speed=0.0), interceptors=(faults,)) as simulation:
        found = await report(simulation.endpoint, {"KEY": simulation.account_key})
    assert set(causes(found).values()) == ({cause} if cause else set())
    assert found["ok"] == (cause is None)


async def test_a_clock_that_is_wrong_is_why_signatures_are_refused(
    check: Callable[..., Any],
) -> None:
    async def too_late(_request: web.Request, _call: Call, _proceed: Proceed) -> web.Response:
        raise authentication_failed(
            "The date of the request is more than 15 minutes away from the server's."
        )

    async with serve(world(), Clock(START, speed=0.0), interceptors=(too_late,)) as simulation:
        status, text = await check(simulation.endpoint, {"KEY": simulation.account_key})
    assert status == 1
    assert "error: accounts[0]: clock: Job_List, which jobs[].id_regex needs: HTTP 403" in text
    assert "cure: set this machine's clock right, with NTP" in text


@pytest.mark.parametrize(
    ("name", "key", "cause"),
    [("simulated", base64.b64encode(bytes(64)).decode(), "key"), ("another", "", "account_name")],
)
async def test_a_wrong_key_is_told_from_a_wrong_name(
    name: str, key: str, cause: str, check: Callable[..., Any]
) -> None:
    async with serve(world(), Clock(START, speed=0.0)) as simulation:
        environment = {"KEY": key or simulation.account_key}
        status, output = await check(simulation.endpoint, environment, "--format=json", name=name)
    found = json.loads(output)
    assert environment["KEY"] not in output
    assert (status, causes(found)) == (1, {"Job_List": cause})
    assert simulation.requests == {"Job_List": 1}  # every other one would fail alike


async def test_a_token_for_the_wrong_audience_is_told(check: Callable[..., Any]) -> None:
    scope = "https://batch.core.windows.net/.default"
    async with (
        serve(world(), Clock(START, speed=0.0)) as simulation,
        serve_identity(simulation.tokens) as identity,
    ):
        status, text = await check(
            simulation.endpoint,
            {"AZURE_POD_IDENTITY_AUTHORITY_HOST": identity.url},
            auth={"method": "managed_identity", "scope": scope},
        )
    assert status == 1
    assert "error: accounts[0]: scope: Job_List" in text
    assert "cure: leave auth.scope out" in text


def refused(number: int, error: str, text: str) -> Callable[[web.Request], Any]:
    """An answer of Microsoft Entra ID's token endpoint."""

    async def answer(_: web.Request) -> web.Response:
        description = f"AADSTS{number}: {text} Trace ID: 0 Correlation ID: 0"
        body = {"error": error, "error_description": description, "error_codes": [number]}
        return web.json_response(body, status=400)

    return answer


async def test_a_tenant_that_nobody_knows_is_told(
    check: Callable[..., Any], tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.server()
    app = web.Application()
    unknown = refused(90002, "invalid_request", "Tenant 'nobody' not found.")
    app.router.add_post("/nobody/oauth2/v2.0/token", unknown)
    async with (
        tls_server(app, certificate, key) as port,
        serve(world(), Clock(START, speed=0.0)) as simulation,
    ):
        status, text = await check(
            simulation.endpoint,
            {
                "SECRET": "hush",
                "AZURE_AUTHORITY_HOST": f"https://localhost:{port}",
                "SSL_CERT_FILE": str(authority.file),
            },
            auth={
                "method": "client_secret",
                "tenant_id": "nobody",
                "client_id": "c",
                "client_secret_env": "SECRET",
            },
            request_timeout="10s",
        )
    assert status == 1
    assert "error: accounts[0].auth: tenant: " in text
    assert "AADSTS90002: Tenant 'nobody' not found." in text
    assert "cure: set tenant_id to the directory in which the application is" in text
    assert simulation.requests == {}


async def test_an_endpoint_that_is_wrong_is_told_by_how_far_one_comes(
    report: Callable[..., Any], tmp_path: Path
) -> None:
    key = {"KEY": base64.b64encode(bytes(64)).decode()}
    certificate, private = Authority(tmp_path).server()
    async with tls_server(web.Application(), certificate, private) as port:
        for endpoint, cause in (
            ("https://simulated.westeurope.batch.invalid", "dns"),
            ("https://127.0.0.1:1", "connection"),
            (f"https://localhost:{port}", "tls"),
        ):
            found = await report(endpoint, key)
            assert causes(found) == {"Job_List": cause}


async def test_what_could_not_be_asked_is_not_known_and_what_failed_is_failed(
    check: Callable[..., Any],
) -> None:
    async def nobody(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    app = web.Application()
    app.router.add_get("/{path:.*}", nobody)
    key = {"KEY": base64.b64encode(bytes(64)).decode()}
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        status, text = await check(f"http://127.0.0.1:{runner.addresses[0][1]}", key)
    finally:
        await runner.cleanup()
    assert status == 1
    assert re.search(r"^  Job_List +failed ", text, re.MULTILINE)
    assert re.search(r"^  Job_GetTaskCounts +failed ", text, re.MULTILINE)
    assert not re.search(r"^  (Job|Account)_\w+ +ok ", text, re.MULTILINE)
    assert "    jobs: not known\n    series and requests: not known\n" in text
    assert "  in all: jobs: not known, series and requests: not known\n" in text
    assert "cause: " not in text and ": invalid: Job_List, which" in text


async def test_a_key_that_is_refused_one_operation_is_not_a_network_that_refuses(
    report: Callable[..., Any], check: Callable[..., Any]
) -> None:
    for fault, operation, expected in (
        ("forbidden", "Job_List", "permission"),  # the first one that is asked for
        ("insufficient-permissions", None, "permission"),
        ("forbidden", None, "network"),
    ):
        faults = Faults(Rule(fault, operation=operation))
        async with serve(world(), Clock(START, speed=0.0), interceptors=(faults,)) as simulation:
            key = {"KEY": simulation.account_key}
            found = await report(simulation.endpoint, key)
            assert set(causes(found).values()) == {expected}
            _, text = await check(simulation.endpoint, key)
    (account,) = found["accounts"]
    problem = account["problems"][0]
    assert re.fullmatch(
        r"request-id [0-9a-f-]{36}, client-request-id [0-9a-f-]{36}", problem["trace"]
    )
    assert text.count("  for support: request-id ") == len(account["problems"])
    assert (account["jobs"], account["series"], account["requests_per_minute"]) == (None,) * 3


async def test_a_check_ends_though_the_account_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def hang(_request: web.Request, call: Call, proceed: Proceed) -> web.StreamResponse:
        if call.operation == "Account_ListPoolNodeCounts":
            asked.set()
            await asyncio.Event().wait()
        return await proceed()

    async with serve(world(), Clock(START, speed=0.0), interceptors=(hang,)) as simulation:
        monkeypatch.setenv("KEY", simulation.account_key)
        text = configuration(simulation.endpoint, request_timeout="1h")
        config = loader.parse(text, "config.yaml", tmp_path)
        found = await AccountCheck(config, 0, SignIns()).run(within=0.2)
    assert asked.is_set()
    assert [(each.level, each.cause) for each in found.problems] == [("error", "timeout")]
    operations = {each.name: each.is_ok for each in found.operations}
    assert operations["Job_List"]  # what is known by then is told
    assert operations["Account_ListPoolNodeCounts"] is None


async def test_a_configuration_that_is_wrong_asks_nobody(tmp_path: Path) -> None:
    async with serve(world(), Clock(START, speed=0.0)) as simulation:
        file = tmp_path / "config.yaml"
        file.write_text(f"accounts: [{{name: a, endpoint: '{simulation.endpoint}', jbos: []}}]")
        status, output, errors = await finish("check", "--online", f"--config.file={file}")
    assert (status, output) == (2, "")
    assert "did you mean jobs?" in errors
    assert simulation.requests == {}
