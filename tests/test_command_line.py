"""What the command line says to those who mistype it."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from exporter import config
from exporter.cli import flags, simulate
from exporter.cli.parsing import COMMANDS, parse
from exporter.config import durations, problems
from exporter.config.shard import WHOLE
from exporter.service.service import open_service
from exporter.simulator import SUMMARIES
from exporter.web.app import build_app
from exporter.web.server.limits import Limits


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["chekc"], "argument COMMAND: invalid choice: 'chekc' (choose from"),
        (["--config.file=f"], "the following arguments are required: COMMAND"),
        (["run", "--config.fiel=f"], "unrecognized arguments: --config.fiel=f"),
        (["run", "--web.listen-addres=:1"], "unrecognized arguments: --web.listen-addres=:1"),
        (["run", "--config=f"], "unrecognized arguments: --config=f"),
        (["check", "--config.file=f", "--shard=0/2"], "unrecognized arguments: --shard=0/2"),
        (["run", "--log.level=warn"], "argument --log.level: invalid choice: 'warn' (choose from"),
        (["demo", "--scenario=prepstorm"], "argument --scenario: invalid choice: 'prepstorm'"),
        (["check", "--config.file=f", "--format=jsno"], "argument --format: invalid choice"),
        ([], "the following arguments are required: COMMAND"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_is_mistyped_is_named(
    arguments: list[str], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2
    errors = capsys.readouterr().err
    assert answer in errors
    assert len(errors.splitlines()) < 24  # one screen


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_reads_like_a_manual_page(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        parse([command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: azure-batch-exporter {command}" in text
    for title in ("options:", "examples:", "exit status:"):
        assert f"\n{title}\n" in text
    assert f"\n  azure-batch-exporter {command}" in text
    long = [line for line in text.splitlines() if len(line) > 80 and "exporter" not in line]
    assert long == []


@pytest.mark.parametrize("command", ["demo", "simulate"])
def test_each_scenario_has_a_line_of_its_own(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse([command, "--help"])
    text = capsys.readouterr().out
    for name in ("steady", "prep-storm", "outage"):
        assert f"\n  {name}  " in text


def test_the_scenarios_of_the_help_are_those_of_the_simulator() -> None:
    assert list(simulate.SCENARIOS.items()) == list(SUMMARIES.items())


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("5min", "5m"), ("30 s", "30s"), ("1.5h", "1h30m"), ("1 hour 30 minutes", "1h30m"),
        ("30m1h", "1h30m"), ("90 secs", "1m30s"), ("2 Days", "2d"),
    ],
)  # fmt: skip
def test_a_duration_in_other_words_is_understood_and_refused(text: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean {meant}\\?"):
        durations.parse_duration(text)


@pytest.mark.parametrize("text", ["soon", "5 parsecs", "", "30", "-5s", "9999999999 years"])
def test_what_is_no_duration_in_any_words_gets_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write for example 30s"):
        durations.parse_duration(text)


def test_a_word_that_nothing_is_near_gets_no_suggestion() -> None:
    assert problems.did_you_mean("banana", ["interval", "states"]) == ""
    assert problems.did_you_mean("STATE", ["interval", "states"]) == ": did you mean states?"


async def test_the_metrics_can_have_any_path_that_the_exporter_has_not(
    make_config: Callable[..., config.Config],
) -> None:
    async with open_service(make_config("http://127.0.0.1:1")) as service:
        resources = build_app(service, "/metrics").router.resources()
        paths = {resource.canonical for resource in resources} - {"/", "/metrics"}
    for path in paths:
        with pytest.raises(argparse.ArgumentTypeError, match="not be a path of the exporter"):
            flags.parse_telemetry_path(path)
    for reserved in flags.RESERVED_PATHS:
        assert any(path.startswith(reserved) for path in paths), reserved
    for free in ("/", "/metrics", "/jobs", "/configuration", "/metrics/static/"):
        assert flags.parse_telemetry_path(free) == free


def test_defaults_of_flags_are_those_of_what_they_set() -> None:
    options = parse(["run"])
    assert options.shard == WHOLE
    assert options.web_max_requests == Limits().max_requests
