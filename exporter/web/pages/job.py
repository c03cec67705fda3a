"""The page of one job."""

from __future__ import annotations

from msgspec.structs import astuple
from multidict import MultiMapping

from exporter.batch.models import Counts
from exporter.web.api import models
from exporter.web.api.endpoints import JOB_PARAMETERS
from exporter.web.api.job_views import job_detail
from exporter.web.api.parameters import parse
from exporter.web.backend import Backend
from exporter.web.pages import parts
from exporter.web.pages.html import Child, Html, link, render, tag
from exporter.web.pages.layout import Links, ago, badge, moment, number, page


async def show(service: Backend, given: MultiMapping[str], links: Links) -> str:
    """The page for `account` and `job_id`."""
    found = await job_detail(service, parse(given, JOB_PARAMETERS))
    history = parts.charts(found.history, found.now)
    return page(
        found.job.job_id,
        links,
        parts.section("job", "Job", _facts(found.job)),
        parts.section("tasks", "Tasks and nodes", _numbers(found.job)),
        parts.section("history", "Since this process began", history),
        parts.section("polls", "Polls", _polls(found.polls)),
        parts.section("failures", "Failures", parts.failures(found.failures, with_job=False)),
        parts.section("series", "Series, as Prometheus sees them", *_series(found)),
        current="job",
    )


def _facts(job: models.JobView) -> Html:
    return render(
        "job",
        health=badge(job.health),
        error=job.error,
        state=job.state or number(None),
        account=link(job.account, "", {"account": job.account}),
        display_name=job.display_name or number(None),
        job_group=_filter("job_group", job.job_group),
        pool_id=_filter("pool_id", job.pool_id),
        priority=number(job.priority),
        created=moment(job.created),
        started=moment(job.started),
        ended=moment(job.ended),
        last_progress=moment(job.last_progress),
    )


def _filter(parameter: str, value: str | None) -> Child:
    """A link to the jobs that have it in common."""
    return link(value, "", {parameter: value}) if value else number(None)


def _numbers(job: models.JobView) -> Child:
    titles = ("Queued", "Running", "Completed", "Succeeded", "Failed")
    rows = []
    for name, counts in (("Tasks", job.tasks), ("Task slots", job.task_slots)):
        values = zip(titles, astuple(counts or Counts()), strict=True)
        cells = ((title, number(value), "number") for title, value in values)
        rows.append(parts.row(("", name, ""), *cells))
    head = [tag("th", title, scope="col", class_="number") for title in titles]
    preparation = parts.pair("Preparation, nodes", parts.nodes(job.preparation))
    release = parts.pair("Release, nodes", parts.nodes(job.release))
    return (
        parts.tasks_bar(job.tasks),
        parts.table("Table of tasks", (tag("td"), *head), rows),
        tag("dl", preparation, release),
    )


def _polls(polls: tuple[models.CollectorStatus, ...]) -> Html:
    head = ("Collector", "Polls", "Last good poll", "At", "Error")
    rows = [
        parts.row(
            ("Collector", poll.collector, ""),
            ("Polls", badge(poll.health), ""),
            ("Last good poll", ago(poll.age_seconds), ""),
            ("At", moment(poll.last_success), ""),
            ("Error", poll.error or "", "message"),
        )
        for poll in polls
    ]
    return parts.table("Table of polls", head, rows)


def _series(found: models.JobDetail) -> tuple[Child, ...]:
    whose = "These are the series of its group." if found.job.job_group else None
    text = "\n".join(found.series)
    return (
        tag("p", number(len(found.series)), " samples. ", whose),
        render("text", label="Samples", text=text) if text else None,
    )
