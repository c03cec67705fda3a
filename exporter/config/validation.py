"""From a file to a model: every mistake with its line, its path and a cure.

It knows no model by name, so that each file that is configuration answers in the same words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from exporter.config.near_miss import did_you_mean
from exporter.config.problems import ConfigError
from exporter.config.yaml_document import Document
from exporter.config.yaml_document import Path as KeyPath

M = TypeVar("M", bound=BaseModel)


def read_text(file: Path) -> str:
    """The text of a file; ConfigError where it cannot be had."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError((f"{file}: cannot be read: {error.strerror}",)) from error
    except UnicodeDecodeError as error:
        raise ConfigError((f"{file}: not UTF-8 text: {error.reason}",)) from error


def validate(model: type[M], document: Document) -> M:
    """The data of `document` as `model`; ConfigError names every problem."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        details: list[dict[str, Any]] = [dict(detail) for detail in error.errors()]
    found = [
        (document.line(detail["loc"]), _explain(model, document, detail))
        for detail in details
        # A list whose items are wrong counts as too short on top: one cause, one line.
        if not (detail["type"] == "too_short" and _has_problem_below(detail["loc"], details))
    ]
    # Not raised from pydantic's error: that one shows what was given, secrets included.
    raise ConfigError(tuple(text for _, text in sorted(found)))


def _has_problem_below(path: KeyPath, details: list[dict[str, Any]]) -> bool:
    return any(len(d["loc"]) > len(path) and d["loc"][: len(path)] == path for d in details)


def _explain(root: type[BaseModel], document: Document, detail: dict[str, Any]) -> str:
    """One line for one of pydantic's errors, in the words of the file."""
    path: KeyPath = tuple(detail["loc"])
    kind, given = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        text = f"unknown key{_meant_key(root, path)}"
    elif kind == "string_pattern_mismatch":
        text = f"{given!r} cannot be right: write for example {_example(root, path)}"
    elif kind == "string_type" and given is not None:
        text = f"must be text: write it in quotes, '{given}'"
    else:
        text = _in_short(kind, given, detail.get("ctx", {}))
    text = text or detail["msg"][:1].lower() + detail["msg"][1:]
    return document.problem(path, text)


def _in_short(kind: str, given: Any, context: dict[str, Any]) -> str:
    """What is wrong with a value, whatever its place; "" where pydantic says it as well."""
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        expected = context["expected"]
        near = did_you_mean(str(given), re.findall("'([^']*)'", expected))
        return f"{given!r} is not one of {expected}{near}"
    if kind in _BOUNDS:
        bound, member = _BOUNDS[kind]
        return f"must be {bound} {context[member]:g}"
    return _FIXED.get(kind, "")


_FIXED = {
    "missing": "this key is required",
    "too_short": "must not be empty",
    "tuple_type": "must be a list",
    **dict.fromkeys(
        ("dict_type", "mapping_type", "model_type"), "must be a mapping, lines of key: value"
    ),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(
        ("int_type", "int_parsing", "int_from_float"), "must be a whole number, without quotes"
    ),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number, without quotes"),
}

_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def _meant_key(root: type[BaseModel], path: KeyPath) -> str:
    """What an unknown key was meant to be: one that is near, or one whose place is elsewhere."""
    key = str(path[-1])
    if near := did_you_mean(key, _keys(root, path)):
        return near
    places: dict[str, str] = {}
    for place, known in _all_keys(root):
        places.setdefault(known, place)
    if key in places:
        return f" here: it belongs in {places[key] or 'the file itself'}"
    near = did_you_mean(key, places)
    meant = near.removeprefix(": did you mean ").removesuffix("?")
    return f"{near[:-1]}, in {places[meant] or 'the file itself'}?" if near else ""


def _all_keys(model: type[BaseModel], place: str = "") -> Iterator[tuple[str, str]]:
    """(place, key) of all that may stand in a file."""
    for key, field in fields_by_key(model).items():
        below = _model_in(field.annotation)
        if below is not None:
            path = f"{place}.{key}" if place else key
            listed = "[]" if "tuple" in str(field.annotation) else ""
            yield from _all_keys(below, path + listed)
        yield place, key


def _keys(root: type[BaseModel], path: KeyPath) -> dict[str, FieldInfo]:
    """The keys of the mapping in which the last part of `path` stands."""
    model: type[BaseModel] = root
    for part in path[:-1]:
        if isinstance(part, str):
            model = _model_in(fields_by_key(model)[part].annotation) or model
    return fields_by_key(model)


def fields_by_key(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model by what they are called in the file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation: itself, optional, or the item of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _model_in(each))), None)


def _example(root: type[BaseModel], path: KeyPath) -> str:
    examples = _keys(root, path)[str(path[-1])].examples
    assert examples, f"{path}: a field with a pattern has an example"
    return str(examples[0])
