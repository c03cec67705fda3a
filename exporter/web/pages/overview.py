"""The first page: accounts, jobs and the latest failures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from multidict import MultiMapping

from exporter.batch.models import Counts
from exporter.web.api import models
from exporter.web.api.endpoints import FILTERS, STATES, failure_list
from exporter.web.api.job_views import job_list
from exporter.web.api.parameters import Parameter, parse
from exporter.web.api.status_views import status
from exporter.web.backend import Backend
from exporter.web.pages import parts
from exporter.web.pages.html import Child, Html, link, tag
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
    ("Waiting", "active"),
    ("Running", "running"),
    ("Failed", "failed"),
    ("Slots", None),
    ("Preparation", "preparation_failed"),
    ("Release", None),
)
"""Head of each column, and what it is sorted by."""

ORDERS = {
    "job_id": "name",
    "account": "account",
    "state": "state",
    "health": "how polls go",
    "created": "creation",
    "active": "tasks that wait",
    "running": "tasks that run",
    "completed": "completed tasks",
    "failed": "failed tasks",
    "preparation_failed": "failed preparation",
    "age": "age of the last poll",
}

_PARAMETERS: Mapping[str, Parameter] = {parameter.name: parameter for parameter in FILTERS}


async def show(service: Backend, given: MultiMapping[str], links: Links) -> str:
    """The page for a query, which has the parameters of /api/v1/jobs."""
    values = parse(given, FILTERS)
    found = await job_list(service, {**values, "limit": ON_A_PAGE})
    state = await status(service)
    wanted = {"account": None, "job_id": None, "kind": None, "limit": FAILURES}
    latest = await failure_list(service, wanted)
    return page(
        "Azure Batch jobs",
        links,
        _problem(state),
        parts.section("accounts", "Accounts", [_account(each) for each in state.accounts]),
        tag(
            "section",
            tag("h2", "Jobs", id="jobs-title"),
            _form(values, state),
            tag("div", _jobs(found, values), id="jobs", data_live=True),
            aria_labelledby="jobs-title",
        ),
        parts.section(
            "failures", "Latest failures", parts.failures(latest.failures, with_job=True)
        ),
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
    shares = (("failed" if is_tight else "running", round(100 * used)), ("track", 100))
    return tag(
        "article",
        tag("h3", account.name, " ", _up(account)),
        tag("p", account.error, class_="error") if account.error else None,
        tag("p", account.endpoint, class_="endpoint"),
        tag(
            "dl",
            parts.pair("Jobs", (number(account.jobs), _dropped(account.jobs_dropped))),
            parts.pair("By state", _counts(account, account.jobs_by_state, "state")),
            parts.pair("By polls", _counts(account, account.jobs_by_health, "health")),
            *(parts.pair(_POLLS[poll.collector], _poll(poll)) for poll in account.polls),
            parts.pair(
                "Requests per second",
                (rate, parts.bar((shares[0], ("track", 100 - shares[0][1])), f"{rate} are used")),
            ),
            parts.pair("Polls per second", decimal(load.polls_per_second)),
            parts.pair("Polls that wait", number(load.polls_waiting)),
            parts.pair("Late by", f"{decimal(load.lag_seconds)} s"),
            parts.pair("Pause", f"{decimal(load.pause_seconds)} s left")
            if load.pause_seconds
            else None,
            parts.pair("Series", number(account.series)),
        ),
    )


_POLLS = {"jobs": "Jobs listed", "pool_nodes": "Nodes counted"}


def _up(account: models.AccountView) -> Html:
    if account.up is None:
        return tag("span", "starting", class_="badge pending")
    return tag("span", *(("up",) if account.up else ("down",)),
               class_=f"badge {'ok' if account.up else 'stale'}")  # fmt: skip


def _dropped(count: int) -> Child:
    return (", ", number(count), " left out: max_jobs is reached") if count else None


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


def _form(values: Mapping[str, Any], state: models.Status) -> Html:
    accounts = [(each.name, each.name) for each in state.accounts]
    others = (
        tag("input", type="hidden", name=name, value=values[name])
        for name in ("job_group", "pool_id")
        if values[name]
    )
    return tag(
        "form",
        tag(
            "label",
            "Search",
            tag(
                "input",
                type="search",
                name="search",
                value=values["search"],
                placeholder="id or name",
                autocomplete="off",
                spellcheck="false",
                id="search",
            ),
        ),
        _select("Account", "account", [("", "any"), *accounts], values),
        _select("State", "state", [("", "any"), *((word, word) for word in STATES)], values),
        _select("Polls", "health", [("", "any"), *((w, w) for w in models.HEALTHS)], values),
        _select("Sort by", "sort", ORDERS.items(), values),
        _select("Order", "order", (("asc", "ascending"), ("desc", "descending")), values),
        *others,
        tag("button", "Show", type="submit"),
        link("Reset", "", class_="button"),
        method="get",
        action="./",
        id="filters",
        role="search",
        aria_label="Filters",
    )


def _select(
    title: str, name: str, options: Iterable[tuple[str, str]], values: Mapping[str, Any]
) -> Html:
    chosen = values[name] or ""
    listed = dict(options)
    if chosen not in listed:  # an account that is gone
        listed[chosen] = chosen
    return tag(
        "label",
        title,
        tag(
            "select",
            *(
                tag("option", text, value=value, selected=value == chosen)
                for value, text in listed.items()
            ),
            name=name,
            id=name,
        ),
    )


def _jobs(found: models.JobList, values: Mapping[str, Any]) -> Iterable[Html]:
    first = found.offset + 1 if found.jobs else 0
    shown = (number(first), " to ", number(found.offset + len(found.jobs)), " of ")
    yield tag(
        "p",
        shown if found.jobs else "No job is like this: ",
        number(found.matched),
        " jobs",
        *((" of ", number(found.total)) if found.matched != found.total else ()),
        id="count",
        role="status",
    )
    if found.jobs:
        head = (_head(title, sort, values) for title, sort in COLUMNS)
        yield parts.table("Table of jobs", head, (_job(each) for each in found.jobs))
        yield _paging(found, values)


def _head(title: str, sort: str | None, values: Mapping[str, Any]) -> Html:
    if sort is None:
        return tag("th", title, scope="col")
    is_sorted = values["sort"] == sort
    is_descending = is_sorted and values["order"] == "desc"
    # Of numbers the high ones are wanted first.
    first = "asc" if sort in ("job_id", "account", "state") else "desc"
    order = first if not is_sorted else "asc" if is_descending else "desc"
    mark = (" ▼" if is_descending else " ▲") if is_sorted else None
    direction = ("descending" if is_descending else "ascending") if is_sorted else None
    text = (title, tag("span", mark, aria_hidden="true") if mark else None)
    target = link(text, "", _query(values, sort=sort, order=order, offset=0), id=f"sort-{sort}")
    return tag("th", target, scope="col", aria_sort=direction)


def _query(values: Mapping[str, Any], **changes: Any) -> dict[str, str]:
    """A query with some values changed, and without those that go without saying."""
    return {
        name: str(value)
        for name, value in {**values, **changes}.items()
        if value != _PARAMETERS[name].default
    }


def _job(job: models.JobView) -> Html:
    target = link(job.job_id, "job", {"account": job.account, "job_id": job.job_id})
    names = [tag("small", each) for each in (job.display_name, job.job_group) if each]
    tasks = job.tasks or Counts()
    failed = tasks.failed
    return parts.row(
        ("Job", (target, *names), "id"),
        ("Account", job.account, ""),
        ("State", job.state or number(None), ""),
        ("Polls", (badge(job.health), _why(job)), ""),
        ("Last good poll", ago(job.age_seconds), ""),
        (
            "Tasks",
            (parts.tasks_bar(job.tasks), tag("small", parts.phrase(tasks.completed, "done"))),
            "tasks",
        ),
        ("Waiting", number(tasks.active), "number"),
        ("Running", number(tasks.running), "number"),
        ("Failed", tag("strong", number(failed), class_="bad") if failed else number(failed),
         "number"),
        ("Slots", _slots(job.task_slots), ""),
        ("Preparation", parts.nodes(job.preparation), ""),
        ("Release", parts.nodes(job.release), ""),
    )  # fmt: skip


def _slots(slots: Counts | None) -> Child:
    if slots is None:
        return number(None)
    return (
        parts.phrase(slots.running, "running"),
        tag("small", parts.phrase(slots.active, "waiting")),
    )


def _why(job: models.JobView) -> Child:
    return tag("small", job.error, class_="error") if job.error else None


def _paging(found: models.JobList, values: Mapping[str, Any]) -> Html:
    before, after = max(0, found.offset - found.limit), found.offset + found.limit
    return tag(
        "nav",
        link("Previous", "", _query(values, offset=before), id="previous", rel="prev")
        if found.offset
        else None,
        link("Next", "", _query(values, offset=after), id="next", rel="next")
        if after < found.matched
        else None,
        aria_label="Pages of jobs",
        class_="paging",
    )
