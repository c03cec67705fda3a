"""Programs that tests use and that `make test` installs below .cache/."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

CACHE = Path(__file__).parent.parent / ".cache"


def find_tool(name: str) -> Path:
    """A program such as promtool; the test is skipped where it cannot be had, or fails in CI."""
    installed = CACHE / "debian" / "usr" / "bin" / name
    found = installed if installed.exists() else shutil.which(name)
    if found is None:
        _missing(name, "debian")
    return Path(found)


def sdk_python(version: str) -> Path:
    """The interpreter of an environment with azure-batch of this version."""
    python = CACHE / f"sdk-{version}" / "bin" / "python"
    if not python.exists():
        _missing(f"azure-batch {version}", f"sdk-{version}")
    return python


def _missing(what: str, tool: str) -> NoReturn:
    note = CACHE / f"{tool}.unavailable"
    reason = note.read_text().strip() if note.exists() else "run make test, which installs it"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing: {reason}")
    pytest.skip(f"{what} is missing: {reason}")
