"""What the models of the configuration have in common: durations, lists, strictness."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

from exporter.config import durations

MIN_INTERVAL = 1.0
"""Seconds. A shorter interval would only find the counts that the service has not renewed."""


def _parse_duration(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("write a duration as text, for example 30s, 5m or 1h30m")
    if isinstance(value, int) and value:
        raise ValueError(f"{value} has no unit: write for example {value}s")
    return durations.parse_duration(str(value))


Duration = Annotated[
    float,
    BeforeValidator(_parse_duration),
    PlainSerializer(durations.format_duration, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": durations.PATTERN, "examples": ["30s", "5m"]}),
]
"""Seconds, written as a Prometheus duration."""


def _interval(seconds: float) -> float:
    if seconds < MIN_INTERVAL:
        raise ValueError(
            f"{durations.format_duration(seconds)} is too short:"
            f" at least {durations.format_duration(MIN_INTERVAL)}"
        )
    return seconds


Interval = Annotated[Duration, AfterValidator(_interval)]


def duration_field(default: str, description: str) -> Any:
    return Field(
        default=durations.parse_duration(default),
        description=description,
        json_schema_extra={"default": default},
    )


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def unique(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("a name stands twice")
    return names


def as_tuple(value: Any) -> Any:
    # Models are strict, and YAML knows lists only.
    return tuple(value) if isinstance(value, list) else value
