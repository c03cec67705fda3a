"""The page of one job."""

from __future__ import annotations

from collections.abc import Iterable

from multidict import MultiMapping

from exporter.web.api import models
from exporter.web.api.endpoints import JOB_PARAMETERS
from exporter.web.api.job_views import job_detail
from exporter.web.api.parameters import parse
from exporter.web.backend import Backend
from exporter.web.pages import parts
from exporter.web.pages.html import Child, Html, link, tag
from exporter.web.pages.layout import Links, ago, badge, moment, number, page


async def show(service: Backend, given: MultiMapping[str], links: Links) -> str:
    """The page for `account` and `job_id`."""
    found = await job_detail(service, parse(given, JOB_PARAMETERS))
    job = found.job
    return page(
        job.job_id,
        links,
        parts.section("job", "Job", _facts(job)),
        parts.section("tasks", "Tasks and nodes", _numbers(job)),
        parts.section(
            "history", "Since this process began", parts.charts(found.history, found.now)
        ),
        parts.section("polls", "Polls", _polls(found.polls)),
        parts.section("failures", "Failures", parts.failures(found.failures, with_job=False)),
        parts.section("series", "Series, as Prometheus sees them", *_series(found)),
        current="job",
    )


def _facts(job: models.JobView) -> Html:
    facts: list[tuple[str, Child]] = [
        ("Polls", (badge(job.health), " ", tag("small", job.error or "", class_="error"))),
        ("State", job.state or number(None)),
        ("Account", link(job.account, "", {"account": job.account})),
        ("Name", job.display_name or number(None)),
        ("Group", _filter("job_group", job.job_group)),
        ("Pool", _filter("pool_id", job.pool_id)),
        ("Priority", number(job.priority)),
        ("Created", moment(job.created)),
        ("Started", moment(job.started)),
        ("Ended", moment(job.ended)),
        ("Last progress", moment(job.last_progress)),
    ]
    return tag("dl", *(parts.pair(term, given) for term, given in facts))


def _filter(parameter: str, value: str | None) -> Child:
    """A link to the jobs that have it in common."""
    return link(value, "", {parameter: value}) if value else number(None)


def _numbers(job: models.JobView) -> Child:
    head = ("", "Waiting", "Running", "Completed", "Succeeded", "Failed")
    rows = [
        parts.row(
            ("", name, ""),
            *((title, number(value), "number") for title, value in zip(head[1:], values,
                                                                     strict=True)),
        )
        for name, counts in (("Tasks", job.tasks), ("Task slots", job.task_slots))
        for values in (
            (counts.active, counts.running, counts.completed, counts.succeeded, counts.failed)
            if counts
            else (None,) * 5,
        )
    ]  # fmt: skip
    return (
        parts.tasks_bar(job.tasks),
        parts.table("Table of tasks", (tag("td"), *_numeric(head[1:])), rows),
        tag(
            "dl",
            parts.pair("Preparation, nodes", parts.nodes(job.preparation)),
            parts.pair("Release, nodes", parts.nodes(job.release)),
        ),
    )


def _numeric(titles: Iterable[str]) -> Iterable[Html]:
    return (tag("th", title, scope="col", class_="number") for title in titles)


def _polls(polls: tuple[models.CollectorStatus, ...]) -> Html:
    head = ("Collector", "Polls", "Last good poll", "At", "Error")
    rows = (
        parts.row(
            ("Collector", poll.collector, ""),
            ("Polls", badge(poll.health), ""),
            ("Last good poll", ago(poll.age_seconds), ""),
            ("At", moment(poll.last_success), ""),
            ("Error", poll.error or "", "message"),
        )
        for poll in polls
    )
    return parts.table("Table of polls", head, rows)


def _series(found: models.JobDetail) -> tuple[Child, ...]:
    whose = "These are the series of its group." if found.job.job_group else None
    text = "\n".join(found.series)
    return (
        tag("p", number(len(found.series)), " samples. ", whose),
        tag("pre", text, tabindex="0", role="region", aria_label="Samples") if text else None,
    )
