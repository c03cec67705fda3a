"""What a collector is: how to read one thing, how to keep it, and its metric table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from exporter.batch.models import Job
from exporter.metric import Metric

R = TypeVar("R")
S = TypeVar("S")


@dataclass(frozen=True)
class JobCollector(Generic[R, S]):
    """Reads one thing of one job.

    `name`: the label value `collector`, and the word in the configuration's `collect`.
    `read(api, job)`: asks the service; raises PollError.
    `fold(previous, reading, now)`: the new snapshot; pure. `previous` is None at first, and after
    the values were dropped as stale. `now` in Unix seconds.
    `is_settled(snapshot)`: whether nothing of it can change any more in the life of the job, so
    that the service is not asked again.
    `metrics`: the families that a snapshot gives, for a table with the identity of a job.
    """

    name: str
    read: Callable[[Any, Job], Awaitable[R]]
    fold: Callable[[S | None, R, float], S]
    metrics: tuple[Metric[S], ...]
    is_settled: Callable[[S], bool] = lambda _: False
