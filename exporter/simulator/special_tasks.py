"""Preparation and release tasks: as a job specifies them, and as they run on a node."""

from dataclasses import dataclass

from exporter.simulator.failure_texts import ContainerInfo, Failure


@dataclass(slots=True, eq=False)
class Execution:
    """The latest run of a preparation or a release task on one node; `state` running/completed."""

    started: int
    state: str = "running"
    ended: int | None = None
    exit_code: int | None = None
    result: str | None = None
    result_shown: bool = True
    failure: Failure | None = None
    container: ContainerInfo | None = None
    retry_count: int = 0
    last_retry: int | None = None

    @property
    def shown_result(self) -> str | None:
        """The result as the service says it; some completed runs have none."""
        return self.result if self.result_shown else None


@dataclass(frozen=True, slots=True)
class PreparationTask:
    """A job's preparation task as it was specified."""

    command_line: str
    max_retries: int
    wait_for_success: bool
    rerun_on_reboot: bool


@dataclass(frozen=True, slots=True)
class ReleaseTask:
    """A job's release task as it was specified."""

    command_line: str
