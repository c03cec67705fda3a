"""The jobs that are watched: each with the rule that selected it."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.batch.models import Job
from exporter.config import Rule
from exporter.state.record import StateRecord


class WatchedJob(StateRecord, frozen=True, gc=False):
    """A job that a rule selected, with what the rule wants of it.

    `group`: whose series the job's are part of; None: it has its own.
    `labels`: names and values of further labels of `azure_batch_job_info`.
    """

    job: Job
    rule: Rule
    group: str | None = None
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class SelectedJobs:
    """The jobs that the rules select, in the order of their ids.

    `dropped`: how many more they select, past the limit.
    """

    jobs: tuple[WatchedJob, ...] = ()
    dropped: int = 0
