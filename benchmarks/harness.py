"""What the benchmarks share: processes, the CPU time and memory that they take, and tables.

The SDK's environment imports this too, so it needs the standard library alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent

SDK = "sdk-15.1.0"
"""The environment with Microsoft's client and prometheus_client, which is installed in .cache/."""

PYTHON = sys.executable

KEY_VARIABLE = "BENCHMARK_KEY"
"""The environment variable in which the exporter finds the account's key."""

MIB = 1024 * 1024

DEADLINE = 900.0
"""Seconds after its start at which a server that does not answer is given up."""


def sdk_python() -> str:
    """The interpreter of the SDK's environment; ends the program where there is none."""
    found = ROOT / ".cache" / SDK / "bin" / "python"
    if not os.access(found, os.X_OK):
        note = found.parent.parent.with_suffix(".0.unavailable")
        reason = note.read_text().strip() if note.exists() else "`make bench` installs it"
        sys.exit(f"no {found.relative_to(ROOT)}: {reason}")
    return str(found)


class Process:
    """A module of benchmarks/ as a process that answers each line with a line of JSON."""

    def __init__(
        self,
        module: str,
        *arguments: str,
        python: str = PYTHON,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._name = module
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments],
            cwd=ROOT,
            env=environment(variables),
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


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process that imports this source tree."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **(more or {})}


class Server(NamedTuple):
    """A started server. `started`: the time of its start, by time.monotonic()."""

    process: subprocess.Popen[bytes]
    url: str
    started: float

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self.process.pid

    def wait_for(self, path: str, pause: float = 0.1) -> float:
        """Wait until the path answers with 200; the seconds since the start of the process.

        `pause`: seconds between two attempts, each of which costs the server a request.
        """
        while not answers(self.url + path):
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}"
            assert time.monotonic() < self.started + DEADLINE, f"{path} is not answered"
            time.sleep(pause)
        return time.monotonic() - self.started


@contextmanager
def serving(command: Sequence[str], variables: Mapping[str, str]) -> Iterator[Server]:
    """A server as a process; PORT in its arguments stands for a free port."""
    port = free_port()
    started = time.monotonic()
    process = subprocess.Popen(
        [each.replace("PORT", str(port)) for each in command],
        cwd=ROOT,
        env=environment(variables),
        stdout=subprocess.DEVNULL,
    )
    try:
        yield Server(process, f"http://127.0.0.1:{port}", started)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def exporting(
    account: Mapping[str, Any],
    defaults: Mapping[str, object],
    settings: Mapping[str, object],
    module: str = "exporter",
    variables: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """The exporter as its command runs it, for one simulated account.

    `account`: what the simulation said of itself. `settings`: more keys of the account.
    """
    auth = {"method": "shared_key", "key_env": KEY_VARIABLE}
    named = {"name": account["account"], "endpoint": account["endpoint"], "auth": auth}
    config = {"defaults": defaults, "accounts": [{**named, **settings}]}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(json.dumps(config))
        command = [
            *(PYTHON, "-m", module, "run", f"--config.file={file}"),
            *("--web.listen-address=127.0.0.1:PORT", "--log.level=error"),
        ]
        given = {KEY_VARIABLE: account["key"], **trust(account), **(variables or {})}
        with serving(command, given) as server:
            yield server


def trust(account: Mapping[str, Any]) -> dict[str, str]:
    """The environment variables with which a process trusts a simulated account."""
    return {"SSL_CERT_FILE": account["trust"]} if account.get("trust") else {}


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def answers(url: str) -> bool:
    """Whether the URL answers with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


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
    """Resident memory of a process in MiB, now and at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    now, most = (int(found[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
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


def less(theirs: float, ours: float) -> str:
    """How many times less ours is."""
    return f"{theirs / ours:.{0 if theirs > 100 * ours else 1}f}x"


def verdict(holds: bool) -> str:
    """What the last column says of a floor."""
    return "yes" if holds else "NO"
