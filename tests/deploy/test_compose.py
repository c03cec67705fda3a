"""The Compose stack: Compose, promtool and amtool read it, and its parts fit each other."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests import tools
from tests.deploy.rendering import DEPLOY

pytestmark = pytest.mark.full

COMPOSE = DEPLOY / "compose"


@cache
def stack() -> dict[str, Any]:
    """The file as Compose understands it."""
    done = subprocess.run(
        [
            *(tools.docker_compose(), f"--file={COMPOSE}/compose.yaml"),
            *("config", "--format=json", "--no-interpolate"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def services() -> dict[str, Any]:
    return stack()["services"]  # type: ignore[no-any-return]


def test_every_image_is_pinned_or_built_here() -> None:
    for service in services().values():
        if "build" in service:
            assert Path(service["build"]["context"]).samefile(DEPLOY.parent)
        else:
            assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])


def test_nothing_listens_beyond_this_machine() -> None:
    for service in services().values():
        assert [port["host_ip"] for port in service["ports"]] == ["127.0.0.1"]


def test_nothing_runs_with_capabilities() -> None:
    for service in services().values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert services()["exporter"]["read_only"] is True


def test_what_is_mounted_is_there_and_read_only() -> None:
    mounts = [
        mount
        for service in services().values()
        for mount in service.get("volumes", [])
        if mount["type"] == "bind"
    ]
    assert len(mounts) == 5
    for mount in mounts:
        assert mount["read_only"] is True
        source = Path(mount["source"])
        assert source.is_relative_to(DEPLOY)
        if source.is_relative_to(COMPOSE):
            assert source.exists()


def addresses() -> list[str]:
    """The addresses at which parts of the stack look for others."""
    prometheus = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())
    (scrape,) = prometheus["scrape_configs"]
    (manager,) = prometheus["alerting"]["alertmanagers"]
    (source,) = datasources()
    return [
        *scrape["static_configs"][0]["targets"],
        *manager["static_configs"][0]["targets"],
        urlsplit(source["url"]).netloc,
    ]


def datasources() -> list[dict[str, Any]]:
    file = COMPOSE / "grafana" / "provisioning" / "datasources" / "prometheus.yaml"
    return yaml.safe_load(file.read_text())["datasources"]  # type: ignore[no-any-return]


def test_the_parts_find_each_other() -> None:
    published = {
        f"{name}:{port['target']}"
        for name, service in services().items()
        for port in service["ports"]
    }
    assert set(addresses()) == published - {"grafana:3000"}


def test_grafana_has_one_source_with_a_fixed_id_and_finds_the_dashboards() -> None:
    (source,) = datasources()
    assert (source["uid"], source["isDefault"]) == ("prometheus", True)
    file = COMPOSE / "grafana" / "provisioning" / "dashboards" / "azure-batch.yaml"
    (provider,) = yaml.safe_load(file.read_text())["providers"]
    assert provider["allowUiUpdates"] is False
    grafana = services()["grafana"]
    mounts = {mount["target"]: Path(mount["source"]) for mount in grafana["volumes"]}
    assert mounts[provider["options"]["path"]] == DEPLOY / "grafana"
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]


def test_promtool_accepts_the_configuration_with_the_rules(tmp_path: Path) -> None:
    text = (COMPOSE / "prometheus.yml").read_text()
    (tmp_path / "prometheus.yml").write_text(text)
    for name in yaml.safe_load(text)["rule_files"]:
        rules = tmp_path / name
        rules.parent.mkdir(exist_ok=True)
        rules.write_text((DEPLOY / "prometheus" / rules.name).read_text())
    done = subprocess.run(
        [tools.find_tool("promtool"), "check", "config", tmp_path / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_amtool_accepts_the_configuration() -> None:
    done = subprocess.run(
        [tools.find_tool("amtool"), "check-config", COMPOSE / "alertmanager.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    text = (COMPOSE / "compose.yaml").read_text().replace("cap_drop", "capdrop")
    (tmp_path / "compose.yaml").write_text(text)
    done = subprocess.run(
        [tools.docker_compose(), f"--file={tmp_path}/compose.yaml", "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "capdrop" in done.stderr
