"""Renders the templates with Jinja2: every value is escaped, and an unknown name is an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined

import exporter
from exporter.config import durations
from exporter.web.api.endpoints import FILTERS
from exporter.web.api.parameters import Refusal
from exporter.web.pages.charts import charts, shares
from exporter.web.pages.static_files import ICON, SCRIPT, STYLE

REFRESH = 5
"""Seconds between two requests of the script."""

PATIENCE = 10
"""Seconds after which the script no longer waits for an answer."""

HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self';"
    " connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}

_DEFAULTS = {parameter.name: parameter.default for parameter in FILTERS}


@dataclass(frozen=True)
class Links:
    """Targets of links that flags or the environment set.

    `docs_url`: where the project's files can be read; "": the pages do not link to them.
    """

    telemetry_path: str
    docs_url: str = ""


def render(name: str, links: Links, **values: object) -> str:
    """The page of the template `name`, without its `.html`."""
    template = _ENVIRONMENT.get_template(f"{name}.html")
    return template.render(page=name, links=links, **values)


def refused(why: Refusal, links: Links) -> str:
    """The page for a request that cannot be answered."""
    return render("refused", links, status=why.status, reason=str(why))


def url(page: str, query: Mapping[str, object]) -> str:
    """The address of a page. It is relative, so it also works behind a proxy that adds a path."""
    text = urlencode(query, errors="replace")
    return f"{page or './'}?{text}" if text else page or "./"


def jobs_url(values: Mapping[str, Any], **changes: Any) -> str:
    """The address of the overview with some values changed. Defaults are left out."""
    query = {**values, **changes}
    return url("", {name: each for name, each in query.items() if each != _DEFAULTS[name]})


def ago(seconds: float) -> str:
    """A time that has passed, in at most two units."""
    whole = round(seconds)
    whole -= whole % (3600 if whole >= 86400 else 60 if whole >= 3600 else 1)
    return f"{durations.format_duration(whole)} ago" if whole else "just now"


_ENVIRONMENT = Environment(
    loader=PackageLoader(__package__),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_ENVIRONMENT.filters["ago"] = ago
_ENVIRONMENT.globals |= {"url": url, "jobs_url": jobs_url, "charts": charts, "shares": shares}
_ENVIRONMENT.globals |= {"icon": ICON.path, "style": STYLE.path, "script": SCRIPT.path}
_ENVIRONMENT.globals |= {
    "refresh": REFRESH,
    "patience": PATIENCE,
    "version": exporter.__version__,
}
# Templates are compiled at start: later that would stall the event loop.
for _name in _ENVIRONMENT.list_templates():
    _ENVIRONMENT.get_template(_name)
