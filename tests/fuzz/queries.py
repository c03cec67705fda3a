"""Queries of the JSON API and the pages: taken, or refused with a reason."""

from __future__ import annotations

from urllib.parse import parse_qsl

from multidict import MultiDict

from exporter.web.api.endpoints import MOST_JOBS, OPERATIONS
from exporter.web.api.job_views import SORT_KEYS
from exporter.web.api.parameters import BadQuery, parse


def target(data: bytes) -> None:
    """What is taken is what the description allows."""
    text = data.decode("utf-8", "replace")
    try:
        given = MultiDict(parse_qsl(text, keep_blank_values=True, max_num_fields=1000))
    except ValueError:  # more fields than that: the server takes no such line
        return
    for operation in OPERATIONS:
        try:
            values = parse(given, operation.parameters)
        except BadQuery as error:
            assert 0 < len(str(error)) < 1000
            continue
        assert values.keys() == {parameter.name for parameter in operation.parameters}
        if operation.path == "/api/v1/jobs":
            assert values["sort"] in SORT_KEYS
            assert 1 <= values["limit"] <= MOST_JOBS
            assert values["offset"] >= 0
