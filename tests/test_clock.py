"""Clocks that are wrong: the service's header Date, this machine's, and that of an earlier process.

Nothing may be lost by them, and no reading may be put off until a time that is still to come.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from aiohttp import web

from exporter import collectors
from exporter.batch.client import BatchClient
from exporter.batch.models import Job, Task
from exporter.collectors import tasks
from exporter.collectors.tasks import JobTasks
from exporter.collectors.watched_tasks import Found, may_ask_by_etag
from exporter.exposition.body import Exposition
from exporter.simulator import SCENARIOS, Clock, World, serve
from exporter.simulator.operations import Call
from exporter.simulator.server import Proceed
from exporter.state.saved import Saved
from exporter.state.watched_job import SelectedJobs, WatchedJob
from tests.conftest import Observed
from tests.fake_batch import FakeBatch, batch_error, reply
from tests.killable import Exporter
from tests.test_selection import rule
from tests.test_tasks import Api

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = 86400.0


@pytest.mark.parametrize(
    ("days", "wrong"), [(1, range(1)), (1, range(4, 5)), (1, range(4, 8)), (-1, range(4, 5))]
)
async def test_a_wrong_date_in_some_rounds_changes_nothing_that_is_shown(
    days: int, wrong: range, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = World(SCENARIOS["flaky-tasks"], seed=3, jobs=6, nodes=4, start=START)
    clock = Clock(START, speed=0.0)
    number = 0

    async def date(_: web.Request, __: Call, proceed: Proceed) -> web.StreamResponse:
        response = await proceed()
        if number in wrong:
            away = datetime.now(UTC) + timedelta(days=days)
            response.headers["Date"] = format_datetime(away, usegmt=True)
        return response

    async with serve(world, clock) as right, serve(world, clock, interceptors=[date]) as odd:
        monkeypatch.setenv("SIMULATED_KEY", right.account_key)
        exporters = [
            Exporter(each, clock, tmp_path, "", saves=False, defaults="{resync_interval: 3m}")
            for each in (right, odd)
        ]
        for exporter in exporters:
            await exporter.start()
        for number in range(14):
            clock.advance(30.0)
            shown = []
            for exporter in exporters:
                await exporter.poll()
                exporter.exposed()  # what waits until its 0 was read depends on the polls' order
                shown.append(exporter.exposed())
            assert shown[0] == shown[1], number
        for exporter in exporters:
            await exporter.stop()
    failed = "azure_batch_account_tasks_failed_total"
    assert sum(value for (name, _), value in shown[0].items() if name == failed) > 20


def stepping(*times: float) -> Callable[[], float]:
    """A clock that shows these times in turn."""
    left = list(times)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


DATE = datetime(2026, 6, 1, 12, tzinfo=UTC)
HEADERS = {"Date": format_datetime(DATE, usegmt=True)}
TRUE = DATE.timestamp() + 0.5


@pytest.mark.parametrize(
    ("now", "offsets"),
    [
        pytest.param(stepping(TRUE + 90.0), [0.0, -90.0, -90.0], id="always late"),
        pytest.param(stepping(TRUE, TRUE - DAY, TRUE), [0.0, 0.0, 0.0], id="one answer"),
        pytest.param(
            stepping(TRUE, TRUE + DAY, TRUE + DAY), [0.0, 0.0, -DAY], id="stepped forward"
        ),
        pytest.param(stepping(TRUE, TRUE + DAY, TRUE - DAY), [0.0] * 3, id="two that differ"),
        pytest.param(stepping(TRUE, TRUE + 8.0, TRUE + 9.0), [0.0, -8.0, -9.0], id="drifting"),
        # It would ask for changes from a time that is still to come.
        pytest.param(stepping(TRUE - DAY), [0.0] * 3, id="service far ahead"),
        pytest.param(stepping(TRUE - 200.0), [0.0, 200.0, 200.0], id="service ahead"),
    ],
)
async def test_a_jump_of_the_clocks_is_believed_when_a_second_answer_shows_it(
    batch: FakeBatch, client: BatchClient, offsets: list[float]
) -> None:
    batch.on("/jobs/j", reply({"id": "j"}, headers=HEADERS))
    seen = []
    for _ in offsets:
        await client.get_job("j")
        seen.append(client.clock.offset_for_changes)
    assert seen == offsets


@pytest.mark.parametrize(
    ("now", "skews"),
    [
        (stepping(TRUE, *[TRUE + DAY] * 3, TRUE), [0.0, 0.0, 0.0, 0.0]),
        (stepping(TRUE, *[TRUE - DAY] * 3, TRUE), [0.0, 0.0, 0.0, 0.0]),
        (stepping(TRUE, *[TRUE + DAY] * 3, TRUE + DAY + 301.0), [0.0, 0.0, 0.0, 0.0, -DAY - 301.0]),
    ],
    ids=["behind for a while", "ahead for a while", "behind for long"],
)
async def test_a_date_that_is_wrong_for_a_while_does_not_tell_which_job_is_new(
    batch: FakeBatch, client: BatchClient, skews: list[float]
) -> None:
    batch.on("/jobs/j", reply({"id": "j"}, headers=HEADERS))
    seen = []
    for _ in skews:
        await client.get_job("j")
        seen.append(client.clock.offset)
    assert seen == skews


@pytest.mark.parametrize("now", [stepping(TRUE + DAY)])
async def test_only_answers_of_the_service_tell_its_time(
    batch: FakeBatch, client: BatchClient, observed: Observed
) -> None:
    batch.on(
        "/jobs/j",
        batch_error(400, "InvalidQueryParameterValue", "no", headers=HEADERS),
        reply("<html>of a proxy</html>", headers=HEADERS),
        reply({"id": "j"}, headers=HEADERS),
    )
    for _ in range(2):
        with pytest.raises(Exception, match=r"Job_Get|HTTP 400"):
            await client.get_job("j")
        assert client.clock.offset == 0.0
    for known in (0.0, -DAY):
        await client.get_job("j")
        assert client.clock.offset == known
        assert client.clock.is_sure == (known != 0.0)


NOW = START.timestamp()


@pytest.mark.parametrize(
    "state",
    [
        JobTasks(read_at=NOW + DAY, listed_at=NOW + DAY),
        JobTasks(read_at=NOW + DAY, listed_at=NOW - 60.0),
        JobTasks(read_at=NOW - 1000.0, listed_at=NOW - 1000.0),
    ],
    ids=["both to come", "read to come", "long ago"],
)
async def test_a_reading_that_seems_to_be_still_to_come_is_made_anew(state: JobTasks) -> None:
    api = Api([])
    watched = WatchedJob(Job("job-1"), rule(id="job-1"))
    reading = await tasks.read(api, watched, state, NOW)
    assert api.asked == [None]
    after = tasks.fold(state, reading, NOW, False).state
    assert (after.read_at, after.listed_at) == (NOW, NOW)
    await tasks.read(api, watched, after, NOW + 30.0)
    assert api.asked[1] is not None


def test_jobs_are_new_though_the_watch_began_at_a_time_that_is_still_to_come() -> None:
    store = collectors.new_store(Exposition(collectors.tables()))
    store.add_account("acc", Saved(watched_since=NOW + DAY))
    watched = []
    for at in (0.0, 60.0):
        created = datetime.fromtimestamp(NOW + at - 30.0, UTC).isoformat()
        watched.append(WatchedJob(Job(f"j{at:.0f}", creation_time=created), rule(id_regex=".*")))
        store.select("acc", SelectedJobs(tuple(watched)), NOW + at, NOW + at)
    assert [entry.is_new for entry in store.jobs("acc").values()] == [False, True]


def test_an_etag_of_a_time_that_is_still_to_come_is_not_trusted() -> None:
    times = {"creation_time": "2026-01-01T00:00:00Z"}
    moved = dict.fromkeys(("state_transition_time", "last_modified"), "2026-01-01T00:00:01Z")
    task = Task("t", "active", e_tag="0x8D", **times, **moved)
    assert may_ask_by_etag(Found(task, NOW - 60.0, ""), NOW, 900.0)
    assert not may_ask_by_etag(Found(task, NOW + DAY, ""), NOW, 900.0)
