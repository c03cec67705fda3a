"""A simulator that shares code with the client proves nothing about it."""

import ast
import sys
from pathlib import Path

import pytest

import exporter.simulator

SOURCES = sorted(Path(exporter.simulator.__file__).parent.rglob("*.py"))


def imported(source: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_the_simulator_imports_no_other_part_of_the_exporter(source: Path) -> None:
    foreign = {name for name in imported(source) if name.startswith("exporter")}
    assert all(name.startswith("exporter.simulator") for name in foreign)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_the_simulator_needs_nothing_but_aiohttp_and_cryptography(source: Path) -> None:
    outside = {name.partition(".")[0] for name in imported(source)} - sys.stdlib_module_names
    assert outside <= {"exporter", "aiohttp", "cryptography"}


def test_modules_stay_short() -> None:
    lengths = {source.name: len(source.read_text().splitlines()) for source in SOURCES}
    assert max(lengths.values()) <= 330, lengths
