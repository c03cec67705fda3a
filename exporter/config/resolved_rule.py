"""The job rules as they are applied: with the defaults filled in, and no key left out."""

from __future__ import annotations

import re
from dataclasses import dataclass

from exporter.config.rule import Defaults, JobRule

WATCHED_TASKS = "watched_tasks"
"""The collector that a rule has when it names tasks."""


@dataclass(frozen=True)
class Rule:
    """A job rule of the configuration with its defaults filled in.

    `interval`: seconds; `pattern`: for the whole id; `collect`: names of the collectors;
    `tasks`: ids of those that are watched one by one.
    """

    id: str | None
    pattern: re.Pattern[str] | None
    states: frozenset[str] | None
    completed_for: float | None
    metadata: frozenset[tuple[str, str]]
    collect: tuple[str, ...]
    interval: float
    stale_after: int
    resync_interval: float
    idle_interval: float
    group: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    metadata_labels: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()


def resolve(rule: JobRule, defaults: Defaults) -> Rule:
    """A configured rule with the defaults filled in."""
    collect: tuple[str, ...] = rule.collect if rule.collect is not None else defaults.collect
    any_state = rule.id is not None and "states" not in rule.model_fields_set
    return Rule(
        id=rule.id,
        pattern=re.compile(rule.id_regex) if rule.id_regex is not None else None,
        states=None if any_state else frozenset(rule.states),
        completed_for=rule.completed_for,
        metadata=frozenset(rule.metadata.items()),
        collect=(*collect, WATCHED_TASKS) if rule.tasks else collect,
        interval=rule.interval if rule.interval is not None else defaults.interval,
        stale_after=rule.stale_after if rule.stale_after is not None else defaults.stale_after,
        resync_interval=(
            rule.resync_interval if rule.resync_interval is not None else defaults.resync_interval
        ),
        idle_interval=(
            rule.idle_interval if rule.idle_interval is not None else defaults.idle_interval
        ),
        group=rule.group,
        labels=tuple(sorted(rule.labels.items())),
        metadata_labels=rule.metadata_labels,
        tasks=rule.tasks,
    )
