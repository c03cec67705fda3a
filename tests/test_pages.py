"""The pages without a browser: nothing is trusted, nothing is missing, and no script is needed."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import aiohttp
import msgspec
import pytest
from multidict import MultiDict

from exporter import config
from exporter.batch.errors import Forbidden
from exporter.polling.sign_in_trouble import SignInTrouble
from exporter.service.service import Service, open_service
from exporter.web.api.endpoints import FILTERS
from exporter.web.api.job_views import SORT_KEYS, job_detail, job_list
from exporter.web.api.parameters import parse
from exporter.web.api.status_views import status
from exporter.web.app import build_app
from exporter.web.pages import PAGES, STATIC
from exporter.web.pages.rendering import Links, render
from exporter.web.server.listener import listen
from tests.fake_batch import FakeBatch, batch_error
from tests.filled import ACCOUNT, config_of, fill
from tests.pages import ROOT

JOBS = 120

HOSTILE = """'"><script>alert(1)</script><img src=x onerror=alert(1)>&amp;"""


class Page(HTMLParser):
    """What a page holds. `rows`: cells of each row by what stands above them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, Mapping[str, str | None]]] = []
        self.rows: list[dict[str, str]] = []
        self.text = ""
        self._cell: str | None = None
        self.feed(text)

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.tags.append((name, found))
        if name == "tr":
            self.rows.append({})
        if "data-label" in found:
            self._cell = found["data-label"]

    def handle_endtag(self, name: str) -> None:
        if name in ("td", "th"):
            self._cell = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell is not None:
            self.rows[-1][self._cell] = self.rows[-1].get(self._cell, "") + data

    def links(self) -> list[str]:
        return [str(found["href"]) for name, found in self.tags if name == "a"]


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service that knows `JOBS` jobs."""
    async with open_service(config_of()) as opened:
        fill(opened.store, JOBS, opened.now() - 7.0)
        yield opened


