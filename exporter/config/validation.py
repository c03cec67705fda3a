"""From a file to a model: every mistake with its line, its path and a cure.

It knows no model by name, so that each file that is configuration answers in the same words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from exporter.config.files import read
from exporter.config.problems import ConfigError, did_you_mean, nearest
from exporter.config.redaction import MASK, is_secret_name
from exporter.config.yaml_document import Document, format_path

M = TypeVar("M", bound=BaseModel)


PIPE_TIMEOUT = 5.0
"""Seconds in which a configuration that comes through a pipe is to be there."""


def read_text(file: Path) -> str:
    """The text of a file; ConfigError if it cannot be read."""
    try:
        return read(file, PIPE_TIMEOUT).decode()
    except OSError as error:
        raise ConfigError((f"{file}: cannot be read: {error.strerror}",)) from error
    except UnicodeDecodeError as error:
        raise ConfigError((f"{file}: not UTF-8 text: {error.reason}",)) from error


def validate(model: type[M], document: Document, folder: Path | None = None) -> M:
    """The data of `document` as `model`; ConfigError names every problem.

    `folder`: what paths in the file are relative to.
    """
    try:
        return model.model_validate(document.data, context=folder)
    except ValidationError as error:
        details = error.errors()
    found = [
        (document.line(detail["loc"]), document.problem(detail["loc"], _explain(model, detail)))
        for detail in details
        # pydantic calls a list whose items are wrong too short as well: one cause, one line.
        if not (detail["type"] == "too_short" and detail["input"])
    ]
    # Not raised from pydantic's error: that one shows what was given, secrets included.
    raise ConfigError(tuple(text for _, text in sorted(found)))


def _explain(root: type[BaseModel], detail: ErrorDetails) -> str:
    """What is wrong, in the words of the file."""
    given, context = detail["input"], detail.get("ctx", {})
    place = re.sub(r"\[\d+\]", "[]", format_path(detail["loc"][:-1]))  # as `accounts[].auth`
    key = str(detail["loc"][-1])
    given = MASK if is_secret_name(key) else given
    match detail["type"]:
        case "extra_forbidden":
            return f"unknown key{_meant_key(_fields(root), place, key)}"
        case "string_pattern_mismatch":
            examples = _fields(root)[place, key].examples or [""]
            return f"{given!r} cannot be right: write for example {examples[0]}"
        case "string_type" if given is not None:
            return f"must be text: write it in quotes, '{given}'"
        case "value_error":
            return str(context["error"])
        case "literal_error":
            expected = context["expected"]
            near = did_you_mean(str(given), re.findall("'([^']*)'", expected))
            return f"{given!r} is not one of {expected}{near}"
        case kind if kind in _TEXTS:
            return _TEXTS[kind].format(**context)
    return detail["msg"][:1].lower() + detail["msg"][1:]


_TEXTS = {
    "missing": "this key is required",
    "too_short": "must not be empty",
    "tuple_type": "must be a list",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    **dict.fromkeys(
        ("dict_type", "mapping_type", "model_type"), "must be a mapping, lines of key: value"
    ),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(
        ("int_type", "int_parsing", "int_from_float"), "must be a whole number, without quotes"
    ),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number, without quotes"),
}


def _meant_key(fields: Mapping[tuple[str, str], FieldInfo], here: str, key: str) -> str:
    """What an unknown key was meant to be: a key of this mapping, or one of another place."""
    if {(here, f"{key}_file"), (here, f"{key}_env")} <= fields.keys():
        return f": write {key}_file, a file with it, or {key}_env, an environment variable with it"
    if near := did_you_mean(key, (known for place, known in fields if place == here)):
        return near
    places: dict[str, str] = {}
    for place, known in fields:
        places.setdefault(known, place or "the file itself")
    if key in places:
        return f" here: it belongs in {places[key]}"
    meant = nearest(key, places)
    return f": did you mean {meant}, in {places[meant]}?" if meant is not None else ""


def _fields(model: type[BaseModel], place: str = "") -> dict[tuple[str, str], FieldInfo]:
    """The fields that may stand in a file, by place and key."""
    found: dict[tuple[str, str], FieldInfo] = {}
    for key, field in fields_by_key(model).items():
        found[place, key] = field
        if (below := _model_in(field.annotation)) is not None:
            listed = "[]" if "tuple" in str(field.annotation) else ""
            found |= _fields(below, f"{place}.{key}{listed}".removeprefix("."))
    return found


def fields_by_key(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model by what they are called in the file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation: itself, optional, or the item of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _model_in(each))), None)
