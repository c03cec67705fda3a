"""First and last values of counters: each client that scrapes reads them, whatever its interval."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter import config
from exporter.batch.models import Job
from exporter.collectors import JOB_COLLECTORS, new_store, tables
from exporter.exposition.body import Exposition, Format
from exporter.exposition.scrapes import ACTIVE_FOR, CLIENTS, LONGEST, Scrapes
from exporter.polling.selection import watch, watch_saved
from exporter.service.service import Service, open_service
from exporter.state.account import Owner
from exporter.state.counters import Counters, Increments
from exporter.state.journal import StateFile
from exporter.state.saved import Changes, Saved, SavedJob
from exporter.state.totals import SHOWN_AT_ONCE, Totals
from exporter.state.watched_job import SelectedJobs
from exporter.web.app import build_app
from exporter.web.server.listener import Listening, listen
from tests.test_counters import job
from tests.test_selection import rule
from tests.test_tasks import changed, failed, listed, running

GROUP: Owner = ("job_group", "g")
CODES = "azure_batch_job_task_failure_codes_total"
BY_CATEGORY = "azure_batch_job_tasks_failed_total"
DISK = {"category": "UserError", "code": "DiskFull"}


class Watched:
    """A store over virtual seconds, and the clients that scrape it."""

    def __init__(self, file: StateFile | None = None, **settings: Any) -> None:
        self.seconds = 0.0
        self.scrapes = Scrapes(lambda: self.seconds)
        self.exposition = Exposition(tables())
        self.store = new_store(self.exposition, file, scrapes=self.scrapes)
        self.rule = rule(**({"id_regex": ".*", "collect": ("tasks",)} | settings))
        known = file.load("acc") if file is not None else Saved()
        self.store.add_account("acc", known, partial(watch_saved, (self.rule,)))

    def select(self, *jobs: Job) -> None:
        watched = tuple(watch(each, self.rule) for each in jobs)
        self.store.select("acc", SelectedJobs(watched), self.seconds, self.seconds)

    def poll(self, job: Job, reading: Any) -> None:
        state = self.store.outcome("acc", "tasks", job.id).state
        self.store.put_reading("acc", job, "tasks", reading, state, self.seconds)

    def wait(self, seconds: float) -> None:
        """Time passes; what has changed is rendered once a second."""
        for _ in range(round(seconds)):
            self.seconds += 1
            self.store.flush()

    def scrape(self, client: str = "prometheus") -> dict[str, float]:
        """What a client reads: values by series, without the account."""
        self.scrapes.note((client, ""), self.seconds)
        found = {}
        for line in self.exposition.body(Format.TEXT).plain.decode().splitlines():
            if not line.startswith("#"):
                labels, _, value = line.rpartition(" ")
                found[labels.replace('account="acc"', "").replace("{,", "{")] = float(value)
        return found


def summed(values: dict[str, float], name: str) -> float:
    return sum(value for series, value in values.items() if series.startswith(f"{name}{{"))


def new_job(job_id: str = "new") -> Job:
    return job(job_id, created=10.0)


@pytest.mark.parametrize("group", [None, "all"])
def test_a_first_value_is_zero_until_both_clients_have_read_it_and_no_longer(
    group: str | None,
) -> None:
    watched = Watched(group=group)
    watched.select()
    watched.wait(2)
    watched.scrape("a")
    watched.scrape("b")
    watched.wait(10)
    new = new_job()
    watched.select(new)
    watched.poll(new, listed([failed("one"), failed("two")]))
    watched.wait(1)
    assert summed(watched.scrape("a"), BY_CATEGORY) == 0
    watched.wait(20)
    assert summed(watched.scrape("a"), BY_CATEGORY) == 0  # the other has not read it yet
    assert summed(watched.scrape("b"), BY_CATEGORY) == 0
    watched.wait(1)
    for client in ("a", "b"):
        values = watched.scrape(client)
        assert summed(values, BY_CATEGORY) == summed(values, CODES) == 2


def test_nobody_waits_for_a_client_longer_than_a_minute() -> None:
    watched = Watched()
    watched.select()
    watched.scrape("never again")
    new = new_job()
    watched.select(new)
    watched.poll(new, listed([failed("one")]))
    watched.wait(LONGEST)
    assert summed(watched.scrape("a"), BY_CATEGORY) == 0
    watched.wait(1)
    assert summed(watched.scrape("a"), BY_CATEGORY) == 1


def test_who_scrapes_each_minute_reads_the_zero() -> None:
    watched = Watched()
    watched.select()
    watched.scrape("each minute")
    watched.wait(0.5)
    new = new_job()
    watched.select(new)
    watched.poll(new, listed([failed("one")]))
    watched.wait(59.5)
    assert summed(watched.scrape("each minute"), BY_CATEGORY) == 0
    watched.wait(1)
    assert summed(watched.scrape("each minute"), BY_CATEGORY) == 1


def test_without_a_client_the_first_one_that_comes_reads_the_zero() -> None:
    watched = Watched()
    watched.scrape("long gone")
    watched.wait(ACTIVE_FOR + 1)
    watched.select()
    new = job("new", created=ACTIVE_FOR + 10)
    watched.select(new)
    watched.poll(new, listed([failed("one")]))
    watched.wait(30)
    assert summed(watched.scrape(), BY_CATEGORY) == 0
    watched.wait(1)
    assert summed(watched.scrape(), BY_CATEGORY) == 1


def test_the_sum_by_code_is_that_by_category_in_each_scrape() -> None:
    watched = Watched(group="all")
    watched.select()
    one, two = new_job("one"), new_job("two")
    watched.select(one, two)
    watched.poll(one, listed([running("a"), running("b"), running("c")]))
    watched.poll(two, listed([running("d"), running("e")]))
    watched.wait(1)
    assert summed(watched.scrape(), BY_CATEGORY) == 0
    watched.wait(15)
    seen = []
    for each, reading in (
        (one, changed([failed("a")])),  # its code is new
        (two, changed([failed("d")])),  # the same code before it was read
        (one, changed([failed("b", failureInfo=DISK)])),  # another new one, also unread
        (two, changed([failed("e")])),
        (one, changed([failed("c")])),
    ):
        watched.poll(each, reading)
        watched.wait(5)
        values = watched.scrape()
        assert summed(values, BY_CATEGORY) == summed(values, CODES)
        seen.append(summed(values, CODES))
        watched.wait(10)
    watched.wait(1)
    values = watched.scrape()
    assert summed(values, BY_CATEGORY) == summed(values, CODES) == 5
    # Each is late by one scrape at most.
    assert seen == [0, 2, 2, 4, 5]


def test_new_series_without_end_hold_none_back_for_longer_than_one_scrape() -> None:
    watched = Watched(group="all")
    watched.select()
    new = new_job()
    watched.select(new)
    watched.poll(new, listed([running(str(number)) for number in range(30)]))
    watched.wait(1)
    for number in range(30):
        code = {"category": "UserError", "code": f"Code{number}"}
        watched.poll(new, changed([failed(str(number), failureInfo=code)]))
        values = watched.scrape()
        assert summed(values, CODES) == summed(values, BY_CATEGORY) >= number - 2
        watched.wait(15)


def test_a_long_scrape_interval_reads_every_first_value() -> None:
    """The job is polled thrice between two scrapes; Prometheus adds up positive steps."""
    watched = Watched()
    watched.select()
    seen: Counter[str] = Counter()
    last: dict[str, float] = {}
    new = new_job()
    watched.select(new)
    watched.poll(new, listed([running(str(number)) for number in range(40)]))
    for second in range(300):
        if second % 15 == 0 and second < 200:
            watched.poll(new, changed([failed(str(second // 15))]))
        watched.wait(1)
        if second % 45 == 40:
            values = watched.scrape()
            for series, value in values.items():
                seen[series] += max(0, value - last.get(series, value))  # type: ignore[assignment]
            last = values
    assert summed(dict(seen), CODES) == summed(dict(seen), BY_CATEGORY) == 14


# What is gone


def test_the_counters_of_a_job_that_is_gone_stay_until_both_clients_have_read_them() -> None:
    watched = Watched()
    watched.select()
    for client in ("a", "b"):
        watched.scrape(client)
    new = new_job()
    watched.select(new)
    watched.poll(new, listed([failed("one"), running("two")]))
    for _ in range(2):
        watched.wait(1)
        for client in ("a", "b"):
            assert 'azure_batch_job_info{job_id="new",display_name="",pool_id="p"}' in (
                watched.scrape(client)
            )
    watched.wait(15)
    watched.poll(new, changed([failed("two", failureInfo=DISK)]))  # its last poll, of a new code
    watched.store.lose("acc", "new", 0.0)
    watched.wait(1)
    for expected in (1, 2):  # first as it was while the 0 of the code is unread
        for client in ("a", "b"):
            values = watched.scrape(client)
            gauges = [each for each in values if 'job_id="new"' in each and "_total{" not in each]
            assert gauges == []
            assert summed(values, BY_CATEGORY) == summed(values, CODES) == expected
            watched.wait(5)
    assert [each for each in watched.scrape("a") if "job_id" in each] == []
    assert watched.store._totals._gone == {}


def test_nobody_keeps_the_counters_of_a_job_that_is_gone_longer_than_a_minute() -> None:
    watched = Watched()
    watched.select()
    new = new_job()
    watched.select(new)
    watched.poll(new, listed([running("one")]))
    watched.wait(70)
    watched.scrape("never again")
    watched.store.lose("acc", "new", 0.0)
    watched.wait(LONGEST)
    assert summed(watched.scrape(), BY_CATEGORY) == 0
    assert [each for each in watched.scrape() if "job_id" in each] != []
    watched.wait(1)
    assert [each for each in watched.scrape() if "job_id" in each] == []


def test_another_job_of_the_same_id_goes_on_with_the_counters_of_the_id() -> None:
    watched = Watched()
    watched.select()
    first = new_job("same")
    watched.select(first)
    watched.poll(first, listed([failed("one"), failed("two", failureInfo=DISK)]))
    watched.wait(1)
    watched.scrape()
    watched.wait(5)
    watched.store.lose("acc", "same", 0.0)
    watched.wait(1)
    assert summed(watched.scrape("late"), CODES) == 2  # of the first: it stays until it is read
    second = job("same", created=20.0)
    watched.select(second)
    watched.poll(second, listed([failed("three")]))
    watched.wait(1)
    values = watched.scrape()
    assert summed(values, CODES) == summed(values, BY_CATEGORY) == 3


def test_a_job_that_is_back_before_its_counters_are_read_goes_on_with_them() -> None:
    watched = Watched()
    watched.select()
    new = new_job()
    watched.select(new)
    watched.poll(new, listed([failed("one"), running("two")]))
    for _ in range(2):
        watched.wait(1)
        watched.scrape()
    watched.select()
    watched.select(new)
    watched.poll(new, changed([failed("two")]))
    for _ in range(2):
        watched.wait(1)
        assert summed(watched.scrape(), BY_CATEGORY) == 2


def test_a_job_that_comes_under_a_group_leaves_its_own_counters_until_they_are_read() -> None:
    watched = Watched()
    watched.select()
    new = new_job()
    watched.select(new)
    watched.poll(new, listed([failed("one"), running("two")]))
    for _ in range(2):
        watched.wait(1)
        watched.scrape()
    watched.rule = rule(id_regex=".*", collect=("tasks",), group="all")
    watched.select(new)
    watched.poll(new, changed([failed("two")]))
    own = BY_CATEGORY + '{job_id="new",category="usererror"}'
    of_group = BY_CATEGORY + '{job_group="all",category="usererror"}'
    seen = []
    for _ in range(3):
        watched.wait(2)
        values = watched.scrape()
        seen.append((values.get(own), values.get(of_group)))
    assert seen == [(1, 0), (None, 1), (None, 1)]


# Restart


async def restarted(folder: Path, before: Callable[[Watched], None]) -> tuple[Watched, StateFile]:
    """What a process shows after one that was killed when `before` was over and written."""
    path = folder / "s.db"
    file = StateFile(path, JOB_COLLECTORS, lambda _: None)
    watched = Watched(file)
    before(watched)
    await watched.store.all_saved()
    await file.close()
    file = StateFile(path, JOB_COLLECTORS, lambda _: None)
    return Watched(file), file


async def shown(watched: Watched) -> dict[str, float]:
    await watched.store.all_saved()
    watched.wait(1)
    await watched.store.all_saved()
    values = watched.scrape()
    watched.wait(1)
    await watched.store.all_saved()
    return values


async def test_a_zero_that_nobody_read_is_held_after_a_restart_too(tmp_path: Path) -> None:
    new = new_job()

    def before(watched: Watched) -> None:
        watched.select()
        watched.select(new)
        watched.poll(new, listed([failed("one"), running("two")]))

    watched, file = await restarted(tmp_path, before)
    watched.select(new)
    watched.poll(new, changed([failed("two")]))
    for expected in (0, 2):
        values = await shown(watched)
        assert summed(values, BY_CATEGORY) == summed(values, CODES) == expected
    await file.close()


async def test_the_last_value_of_a_job_that_is_gone_is_shown_after_a_restart_too(
    tmp_path: Path,
) -> None:
    def before(watched: Watched) -> None:
        watched.select()
        watched.select(new_job())
        watched.poll(new_job(), listed([failed("one")]))
        watched.store.lose("acc", "new", 0.0)
        watched.store.settle_lost("acc", (), 1.0, 1.0)

    watched, file = await restarted(tmp_path, before)
    for expected in (0, 1):
        values = await shown(watched)
        assert summed(values, BY_CATEGORY) == summed(values, CODES) == expected
    assert [each for each in await shown(watched) if "job_id" in each] == []
    await watched.store.all_saved()
    await file.close()
    file = StateFile(tmp_path / "s.db", JOB_COLLECTORS, lambda _: None)
    assert {owner for owner, _ in file.load("acc").counters} == {None}
    await file.close()


def test_a_job_that_left_for_good_is_not_shown_for_longer_after_a_restart() -> None:
    exposition, seconds = Exposition(tables()), 0.0
    totals = Totals(exposition, Scrapes(lambda: seconds))
    key = (CODES, ("usererror", "x"))
    left = SavedJob(Job("a"), False, left_at=1.0)
    counters = Counters.of({key: 3}, {key: 3})
    totals.add_account("acc", Saved(1.0, None, {(("job_id", "a"), "tasks"): counters}, {"a": left}))
    totals.flush()
    assert b'job_id="a"' in exposition.body(Format.TEXT).plain
    seconds = LONGEST + 1
    totals.flush()
    assert b'job_id="a"' not in exposition.body(Format.TEXT).plain


# Bounds


def test_one_flush_shows_a_bounded_number_of_places_anew() -> None:
    seconds = 0.0
    scrapes = Scrapes(lambda: seconds)
    exposition = Exposition(tables())
    totals = Totals(exposition, scrapes)
    totals.add_account("acc", Saved())
    jobs = 3 * SHOWN_AT_ONCE
    for number in range(jobs):
        owner = ("job_id", f"{number:04d}")
        totals.count(Changes("acc"), [(owner, "tasks", {(CODES, ("usererror", "x")): 1})])
    seconds = 1.0
    scrapes.note(("a", ""), seconds)
    at_once = []
    for second in range(2, 6):
        seconds = float(second)
        totals.flush()
        lines = exposition.body(Format.TEXT).plain.decode().splitlines()
        at_once.append(sum(line.startswith(CODES) and line.endswith(" 1") for line in lines))
    assert at_once == [SHOWN_AT_ONCE, 2 * SHOWN_AT_ONCE, jobs, jobs]
    assert not totals._held and not totals._unread


ANY_KEY = st.tuples(st.just(CODES), st.tuples(st.just("usererror"), st.sampled_from("xyz")))
OWNERS: list[Owner] = [("job_id", "a"), ("job_id", "b"), GROUP]
STEPS = st.one_of(
    st.tuples(
        st.just("count"),
        st.sampled_from(OWNERS),
        st.dictionaries(ANY_KEY, st.integers(0, 3), max_size=3),
    ),
    st.tuples(st.just("scrape"), st.sampled_from("pq"), st.none()),
    st.tuples(st.just("wait"), st.sampled_from([1, 5, 61]), st.none()),
    st.tuples(st.just("forget"), st.sampled_from(OWNERS[:2]), st.none()),
)


class Prometheus:
    """Adds up the positive steps of each series over scrapes; a fall is a reset.

    It scrapes each half minute at least. A second client scrapes now and then.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.scrapes = Scrapes(lambda: self.seconds)
        self.exposition = Exposition(tables())
        self.totals = Totals(self.exposition, self.scrapes)
        self.totals.add_account("acc", Saved())
        self.counted: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.last: dict[str, int] = {}
        self.scrape()

    def count(self, owner: tuple[str, str], increments: Increments) -> None:
        self.totals.count(Changes("acc"), [(owner, "tasks", increments)])
        of_owner = f'account="acc",{owner[0]}="{owner[1]}"'
        for (name, (category, code)), amount in increments.items():
            series = f'{name}{{{of_owner},category="{category}",code="{code}"}}'
            self.counted[series] += int(amount)

    def scrape(self, client: str = "p") -> None:
        self.scrapes.note((client, ""), self.seconds)
        if client != "p":
            return
        lines = self.exposition.body(Format.TEXT).plain.decode().splitlines()
        samples = [line.rpartition(" ") for line in lines if line.startswith(CODES)]
        values = {series: int(value) for series, _, value in samples}
        for series, value in values.items():
            before = self.last.get(series, 0)
            assert series in self.last or value == 0
            self.seen[series] += value - before if value >= before else value
        self.last, self.scraped_at = values, self.seconds

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.seconds += 1
            self.totals.flush()
            if self.seconds - self.scraped_at >= 30:
                self.scrape()


