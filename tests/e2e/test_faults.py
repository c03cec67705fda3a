"""Faults of the catalogue against the real program: none hurts others, each shows, all pass."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.fault_play import Played, Seen, play
from tools.fault_matrix import CASES, HEAVY, JOBS, Case

pytestmark = pytest.mark.full

LANES = 8
"""Accounts on which faults are played at once."""


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """All faults, on one process."""
    return asyncio.run(play(tmp_path_factory.mktemp("faults"), CASES, HEAVY, LANES))


def expected(case: Case) -> Seen:
    """What is to be seen of a fault."""
    warning = [] if case.log is None else [case.log]
    again = "account can be polled again" if "account" in (case.log or "") else ""
    again = again or "poll succeeds again"
    return Seen(
        shown=case.log is not None,
        codes={case.code},
        warnings=warning,
        infos=[again] * len(warning),
        recovered=True,
    )


@pytest.mark.parametrize("case", [*CASES, *HEAVY], ids=lambda case: case.name)
def test_a_fault_shows_where_it_is_said_to_hurts_no_other_and_passes(
    played: Played, case: Case
) -> None:
    seen, wanted = played.seen[case.name], expected(case)
    assert seen.others == set()
    assert (seen.shown, seen.recovered) == (wanted.shown, wanted.recovered)
    assert wanted.codes <= seen.codes
    warnings = seen.warnings
    # On a busy machine an answer may also come too late, which is another failure.
    in_time = [text for text in warnings if "no whole answer" not in text]
    is_late = case.code != "timeout" and in_time != warnings
    if case in HEAVY:
        warnings = in_time[:1]
    starts = [text[: len(case.log or "")] for text in warnings]
    if case.pauses and wanted.warnings:
        # With each pause that ends before the fault does it is down and up once more.
        starts, infos = sorted(set(starts)), sorted(set(seen.infos))
        assert len(seen.infos) == len(warnings)
    else:
        infos = seen.infos
    if case in HEAVY or not is_late:
        assert (starts, infos) == (wanted.warnings, wanted.infos)
    assert seen.memory < 100
    assert case.log is None or case.operation != JOBS or 0.0 in seen.up
    if case.log is None and case.right:
        assert seen.right


def test_an_account_that_has_no_fault_sees_nothing_of_those_that_have(played: Played) -> None:
    assert played.untouched == set()


def test_after_all_faults_the_process_is_as_small_as_before(played: Played) -> None:
    assert played.defects == 0
    assert played.growth < 100
    assert played.peak < 300
