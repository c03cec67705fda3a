"""Programs that tests run, and that `make test` and `make test-all` install below .cache/."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from tools.install_test_tools import BASIC

CACHE = Path(__file__).parent.parent / ".cache"


OLD, NEW = "debian", "debian-newest"
"""Programs of the Prometheus project in the versions that many run, and in the newest."""


def find_tool(name: str, release: str = OLD) -> Path:
    """A program such as promtool; where it cannot be had the test is skipped, or fails in CI."""
    return find(release, f"usr/bin/{name}")


def sdk_python(version: str) -> Path:
    """The interpreter of an environment with azure-batch of this version."""
    return find(f"sdk-{version}", "bin/python")


def browser() -> Path:
    """A Chromium without a window."""
    return find("chromium", "chromium")


def browser_packages() -> Path:
    """Where the packages are that drive a browser, for this Python."""
    python = find("browser", "bin/python")
    (found,) = (python.parent.parent / "lib").glob("python*/site-packages")
    return found


def openapi_python() -> Path:
    """The interpreter of an environment with checkers of OpenAPI."""
    return find("openapi", "bin/python")


def linters_python() -> Path:
    """The interpreter of the environment with checkov, kubernetes-validate and their like."""
    return find("linters", "bin/python")


def sbom_python() -> Path:
    """The interpreter of the environment with cyclonedx-py."""
    return find("sbom", "bin/python")


def helm(major: int) -> Path:
    """Helm of this major version."""
    return find(f"helm-{major}", "bin/helm")


def docker_compose() -> Path:
    """Compose, version 2."""
    return find("compose", "docker-compose")


def systemd_analyze() -> Path:
    """systemd-analyze."""
    return find("systemd", "systemd-analyze")


def find_command(name: str) -> Path:
    """A program that most machines have, such as jq."""
    found = shutil.which(name)
    if found is None:
        missing(f"{name} is not on PATH")
    return Path(found)


def find(tool: str, program: str, cache: Path = CACHE) -> Path:
    """A program of an installed tool.

    Nothing is taken from PATH here: the installer has judged what is there, and linked to it.
    """
    found = cache / tool / program
    if not os.access(found, os.X_OK):
        note = cache / f"{tool}.unavailable"
        is_basic = any(tool == each.name for each in BASIC)
        command = "make test" if is_basic else "make test-all"
        reason = note.read_text().strip() if note.exists() else f"`{command}` installs it"
        missing(f"{found.name} of {tool} is missing: {reason}")
    return found


def missing(why: str) -> NoReturn:
    """Skip the test, or fail in CI, where nothing may be left out."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)
