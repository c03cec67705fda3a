"""The container image, run as a cluster would run it: read-only, without capabilities, in 256 MB.

`make image-test` builds it and runs this; there is no engine wherever `make check` must pass.
From the environment: IMAGE; ENGINE (docker or podman); RUN_OPTIONS, where an engine needs more.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest

import exporter

IMAGE = os.environ.get("IMAGE", "")
ENGINE = os.environ.get("ENGINE", "")
OPTIONS = shlex.split(os.environ.get("RUN_OPTIONS", ""))

LOCKED_UP = (
    *("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
    *("--memory=256m", "--memory-swap=256m"),
)

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not IMAGE, reason="`make image-test` builds the image and runs it"),
]


@cache
def program() -> str:
    """As tools/build_image.sh chooses; what buildah built podman runs."""
    if ENGINE in ("", "buildah"):
        found = shutil.which("docker")
        answers = found and subprocess.run([found, "info"], capture_output=True, check=False)
        return "docker" if answers and answers.returncode == 0 and not ENGINE else "podman"
    return ENGINE


def engine(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program(), *arguments], capture_output=True, text=True, check=False)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return engine("run", "--rm", *LOCKED_UP, *OPTIONS, *arguments)


@contextmanager
def container(*command: str) -> Iterator[str]:
    """The id of a container that runs."""
    started = engine("run", "--detach", *LOCKED_UP, *OPTIONS, IMAGE, *command)
    assert started.returncode == 0, started.stderr
    name = started.stdout.strip()
    try:
        yield name
    finally:
        engine("rm", "--force", name)


def test_the_image_says_its_version_and_runs_as_nobody() -> None:
    said = run(IMAGE, "--version")
    assert said.stdout.startswith(f"azure-batch-exporter {exporter.__version__} (revision ")
    code = "import os; print(os.getuid(), os.getgid(), os.access('/', os.W_OK))"
    assert run("--entrypoint=python3", IMAGE, "-c", code).stdout == "65532 65532 False\n"


def test_without_a_configuration_it_says_what_is_missing() -> None:
    done = run(IMAGE)
    assert done.returncode == 2
    assert "/etc/azure-batch-exporter/config.yaml" in done.stderr


ASK = """
from urllib.request import urlopen
print(urlopen("http://127.0.0.1:10225/metrics").read().decode())
"""


def test_it_serves_read_only_without_capabilities_in_256_mb_and_ends_when_asked() -> None:
    with container("demo") as name:
        for _ in range(60):
            if engine("exec", name, "azure-batch-exporter", "healthcheck").returncode == 0:
                break
            time.sleep(0.5)
        else:
            pytest.fail(engine("logs", name).stderr)
        text = engine("exec", name, "python3", "-c", ASK).stdout
        assert 'azure_batch_up{account="simulated"}' in text
        assert engine("stop", "-t", "20", name).returncode == 0
        state = engine("inspect", "--format={{.State.ExitCode}} {{.State.OOMKilled}}", name)
        assert state.stdout == "0 false\n"
