"""Reading the configuration file: every mistake with its line, its path and a cure."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Collection
from pathlib import Path

from exporter.config import Config, secret, yaml_document
from exporter.config.models import API_VERSION
from exporter.config.problems import ConfigError, did_you_mean
from exporter.config.validation import read_text, validate

log = logging.getLogger(__name__)


def load(file: Path, families: Collection[str] = ()) -> Config:
    """Read and check a configuration file, secrets included.

    ConfigError names every problem with file, line and path. Relative paths in the file are
    relative to its folder. A file with a secret that everybody may read is a warning in the log.
    `families`: the metrics that `exclude_metrics` may name; without them it is not checked.
    """
    config = parse(read_text(file), str(file), file.parent, families)
    for exposed in secret.open_to_all(account.auth for account in config.accounts):
        log.warning("every user of this machine can read the secret in %s: chmod 600 it", exposed)
    return config


def parse(text: str, name: str, folder: Path, families: Collection[str] = ()) -> Config:
    """Check a configuration text. `name`: how messages call it; `folder`: base of its paths."""
    document = yaml_document.parse_yaml(text, name)
    if not isinstance(document.data, dict):
        raise ConfigError((f"{name}:1: the file must be a mapping with the key accounts",))
    config = validate(Config, document, folder)
    for number, account in enumerate(config.accounts):
        if account.api_version[:10] < API_VERSION:
            text = f"{account.api_version} is announced for retirement: write {API_VERSION}"
            log.warning("%s", document.problem(("accounts", number, "api_version"), text))
    problems = []
    for number, pattern in enumerate(config.exclude_metrics if families else ()):
        is_of_process = pattern.startswith(("process_", "python_"))
        if not is_of_process and not fnmatch.filter(families, pattern):
            cure = did_you_mean(pattern, families) or ": docs/metrics.md lists them"
            what = f"no metric is named {pattern}{cure}"
            problems.append(document.problem(("exclude_metrics", number), what))
    for number, account in enumerate(config.accounts):
        try:
            secret.read_secret(account.auth)
        except ValueError as error:
            path = ("accounts", number, "auth", account.auth.secret_key)
            problems.append(document.problem(path, str(error)))
    if problems:
        raise ConfigError(tuple(problems))
    return config
