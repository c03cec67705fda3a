"""Failures for people: what is kept of each, how it is shown, and how it is logged."""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from exporter import config
from exporter.batch.client import BatchClient
from exporter.batch.models import FailureInfo, NameValuePair, Task
from exporter.collectors import JOB_COLLECTORS, preparation_release, tasks
from exporter.collectors.preparation_release import PreparationRelease
from exporter.collectors.tasks import JobTasks
from exporter.service.log_lines import LogfmtFormatter
from exporter.service.service import Service, open_service
from exporter.simulator import SCENARIOS, Clock, World, serve
from exporter.simulator.ledger import RunCompleted, TaskCompleted
from exporter.state.failures import LATEST, Failure, Failures, latest
from exporter.state.journal import StateFile
from exporter.state.saved import Changes
from exporter.state.timestamps import iso_time
from exporter.state.watched_job import WatchedJob
from exporter.web.app import build_app
from exporter.web.server.listener import listen
from tests.fake_batch import FakeBatch
from tests.killable import Exporter
from tests.test_collectors import nodes, run
from tests.test_selection import job, rule
from tests.test_tasks import failed, succeeded
from tests.truth import seconds
from tools.sample_job import nodes_read, tasks_read

START = datetime(2026, 6, 1, 12, tzinfo=UTC)

INFO: dict[str, Any] = {
    "category": "UserError",
    "code": "FailureExitCode",
    "message": "The task exited with an exit code representing a failure",
    "details": [{"name": "Message", "value": "unexpected exit code"}],
}
FAILED = run(
    state="completed",
    startTime="2026-01-01T10:00:00Z",
    endTime="2026-01-01T10:00:05.25Z",
    exitCode=3,
    result="Failure",
    failureInfo=INFO,
)
ENDED = datetime(2026, 1, 1, 10, 0, 5, 250_000, tzinfo=UTC).timestamp()


def failure(number: int, *, node: str | None = None, time: float | None = None) -> Failure:
    moment = None if time is None else iso_time(time)
    where = {"task_id": f"t{number}", "node_id": node}
    return Failure("acc", "job-1", "task", "usererror", "FailureExitCode", time=moment, **where)


# What collectors tell


def folded(state: PreparationRelease | None, *entries: dict[str, Any]) -> Any:
    reading = nodes_read("pool-1", nodes(*entries), 0.0, 0.0)
    return preparation_release.fold(state, reading, 0.0, False)


def test_a_run_that_failed_is_told_once_with_what_is_no_label() -> None:
    entry = {"jobPreparationTaskExecutionInfo": FAILED}
    first = folded(None, entry)
    assert first.events.failures == [
        Failure(
            *("", "", "preparation", "usererror", "FailureExitCode"),
            time=iso_time(ENDED),
            pool_id="pool-1",
            node_id="tvm-0",
            exit_code=3,
            message=INFO["message"],
            details=(NameValuePair("Message", "unexpected exit code"),),
        )
    ]
    again = folded(first.state, {"nodeId": "tvm-0", **entry}, {"nodeId": "tvm-0", **entry})
    assert again.events.failures == []
    released = folded(again.state, {**entry, "jobReleaseTaskExecutionInfo": FAILED})
    assert [(each.kind, each.node_id) for each in released.events.failures] == [
        ("release", "tvm-0")
    ]
    rerun = {**FAILED, "startTime": "2026-01-01T11:00:00Z", "exitCode": 4}
    # Two records of one node, which pages may hold: it failed twice, and both are told.
    both = folded(
        released.state,
        {"nodeId": "n", **entry},
        {"nodeId": "n", "jobPreparationTaskExecutionInfo": rerun},
    )
    assert [(each.node_id, each.exit_code) for each in both.events.failures] == [("n", 3), ("n", 4)]


async def test_a_task_that_failed_is_told_once(batch: FakeBatch, client: BatchClient) -> None:
    listing = {"value": [failed("a", failureInfo=INFO), succeeded("b"), failed("c", exitCode=None)]}
    batch.json("/jobs/job-1/tasks", listing)
    state: JobTasks | None = None
    told = []
    for _ in range(2):
        watched = WatchedJob(job("job-1"), rule(id="job-1"))
        folded = tasks.fold(state, await tasks.read(client, watched, state, 0.0), 0.0, True)
        state = folded.state
        told += folded.events.failures
    assert [(each.task_id, each.exit_code, each.message) for each in told] == [
        ("a", 1, INFO["message"]),
        ("c", None, "task a on node tvm-7"),
    ]


