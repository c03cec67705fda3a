"""The first page: accounts, jobs and the latest failures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from multidict import MultiMapping

from exporter.batch.models import Counts
from exporter.web.api import models
from exporter.web.api.endpoints import FILTERS, STATES, failure_list
from exporter.web.api.job_views import job_list
from exporter.web.api.parameters import parse
from exporter.web.api.status_views import status
from exporter.web.backend import Backend
from exporter.web.pages import parts
from exporter.web.pages.html import Child, Html, link, render, tag
from exporter.web.pages.layout import Links, ago, badge, decimal, number, page

ON_A_PAGE = 50
FAILURES = 10

COLUMNS: tuple[tuple[str, str | None], ...] = (
    ("Job", "job_id"),
    ("Account", "account"),
    ("State", "state"),
    ("Polls", "health"),
    ("Last good poll", "age"),
    ("Tasks", "completed"),
    ("Queued", "active"),
    ("Running", "running"),
    ("Failed", "failed"),
    ("Slots", None),
    ("Preparation", "preparation_failed"),
    ("Release", None),
)
"""Head of each column, and what it is sorted by."""

SORTS = {sort: title for title, sort in COLUMNS if sort} | {"created": "Created"}
"""What the form offers to sort by."""

_DEFAULTS = {parameter.name: parameter.default for parameter in FILTERS}


async def show(service: Backend, given: MultiMapping[str], links: Links) -> str:
    """The page for a query, which has the parameters of /api/v1/jobs."""
    values = parse(given, FILTERS)
    found = await job_list(service, {**values, "limit": ON_A_PAGE})
    state = await status(service)
    wanted = {"account": None, "job_id": None, "kind": None, "limit": FAILURES}
    latest = parts.failures((await failure_list(service, wanted)).failures, with_job=True)
    return page(
        "Azure Batch jobs",
        links,
        _problem(state),
        parts.section("accounts", "Accounts", [_account(each) for each in state.accounts]),
        parts.section("jobs", "Jobs", *_jobs(found, values), before=_filters(values, state)),
        parts.section("failures", "Latest failures", latest),
    )


def _problem(state: models.Status) -> Html:
    found = []
    if state.problem:
        found.append(tag("p", f"This process should be started anew: {state.problem}."))
    if not state.ready:
        found.append(tag("p", "The first round of polls is not over yet."))
    if state.shard != "0/1":
        found.append(tag("p", f"This process polls a part of the jobs: shard {state.shard}."))
    return tag("div", *found, id="problems", data_live=True, class_="notes")


# Accounts


def _account(account: models.AccountView) -> Html:
    load = account.load
    used = min(1.0, load.requests_per_second / load.budget_per_second)
    rate = f"{decimal(load.requests_per_second)} of {decimal(load.budget_per_second)}"
    is_tight = used > 0.9 or load.pause_seconds or load.polls_waiting
    shares = [("failed" if is_tight else "running", round(100 * used))]
    dropped = (", ", number(account.jobs_dropped), " left out: max_jobs is reached")
    pause = parts.pair("Pause", f"{decimal(load.pause_seconds)} s left")
    return render(
        "account",
        name=account.name,
        up=_up(account),
        error=tag("p", account.error, class_="error") if account.error else None,
        endpoint=account.endpoint,
        jobs=(number(account.jobs), dropped if account.jobs_dropped else None),
        by_state=_counts(account, account.jobs_by_state, "state"),
        by_health=_counts(account, account.jobs_by_health, "health"),
        polls=[parts.pair(_POLLS[poll.collector], _poll(poll)) for poll in account.polls],
        rate=rate,
        used=parts.bar(shares, 100, f"{rate} are used"),
        polls_per_second=decimal(load.polls_per_second),
        queued=number(load.polls_waiting),
        delay=decimal(load.lag_seconds),
        pause=pause if load.pause_seconds else None,
        series=number(account.series),
    )


_POLLS = {"jobs": "Jobs listed", "pool_nodes": "Nodes counted"}


def _up(account: models.AccountView) -> Html:
    if account.up is None:
        return tag("span", "starting", class_="badge pending")
    return tag(
        "span", "up" if account.up else "down", class_=f"badge {'ok' if account.up else 'stale'}"
    )


def _poll(poll: models.CollectorStatus) -> Child:
    return (ago(poll.age_seconds), *(() if poll.health == "ok" else (" ", badge(poll.health))))


def _counts(account: models.AccountView, counts: Mapping[str, int], parameter: str) -> Child:
    """Numbers by a word, each a link to the jobs that are counted."""
    found: list[Child] = []
    for word, count in counts.items():
        if count:
            query = {"account": account.name, parameter: word}
            found += [", " if found else None, link(parts.phrase(count, word), "", query)]
    return found or "none"


# Jobs


def _filters(values: Mapping[str, Any], state: models.Status) -> Html:
    accounts = {account.name: account.name for account in state.accounts}
    if values["account"]:
        accounts[values["account"]] = values["account"]  # it may be gone
    choices = {
        "account": {"": "any"} | accounts,
        "state": {"": "any"} | {word: word for word in STATES},
        "health": {"": "any"} | {word: word for word in models.HEALTHS},
        "sort": SORTS,
        "order": {"asc": "ascending", "desc": "descending"},
    }
    options = {
        name: [
            tag("option", text, value=value, selected=value == (values[name] or ""))
            for value, text in known.items()
        ]
        for name, known in choices.items()
    }
    hidden = [
        tag("input", type="hidden", name=name, value=values[name])
        for name in ("job_group", "pool_id")
        if values[name]
    ]
    return render("filters", search=values["search"], hidden=hidden, **options)


def _jobs(found: models.JobList, values: Mapping[str, Any]) -> Iterable[Html]:
    shown = (number(found.offset + 1), " to ", number(found.offset + len(found.jobs)), " of ")
    of_all = (" of ", number(found.total)) if found.matched != found.total else None
    count = (shown if found.jobs else "No jobs match: ", number(found.matched), " jobs", of_all)
    yield tag("p", count, id="count", role="status")
    if found.jobs:
        head = [_head(title, sort, values) for title, sort in COLUMNS]
        yield parts.table("Table of jobs", head, [_job(each) for each in found.jobs])
        yield _paging(found, values)


def _head(title: str, sort: str | None, values: Mapping[str, Any]) -> Html:
    if sort is None:
        return tag("th", title, scope="col")
    is_sorted = values["sort"] == sort
    is_descending = is_sorted and values["order"] == "desc"
    # Of numbers the high ones are wanted first.
    first = "asc" if sort in ("job_id", "account", "state") else "desc"
    order = first if not is_sorted else "asc" if is_descending else "desc"
    mark = tag("span", " ▼" if is_descending else " ▲", aria_hidden="true") if is_sorted else None
    direction = ("descending" if is_descending else "ascending") if is_sorted else None
    query = _query(values, sort=sort, order=order, offset=0)
    target = link((title, mark), "", query, id=f"sort-{sort}")
    return tag("th", target, scope="col", aria_sort=direction)


def _query(values: Mapping[str, Any], **changes: Any) -> dict[str, str]:
    """A query with some values changed, and without those that are defaults."""
    return {
        name: str(value)
        for name, value in {**values, **changes}.items()
        if value != _DEFAULTS[name]
    }


def _job(job: models.JobView) -> Html:
    target = link(job.job_id, "job", {"account": job.account, "job_id": job.job_id})
    names = [tag("small", each) for each in (job.display_name, job.job_group) if each]
    error = tag("small", job.error, class_="error") if job.error else None
    tasks = job.tasks or Counts()
    done = tag("small", parts.phrase(tasks.completed, "done"))
    failed = number(tasks.failed)
    return parts.row(
        ("Job", (target, *names), "id"),
        ("Account", job.account, ""),
        ("State", job.state or number(None), ""),
        ("Polls", (badge(job.health), error), ""),
        ("Last good poll", ago(job.age_seconds), ""),
        ("Tasks", (parts.tasks_bar(job.tasks), done), "tasks"),
        ("Queued", number(tasks.active), "number"),
        ("Running", number(tasks.running), "number"),
        ("Failed", tag("strong", failed, class_="bad") if tasks.failed else failed, "number"),
        ("Slots", _slots(job.task_slots), ""),
        ("Preparation", parts.nodes(job.preparation), ""),
        ("Release", parts.nodes(job.release), ""),
    )


def _slots(slots: Counts | None) -> Child:
    if slots is None:
        return number(None)
    queued = tag("small", parts.phrase(slots.active, "queued"))
    return (parts.phrase(slots.running, "running"), queued)


def _paging(found: models.JobList, values: Mapping[str, Any]) -> Html:
    before, after = max(0, found.offset - found.limit), found.offset + found.limit
    previous = link("Previous", "", _query(values, offset=before), id="previous", rel="prev")
    following = link("Next", "", _query(values, offset=after), id="next", rel="next")
    return tag(
        "nav",
        previous if found.offset else None,
        following if after < found.matched else None,
        aria_label="Pages of jobs",
        class_="paging",
    )
