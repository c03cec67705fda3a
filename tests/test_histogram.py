"""Histograms: what is observed becomes counters, counters become text that both parsers take."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter import collectors
from exporter.batch.models import Job
from exporter.collectors import new_store, preparation_release, tables
from exporter.config import Rule
from exporter.exposition.body import Exposition, Format
from exporter.exposition.metric import Table
from exporter.exposition.scrapes import LONGEST, Scrapes
from exporter.state.counters import Counters
from exporter.state.histogram import histogram
from exporter.state.store import Store
from exporter.state.watched_job import SelectedJobs, WatchedJob
from tests.process import check_metrics
from tests.test_collectors import PREPARATION, RELEASE, SUCCESS, nodes
from tests.test_tasks import changed, listed, running, succeeded
from tools.sample_job import nodes_read

DURATION = histogram(
    "things_seconds", "How long", "Some_Operation field", ("kind",), (0.5, 2.0, 10.0)
)
TABLE = Table(("account",), (DURATION.row,))
A = (("account", "a"),)


def body(counters: Counters, format_: Format) -> str:
    exposition = Exposition({"things": TABLE})
    exposition.put("things", A, counters)
    end = "# EOF\n" if format_ is Format.OPENMETRICS else ""
    return exposition.body(format_).plain.decode() + end


def test_the_first_value_that_is_shown_is_0_and_the_rest_follows() -> None:
    counters = Counters().add(DURATION.observed({("x",): [0.5, 1, 20]}))
    help_ = "# HELP things_seconds How long. Source: Some_Operation field; polled, not fetched on"
    head = f"{help_} scrape.\n# TYPE things_seconds histogram\n"
    lines = (
        'things_seconds_bucket{account="a",kind="x",le="0.5"} %s\n'
        'things_seconds_bucket{account="a",kind="x",le="2.0"} %s\n'
        'things_seconds_bucket{account="a",kind="x",le="10.0"} %s\n'
        'things_seconds_bucket{account="a",kind="x",le="+Inf"} %s\n'
        'things_seconds_count{account="a",kind="x"} %s\n'
        'things_seconds_sum{account="a",kind="x"} %s\n'
    )
    for format_ in Format:
        end = "# EOF\n" if format_ is Format.OPENMETRICS else ""
        assert body(counters, format_) == head + lines % (0, 0, 0, 0, 0, 0) + end
        assert body(counters.add({}), format_) == head + lines % (1, 2, 2, 3, 3, 21.5) + end


def test_labels_without_values_appear_with_0() -> None:
    counters = Counters().add(DURATION.observed({("x",): []}))
    assert len(counters.totals) == 6
    assert set(counters.totals.values()) == {0}


def test_a_duration_below_0_counts_as_0() -> None:
    counters = Counters().add(DURATION.observed({("x",): [-5.0]}))
    assert counters.totals["things_seconds", ("x", "_sum", "")] == 0
    assert counters.totals["things_seconds", ("x", "_bucket", "0.5")] == 1


@given(
    st.lists(
        # A NUL is shown as another character.
        st.dictionaries(
            st.text(st.characters(codec="utf-8", exclude_characters="\0")),
            st.lists(st.floats(0, 1e6)),
            max_size=3,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_both_parsers_read_what_was_observed(rounds: list[dict[str, list[float]]]) -> None:
    counters = Counters()
    for values in rounds:
        counters = counters.add(DURATION.observed({(k,): given for k, given in values.items()}))
    counters = counters.add({})
    kinds = {kind for values in rounds for kind in values}
    for format_, parse in (
        (Format.TEXT, parse_text),
        (Format.OPENMETRICS, parse_openmetrics),
    ):
        families = list(parse(body(counters, format_)))  # type: ignore[operator]
        assert [family.type for family in families] == ["histogram"] * bool(kinds)
        samples = [sample for family in families for sample in family.samples]
        assert len(samples) == 6 * len(kinds)
        for sample in samples:
            kind, bound = sample.labels["kind"], float(sample.labels.get("le", math.inf))
            observed = [value for values in rounds for value in values.get(kind, [])]
            if sample.name == "things_seconds_sum":
                assert sample.value == pytest.approx(sum(observed), abs=1e-5)
            else:
                assert sample.value == sum(value <= bound for value in observed)


@pytest.mark.parametrize("name", ["tasks", "tasks_counters", "histograms"])
async def test_promtool_finds_nothing_to_say(name: str, promtool: Path) -> None:
    golden = Path(__file__).parent / "golden" / f"{name}.prom"
    assert await check_metrics(promtool, golden.read_bytes()) == (0, "")


def test_bounds_rise_and_go_and_python_write_them_alike() -> None:
    rows = [row for kind in collectors.JOB_COLLECTORS.values() for row in kind.histograms]
    assert len(rows) == 4
    for row in rows:
        assert list(row.bounds) == sorted(set(row.bounds))
        assert all(isinstance(bound, float) and 0.001 < bound < 1e6 for bound in row.bounds)


# Preparation and release


def test_a_run_on_a_node_is_observed_once_in_its_pool_and_what_was_there_before_is_not() -> None:
    known = {PREPARATION: SUCCESS, RELEASE: {**SUCCESS, "state": "running", "result": None}}
    later = {**SUCCESS, "startTime": "2026-01-01T12:00:00Z", "endTime": "2026-01-01T12:00:40Z"}
    pages = [
        nodes(known),
        nodes({PREPARATION: SUCCESS, RELEASE: SUCCESS}),
        nodes({PREPARATION: later, RELEASE: SUCCESS}),
        nodes({PREPARATION: SUCCESS, RELEASE: SUCCESS}),  # an old page
        nodes({PREPARATION: later, RELEASE: SUCCESS}, {PREPARATION: later, "poolId": "pool-2"}),
    ]
    state = None
    counters = Counters()
    for page in pages:
        reading = nodes_read("pool-1", page)
        folded = preparation_release.fold(state, reading, 0.0, False)
        state, counters = folded.state, counters.add(folded.events.observations)
    observed = {
        (name.removeprefix("azure_batch_"), *labels[:2]): value
        for (name, labels), value in counters.totals.items()
        if not labels[2] and value
    }
    assert observed == {
        ("preparation_task_duration_seconds", "pool-1", "_count"): 1,
        ("preparation_task_duration_seconds", "pool-1", "_sum"): 40,
        ("preparation_task_duration_seconds", "pool-2", "_count"): 1,
        ("preparation_task_duration_seconds", "pool-2", "_sum"): 40,
        ("release_task_duration_seconds", "pool-1", "_count"): 1,
        ("release_task_duration_seconds", "pool-1", "_sum"): 5,
    }


# Whose they are


def watched(job_id: str, group: str | None) -> WatchedJob:
    return WatchedJob(
        Job(job_id, creation_time="2026-01-01T00:00:00Z"),
        Rule(id_regex=".*"),
        group,
    )


def shown(store: Store, exposition: Exposition, name: str) -> dict[str, float]:
    """The samples of one name, by their labels."""
    store.flush()
    found = {}
    for line in exposition.body(Format.TEXT).plain.decode().splitlines():
        if line.startswith(f"{name}{{"):
            labels, value = line.removeprefix(name).rsplit(" ", 1)
            found[labels] = float(value)
    return found


def test_a_group_has_its_own_and_jobs_without_one_share_the_accounts() -> None:
    exposition, seconds = Exposition(tables()), 0.0
    store = new_store(exposition, scrapes=Scrapes(lambda: seconds))
    store.add_account("a")
    jobs = [watched("j1", None), watched("j2", None), watched("j3", "g")]

    def put(watched: WatchedJob, reading: Any) -> None:
        state = store.outcome("a", "tasks", watched.job.id).state
        store.put_reading("a", watched.job, "tasks", reading, state, 0.0)

    def runs() -> dict[str, float]:
        return shown(store, exposition, "azure_batch_task_run_seconds_count")

    store.select("a", SelectedJobs(tuple(jobs)), 0.0)
    for job in jobs:
        put(job, listed([running("t"), succeeded("was there before")]))
    assert runs() == {'{account="a"}': 0, '{account="a",job_group="g"}': 0}
    for job in jobs:
        put(job, changed([succeeded("t")]))
    seconds = LONGEST + 1  # so long nobody reads
    assert runs() == {'{account="a"}': 2, '{account="a",job_group="g"}': 1}
    assert shown(store, exposition, "azure_batch_task_run_seconds_sum") == {
        '{account="a"}': 60,
        '{account="a",job_group="g"}': 30,
    }
    store.select("a", SelectedJobs(), 0.0)
    store.flush()
    assert runs() == {'{account="a"}': 2, '{account="a",job_group="g"}': 1}
    assert "job_id" not in exposition.body(Format.TEXT).plain.decode()
