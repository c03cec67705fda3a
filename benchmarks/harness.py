"""Processes that take turns at something, what that costs them, and tables of it.

Whoever runs in an environment of its own imports this, so it needs the standard library alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parent.parent

SDK = "sdk-15.1.0"
"""The environment with Microsoft's client and prometheus_client, which is installed in .cache/."""

PYTHON = sys.executable


def sdk_python() -> str:
    """The interpreter of the SDK's environment; ends the program where there is none."""
    found = ROOT / ".cache" / SDK / "bin" / "python"
    if not os.access(found, os.X_OK):
        note = found.parent.parent.with_suffix(".0.unavailable")
        reason = note.read_text().strip() if note.exists() else "`make bench` installs it"
        sys.exit(f"no {found.relative_to(ROOT)}: {reason}")
    return str(found)


class Process:
    """A module of ours as a process that answers each line with a line of JSON."""

    def __init__(self, module: str, *arguments: str, python: str = PYTHON) -> None:
        self._name = module
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ready = self._read()

    @property
    def pid(self) -> int:
        """The process' id."""
        return self._process.pid

    def ask(self, command: str) -> dict[str, Any]:
        """What it answers."""
        self.tell(command)
        return self._read()

    def tell(self, command: str) -> None:
        """Do not wait for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._name} ended with {self._process.wait()}")
        return dict(json.loads(line))

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()  # it ends with its last line
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def environment() -> dict[str, str]:
    """The environment of a process that imports this source tree, wherever it runs."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


async def answer(
    turn: Callable[[str], Awaitable[Mapping[str, Any]]], ready: Mapping[str, Any] | None = None
) -> None:
    """Be such a process: `turn` for each line, its CPU time in seconds added to what it gives."""
    print(json.dumps(ready or {}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        before = resource.getrusage(resource.RUSAGE_SELF)
        given = await turn(line.strip())
        after = resource.getrusage(resource.RUSAGE_SELF)
        user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
        print(json.dumps({"cpu": user + system, "system": system, **given}), flush=True)


def resident(pid: int) -> tuple[float, float]:
    """Resident memory of a process in MB, now and at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    now, most = (int(found[name].split()[0]) / 1000 for name in ("VmRSS", "VmHWM"))
    return now, most


def cpu_of(pid: int) -> float:
    """Seconds of CPU, user and system, that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_of_all() -> float:
    """Seconds of CPU that all processes of the machine have used, and its host has kept."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _waiting, *others = map(int, fields)
    return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")


def median(figures: Iterable[float]) -> float:
    """The middle one; nan where there is none."""
    given = list(figures)
    return statistics.median(given) if given else float("nan")


def head(*columns: str) -> None:
    """Print the head of a table."""
    row(*columns)
    print("|" + "---|" * len(columns), flush=True)


def row(*cells: str) -> None:
    """Print a row of a table."""
    print("| " + " | ".join(cells) + " |", flush=True)


def compared(what: str, baseline: Sequence[float], ours: Sequence[float]) -> None:
    """Print a row with both medians and how many times less ours is."""
    theirs, own = median(baseline), median(ours)
    row(what, f"{theirs:.1f}", f"{own:.1f}", f"{theirs / own:.1f}")
