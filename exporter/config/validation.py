"""From a file to a model: every mistake with its line, its path and a cure.

It knows no model by name, so that each file that is configuration answers in the same words.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from exporter.config.yaml_document import Document
from exporter.config.yaml_document import Path as KeyPath
from exporter.errors import ConfigError

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
        text = "unknown key"
        near = difflib.get_close_matches(str(path[-1]), sorted(_keys(root, path)), n=1)
        text += f": did you mean {near[0]}?" if near else ""
    elif kind == "missing":
        text = "this key is required"
    elif kind == "value_error":
        text = str(detail["ctx"]["error"])
    elif kind == "string_pattern_mismatch":
        text = f"{given!r} cannot be right: write for example {_example(root, path)}"
    elif kind == "too_short":
        text = "must not be empty"
    elif kind == "tuple_type":
        text = "must be a list"
    elif kind in ("dict_type", "mapping_type", "model_type"):
        text = "must be a mapping, lines of key: value"
    elif kind == "string_type" and given is not None:
        text = f"must be text: write it in quotes, '{given}'"
    elif kind == "literal_error":
        text = f"{given!r} is not one of {detail['ctx']['expected']}"
    else:
        text = detail["msg"][:1].lower() + detail["msg"][1:]
    return document.problem(path, text)


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
