"""Counters of preparation against a model that remembers every run that was ever shown."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exporter.batch.models import NodeTaskStatus
from exporter.collectors import known_records, preparation_release
from exporter.collectors.preparation_release import PREPARATION, PreparationRelease
from tests.test_counters import EPOCH, time
from tools.sample_job import nodes_read

POOLS = ("p", "q")


class Version(NamedTuple):
    """What the service shows of a node at one time. `run`: the number of its start."""

    run: int
    retries: int
    state: str
    result: str | None
    code: str | None

    def record(self, pool: str, node: str) -> NodeTaskStatus:
        start = 100 * self.run + 10 * self.retries
        info: dict[str, Any] = {
            "startTime": time(start),
            "state": self.state,
            "retryCount": self.retries,
        }
        if self.result is not None:
            info |= {"endTime": time(start + 5), "result": self.result}
        if self.code is not None:
            info["failureInfo"] = {"category": "UserError", "code": self.code}
        return msgspec.convert(
            {"poolId": pool, "nodeId": node, PREPARATION.member: info}, NodeTaskStatus
        )


def run_versions(number: int) -> st.SearchStrategy[list[Version]]:
    """The versions of one run: it is retried, and it ends or not."""
    ends = st.sampled_from([None, ("success", None), ("failure", "DiskFull")])
    return st.builds(
        lambda retries, end: [
            *(Version(number, retry, "running", None, None) for retry in range(retries + 1)),
            *([Version(number, retries, "completed", *end)] if end else []),
        ],
        st.integers(0, 2),
        ends,
    )


Node = tuple[str, str]

LIVES = st.fixed_dictionaries(
    {
        (pool, node): st.tuples(*map(run_versions, range(1, 4))).map(
            lambda runs: [version for run in runs for version in run]
        )
        for pool in POOLS
        for node in "ab"
    }
)
"""All versions of each node, the oldest first."""

SHOWN = st.lists(st.tuples(st.sampled_from(POOLS), st.sampled_from("ab"), st.integers(0, 11)))
"""Records of a listing: a node, and which of its versions. Nodes are missing, are there twice, and
come in any order and in old versions."""

READINGS = st.lists(st.tuples(SHOWN, st.booleans()), min_size=1, max_size=8)
"""The records, and whether all nodes were asked for."""


class Model:
    """Counts with all versions that were ever shown at hand, and no notion of a state."""

    def __init__(self) -> None:
        self.newest: dict[Node, Version] = {}
        self.completed: dict[tuple[Node, int, int], Version] = {}
        self.retries = Counter[str]()
        self.present: set[Node] = set()

    def show(self, node: Node, version: Version) -> None:
        self.present.add(node)
        newest = self.newest.get(node)
        if newest is not None and order(version) <= order(newest):
            return  # the service has shown a newer one
        self.newest[node] = version
        if version.result is not None:
            self.completed.setdefault((node, version.run, version.retries), version)
        pool, _ = node
        # A retry is a growth of the count in one run, as far as the versions that were shown tell.
        goes_on = newest is not None and newest.result is None and version.retries >= newest.retries
        is_seen_again = newest is not None and start(version) == start(newest)
        if newest is not None and (is_seen_again or (goes_on and version.retries > newest.retries)):
            self.retries[pool] += version.retries - newest.retries
        else:
            self.retries[pool] += version.retries

    def counters(self) -> Counter[tuple[str, ...]]:
        counted = Counter[tuple[str, ...]]()
        for ((pool, _), *_), version in self.completed.items():
            counted["completed", pool, str(version.result)] += 1
            if version.code is not None:
                counted["failed", pool, "usererror"] += 1
                counted["codes", pool, "usererror", version.code] += 1
        counted.update({("retries", pool): number for pool, number in self.retries.items()})
        return counted


def start(version: Version) -> tuple[int, int]:
    return version.run, version.retries


def order(version: Version) -> tuple[int, int, bool]:
    return *start(version), version.result is not None


def missing_twice() -> list[tuple[list[tuple[str, str, int]], bool]]:
    """A node that two full listings in a row lack, and that comes back."""
    return [([("p", "a", 1)], True), ([], True), ([], True), ([("p", "a", 1)], True)]


ONE_RUN = [Version(1, 0, "running", None, None), Version(1, 0, "completed", "success", None)]


@settings(max_examples=300, deadline=None)
@given(LIVES, READINGS, st.booleans(), st.booleans())
@example({(pool, node): ONE_RUN for pool in POOLS for node in "ab"}, missing_twice(), True, True)
def test_each_run_is_counted_once_in_whatever_listings_it_stands(
    lives: dict[Node, list[Version]],
    readings: list[tuple[list[tuple[str, str, int]], bool]],
    is_new: bool,
    is_restarted: bool,
) -> None:
    model = Model()
    state: PreparationRelease | None = None
    saved: dict[tuple[str, ...], bytes] = {}
    counted = Counter[tuple[str, ...]]()
    began = Counter[tuple[str, ...]]()
    names = {
        getattr(PREPARATION, name).name: name
        for name in ("completed", "failed", "codes", "retries")
    }
    for number, (shown, is_resync) in enumerate(readings):
        full = is_resync or state is None
        records = []
        if full:
            model.present.clear()
        for pool, node, index in shown:
            versions = lives[pool, node]
            version = versions[index % len(versions)]
            records.append(version.record(pool, node))
            model.show((pool, node), version)
        since = None if full else EPOCH
        reading = nodes_read("p", records, EPOCH + number, since)
        folded = preparation_release.fold(state, reading, 0.0, is_new)
        for (name, labels), amount in folded.events.increments.items():
            counted[names.get(name, name), *labels] += int(amount)
        if state is None and not is_new:
            began = model.counters()
        state = folded.state
        for label, value in (("state", "running"), ("result", "success"), ("result", "failure")):
            newest = [getattr(model.newest[node], label) for node in model.present]
            assert state.count("preparation", label, value) == newest.count(value)
        for key, run in folded.records:
            saved.pop(key, None)
            if run is not None:
                saved[key] = msgspec.json.encode(run)
        if is_restarted:
            loaded = preparation_release.load(preparation_release.dump(state), saved)
            assert loaded == state
            state = loaded
    expected = model.counters()
    expected.subtract(began)
    assert +counted == +expected


def test_of_missing_nodes_the_latest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_records, "MAX_MISSING", 2)
    state: PreparationRelease | None = None
    saved: set[tuple[str, ...]] = set()
    ended = Version(1, 0, "completed", "success", None)
    for node in "abcd":  # each is there once
        for shown in [ended.record("p", node)], []:
            folded = preparation_release.fold(state, nodes_read("p", shown), 0.0, True)
            state = folded.state
            for key, run in folded.records:
                (saved.discard if run is None else saved.add)(key)
    assert state is not None
    assert list(state.runs["preparation", "p"].missing) == ["b", "c", "d"]  # a cut, and one more
    assert {key[3:] for key in saved} == {("missing",)}
    assert sorted(key[2] for key in saved) == ["b", "c", "d"]


def info(state: str, **members: Any) -> NodeTaskStatus:
    """A node that is always the same one."""
    entry = {"poolId": "p", "nodeId": "a", PREPARATION.member: {"state": state, **members}}
    return msgspec.convert(entry, NodeTaskStatus)


STARTED = {"startTime": time(1)}
SUCCESS = {"result": "success", "endTime": time(9)}


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        # Without a start; one page is older.
        ([info("completed", **SUCCESS), info("running"), info("completed", **SUCCESS)], 1),
        # The result comes after the state.
        (
            [info("completed", startTime=time(1)), info("completed", startTime=time(1), **SUCCESS)],
            1,
        ),
        # As saved by a version that rounded it, and as it is on the wire.
        (
            [
                info("running", startTime="2026-01-01T00:00:01.000001Z"),
                info("completed", startTime="2026-01-01T00:00:01.0000009Z", **SUCCESS),
            ],
            1,
        ),
        # The start cannot be read in one answer.
        ([info("completed", **STARTED, **SUCCESS), info("completed", **SUCCESS)], 1),
        (
            [
                info("running", **STARTED),
                info("completed", startTime="", **SUCCESS),
                info("completed", **STARTED, **SUCCESS),
            ],
            1,
        ),
    ],
)
@pytest.mark.parametrize("is_one_listing", [False, True])
def test_a_run_of_which_the_service_says_little_is_counted_once(
    records: list[NodeTaskStatus], expected: int, is_one_listing: bool
) -> None:
    state: PreparationRelease | None = None
    completed = 0.0
    for shown in [records] if is_one_listing else [[record] for record in records]:
        folded = preparation_release.fold(state, nodes_read("p", shown), 0.0, True)
        state = folded.state
        completed += folded.events.increments[PREPARATION.completed.name, ("p", "success")]
    assert completed == expected


def test_a_page_with_fewer_retries_is_older_also_at_the_same_start() -> None:
    state: PreparationRelease | None = None
    retries = 0.0
    for count in (1, 2, 1, 2):
        shown = [info("running", **STARTED, retryCount=count)]
        folded = preparation_release.fold(state, nodes_read("p", shown), 0.0, True)
        state = folded.state
        retries += folded.events.increments[PREPARATION.retries.name, ("p",)]
    assert retries == 2


def test_a_state_file_has_one_array_per_run() -> None:
    saved = b'{"read_at":9.5,"listed_at":2.0,"configured":true,"pools":["p"]}'
    records = {
        ("preparation", "p", "a"): b'[1.5,"completed","failure","usererror","DiskFull",2]',
        ("preparation", "p", "b", "missing"): b'[1.5,"completed","success",null,null,0]',
        ("release", "p", "a"): b'[2.5,"running",null,null,null,0]',
    }
    state = preparation_release.load(saved, records)
    assert preparation_release.dump(state) == saved
    assert state.count("preparation", "result", "failure") == 1
    assert state.count("preparation", "state", "completed") == 1  # the other one is missing
    assert state.count("release", "state", "running") == 1
    assert state.runs["release", "p"].oldest_running == 2.5
    runs = {
        (task, pool_id, node_id, *suffix): msgspec.json.encode(run)
        for (task, pool_id), pool in state.runs.items()
        for suffix, nodes in (((), pool.latest), (("missing",), pool.missing))
        for node_id, run in nodes.items()
    }
    assert runs == records
