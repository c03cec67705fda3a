"""One healthy job on one pool with preparation and release, as every collector sees it.

It is made from answers of the API in tests/fixtures/sample_job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from exporter.batch import models
from exporter.batch.models import NodeTaskStatus
from exporter.batch.spellings import Spellings
from exporter.collectors import preparation_release, task_counts, tasks
from exporter.collectors.node_runs import ListedRuns
from exporter.collectors.watched_tasks import Found, WatchedTasks
from exporter.config import Defaults, Rule
from exporter.state import table_names
from exporter.state.counters import Counters
from exporter.state.watched_job import WatchedJob

T = TypeVar("T")

_FIXTURES = Path(__file__).parent.parent / "tests" / "fixtures" / "sample_job"


def _answer(name: str, kind: type[T]) -> T:
    """An answer of the API, as it is on the wire; each member that is documented is there."""
    return msgspec.json.decode((_FIXTURES / f"{name}.json").read_bytes(), type=kind, strict=False)


JOB = _answer("job", models.Job)


def nodes_read(
    pool_id: str,
    nodes: Sequence[NodeTaskStatus],
    started: float = 0.0,
    since: float | None = None,
) -> preparation_release.Reading:
    """The reading of these nodes, on one page."""
    listing = preparation_release.Listing(ListedRuns)
    preparation_release.add_page(listing, nodes, Spellings(), set())
    return preparation_release.Reading(pool_id, listing, started, since)


_TASK_COUNTS = task_counts.fold(None, _answer("task_counts", models.TaskCountsResult), 0.0, True)
_RECORDS = _answer("nodes", models.Page[models.NodeTaskStatus]).value
_NODES = preparation_release.fold(None, nodes_read("pool-1", _RECORDS), 0.0, True)


def tasks_read(
    *pages: tuple[models.Task, ...],
    started: float = 0.0,
    since: float | None = None,
    command_lines: bool = False,
) -> tasks.Reading:
    """The reading of the tasks on these pages."""
    reading = tasks.Reading(started=started, since=since)
    for page in pages:
        reading.add_page(page, Spellings(), command_lines=command_lines)
    return reading


_LISTED = _answer("tasks", models.Page[models.Task]).value
_TASKS = tasks.fold(None, tasks_read(_LISTED), 0.0, True)

SAMPLE_SNAPSHOTS: Mapping[str, Any] = {
    table_names.JOB: WatchedJob(JOB, Rule(id="job-1")),
    "task_counts": _TASK_COUNTS.state,
    table_names.counters_of("task_counts"): Counters().add(_TASK_COUNTS.events.increments),
    "preparation_release": _NODES.state,
    table_names.counters_of("preparation_release"): Counters().add(_NODES.events.increments),
    "tasks": _TASKS.state,
    table_names.counters_of("tasks"): Counters().add(_TASKS.events.increments),
    "watched_tasks": WatchedTasks(
        {"task-1": Found.of(_answer("task", models.Task), 0.0, Spellings())}
    ),
    table_names.counters_of("watched_tasks"): Counters(),
    table_names.JOB_HEALTH: dict.fromkeys(Defaults().collect, (True, 0.0)),
}
"""By name of the table."""
