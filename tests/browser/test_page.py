"""The pages in a real browser, served by real processes."""

from __future__ import annotations

import asyncio
import re
import signal
import statistics
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import aiohttp
import pytest
import pytest_asyncio

from tests.browser.conftest import Open, violations
from tests.process import logged_address, process, program, until_ready

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = [pytest.mark.full, pytest.mark.asyncio(loop_scope="module")]

MANY = 10_000

SOON = 60_000
"""Milliseconds after which a page that does not change is not waited for any longer."""


@asynccontextmanager
async def filled(jobs: int) -> AsyncIterator[str]:
    """The URL of an exporter that knows so many jobs."""
    async with filled_process(jobs) as (url, _):
        yield url


@asynccontextmanager
async def filled_process(jobs: int) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """The URL of an exporter that knows so many jobs, and its process."""
    async with process(sys.executable, "-m", "tests.filled", str(jobs)) as started:
        assert started.stdout is not None
        line = await asyncio.wait_for(started.stdout.readline(), 200)
        yield line.decode().strip(), started


@asynccontextmanager
async def demonstrated() -> AsyncIterator[tuple[str, str]]:
    """URLs of the demo, of which all was polled once, and of the faults of its account."""
    arguments = ("demo", "--scenario=prep-storm", "--web.listen-address=127.0.0.1:0")
    async with program(*arguments) as started:
        url = (await logged_address(started)).removesuffix("/metrics")
        assert started.stdout is not None
        async with asyncio.timeout(200):
            async for line in started.stdout:
                if found := re.match(r"  curl (\S+) names them all", line.decode()):
                    break
        assert found
        async with asyncio.timeout(200):
            await until_ready(f"{url}/metrics")
        yield url, found[1]


@dataclass(frozen=True)
class Served:
    """URLs of exporters: that knows some jobs, that knows very many, the demo and its faults."""

    some: str
    many: str
    demo: tuple[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Served]:
    """All exporters that the tests look at; they start side by side."""
    async with AsyncExitStack() as stack:
        yield Served(
            *await asyncio.gather(
                stack.enter_async_context(filled(120)),
                stack.enter_async_context(filled(MANY)),
                stack.enter_async_context(demonstrated()),
            )
        )


@pytest.fixture
def some(served: Served) -> str:
    """An exporter that knows some jobs."""
    return served.some


@pytest.fixture
def many(served: Served) -> str:
    """An exporter that knows 10,000 jobs."""
    return served.many


@pytest.fixture
def demo(served: Served) -> tuple[str, str]:
    """The demo, and the faults of its account."""
    return served.demo


async def row_ids(page: Page) -> list[str]:
    return await page.locator("#jobs tbody th a").all_inner_texts()


async def has_count(page: Page, text: str) -> None:
    await page.locator("#count", has_text=text).wait_for(timeout=SOON)


async def hasten(page: Page) -> None:
    """Let a page ask again and again, lest a test wait."""
    await page.evaluate("document.body.dataset.refresh = 0.5")
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


async def test_the_page_renews_itself(open_page: Open, demo: tuple[str, str]) -> None:
    async with open_page(demo[0]) as page:
        await page.evaluate("window.stayed = true")
        before = await page.locator("#jobs").inner_html()
        await page.wait_for_function(
            "before => document.getElementById('jobs').innerHTML !== before",
            arg=before,
            timeout=SOON,
        )
        assert await page.evaluate("window.stayed")
        assert (await page.locator("#live").inner_text()).startswith("Live: ")


async def test_an_outage_shows_when_the_page_asks_next(
    open_page: Open, demo: tuple[str, str]
) -> None:
    url, faults = demo
    async with aiohttp.ClientSession() as http, open_page(url) as page:
        await hasten(page)
        await page.locator("#accounts .badge", has_text="up").wait_for(timeout=SOON)
        async with http.put(faults, json={"faults": [{"name": "outage"}]}) as answer:
            assert answer.status < 300
        async with asyncio.timeout(200):
            while (await (await http.get(f"{url}/api/v1/status")).json())["accounts"][0]["up"]:
                await asyncio.sleep(0.1)
        await page.locator("#accounts .badge", has_text="down").wait_for(timeout=SOON)
        text = await page.locator("#accounts .error").inner_text()
        assert text.partition(": ")[0] in ("jobs", "pool_nodes")
        await http.delete(faults)
        await page.locator("#accounts .badge", has_text="up").wait_for(timeout=SOON)


