"""Pictures of the demo's pages, for the documentation: docs/img.

python -m tests.browser.screenshots
"""

from __future__ import annotations

import asyncio

import aiohttp

from tests.browser.conftest import launched
from tests.process import logged_address, program
from tools.gen_docs import DOCS

PICTURES = DOCS / "img"

HISTORY = 90
"""Seconds after which there is something to see in the charts."""


async def main() -> None:
    """Take them all."""
    PICTURES.mkdir(exist_ok=True)
    arguments = ("demo", "--scenario=prep-storm", "--web.listen-address=127.0.0.1:0")
    async with (
        program(*arguments, "--log.level=info") as started,
        launched() as browser,
        aiohttp.ClientSession() as http,
    ):
        url = (await logged_address(started)).removesuffix("/metrics")
        await asyncio.sleep(HISTORY)
        wanted = {"sort": "preparation_failed", "order": "desc", "state": "active", "limit": "1"}
        async with http.get(f"{url}/api/v1/jobs", params=wanted) as answer:
            (job,) = (await answer.json())["jobs"]
        of_job = f"job?account={job['account']}&job_id={job['job_id']}"
        for name, path, width, height, scheme in (
            ("page", "", 1440, 1000, "light"),
            ("page-dark", "", 1440, 1000, "dark"),
            ("page-phone", "", 390, 844, "light"),
            ("jobs-phone", "#jobs", 390, 844, "dark"),
            ("job", of_job, 1440, 1000, "light"),
            ("job-phone", of_job, 390, 844, "light"),
        ):
            context = await browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme="dark" if scheme == "dark" else "light",
            )
            page = await context.new_page()
            await page.goto(f"{url}/{path}")
            await page.screenshot(path=PICTURES / f"{name}.png")
            await context.close()


if __name__ == "__main__":
    asyncio.run(main())
