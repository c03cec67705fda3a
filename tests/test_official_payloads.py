"""The published examples and the recordings of the real service, exposed whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter import config
from exporter.exposition.body import Format
from exporter.service.service import open_service
from tests.fake_batch import FakeBatch, reply
from tests.process import check_metrics

GOLDEN = Path(__file__).parent / "golden"
NOW = 1_757_000_000.0


async def scrape(loaded: config.Config) -> str:
    """Everything that is exposed of the accounts after one round of polls at `NOW`."""
    async with open_service(loaded, now=lambda: NOW) as service:
        await service.run_once()
        return service.exposition.body(Format.TEXT).plain.decode()


async def test_published_examples_are_exposed_with_exactly_their_numbers(
    batch: FakeBatch,
    make_config: Callable[..., config.Config],
    official: Callable[[str], Any],
    golden: Callable[[str, str], None],
) -> None:
    batch.json("/jobs", official("JobList"))
    batch.json("/jobs/jobId/taskcounts", official("JobGetTaskCounts"))
    # The sample's nextLink leads to another host and to a path that does not exist.
    status = official("JobListPreparationAndReleaseTaskStatus")
    status["odata.nextLink"] = f"{batch.endpoint}/next?$skiptoken=1"
    batch.json("/jobs/jobId/jobpreparationandreleasetaskstatus", status)
    batch.json("/next", {"value": []})
    batch.json("/nodecounts", official("AccountListPoolNodeCounts"))
    golden("official.prom", await scrape(make_config(batch.endpoint)))


async def test_recorded_answers_are_exposed_with_exactly_their_numbers(
    batch: FakeBatch,
    make_config: Callable[..., config.Config],
    recorded: Callable[[str], Any],
    golden: Callable[[str, str], None],
) -> None:
    entries = {
        entry["RequestUri"].partition(".com/")[2].partition("?")[0]: entry
        for entry in recorded("job_operations_2025-06-01")["Entries"]
        if entry["RequestMethod"] == "GET" and entry.get("ResponseBody")
    }
    for path in (
        "jobs/batchJob1",
        "jobs/batchJob1/taskcounts",
        "jobs/batchJob1/jobpreparationandreleasetaskstatus",
    ):
        batch.json(f"/{path}", entries[path]["ResponseBody"])
    loaded = make_config(
        batch.endpoint, api_version="2025-06-01", jobs=[{"id": "batchJob1"}], pool_nodes=False
    )
    golden("recorded.prom", await scrape(loaded))


async def test_a_job_without_preparation_task_has_no_such_series_and_no_error(
    batch: FakeBatch,
    make_config: Callable[..., config.Config],
    official: Callable[[str], Any],
    recorded: Callable[[str], Any],
) -> None:
    (conflict,) = recorded("prep_release_409_2024-02-01.19.0")["Entries"]
    batch.json("/jobs", official("JobList"))
    batch.json("/jobs/jobId/taskcounts", official("JobGetTaskCounts"))
    path = "/jobs/jobId/jobpreparationandreleasetaskstatus"
    batch.on(path, reply(conflict["ResponseBody"], conflict["StatusCode"]))
    batch.json("/nodecounts", {"value": []})
    text = await scrape(make_config(batch.endpoint))
    assert "azure_batch_job_preparation" not in text
    assert "azure_batch_job_release" not in text
    labels = 'account="myaccount",job_id="jobId",collector="preparation_release"'
    assert f"azure_batch_job_scrape_success{{{labels}}} 1\n" in text


async def test_flat_task_counts_of_older_api_versions_are_read(
    batch: FakeBatch,
    make_config: Callable[..., config.Config],
    official: Callable[[str], Any],
) -> None:
    batch.json("/jobs", official("JobList"))
    batch.json("/jobs/jobId/taskcounts", official("JobGetTaskCounts.2018-03-01.6.1"))
    loaded = make_config(
        batch.endpoint,
        api_version="2018-03-01.6.1",
        pool_nodes=False,
        defaults={"collect": ["task_counts"]},
    )
    text = await scrape(loaded)
    job = 'account="myaccount",job_id="jobId"'
    assert f'azure_batch_job_tasks{{{job},state="active"}} 5\n' in text
    assert f'azure_batch_job_tasks{{{job},state="running"}} 7\n' in text
    assert f'azure_batch_job_completed_tasks{{{job},result="failure"}} 2\n' in text
    assert "azure_batch_job_task_slots" not in text


@pytest.mark.parametrize("name", ["official.prom", "recorded.prom"])
async def test_promtool_finds_nothing_to_say(name: str, promtool: Path) -> None:
    assert await check_metrics(promtool, (GOLDEN / name).read_bytes()) == (0, "")
