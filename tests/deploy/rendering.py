"""The Helm chart as Helm renders it."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests import tools
from tools import gen_chart

CHART = gen_chart.CHART
DEPLOY = gen_chart.ROOT / "deploy"
SWITCHES = sorted(path.name.removesuffix("-values.yaml") for path in CHART.glob("ci/*-values.yaml"))
HELMS = (3, 4)

Manifest = dict[str, Any]


def helm(major: int, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tools.helm(major), *arguments], capture_output=True, text=True, check=False
    )


@cache
def rendered(major: int, switch: str) -> str:
    """What `helm template` makes of a file in ci/."""
    done = helm(
        major,
        *("template", "release", CHART, "--namespace=monitoring"),
        f"--values={CHART}/ci/{switch}-values.yaml",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def manifests(switch: str, major: int = HELMS[-1]) -> list[Manifest]:
    return [each for each in yaml.safe_load_all(rendered(major, switch)) if each]


def distinct() -> list[Manifest]:
    """All that is rendered, whatever the switch, each manifest once."""
    texts = {json.dumps(each, sort_keys=True) for switch in SWITCHES for each in manifests(switch)}
    return [json.loads(text) for text in sorted(texts)]


def of_kind(switch: str, kind: str) -> list[Manifest]:
    return [
        each
        for each in manifests(switch)
        if each["kind"] == kind and "helm.sh/hook" not in each["metadata"].get("annotations", {})
    ]


def the(switch: str, kind: str) -> Manifest:
    (found,) = of_kind(switch, kind)
    return found


def workload(switch: str) -> Manifest:
    (found,) = [*of_kind(switch, "Deployment"), *of_kind(switch, "StatefulSet")]
    return found


def pod(switch: str) -> Manifest:
    return workload(switch)["spec"]["template"]  # type: ignore[no-any-return]


def container(switch: str) -> Manifest:
    (found,) = pod(switch)["spec"]["containers"]
    return found  # type: ignore[no-any-return]