WITH_COMMAND_LINE = {
    **INFO,
    "details": [{"name": "CommandLine", "value": "/bin/bash -c true"}, *INFO["details"]],
}
RAN_WITH_COMMAND_LINE = failed("a", failureInfo=WITH_COMMAND_LINE)


@pytest.mark.parametrize("command_lines", [False, True])
@pytest.mark.parametrize(
    ("collector", "path", "answer"),
    [
        ("tasks", "tasks", {"value": [RAN_WITH_COMMAND_LINE]}),
        ("watched_tasks", "tasks/a", RAN_WITH_COMMAND_LINE),
        (
            "preparation_release",
            "jobpreparationandreleasetaskstatus",
            {
                "value": [
                    {"jobReleaseTaskExecutionInfo": {**FAILED, "failureInfo": WITH_COMMAND_LINE}}
                ]
            },
        ),
    ],
)
async def test_a_command_line_is_kept_only_if_the_rule_says_so(
    collector: str,
    path: str,
    answer: Any,
    command_lines: bool,
    batch: FakeBatch,
    client: BatchClient,
) -> None:
    batch.json(f"/jobs/job-1/{path}", answer)
    own = JOB_COLLECTORS[collector]
    given = rule(id="job-1", tasks=("a",), command_lines=command_lines)
    reading = await own.read(client, WatchedJob(job("job-1"), given), None, 0.0)
    folded = own.fold(None, reading, 0.0, True)
    (told,) = folded.events.failures
    names = [detail.name for detail in told.details]
    assert names == (["CommandLine", "Message"] if command_lines else ["Message"])
    saved = [own.dump(folded.state), *(msgspec.json.encode(record) for _, record in folded.records)]
    assert command_lines or not any(b"bash" in each for each in saved)


def test_what_the_container_runtime_said_is_told_masked_and_cut() -> None:
    error = 'OCI runtime create failed: exec: "prepare": executable file not found'
    given = {"containerId": "", "state": "", "error": f"{error} sig=abc123 {'x' * 5000}"}
    entry = {"jobPreparationTaskExecutionInfo": {**FAILED, "containerInfo": given}}
    task = msgspec.convert(failed("t", failureInfo=INFO, containerInfo=given), Task)
    for (failure,) in (folded(None, entry).events.failures, tasks_read((task,)).failures):
        said = {detail.name: detail.value or "" for detail in failure.details}
        assert list(said) == ["ContainerError", "Message"]
        assert said["ContainerError"].startswith(f"{error} sig=<redacted> xxx")
        assert len(said["ContainerError"]) == 1001


def test_a_text_without_end_is_cut() -> None:
    info = msgspec.convert(
        {"code": "x" * 5000, "message": "ü" * 5000, "details": [{"name": "n", "value": "v"}] * 50},
        FailureInfo,
    )
    found = Failure.of("task", info, ended=None, task_id="t")
    assert (len(found.code), len(found.message or ""), len(found.details)) == (1001, 1001, 20)
    assert found.category == "unknown"
    assert Failure.of("task", None, ended=None).code == "other"


# What is kept


def test_the_latest_of_all_accounts_come_first_and_each_account_has_a_limit() -> None:
    failures = Failures()
    many = [failure(number, time=float(number)) for number in range(3 * LATEST)]
    failures.add("acc", many, is_logged=False)
    last = iso_time(1.5)
    other = Failure("other", "j", "task", "unknown", "other", "g", last, task_id="t")
    failures.add("other", [other], is_logged=False)
    found = failures.latest()
    assert [each.time for each in found] == [
        *(iso_time(3.0 * LATEST - 1 - number) for number in range(LATEST)),
        last,
    ]
    assert len(latest(many)) == LATEST


def test_the_same_failure_read_twice_is_one_and_the_node_is_kept() -> None:
    failures = Failures()
    plain, with_node = failure(1, time=5.0), failure(1, time=5.0, node="tvm-1")
    assert failures.add("acc", [plain, plain], is_logged=True) == [plain]
    assert failures.add("acc", [with_node], is_logged=True) == [with_node]
    assert failures.add("acc", [plain], is_logged=True) == []
    assert failures.latest() == [with_node]
    later = failure(1, time=6.0)
    assert failures.add("acc", [later], is_logged=True) == [later]


