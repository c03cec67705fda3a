"""What a fault is: a name, what it does in one line, and on which operations it can be played."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from exporter.simulator.operations import OPERATIONS
from exporter.simulator.server import Interceptor

JOB_OPERATIONS = frozenset(
    {
        "Job_Get",
        "Job_GetTaskCounts",
        "Job_ListPreparationAndReleaseTaskStatus",
        "Task_Get",
        "Task_List",
        "Task_ListSubtasks",
    }
)
"""Those on one job, whose id is the first in their path."""

LISTS = frozenset(
    {
        "Account_ListPoolNodeCounts",
        "Job_List",
        "Job_ListFromJobSchedule",
        "Job_ListPreparationAndReleaseTaskStatus",
        "Pool_List",
        "Task_List",
    }
)
"""Those that come in pages. Subtasks do, too, but no task here has any."""

WITH_NUMBERS = OPERATIONS - {"Task_ListSubtasks"}
WITH_IDS = WITH_NUMBERS - {"Job_GetTaskCounts"}
WITH_DATES = WITH_IDS - {"Account_ListPoolNodeCounts"}


@dataclass(frozen=True)
class Stage:
    """What a fault has at hand while it is active; `now` is in seconds, from anywhere."""

    random: Random
    now: Callable[[], float] = time.monotonic
    played: Counter[str] = field(default_factory=Counter)
    """How often each fault was played, by name."""


@dataclass(frozen=True)
class Fault:
    """One thing that can go wrong.

    `start` gives what plays it from now on: faults that remember anything begin anew each time.
    On other operations than `operations` it does nothing. `share` of the requests is hit where
    nobody says otherwise.
    """

    name: str
    summary: str
    start: Callable[[Stage], Interceptor]
    operations: frozenset[str] = OPERATIONS
    share: float = 1.0


def fault(
    name: str, summary: str, play: Interceptor, operations: frozenset[str] = OPERATIONS
) -> Fault:
    """A fault that is the same each time."""
    return Fault(name, summary, lambda _: play, operations)
