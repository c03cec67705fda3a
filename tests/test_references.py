"""Whatever names a metric, names one that there is, with labels that it has.

Rules, runbooks, dashboards and docs are read; the tables of the code are the truth.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from exporter import collectors
from exporter.service.telemetry import ROWS
from exporter.state import table_names
from tests.pages import inline

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
RULE_FILES = [DEPLOY / "prometheus" / name for name in ("recording-rules.yaml", "alerts.yaml")]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/*.md", "deploy/**/*.md")
    for page in ROOT.glob(pattern)
    if page.name != "CHANGELOG.md"  # it tells of names that are gone
)
DASHBOARDS = sorted((DEPLOY / "grafana").glob("**/*.json"))

OF_PROMETHEUS = frozenset({"job", "instance", "alertname", "alertstate", "severity", "__name__"})
OTHERS = {"up": frozenset[str](), "ALERTS": frozenset({"account", "job_id", "job_group"})}


OF_ANOTHER_EXPORTER = dict.fromkeys(
    (
        "azure_batch_job_tasks_active",
        "azure_batch_job_tasks_running",
        "azure_batch_job_tasks_succeeded_total",
        "azure_batch_job_metadata",
        "azure_batch_pool_node_state",
        "azure_batch_pool_dedicated_nodes",
        "azure_batch_pool_metadata",
        "azure_batch_pool_quota",
        "azure_batch_dedicated_core_quota",
    ),
    frozenset({"account", "job", "job_id", "job_name", "pool", "state", "metadata", "value"}),
)
"""What only the page about it may name."""


def families() -> dict[str, frozenset[str]]:
    """Labels of every series that the exporter may serve, by name."""
    found = dict(OTHERS)
    rows: list[tuple[Any, tuple[str, ...]]] = [(row, row.labels) for row in ROWS]
    for name, table in collectors.tables().items():
        of_groups = "job_id" in table.identity or name in table_names.OF_GROUPS
        own = (*table.identity, *(("job_group",) if of_groups else ()))
        rows += [(row, (*own, *row.labels)) for row in table.metrics]
    for row, labels in rows:
        if row.type == "histogram":
            found |= {f"{row.name}{suffix}": frozenset(labels) for suffix in ("_sum", "_count")}
            found[f"{row.name}_bucket"] = frozenset((*labels, "le"))
        else:
            found[row.name] = frozenset(labels)
    return found


def parts(node: Any) -> Iterator[Any]:
    """An expression and all that is in it."""
    yield node
    match node:
        case promql.BinaryExpr():
            inner = [node.lhs, node.rhs]
        case promql.Call():
            inner = list(node.args)
        case promql.MatrixSelector():
            inner = [node.vector_selector]
        case promql.AggregateExpr():
            inner = [node.expr, *([node.param] if isinstance(node.param, promql.Expr) else [])]
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            inner = [node.expr]
        case _:
            inner = []
    for each in inner:
        yield from parts(each)


def grouped(node: Any) -> set[str]:
    """The labels that an aggregation or a matching names."""
    modifier = getattr(node, "modifier", None)
    if modifier is None:
        return set()
    if isinstance(node, promql.AggregateExpr):
        return set(modifier.labels)
    matching = set() if modifier.matching is None else set(modifier.matching.labels)
    return matching | set(modifier.group_labels or ())


def problems(expression: str, known: dict[str, frozenset[str]]) -> list[str]:
    """Names and labels of an expression that there are not."""
    found, labels = [], set(OF_PROMETHEUS)
    nodes = list(parts(promql.parse(expression)))
    for node in nodes:
        if not isinstance(node, promql.VectorSelector):
            continue
        if node.name is None:  # whatever has a name like this
            labels |= {label for of_one in known.values() for label in of_one}
            continue
        if node.name.startswith(("process_", "python_")):  # prometheus-client's own
            continue
        if node.name not in known:
            found.append(f"no metric {node.name}")
            continue
        labels |= known[node.name]
        used = {matcher.name for matcher in node.matchers.matchers}
        found += [
            f"{node.name} has no label {label}"
            for label in sorted(used - known[node.name] - OF_PROMETHEUS)
        ]
    used = set().union(*map(grouped, nodes))
    return found + [f"nothing here has a label {label}" for label in sorted(used - labels)]


def recorded() -> dict[str, frozenset[str]]:
    """All families, and what recording rules make of them, with any label that goes into it."""
    known = families()
    for file in RULE_FILES:
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                if "record" not in rule:
                    continue
                made = set(rule.get("labels", ()))
                for node in parts(promql.parse(rule["expr"])):
                    if isinstance(node, promql.VectorSelector):
                        made |= known.get(str(node.name), frozenset())
                known[rule["record"]] = known.get(rule["record"], frozenset()) | made
    return known


KNOWN = recorded()


@pytest.mark.parametrize("file", RULE_FILES, ids=lambda file: file.name)
def test_rules_name_what_there_is(file: Path) -> None:
    wrong = {}
    for group in yaml.safe_load(file.read_text())["groups"]:
        for rule in group["rules"]:
            if found := problems(rule["expr"], KNOWN):
                wrong[rule.get("alert") or rule["record"]] = found
    assert wrong == {}, f"edit {file.relative_to(ROOT)}: docs/metrics.md lists every metric"


def known_on(page: str) -> dict[str, frozenset[str]]:
    """Also the labels that configurations on a page add to what a job is called."""
    info = set(KNOWN["azure_batch_job_info"])
    for block in re.findall(r"```yaml\n(accounts:.*?)```", page, re.DOTALL):
        for account in yaml.safe_load(block)["accounts"]:
            for rule in account.get("jobs", ()):
                info |= {*rule.get("labels", ()), *rule.get("metadata_labels", ())}
    return {**KNOWN, "azure_batch_job_info": frozenset(info)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_what_there_is(page: Path) -> None:
    text = page.read_text()
    cure = f"edit {page.relative_to(ROOT)}: docs/metrics.md lists every metric and its labels"
    is_about_another = page.name.startswith("migrate-from-")
    known = known_on(text) | (OF_ANOTHER_EXPORTER if is_about_another else {})
    expressions = re.findall(r"```promql\n(.*?)```", text, re.DOTALL)
    expressions += re.findall(r"^ +expr: (.+)$", text, re.MULTILINE)
    expressions += [
        code.content
        for code in inline(str(page.relative_to(ROOT)), "code_inline")
        if "azure_batch_" in code.content and re.search(r"[(>]|==", code.content)
    ]
    wrong = [(each, found) for each in expressions if (found := problems(each, known))]
    assert wrong == [], cure
    histograms = {name.removesuffix("_bucket") for name in KNOWN if name.endswith("_bucket")}
    # What ends with an underscore, or has a wildcard behind it, is the beginning of names.
    for name, labels in re.findall(
        r"\b((?:[a-z_]+:)?azure_batch_[a-z0-9_]*[a-z0-9](?::[a-z0-9_]+)?)(?![a-z0-9_*…])"
        r"(?:\{([^}]*)\})?",
        text,
    ):
        assert name in known or name in histograms, f"no metric {name}: {cure}"
        used = set(re.findall(r"(\w+)(?==|[,}]|$)", re.sub(r'"[^"]*"', "", labels)))
        assert used <= known.get(name, frozenset()) | OF_PROMETHEUS, (name, labels, cure)


def queries(board: Any) -> Iterator[str]:
    """Every expression of a dashboard, its variables filled in."""
    if isinstance(board, dict):
        for key, value in board.items():
            if key in ("expr", "query", "definition") and isinstance(value, str):
                yield value
            else:
                yield from queries(value)
    elif isinstance(board, list):
        for value in board:
            yield from queries(value)


def filled_in(query: str) -> str:
    """PromQL that may be parsed: a variable is a time in brackets, a word elsewhere."""
    query = re.sub(r"(?<=\[)\$\{?\w+(:\w+)?\}?", "5m", query)
    query = re.sub(r"(?<=[:@ ])\$__(?:rate_)?interval\b", "5m", query)
    return re.sub(r"\$\{?\w+(:\w+)?\}?", "1", query)


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.name)
def test_dashboards_name_what_there_is(file: Path) -> None:
    wrong = {}
    for query in queries(json.loads(file.read_text())):
        if "azure_batch_" not in query and "azure_batch:" not in query:
            continue
        asked = re.fullmatch(r"label_values\((.+),\s*(\w+)\)", query)
        inner = re.fullmatch(r"query_result\((.+)\)", query)
        expression = asked[1] if asked else inner[1] if inner else query
        found = problems(filled_in(expression), KNOWN)
        if asked and not found:
            selector = promql.parse(filled_in(asked[1]))
            if asked[2] not in KNOWN[str(selector.name)] | OF_PROMETHEUS:
                found = [f"{selector.name} has no label {asked[2]}"]
        if found:
            wrong[query] = found
    assert wrong == {}, "edit tools/dashboards/ and run `make docs`; docs/metrics.md lists them"


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("azure_batch_job_task", "no metric azure_batch_job_task"),
        ('azure_batch_job_tasks{status="active"}', "azure_batch_job_tasks has no label status"),
        ("sum by (pool) (azure_batch_pool_nodes)", "nothing here has a label pool"),
        (
            "azure_batch_up and on (account_name) azure_batch_jobs",
            "nothing here has a label account_name",
        ),
        ("max_over_time(rate(azure_batch_x_total[5m])[1h:1m])", "no metric azure_batch_x_total"),
    ],
)
def test_a_wrong_name_or_label_is_found(expression: str, problem: str) -> None:
    assert problems(expression, KNOWN) == [problem]
