"""Polls of a whole account, against Microsoft's client with prometheus_client's gauges.

First 50 jobs with a preparation record on each of 1,000 nodes, every listing a full one; then the
task counts of 2,000 jobs. The account, what one would write instead (sdk_collector.py) and this
program (our_collector.py) are processes of their own; the latter two take turns, and CPU time,
user and system, is theirs alone. Each lists the jobs with every round, too. No scrape is in it: the
exporter has its text rendered by then, the gauges have not.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from contextlib import ExitStack

from benchmarks.harness import Process, compared, head, median, row, sdk_python
from benchmarks.simulator import NODES

Costs = Mapping[str, list[float]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="of each way (default: %(default)s)")
    parser.add_argument("--only", choices=("records", "counts"), help="of the two comparisons")
    parser.add_argument("--small", action="store_true", help="a tenth of the jobs, three rounds")
    options = parser.parse_args()
    size, rounds = (10, 3) if options.small else (1, options.rounds)
    if options.only != "counts":
        compare_records(50 // size, rounds)
    if options.only != "records":
        compare_counts(2000 // size, rounds, 10 // size)


def compare_records(jobs: int, rounds: int) -> None:
    """The cost of a record: of a first listing, and of one that finds a few changed."""
    print(f"{jobs} jobs, each prepared on {NODES} nodes, listed in full: CPU µs a record\n")
    head("listing", "SDK and gauges", "this exporter", "times less")
    first, again = nothing("SDK", "exporter"), nothing("SDK", "exporter")
    with ExitStack() as stack:
        world = stack.enter_context(Process("benchmarks.simulator", "records", f"--jobs={jobs}"))
        sides = {
            "SDK": stack.enter_context(sdk("records", world)),
            "exporter": stack.enter_context(ours("records", world)),
        }
        take_turns(sides, NODES)  # the warm-up
        for _ in range(rounds):
            for side in sides.values():
                side.ask("forget")
            add(first, take_turns(sides, NODES))
            world.ask("minute")
            add(again, take_turns(sides, NODES))
        check(sides)
    compared("first", first["SDK"], first["exporter"])
    compared("again, about 1 % changed", again["SDK"], again["exporter"])
    print(flush=True)


def compare_counts(jobs: int, rounds: int, interval: int) -> None:
    """The cost of a poll of task counts: in a row, and each at its moment of an interval."""
    print(f"{jobs} jobs, about one task of each ending a minute: CPU µs a poll of task counts\n")
    head("polls", "SDK and gauges", "this exporter", "times less")
    with Process("benchmarks.simulator", "counts", f"--jobs={jobs}") as world:
        for spread in (0, interval):
            costs = nothing("SDK", "exporter", "bare")
            with ExitStack() as stack:
                sides = {
                    "SDK": stack.enter_context(sdk("counts", world, spread)),
                    "exporter": stack.enter_context(ours("counts", world, spread)),
                }
                if not spread:
                    sides["bare"] = stack.enter_context(ours("counts", world, 0, "--bare"))
                for _ in range(2):  # the warm-up: jobs are known to the timetable from the first on
                    take_turns(sides)
                for _ in range(rounds):
                    world.ask("minute")
                    add(costs, take_turns(sides))
                check(sides)
            way = f"spread over {spread} s" if spread else "as fast as it goes"
            compared(way, costs["SDK"], costs["exporter"])
            if not spread:
                bare = median(costs["bare"])
                row("the same: a GET with aiohttp, signed, no more", "", f"{bare:.1f}", "")
    print(flush=True)


def sdk(what: str, world: Process, interval: int = 0) -> Process:
    """What one would write instead."""
    given = (what, f"--account={json.dumps(world.ready)}", f"--interval={interval}")
    return Process("benchmarks.sdk_collector", *given, python=sdk_python())


def ours(what: str, world: Process, interval: int = 0, *more: str) -> Process:
    """This program."""
    given = (what, f"--account={json.dumps(world.ready)}", f"--interval={interval}")
    return Process("benchmarks.our_collector", *given, *more)


def take_turns(sides: Mapping[str, Process], of_each: int = 1) -> dict[str, float]:
    """A round of each side: µs of CPU for each of the things of which a poll reads `of_each`."""
    found = {name: side.ask("poll") for name, side in sides.items()}
    return {name: it["cpu"] / it["polls"] / of_each * 1e6 for name, it in found.items()}


def check(sides: Mapping[str, Process]) -> None:
    """Both must have read the same."""
    theirs, own = (sides[name].ask("shown")["total"] for name in ("SDK", "exporter"))
    assert theirs == own > 0, (theirs, own)


def nothing(*sides: str) -> Costs:
    """No costs so far."""
    return {side: [] for side in sides}


def add(costs: Costs, found: Mapping[str, float]) -> None:
    """Note what a round cost."""
    for side, cost in found.items():
        costs[side].append(cost)


if __name__ == "__main__":
    main()
