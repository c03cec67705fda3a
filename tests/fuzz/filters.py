"""`$filter` of the simulated service: refused as the service does it, or a predicate."""

from __future__ import annotations

from types import SimpleNamespace

from exporter.simulator.error_answers import BatchError
from exporter.simulator.filters import (
    JOB_FILTER,
    NODE_COUNTS_FILTER,
    POOL_FILTER,
    RECORD_FILTER,
    TASK_FILTER,
)
from exporter.simulator.query import Options, parameters_of, parse_query

_ALL = JOB_FILTER | TASK_FILTER | POOL_FILTER | RECORD_FILTER | NODE_COUNTS_FILTER

_OPTIONS = Options(members={}, filter=_ALL, expand=True, most=1000)


class _Entity(SimpleNamespace):
    """Has a value for whatever is read of it."""

    def __getattr__(self, name: str) -> object:
        if name in ("pool", "preparation", "release"):
            return self
        if name in ("id", "state", "result", "allocation_state", "vm_size", "pool_id", "node_id"):
            return self.text
        return True if name == "auto_scale" else self.number


_ENTITIES = (_Entity(text="Active", number=0), _Entity(text=None, number=None))


def target(data: bytes) -> None:
    """Take the text as a filter, and as a whole query string."""
    text = data.decode("utf-8", "replace")
    for parameters in ({"$filter": text}, parameters_of(text)):
        try:
            query = parse_query({"api-version": "2024-07-01.20.0", **parameters}, _OPTIONS)
        except BatchError as error:
            assert error.status == 400
            continue
        for entity in _ENTITIES if query.predicate else ():
            assert isinstance(query.predicate(entity), bool)
