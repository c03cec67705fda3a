"""The configuration file: what it may say, and its checks.

Every model is frozen and refuses unknown keys. A description on each field is the source of
docs/configuration.md and docs/config.schema.json.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from exporter import durations

JobCollectorName = Literal["task_counts", "preparation_release", "tasks"]
JobState = Literal[
    "active", "disabling", "disabled", "enabling", "terminating", "completed", "deleting"
]
AuthMethod = Literal[
    "default",
    "managed_identity",
    "workload_identity",
    "client_secret",
    "client_certificate",
    "azure_cli",
    "shared_key",
]

DEFAULT_STATES: tuple[JobState, ...] = (
    "active",
    "disabling",
    "disabled",
    "enabling",
    "terminating",
)

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


def _duration_field(default: str, description: str) -> Any:
    return Field(
        default=durations.parse_duration(default),
        description=description,
        json_schema_extra={"default": default},
    )


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("a name stands twice")
    return names


def _tuple(value: Any) -> Any:
    # Models are strict, and YAML knows lists only.
    return tuple(value) if isinstance(value, list) else value


CollectorNames = Annotated[
    tuple[JobCollectorName, ...], BeforeValidator(_tuple), AfterValidator(_unique)
]


class Defaults(_Model):
    """Settings of each job rule that does not set them itself."""

    interval: Interval = _duration_field("30s", "Time between two polls of one job.")
    stale_after: int = Field(
        default=3,
        ge=1,
        description="Number of failed intervals after which a job's last values are dropped.",
    )
    collect: CollectorNames = Field(
        default=("task_counts", "preparation_release"),
        description="What is read of each job.",
    )
    resync_interval: Duration = _duration_field(
        "15m",
        "Time between two full listings of a job's nodes or tasks; between them only what changed"
        " is read."
        " `0s`: every listing is full.",
    )


class Auth(_Model):
    """How the exporter proves to the account who it is."""

    method: AuthMethod = Field(
        default="default",
        description="`default` tries what azure-identity's DefaultAzureCredential tries;"
        " the others use exactly what their name says. `shared_key` is the account's own key.",
    )
    tenant_id: str | None = Field(default=None, description="Microsoft Entra tenant.")
    client_id: str | None = Field(
        default=None, description="Application, or user-assigned managed identity."
    )
    client_secret_file: Path | None = Field(
        default=None, strict=False, description="File with the client secret."
    )
    client_secret_env: str | None = Field(
        default=None, description="Environment variable with the client secret."
    )
    certificate_file: Path | None = Field(
        default=None, strict=False, description="PEM or PFX file with certificate and private key."
    )
    key_file: Path | None = Field(
        default=None, strict=False, description="File with the account key (base64)."
    )
    key_env: str | None = Field(
        default=None, description="Environment variable with the account key (base64)."
    )
    scope: str = Field(
        default="https://batch.core.windows.net//.default",
        pattern=r"^[a-z]+://.+/\.default$",
        examples=["https://batch.core.windows.net//.default"],
        description="Scope of the token. The double slash belongs there. Sovereign clouds have"
        " their own, for example `https://batch.chinacloudapi.cn//.default`.",
    )

    @model_validator(mode="after")
    def _fields_fit_the_method(self) -> Auth:
        required, optional = _AUTH_FIELDS[self.method]
        given = {name for name in self.model_fields_set if getattr(self, name) is not None}
        given -= {"method", "scope"}
        problems = []
        for choice in required:
            count = len(given & set(choice))
            if count == 0:
                problems.append(f"method {self.method} needs {' or '.join(choice)}")
            elif count > 1:
                problems.append(f"give only one of {', '.join(choice)}")
        known = {name for choice in required for name in choice} | set(optional)
        if unused := sorted(given - known):
            problems.append(f"method {self.method} does not use {', '.join(unused)}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


# Of each method: groups of fields of which exactly one is needed, and fields that may be given.
_AUTH_FIELDS: Mapping[str, tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]] = {
    "default": ((), ("tenant_id", "client_id")),
    "managed_identity": ((), ("client_id",)),
    "workload_identity": ((), ("tenant_id", "client_id")),
    "client_secret": (
        (("tenant_id",), ("client_id",), ("client_secret_file", "client_secret_env")),
        (),
    ),
    "client_certificate": ((("tenant_id",), ("client_id",), ("certificate_file",)), ()),
    "azure_cli": ((), ("tenant_id",)),
    "shared_key": ((("key_file", "key_env"),), ()),
}


PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")
"""In the `group` of a rule: `${NAME}` of a named group of id_regex, `${metadata.NAME}`, …"""


def label_name(metadata_name: str) -> str:
    """The label for a metadata name, which may be any text."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", metadata_name)


