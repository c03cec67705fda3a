"""JSON text exactly as the service lays it out.

Lines end in CRLF, an object opens and closes on lines of its own, its members stand on one line,
and an empty list or object is nothing but the whitespace between its brackets.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any

from exporter.simulator.counts import Counts
from exporter.simulator.error_answers import BatchError
from exporter.simulator.ticks import full_timestamp

ERRORS = "Microsoft.Azure.Batch.Protocol.Entities.Container.errors/@Element"


@dataclass(frozen=True, slots=True)
class View:
    """From where an entity is looked at: `base` is the account's URL, `tick` is now."""

    base: str
    version: str
    tick: int
    statistics: bool = False
    pool_ids_in_capitals: bool = False

    def pool_id(self, pool_id: str) -> str:
        """The id of a pool as tasks and records write it."""
        return pool_id.upper() if self.pool_ids_in_capitals else pool_id


Member = Callable[[Any, View], Any]
"""Gives the JSON value of one member of an entity, None where the service leaves it out."""


def json_text(value: Any, depth: int = 0) -> str:
    """A JSON value as the service writes it `depth` levels down; None inside is left out."""
    if isinstance(value, str):
        return encode_basestring(value)
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, dict):
        members = [
            f'"{name}":{json_text(inner, depth + 1)}'
            for name, inner in value.items()
            if inner is not None
        ]
        return _object_text(members, depth)
    if isinstance(value, (list, tuple)):
        return _list_text([json_text(inner, depth + 1) for inner in value], depth)
    return repr(value)


def _object_text(members: Iterable[str], depth: int) -> str:
    indent = "  " * depth
    return f"{{\r\n{indent}  {','.join(members)}\r\n{indent}}}"


def _list_text(items: Iterable[str], depth: int) -> str:
    indent = "  " * depth
    return f"[\r\n{indent}  {','.join(items)}\r\n{indent}]"


def entity_members(
    entity: object, members: Mapping[str, Member], view: View, depth: int
) -> list[str]:
    """The entity's members as text, in order, the absent ones left out."""
    texts = []
    for name, member in members.items():
        value = member(entity, view)
        if value is not None:
            texts.append(f'"{name}":{json_text(value, depth + 1)}')
    return texts


def element_body(suffix: str, entity: object, members: Mapping[str, Member], view: View) -> str:
    """The body of a Get."""
    metadata = f'"odata.metadata":"{view.base}/$metadata#{suffix}"'
    return _object_text([metadata, *entity_members(entity, members, view, 0)], 0)


def list_body(
    suffix: str,
    entities: Sequence[object],
    members: Mapping[str, Member],
    view: View,
    next_link: str | None,
) -> str:
    """The body of a page of a list."""
    items = (_object_text(entity_members(entity, members, view, 2), 2) for entity in entities)
    parts = [
        f'"odata.metadata":"{view.base}/$metadata#{suffix}"',
        f'"value":{_list_text(items, 1)}',
    ]
    if next_link is not None:
        parts.append(f'"odata.nextLink":{encode_basestring(next_link)}')
    return _object_text(parts, 0)


def task_counts_body(counts: Counts, slots: Counts, view: View) -> str:
    """Task counts: flat before 2020-09-01, and with a validation status before 2018-08-01."""
    if view.version >= "2020-09-01":
        metadata = f'"odata.metadata":"{view.base}/$metadata#taskcountsresult/@Element"'
        parts = (
            metadata,
            f'"taskCounts":{_object_text(_count_members(counts), 1)}',
            f'"taskSlotCounts":{_object_text(_count_members(slots), 1)}',
        )
        return _object_text(parts, 0)
    metadata = f'"odata.metadata":"{view.base}/$metadata#taskcounts/@Element"'
    members = [metadata, *_count_members(counts)]
    if view.version < "2018-08-01":
        members.append('"validationStatus":"Validated"')
    return _object_text(members, 0)


def _count_members(counts: Counts) -> tuple[str]:
    return (
        f'"active":{counts.active},"running":{counts.running},"completed":{counts.completed},'
        f'"succeeded":{counts.succeeded},"failed":{counts.failed}',
    )


def error_body(error: BatchError, base: str, request_id: str, tick: int) -> str:
    """The body of a refusal; its text carries the request's id and the time."""
    text = f"{error.text}\nRequestId:{request_id}\nTime:{full_timestamp(tick)}"
    body: dict[str, Any] = {
        "odata.metadata": f"{base}/$metadata#{ERRORS}",
        "code": error.code,
        "message": {"lang": "en-US", "value": text},
    }
    if error.values:
        body["values"] = [{"key": key, "value": value} for key, value in error.values]
    return json_text(body)
