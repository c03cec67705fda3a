"""Data goes one way, and so do imports; names and docs cannot drift from the tables."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from exporter import collectors
from exporter.service.telemetry import ROWS, SERIES
from tools.gen_docs import DOCS, pages
from tools.sample_job import SAMPLE_SNAPSHOTS

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "exporter").rglob("*.py"))


def imports_of(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return found


FORBIDDEN = {
    "exporter/batch": (
        "exporter.collectors",
        "exporter.store",
        "exporter.metric",
        "exporter.web",
        "exporter.exposition",
        "exporter.scheduler",
        "exporter.simulator",
    ),
    "exporter/collectors": (
        "exporter.store",
        "exporter.exposition",
        "exporter.web",
        "aiohttp",
        "exporter.scheduler",
        "exporter.poller",
        "exporter.simulator",
        "time",
    ),
    "exporter/metric.py": ("exporter",),
    "exporter/counters.py": ("exporter.batch", "exporter.collectors", "exporter.store"),
    "exporter/exposition.py": (
        "exporter.batch",
        "exporter.collectors",
        "exporter.config",
        "exporter.web",
        "time",
        "aiohttp",
    ),
    "exporter/scheduler.py": ("exporter",),
    "exporter/store.py": (
        "exporter.batch.client",
        "exporter.web",
        "exporter.poller",
        "time",
        "aiohttp",
        "asyncio",
    ),
    "exporter/history.py": ("exporter.store", "exporter.web", "time"),
    "exporter/views": ("exporter.web", "exporter.poller", "exporter.simulator", "aiohttp", "time"),
    "exporter/web": (
        "exporter.batch",
        "exporter.poller",
        "exporter.collectors",
        "exporter.simulator",
    ),
}


@pytest.mark.parametrize("place", FORBIDDEN)
def test_imports_go_one_way(place: str) -> None:
    files = [file for file in MODULES if file.is_relative_to(ROOT / place)]
    assert files
    for file in files:
        for name in imports_of(file):
            for forbidden in FORBIDDEN[place]:
                assert name != forbidden and not name.startswith(f"{forbidden}."), (file, name)


def test_the_simulator_shares_no_code_with_the_client() -> None:
    for file in MODULES:
        inside = file.is_relative_to(ROOT / "exporter" / "simulator")
        for name in imports_of(file):
            if inside and name.startswith("exporter"):
                assert name.startswith("exporter.simulator"), (file, name)
            if not inside and name.startswith("exporter.simulator"):
                assert file.name in ("__main__.py", "demo.py"), (file, name)


def test_modules_are_as_long_as_their_idea() -> None:
    for file in MODULES:
        assert len(file.read_text().splitlines()) <= 420, file


def test_every_family_is_named_once_and_as_prometheus_wants_it() -> None:
    rows = [row for table in collectors.tables().values() for row in table.metrics]
    names = [row.name for row in rows] + [row.name for row in (*ROWS, SERIES)]
    assert len(names) == len(set(names))
    for name in names:
        assert re.fullmatch(r"azure_batch_[a-z0-9_]+", name)
    for row in rows:
        assert row.name.endswith("_total") == (row.type == "counter")
        assert row.help[0].isupper() and not row.help.endswith(".")
        assert "\n" not in row.documentation and '"' not in row.documentation


def test_labels_are_those_of_the_contract_and_never_a_target_label() -> None:
    for table in collectors.tables().values():
        for row in table.metrics:
            labels = (*table.identity, *row.labels)
            assert len(labels) == len(set(labels))
            assert set(labels) <= {
                "account",
                "cause",
                "job_id",
                "pool_id",
                "state",
                "result",
                "category",
                "code",
                "collector",
                "kind",
                "display_name",
                "task_id",
                "mode",
            }


@pytest.mark.parametrize("page", pages())
def test_generated_docs_are_what_the_code_says(page: str) -> None:
    # Not compared in the assertion itself: the difference of two long pages takes minutes.
    is_current = (DOCS / page).read_text() == pages()[page]
    assert is_current, "run make docs"


def test_the_sample_job_has_a_snapshot_for_every_table_of_a_job() -> None:
    of_jobs = {name for name, table in collectors.tables().items() if "job_id" in table.identity}
    assert of_jobs == SAMPLE_SNAPSHOTS.keys()


def test_a_job_costs_no_more_series_than_promised() -> None:
    page = pages()["metrics.md"]
    plain, prepared, tasks, watched = map(int, re.findall(r"\*\*(\d+)\*\*", page))
    assert plain < 40
    assert prepared < 65
    assert tasks < 10
    assert watched == 19
