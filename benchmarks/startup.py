"""Time from the command to the first answer, and memory, against the least that one could write.

That is a process which imports Microsoft's client and prometheus_client, and serves /metrics
without a poll. Ours is whole: `run` with an account that it begins to poll. Both are started in
turns. What is waited is real time; CPU time beside it says whether the machine was idle.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import (
    PYTHON,
    ROOT,
    Process,
    cpu_of,
    environment,
    head,
    median,
    resident,
    row,
    sdk_python,
)

KEY_VARIABLE = "BENCHMARK_KEY"
IDLE = 2.0
"""Seconds after the first answer at which memory is looked at."""

DEADLINE = 30.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="starts (default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="three rounds")
    options = parser.parse_args()
    rounds = 3 if options.small else options.rounds
    # What Python compiles is there from then on, in an installation as well.
    found: dict[str, list[Start]] = {}
    with (
        Process("benchmarks.simulator", "steady", "--speed=1") as world,
        tempfile.TemporaryDirectory() as folder,
    ):
        config = Path(folder) / "config.yaml"
        config.write_text(json.dumps(config_of(world.ready)))
        for number in range(rounds + 1):
            for name, command, path in commands(world.ready, config):
                port = free_port()
                given = [each.replace("PORT", str(port)) for each in command]
                start = first_answer(given, f"http://127.0.0.1:{port}{path}", world.ready)
                if number:  # the first fills the caches
                    found.setdefault(name, []).append(start)
            for name, given in (
                ("--version", [PYTHON, "-m", "exporter", "--version"]),
                ("Python alone", [PYTHON, "-c", "pass"]),
            ):
                start = whole(given)
                if number:
                    found.setdefault(name, []).append(start)
    head("started", "ms to the first answer, or the end", "of it CPU", "MB when idle", "MB at most")
    for name, starts in found.items():
        seconds, cpu, idle, most = (median(column) for column in zip(*starts, strict=True))
        memory = (f"{idle:.0f}", f"{most:.0f}") if most else ("", "")
        row(name, f"{seconds * 1000:.0f}", f"{cpu * 1000:.0f}", *memory)
    print(flush=True)


class Start(NamedTuple):
    """Seconds to the first answer, real and of CPU; MB when idle and at most."""

    seconds: float
    cpu: float
    idle: float = 0.0
    most: float = 0.0


def commands(account: Mapping[str, str], config: Path) -> list[tuple[str, list[str], str]]:
    """Name, command and the path that answers when it is up."""
    listen = "--web.listen-address=127.0.0.1:PORT"
    exporter = [PYTHON, "-m", "exporter"]
    sdk = [sdk_python(), "-m", "benchmarks.sdk_collector", "counts"]
    return [
        (
            "SDK and gauges, /metrics",
            [*sdk, f"--account={json.dumps(dict(account))}", "--port=PORT"],
            "/metrics",
        ),
        (
            "this exporter, run, /-/healthy",
            [*exporter, "run", f"--config.file={config}", listen],
            "/-/healthy",
        ),
        ("this exporter, demo, /-/healthy", [*exporter, "demo", listen], "/-/healthy"),
    ]


def config_of(account: Mapping[str, str]) -> dict[str, object]:
    """The least that a configuration has."""
    auth = {"method": "shared_key", "key_env": KEY_VARIABLE}
    named = {"name": account["account"], "endpoint": account["endpoint"], "auth": auth}
    return {"accounts": [named]}


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def first_answer(command: list[str], url: str, account: Mapping[str, str]) -> Start:
    """What it takes until the URL answers, and the memory of the process a while after that."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**environment(), KEY_VARIABLE: account["key"]},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not answers(url):
            assert process.poll() is None, f"{command} ended with {process.returncode}"
            assert time.perf_counter() - started < DEADLINE, f"{command} does not answer"
            time.sleep(0.002)
        taken, cpu = time.perf_counter() - started, cpu_of(process.pid)
        time.sleep(IDLE)
        return Start(taken, cpu, *resident(process.pid))
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    """Whether the URL answers with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def whole(command: list[str]) -> Start:
    """What a command takes to its end."""
    started, before = time.perf_counter(), os.times()
    subprocess.run(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, check=True)
    taken, after = time.perf_counter() - started, os.times()
    first, last = (times.children_user + times.children_system for times in (before, after))
    return Start(taken, last - first)


if __name__ == "__main__":
    main()
