"""A request's query string, understood or refused as the service does it."""

import re
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

OLDEST_VERSION, NEWEST_VERSION = "2014-04-01", "2025-12-31"

_VERSION = re.compile(r"(\d{4}-\d\d-\d\d)(\.\d+\.\d+)?")


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
    """The date of the request's api-version; 400 where it is missing, malformed or unknown."""
    text = parameters.get("api-version")
    if not text:
        raise missing_parameter("api-version")
    match = _VERSION.fullmatch(text)
    if match is None:
        raise invalid_parameter("api-version", text, "The API version is malformed")
    if not OLDEST_VERSION <= match[1] <= NEWEST_VERSION:
        raise unsupported_version(text)
    return match[1]


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