class JobRule(_Model):
    """Which jobs are watched, and how. The first rule that matches a job applies."""

    id: str | None = Field(
        default=None,
        min_length=1,
        description="Exactly this job, compared without regard to case; polled even where it is"
        " not listed, in any state unless `states` is given.",
    )
    id_regex: str | None = Field(
        default=None,
        description="Regular expression (Python) for the whole id of jobs that the account lists.",
    )
    states: Annotated[tuple[JobState, ...], BeforeValidator(_tuple), AfterValidator(_unique)] = (
        Field(
            default=DEFAULT_STATES,
            min_length=1,
            description="Job states that are watched.",
        )
    )
    completed_for: Duration | None = Field(
        default=None, description="Watch also jobs that completed less than this ago."
    )
    metadata: Mapping[str, str] = Field(
        default={}, description="Only jobs that carry all these name-value pairs as metadata."
    )
    group: str | None = Field(
        default=None,
        min_length=1,
        description="One set of series, with the label `job_group`, for all jobs of the group"
        " instead of one for each job. May use `${NAME}` for a named group of `id_regex`,"
        " `${metadata.NAME}` and `${pool_id}`.",
    )
    labels: Mapping[str, str] = Field(
        default={}, description="Further labels, on `azure_batch_job_info` only."
    )
    metadata_labels: Annotated[
        tuple[str, ...], BeforeValidator(_tuple), AfterValidator(_unique)
    ] = Field(
        default=(),
        description="Names of the job's metadata that become labels of `azure_batch_job_info`.",
    )
    collect: CollectorNames | None = Field(
        default=None, description="As in `defaults`, for this rule."
    )
    interval: Interval | None = Field(default=None, description="As in `defaults`, for this rule.")
    stale_after: int | None = Field(
        default=None, ge=1, description="As in `defaults`, for this rule."
    )
    resync_interval: Duration | None = Field(
        default=None, description="As in `defaults`, for this rule."
    )

    @field_validator("id_regex")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from error
        return value

    @field_validator("labels")
    @classmethod
    def _are_label_names(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name in value:
            if not _LABEL_NAME.fullmatch(name) or name in _RESERVED_LABELS:
                raise ValueError(
                    f"{name!r} cannot be a label: a letter first, then letters,"
                    " digits and _, and none of the exporter's own"
                )
        return value

    @field_validator("metadata_labels")
    @classmethod
    def _become_label_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        cls._are_label_names({label_name(name): "" for name in value})
        return value

    @model_validator(mode="after")
    def _one_way_to_match(self) -> JobRule:
        if (self.id is None) == (self.id_regex is None):
            raise ValueError("a rule has either id or id_regex")
        return self

    @model_validator(mode="after")
    def _group_is_known(self) -> JobRule:
        named = re.compile(self.id_regex).groupindex if self.id_regex is not None else {}
        for name in PLACEHOLDER.findall(self.group or ""):
            if name not in (*named, "pool_id") and not name.startswith("metadata."):
                raise ValueError(
                    f"group: ${{{name}}} is none of the named groups of id_regex"
                    f" ({', '.join(named) or 'there are none'}), metadata.NAME or pool_id"
                )
        return self


_LABEL_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*")
_RESERVED_LABELS = frozenset(
    {"account", "job_id", "job_group", "display_name", "pool_id", "job", "instance", "le"}
)


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Account(_Model):
    """One Batch account."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        examples=["renderprod"],
        description="The Batch account's name; the label `account`.",
    )
    endpoint: str = Field(
        description="The account's URL, https://{account}.{region}.batch.azure.com. It must be"
        " https, except on a loopback address."
    )
    api_version: str = Field(
        default="2024-07-01.20.0",
        pattern=r"^20[0-9]{2}-[0-9]{2}-[0-9]{2}(\.[0-9]+\.[0-9]+)?$",
        examples=["2024-07-01.20.0"],
        description="Version of the Batch REST API.",
    )
    auth: Auth = Field(default=Auth(), description="How the exporter signs in.")
    request_timeout: Interval = _duration_field("10s", "Limit of one request, its body included.")
    requests_per_second: float = Field(
        default=20.0,
        gt=0,
        le=1000,
        strict=False,
        description="Ceiling for this account, all collectors together.",
    )
    max_concurrency: int = Field(
        default=16, ge=1, le=256, description="Polls of this account under way at once."
    )
    discovery_interval: Interval = _duration_field("60s", "Time between two listings of the jobs.")
    max_jobs: int = Field(
        default=5000,
        ge=1,
        description="Most jobs that are watched. Past it the rest is left out, counted in"
        " `azure_batch_jobs_dropped`, and said once; jobs that are watched already stay.",
    )
    max_series: int = Field(
        default=500_000,
        ge=1000,
        description="Most series of this account. What would go past it is left out, counted in"
        " `azure_batch_exporter_series_dropped_total`, and said once.",
    )
    pool_nodes: bool = Field(default=True, description="Read node counts by pool and state.")
    jobs: Annotated[tuple[JobRule, ...], BeforeValidator(_tuple)] = Field(
        default=(JobRule(id_regex=".*"),),
        description="Rules: which jobs are watched. The first that matches a job applies.",
        json_schema_extra={"default": [{"id_regex": ".*"}]},
    )

    @field_validator("endpoint")
    @classmethod
    def _is_an_origin(cls, value: str) -> str:
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


class Config(_Model):
    """The whole file."""

    defaults: Defaults = Field(default=Defaults(), description="Settings of all job rules.")
    exclude_metrics: Annotated[tuple[str, ...], BeforeValidator(_tuple)] = Field(
        default=(),
        description="Names of metrics, with `*` as wildcard, that are not wanted at all.",
    )
    state_file: Path | None = Field(
        default=None,
        strict=False,
        description="File (SQLite) in which counters are kept, so that they go on where they"
        " stopped when the process restarts.",
    )
    accounts: Annotated[tuple[Account, ...], BeforeValidator(_tuple)] = Field(
        min_length=1, description="The Batch accounts to poll."
    )

    @field_validator("accounts")
    @classmethod
    def _names_differ(cls, value: tuple[Account, ...], _: ValidationInfo) -> tuple[Account, ...]:
        names = [account.name for account in value]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two accounts are named {name}: the label must be unique")
        return value
