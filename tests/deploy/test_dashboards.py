"""The dashboards as files: what Grafana and people who look at them rely on.

Many of the rules are those of Grafana's dashboard-linter.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from exporter import collectors
from exporter.service.telemetry import ROWS
from tools.dashboards import BOARDS
from tools.dashboards.__main__ import outdated
from tools.dashboards.building import RUNBOOKS, TAG, Board
from tools.dashboards.interpolation import Resolution, targets, variable_query

FOLDER = Path(__file__).parent.parent.parent / "deploy" / "grafana"
MODELS = {board.uid: board.model() for board in BOARDS}

TYPES = {row.name: row.type for table in collectors.tables().values() for row in table.metrics} | {
    row.name: row.type for row in ROWS
}
LABELS = {
    row.name: {*table.identity, *row.labels}
    for table in collectors.tables().values()
    for row in table.metrics
} | {row.name: set(row.labels) for row in ROWS}
TARGET_LABELS = {"job", "instance"}
SELECTOR = re.compile(r"\b([a-z]\w+)\{([^{}]*)\}(\[[^\]]+\])?")

every_board = pytest.mark.parametrize("uid", MODELS)


def panels(uid: str) -> list[dict[str, Any]]:
    """The panels of a dashboard without the headings of its sections."""
    return [panel for panel in MODELS[uid]["panels"] if panel["type"] != "row"]


def expressions(uid: str) -> Iterator[tuple[str, str]]:
    """Where each query stands, and the query with its variables."""
    for panel in panels(uid):
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]


def variables(uid: str, type_: str) -> list[dict[str, Any]]:
    return [each for each in MODELS[uid]["templating"]["list"] if each["type"] == type_]


def links(uid: str) -> Iterator[str]:
    """Every URL in a dashboard."""
    yield from re.findall(r'"url": "([^"]*)"', json.dumps(MODELS[uid]))


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_the_files_are_what_the_code_says(board: Board) -> None:
    # Not compared in the assertion itself: the difference of two long files takes minutes.
    is_current = (FOLDER / f"{board.uid}.json").read_text(encoding="utf-8") == board.text()
    assert is_current, outdated(f"{board.uid}.json")


def test_there_is_no_other_dashboard_and_no_uid_ever_changes() -> None:
    uids = {"overview", "job", "nodes", "exporter"}
    assert {file.stem for file in FOLDER.glob("*.json")} == {f"azure-batch-{uid}" for uid in uids}
    assert len({model["title"] for model in MODELS.values()}) == len(uids)


@every_board
def test_a_dashboard_can_be_imported_and_is_changed_only_in_a_copy(uid: str) -> None:
    model = MODELS[uid]
    assert (model["id"], model["uid"], model["schemaVersion"]) == (None, uid, 42)
    assert model["editable"] is False
    assert model["tags"] == [TAG]
    assert model["refresh"] and model["description"]
    numbers = [panel["id"] for panel in model["panels"]]
    assert len(set(numbers)) == len(numbers) and min(numbers) > 0


@every_board
def test_everything_is_asked_of_the_data_source_that_is_chosen(uid: str) -> None:
    (source,) = variables(uid, "datasource")
    first = MODELS[uid]["templating"]["list"][0]
    assert first is source
    assert (source["name"], source["label"]) == ("datasource", "Data source")
    assert source["query"] == "prometheus"
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    asking = [*panels(uid), *(each for panel in panels(uid) for each in panel["targets"])]
    for each in (*asking, *variables(uid, "query")):
        assert each["datasource"] == chosen


@every_board
def test_variables_have_names_and_are_read_again_with_the_time_shown(uid: str) -> None:
    text = " ".join(expression for _, expression in expressions(uid))
    for variable in variables(uid, "query"):
        assert variable["multi"] and variable["includeAll"]
        assert variable["allValue"] in (".+", ".*")
        assert variable["refresh"] == 2
        assert variable["current"]["value"] == "$__all"
        assert variable["query"]["query"] == variable["definition"]
    for variable in (*variables(uid, "query"), *variables(uid, "custom")):
        assert variable["label"] and variable["description"].endswith(".")
        assert re.search(rf"\${variable['name']}\b", text), f"{variable['name']} is of no use"


@every_board
def test_panels_say_what_they_show_and_what_it_means_when_they_are_empty(uid: str) -> None:
    titles = [panel["title"] for panel in panels(uid)]
    assert len(set(titles)) == len(titles)
    for panel in panels(uid):
        assert panel["title"]
        assert panel["description"].endswith(".")
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"]
        assert len(defaults["noValue"]) >= len("None.")
        assert panel["targets"]


@every_board
def test_panels_do_not_lie_on_each_other(uid: str) -> None:
    places = [panel["gridPos"] for panel in MODELS[uid]["panels"]]
    for place in places:
        assert place["x"] >= 0 and place["x"] + place["w"] <= 24
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


@every_board
def test_counters_are_shown_by_what_they_grow_and_nothing_else_is(uid: str) -> None:
    for where, expression in expressions(uid):
        for found in SELECTOR.finditer(expression):
            name, window = found[1], found[3]
            before = re.search(r"(\w+)\($", expression[: found.start()])
            function = before[1] if before else ""
            if name.startswith("process_"):
                kind = "counter" if name.endswith("_total") else "gauge"
            else:
                kind = TYPES.get(name, "histogram" if name.endswith("_bucket") else "gauge")
            if kind == "gauge":
                assert window is None, where
            elif function == "rate":
                assert window == "[$__rate_interval]", where
            elif function == "increase":
                assert window in ("[$__range]", "[$window]"), where
            else:
                assert (function, window) == ("count_over_time", "[$window:1m]"), where


@every_board
def test_queries_name_only_what_is_exported_and_keep_to_what_is_chosen(uid: str) -> None:
    for where, expression in expressions(uid):
        selectors = list(SELECTOR.finditer(expression))
        names = re.findall(r"\b(?:azure_batch|process)_\w+", expression)
        assert set(names) <= {found[1] for found in selectors}, f"{where}: of any account"
        assert selectors or "vector($budget)" in expression, where
        for found in selectors:
            name = found[1].removesuffix("_bucket") if "_seconds_bucket" in found[1] else found[1]
            matched = dict(re.findall(r'(\w+)=~?"([^"]*)"', found[2]))
            if name in ("up", "process_resident_memory_bytes", "process_cpu_seconds_total"):
                assert matched.keys() == TARGET_LABELS, where
                continue
            known = LABELS[name] | TARGET_LABELS | {"job_group"}
            assert matched.keys() <= known, (where, matched.keys() - known)
            if "account" in known:
                assert matched["account"] == "$account", where
            else:
                assert matched.keys() == TARGET_LABELS, where
        grouped = re.findall(r"\b(?:by|on|group_left) \(([^)]*)\)", expression)
        known = {"le", "job_group", *TARGET_LABELS}.union(
            *(LABELS.get(found[1].removesuffix("_bucket"), set()) for found in selectors)
        )
        for labels in grouped:
            assert set(labels.split(", ")) <= known, (where, labels)


@every_board
def test_a_table_names_columns_that_are_there(uid: str) -> None:
    for panel in panels(uid):
        if panel["type"] != "table":
            continue
        of = {each["id"]: each["options"] for each in panel["transformations"]}
        shown = of["filterFieldsByName"]["include"]["names"]
        expressions_ = [target["expr"] for target in panel["targets"]]
        labels = set(
            re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", " ".join(expressions_))))
        )
        letters = [target["refId"] for target in panel["targets"]]
        values = ["Value"] if len(letters) == 1 else [f"Value #{letter}" for letter in letters]
        assert set(shown) <= {*values, *labels}, panel["title"]
        assert len(shown) == len(set(shown))
        titles = of["organize"]["renameByName"].values()
        assert len(set(titles)) == len(shown)
        every, *overrides = panel["fieldConfig"]["overrides"]
        # Else what stands for an empty table would stand in each empty cell.
        assert every["matcher"] == {"id": "byRegexp", "options": "/.*/"}
        assert every["properties"] == [{"id": "noValue", "value": ""}]
        assert {each["matcher"]["options"] for each in overrides} <= set(titles)
        assert {each["displayName"] for each in panel["options"].get("sortBy", ())} <= set(titles)


@every_board
def test_links_lead_somewhere_and_carry_what_is_chosen(uid: str) -> None:
    runbooks = FOLDER.parent / "runbooks"
    for url in links(uid):
        if url.startswith("https:"):
            assert url.startswith(RUNBOOKS)
            assert not runbooks.exists() or (runbooks / url.removeprefix(RUNBOOKS)).exists(), url
            continue
        target = re.match(r"/d/([\w-]+)\?", url)
        assert target is not None and target[1] in MODELS, url
        assert "${__url_time_range}" in url and "${datasource:queryparam}" in url
        known = {each["name"] for each in MODELS[target[1]]["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", url)) <= known, url
        assert set(re.findall(r"\$\{(\w+):queryparam\}", url)) <= known, url
        if "__data.fields." in url:
            fields = re.findall(r"__data\.fields\.(\w+)", url)
            holder = next(panel for panel in panels(uid) if json.dumps(url) in json.dumps(panel))
            rename = holder["transformations"][-1]["options"]["renameByName"]
            assert set(fields) <= rename.keys()


def test_each_dashboard_can_be_reached_from_each_other() -> None:
    for model in MODELS.values():
        (others,) = (link for link in model["links"] if link["type"] == "dashboards")
        assert (others["tags"], others["includeVars"], others["keepTime"]) == ([TAG], True, True)


def test_promtool_reads_every_query(promtool: Path, tmp_path: Path) -> None:
    resolution = Resolution(range_seconds=3600, scrape_seconds=15)
    asked = [
        target.expression for model in MODELS.values() for target in targets(model, {}, resolution)
    ]
    for uid in MODELS:
        for variable in variables(uid, "query"):
            selector, _ = variable_query(variable["query"]["query"])
            asked.append(selector.replace("$", "x"))
    rules = [{"record": f"asked:{n}", "expr": text} for n, text in enumerate(asked)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "x", "rules": rules}]}))
    checked = subprocess.run(
        [promtool, "check", "rules", tmp_path / "rules.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert f"{len(asked)} rules found" in checked.stdout
