"""What the chart takes from its values and from the project, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.deploy.rendering import CHART, HELMS, SWITCHES, helm, the
from tools import gen_chart

pytestmark = pytest.mark.full

ACCOUNT = (
    "config.accounts[0].name=renderprod",
    "config.accounts[0].endpoint=https://renderprod.westeurope.batch.azure.com",
)


def refused(major: int, *values: str) -> str:
    """Why Helm renders nothing with these values; asserts that it does not."""
    done = helm(
        major, "template", "release", CHART, *(f"--set={value}" for value in (*ACCOUNT, *values))
    )
    assert done.returncode != 0
    return done.stderr


def test_every_value_is_set_by_some_switch() -> None:
    paths: set[tuple[str, ...]] = set()

    def walk(data: object, path: tuple[str, ...]) -> None:
        paths.add(path)
        if isinstance(data, dict):
            for key, each in data.items():
                walk(each, (*path, key))

    for switch in SWITCHES:
        walk(yaml.safe_load((CHART / "ci" / f"{switch}-values.yaml").read_text()), ())
    unset = {".".join(value.path) for value in gen_chart.values() if value.path not in paths}
    assert unset <= {
        *("image.repository", "image.tag", "workloadIdentity.tokenExpiration"),
        *("automountServiceAccountToken", "terminationGracePeriodSeconds", "resources"),
        *("podSecurityContext", "securityContext", "readinessProbe", "dashboards.labels"),
        *("prometheusRule.namespace", "podMonitor.namespace", "podMonitor.interval"),
        *("podMonitor.scrapeTimeout", "podMonitor.scheme", "podMonitor.tlsConfig"),
        *("podMonitor.basicAuth", "podMonitor.honorLabels", "podMonitor.relabelings"),
        "podMonitor.metricRelabelings",  # the same template as the ServiceMonitor's
    }


def test_a_change_of_the_configuration_restarts_the_pods() -> None:
    def checksum(*values: str) -> str:
        done = helm(4, "template", "r", CHART, *(f"--set={each}" for each in (*ACCOUNT, *values)))
        assert done.returncode == 0, done.stderr
        for each in yaml.safe_load_all(done.stdout):
            if each and each["kind"] == "Deployment":
                return str(each["spec"]["template"]["metadata"]["annotations"]["checksum/config"])
        raise AssertionError("no Deployment")

    assert checksum() == checksum("log.level=debug")
    assert checksum() != checksum("config.defaults.interval=60s")


def test_rules_are_those_of_the_project_and_of_the_user() -> None:
    rules = [
        rule
        for group in the("prometheus-rule", "PrometheusRule")["spec"]["groups"]
        for rule in group["rules"]
    ]
    ours = [
        rule
        for path in sorted((gen_chart.ROOT / "deploy" / "prometheus").glob("*.yaml"))
        if path.stem in ("alerts", "recording-rules")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]
    users = yaml.safe_load((CHART / "ci" / "prometheus-rule-values.yaml").read_text())
    assert rules == ours + users["prometheusRule"]["rules"]


def test_a_rule_can_be_left_out(tmp_path: Path) -> None:
    chart = copy_with(
        tmp_path, "files/rules/alerts.yaml", json.dumps({"groups": [
            {"name": "one", "rules": [{"alert": "A", "expr": "1"}, {"alert": "B", "expr": "1"}]},
            {"name": "two", "rules": [{"record": "c", "expr": "1"}]},
        ]})
    )  # fmt: skip
    done = helm(
        *(4, "template", "release", chart, *(f"--set={each}" for each in ACCOUNT)),
        *("--set=prometheusRule.enabled=true", "--set=prometheusRule.disabled={B,c}"),
        "--show-only=templates/prometheusrule.yaml",
    )
    groups = yaml.safe_load(done.stdout)["spec"]["groups"]
    assert {"name": "one", "rules": [{"alert": "A", "expr": "1"}]} in groups
    assert "two" not in [group["name"] for group in groups]


def test_a_dashboard_is_a_config_map_that_the_sidecar_finds(tmp_path: Path) -> None:
    text = '{"title": "{{job_id}} of {{ $labels }}"}\n'
    chart = copy_with(tmp_path, "files/dashboards/azure-batch-night.json", text)
    done = helm(
        *(4, "template", "release", chart, *(f"--set={each}" for each in ACCOUNT)),
        *("--set=dashboards.enabled=true", "--show-only=templates/dashboards.yaml"),
        *("--set=dashboards.annotations.grafana_folder=Batch", "--set=dashboards.namespace=g"),
    )
    found = {each["metadata"]["name"]: each for each in yaml.safe_load_all(done.stdout) if each}
    dashboard = found["release-azure-batch-exporter-night"]
    assert dashboard["data"] == {"azure-batch-night.json": text}
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboard["metadata"]["annotations"] == {"grafana_folder": "Batch"}
    assert dashboard["metadata"]["namespace"] == "g"
    originals = {path.name for path in (gen_chart.ROOT / "deploy" / "grafana").glob("*.json")}
    assert {name for each in found.values() for name in each["data"]} == (
        originals | {"azure-batch-night.json"}
    )


def copy_with(folder: Path, name: str, text: str) -> Path:
    """The chart with another file in it."""
    chart = folder / "chart"
    shutil.copytree(CHART, chart)
    (chart / name).parent.mkdir(parents=True, exist_ok=True)
    (chart / name).write_text(text)
    return chart


@pytest.mark.parametrize("major", HELMS)
@pytest.mark.parametrize(
    ("values", "why"),
    [
        (["existingConfigMap=other"], "config and existingConfigMap are both set"),
        (["demo.enabled=true"], "demo.enabled shows the simulated account alone"),
        (["webConfig.rate_limit.burst=1", "webConfigExistingSecret=w"], "leave one out"),
        (["serviceMonitor.enabled=true", "podMonitor.enabled=true"], "scrapes everything twice"),
        (["workloadIdentity.enabled=true"], "workloadIdentity.clientId is missing"),
        (["config.accounts=null"], "accounts"),
        (["config.defaults.intervall=30s"], "intervall"),
        (["config.defaults.interval=often"], "interval"),
        (["log.level=verbose"], "level"),
        (["shards=0"], "shards"),
        (["serviceMonitor.intervall=30s"], "intervall"),
        (["image.digest=latest"], "digest"),
        (["replicaCount=2"], "replicaCount"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_what_cannot_work_is_refused_and_named(major: int, values: list[str], why: str) -> None:
    assert why in refused(major, *values)


@pytest.mark.parametrize("major", HELMS)
def test_nothing_to_poll_and_pods_without_numbers_are_refused(major: int) -> None:
    done = helm(major, "template", "release", CHART)
    assert "set config.accounts" in done.stderr
    done = helm(
        *(major, "template", "release", CHART, "--kube-version=1.27.9"),
        f"--values={CHART}/ci/shards-values.yaml",
    )
    assert "shards need Kubernetes 1.28 or newer" in done.stderr


@pytest.mark.parametrize(
    ("switch", "says"),
    [
        ("demo", "The simulated account is on show."),
        ("config", "curl http://localhost:10225/metrics"),
        ("web-config", "curl https://localhost:10225/metrics"),
        ("existing-config-map", "rollout restart deployment/release-azure-batch-exporter"),
        ("everything-else", "kubectl --namespace hpc port-forward service/batch-metrics"),
    ],
)
def test_after_the_installation_it_says_how_to_look(switch: str, says: str) -> None:
    # Helm 3 would ask a cluster for its version.
    done = helm(
        *(4, "install", "release", CHART, "--dry-run=client", "--namespace=monitoring"),
        f"--values={CHART}/ci/{switch}-values.yaml",
    )
    notes = done.stdout.partition("\nNOTES:\n")[2]
    assert says in notes, done.stderr
    assert "helm test release --namespace monitoring" in notes
    assert ("no image is published" in notes) == (switch != "everything-else")
