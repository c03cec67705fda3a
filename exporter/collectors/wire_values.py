"""Values of what the service answers, by their paths on the wire, for rows that show one member."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from exporter.batch.models import Record, Time, duration_seconds, unix_time


def value_at(path: str, *models: type[Record]) -> Callable[[Any], float | None]:
    """Gets a value from a record: a number, a Unix time, or the seconds of a duration.

    `models`: the record's model and those of the members on the path. KeyError for an unknown name.
    The value is None if a member is missing, or is a duration that cannot be read.
    """
    fields = {
        field.encode_name: field for model in models for field in msgspec.structs.fields(model)
    }
    on_path = [fields[part] for part in path.split(".")]
    members, is_time = [field.name for field in on_path], on_path[-1].type == Time | None

    def value(record: Any) -> float | None:
        found = record
        for member in members:
            found = getattr(found, member, None)
        if is_time:
            return unix_time(found)
        if isinstance(found, bool):
            return int(found)
        try:
            return duration_seconds(found) if isinstance(found, str) else found
        except ValueError:
            return None

    return value
