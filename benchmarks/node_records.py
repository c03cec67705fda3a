"""CPU and memory of a preparation record, against Microsoft's client with gauges.

50 jobs with a record on each of 1,000 nodes are listed in full: by the exporter (our_collector.py)
and by what one would write instead (sdk_collector.py), in turns, a first time and again after a
minute in which 1 % has changed. Then one job with 100,000 records, and one with as many tasks, is
read by its changes and in full; both are the exporter, and must know the same afterwards. The
account is a process of its own. Last is the memory that a record takes while it is known.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random

import msgspec

from benchmarks.harness import (
    MIB,
    ROOT,
    Process,
    environment,
    head,
    less,
    median,
    resident,
    row,
    sdk_python,
    verdict,
)
from benchmarks.simulator import NODES
from exporter.batch.models import NodeTaskStatus, Page
from exporter.batch.spellings import Spellings
from exporter.collectors import preparation_release
from exporter.collectors.node_runs import ListedRuns

FLOOR = 8.0
"""Times less CPU of a record than Microsoft's client with gauges."""

BYTES_FLOOR = 300
"""Bytes of a record that is known."""

ON_A_PAGE = 1000
START = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)

WARM_UP = 4
"""Polls by changes until one reads as much as any later one, because they overlap."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="of each way (default: %(default)s)")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--small", action="store_true", help="a tenth of all, three rounds")
    options = parser.parse_args()
    size, rounds = (10, 3) if options.small else (1, options.rounds)
    if options.memory:
        print(grown(options.memory))
        return
    compare_listings(50 // size, rounds)
    compare_changes(100_000 // size, rounds)
    tell_memory(1_000_000 // size)


def compare_listings(jobs: int, rounds: int) -> None:
    """The CPU of a record in a first listing, and in one that finds a few changed."""
    first: dict[str, list[float]] = {"SDK": [], "exporter": []}
    again: dict[str, list[float]] = {"SDK": [], "exporter": []}
    with ExitStack() as stack:
        world = stack.enter_context(Process("benchmarks.simulator", "records", f"--size={jobs}"))
        account = f"--account={json.dumps(world.ready)}"
        theirs = Process("benchmarks.sdk_collector", "records", account, python=sdk_python())
        ours = Process("benchmarks.our_collector", "preparation_release", account)
        sides = {
            "SDK": stack.enter_context(theirs),
            "exporter": stack.enter_context(ours),
        }
        for side in sides.values():
            side.ask("poll")  # the warm-up
        for _ in range(rounds):
            for name, side in sides.items():
                side.ask("forget")
                first[name].append(side.ask("poll")["cpu"])
            world.ask("minute")
            for name, side in sides.items():
                again[name].append(side.ask("poll")["cpu"])
        shown = [side.ask("shown")["total"] for side in sides.values()]
        assert shown[0] == shown[1] > 0, shown  # both have read the same
    print(f"{jobs} jobs, each prepared on {NODES} nodes, listed in full: CPU µs a record\n")
    head("listing", "SDK and gauges", "this exporter", "less", "floor", "holds")
    for name, found in (("first", first), ("again, about 1 % changed", again)):
        sdk, exporter = (median(costs) / jobs / NODES * 1e6 for costs in found.values())
        row(
            name,
            f"{sdk:.1f}",
            f"{exporter:.1f}",
            less(sdk, exporter),
            f"≥ {FLOOR:g}x",
            verdict(sdk >= FLOOR * exporter),
        )
    print(flush=True)


def compare_changes(records: int, rounds: int) -> None:
    """A poll by changes, by one that lists all."""
    print(f"One job with {records} records, about 1 % changed from poll to poll\n")
    head("collector", "CPU ms, full", "CPU ms, changes", "less", "kB, full", "kB, changes")
    for collector, kind in (("preparation_release", "nodes"), ("tasks", "tasks")):
        cpu: dict[str, list[float]] = {"full": [], "changes": []}
        read: dict[str, list[float]] = {"full": [], "changes": []}
        with ExitStack() as stack:
            world = stack.enter_context(Process("benchmarks.simulator", kind, f"--size={records}"))
            account = f"--account={json.dumps(world.ready)}"
            sides = {
                name: stack.enter_context(
                    Process("benchmarks.our_collector", collector, account, f"--resync={resync}")
                )
                for name, resync in (("full", "0s"), ("changes", "1d"))
            }
            for number in range(WARM_UP + rounds):
                for name, side in sides.items():
                    world.ask("requests")
                    spent = side.ask("poll")["cpu"]
                    if number >= WARM_UP:
                        cpu[name].append(spent * 1000)
                        read[name].append(world.ask("requests")["bytes"] / 1000)
                shown = [side.ask("shown")["known"] for side in sides.values()]
                assert shown[0] == shown[1] != [], f"reading by changes missed something: {shown}"
                for process in (world, *sides.values()):
                    process.ask("minute")
        full, changes = median(cpu["full"]), median(cpu["changes"])
        sizes = [f"{median(found):.0f}" for found in read.values()]
        row(collector, f"{full:.0f}", f"{changes:.1f}", less(full, changes), *sizes)
    print(flush=True)


def tell_memory(records: int) -> None:
    """What a process of its own takes more for each record that it knows."""
    command = [sys.executable, "-m", "benchmarks.node_records", f"--memory={records}"]
    given = subprocess.run(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True, check=True
    )
    found = float(given.stdout) / records
    head(f"{records} preparation records, ids of 72 characters", "measured", "floor", "holds")
    row("bytes a record", f"{found:.0f}", f"≤ {BYTES_FLOOR}", verdict(found <= BYTES_FLOOR))
    print(flush=True)


def grown(records: int) -> float:
    """Bytes of resident memory more, while the records are known."""
    folded(ON_A_PAGE)  # what the first page loads is not the records'
    gc.collect()
    before, _ = resident(os.getpid())
    known = folded(records)
    gc.collect()
    after, _ = resident(os.getpid())
    assert known is not None
    return (after - before) * MIB


def folded(records: int) -> object:
    """What the collector keeps of them."""
    listing = preparation_release.Listing(ListedRuns)
    for page in pages_of(records):
        preparation_release.add_page(listing, page.value, Spellings(), set())
    reading = preparation_release.Reading("pool-1", listing)
    return preparation_release.fold(None, reading, 0.0, False).state


def pages_of(records: int) -> Iterator[Page[NodeTaskStatus]]:
    """Decoded pages, as the service sends them, of nodes prepared one after the other."""
    random = Random(1)
    decoder = msgspec.json.Decoder(Page[NodeTaskStatus], strict=False)
    for first in range(0, records, ON_A_PAGE):
        page = [record(random, number) for number in range(first, first + ON_A_PAGE)]
        yield decoder.decode(msgspec.json.encode({"value": page}))


def record(random: Random, number: int) -> dict[str, object]:
    """One record on the wire."""
    start = START + dt.timedelta(seconds=number, microseconds=random.randrange(1_000_000))
    return {
        "poolId": "pool-1",
        "nodeId": f"tvmps_{random.getrandbits(256):064x}_d",
        "jobPreparationTaskExecutionInfo": {
            "startTime": start,
            "endTime": start + dt.timedelta(seconds=random.uniform(5, 60)),
            "state": "completed",
            "exitCode": 0,
            "result": "success",
            "retryCount": 0,
        },
    }


if __name__ == "__main__":
    main()
