"""What all pages have in common: head, navigation, and how numbers and times are written."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import exporter
from exporter.config import durations
from exporter.web.api.models import Health
from exporter.web.api.parameters import Refusal
from exporter.web.pages.html import Child, Html, link, render, tag
from exporter.web.pages.static_files import ICON, SCRIPT, STYLE

REFRESH = 5
"""Seconds between two looks of the script."""

HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self';"
    " connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True)
class Links:
    """Where things are that the program's user may move.

    `docs_url`: where the files of the project can be read; "": nowhere.
    """

    telemetry_path: str
    docs_url: str = ""


def page(title: str, links: Links, *content: Child, current: str = "") -> Html:
    """A page. `current`: which of the navigation's it is."""
    places = [("Overview", ""), ("Configuration", "config")]
    own = [
        link(text, place, aria_current="page" if place == current else None)
        for text, place in places
    ]
    docs = [
        tag("a", text, href=f"{links.docs_url}/{place}", rel="noreferrer")
        for text, place in (("Docs", "docs/README.md"), ("Runbooks", "deploy/runbooks/README.md"))
        if links.docs_url
    ]
    metrics = link("Metrics", links.telemetry_path.lstrip("/"))
    navigation = (*own, metrics, link("API", "api/v1/openapi.json"), *docs)
    return render(
        "page",
        title=title,
        version=exporter.__version__,
        refresh=REFRESH,
        icon=ICON.path,
        style=STYLE.path,
        script=SCRIPT.path,
        navigation=[tag("li", each) for each in navigation],
        content=content,
    )


def refused(why: Refusal, links: Links) -> Html:
    """A page for a request that cannot be answered."""
    title = "Not found" if why.status == 404 else "That cannot be shown"
    reason = tag("p", str(why), class_="error", role="alert")
    return page(title, links, reason, tag("p", link("Back to all jobs", "")), current="-")


def badge(health: Health) -> Html:
    """A word and a colour for how the polls go."""
    return tag("span", health, class_=f"badge {health}")


UNKNOWN = tag("span", "-", class_="none", title="not known")


def number(value: int | None) -> Child:
    """A number with its thousands apart."""
    if value is None:
        return UNKNOWN
    return f"{value:,}".replace(",", "\u202f")


def decimal(value: float) -> str:
    """A rate or a time in seconds."""
    return f"{value:g}"


def ago(seconds: float | None) -> Child:
    """A time that has passed."""
    if seconds is None:
        return tag("span", "never", class_="none")
    whole = round(seconds)
    # Two units are enough: nobody reads the seconds of a day.
    whole -= whole % (3600 if whole >= 86400 else 60 if whole >= 3600 else 1)
    return f"{durations.format_duration(whole)} ago" if whole else "just now"


def moment(text: str | None) -> Child:
    """A point in time, as the API writes it; to the second."""
    if text is None:
        return UNKNOWN
    parsed = dt.datetime.fromisoformat(text)
    return tag("time", parsed.strftime("%Y-%m-%d %H:%M:%S UTC"), datetime=text)