@given(st.lists(STEPS, max_size=60))
def test_whatever_happens_a_client_that_scrapes_each_half_minute_sees_every_event(
    steps: list[tuple[str, Any, Any]],
) -> None:
    prometheus = Prometheus()
    for what, who, amounts in steps:
        if what == "count":
            prometheus.count(who, amounts)
        elif what == "scrape":
            prometheus.wait(1)
            prometheus.scrape(who)
        elif what == "wait":
            prometheus.wait(who)
        else:
            prometheus.totals.forget("acc", who, {})
            prometheus.wait(125)  # nothing comes back before it was read
    prometheus.wait(200)
    assert +prometheus.seen == +prometheus.counted
    assert not prometheus.totals._held and not prometheus.totals._gone


# Clients


def test_only_some_hundred_clients_are_remembered() -> None:
    scrapes = Scrapes(lambda: 0.0)
    for number in range(10 * CLIENTS):
        scrapes.note(("10.0.0.1", f"curl/{number}"), float(number))
    assert len(scrapes._latest) == CLIENTS
    assert scrapes.read_until(10.0 * CLIENTS) == 10 * CLIENTS - LONGEST


def test_a_scrape_that_took_long_does_not_count_as_older_than_one_that_came_after_it() -> None:
    scrapes = Scrapes(lambda: 0.0)
    scrapes.note(("a", ""), 20.0)
    scrapes.note(("a", ""), 10.0)
    assert scrapes.read_until(30.0) == 20.0