@pytest.fixture
async def http(service: Service) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of `service`."""
    server = await listen(build_app(service, "/metrics"), (("127.0.0.1", 0),))
    async with aiohttp.ClientSession(server.urls[0]) as session:
        yield session
    await server.close()


async def see(http: aiohttp.ClientSession, path: str, status: int = 200) -> Page:
    async with http.get(path) as response:
        assert response.status == status
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        return Page(await response.text())


async def ask(http: aiohttp.ClientSession, path: str) -> Any:
    async with http.get(path) as response:
        return await response.json()


@pytest.mark.parametrize("path", ["/", "/?sort=running&order=desc&offset=50", "/?search=0001"])
async def test_every_number_of_a_job_is_that_of_the_api(
    http: aiohttp.ClientSession, path: str
) -> None:
    page = await see(http, path)
    given = urlsplit(path).query
    answer = await ask(http, f"/api/v1/jobs?limit=50&{given}")
    rows = [row for row in page.rows if "Queued" in row]
    assert len(rows) == len(answer["jobs"]) > 10
    for row, job in zip(rows, answer["jobs"], strict=True):
        tasks, nodes = job["tasks"], job["preparation"]
        assert row["Job"] == job["job_id"] + job.get("display_name", "")
        assert row["State"] == job["state"]
        assert row["Poll status"] == job["health"] + job.get("error", "")
        assert row["Queued"] == str(tasks["active"])
        assert row["Running"] == str(tasks["running"])
        assert row["Failed"] == str(tasks["failed"])
        assert row["Tasks"].endswith(f"{tasks['completed']} done")
        failed = f", {nodes['failed']} failed" if nodes["failed"] else ""
        assert row["Preparation"] == f"{nodes['succeeded']} ok{failed}"
        assert row["Last success"] == f"{round(job['age_seconds'])}s ago"
    assert f"of {answer['matched']} jobs" in page.text


async def test_every_number_of_an_account_is_that_of_the_api(http: aiohttp.ClientSession) -> None:
    page = await see(http, "/")
    (account,) = (await ask(http, "/api/v1/status"))["accounts"]
    assert "118 ok, 2 failing" in page.text
    assert f"{account['jobs_by_state']['active']} active" in page.text
    assert f"Series{account['series']:,}".replace(",", "\u202f") in page.text
    assert f"0 of {account['load']['budget_per_second']:g}" in page.text
    assert account["endpoint"] in page.text


async def test_a_job_that_fails_says_why_and_what_to_do(
    service: Service, http: aiohttp.ClientSession
) -> None:
    job = service.store.jobs(ACCOUNT)["job-00001"].watched.job
    error = Forbidden(403, "AuthorizationFailure")
    error.cause, error.cure = "role", "give the identity the role"
    service.store.fail(ACCOUNT, "task_counts", job, error, since=0.0, stale=False)
    page = await see(http, f"/job?account={ACCOUNT}&job_id=job-00001")
    advice = "Cause: roleWhat to do: give the identity the role"  # each in an element of its own
    assert f"task_counts: {error}\n{advice}\n" in page.text
    (row,) = [each for each in page.rows if each.get("Collector") == "task_counts"]
    assert row["Error"] == f"{error}{advice}"


async def test_an_account_that_is_up_warns_that_signing_in_fails(
    service: Service, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Signing in" not in (await see(http, "/")).text
    trouble = SignInTrouble(HOSTILE, "client_secret", HOSTILE, 1_800_000_000.0, 1_800_003_600.0)
    monkeypatch.setattr(service, "sign_in_trouble", {ACCOUNT: trouble}.get)
    page = await see(http, "/")
    assert_harmless(page)
    assert (
        "Signing in has failed since 2027-01-15 08:00:00 UTC;"
        " the present token is good until 2027-01-15 09:00:00 UTC."
        f"\n{HOSTILE}\nCause: client_secretWhat to do: {HOSTILE}\n"
    ) in page.text
    trouble = msgspec.structs.replace(trouble, good_until=None)
    monkeypatch.setattr(service, "sign_in_trouble", {ACCOUNT: trouble}.get)
    text = (await see(http, "/")).text
    assert "Signing in has failed since 2027-01-15 08:00:00 UTC.\n" in text


async def test_every_link_of_a_page_leads_to_one(http: aiohttp.ClientSession) -> None:
    for path in ("/", f"/job?account={ACCOUNT}&job_id=job-00050", "/config"):
        page = await see(http, path)
        found = {str(each[key]) for _, each in page.tags for key in ("href", "src") if key in each}
        assert len(found) > 10
        for target in sorted(found):
            assert not urlsplit(target).scheme and not target.startswith("/")
            if target.startswith("#"):
                assert ("main", {"id": target[1:], "tabindex": "-1"}) in page.tags
                continue
            async with http.get(urljoin(path, target)) as response:
                assert response.status in (200, 503), target  # it is not ready
                assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_sorting_filters_and_paging_need_no_script(http: aiohttp.ClientSession) -> None:
    page = await see(http, "/?state=active&search=job")
    (form,) = [found for name, found in page.tags if name == "form"]
    assert (form["method"], form["action"]) == ("get", "./")
    by_running = next(each for each in page.links() if "sort=running" in each)
    assert parse_qs(urlsplit(by_running).query) == {
        "search": ["job"],
        "state": ["active"],
        "sort": ["running"],
        "order": ["desc"],
    }
    (after,) = [each for each in page.links() if "offset=50" in each]
    second = await see(http, f"/{after}")
    assert "51 to 90 of 90 jobs (120 without filters)" in second.text
    assert any(each == "./?search=job&state=active" for each in second.links())
    empty = await see(http, "/?search=nothing")
    assert "No jobs match (120 without filters)" in empty.text
    beyond = await see(http, "/?offset=120")
    assert "No jobs on this page, 120 jobs on others" in beyond.text


async def test_a_page_that_cannot_be_says_why(http: aiohttp.ClientSession) -> None:
    page = await see(http, f"/?sort={HOSTILE.replace('&', '%26')}", 400)
    assert "sort must be one of job_id, account" in page.text
    assert_harmless(page)
    page = await see(http, "/job?account=filled&job_id=<script>", 404)
    assert "no job '<script>' is watched" in page.text
    assert_harmless(page)
    await see(http, "/job", 400)
    await see(http, "/config?x=1", 400)


async def test_a_job_shows_its_series_and_charts(http: aiohttp.ClientSession) -> None:
    page = await see(http, f"/job?account={ACCOUNT}&job_id=job-00050")
    answer = await ask(http, f"/api/v1/job?account={ACCOUNT}&job_id=job-00050")
    for line in answer["series"]:
        assert line in page.text
    charts = [found for name, found in page.tags if name == "svg" and found["class"] == "chart"]
    assert len(charts) == 5
    assert "Queued tasks: from 50 to 50 in 0 minutes (max 50)" in page.text
    assert "The task exited with 1" in page.text


async def test_what_is_served_to_a_browser_can_run_nothing_else(
    http: aiohttp.ClientSession,
) -> None:
    for path in PAGES:
        async with http.get(path) as response:
            policy = response.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self';")
            assert "unsafe" not in policy and "http" not in policy
            assert_harmless(Page(await response.text()))
    for path, file in STATIC.items():
        async with http.get(f"/{path}") as response:
            assert await response.read() == file.content
            assert "immutable" in response.headers["Cache-Control"]


def assert_harmless(page: Page) -> None:
    """No script but our own, no style and no handler in an attribute."""
    scripts = [found["src"] for name, found in page.tags if name == "script"]
    assert scripts and set(scripts) <= STATIC.keys()
    for name, found in page.tags:
        assert name not in ("img", "style", "iframe", "object", "base")
        assert not any(key.startswith("on") or key == "style" for key in found)
        assert not str(found.get("href", "")).lower().startswith(("javascript:", "data:"))


async def test_hostile_names_are_text(
    batch: FakeBatch, make_config: Callable[..., config.Config], official: Callable[[str], Any]
) -> None:
    job: dict[str, Any] = {"id": HOSTILE, "displayName": HOSTILE, "state": "active"}
    job["poolInfo"] = {"poolId": HOSTILE}
    batch.json("/jobs", {"value": [job]})
    batch.on("/nodecounts", batch_error(403, HOSTILE, HOSTILE))
    async with open_service(make_config(batch.endpoint)) as service:
        await service.run_once()
        for request in batch.requests:  # as the client writes its path
            if request.path.endswith("/taskcounts"):
                batch.json(request.raw_path.partition("?")[0], official("JobGetTaskCounts"))
            elif request.path.endswith("/jobpreparationandreleasetaskstatus"):
                batch.json(request.raw_path.partition("?")[0], {"value": []})
        await service.run_once()
        server = await listen(build_app(service, "/metrics"), (("127.0.0.1", 0),))
        async with aiohttp.ClientSession(server.urls[0]) as http:
            page = await see(http, "/")
            (target,) = [each for each in page.links() if each.startswith("job?")]
            own = await see(http, f"/{target}")
        await server.close()
    for each in (page, own):
        assert HOSTILE in each.text
        assert_harmless(each)
    assert parse_qs(urlsplit(target).query)["job_id"] == [HOSTILE]


async def test_every_text_of_a_view_is_escaped(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble = SignInTrouble("error", "cause", "cure", 1_800_000_000.0, 1_800_003_600.0)
    monkeypatch.setattr(service, "sign_in_trouble", {ACCOUNT: trouble}.get)
    values = dict(parse(MultiDict(), FILTERS))
    planted = values | dict.fromkeys(("search", "account", "job_group", "pool_id"), HOSTILE)
    links = Links(f"/{HOSTILE}", HOSTILE)
    detail = await job_detail(service, {"account": ACCOUNT, "job_id": "job-00100"})
    overview = render(
        "overview",
        links,
        values=planted,
        found=hostile(await job_list(service, values | {"limit": JOBS})),
        status=hostile(await status(service), but=("collector",)),
        failures=hostile(tuple(service.failures.latest())),
        states=(HOSTILE,),
        healths=(HOSTILE,),
    )
    job = render("job", links, found=hostile(detail, but=("now", "history")))
    config_page = render("config", links, text=HOSTILE)
    for text, least in ((overview, 4 * JOBS), (job, 30), (config_page, 1)):
        page = Page(text)
        assert page.text.count(HOSTILE) >= least
        assert_harmless(page)


def hostile(value: Any, but: tuple[str, ...] = ()) -> Any:
    """A view with other texts: all fields, but those of these names, and all keys."""
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, tuple):
        return tuple(hostile(each, but) for each in value)
    if isinstance(value, dict):
        return {f"{HOSTILE}{key}": each for key, each in value.items()}
    if isinstance(value, msgspec.Struct):
        names = set(value.__struct_fields__) - set(but)
        changes = {name: hostile(getattr(value, name), but) for name in names}
        return msgspec.structs.replace(value, **changes)
    return value


def test_no_template_marks_text_as_safe_or_leaves_out_quotes() -> None:
    for file in (ROOT / "exporter" / "web" / "pages" / "templates").iterdir():
        assert not re.search(r"\b(safe|autoescape|Markup)\b|=\{\{", file.read_text()), file.name


async def test_the_form_sorts_by_all_that_the_api_can_sort_by(http: aiohttp.ClientSession) -> None:
    async with http.get("/") as response:
        text = await response.text()
    options = text[text.index('<select name="sort"') :].partition("</select>")[0]
    assert set(re.findall('<option value="(.*?)"', options)) == SORT_KEYS.keys()


async def test_the_documentation_is_linked_where_it_is(
    service: Service,
) -> None:
    url = "https://docs.example.com/v1"
    server = await listen(build_app(service, "/metrics", docs_url=f"{url}/"), (("127.0.0.1", 0),))
    async with aiohttp.ClientSession(server.urls[0]) as http:
        page = await see(http, "/config")
    await server.close()
    outside = [each for each in page.links() if "//" in each]
    places = [each.removeprefix(f"{url}/") for each in outside]
    assert places == ["docs/README.md", "deploy/runbooks/README.md"]
    assert all((ROOT / place).is_file() for place in places)


async def test_without_a_page_there_are_metrics_and_the_api(service: Service) -> None:
    server = await listen(build_app(service, "/"), (("127.0.0.1", 0),))
    async with aiohttp.ClientSession(server.urls[0]) as http:
        async with http.get("/") as response:
            assert "azure_batch_up" in await response.text()
        async with http.get("/job") as response:
            assert response.status == 404
        assert (await ask(http, "/api/v1/jobs?limit=1"))["total"] == JOBS
    await server.close()
