"""The rooms and the path of a value; names and docs cannot drift from the tables.

Who may import whom stands in pyproject.toml; `make lint` checks it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from exporter import collectors
from exporter.service.telemetry import ROWS
from tools.gen_docs import DOCS, outdated, pages
from tools.sample_job import SAMPLE_SNAPSHOTS

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "exporter").rglob("*.py"))


ROOMS = 11
"""`__init__.py` and `__main__.py` stand beside them."""

MOST_FUNCTIONS = 15


def test_the_rooms_are_few_and_each_file_has_a_name_of_its_own() -> None:
    top = [each for each in (ROOT / "exporter").iterdir() if each.name[0] not in "._"]
    assert len([each for each in top if each.is_dir()]) <= ROOMS
    assert {each.name for each in top if each.is_file()} == {"py.typed"}
    names = Counter(file.name for file in MODULES)
    shared = {name for name, count in names.items() if count > 1}
    assert shared <= {"__init__.py", "models.py"}


def test_a_task_count_passes_few_functions_from_the_answer_to_the_body() -> None:
    command = [sys.executable, "-m", "tools.value_path"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    *functions, _ = ran.stdout.splitlines()
    assert any(line.endswith(" fold") for line in functions)
    assert len(functions) <= MOST_FUNCTIONS, ran.stdout


def test_every_family_is_named_once_and_as_prometheus_wants_it() -> None:
    rows = [row for table in collectors.tables().values() for row in table.metrics]
    names = [row.name for row in rows] + [row.name for row in ROWS]
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
                "reason",
                "code",
                "collector",
                "kind",
                "display_name",
                "task_id",
                "mode",
            }


def test_generated_files_are_what_the_code_says() -> None:
    found = outdated()
    assert not found, "\n".join(found)


def test_the_sample_job_has_a_snapshot_for_every_table_of_a_job() -> None:
    of_jobs = {name for name, table in collectors.tables().items() if "job_id" in table.identity}
    assert of_jobs == SAMPLE_SNAPSHOTS.keys(), "edit tools/sample_job.py"


def test_a_job_costs_no_more_series_than_promised() -> None:
    page = pages()[DOCS / "metrics.md"]
    plain, prepared, tasks, watched = map(int, re.findall(r"\*\*(\d+)\*\*", page))
    assert plain < 40
    assert prepared < 65
    assert tasks < 10
    assert watched == 19
