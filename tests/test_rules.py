"""The shipped rules: promtool accepts them, each alert fires and does not, and has a runbook."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tools import NEW, OLD, find_tool

DEPLOY = Path(__file__).parent.parent / "deploy"
RULES = DEPLOY / "prometheus"
RUNBOOKS = DEPLOY / "runbooks"
RULE_FILES = ("recording-rules.yaml", "alerts.yaml")
UNIT_TESTS = sorted((RULES / "tests").glob("*.yaml"))

RUNBOOK_URL = (
    "https://github.com/azure-batch-exporter/azure-batch-exporter/blob/main/deploy/runbooks/{}.md"
)
RELEASES = [OLD, pytest.param(NEW, marks=pytest.mark.full)]
BOARDS = ("overview", "job", "nodes", "exporter")
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]


def rules(file: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / file).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules("alerts.yaml")}


def promtool(release: str, *arguments: str | Path) -> tuple[int, str]:
    command = [find_tool("promtool", release), *arguments]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=RULES
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("release", RELEASES)
def test_promtool_finds_nothing_in_the_rules(release: str) -> None:
    status, said = promtool(release, "check", "rules", "--lint=all", "--lint-fatal", *RULE_FILES)
    assert status == 0, said


@pytest.mark.parametrize("release", RELEASES)
def test_the_examples_are_valid(release: str) -> None:
    status, said = promtool(release, "check", "config", "prometheus.example.yaml")
    assert status == 0, said
    command = [find_tool("amtool", release), "check-config", RULES / "alertmanager.example.yaml"]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize("release", RELEASES)
def test_the_rules_do_what_their_tests_say(release: str) -> None:
    status, said = promtool(release, "test", "rules", *UNIT_TESTS)
    assert status == 0, said


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    found: dict[bool, set[str]] = {True: set(), False: set()}
    for file in UNIT_TESTS:
        for test in yaml.safe_load(file.read_text())["tests"]:
            for case in test.get("alert_rule_test", ()):
                found[bool(case.get("exp_alerts"))].add(case["alertname"])
    assert found == {True: set(ALERTS), False: set(ALERTS)}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_it_is_about(name: str) -> None:
    alert = ALERTS[name]
    assert re.fullmatch(r"AzureBatch[A-Z][A-Za-z]+", name)
    assert alert["labels"] == {"severity": alert["labels"]["severity"]}
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    notes = alert["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert re.fullmatch(r"[A-Z][^{}]+\.", notes["summary"])
    assert re.search(r"{{.+}}", notes["description"])
    assert notes["runbook_url"] == RUNBOOK_URL.format(name)
    path = re.fullmatch(r"/d/azure-batch-([a-z]+)(\?var-account=.+)?", notes["dashboard_url"])
    assert path and path[1] in BOARDS


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_runbook_with_all_sections(name: str) -> None:
    file = RUNBOOKS / f"{name}.md"
    assert file.exists(), f"write deploy/runbooks/{name}.md, like those beside it"
    text = file.read_text()
    assert text.startswith(f"# {name}\n")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    assert parts[::2] == SECTIONS
    assert all(len(part.split()) > 5 for part in parts[1::2])
    assert "```promql\n" in parts[5]


def test_every_runbook_has_its_alert_and_stands_in_the_index() -> None:
    pages = {file.stem for file in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == set(ALERTS)
    index = (RUNBOOKS / "README.md").read_text()
    for name, alert in ALERTS.items():
        row = f"[{name}]({name}.md) | {alert['labels']['severity']}"
        line = f"| {row} | {alert['annotations']['summary']} |"
        assert line in index, f"edit deploy/runbooks/README.md: it needs the line {line}"


def test_recording_rules_are_named_by_level_metric_and_operation() -> None:
    for rule in rules("recording-rules.yaml"):
        assert re.fullmatch(r"account(_[a-z]+)*:azure_batch_[a-z0-9_]+:[a-z0-9_]+", rule["record"])
        assert "_total" not in rule["record"]


def freshness(expression: str) -> bool:
    """Whether it looks at when something was last polled, itself or in what it is recorded from."""
    if re.search("_scrape_success|azure_batch_up", expression):
        return True
    recorded = [
        rule["expr"] for rule in rules("recording-rules.yaml") if rule["record"] in expression
    ]
    return any(freshness(each) for each in recorded)


@pytest.mark.parametrize("name", ALERTS)
def test_no_alert_of_what_is_polled_fires_on_stale_data(name: str) -> None:
    expression = ALERTS[name]["expr"]
    # The exporter's own series are of the moment of the scrape.
    own = re.sub(r"(account:)?azure_batch_exporter_[a-z0-9_:]+", "", expression)
    assert freshness(expression) or "azure_batch_" not in own
