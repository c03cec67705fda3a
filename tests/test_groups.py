"""The gauges of a group: what changes in one job changes them as if all were added up anew."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from exporter.exposition.body import Exposition, Format
from exporter.exposition.metric import Metric, Table
from exporter.state.groups import Groups

MERGES = {"sum": sum, "min": min, "max": max, "seconds": math.fsum, "none": None}
PLACE = ("acc", ("job_group", "nf"), "table")

Snapshot = Mapping[str, float | None]


def samples(snapshot: Snapshot) -> list[tuple[tuple[str, ...], float | None]]:
    return [((label,), value) for label, value in snapshot.items()]


def rows() -> tuple[Metric[Any], ...]:
    return tuple(
        Metric(name, "gauge", "help", "source", ("of",), samples, merge)
        for name, merge in MERGES.items()
    )


def merged_anew(jobs: Mapping[str, Snapshot]) -> set[str]:
    """The lines of the group, from all its jobs."""
    lines = set()
    for name, merge in MERGES.items():
        found: dict[str, list[float]] = {}
        for snapshot in jobs.values():
            for label, value in snapshot.items():
                if value is not None:
                    found.setdefault(label, []).append(value)
        for label, values in found.items() if merge else ():
            lines.add(f'{name}{{account="acc",job_group="nf",of="{label}"}} {merge(values)}')
    return lines


SNAPSHOTS = st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(0, 10**12), max_size=3)
CHANGES = st.lists(st.tuples(st.sampled_from("123456"), st.none() | SNAPSHOTS), max_size=40)


@given(CHANGES)
def test_changes_come_to_what_all_jobs_together_show(changes: list[tuple[str, Snapshot]]) -> None:
    exposition = Exposition({"table": Table(("account", "job_id"), rows())})
    groups = Groups(exposition)
    jobs: dict[str, Snapshot] = {}
    for job_id, snapshot in changes:
        groups.put(PLACE, job_id, snapshot)
        jobs.pop(job_id, None)
        if snapshot is not None:
            jobs[job_id] = snapshot
        groups.flush()
        text = exposition.body(Format.TEXT).plain.decode()
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        shown = {line.replace(".0", "") if line.startswith("seconds") else line for line in lines}
        assert shown == {line.replace(".0", "") for line in merged_anew(jobs)}
        assert len(lines) == len(set(lines))
