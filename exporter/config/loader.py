"""Reading the configuration file: every mistake with its line, its path and a cure."""

from __future__ import annotations

import difflib
import fnmatch
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from exporter.collectors import tables
from exporter.config import Account, Auth, Config, Defaults, JobRule, secret, yaml_document
from exporter.errors import ConfigError
from exporter.telemetry import ROWS, SERIES

log = logging.getLogger(__name__)


def load(file: Path) -> Config:
    """Read and check a configuration file, secrets included.

    ConfigError names every problem with file, line and path. Relative paths in the file are
    relative to its folder. A file with a secret that everybody may read is a warning in the log.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError((f"{file}: cannot be read: {error.strerror}",)) from error
    except UnicodeDecodeError as error:
        raise ConfigError((f"{file}: not UTF-8 text: {error.reason}",)) from error
    config = parse(text, str(file), file.parent)
    for exposed in secret.open_to_all(account.auth for account in config.accounts):
        log.warning("every user of this machine can read the secret in %s: chmod 600 it", exposed)
    return config


def parse(text: str, name: str, folder: Path) -> Config:
    """Check a configuration text. `name`: how messages call it; `folder`: base of its paths."""
    document = yaml_document.parse_yaml(text, name)
    if not isinstance(document.data, dict):
        raise ConfigError((f"{name}:1: the file must be a mapping with the key accounts",))
    try:
        config = Config.model_validate(document.data)
    except ValidationError as error:
        details: list[dict[str, Any]] = [dict(detail) for detail in error.errors()]
        found = [
            (document.line(detail["loc"]), _explain(document, detail))
            for detail in details
            # A list whose items are wrong counts as too short on top: one cause, one line.
            if not (detail["type"] == "too_short" and _has_problem_below(detail["loc"], details))
        ]
        raise ConfigError(tuple(text for _, text in sorted(found))) from error
    config = _resolve_paths(config, folder)
    known = {row.name for table in tables().values() for row in table.metrics}
    known |= {row.name for row in (*ROWS, SERIES)}
    for number, pattern in enumerate(config.exclude_metrics):
        if not pattern.startswith(("process_", "python_")) and not fnmatch.filter(known, pattern):
            text = f"no metric is named {pattern}: docs/metrics.md lists them"
            raise ConfigError((document.problem(("exclude_metrics", number), text),))
    problems = tuple(
        document.problem(("accounts", number, "auth", field), text)
        for number, account in enumerate(config.accounts)
        for field, text in secret.problems(account.auth)
    )
    if problems:
        raise ConfigError(problems)
    return config


def _resolve_paths(config: Config, folder: Path) -> Config:
    def resolved(auth: Auth) -> Auth:
        paths = {
            name: folder / path
            for name in ("client_secret_file", "certificate_file", "key_file")
            if (path := getattr(auth, name)) is not None
        }
        return auth.model_copy(update=paths)

    accounts = tuple(
        account.model_copy(update={"auth": resolved(account.auth)}) for account in config.accounts
    )
    state_file = folder / config.state_file if config.state_file is not None else None
    return config.model_copy(update={"accounts": accounts, "state_file": state_file})


def _has_problem_below(path: yaml_document.Path, details: list[dict[str, Any]]) -> bool:
    return any(len(d["loc"]) > len(path) and d["loc"][: len(path)] == path for d in details)


def _explain(document: yaml_document.Document, detail: dict[str, Any]) -> str:
    """One line for one of pydantic's errors, in the words of the file."""
    path: yaml_document.Path = tuple(detail["loc"])
    kind, given = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        text = "unknown key"
        known = sorted(_model_around(path).model_fields)
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        text += f": did you mean {near[0]}?" if near else ""
    elif kind == "missing":
        text = "this key is required"
    elif kind == "value_error":
        text = str(detail["ctx"]["error"])
    elif kind == "string_pattern_mismatch":
        text = f"{given!r} cannot be right: write for example {_field_example(path)}"
    elif kind == "too_short":
        text = "must not be empty"
    elif kind == "tuple_type":
        text = "must be a list"
    elif kind == "string_type" and given is not None:
        text = f"must be text: write it in quotes, '{given}'"
    elif kind == "literal_error":
        text = f"{given!r} is not one of {detail['ctx']['expected']}"
    else:
        text = detail["msg"][:1].lower() + detail["msg"][1:]
    return document.problem(path, text)


def _model_around(path: yaml_document.Path) -> type[BaseModel]:
    """The model of the mapping in which the last part of `path` stands."""
    model: type[BaseModel] = Config
    for part in path[:-1]:
        if isinstance(part, str):
            model = _BELOW[part]
    return model


def _field_example(path: yaml_document.Path) -> str:
    examples = _model_around(path).model_fields[str(path[-1])].examples
    assert examples, f"{path}: a field with a pattern has an example"
    return str(examples[0])


_BELOW: Mapping[str, type[BaseModel]] = {
    "defaults": Defaults,
    "accounts": Account,
    "auth": Auth,
    "jobs": JobRule,
}
