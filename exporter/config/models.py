"""The configuration file as a whole, and its accounts.

Every model is frozen and refuses unknown keys. A description on each field is the source of
docs/configuration.md and docs/config.schema.json.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from exporter.config.clouds import PUBLIC, cloud_of
from exporter.config.environment import authority_host
from exporter.config.fields import FilePath, Interval, ListOf, Model, duration_field
from exporter.config.rule import Defaults, Rule
from exporter.config.sign_in import Auth

API_VERSION = "2025-06-01"
"""The version of the Batch REST API that is asked for. All before it are announced for
retirement."""

NEWEST_API_VERSION = "2026-10-01"
"""The newest version that is known. What the exporter reads is the same in both."""


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _origin(value: str) -> str:
    parts = urlsplit(value)
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from error
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("not a URL: write https://{account}.{region}.batch.azure.com")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("the endpoint is scheme and host only, without path or user")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("must be https: http is allowed on a loopback address only")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")


class Account(Model):
    """One Batch account."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", examples=["renderprod"])
    """The Batch account's name; the label `account`."""
    endpoint: Annotated[str, AfterValidator(_origin)]
    """The account's URL, https://{account}.{region}.batch.azure.com. It must be https, except on a
    loopback address."""
    api_version: str = Field(
        default=API_VERSION,
        pattern=r"^20[0-9]{2}-[0-9]{2}-[0-9]{2}(\.[0-9]+\.[0-9]+)?$",
        examples=[API_VERSION],
    )
    """Version of the Batch REST API that is asked for. Leave it out where you can. Versions before
    the default are announced for retirement: they work, with a warning. A version that the service
    does not know takes the account down with the cause `api_version`."""
    auth: Auth = Auth()
    """How the exporter signs in."""
    request_timeout: Interval = duration_field("10s")
    """Limit of one request, its body included. The service gets it, too (`timeout`), and stops its
    own work then."""
    requests_per_second: float = Field(default=20.0, gt=0, le=100_000, strict=False)
    """Ceiling for this account, all collectors together; each of N shards (`--shard`) takes an N-th
    of it."""
    max_concurrency: int = Field(default=16, ge=1, le=256)
    """Polls of this account under way at once, in each shard."""
    discovery_interval: Interval = duration_field("60s")
    """Time between two listings of the jobs."""
    max_jobs: int = Field(default=5000, ge=1)
    """Most jobs that are watched, by each shard. Past it the rest is left out, counted in
    `azure_batch_jobs_dropped`, and said once; jobs that are watched already stay."""
    max_series: int = Field(default=500_000, ge=1000)
    """Most series of this account, in each shard. What would go past it is left out, counted in
    `azure_batch_exporter_series_dropped_total`, and said once."""
    pool_nodes: bool = True
    """Read node counts by pool and state; shard 0 does it for all."""
    jobs: ListOf[Rule] = Field(
        default=(Rule(id_regex=".*"),), json_schema_extra={"default": [{"id_regex": ".*"}]}
    )
    """Rules: which jobs are watched. The first that matches a job applies."""

    @property
    def scope(self) -> str:
        """The scope of a token for this account."""
        return self.auth.scope or (cloud_of(self.endpoint) or PUBLIC).scope

    @property
    def authority(self) -> str:
        """Who issues the tokens: a host or an https URL. AZURE_AUTHORITY_HOST goes first."""
        cloud = cloud_of(self.endpoint) or PUBLIC
        return authority_host(os.environ) or cloud.authority


def _different_names(accounts: tuple[Account, ...]) -> tuple[Account, ...]:
    names = [account.name for account in accounts]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two accounts are named {name}: the label must be unique")
    return accounts


def _no_folder(file: Path) -> Path:
    # A file that does not exist or cannot be written is no mistake: this may be another machine,
    # and the service runs without it.
    if file.is_dir():
        raise ValueError(f"{file} is a folder: name a file in it")
    return file


class Config(Model):
    """The whole file."""

    defaults: Defaults = Defaults()
    """Settings of all job rules."""
    exclude_metrics: ListOf[str] = ()
    """Names of metrics, with `*` as wildcard, that are not wanted at all."""
    state_file: Annotated[FilePath, AfterValidator(_no_folder)] | None = None
    """File (SQLite) in which counters are kept, so that they go on where they stopped when the
    process restarts. `${shard}` in the path is the number of the shard (`--shard`): each needs its
    own."""
    accounts: Annotated[ListOf[Account], AfterValidator(_different_names)] = Field(min_length=1)
    """The Batch accounts to poll."""

    @field_validator("accounts")
    @classmethod
    def _filled(cls, given: tuple[Account, ...], info: ValidationInfo) -> tuple[Account, ...]:
        defaults = info.data.get("defaults", Defaults())  # not there if it has a mistake
        accounts = []
        for account in given:
            jobs = tuple(rule.filled(defaults) for rule in account.jobs)
            accounts.append(account.model_copy(update={"jobs": jobs}))
        return tuple(accounts)
