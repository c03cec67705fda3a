"""The HTML pages. They show the same views as the JSON API.

Jinja2 renders them from `templates/`, which hold all markup and text. The pages work without a
script: filters are a form, sorting and paging are links. The script requests the same page again
and replaces the parts that changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import yaml
from multidict import MultiMapping

from exporter.web.api.endpoints import FILTERS, JOB_PARAMETERS, STATES
from exporter.web.api.job_views import job_detail, job_list
from exporter.web.api.models import HEALTHS
from exporter.web.api.parameters import parse
from exporter.web.api.status_views import running_config, status
from exporter.web.backend import Backend
from exporter.web.pages.rendering import HEADERS, Links, refused, render
from exporter.web.pages.static_files import STATIC, StaticFile

__all__ = ["HEADERS", "PAGES", "STATIC", "Links", "Page", "StaticFile", "refused"]

JOBS_PER_PAGE = 50
FAILURES = 10
"""Failures on the overview."""

Page = Callable[[Backend, MultiMapping[str], Links], Awaitable[str]]
"""Renders a page for a query. Raises BadQuery and NotFound."""


async def _overview(service: Backend, given: MultiMapping[str], links: Links) -> str:
    """Accounts, jobs and the latest failures. The parameters are those of /api/v1/jobs."""
    values = parse(given, FILTERS)
    return render(
        "overview",
        links,
        values=values,
        found=await job_list(service, {**values, "limit": JOBS_PER_PAGE}),
        status=await status(service),
        failures=service.failures.latest()[:FAILURES],
        states=STATES,
        healths=HEALTHS,
    )


async def _job(service: Backend, given: MultiMapping[str], links: Links) -> str:
    """The job that `account` and `job_id` name."""
    return render("job", links, found=await job_detail(service, parse(given, JOB_PARAMETERS)))


async def _config(service: Backend, given: MultiMapping[str], links: Links) -> str:
    """The configuration in force. There are no parameters."""
    parse(given, ())
    shown = running_config(service.config).config
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=100)
    return render("config", links, text=text)


PAGES: Mapping[str, Page] = {"/": _overview, "/job": _job, "/config": _config}
