"""The pages for people. They are made here, of the views that the JSON API answers with.

They work without a script: filters are a form, and sorting and paging are links. The script asks
for the same page again and puts in what is new.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from multidict import MultiMapping

from exporter.web.backend import Backend
from exporter.web.pages import configuration, job, overview
from exporter.web.pages.layout import HEADERS, Links, refused
from exporter.web.pages.static_files import STATIC, StaticFile

__all__ = ["HEADERS", "PAGES", "STATIC", "Links", "Page", "StaticFile", "refused"]

Page = Callable[[Backend, MultiMapping[str], Links], Awaitable[str]]
"""Makes a page for a query. Raises BadQuery and NotFound."""

PAGES: Mapping[str, Page] = {
    "/": overview.show,
    "/job": job.show,
    "/config": configuration.show,
}
