"""What the Helm chart has from elsewhere: copies of rules and dashboards, schema, table of values.

Helm reads nothing outside a chart, so alerts and dashboards are copied into it. values.yaml is the
one source of the values: `# --` before a key is its line in README.md, and its default tells its
type; what defaults cannot tell stands here. `make docs` writes it all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy" / "helm" / "azure-batch-exporter"

COPIES = {
    CHART / "files" / "rules": (ROOT / "deploy" / "prometheus", ("alerts", "recording-rules")),
    CHART / "files" / "dashboards": (ROOT / "deploy" / "grafana", ("azure-batch-*",)),
}
"""Folder of the chart, to the folder with the originals and their names, without extension."""

TYPES: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    str: "string",
    list: "array",
    dict: "object",
}

PORT = {"minimum": 1, "maximum": 65535}
SCHEME = {"enum": ["http", "https"]}
DURATION = {"pattern": "^([0-9]+(ms|[smhdwy]))*$"}
MORE: dict[str, dict[str, Any]] = {
    "config": {"if": {"minProperties": 1}, "then": {"$ref": "#/$defs/Config"}},
    "demo.scenario": {"pattern": "^[a-z-]*$"},
    "existingSecrets": {"items": {"type": "string", "minLength": 1}},
    "extraArgs": {"items": {"type": "string"}},
    "extraManifests": {"items": {"type": ["object", "string"]}},
    "image.digest": {"pattern": "^(sha256:[0-9a-f]{64})?$"},
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "image.repository": {"minLength": 1},
    "log.format": {"enum": ["logfmt", "json"]},
    "log.level": {"enum": ["debug", "info", "warning", "error"]},
    "podMonitor.interval": DURATION,
    "podMonitor.scheme": SCHEME,
    "podMonitor.scrapeTimeout": DURATION,
    "prometheusRule.disabled": {"items": {"type": "string"}},
    "service.port": PORT,
    "service.type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    "serviceMonitor.interval": DURATION,
    "serviceMonitor.scheme": SCHEME,
    "serviceMonitor.scrapeTimeout": DURATION,
    "shards": {"minimum": 1, "maximum": 1000},
    "terminationGracePeriodSeconds": {"minimum": 0},
    "workloadIdentity.tokenExpiration": {"minimum": 3600, "maximum": 86400},
}
"""Of a value, what its default does not tell."""

BEGIN, END = "<!-- values: generated from values.yaml by `make docs` -->", "<!-- end of values -->"


@dataclass(frozen=True)
class Value:
    """A value of the chart: keys down to it, what it is for, its default."""

    path: tuple[str, ...]
    meaning: str
    default: Any


def files() -> dict[Path, tuple[str, str]]:
    """Text of each generated file of the chart, and what it is written from."""
    found = {
        copy: (original.read_text(encoding="utf-8"), str(original.relative_to(ROOT)))
        for copy, original in _copies()
    }
    values_file = str((CHART / "values.yaml").relative_to(ROOT))
    found[CHART / "values.schema.json"] = (
        json.dumps(schema(), indent=2) + "\n",
        f"{values_file}, tools/gen_chart.py and docs/config.schema.json",
    )
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    before, after = readme.split(BEGIN)[0], readme.split(END)[1]
    found[CHART / "README.md"] = (f"{before}{BEGIN}\n\n{table()}\n{END}{after}", values_file)
    return found


def leftovers() -> list[Path]:
    """Copies whose originals are gone."""
    copies = {copy for copy, _ in _copies()}
    return sorted(
        path
        for folder in COPIES
        for path in folder.glob("*")
        if path.is_file() and path not in copies
    )


def _copies() -> Iterator[tuple[Path, Path]]:
    for folder, (source, names) in COPIES.items():
        for name in names:
            for original in sorted(source.glob(f"{name}.*")):
                yield folder / original.name, original


def values() -> list[Value]:
    """The values in their order. ValueError: one has no meaning, or a section has one."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    return list(_values(root, yaml.safe_load(text), text.splitlines(), ()))


def _values(
    node: yaml.MappingNode, data: dict[str, Any], lines: list[str], path: tuple[str, ...]
) -> Iterator[Value]:
    for key, child in node.value:
        here = (*path, key.value)
        comment = re.fullmatch(r" *# -- (.+)", lines[key.start_mark.line - 1])
        if comment:
            yield Value(here, comment[1], data[key.value])
        elif isinstance(child, yaml.MappingNode) and child.value:
            yield from _values(child, data[key.value], lines, here)
        else:
            raise ValueError(f"values.yaml says nothing of {'.'.join(here)}: write `# -- …` above")


def table() -> str:
    """The values as Markdown."""
    rows = ["| value | default | meaning |", "|---|---|---|"]
    for value in values():
        default = json.dumps(value.default) if value.default not in ("", {}, []) else ""
        if isinstance(value.default, dict) and len(default) > 40:
            default = "see values.yaml"
        elif default:
            default = f"`{default}`"
        rows.append(f"| `{'.'.join(value.path)}` | {default} | {value.meaning} |")
    return "\n".join(rows) + "\n"


def schema() -> dict[str, Any]:
    """JSON schema of the values; of `config`, the exporter's own."""
    root = _section()
    for value in values():
        section = root
        for key in value.path[:-1]:
            section = section["properties"].setdefault(key, _section())
        name = ".".join(value.path)
        section["properties"][value.path[-1]] = {
            "description": value.meaning,
            "type": TYPES[type(value.default)],
            **MORE.get(name, {}),
        }
    unknown = MORE.keys() - {".".join(value.path) for value in values()}
    if unknown:
        raise ValueError(f"values.yaml has no {', '.join(sorted(unknown))}")
    root["properties"]["global"] = {"type": "object"}  # Helm's own, of a chart that has this one
    config = json.loads((ROOT / "docs" / "config.schema.json").read_text(encoding="utf-8"))
    definitions = config.pop("$defs")
    config.pop("$schema")
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of azure-batch-exporter",
        **root,
        "$defs": _without_lookahead({**definitions, "Config": config}),
    }


def _section() -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": {}}


def _without_lookahead(data: Any) -> Any:
    """The same schema with patterns as Go has them; what they let through the exporter refuses."""
    if isinstance(data, dict):
        return {
            key: each.replace("(?=.)", "")
            if key == "pattern" and isinstance(each, str)
            else _without_lookahead(each)
            for key, each in data.items()
        }
    return [_without_lookahead(each) for each in data] if isinstance(data, list) else data