async def test_a_job_has_a_page_of_its_own(open_page: Open, demo: tuple[str, str]) -> None:
    async with open_page(demo[0]) as page:
        first = (await row_ids(page))[0]
        await page.locator("#jobs tbody th a").first.click()
        assert await page.locator("h1").inner_text() == first
        assert await page.locator("svg.chart").count() == 5
        assert f'job_id="{first}"' in await page.locator("#series pre").inner_text()
        await hasten(page)
        await page.locator("#live", has_text="Live: ").wait_for(timeout=SOON)


async def test_what_has_the_focus_or_is_marked_outlives_the_news(
    open_page: Open, demo: tuple[str, str]
) -> None:
    async with open_page(demo[0]) as page:
        link = page.locator("#jobs tbody th a").first
        text = await link.inner_text()
        await link.focus()
        await page.evaluate("window.old = document.getElementById('jobs')")
        await hasten(page)
        await page.wait_for_function("() => !window.old.isConnected", timeout=SOON)
        assert await page.evaluate("document.activeElement.textContent") == text
        await page.evaluate(
            "window.old = document.getElementById('jobs');"
            "getSelection().selectAllChildren(document.querySelector('#jobs tbody th'))"
        )
        await page.wait_for_timeout(2000)
        assert await page.evaluate("window.old.isConnected")
        assert text in await page.evaluate("getSelection().toString()")


async def test_a_page_that_is_cut_off_says_so(open_page: Open, some: str) -> None:
    async with open_page(some) as page:
        await hasten(page)
        await page.route("**/*", lambda route: route.fulfill(status=200, body="{}"))
        await page.locator("#live.lost", has_text="Not live").wait_for(timeout=SOON)
        assert await page.locator("#jobs tbody tr").count() == 50
        await page.unroute("**/*")
        await page.locator("#live", has_text="Live: ").wait_for(timeout=SOON)


async def test_a_page_whose_exporter_hangs_says_so(open_page: Open) -> None:
    async with filled_process(10) as (url, exporter), open_page(url) as page:
        await page.evaluate("document.body.dataset.patience = 1")
        await hasten(page)
        await page.locator("#live", has_text="Live: ").wait_for(timeout=SOON)
        exporter.send_signal(signal.SIGSTOP)
        lost = page.locator("#live.lost", has_text="Not live: no answer within 1 s")
        await lost.wait_for(timeout=SOON)
        exporter.send_signal(signal.SIGCONT)
        await page.locator("#live:not(.lost)", has_text="Live: ").wait_for(timeout=SOON)


async def test_back_sets_the_search_field_though_it_has_the_focus(
    open_page: Open, some: str
) -> None:
    async with open_page(some) as page:
        search = page.locator("#search")
        await search.fill("job-0000")
        await search.press("Enter")
        await search.fill("job-00001")
        await has_count(page, "1 to 1 of 1 jobs (120 without filters)")
        await page.go_back()
        await has_count(page, "1 to 10 of 10 jobs (120 without filters)")
        assert await page.evaluate("document.activeElement.id") == "search"
        assert await search.input_value() == "job-0000"


async def test_input_filters_and_sorts_ten_thousand_jobs(open_page: Open, many: str) -> None:
    """Prints the time from the event to the new rows, as the page itself measures it."""
    inputs = [
        *(("search", text) for text in ("9", "99", "999", "job-0", "frame 1", "")),
        *(("sort", key) for key in ("active", "age", "preparation_failed", "failed", "job_id")),
        *(("health", word) for word in ("failing", "")),
    ]
    async with open_page(many) as page:
        times = [await page.evaluate(MEASURE, list(each)) for each in inputs]
        assert None not in times
        await has_count(page, "1 to 50 of 10\u202f000 jobs")
        print("milliseconds from input to rows:", round(statistics.median(times)))


