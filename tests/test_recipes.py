"""docs/recipes.md: each configuration gives the groups and series that the page says it does.

The exporter's own service polls a simulated account with jobs that are called as the page has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.config import loader
from exporter.exposition.body import Format
from exporter.service.service import FAMILIES, open_service
from exporter.simulator import (
    SCENARIOS,
    Clock,
    World,
    job_life,
    make_account,
    node_life,
    serve,
    task_life,
    ticks,
)
from exporter.simulator.naming import JobName
from exporter.simulator.schedule import join_round
from exporter.simulator.state import State
from tests.pages import Block, blocks

START = datetime(2026, 11, 21, 20, 30, tzinfo=UTC)

QUIET = replace(
    SCENARIOS["steady"],
    warm_up=40.0,
    display_name_share=0.0,
    flaky_job_share=0.0,
    preparation_share=1.0,
    preparation_failure_share=0.0,
    release_share=0.0,
    task_median=10.0,
    task_retries=(0, 0),
    task_failure_share=0.5,
    task_failures=(("exit-1", 1.0),),
    job_retention=(1e9, 1e9),
)
"""Jobs that go on as they began; half of their tasks fail."""


@dataclass(frozen=True)
class Made:
    """A job as something makes it. `ends`: seconds before the start at which it is terminated."""

    id: str
    pool: str
    auto_pool: bool = False
    metadata: dict[str, str] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    ends: float | None = None


@dataclass(frozen=True)
class Recipe:
    """What there is in the account of a recipe, and which names its series are to have."""

    jobs: tuple[Made, ...]
    groups: frozenset[str] = frozenset()
    job_ids: frozenset[str] = frozenset()


SOMEBODY_ELSES = Made("a-job-of-somebody-else", "theirs")
"""There, too, in each account; only where a rule takes all jobs it is watched."""

RUN, OTHER_RUN = "2026-11-21T20-15-00", "2026-11-21T20-29-11"
AUTO_POOLS = ("9B1DEB4D-3B7D-4BAD-9BDD-2B0D7B3DCB6D", "1B9D6BCD-BBFD-4B2D-9B5D-AB8DFBBD4BED")

RECIPES = {
    "Nextflow": Recipe(
        (
            Made("job-3f2a9c1d5b7e8046-STAR_ALIGN", "nf-pool-5a0c1d2e-standard_d4s_v5"),
            Made("job-77aa9c1d5b7e8046-STAR_ALIGN", "nf-pool-5a0c1d2e-standard_d4s_v5"),
            Made("job-3f2a9c1d5b7e8046-NFCORE_RNASEQ_FASTQC", "nf-pool-5a0c1d2e-standard_d4s_v5"),
        ),
        groups=frozenset({"STAR_ALIGN", "NFCORE_RNASEQ_FASTQC"}),
    ),
    "Snakemake": Recipe(
        tuple(Made(f"snakejob-{run}", f"snakepool-{run}") for run in (RUN, OTHER_RUN)),
        groups=frozenset({"snakemake"}),
    ),
    "Data Factory and Synapse": Recipe(
        (Made("adfv2-etl", "etl"), Made("adfv2-ml", "ml")),
        job_ids=frozenset({"adfv2-etl", "adfv2-ml"}),
    ),
    "Job schedules": Recipe(
        (
            Made("report-daily:job-41", "batch", ends=30.0),
            Made("report-daily:job-42", "batch"),
            Made("cleanup-hourly:job-7", "batch"),
        ),
        groups=frozenset({"report-daily", "cleanup-hourly"}),
    ),
    "Cromwell on Azure and TES": Recipe(
        (
            *(
                Made(f"0fbdb535_4afd45e3a8a8976c876ed1{number:02}-1", pool, auto_pool=True)
                for number, pool in enumerate(AUTO_POOLS)
            ),
            Made("TES-D4s_v5-r7kq", "TES-D4s_v5-r7kq"),
        ),
        groups=frozenset({"tes-tasks", "TES-D4s_v5-r7kq"}),
    ),
    "Your own program": Recipe(
        (
            Made("nightly-merge", "farm", tasks=("merge", "publish")),
            Made("shot-1", "farm", metadata={"env": "prod", "project": "atlas"}),
            Made("shot-2", "farm", metadata={"env": "prod"}),
            Made("trial-1", "farm", metadata={"env": "dev", "owner": "kim"}),
        ),
        groups=frozenset({"atlas", "none"}),
        job_ids=frozenset({"nightly-merge", "trial-1", SOMEBODY_ELSES.id}),
    ),
}
"""By the heading of the page."""

CODE = blocks("docs/recipes.md")
CONFIGURATIONS = [block for block in CODE if block.language == "yaml"]
SHOWN = {block.heading: block.text for block in CODE if block.language == "text"}


def found(jobs: tuple[Made, ...]) -> Callable[[State], None]:
    """Puts these jobs, their pools and twenty tasks of each into an account."""

    def put(state: State) -> None:
        for made in jobs:
            pool = state.pools.get(made.pool)
            if pool is None:
                pool = node_life.new_pool(
                    state, pool_id=made.pool, nodes=0, auto_pool=made.auto_pool, auto_scale=False
                )
                node_life.add_ready_node(state, pool)
            name = JobName(made.id, "", "task")
            job = job_life.new_job(state, name, pool, auto_pool=made.auto_pool)
            job.metadata = tuple(made.metadata.items())
            ids = made.tasks or [f"task-{number}" for number in range(20)]
            task_life.add_tasks(state, job, list(ids))
            join_round(job)
            if made.ends is not None:
                delay = int((state.scenario.warm_up - made.ends) * ticks.SECOND)
                state.agenda.after(delay, job_life.end_by_user, state, job)

    return lambda state: state.agenda.after(0, put, state)


async def polled_twice(text: str, jobs: tuple[Made, ...], folder: Path) -> str:
    """What is exposed with this configuration, of jobs that went on for a while in between."""
    loader.parse(text, "recipes.md", folder, FAMILIES)  # as it stands, too, it is one
    config: Any = yaml.safe_load(text)
    (account,) = config["accounts"]
    world = World(QUIET, seed=1, jobs=0, nodes=0, start=START, found=found(jobs))
    clock = Clock(START, speed=0.0)
    async with serve(
        world, clock, account=make_account(1, account["name"]), simulated_date=True
    ) as simulation:
        (folder / "key").write_text(simulation.account_key)
        account["endpoint"] = simulation.endpoint
        account["auth"] = {"method": "shared_key", "key_file": str(folder / "key")}
        account["requests_per_second"] = 1000
        wanted = loader.parse(json.dumps(config), "recipes.md", folder, FAMILIES)
        async with open_service(wanted, now=lambda: clock.now().timestamp()) as service:
            await service.run_once()
            clock.advance(60.0)
            await service.run_once()
            await service.settle()
            return service.exposition.body(Format.TEXT).plain.decode()


def values(text: str, label: str) -> set[str]:
    """All values that a label has."""
    return set(re.findall(rf'[{{,]{label}="([^"]*)"', text))


def test_every_recipe_has_a_configuration_and_shows_series() -> None:
    assert [block.heading for block in CONFIGURATIONS] == list(RECIPES)
    assert list(SHOWN) == list(RECIPES)


@pytest.mark.parametrize("block", CONFIGURATIONS, ids=lambda block: block.heading)
async def test_a_recipe_gives_the_series_that_the_page_shows(block: Block, tmp_path: Path) -> None:
    recipe = RECIPES[block.heading]
    text = await polled_twice(block.text, (*recipe.jobs, SOMEBODY_ELSES), tmp_path)
    exposed = {line.rpartition(" ")[0] for line in text.splitlines()}
    shown = [line.rpartition(" ")[0] for line in SHOWN[block.heading].splitlines()]
    assert [series for series in shown if series not in exposed] == []
    assert values(text, "job_group") == recipe.groups
    assert values(text, "job_id") == recipe.job_ids
