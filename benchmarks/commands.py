"""CPU of short commands, and what `run` takes until it answers.

`--version`, `--help` and `healthcheck` are whole processes: user and system time from start to
end. Beside them stand Python alone, and a health check of one line of Python. `run` polls a small
account; beside it stands what one would write instead, a process that imports Microsoft's client
and prometheus_client and serves its metrics without a poll.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from typing import NamedTuple

from benchmarks.harness import (
    PYTHON,
    ROOT,
    Process,
    Server,
    cpu_of,
    environment,
    exporting,
    head,
    median,
    resident,
    row,
    sdk_python,
    serving,
    verdict,
)

FLOOR = 0.1
"""Seconds of CPU of a short command."""

IDLE = 2.0
"""Seconds after the first answer at which memory is looked at."""


class Start(NamedTuple):
    """Seconds to the first answer, of these CPU, and MiB when idle."""

    seconds: float
    cpu: float
    idle: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="(default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="three rounds")
    options = parser.parse_args()
    rounds = 3 if options.small else options.rounds
    with Process("benchmarks.simulator", "steady", "--speed=1") as world:
        with exporting(world.ready, {}, {}) as server:
            server.wait_for("/-/healthy")
            compare_commands(f"{server.url}/-/healthy", rounds)
        compare_starts(world, rounds)


def compare_commands(url: str, rounds: int) -> None:
    """The CPU of each command; `url` is what the health check asks."""
    ours = [PYTHON, "-m", "exporter"]
    commands = {
        "--version": [*ours, "--version"],
        "--help": [*ours, "--help"],
        "healthcheck": [*ours, "healthcheck", f"--url={url}"],
        "Python alone": [PYTHON, "-c", "pass"],
        "urllib.request.urlopen": [
            *(PYTHON, "-c", "import sys, urllib.request as r; r.urlopen(sys.argv[1])", url)
        ],
    }
    costs: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            spent = cpu_of_command(command)
            if number:  # the first time Python compiles what it imports
                costs[name].append(spent)
    head("command", "CPU s", "floor", "holds")
    for name, found in costs.items():
        spent = median(found)
        is_ours = commands[name][:3] == ours
        floor = (f"≤ {FLOOR}", verdict(spent <= FLOOR)) if is_ours else ("", "")
        row(name, f"{spent:.3f}", *floor)
    print(flush=True)


def cpu_of_command(command: list[str]) -> float:
    """Seconds of CPU, user and system, of a command."""
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return used.ru_utime + used.ru_stime


def compare_starts(world: Process, rounds: int) -> None:
    """From the start of a server to its first answer, in turns."""
    account = f"--account={json.dumps(world.ready)}"
    theirs = [sdk_python(), "-m", "benchmarks.sdk_collector", "counts", account, "--port=PORT"]
    found: dict[str, list[Start]] = {"SDK and gauges, /metrics": [], "run, /-/healthy": []}
    for _ in range(rounds):
        with serving(theirs, {}) as server:
            found["SDK and gauges, /metrics"].append(first_answer(server, "/metrics"))
        with exporting(world.ready, {}, {}) as server:
            found["run, /-/healthy"].append(first_answer(server, "/-/healthy"))
    head("started", "s to the first answer", "of these CPU", "MiB when idle")
    for name, starts in found.items():
        seconds, cpu, idle = (median(column) for column in zip(*starts, strict=True))
        row(name, f"{seconds:.2f}", f"{cpu:.2f}", f"{idle:.0f}")
    print(flush=True)


def first_answer(server: Server, path: str) -> Start:
    """What it took until the path was answered."""
    seconds = server.wait_for(path, pause=0.005)
    cpu = cpu_of(server.pid)
    time.sleep(IDLE)
    return Start(seconds, cpu, resident(server.pid)[0])


if __name__ == "__main__":
    main()
