"""docs/sizing.md: its sums are right, and made of numbers that the code has."""

from __future__ import annotations

import re

import pytest

from exporter.cli.preflight.cost import Sample
from exporter.collectors import tables
from exporter.collectors.pool_nodes import STATES
from exporter.config import Account, Defaults
from exporter.state import table_names
from tests.pages import PAGES
from tools.gen_docs import metrics_page
from tools.sample_job import SAMPLE_SNAPSHOTS

TEXT = PAGES["docs/sizing.md"].read_text()

BY_HAND = "edit docs/sizing.md: it is written by hand, and this number follows from the code"


def numbers(name: str) -> list[float]:
    """The numbers in a row of a table, by how the row begins."""
    (found,) = re.findall(rf"^\| {re.escape(name)}[^|]*\|(.+)\|$", TEXT, re.MULTILINE)
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,.]*", found)]


def one(name: str) -> float:
    """The first number in a row."""
    return numbers(name)[0]


def test_what_a_job_costs_is_what_the_metrics_cost() -> None:
    costs = [int(number) for number in re.findall(r"\*\*(\d+)\*\*", metrics_page())]
    without, both = one("a job without preparation"), one("a job with both")
    found = [without, both, one("the collector `tasks`, for"), one("a task that a rule")]
    assert found == costs, BY_HAND
    assert one("each further pool") == both - without, BY_HAND


def test_what_an_account_costs_is_what_the_forecast_says() -> None:
    own, of_a_pool = numbers("an account")
    assert own == Sample("a", tables(), (), None, 0.0).series_of_account, BY_HAND
    assert of_a_pool == 2 * len(STATES), BY_HAND  # dedicated and low priority


def test_the_defaults_are_those_of_the_configuration() -> None:
    assert (
        f"`requests_per_second` ({Account.model_fields['requests_per_second'].default:g})" in TEXT
    )
    assert f"(at most {Account.model_fields['max_series'].default})" in TEXT
    defaults = Defaults()
    assert numbers("`interval`, in seconds")[0] == defaults.interval
    assert "`idle_interval: 2m`" in TEXT and defaults.idle_interval == 120


NOT_OF_A_GROUP = sum(
    value is not None
    for row in tables()[table_names.JOB].metrics
    if row.merge is None
    for _, value in row.samples(SAMPLE_SNAPSHOTS[table_names.JOB])
)
"""Series of a job that a group does not have."""


def test_what_a_group_costs_less_is_what_the_metrics_say() -> None:
    assert f"A group costs what one job costs, less {NOT_OF_A_GROUP}," in TEXT, BY_HAND


JOBS = numbers("jobs")
INTERVALS = numbers("`interval`, in seconds")
REQUESTS = [jobs * 2 / interval for jobs, interval in zip(JOBS, INTERVALS, strict=True)]
SERIES = [jobs * one("a job with both") for jobs in JOBS]
SAMPLES = [series / 30 for series in SERIES]


@pytest.mark.parametrize(
    ("name", "sums"),
    [
        ("requests per second", REQUESTS),
        (
            "the same, all idle",
            [
                asked / (120 // interval)
                for asked, interval in zip(REQUESTS, INTERVALS, strict=True)
            ],
        ),
        ("cores", [asked * 0.0015 for asked in REQUESTS]),
        ("memory", [60 + jobs * 24 / 1024 for jobs in JOBS]),
        ("series of jobs", SERIES),
        ("the same in 100 groups", [100.0 * (one("a job with both") - NOT_OF_A_GROUP)] * len(JOBS)),
        ("samples per second", SAMPLES),
        ("disk of Prometheus", [samples * 86400 * 2 / 1e6 for samples in SAMPLES]),
        ("a scrape", [series * 105 / 1e6 for series in SERIES]),
    ],
)
def test_the_worked_examples_are_what_the_formulas_give(name: str, sums: list[float]) -> None:
    found = numbers(name)[-len(JOBS) :]
    assert found == [pytest.approx(each, rel=0.02) for each in sums], BY_HAND