@pytest.fixture
async def service(make_config: Callable[..., config.Config]) -> AsyncIterator[Service]:
    """A service of one account that nobody answers for."""
    async with open_service(make_config("http://127.0.0.1:1")) as opened:
        yield opened


@pytest.fixture
async def server(service: Service) -> AsyncIterator[Listening]:
    """A server of it."""
    listening = await listen(build_app(service, "/metrics"), (("127.0.0.1", 0),))
    yield listening
    await listening.close()


async def test_over_sockets_a_zero_is_shown_until_each_user_agent_has_taken_it(
    service: Service, server: Listening
) -> None:
    (account,) = service.config.accounts
    (url,) = server.urls

    async def scrape(agent: str, method: str = "GET", encoding: str = "gzip") -> float:
        headers = {"User-Agent": agent, "Accept-Encoding": encoding}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.request(method, f"{url}/metrics") as response,
        ):
            lines = (await response.text()).splitlines()
        service.store.flush()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(CODES))

    await scrape("Prometheus/3")
    await scrape("Prometheus/2", encoding="identity")
    increments = {(CODES, ("usererror", "DiskFull")): 5}
    service.store._totals.count(Changes(account.name), [(GROUP, "tasks", increments)])
    service.store.flush()
    assert [await scrape("Prometheus/3") for _ in range(3)] == [0, 0, 0]
    await scrape("Prometheus/2", method="HEAD")
    assert await scrape("Prometheus/3") == 0
    assert await scrape("Prometheus/2") == 0
    assert await scrape("Prometheus/3") == await scrape("Prometheus/2") == 5


async def test_neither_head_nor_a_client_that_goes_away_counts_as_a_scrape(
    service: Service, server: Listening
) -> None:
    fill = {(CODES, ("usererror", f"Code{n}")): 0 for n in range(100_000)}
    (account,) = service.config.accounts
    service.exposition.reconfigure(tables())
    service.store._totals.count(Changes(account.name), [(GROUP, "tasks", fill)])
    service.store.flush()
    port = int(server.urls[0].rpartition(":")[2])
    async with aiohttp.ClientSession(server.urls[0]) as session:
        async with session.head("/metrics") as response:
            assert response.status == 200
        # It takes some of 10 MB and goes away.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.read(10)).startswith(b"HTTP/1.1")
        writer.transport.abort()
        while server.connections > 1:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)
        assert service.scrapes._latest == {}
        async with session.get("/metrics", headers={"User-Agent": "x"}) as response:
            await response.read()
    assert list(service.scrapes._latest) == [("127.0.0.1", "x")]
