"""Reading the configuration file: every mistake with its line, its path and a cure."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Collection
from pathlib import Path

from exporter.config import Auth, Config, secret, yaml_document
from exporter.config.near_miss import did_you_mean
from exporter.config.problems import ConfigError
from exporter.config.validation import read_text, validate

log = logging.getLogger(__name__)


def load(file: Path, families: Collection[str] | None = None) -> Config:
    """Read and check a configuration file, secrets included.

    ConfigError names every problem with file, line and path. Relative paths in the file are
    relative to its folder. A file with a secret that everybody may read is a warning in the log.
    `families`: the metrics that `exclude_metrics` may name; None: that is not checked.
    """
    config = parse(read_text(file), str(file), file.parent, families)
    for exposed in secret.open_to_all(account.auth for account in config.accounts):
        log.warning("every user of this machine can read the secret in %s: chmod 600 it", exposed)
    return config


def parse(text: str, name: str, folder: Path, families: Collection[str] | None = None) -> Config:
    """Check a configuration text. `name`: how messages call it; `folder`: base of its paths."""
    document = yaml_document.parse_yaml(text, name)
    if not isinstance(document.data, dict):
        raise ConfigError((f"{name}:1: the file must be a mapping with the key accounts",))
    config = _resolve_paths(validate(Config, document), folder)
    for number, pattern in enumerate(config.exclude_metrics if families is not None else ()):
        is_of_process = pattern.startswith(("process_", "python_"))
        if families and not is_of_process and not fnmatch.filter(families, pattern):
            near = did_you_mean(pattern, families)
            text = f"no metric is named {pattern}{near or ': docs/metrics.md lists them'}"
            raise ConfigError((document.problem(("exclude_metrics", number), text),))
    problems = tuple(
        document.problem(("accounts", number, "auth", field), text)
        for number, account in enumerate(config.accounts)
        for field, text in secret.problems(account.auth)
    )
    if config.state_file is not None and (text := _no_place(config.state_file)):
        problems += (document.problem(("state_file",), text),)
    if problems:
        raise ConfigError(problems)
    return config


def _no_place(file: Path) -> str:
    """Why no file can be kept there, or "".

    What is not there yet, or cannot be written, is no mistake here: this may be another machine,
    and the service goes on without it.
    """
    return f"{file} is a folder: name a file in it" if file.is_dir() else ""


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