# What is logged


@pytest.fixture
def lines() -> Iterator[Callable[[], list[str]]]:
    """Log lines since they were asked for, without time, level and source."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LogfmtFormatter())
    log = logging.getLogger("exporter.state.failures")
    log.addHandler(handler)

    def read() -> list[str]:
        text = stream.getvalue()
        stream.truncate(0)
        stream.seek(0)
        return [line.partition(" msg=")[2] for line in text.splitlines()]

    yield read
    log.removeHandler(handler)


def test_each_failure_is_one_line(lines: Callable[[], list[str]]) -> None:
    failures = Failures(lambda: 0.0)
    of = Failure(
        *("acc", "job-1", "preparation", "usererror", "FailureExitCode", "nf", iso_time(ENDED)),
        pool_id="pool-1",
        node_id="tvm-0",
        exit_code=3,
        message='no "disk"\nleft',
    )
    failures.add("acc", [of], is_logged=True)
    failures.add("acc", [failure(1)], is_logged=True)
    failures.add("acc", [failure(1)], is_logged=True)
    failures.add("acc", [failure(2)], is_logged=False)  # it was there before we were
    assert lines() == [
        '"job preparation task failed" account=acc job_id=job-1 category=usererror'
        " code=FailureExitCode job_group=nf pool_id=pool-1 node_id=tvm-0 exit_code=3"
        ' failed_at=2026-01-01T10:00:05.250Z failure_message="no \\"disk\\"\\nleft"',
        '"task failed" account=acc job_id=job-1 category=usererror code=FailureExitCode task_id=t1',
    ]


def test_a_storm_of_failures_does_not_flood_the_log(lines: Callable[[], list[str]]) -> None:
    now = 0.0
    failures = Failures(lambda: now)
    failures.add("acc", [failure(number) for number in range(1000)], is_logged=True)
    told = lines()
    assert len(told) == 31
    assert told[-1] == (
        '"failures come too fast to log each: /api/v1/failures has the latest" account=acc'
    )
    now = 60.0
    failures.add("acc", [failure(number) for number in range(1000, 1010)], is_logged=True)
    told = lines()
    assert told[0] == '"970 failures were not logged" account=acc'
    assert told[1].endswith("task_id=t1000") and len(told) == 11
    failures.add("other", [failure(1)], is_logged=True)  # another account has a limit of its own
    assert len(lines()) == 1


# What is served


@pytest.fixture
async def service(
    batch: FakeBatch, make_config: Callable[..., config.Config], official: Callable[[str], Any]
) -> AsyncIterator[Service]:
    """A service of a job with two failures."""
    batch.json("/jobs", {"value": [{"id": "job-1", "state": "active"}]})
    batch.json("/jobs/job-1/taskcounts", official("JobGetTaskCounts"))
    entry = {"poolId": "pool-1", "nodeId": "tvm-1", "jobPreparationTaskExecutionInfo": FAILED}
    batch.json("/jobs/job-1/jobpreparationandreleasetaskstatus", {"value": [entry]})
    batch.json("/jobs/job-1/tasks", {"value": [failed("a", ended="10:01:00")]})
    batch.json("/nodecounts", {"value": []})
    made = make_config(
        batch.endpoint, defaults={"collect": ["task_counts", "preparation_release", "tasks"]}
    )
    async with open_service(made) as opened:
        await opened.run_once()
        yield opened


async def ask(service: Service, query: str = "") -> tuple[int, Any]:
    server = await listen(build_app(service, "/metrics"), (("127.0.0.1", 0),))
    try:
        async with (
            aiohttp.ClientSession(server.urls[0]) as session,
            session.get(f"/api/v1/failures{query}") as response,
        ):
            return response.status, await response.json()
    finally:
        await server.close()


async def test_failures_as_json(service: Service) -> None:
    preparation = {
        "account": "myaccount",
        "job_id": "job-1",
        "kind": "preparation",
        "category": "usererror",
        "code": "FailureExitCode",
        "time": "2026-01-01T10:00:05.250Z",
        "pool_id": "pool-1",
        "node_id": "tvm-1",
        "exit_code": 3,
        "message": INFO["message"],
        "details": INFO["details"],
    }
    task = {
        "account": "myaccount",
        "job_id": "job-1",
        "kind": "task",
        "category": "usererror",
        "code": "FailureExitCode",
        "time": "2026-01-01T10:01:00.000Z",
        "task_id": "a",
        "exit_code": 1,
        "message": "task a on node tvm-7",
    }
    assert await ask(service) == (200, {"failures": [task, preparation]})
    for query, expected in (
        ("?limit=1", [task]),
        ("?limit=0", []),
        ("?kind=preparation", [preparation]),
        ("?account=myaccount&job_id=job-1&limit=5", [task, preparation]),
        ("?account=other", []),
    ):
        assert await ask(service, query) == (200, {"failures": expected})


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("?limit=-1", "limit must be a number from 0 to 999999, not '-1'"),
        ("?limit=" + "9" * 5000, "limit must be a number from 0 to 999999, not"),
        ("?state=x", "unknown parameter: state"),
    ],
)
async def test_a_query_that_cannot_be_is_refused(service: Service, query: str, error: str) -> None:
    status, body = await ask(service, query)
    assert status == 400
    assert body["error"].startswith(error)


# Over restarts


async def test_the_state_file_keeps_the_latest(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "s.db", JOB_COLLECTORS, lambda _: None)
    for first in range(0, 3 * LATEST, LATEST):
        numbers = range(first, first + LATEST)
        file.write(
            Changes("acc", failures=[failure(n, time=float(n)) for n in numbers]), lambda: None
        )
    file.write(Changes("other", failures=[failure(1)]), lambda: None)
    await file.close()
    file = StateFile(tmp_path / "s.db", JOB_COLLECTORS, lambda _: None)
    kept = file.load("acc").failures
    assert len(file.load("other").failures) == 1
    await file.close()
    assert {each.time for each in kept} == {iso_time(2.0 * LATEST + n) for n in range(LATEST)}
    assert kept[0] == failure(2 * LATEST, time=2.0 * LATEST)


# Against the truth


@pytest.mark.parametrize(
    ("scenario", "kind"), [("flaky-tasks", "task"), ("prep-storm", "preparation")]
)
async def test_failures_are_those_of_the_ledger_over_a_restart_too(
    scenario: str,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    lines: Callable[[], list[str]],
) -> None:
    """Polled every second: each failed run and task once, with its time and exit code."""
    world = World(SCENARIOS[scenario], seed=3, jobs=6, nodes=4, start=START, ledger=True)
    clock = Clock(START, speed=0.0)
    async with serve(world, clock) as simulation:
        monkeypatch.setenv("SIMULATED_KEY", simulation.account_key)
        exporter = Exporter(simulation, clock, tmp_path, "", saves=True)
        await exporter.start()
        await exporter.round()
        before = set(shown(exporter))
        assert lines() == []  # they are shown, but are no news
        since = world.tick
        for second in range(90):
            clock.advance(1.0)
            await exporter.poll()
            if second == 40:
                await exporter.stop()
                await exporter.start()
        found = Counter(
            (f.job_id, f.kind, f.node_id or f.task_id, f.time, f.exit_code, f.code, f.category)
            for f in shown(exporter)
            if f not in before
        )
        await exporter.stop()
    true = Counter(
        (
            e.job_id,
            e.kind,
            e.node_id,
            iso(e.ended),
            e.exit_code,
            e.code,
            low(e.category),
        )
        for e in world.ledger.of(RunCompleted, since_tick=since)
        if e.result == "failure"
    ) + Counter(
        (
            e.job_id,
            "task",
            e.task_id,
            iso(e.tick),
            e.exit_code,
            e.code,
            low(e.category),
        )
        for e in world.ledger.of(TaskCompleted, since_tick=since)
        if e.result == "failure"
    )
    assert found == true
    assert kind in {of for _, of, *_ in true}


def shown(exporter: Exporter) -> list[Failure]:
    assert exporter.service is not None
    return exporter.service.failures.latest()


def iso(tick: int) -> str | None:
    return iso_time(seconds(tick))


def low(category: str | None) -> str:
    return (category or "unknown").lower()