MEASURE = """async ([name, text]) => {
  const field = document.getElementById(name);
  const seen = new Promise((done) => {
    const observer = new MutationObserver(() => {
      if (document.getElementById("jobs").isSame) return;
      observer.disconnect();
      document.body.offsetHeight;  // laid out
      done(performance.now());
    });
    observer.observe(document.querySelector("main"), { childList: true, subtree: true });
  });
  document.getElementById("jobs").isSame = true;
  const started = performance.now();
  field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  const ended = await Promise.race([seen, new Promise((done) => setTimeout(done, 60000, null))]);
  return ended === null ? null : ended - started;
}"""


async def test_search_sorting_and_paging_stay_on_the_page(open_page: Open, some: str) -> None:
    async with open_page(some) as page:
        await page.evaluate("window.stayed = true")
        await page.locator("#search").press_sequentially("job")
        await page.locator("#state").select_option("active")
        await has_count(page, "1 to 50 of 90 jobs (120 without filters)")
        # By the keyboard, and what was pressed keeps the focus.
        await page.locator("#sort-active").focus()
        await page.keyboard.press("Enter")
        await page.locator("th[aria-sort=descending] #sort-active").wait_for(timeout=SOON)
        assert (await row_ids(page))[:2] == ["job-00119", "job-00118"]
        assert await page.evaluate("document.activeElement.id") == "sort-active"
        assert await page.locator("#sort").input_value() == "active"
        await page.locator("#next").click()
        await has_count(page, "51 to 90 of 90 jobs (120 without filters)")
        await page.go_back()
        await has_count(page, "1 to 50 of 90 jobs (120 without filters)")
        assert await page.locator("#search").input_value() == "job"
        await page.locator("form a.button").click()
        await has_count(page, "1 to 50 of 120 jobs")
        assert await page.locator("#search").input_value() == ""
        assert await page.evaluate("window.stayed")


async def test_all_works_without_a_script(open_page: Open, some: str) -> None:
    async with open_page(some, java_script_enabled=False) as page:
        assert "Reload the page for new numbers." in await page.locator("#live").inner_text()
        await page.locator("#search").fill("-0011")
        await page.locator("#order").select_option("desc")
        await page.locator("button").click()
        await has_count(page, "1 to 10 of 10 jobs (120 without filters)")
        assert (await row_ids(page))[0] == "job-00119"
        await page.locator("#sort-active").click()
        await page.locator("#sort-active").click()
        assert (await row_ids(page))[0] == "job-00110"
        await page.locator("#jobs tbody th a").first.click()
        assert await page.locator("h1").inner_text() == "job-00110"
        await page.locator("nav a", has_text="Configuration").click()
        assert "accounts:" in await page.locator("pre").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
async def test_nobody_is_kept_out(open_page: Open, some: str, scheme: str, width: int) -> None:
    """What axe checks: names, roles, contrast, order; and nothing is wider than the screen."""
    query = urlencode({"account": "filled", "job_id": "job-00100"})
    for path in ("/?search=0010", f"/job?{query}", "/config"):
        async with open_page(f"{some}{path}", width, color_scheme=scheme) as page:
            assert await violations(page) == []
            assert await page.evaluate("document.documentElement.scrollWidth") <= width


async def test_everything_can_be_reached_by_the_keyboard(open_page: Open, some: str) -> None:
    async with open_page(some) as page:
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.textContent") == "Skip to the content"
        await page.keyboard.press("Enter")
        for _ in range(40):
            await page.keyboard.press("Tab")
            if await page.evaluate("document.activeElement.id") == "search":
                break
        await page.keyboard.type("00042")
        await has_count(page, "1 to 1 of 1 jobs (120 without filters)")
        await page.keyboard.press("Enter")
        assert page.url.endswith("?search=00042&sort=job_id&order=asc")
