"""$filter expressions and query strings, as the service reads them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from urllib.parse import quote, urlencode


def literal(value: str | dt.datetime) -> str:
    """A literal: a quoted string, or DateTime'…' in UTC with microseconds."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"DateTime'{value.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%S.%fZ}'"


def any_of(terms: Iterable[str]) -> str:
    """The terms joined by `or`, each in parentheses where there is more than one."""
    listed = list(terms)
    return listed[0] if len(listed) == 1 else " or ".join(f"({term})" for term in listed)


def query_string(parameters: Mapping[str, str]) -> str:
    """`name=value&…`, percent-encoded; spaces as %20, because the signature reads `+` as a plus."""
    return urlencode(parameters, safe="$", quote_via=quote)


def path_segment(identifier: str) -> str:
    """An id for a URL path: ids of a job schedule's jobs contain a colon."""
    return quote(identifier, safe="")
