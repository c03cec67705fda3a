"""Commands that pages show: each is run by a test, or says what it needs that is not here."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import yaml

from exporter.cli.parsing import parse
from exporter.config import loader
from exporter.service.service import FAMILIES
from tests.pages import PAGES, ROOT, RUNBOOKS, Block, blocks, inline
from tests.pages_run import NOT_RUN, STAGES, steps
from tests.tools import find_command

NEEDS = frozenset({"Azure", "Docker", "Kubernetes", "root"})
"""What commands may need that a test has not got."""

LANGUAGES = frozenset({"sh", "yaml", "ini", "promql", "text", "mermaid"})
"""What a block may be. One without a language is what the commands before it show."""

TARGETS = frozenset(re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
FOLDERS = frozenset(path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != ".")
FILES = frozenset(path.name for path in ROOT.iterdir() if path.is_file())


def commands(text: str) -> Iterator[list[str]]:
    """The simple commands of a shell's text, each as its words."""
    text = re.sub(r"<<'(\w+)'\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = text.replace("\\\n", " ")
    open_quote = ""
    for line in text.splitlines():
        lexer = shlex.shlex(open_quote + line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # it goes on in the next line
            open_quote += line + "\n"
            continue
        open_quote = ""
        command: list[str] = []
        for word in words:
            if set(word) <= set("();<>|&"):
                yield command
                command = []
            else:
                command.append(word)
        yield command
    assert not open_quote, text


def wrong(text: str, page: str) -> list[str]:
    """What commands name that there is not: flags, targets of make, files of the repository."""
    found = []
    for words in filter(None, commands(text)):
        program = words[0].rpartition("/")[2]
        if program == "azure-batch-exporter":
            try:
                parse(words[1:])
            except SystemExit as refused:
                if refused.code:
                    found.append(shlex.join(words))
        if program == "make" and words[1] not in TARGETS:
            found.append(f"no target {words[1]}")
        if words[:2] == ["make", "demo"]:
            arguments = [word.removeprefix("ARGS=") for word in words[2:]]
            found += wrong(shlex.join(["azure-batch-exporter", "demo", *arguments]), page)
        for part in (part for word in words for part in re.split("[=@]", word)):
            is_ours = part.partition("/")[0] in FOLDERS if "/" in part else part in FILES
            places = (ROOT, PAGES[page].parent)
            if is_ours and not any(any(place.glob(part)) for place in places):
                found.append(f"no file {part}")
    return found


PROGRAMS = frozenset(
    words[0]
    for page in PAGES
    for block in blocks(page)
    if block.is_commands
    for words in filter(None, commands(block.text))
)


def looks_like_a_command(line: str) -> bool:
    """Whether people would type it."""
    first = (line.split() or [""])[0]
    return first == "$" or (first in PROGRAMS or shutil.which(first) is not None)


def of_commands(block: Block) -> str | None:
    """Why no test sees these commands, and nobody is told what they need."""
    if block.needs is not None:
        known = ", ".join(sorted(NEEDS))
        return None if block.needs in NEEDS else f"# needs one of {known}"
    is_excused = (block.page, block.text.strip()) in NOT_RUN
    if block.page in STAGES or block.page in RUNBOOKS or is_excused:
        return None
    return "neither run by a test nor marked with what it needs"


def of_text(block: Block, before: Block | None) -> str | None:
    """Why this may be commands though it is not said to be. `before`: the commands before it."""
    if block.language == "" and (before is None or before.needs is not None):
        return "no language, and no commands before it that a test runs"
    for line in filter(looks_like_a_command, block.text.splitlines()):
        return f"begins like a command: {line}"
    return None


def escapes(of_page: Iterable[Block]) -> Iterator[str]:
    """Blocks of a page that would be seen by no test, and why."""
    before: Block | None = None
    for block in of_page:
        if block.language is None:
            why: str | None = "indented: put ``` around it, and say of which language it is"
        elif block.is_commands:
            why, before = of_commands(block), block
        elif block.language in ("", "text"):
            why, before = of_text(block, before), None if block.language == "" else before
        else:
            why = None if block.language in LANGUAGES else f"none of {', '.join(sorted(LANGUAGES))}"
        if why is not None:
            yield f"{block}: {why}"


@pytest.mark.parametrize("page", PAGES)
def test_a_command_is_run_by_a_test_or_says_what_it_needs(page: str) -> None:
    assert list(escapes(blocks(page))) == [], f"edit {page}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_understood_and_name_what_there_is(page: str) -> None:
    for block in filter(lambda block: block.is_commands, blocks(page)):
        checked = subprocess.run(
            [find_command("bash"), "-n"], input=block.text, capture_output=True, text=True
        )
        assert checked.stderr == "", block
        assert wrong(block.text, page) == [], block
    for code in inline(page, "code_inline"):
        if re.match(r"(azure-batch-exporter|make) [a-z-]", code.content):
            assert wrong(code.content, page) == []


def test_what_is_excused_is_there_and_what_is_run_is_something() -> None:
    shown = {(page, block.text.strip()) for page in PAGES for block in blocks(page)}
    assert NOT_RUN.keys() <= shown
    assert [page for page in STAGES if not list(steps(page))] == []


@pytest.mark.parametrize("page", PAGES)
def test_configurations_can_be_used(page: str, tmp_path: Path) -> None:
    for block in blocks(page):
        if block.language == "yaml":
            content = yaml.safe_load(block.text)
            assert isinstance(content, dict), block
            if "accounts" in content:
                loader.parse(block.text, str(block), tmp_path, FAMILIES)


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("azure-batch-exporter run --config.file=c.yaml | tee log", []),
        ("azure-batch-exporter run --config=c.yaml", ["azure-batch-exporter run --config=c.yaml"]),
        ("echo; azure-batch-exporter rum", ["azure-batch-exporter rum"]),
        ("make demo ARGS=--scenario=outage", []),
        ("make demo ARGS=--scenario=x", ["azure-batch-exporter demo --scenario=x"]),
        ("make demonstration", ["no target demonstration"]),
        ("az x --template-file \\\n  deploy/bicep/identity.bicep", []),
        ("az x --config=@deploy/bicep/none.bicep", ["no file deploy/bicep/none.bicep"]),
        ("promtool test rules tests/none*.yaml", ["no file tests/none*.yaml"]),
    ],
)
def test_a_command_that_names_what_is_not_there_is_found(command: str, found: list[str]) -> None:
    assert wrong(command, "README.md") == found


@pytest.mark.parametrize(
    ("language", "text", "why"),
    [
        (None, "make demo\n", "indented"),
        ("", "nothing\n", "no language"),
        ("console", "$ make demo\n", "none of"),
        ("sh", "make demo\n", "neither run"),
        ("sh", "# needs luck\nmake demo\n", "# needs one of"),
        ("text", "make demo\n", "begins like a command"),
        ("text", "$ dream\n", "begins like a command"),
        ("text", "a picture\n", None),
        ("sh", "# needs Azure\naz login\n", None),
    ],
)
def test_no_command_escapes(language: str | None, text: str, why: str | None) -> None:
    block = Block("SECURITY.md", 1, language, text)
    expected = [] if why is None else [f"SECURITY.md:1: {why}"]
    assert [
        found[: len(each)] for found, each in zip(escapes([block]), expected, strict=True)
    ] == expected
