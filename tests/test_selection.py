"""Which jobs the rules select."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from exporter.batch.models import Job, JobExecutionInfo, NameValuePair
from exporter.config import Rule
from exporter.config.patterns import Pattern
from exporter.polling.selection import listing_filter, select

NOW = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


def rule(**settings: Any) -> Rule:
    return Rule.model_validate(settings)


def job(job_id: str, state: str = "active", ended_ago: float | None = None, **metadata: str) -> Job:
    ended = None if ended_ago is None else (NOW - dt.timedelta(seconds=ended_ago)).isoformat()
    pairs = tuple(NameValuePair(name, value) for name, value in metadata.items())
    return Job(job_id, state=state, execution_info=JobExecutionInfo(end_time=ended), metadata=pairs)


def selected(rules: list[Rule], *jobs: Job) -> list[str]:
    return [found.job.id for found in select(rules, jobs, NOW.timestamp())]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"id": "nightly"}, ["nightly"]),
        ({"id": "NIGHTLY"}, ["nightly"]),
        ({"id_regex": "nf-.*"}, ["nf-a", "nf-b"]),
        ({"id_regex": "nf"}, []),
        ({"id_regex": ".*", "states": ["disabled"]}, ["paused"]),
        ({"id_regex": ".*", "states": ["deleting"]}, ["going"]),
        ({"id_regex": ".*", "states": ["completed"]}, ["early", "just"]),
        ({"id_regex": ".*", "states": ["disabled"], "completed_for": "1h"}, ["just", "paused"]),
        ({"id_regex": ".*", "metadata": {"env": "prod"}}, ["nf-a"]),
        ({"id_regex": ".*", "metadata": {"env": "prod", "team": "x"}}, []),
        ({"id": "early"}, ["early"]),
        ({"id": "early", "states": ["active"]}, []),
        ({"id": "going"}, ["going"]),
    ],
    ids=str,
)
def test_a_rule_selects_by_id_state_age_and_metadata(
    settings: dict[str, Any], expected: list[str]
) -> None:
    jobs = (
        job("nightly"),
        job("nf-b", env="dev"),
        job("nf-a", env="prod"),
        job("paused", "Disabled"),
        job("early", "completed", ended_ago=3600.0),
        job("just", "completed", ended_ago=3599.0),
        job("going", "deleting"),
    )
    assert selected([rule(**settings)], *jobs) == expected


def test_the_first_rule_that_matches_applies() -> None:
    rules = [
        rule(id_regex="nf-.*", interval="10s", collect=["task_counts"]),
        rule(id_regex=".*", stale_after=9),
    ]
    first, second = select(rules, [job("nf-a"), job("other")], NOW.timestamp())
    assert (first.rule.interval, first.rule.collect, first.rule.stale_after) == (
        10.0,
        ("task_counts",),
        3,
    )
    assert (second.rule.interval, second.rule.stale_after) == (30.0, 9)


def test_a_job_that_stands_on_two_pages_is_taken_once() -> None:
    found = select([rule(id_regex=".*")], [job("a"), job("A", "disabled")], NOW.timestamp())
    assert [(watched.job.id, watched.job.state) for watched in found] == [("A", "disabled")]


def test_only_what_some_rule_can_want_is_listed() -> None:
    rules = [rule(id="exact"), rule(id_regex="a.*", states=["active"])]
    assert listing_filter(rules, NOW.timestamp()) == "state eq 'active'"
    rules.append(rule(id_regex="b.*", states=["disabled"], completed_for="90m"))
    assert listing_filter(rules, NOW.timestamp()) == (
        "(state eq 'active') or (state eq 'disabled') or ((state eq 'completed') and"
        " (stateTransitionTime ge DateTime'2026-01-01T10:30:00.000000Z'))"
    )
    rules.append(rule(id_regex="c.*", states=["completed"]))
    assert "stateTransitionTime" not in listing_filter(rules, NOW.timestamp())


def test_rules_with_an_exact_id_alone_need_no_listing() -> None:
    assert listing_filter([rule(id="a"), rule(id="b")], 0.0) is None
    assert listing_filter([rule(id="a"), rule(id_regex="b")], 0.0) is not None


# Metadata


def test_only_the_metadata_that_a_rule_names_is_kept() -> None:
    """A job's metadata is free text of its owner, and goes into the state file with the job."""
    one = job("a", env="env value", team="t", x="y", remark="z")
    for rules, kept in (
        ((rule(id="a"),), None),
        ((rule(id="a", metadata_labels=["team"]),), ["team"]),
        ((rule(id="a", metadata={"env": "env value"}),), ["env"]),
        ((rule(id_regex=".*", group="${metadata.x}-${pool_id}"),), ["x"]),
        ((rule(id="other", metadata_labels=["team"]), rule(id="a")), ["team"]),  # of any rule
    ):
        (watched,) = select(rules, [one], NOW.timestamp())
        found = watched.job.metadata
        assert (found and [item.name for item in found]) == kept


@pytest.mark.parametrize(
    ("pattern", "job_id"),
    [
        ("(a+)+b", "a" * 64),
        ("(?P<pipeline>([a-z0-9]+-?)+)-run-[0-9]+", "a" * 64),
        ("(.*a){20}", "a" * 19 + "b" * 45),
        (".*".join("abcdefgh"), "abcdefg" * 9),
    ],
)
def test_no_id_makes_a_pattern_take_long(pattern: str, job_id: str) -> None:
    assert Pattern(pattern).groups(job_id) is None


def test_no_name_of_a_group_takes_long() -> None:
    names = "-".join(f"${{metadata.m{number}}}" for number in range(12))
    rule = Rule(id_regex=".*", group=f"{names}!")
    assert not rule.can_make("a-" * 500)


def test_a_group_that_took_no_part_is_empty_and_a_match_is_of_the_whole_text() -> None:
    pattern = Pattern("(?P<a>x)?(?P<b>y+)")
    assert pattern.groups("yy") == {"a": "", "b": "yy"}
    assert pattern.groups("yyz") is None
    assert pattern.names == ("a", "b")
