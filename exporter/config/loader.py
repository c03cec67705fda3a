"""Reading the configuration file: every mistake with its line, its path and a cure."""

from __future__ import annotations

import datetime as dt
import fnmatch
import logging
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from exporter.config import Account, Config, secret, yaml_document
from exporter.config.clouds import cloud_of, cloud_of_authority, cloud_of_scope
from exporter.config.environment import (
    ASKS_THE_AUTHORITY,
    environment_problems,
    environment_warnings,
)
from exporter.config.models import API_VERSION
from exporter.config.problems import ConfigError, did_you_mean
from exporter.config.validation import read_text, validate
from exporter.config.yaml_document import Document

log = logging.getLogger(__name__)


def load(file: Path, families: Collection[str] = ()) -> Config:
    """Read and check a configuration file, secrets included.

    ConfigError names every problem with file, line and path. Relative paths in the file are
    relative to its folder. A file with a secret that everybody may read is a warning in the log.
    `families`: the metrics that `exclude_metrics` may name; without them it is not checked.
    """
    config = parse(read_text(file), str(file), file.parent, families)
    methods = {account.auth.method for account in config.accounts}
    for text in environment_warnings(methods, os.environ):
        log.warning("%s", text)
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
    first: dict[str, str] = {}
    for number, account in enumerate(config.accounts):
        other = first.setdefault(account.endpoint.lower().rstrip("/"), account.name)
        if other != account.name:
            text = (
                f"account {other} has it too, and sums over accounts count each job twice: write"
                " one account with the rules of both"
            )
            log.warning("%s", document.problem(("accounts", number, "endpoint"), text))
    problems = []
    for number, pattern in enumerate(config.exclude_metrics if families else ()):
        is_of_process = pattern.startswith(("process_", "python_"))
        if not is_of_process and not fnmatch.filter(families, pattern):
            cure = did_you_mean(pattern, families) or ": docs/metrics.md lists them"
            what = f"no metric is named {pattern}{cure}"
            problems.append(document.problem(("exclude_metrics", number), what))
    for number, account in enumerate(config.accounts):
        problems += _sign_in(account, document, ("accounts", number))
    if problems:
        raise ConfigError(tuple(problems))
    return config


def _sign_in(account: Account, document: Document, path: yaml_document.Path) -> list[str]:
    """What keeps the exporter from signing in to an account. What might is a warning."""
    auth = account.auth
    problems = [
        document.problem((*path, "auth"), text) for text in environment_problems(auth, os.environ)
    ]
    try:
        if auth.method == "client_certificate":
            wrong = secret.read_certificate(auth).not_valid(dt.datetime.now(dt.UTC))
            if wrong:
                text = f"{auth.certificate_file} {wrong}: put the one that is valid there"
                log.warning("%s", document.problem((*path, "auth", "certificate_file"), text))
        else:
            secret.read_secret(auth)
    except secret.SecretError as error:
        problems.append(document.problem((*path, "auth", error.key), str(error)))
    for key, text in _other_clouds(account):
        log.warning("%s", document.problem((*path, *key), text))
    return problems


def _other_clouds(account: Account) -> Iterator[tuple[yaml_document.Path, str]]:
    """Settings that are of another cloud than the endpoint: the key, and what is wrong."""
    cloud = cloud_of(account.endpoint)
    if cloud is None or account.auth.method == "shared_key":
        return
    other = cloud_of_scope(account.scope)
    if other not in (cloud, None):
        text = f"{account.scope} is of the cloud {other.name}, endpoint of {cloud.name}:"
        yield ("auth", "scope"), f"{text} leave it out"
    other = cloud_of_authority(account.authority)
    if account.auth.method in ASKS_THE_AUTHORITY and other not in (cloud, None):
        text = f"of the cloud {cloud.name}, but AZURE_AUTHORITY_HOST is {account.authority},"
        yield ("endpoint",), f"{text} of {other.name}: unset it, or set {cloud.authority}"
