"""Which jobs are watched, and how: the keys `defaults` and `jobs`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from exporter.config.fields import (
    Duration,
    Interval,
    ListOf,
    Model,
    UniqueListOf,
    duration_field,
    unique,
)
from exporter.config.patterns import Pattern, escape
from exporter.config.redaction import redact, redact_all, redact_id

JobCollectorName = Literal["task_counts", "preparation_release", "tasks"]
WATCHED_TASKS = "watched_tasks"
"""The collector that a rule has when it names tasks."""

JobState = Literal[
    "active", "disabling", "disabled", "enabling", "terminating", "completed", "deleting"
]
DEFAULT_STATES = ("active", "disabling", "disabled", "enabling", "terminating")

Shown = Annotated[str, AfterValidator(redact)]
"""A text that becomes a label. Secrets in it are masked."""

Id = Annotated[str, AfterValidator(redact_id)]
"""An id, which becomes a label. A token in it is masked."""

TaskId = Annotated[Id, Field(min_length=1, max_length=64)]


class Defaults(Model):
    """Settings of each job rule that does not set them itself."""

    interval: Interval = duration_field("30s")
    """Time between two polls of one job."""
    idle_interval: Duration = duration_field("2m")
    """Poll interval of idle and completed jobs, rounded up to whole intervals. A job is idle when
    nothing has waited, run or changed for this long. With `0s`, or less than
    `interval`, idle jobs are polled as often as others."""
    stale_after: int = Field(default=3, ge=1)
    """Number of failed intervals after which a job's last values are dropped."""
    collect: UniqueListOf[JobCollectorName] = ("task_counts", "preparation_release")
    """What is read of each job. `tasks`: failures, retries and how long tasks wait and run."""
    resync_interval: Duration = duration_field("15m")
    """Time between two full listings of a job's nodes or tasks; between them only what changed is
    read. `0s`: every listing is full."""
    keep_groups_for: Interval = duration_field("30d")
    """How long a group without jobs keeps its counters. A group that no rule can make any more is
    forgotten at once. Series of a forgotten group stay until each client has read them, for 60
    seconds at most."""
    command_lines: bool = False
    """Keep the command line of a failed task: the detail `CommandLine` of its failure, on the page
    and in `/api/v1/failures`. A command line may hold secrets."""


PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")
"""In the `group` of a rule: `${NAME}` of a named group of id_regex, `${metadata.NAME}`, …"""


def label_name(metadata_name: str) -> str:
    """The label for a metadata name, which may be any text."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", metadata_name)


_LABEL_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*")
_RESERVED_LABELS = frozenset(
    {"account", "job_id", "job_group", "display_name", "pool_id", "job", "instance", "le"}
)


def _check_label(name: str) -> None:
    if not _LABEL_NAME.fullmatch(name) or name in _RESERVED_LABELS:
        raise ValueError(
            f"{name!r} cannot be a label: a letter first, then letters, digits and _, and none of"
            " the exporter's own"
        )


def _label_names(labels: Mapping[str, str]) -> Mapping[str, str]:
    labels = redact_all(labels)
    for name in labels:
        _check_label(name)
    return labels


def _metadata_labels(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        _check_label(label_name(name))
    return names


def _regex(text: str) -> str:
    Pattern(text)
    return text


def _task_ids(ids: tuple[str, ...]) -> tuple[str, ...]:
    # The service does not look at the case of an id.
    unique(tuple(task_id.lower() for task_id in ids))
    return ids


class Rule(Defaults):
    """Which jobs are watched, and how. The first rule that matches a job applies."""

    # A rule of a `Config` is complete: `filled` has set what it takes from `defaults`.
    # `states` None: any state, for a job that is named.

    id: Id | None = Field(default=None, min_length=1)
    """Exactly this job, compared without regard to case; polled even where it is not listed, in any
    state unless `states` is given."""
    id_regex: Annotated[str, AfterValidator(_regex)] | None = None
    """Regular expression for the whole id of jobs that the account lists, in the syntax of
    Prometheus (RE2). Upper and lower case differ; with `(?i)` in front they do not."""
    states: Annotated[UniqueListOf[JobState], Field(min_length=1)] | None = Field(
        default=None, json_schema_extra={"default": list(DEFAULT_STATES)}
    )
    """Job states that are watched."""
    completed_for: Duration | None = None
    """Watch also jobs that completed less than this ago: their series stay for so long. What jobs
    did is counted without it."""
    metadata: Mapping[str, str] = {}
    """Only jobs that carry all these name-value pairs as metadata."""
    group: Shown | None = Field(default=None, min_length=1)
    """One set of series, with the label `job_group`, for all jobs of the group instead of one for
    each job. May use `${NAME}` for a named group of `id_regex`, `${metadata.NAME}` and
    `${pool_id}`."""
    labels: Annotated[Mapping[str, str], AfterValidator(_label_names)] = {}
    """Further labels, on `azure_batch_job_info` only."""
    metadata_labels: Annotated[UniqueListOf[Shown], AfterValidator(_metadata_labels)] = ()
    """Names of the job's metadata that become labels of `azure_batch_job_info`."""
    tasks: Annotated[ListOf[TaskId], AfterValidator(_task_ids)] = ()
    """Ids of tasks that are watched one by one, each at the cost of one request a poll, and become
    the label `task_id`."""

    @cached_property
    def pattern(self) -> Pattern | None:
        """`id_regex`, compiled."""
        return Pattern(self.id_regex) if self.id_regex is not None else None

    @cached_property
    def _group_names(self) -> Pattern | None:
        if self.group is None:
            return None
        texts = PLACEHOLDER.split(self.group)[::2]  # every second part is a placeholder's name
        return Pattern("(?s)" + ".*".join(map(escape, texts)))

    def can_make(self, group: str) -> bool:
        """Whether a group of this name may be the rule's. A placeholder may stand for any text."""
        return self._group_names is not None and self._group_names.groups(group) is not None

    @property
    def collectors(self) -> tuple[str, ...]:
        """What is read of each job: `collect`, and watched tasks where `tasks` names some."""
        return (*self.collect, WATCHED_TASKS) if self.tasks else self.collect

    def filled(self, defaults: Defaults) -> Rule:
        """This rule with each key of `defaults` that it does not set itself."""
        given = self.model_dump(mode="json", exclude_unset=True)
        return Rule.model_validate(defaults.model_dump(mode="json") | given)

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Rule:
        if (self.id is None) == (self.id_regex is None):
            raise ValueError("a rule has either id or id_regex")
        named = self.pattern.names if self.pattern is not None else ()
        for name in PLACEHOLDER.findall(self.group or ""):
            if name not in (*named, "pool_id") and not name.startswith("metadata."):
                raise ValueError(
                    f"group: ${{{name}}} is none of the named groups of id_regex"
                    f" ({', '.join(named) or 'there are none'}), metadata.NAME or pool_id"
                )
        if self.id is None and self.states is None:
            object.__setattr__(self, "states", DEFAULT_STATES)
        return self
