"""Answers of the service: decoded, folded, shown, saved, shown in the formats that are served.

An input is one answer a line; each kind of answer gets them in turn, as poll after poll does.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import msgspec
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter import collectors
from exporter.batch import models
from exporter.batch.page_decoder import page_decoder
from exporter.batch.service_clock import ServiceClock
from exporter.batch.spellings import Spellings
from exporter.collectors import JOB_COLLECTORS, new_store, pool_nodes
from exporter.config import Account, Rule
from exporter.config.rule import WATCHED_TASKS
from exporter.config.shard import WHOLE
from exporter.exposition.body import Exposition, Format
from exporter.polling.selection import discover, watch_saved
from exporter.state import database
from exporter.state.failures import Failures
from exporter.state.saved import Changes, Saved
from exporter.state.store import Store
from exporter.web.api.job_views import SORT_KEYS, job_view

T = TypeVar("T")

ACCOUNT = "acc"
NOW = 1_750_000_000.0
MAX_ANSWERS = 3

_TABLES = collectors.tables()
_JOB = models.Job("job", pool_info=models.PoolInfo("pool"))
_RULES = tuple(
    Rule(**{"id_regex": "(?s).*", "tasks": ("t",), **more})
    for more in ({}, {"group": "${pool_id}"})
)
_PAGES = {
    name: page_decoder(kind)
    for name, kind in {
        "jobs": models.Job,
        "pool_nodes": models.PoolNodeCounts,
        "preparation_release": models.NodeTaskStatus,
        "tasks": models.Task,
    }.items()
}
_OBJECTS = {
    name: msgspec.json.Decoder(kind, strict=False).decode
    for name, kind in {"task_counts": models.TaskCountsResult, WATCHED_TASKS: models.Task}.items()
}
_ERROR = msgspec.json.Decoder(models.BatchError, strict=False)


def target(data: bytes) -> None:
    """Read each line as an answer of each kind; render, parse, save, load."""
    answers = data.split(b"\n")[:MAX_ANSWERS]
    for answer in answers:
        with contextlib.suppress(ValueError, RecursionError):  # as transport.py has it
            assert isinstance(_ERROR.decode(answer).text, str)
    for name in (*_PAGES, *_OBJECTS):
        decoded: list[Any] = []
        for answer in answers:
            with contextlib.suppress(ValueError, RecursionError):
                decoded.append(
                    _PAGES[name](answer)[0] if name in _PAGES else _OBJECTS[name](answer)
                )
        if decoded:
            for rule in _RULES:
                _live(name, decoded, rule)


def _live(name: str, answers: Iterable[Any], rule: Any) -> None:
    """The life of an account that gets these answers of one kind."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(database._SCHEMA)
        exposition = Exposition(_TABLES)
        failures = Failures()
        store = new_store(exposition, _Journal(connection), failures)
        store.add_account(ACCOUNT, Saved(), partial(watch_saved, [rule]))
        _poll_jobs(store, (_JOB,), rule, NOW - 1)
        for number, answer in enumerate(answers):
            _poll(store, name, answer, rule, NOW + number)
            store.flush()
            _check(exposition)
            _show(store, NOW + number)
        assert msgspec.json.encode(failures.latest())
        again = Exposition(_TABLES)
        restarted = new_store(again)
        restarted.add_account(
            ACCOUNT,
            database.load(connection, ACCOUNT, JOB_COLLECTORS),
            partial(watch_saved, [rule]),
        )
        _check(again)


def _poll(store: Store, name: str, answer: Any, rule: Any, now: float) -> None:
    api = _Api(answer)
    if name == "jobs":
        _poll_jobs(store, answer.value, rule, now)
    elif name == "pool_nodes":
        store.put_pool_nodes(ACCOUNT, _result(pool_nodes.read(cast("Any", api))), now)
    else:
        kind = JOB_COLLECTORS[name]
        watched = store.jobs(ACCOUNT)[_JOB.id].watched
        state = store.outcome(ACCOUNT, name, _JOB.id).state
        reading = _result(cast("Any", kind.read(api, watched, state, now)))
        folded = store.put_reading(ACCOUNT, watched.job, name, reading, state, now)
        assert folded is not None
        assert isinstance(kind.is_settled(folded.state) or folded.is_busy, bool)


def _poll_jobs(store: Store, found: tuple[models.Job, ...], rule: Any, now: float) -> None:
    any_state = rule.model_copy(update={"states": None})
    api = cast("Any", _Api(models.Page(found)))
    account = Account(name=ACCOUNT, endpoint="https://acc.example", max_jobs=50)
    account = account.model_copy(update={"jobs": (any_state,)})  # not validated anew
    selected, _ = _result(discover(api, account, WHOLE, {}, now))
    store.select(ACCOUNT, selected, now, now)


def _check(exposition: Exposition) -> None:
    """Both formats parse, and say the same; no series stands twice."""
    text = exposition.body(Format.TEXT).plain.decode()
    openmetrics = exposition.body(Format.OPENMETRICS).plain.decode() + "# EOF\n"
    seen = set()
    for family in parse_text(text):
        for sample in family.samples:
            series = (sample.name, frozenset(sample.labels.items()))
            assert series not in seen, series
            seen.add(series)
            assert isinstance(float(sample.value), float)
    assert len(seen) == exposition.body(Format.TEXT).series
    assert sum(len(family.samples) for family in parse_openmetrics(openmetrics)) == len(seen)


def _show(store: Store, now: float) -> None:
    """The API and the pages have something to say of each job, and can sort by all of it."""
    state = store.accounts[ACCOUNT]
    for job in state.jobs.values():
        assert msgspec.json.encode(job_view(ACCOUNT, job, now))
        for key in SORT_KEYS.values():
            assert (value := key(ACCOUNT, job)) is None or isinstance(value, str | int | float)


def _result(reading: Coroutine[Any, Any, T]) -> T:
    """What a coroutine gives that waits for nothing; it may let others go first."""
    while True:
        try:
            awaited = reading.send(None)
        except StopIteration as done:
            return cast("T", done.value)
        assert awaited is None, "it waits"


@dataclass
class _Journal:
    """Saves in the same turn."""

    connection: sqlite3.Connection

    def write(self, changes: Changes, done: Callable[[], None]) -> None:
        with self.connection:
            database.write(self.connection, changes, JOB_COLLECTORS)
        done()


class _Api:
    """Answers every operation with the same."""

    clock = ServiceClock()
    refused_filters: frozenset[str] = frozenset()

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.spellings = Spellings()

    async def get_task_counts(self, _: str) -> Any:
        return self._answer

    async def get_task(self, *_: Any) -> Any:
        return self._answer

    async def _pages(self, *_: Any) -> AsyncIterator[Any]:
        yield self._answer.value

    list_jobs = list_tasks = list_pool_node_counts = _pages
    list_preparation_and_release_task_status = _pages
