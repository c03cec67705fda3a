"""The HTTP server over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter import config
from exporter.batch.models import Counts
from exporter.collectors.task_counts import TaskCounts
from exporter.exposition.body import Format
from exporter.service.process import Reloader
from exporter.service.service import Service, open_service
from exporter.service.telemetry import ROWS
from exporter.web.app import build_app
from exporter.web.pages import STATIC
from exporter.web.server.listener import listen
from tests.fake_batch import FakeBatch

API = ("/api/v1/jobs", "/api/v1/status", "/api/v1/config", "/api/v1/openapi.json")

OPENMETRICS = "application/openmetrics-text;version=1.0.0"


@pytest.fixture
async def service(
    batch: FakeBatch, make_config: Callable[..., config.Config], official: Callable[[str], Any]
) -> AsyncIterator[Service]:
    """A service of one account with one job; nothing was polled yet."""
    batch.json("/jobs", official("JobList"))
    batch.json("/jobs/jobId/taskcounts", official("JobGetTaskCounts"))
    batch.json("/jobs/jobId/jobpreparationandreleasetaskstatus", {"value": []})
    batch.json("/nodecounts", official("AccountListPoolNodeCounts"))
    async with open_service(make_config(batch.endpoint), revision="abc123") as opened:
        yield opened


@pytest.fixture
async def http(service: Service) -> AsyncIterator[aiohttp.ClientSession]:
    """A client whose paths lead to a server of `service`."""
    server = await listen(build_app(service, "/metrics"), (("127.0.0.1", 0),))
    async with aiohttp.ClientSession(server.urls[0], auto_decompress=False) as session:
        yield session
    await server.close()


async def get(
    http: aiohttp.ClientSession, path: str, method: str = "GET", **headers: str
) -> tuple[aiohttp.ClientResponse, bytes]:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    skipped = () if "Accept-Encoding" in given else ("Accept-Encoding",)
    async with http.request(method, path, headers=given, skip_auto_headers=skipped) as response:
        return response, await response.read()


async def test_both_formats_hold_the_same_series_and_each_parser_takes_its_own(
    service: Service, http: aiohttp.ClientSession
) -> None:
    await service.run_once()
    samples = []
    for accept, parse, content_type in (
        ("text/plain", parse_text, "text/plain; version=0.0.4; charset=utf-8"),
        (
            OPENMETRICS,
            parse_openmetrics,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
    ):
        response, body = await get(http, "/metrics", Accept=accept)
        assert response.status == 200
        assert response.headers["Content-Type"] == content_type
        assert response.headers["Vary"] == "Accept, Accept-Encoding"
        families = list(parse(body.decode()))  # type: ignore[operator]
        listed = [
            (sample.name, frozenset(sample.labels.items()))
            for family in families
            for sample in family.samples
        ]
        assert len(listed) == len(set(listed))
        assert len({family.name for family in families}) == len(families)
        (series,) = (
            f.samples[0].value for f in families if f.name == "azure_batch_exporter_series"
        )
        assert series == len(listed)
        samples.append(set(listed))
    assert samples[0] == samples[1]
    assert any(name == "azure_batch_job_tasks" for name, _ in samples[0])


async def test_every_family_of_the_exporter_itself_is_there_with_help(
    service: Service, http: aiohttp.ClientSession
) -> None:
    await service.run_once()
    _, body = await get(http, "/metrics")
    for row in ROWS:
        assert f"# HELP {row.name} {row.help}\n".encode() in body
    assert b'azure_batch_exporter_build_info{version="' in body
    assert b'revision="abc123"' in body
    request = b'azure_batch_exporter_requests_total{account="myaccount",operation='
    assert request + b'"Job_GetTaskCounts",code="200"} 1\n' in body
    assert b"_created{" not in body
    assert b"process_resident_memory_bytes" in body


async def test_large_bodies_and_reloads_do_not_wait_for_what_else_runs_in_threads(
    service: Service, http: aiohttp.ClientSession
) -> None:
    counts = TaskCounts(Counts(1, 2, 3, 4, 5), Counts(1, 2, 3, 4, 5), Counts(), 0.0)
    for number in range(2000):  # more than what is compressed on the event loop
        identity = (("account", "myaccount"), ("job_id", f"job-{number}"))
        service.exposition.put("task_counts", identity, counts)
    reloader = Reloader(service, lambda: service.config)
    release = threading.Event()
    # As many as name resolution that hangs would occupy, and more.
    loop = asyncio.get_running_loop()
    hanging = [loop.run_in_executor(None, release.wait) for _ in range(100)]
    try:
        for encoding in ("gzip", "identity"):
            response, body = await get(http, "/metrics", Accept_Encoding=encoding)
            text = gzip.decompress(body) if encoding == "gzip" else body
            assert response.status == 200
            assert text.count(b"azure_batch_job_tasks{") == 3 * 2000
        await reloader.reload()
    finally:
        release.set()
        await asyncio.gather(*hanging)


async def test_gzip_is_one_stream_with_the_plain_content(
    service: Service, http: aiohttp.ClientSession
) -> None:
    await service.run_once()
    for accept in ("text/plain", OPENMETRICS):
        response, body = await get(http, "/metrics", Accept=accept, Accept_Encoding="gzip")
        assert response.headers["Content-Encoding"] == "gzip"
        _, plain = await get(http, "/metrics", Accept=accept)
        state = service.exposition.body
        assert gzip.decompress(body).startswith(plain[: plain.index(b"azure_batch_exporter")])
        assert state is not None
    response, _ = await get(http, "/metrics", Accept_Encoding="gzip;q=0")
    assert "Content-Encoding" not in response.headers


async def test_a_scrape_asks_azure_nothing(
    service: Service, http: aiohttp.ClientSession, batch: FakeBatch
) -> None:
    await service.run_once()
    before = len(batch.requests)
    for _ in range(5):
        await get(http, "/metrics")
    assert len(batch.requests) == before


async def test_head_is_answered_and_other_methods_are_not(http: aiohttp.ClientSession) -> None:
    for path in ("/metrics", "/-/healthy", "/", "/config", *API, *(f"/{each}" for each in STATIC)):
        response, body = await get(http, path, "HEAD")
        assert (response.status, body) == (200, b"")
        for method in ("POST", "PUT", "DELETE"):
            response, _ = await get(http, path, method)
            assert response.status == 405
            assert set(response.headers["Allow"].split(",")) == {"GET", "HEAD"}


async def test_ready_only_after_the_first_round(
    service: Service, http: aiohttp.ClientSession
) -> None:
    response, body = await get(http, "/-/ready")
    assert (response.status, body) == (
        503,
        b"Not ready: the first round of polls is not over.\n",
    )
    assert (await get(http, "/-/healthy"))[0].status == 200
    await service.run_once()
    assert (await get(http, "/-/ready"))[0].status == 200


async def test_metrics_may_live_at_another_path(service: Service) -> None:
    server = await listen(build_app(service, "/other"), (("127.0.0.1", 0), ("::1", 0)))
    try:
        first, second = server.urls
        assert second.startswith("http://[::1]:")
        async with aiohttp.ClientSession() as session:
            for url in (first, second):
                assert (await session.get(f"{url}/other")).status == 200
                assert (await session.get(f"{url}/metrics")).status == 404
    finally:
        await server.close()


async def test_hostile_ids_cannot_forge_a_series(
    service: Service, http: aiohttp.ClientSession, batch: FakeBatch
) -> None:
    evil = 'x"} 1\nazure_batch_up{account="other"} 1\n# EOF\n\\'
    batch.json("/jobs", {"value": [{"id": "jobId", "state": "active", "displayName": evil}]})
    await service.run_once()
    _, body = await get(http, "/metrics")
    accounts = {
        sample.labels["account"]
        for family in parse_text(body.decode())
        for sample in family.samples
        if family.name == "azure_batch_up"
    }
    assert accounts == {"myaccount"}
    assert json.dumps(evil)[1:-1].encode() in body


async def test_metrics_that_are_not_wanted_are_not_there(
    batch: FakeBatch,
    make_config: Callable[..., config.Config],
    official: Callable[[str], Any],
) -> None:
    batch.json("/jobs", official("JobList"))
    batch.json("/jobs/jobId/taskcounts", official("JobGetTaskCounts"))
    batch.json("/jobs/jobId/jobpreparationandreleasetaskstatus", {"value": []})
    loaded = make_config(batch.endpoint, pool_nodes=False)
    unwanted = ("azure_batch_job_task_*", "azure_batch_exporter_requests_total", "python_*")
    loaded = loaded.model_copy(update={"exclude_metrics": unwanted})
    async with open_service(loaded) as opened:
        await opened.run_once()
        for format_ in Format:
            state = opened.exposition.body(format_)
            text = (state.plain + opened.telemetry.text(format_, state.series)).decode()
            for name in ("azure_batch_job_task_", "exporter_requests", "python_info"):
                assert name not in text
            for name in ("azure_batch_job_tasks{", "request_duration_seconds_sum{", "process_"):
                assert name in text
            assert text.endswith("# EOF\n") == (format_ is Format.OPENMETRICS)
