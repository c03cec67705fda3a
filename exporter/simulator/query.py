"""A request's query string, understood or refused as the service does it."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote_plus

from exporter.simulator.error_answers import (
    invalid_parameter,
    missing_parameter,
    unsupported_parameter,
    unsupported_version,
)
from exporter.simulator.filter_language import (
    FilterError,
    Predicate,
    Property,
    compares_times,
    parse_filter,
)
from exporter.simulator.wire import Member

VERSIONS = frozenset(
    (
        *("2014-01-01.1.0", "2014-04-01.1.0", "2014-10-01.1.0", "2015-03-01.1.1", "2015-06-01.2.0"),
        *("2015-11-01.2.1", "2015-12-01.2.2", "2016-02-01.3.0", "2016-07-01.3.1", "2017-01-01.4.0"),
        *("2017-05-01.5.0", "2017-06-01.5.1", "2017-09-01.6.0", "2018-03-01.6.1", "2018-08-01.7.0"),
        *("2018-12-01.8.0", "2019-06-01.9.0", "2019-08-01.10.0", "2020-03-01.11.0"),
        *("2020-09-01.12.0", "2021-06-01.14.0", "2022-01-01.15.0", "2022-10-01.16.0"),
        *("2023-05-01.17.0", "2023-11-01.18.0", "2024-02-01.19.0", "2024-07-01.20.0"),
        *("2025-06-01", "2026-08-01", "2026-10-01"),
    )
)
"""The versions of the API that are served."""


@dataclass(frozen=True)
class Options:
    """What an operation takes beside api-version and timeout.

    `most` is the highest maxresults and the default; 0 where the operation is no list.
    """

    members: Mapping[str, Member]
    filter: Mapping[str, Property] | None = None
    select: bool = True
    expand: bool = False
    most: int = 0


@dataclass(frozen=True)
class Query:
    """A valid query. `members` are those to write; `kept` is what a next link repeats, encoded.

    `by_time`: the filter compares times.
    """

    version: str
    members: Mapping[str, Member]
    predicate: Predicate | None
    filter_text: str
    by_time: bool
    statistics: bool
    page_size: int
    skip_token: str | None
    kept: str


def parameters_of(raw_query: str) -> dict[str, str]:
    """Names in lower case with decoded values; the first of several of one name counts."""
    found: dict[str, str] = {}
    for part in raw_query.split("&"):
        name, _, value = part.partition("=")
        if name:
            found.setdefault(unquote_plus(name).lower(), unquote_plus(value))
    return found


def api_version(parameters: Mapping[str, str]) -> str:
    """The date of the request's api-version; 400 where it is missing or unknown."""
    text = parameters.get("api-version")
    if not text:
        raise missing_parameter("api-version")
    if text not in VERSIONS:
        raise unsupported_version(text)
    return text[:10]


def parse_query(parameters: Mapping[str, str], options: Options) -> Query:
    """Check everything that the operation takes, and that nothing else was given."""
    version = api_version(parameters)
    known = {"api-version", "timeout"}
    known |= {"$filter"} if options.filter is not None else set()
    known |= {"$select"} if options.select else set()
    known |= {"$expand"} if options.expand else set()
    known |= {"maxresults", "$skiptoken"} if options.most else set()
    for name, value in parameters.items():
        if name not in known:
            raise unsupported_parameter(name, value)
    if "timeout" in parameters:
        _whole("timeout", parameters["timeout"])
    filter_text = parameters.get("$filter", "")
    return Query(
        version=version,
        members=_selected(parameters, options.members),
        predicate=_predicate(filter_text, options.filter),
        filter_text=filter_text,
        by_time=bool(filter_text) and compares_times(filter_text),
        statistics=_statistics(parameters),
        page_size=_page_size(parameters, options.most),
        skip_token=parameters.get("$skiptoken"),
        kept="&".join(
            f"{name}={quote(parameters[name], safe='/:=$(),')}"
            for name in ("api-version", "maxresults", "$filter", "$select", "$expand")
            if name in parameters
        ),
    )


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise invalid_parameter(name, text, "The value is not a whole number") from None


def _page_size(parameters: Mapping[str, str], most: int) -> int:
    text = parameters.get("maxresults")
    if text is None or not most:
        return most
    number = _whole("maxresults", text)
    if number < 1:
        raise invalid_parameter("maxresults", text, "MaxResults cannot be less than 1")
    if number > most:
        raise invalid_parameter("maxresults", text, f"MaxResults cannot be greater than {most}")
    return number


def _predicate(text: str, properties: Mapping[str, Property] | None) -> Predicate | None:
    if not text or properties is None:
        return None
    try:
        return parse_filter(text, properties)
    except FilterError as error:
        raise invalid_parameter("$filter", text, str(error)) from error


def _selected(parameters: Mapping[str, str], members: Mapping[str, Member]) -> Mapping[str, Member]:
    text = parameters.get("$select")
    if not text:
        return members
    wanted = {name.strip() for name in text.split(",")}
    for name in sorted(wanted):
        if name not in members:
            raise invalid_parameter("$select", text, f"The property '{name}' cannot be selected")
    return {name: member for name, member in members.items() if name in wanted or name == "stats"}


def _statistics(parameters: Mapping[str, str]) -> bool:
    text = parameters.get("$expand")
    selected = [name.strip() for name in parameters.get("$select", "").split(",")]
    if not text:
        return "stats" in selected
    if text.strip() != "stats":
        raise invalid_parameter("$expand", text, "Only 'stats' can be expanded")
    return True
