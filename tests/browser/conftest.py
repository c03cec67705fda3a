"""A browser for the tests in this folder."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests import tools

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

Open = Callable[..., AbstractAsyncContextManager["Page"]]


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """A Chromium."""
    program, packages = tools.browser(), tools.browser_packages()
    # Behind our own: what both have is ours.
    sys.path.append(str(packages))
    try:
        from playwright.async_api import async_playwright
    finally:
        sys.path.remove(str(packages))
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        await started.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """A Chromium, shared by the tests of a module."""
    async with launched() as started:
        yield started


@pytest.fixture
def open_page(browser: Browser) -> Open:
    """Opens a page in a browser of its own kind; at the end nothing may stand in its console.

    `width`: of the screen in pixels; the rest as Playwright's `new_context` has it.
    """

    @asynccontextmanager
    async def opened(url: str, width: int = 1440, **context: Any) -> AsyncIterator[Page]:
        size = {"width": width, "height": 900}
        own = await browser.new_context(viewport=size, **context)
        page = await own.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
        await page.goto(url)
        yield page
        await own.close()
        assert said == []

    return opened


async def violations(page: Page) -> list[str]:
    """What axe finds on a page, worse than minor."""
    script = tools.browser_packages() / "axe_playwright_python" / "axe.min.js"
    # By the debugger: the page's own policy lets no script in.
    session = await page.context.new_cdp_session(page)
    await session.send("Runtime.evaluate", {"expression": script.read_text()})
    found: dict[str, Any] = await page.evaluate("axe.run()")
    assert len(found["passes"]) > 15
    return [
        f"{each['impact']} {each['id']}: {json.dumps([node['html'] for node in each['nodes']])}"
        for each in found["violations"]
        if each["impact"] != "minor"
    ]
