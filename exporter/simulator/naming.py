"""What people call their jobs and pools: several habits side by side, as accounts have them."""

from collections.abc import Container
from dataclasses import dataclass
from random import Random

_RECURRING = ("nightly-render", "nightly-composite", "hourly-ingest", "qa-regression")
_PIPELINES = ("rnaseq", "sarek", "methylseq", "viralrecon")
_PROCESSES = ("FASTQC", "STAR_ALIGN", "SALMON_QUANT", "MULTIQC")
_SCHEDULES = ("report-daily", "cleanup-hourly", "export-weekly")
_PROJECTS = ("atlas", "borealis", "cygnus")
_POOLS = ("render-linux", "genomics", "analytics", "batch-gpu", "adhoc")


@dataclass(frozen=True, slots=True)
class JobName:
    """A job's id with what goes with it; `task_prefix` begins the ids of its tasks.

    `last_tasks` are the ids of the tasks that close the job's first set.
    """

    id: str
    display_name: str
    task_prefix: str
    schedule_id: str | None = None
    last_tasks: tuple[str, ...] = ()


def job_name(random: Random, number: int, taken: Container[str]) -> JobName:
    """A name for the account's `number`-th job; recurring jobs take theirs again when free."""
    free = [name for name in _RECURRING if name not in taken]
    draw = random.random()
    if free and draw < 0.25:
        name = free[0]
        last = ("merge", "publish") if name == "nightly-render" else ()
        return JobName(name, name.replace("-", " ").title(), "frame", last_tasks=last)
    if draw < 0.6:
        pipeline = random.choice(_PIPELINES)
        return JobName(f"nf-{pipeline}-{number}", f"nf-core/{pipeline}", "nf")
    if draw < 0.8:
        schedule = random.choice(_SCHEDULES)
        return JobName(f"{schedule}:job-{number}", schedule, "step", schedule_id=schedule)
    process = random.choice(_PROCESSES)
    return JobName(f"job-{random.getrandbits(64):016x}-{process}", process, "nf")


def pipeline_job_name(random: Random, number: int) -> JobName:
    """A name for the account's `number`-th job where all belong to one of five pipelines."""
    pipeline = random.choice((*_PIPELINES, "ampliseq"))
    return JobName(f"nf-{pipeline}-{number}", f"nf-core/{pipeline}", "nf")


def job_metadata(random: Random) -> tuple[tuple[str, str], ...]:
    """An environment and mostly a project."""
    environment = ("env", "prod" if random.random() < 0.7 else "dev")
    if random.random() < 0.8:
        return (environment, ("project", random.choice(_PROJECTS)))
    return (environment,)


def pool_name(number: int) -> str:
    """The id of the account's `number`-th fixed pool, counted from 0."""
    again, which = divmod(number, len(_POOLS))
    return f"{_POOLS[which]}-{again + 1}" if again else _POOLS[which]
