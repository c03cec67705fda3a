"""What is shipped: lock files, wheel and image."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT: dict[str, Any] = PYPROJECT["project"]

LOCKS = [
    *ROOT.glob("requirements*.lock"),
    *ROOT.glob("tests/*-requirements/*.lock"),
    *(ROOT / "tests" / "deploy").glob("*.lock"),
]


def pins(lock: Path) -> dict[str, Requirement]:
    """The requirements of a lock file by name."""
    lines = re.findall(r"^([\w.-]+==.*?) \\$", lock.read_text(), re.MULTILINE)
    return {canonicalize_name(pin.name): pin for pin in map(Requirement, lines)}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_file_holds_pins_with_hashes_and_says_nothing_of_an_index(lock: Path) -> None:
    lines = [line for line in lock.read_text().splitlines() if not line.lstrip().startswith("#")]
    entries = re.split(r"\n(?=\S)", "\n".join(lines))
    assert len(entries) >= 3
    for entry in entries:
        assert re.fullmatch(
            r"[a-z][\w.-]*==[\w.]+( ; [^\\\n]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+", entry
        )


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("requirements.lock", PROJECT["dependencies"]),
        ("requirements-dev.lock", PROJECT["dependencies"]),
        ("requirements-dev.lock", PROJECT["optional-dependencies"]["dev"]),
        ("requirements-build.lock", PYPROJECT["build-system"]["requires"]),
    ],
    ids=["runtime", "runtime in dev", "dev", "build"],
)
def test_what_pyproject_asks_for_is_locked_at_a_version_that_satisfies_it(
    lock: str, wanted: list[str]
) -> None:
    locked = pins(ROOT / lock)
    for requirement in map(Requirement, wanted):
        pin = locked[canonicalize_name(requirement.name)]
        (specifier,) = pin.specifier
        assert requirement.specifier.contains(specifier.version), (
            f"{lock} has {pin}, but pyproject.toml asks for {requirement}: run `make lock`"
        )


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-build.lock"])
def test_what_is_tested_is_what_is_shipped(name: str) -> None:
    tested = pins(ROOT / "requirements-dev.lock")
    for package, pin in pins(ROOT / name).items():
        assert str(tested[package]) == str(pin), (
            f"requirements-dev.lock and {name} differ: run `make lock`"
        )


def instructions() -> list[tuple[str, str]]:
    """(name, arguments) of each instruction of the Dockerfile, continued lines joined."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    split = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(name, " ".join(arguments.split())) for name, arguments in split]


def last(name: str) -> str:
    return [arguments for found, arguments in instructions() if found == name][-1]


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, "--failure-threshold=style", ROOT / "Dockerfile"], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_the_base_image_can_be_chosen_and_is_the_same_for_both_stages() -> None:
    assert instructions()[0][0] == "ARG"
    assert instructions()[0][1].startswith("PYTHON_IMAGE=")
    assert [arguments.split()[0] for name, arguments in instructions() if name == "FROM"] == [
        "${PYTHON_IMAGE}",
        "${PYTHON_IMAGE}",
    ]


def test_the_image_runs_as_a_number_that_is_not_root() -> None:
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", last("USER"))


def test_the_image_needs_no_shell_to_run() -> None:
    program = list(PROJECT["scripts"])
    assert json.loads(last("ENTRYPOINT")) == program
    assert json.loads(last("CMD"))[0] == "run"
    command = last("HEALTHCHECK").partition(" CMD ")[2]
    assert json.loads(command) == [*program, "healthcheck"]


def test_the_image_fetches_nothing_without_a_hash() -> None:
    text = " && ".join(arguments for name, arguments in instructions() if name == "RUN")
    installs = [
        command for command in text.split(" && ") if re.search(r"pip\S* .*(ins|whe)", command)
    ]
    assert len(installs) == 4
    for command in installs:
        assert "--require-hashes" in command or "--no-index" in command
    assert not re.search(r"\b(curl|wget|apt-get|apk)\b", text)


def test_the_image_is_labelled() -> None:
    labels = re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]+)"', last("LABEL"))
    assert [name for name, _ in labels] == [
        *("title", "description", "version", "revision", "created", "source", "url"),
        *("documentation", "licenses", "vendor"),
    ]
    assert dict(labels)["title"] == PROJECT["name"]
    assert dict(labels)["licenses"] == PROJECT["license"]


def copied() -> list[str]:
    """What the Dockerfile takes from the build context."""
    copies = [arguments for name, arguments in instructions() if name == "COPY"]
    return [
        source
        for arguments in copies
        if not arguments.startswith("--from=")
        for source in arguments.split()[:-1]
    ]


def test_the_build_context_is_what_the_dockerfile_copies_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if not line.startswith("#")]
    assert patterns[0] == "*"
    assert sorted(pattern for pattern in patterns if pattern[0] == "!") == sorted(
        f"!{source}" for source in copied()
    )


def test_the_wheel_made_from_the_build_context_holds_the_package_and_nothing_else(
    tmp_path: Path,
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    for source in copied():
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, context / source)
        else:
            shutil.copy(ROOT / source, context / source)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target=wheel", f"--directory={tmp_path}"],
        cwd=context,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    files = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    ours = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "exporter").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert files == ours
    assert "exporter/py.typed" in files
