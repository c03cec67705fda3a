"""Failure codes and pool ids: which become labels, in which spelling, also after a restart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exporter import config
from exporter.batch.failure_codes import DOCUMENTED
from exporter.batch.models import Job, NodeTaskStatus
from exporter.batch.spellings import MAX_CODES, MAX_POOLS, Spellings
from exporter.collectors import JOB_COLLECTORS, new_store, preparation_release, tables
from exporter.collectors.node_runs import ListedRuns
from exporter.collectors.preparation_release import Listing, PreparationRelease, Reading
from exporter.exposition.body import Exposition, Format
from exporter.polling.selection import watch, watch_saved
from exporter.service.service import open_service
from exporter.state.journal import StateFile
from exporter.state.saved import Changes, Saved
from exporter.state.store import Store
from exporter.state.watched_job import SelectedJobs
from tests.fake_batch import FakeBatch
from tests.state_files import make_version_4
from tests.test_selection import rule
from tests.test_state_file import write

NAME = "jobPreparationTaskExecutionInfo"
CREATED = "2026-01-01T00:00:00Z"
NOW = 1_767_300_000.0


def node(number: int, code: str | None = None, pool_id: str = "p", **run: Any) -> dict[str, Any]:
    """A node on which the preparation task failed with this code, or succeeded."""
    info: dict[str, Any] = {
        "state": "completed",
        "startTime": "2026-01-01T00:00:01Z",
        "endTime": "2026-01-01T00:00:09Z",
        "retryCount": 0,
        "result": "success" if code is None else "failure",
        **run,
    }
    if code is not None:
        info["failureInfo"] = {"category": "UserError", "code": code}
    return {"poolId": pool_id, "nodeId": f"n{number}", NAME: info}


def labels(text: str, family: str, label: str) -> dict[str, float]:
    """The values of a family by a label."""
    lines = re.findall(rf'^{family}{{.*\b{label}="([^"]*)".*}} (\S+)$', text, re.MULTILINE)
    return {value: float(number) for value, number in lines}


# Codes


def test_a_new_code_is_the_services_own_and_a_documented_one_is_spelled_as_documented() -> None:
    spellings = Spellings()
    assert spellings.code("NodePreempted2027") == "NodePreempted2027"
    assert spellings.code("nodepreempted2027") == "NodePreempted2027"
    assert spellings.code("AllocationTimedOut") == "AllocationTimedout"
    assert spellings.code("autopoolcreationfailedwithquotareached") == (
        "AutoPoolCreationFailedWithQuotaReached"
    )
    assert spellings.take_new() == (("code", "NodePreempted2027"),)
    assert spellings.take_new() == ()


@pytest.mark.parametrize(
    "given",
    [None, "", "two words", "a-b", "line\n", 'quote"', "a" * 65, "naïve", "<redacted>", "४२"],
)
def test_what_is_no_word_is_other(given: str | None) -> None:
    spellings = Spellings()
    assert spellings.code(given) == "other"
    assert spellings.take_new() == ()


def test_codes_beyond_the_first_50_are_other_and_documented_ones_do_not_count() -> None:
    spellings = Spellings()
    for code in DOCUMENTED.values():
        assert spellings.code(code) == code
    new = [f"New{n}" for n in range(MAX_CODES + 2)]
    assert [spellings.code(code) for code in new] == [*new[:MAX_CODES], "other", "other"]
    restarted = Spellings(spellings.take_new())
    assert restarted.code("Other1") == "other"
    assert [restarted.code(code.upper()) for code in new] == [*new[:MAX_CODES], "other", "other"]


def serve(batch: FakeBatch, nodes: Iterable[dict[str, Any]], job: dict[str, Any]) -> None:
    """An account with one job with preparation on these nodes."""
    job = {"id": "j", "state": "active", "creationTime": CREATED, **job}
    batch.json("/jobs", {"value": [job]})
    batch.json("/jobs/j/taskcounts", {"taskCounts": {"active": 0, "running": 0, "completed": 0}})
    batch.json("/jobs/j/jobpreparationandreleasetaskstatus", {"value": list(nodes)})
    batch.json("/nodecounts", {"value": []})


async def scrape(loaded: config.Config, state_file: Path | None = None) -> str:
    """Everything that is exposed after two rounds of polls of a process."""
    loaded = loaded.model_copy(update={"state_file": state_file and str(state_file)})
    async with open_service(loaded, now=lambda: NOW) as service:
        await service.run_once()
        await service.run_once()
        await service.settle()
        return service.exposition.body(Format.TEXT).plain.decode()


async def test_a_restart_gives_each_run_the_label_that_it_had(
    batch: FakeBatch, make_config: Callable[..., config.Config], tmp_path: Path
) -> None:
    codes = [f"New{n}" for n in range(MAX_CODES + 5)]
    nodes = [node(n, code) for n, code in enumerate(codes)]
    serve(batch, nodes, {})
    loaded = make_config(batch.endpoint)
    gauge = "azure_batch_job_preparation_failed_tasks"
    before = labels(await scrape(loaded, tmp_path / "s.db"), gauge, "code")
    assert before == {**dict.fromkeys(codes[:MAX_CODES], 1.0), "other": 5.0}
    serve(batch, reversed(nodes), {})  # the five that were `other` come first
    again = await scrape(loaded, tmp_path / "s.db")
    assert labels(again, gauge, "code") == before
    total = "azure_batch_job_preparation_task_failure_codes_total"
    assert set(labels(again, total, "code").values()) <= {0.0}  # nothing new happened


def read(store: Store, job: Job, *entries: dict[str, Any], full: bool = True) -> Reading:
    """What a poll of a job has read, and not yet put into the store."""
    listing = Listing(ListedRuns)
    page = msgspec.convert(entries, tuple[NodeTaskStatus, ...])
    preparation_release.add_page(listing, page, store.accounts["acc"].spellings, set())
    return Reading(job.pool_id, listing, NOW, None if full else NOW)


class Journal:
    """Keeps what is to be saved."""

    def __init__(self) -> None:
        self.written: list[Changes] = []

    def write(self, changes: Changes, done: Callable[[], None]) -> None:
        self.written.append(changes)
        done()


async def test_a_code_is_saved_with_the_first_run_that_has_it_whichever_poll_learned_it(
    tmp_path: Path,
) -> None:
    job = msgspec.convert({"id": "j", "creationTime": CREATED}, Job)
    selected = SelectedJobs((watch(job, rule(id="j")),))
    journal = Journal()
    store = new_store(Exposition(tables()), journal)
    store.add_account("acc")
    store.select("acc", selected, NOW)
    # A poll of another job reads the code first, and is killed before it comes to an end.
    read(store, Job("slow"), node(0, "BrandNew"))
    reading = read(store, job, node(1, "brandnew"))
    store.put_reading("acc", job, "preparation_release", reading, None, NOW)

    file = StateFile(tmp_path / "s.db", JOB_COLLECTORS, lambda _: None)
    await write(file, *journal.written)
    await file.close()
    file = StateFile(tmp_path / "s.db", JOB_COLLECTORS, lambda _: None)
    store = new_store(Exposition(tables()))
    store.add_account("acc", file.load("acc"), lambda saved: watch_saved((rule(id="j"),), saved))
    await file.close()
    store.select("acc", selected, NOW)
    read(store, Job("busy"), *(node(n, f"New{n}") for n in range(MAX_CODES)))
    state = store.outcome("acc", "preparation_release", "j").state
    folded = store.put_reading(
        *("acc", job, "preparation_release"),
        *(read(store, job, node(1, "BRANDNEW")), state, NOW),
    )
    assert folded is not None
    assert folded.state.runs == state.runs


# Pools


def test_a_pool_keeps_its_first_spelling_and_the_latest_are_remembered() -> None:
    spellings = Spellings()
    assert [spellings.pool(each) for each in ("MyPool", "mypool", "MYPOOL")] == ["MyPool"] * 3
    assert spellings.pool("") == ""
    assert spellings.take_new() == (("pool", "MyPool"),)
    for number in range(MAX_POOLS - 1):
        spellings.pool(f"auto-{number}")
    assert spellings.pool("mypool") == "MyPool"
    spellings.pool("one more")
    assert spellings.pool("mypool") == "mypool"


def test_pools_that_only_polls_of_the_account_show_are_saved_too() -> None:
    journal = Journal()
    store = new_store(Exposition(tables()), journal)
    store.add_account("acc")
    store.accounts["acc"].spellings.pool("MyPool")
    store.put_pool_nodes("acc", (), NOW)
    store.put_pool_nodes("acc", (), NOW)
    assert [each.spellings for each in journal.written if each.spellings] == [(("pool", "MyPool"),)]


async def test_the_state_file_keeps_the_latest_pools(tmp_path: Path) -> None:
    names = [f"auto-{number}" for number in range(MAX_POOLS + 10)]
    file = StateFile(tmp_path / "s.db", JOB_COLLECTORS, lambda _: None)
    code = ("code", "BrandNew")
    for first in range(0, len(names), 1000):
        spellings = tuple(("pool", name) for name in names[first : first + 1000])
        await write(file, Changes("acc", spellings=(code, *spellings)))  # type: ignore[arg-type]
    await file.close()
    file = StateFile(tmp_path / "s.db", JOB_COLLECTORS, lambda _: None)
    assert file.load("acc").spellings == (code, *[("pool", name) for name in names[10:]])
    await file.close()


async def test_a_pool_is_one_in_every_family_whatever_its_case(
    batch: FakeBatch, make_config: Callable[..., config.Config], tmp_path: Path
) -> None:
    nodes = [node(1, pool_id="mypool"), node(2, pool_id="MYPOOL"), node(3, pool_id="MyPool")]
    serve(batch, nodes, {"poolInfo": {"poolId": "MyPool"}})
    counts = {"idle": 3, "total": 3}
    batch.json("/nodecounts", {"value": [{"poolId": "myPOOL", "dedicated": counts}]})
    loaded = make_config(batch.endpoint)
    text = await scrape(loaded, tmp_path / "s.db")
    gauge = "azure_batch_job_preparation_tasks"
    assert f'{gauge}{{account="myaccount",job_id="j",pool_id="MyPool",state="completed"}} 3' in text
    assert len(set(re.findall(r'pool_id="([^"]*)"', text))) == 1

    # After a restart the pool may be seen in another spelling first.
    serve(batch, nodes, {"executionInfo": {"poolId": "mypool"}})
    batch.json("/nodecounts", {"value": [{"poolId": "mypool", "dedicated": counts}]})
    again = await scrape(loaded, tmp_path / "s.db")
    assert set(re.findall(r'pool_id="([^"]*)"', again)) == {"MyPool"}


async def test_a_file_without_spellings_gets_them(tmp_path: Path) -> None:
    path, pool = tmp_path / "s.db", ("pool", "MyPool")

    async def saved_then_write(changes: Changes) -> Saved:
        file = StateFile(path, JOB_COLLECTORS, lambda _: None)
        saved = file.load("acc")
        await write(file, changes)
        await file.close()
        return saved

    await saved_then_write(Changes("acc", 5.0))
    make_version_4(path)
    assert await saved_then_write(Changes("acc", spellings=(pool,))) == Saved(5.0)
    assert (await saved_then_write(Changes("acc", 6.0))).spellings == (pool,)


def test_in_a_job_a_pool_keeps_its_spelling_whatever_the_account_knows() -> None:
    """As after a restart with a state file that an earlier version wrote."""
    state: PreparationRelease | None = None
    counted = 0.0
    for account in (Spellings(), Spellings([("pool", "mypool")])):
        listing = Listing(ListedRuns)
        page = msgspec.convert([node(1, pool_id="MyPool")], tuple[NodeTaskStatus, ...])
        preparation_release.add_page(listing, page, account, set())
        reading = Reading(account.pool("MYPOOL"), listing, NOW)
        folded = preparation_release.fold(state, reading, NOW, True)
        state = folded.state
        counted += sum(folded.events.increments.values())
    assert state is not None
    assert state.pools == ("MyPool",)
    assert counted == 1
