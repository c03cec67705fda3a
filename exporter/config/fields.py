"""What the models of the configuration share: durations, lists, paths, strictness."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
)

from exporter.config import durations

T = TypeVar("T")

MIN_INTERVAL = 1.0
"""Seconds. A shorter interval only reads again what the service has not renewed."""


class Model(BaseModel):
    """Base of all models: frozen, without unknown keys, without conversions.

    The text below a field is its description in the reference and the schema.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )


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
        raise ValueError(f"{durations.format_duration(seconds)} is too short: at least 1s")
    return seconds


Interval = Annotated[Duration, AfterValidator(_interval)]


def duration_field(default: str) -> Any:
    """A field with a duration as default."""
    return Field(default=default, validate_default=True)


def as_tuple(value: Any) -> Any:
    """A list as tuple: models are strict, and YAML knows lists only."""
    return tuple(value) if isinstance(value, list) else value


def unique(names: tuple[T, ...]) -> tuple[T, ...]:
    """The names; ValueError if one stands twice."""
    if len(set(names)) < len(names):
        raise ValueError("a name stands twice")
    return names


ListOf = Annotated[tuple[T, ...], BeforeValidator(as_tuple)]
UniqueListOf = Annotated[ListOf[T], AfterValidator(unique)]


def _in_folder(path: Path, info: ValidationInfo) -> Path:
    return info.context / path if info.context is not None else path


FilePath = Annotated[Path, Field(strict=False), AfterValidator(_in_folder)]
"""A path. The context of the validation is the folder that it is relative to."""


def _variable(name: str) -> str:
    # Not shown: it may be the secret itself.
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(
            "this is no name of an environment variable: write the name alone, without $; the"
            " secret stands in the variable, not here"
        )
    return name


VariableName = Annotated[str, AfterValidator(_variable)]
"""The name of an environment variable."""
