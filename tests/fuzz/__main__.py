"""The long run: each target for its share of the time, in a process of its own.

With atheris (the extra `fuzz`) guided by coverage; without it, by chance around what is kept. An
input that crashes is written to the corpus, so that `make test` fails until the defect is gone.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

# Code is instrumented when it is imported: what is to be watched must come after this.
try:
    import atheris
except ImportError:
    atheris = None
if atheris is not None:
    with atheris.instrument_imports(include=["exporter"]):
        from tests.fuzz.targets import CORPUS, TARGETS, corpus
else:
    from tests.fuzz.targets import CORPUS, TARGETS, corpus
from tests.fuzz.mutation import mutate

FOUND = Path(".cache") / "fuzz"
"""Inputs that reached something new are kept here from one run to the next."""

MAX_INPUT = 16_384


def main() -> int:
    """Run the targets one after the other. Exit status 1: something crashed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*", default=list(TARGETS), metavar="TARGET")
    options = parser.parse_args()
    if options.here:
        (name,) = options.targets
        return _run(name, options.seconds)
    share = max(1, options.seconds // len(options.targets))
    failed = []
    for name in options.targets:
        print(f"== {name}: {share} s, {'atheris' if atheris else 'by chance'}", flush=True)
        command = [sys.executable, "-m", "tests.fuzz", "--here", f"--seconds={share}", name]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    crashes = [file for name in TARGETS for file in (CORPUS / name).glob("crash-*")]
    print("crashes:", *crashes or ["none"], "; failed:", *failed or ["none"])
    return 1 if failed or crashes else 0


def _run(name: str, seconds: int) -> int:
    logging.disable()  # failures of tasks are told in the log
    target = _recorded(name)
    if atheris is None:
        executions, end, kept = 0, time.monotonic() + seconds, corpus(name)
        while time.monotonic() < end:
            target(mutate(random.choice(kept), random.Random()))
            executions += 1
        print(f"Done {executions} runs")
        return 0
    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)

    def mutator(data: bytes, size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.5:
            return mutate(data, chance)[:size]
        return bytes(atheris.Mutate(data, size))

    flags = (
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT}",
        "-timeout=20",
        "-print_final_stats=1",
        "-verbosity=0",
        f"-artifact_prefix={CORPUS / name}/crash-",
    )
    atheris.Setup(
        [sys.argv[0], *flags, str(found), str(CORPUS / name)], target, custom_mutator=mutator
    )
    atheris.Fuzz()
    return 0


def _recorded(name: str) -> Callable[[bytes], None]:
    """The target, which writes what crashes to the corpus, once for each place, and goes on."""
    seen = set()

    def run(data: bytes) -> None:
        try:
            TARGETS[name](data)
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            frames = traceback.extract_tb(error.__traceback__)
            place = (type(error), frames[-1].filename, frames[-1].lineno)
            if place not in seen:
                seen.add(place)
                digest = hashlib.sha256(data).hexdigest()[:12]
                (CORPUS / name / f"crash-{digest}").write_bytes(data)
                traceback.print_exc(limit=-6)

    return run


if __name__ == "__main__":
    sys.exit(main())
