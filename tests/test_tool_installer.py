"""The installer of the programs that tests run, and how a test finds them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import tools
from tools import install_test_tools
from tools.install_test_tools import Tool, Unavailable, ensure, install, run

INSTALLER = Path(install_test_tools.__file__)


class Installs:
    """A way to install a tool that fails as often as it has errors; `folders`: where it did."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.folders: list[Path] = []

    def __call__(self, folder: Path) -> None:
        assert list(folder.iterdir()) == []
        self.folders.append(folder)
        (folder / "program").touch(mode=0o755)
        if self.errors:
            raise self.errors.pop(0)


def tool(installs: Callable[[Path], None], name: str = "tool", key: str = "1") -> Tool:
    return Tool(name, key, ("program",), installs)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_tool_is_installed_once(tmp_path: Path) -> None:
    installs = Installs()
    assert ensure(tool(installs), tmp_path) is None
    assert ensure(tool(installs), tmp_path) is None
    assert len(installs.folders) == 1
    assert (tmp_path / "tool" / "program").exists()


def test_a_tool_of_another_version_or_with_a_program_gone_is_installed_again(
    tmp_path: Path,
) -> None:
    ensure(tool(Installs()), tmp_path)
    installs = Installs()
    newer = tool(installs, key="2")
    assert ensure(newer, tmp_path) is None
    assert len(installs.folders) == 1
    (tmp_path / "tool" / "program").unlink()
    assert ensure(newer, tmp_path) is None
    assert len(installs.folders) == 2
    assert (tmp_path / "tool" / "program").exists()


@pytest.mark.parametrize(
    ("error", "reason", "tries"),
    [
        (Unavailable("no apt-get here"), "no apt-get here", 1),
        (PermissionError("no"), "PermissionError: no", 2),
        (KeyError("layer"), "KeyError: 'layer'", 2),
        (
            subprocess.CalledProcessError(100, ["/usr/bin/apt-get"], output="E: no network\n"),
            "apt-get ended with 100: E: no network",
            2,
        ),
    ],
    ids=["unavailable", "not permitted", "unexpected", "command fails"],
)
def test_a_tool_that_cannot_be_installed_leaves_its_reason_and_nothing_incomplete(
    tmp_path: Path, error: Exception, reason: str, tries: int
) -> None:
    installs = Installs(error, error)
    assert ensure(tool(installs), tmp_path) == reason
    assert len(installs.folders) == tries
    assert names(tmp_path) == ["tool.unavailable"]
    assert (tmp_path / "tool.unavailable").read_text() == reason + "\n"


def test_the_second_try_has_a_folder_of_its_own(tmp_path: Path) -> None:
    installs = Installs(subprocess.TimeoutExpired("apt-get", 240))
    assert ensure(tool(installs), tmp_path) is None
    first, second = installs.folders
    assert first != second
    assert names(tmp_path / "tool") == [".installed", "program"]


def test_the_reason_is_removed_when_the_tool_is_installed(tmp_path: Path) -> None:
    ensure(tool(Installs(Unavailable("not today"))), tmp_path)
    ensure(tool(Installs()), tmp_path)
    assert names(tmp_path) == ["tool"]


def test_a_tool_that_fails_in_an_unexpected_way_does_not_keep_the_others_from_being_installed(
    tmp_path: Path,
) -> None:
    error = AssertionError("a layout that nobody expected")
    both = (tool(Installs(error, error), "broken"), tool(Installs(), "sound"))
    assert install(both, tmp_path) == {"broken": "AssertionError: a layout that nobody expected"}
    assert names(tmp_path) == [".lock", "broken.unavailable", "sound"]


def test_a_run_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    (tmp_path / "tool.new-x" / "1" / "tool").mkdir(parents=True)
    install((tool(Installs()),), tmp_path)
    assert names(tmp_path) == [".lock", "tool"]


def test_a_command_that_does_not_end_in_time_is_killed_with_all_that_it_started(
    tmp_path: Path,
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    grandchild = f"while echo still here; do sleep 0.01; done > {pipe}"
    with pytest.raises(subprocess.TimeoutExpired):
        run("sh", "-c", f"sh -c '{grandchild}' & wait", timeout=1.0)
    os.set_blocking(reader, True)
    with os.fdopen(reader) as left:
        left.read()  # ends when nobody has the pipe open for writing


def test_a_command_that_fails_says_what_it_printed() -> None:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        run("sh", "-c", "echo one; echo two >&2; exit 3")
    assert (raised.value.returncode, raised.value.output) == (3, "one\ntwo\n")


@pytest.mark.parametrize("arguments", [(), ("basics",), ("basic", "--quick"), ("all", "helm")])
def test_unknown_arguments_are_refused(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, INSTALLER, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("usage: install_test_tools.py")


@pytest.mark.parametrize(
    ("ci", "outcome"),
    [("true", pytest.fail.Exception), ("", pytest.skip.Exception)],
    ids=["in CI", "elsewhere"],
)
def test_a_test_whose_tool_is_missing_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    (tmp_path / "debian.unavailable").write_text("no apt-get here\n")
    with pytest.raises(outcome, match="promtool of debian is missing: no apt-get here"):
        tools.find("debian", "usr/bin/promtool", cache=tmp_path)


def test_a_test_finds_what_was_installed(tmp_path: Path) -> None:
    python = tmp_path / "sdk-15.1.0" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch(mode=0o755)
    assert tools.find("sdk-15.1.0", "bin/python", cache=tmp_path) == python
