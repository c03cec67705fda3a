"""The Helm chart, rendered by Helm 3 and 4 for every switch, and judged by Kubernetes' schemas."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path

import pytest
import yaml

import exporter
from exporter.__main__ import main
from exporter.cli.parsing import parse
from tests import tools
from tests.deploy.rendering import (
    CHART,
    HELMS,
    SWITCHES,
    container,
    distinct,
    helm,
    manifests,
    of_kind,
    pod,
    the,
)

pytestmark = pytest.mark.full

KUBERNETES = ("1.25.0", "1.28.0", "1.37.0")


@pytest.mark.parametrize("major", HELMS)
def test_helm_lint_finds_nothing_whatever_is_switched_on(major: int) -> None:
    files = (f"--values={CHART}/ci/{switch}-values.yaml" for switch in SWITCHES)
    found = [helm(major, "lint", "--strict", "--quiet", CHART, file) for file in files]
    assert [(done.stdout, done.stderr) for done in found if done.returncode] == []
    assert len(found) > 10


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_accepts_what_is_rendered(version: str, tmp_path: Path) -> None:
    ours = [each for each in distinct() if not each["apiVersion"].startswith("monitoring.")]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(ours))
    done = subprocess.run(
        [
            *(tools.linters_python(), "-m", "kubernetes_validate", "--strict"),
            *("--kubernetes-version", version, tmp_path / "all.yaml"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("passed") == len(ours)


OPERATOR = """
import json, sys
from cloudcoil.models.prometheus_operator import v1
for manifest in json.load(sys.stdin):
    read = getattr(v1, manifest["kind"]).model_validate(manifest)
    kept = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
    print(manifest["kind"], "is taken" if kept == manifest else f"{kept} of {manifest}")
"""
"""Models made of Prometheus Operator's definitions: they drop what they do not know."""


def test_prometheus_operator_accepts_what_is_rendered_for_it() -> None:
    found = [each for each in distinct() if each["apiVersion"] == "monitoring.coreos.com/v1"]
    wrong = copy.deepcopy(next(each for each in found if each["kind"] == "ServiceMonitor"))
    wrong["spec"]["endpoints"][0]["intervall"] = "30s"
    done = subprocess.run(
        [tools.linters_python(), "-c", OPERATOR],
        input=json.dumps([*found, wrong]),
        capture_output=True,
        text=True,
        check=False,
    )
    *verdicts, of_the_wrong_one = done.stdout.splitlines()
    assert verdicts == [f"{each['kind']} is taken" for each in found], done.stderr
    assert {each["kind"] for each in found} == {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
    assert "intervall" in of_the_wrong_one


@pytest.mark.parametrize("switch", SWITCHES)
def test_helm_3_and_4_render_the_same(switch: str) -> None:
    assert manifests(switch, 3) == manifests(switch, 4)


@pytest.mark.parametrize("switch", SWITCHES)
def test_nothing_runs_with_more_rights_than_it_needs(switch: str) -> None:
    for each in manifests(switch):
        if each["kind"] in ("Deployment", "StatefulSet"):
            spec = each["spec"]["template"]["spec"]
        elif each["kind"] == "Pod":
            spec = each["spec"]
        else:
            continue
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (only,) = spec["containers"]
        assert only["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert only["resources"]["limits"]["memory"]


@pytest.mark.parametrize("switch", SWITCHES)
def test_selectors_find_the_pods_that_serve_and_not_the_one_that_tests(switch: str) -> None:
    labels = pod(switch)["metadata"]["labels"]
    test_pod = next(each for each in manifests(switch) if each["kind"] == "Pod")
    for each in manifests(switch):
        spec = each.get("spec", {})
        if each["kind"] == "Service":
            selector = spec["selector"]
        elif each["kind"] == "NetworkPolicy":
            selector = spec["podSelector"]["matchLabels"]
        elif each["kind"] in ("Deployment", "StatefulSet", "PodMonitor", "PodDisruptionBudget"):
            selector = spec["selector"]["matchLabels"]
        else:
            continue
        assert selector.items() <= labels.items(), each["kind"]
        assert not selector.items() <= test_pod["metadata"]["labels"].items(), each["kind"]


@pytest.mark.parametrize("switch", ["service-monitor", "shards"])
def test_a_service_monitor_finds_one_service_and_its_port(switch: str) -> None:
    spec = the(switch, "ServiceMonitor")["spec"]
    wanted = spec["selector"]["matchLabels"]
    found = [
        each
        for each in of_kind(switch, "Service")
        if wanted.items() <= each["metadata"]["labels"].items()
    ]
    assert len(found) == 1
    assert found[0]["spec"]["ports"][0]["name"] == spec["endpoints"][0]["port"]
    assert spec["namespaceSelector"]["matchNames"] == [found[0]["metadata"]["namespace"]]


def test_a_service_monitor_has_what_its_values_say() -> None:
    found = the("service-monitor", "ServiceMonitor")
    assert found["metadata"]["namespace"] == "monitoring"
    assert found["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    assert found["spec"]["endpoints"] == [
        {
            "port": "metrics",
            "scheme": "http",
            "interval": "15s",
            "scrapeTimeout": "10s",
            "honorLabels": True,
            "relabelings": [{"targetLabel": "cluster", "replacement": "blue"}],
            "metricRelabelings": [
                {"action": "drop", "sourceLabels": ["__name__"], "regex": "python_.*"}
            ],
        }
    ]


def test_a_network_policy_names_the_port_of_the_container_not_of_the_service() -> None:
    assert the("network-policy", "Service")["spec"]["ports"][0]["port"] == 80
    spec = the("network-policy", "NetworkPolicy")["spec"]
    (port,) = container("network-policy")["ports"]
    assert spec["ingress"][0]["ports"] == [{"port": port["containerPort"], "protocol": "TCP"}]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    test_pod = next(each for each in manifests("network-policy") if each["kind"] == "Pod")
    allowed = spec["ingress"][0]["from"][1]["podSelector"]["matchLabels"]
    assert allowed.items() <= test_pod["metadata"]["labels"].items()
    assert the("network-policy-open", "NetworkPolicy")["spec"]["policyTypes"] == ["Ingress"]


def test_a_workload_identity_is_a_label_of_the_pod_and_annotations_of_its_account() -> None:
    assert pod("workload-identity")["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    account = the("workload-identity", "ServiceAccount")
    assert pod("workload-identity")["spec"]["serviceAccountName"] == account["metadata"]["name"]
    assert account["metadata"]["annotations"] == {
        "azure.workload.identity/client-id": "00000000-0000-0000-0000-000000000001",
        "azure.workload.identity/tenant-id": "00000000-0000-0000-0000-000000000002",
        "azure.workload.identity/service-account-token-expiration": "3600",
        "team": "hpc",
    }
    assert "azure.workload.identity/use" not in pod("config")["metadata"]["labels"]


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_exporter_takes_the_configuration_and_the_arguments_that_are_rendered(
    switch: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [each.replace("$(POD_INDEX)", "0") for each in container(switch)["args"]]
    options = parse(arguments)
    assert options.web_listen_address == [(None, container(switch)["ports"][0]["containerPort"])]
    file = f"--config.file={tmp_path}/config.yaml"
    for each in of_kind(switch, "ConfigMap"):
        if "config.yaml" in each["data"]:
            config = yaml.safe_load(each["data"]["config.yaml"])
            for account in config["accounts"]:  # the key is not here
                account.pop("auth", None)
            (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
            assert main(["check", file]) == 0, capsys.readouterr().err


def test_shards_are_a_stateful_set_that_numbers_its_pods() -> None:
    spec = the("shards", "StatefulSet")["spec"]
    assert spec["replicas"] == 4
    assert spec["podManagementPolicy"] == "Parallel"
    assert "--shard=$(POD_INDEX)/4" in container("shards")["args"]
    assert container("shards")["env"] == [
        {
            "name": "POD_INDEX",
            "valueFrom": {
                "fieldRef": {"fieldPath": "metadata.labels['apps.kubernetes.io/pod-index']"}
            },
        }
    ]
    headless = [each["metadata"]["name"] for each in of_kind("shards", "Service")
                if each["spec"].get("clusterIP") == "None"]  # fmt: skip
    assert headless == [spec["serviceName"]]


def test_one_process_is_never_two_at_once() -> None:
    spec = the("config", "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert len(of_kind("config", "Service")) == 1


@pytest.mark.parametrize(
    ("switch", "state_file", "claim"),
    [
        (
            "persistence",
            "/var/lib/azure-batch-exporter/state.db",
            {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "managed-csi",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        ),
        (
            "shards-persistence",
            "/var/lib/azure-batch-exporter/counters.db",
            {
                "accessModes": ["ReadWriteOncePod"],
                "resources": {"requests": {"storage": "4Gi"}},
            },
        ),
    ],
)
def test_counters_are_kept_on_a_volume_that_the_pod_may_write(
    switch: str, state_file: str, claim: dict[str, object]
) -> None:
    config = yaml.safe_load(the(switch, "ConfigMap")["data"]["config.yaml"])
    assert config["state_file"] == state_file
    (template,) = the(switch, "StatefulSet")["spec"]["volumeClaimTemplates"]
    assert template["spec"] == claim
    mounts = {each["name"]: each for each in container(switch)["volumeMounts"]}
    mount = mounts[template["metadata"]["name"]]
    assert Path(state_file).is_relative_to(mount["mountPath"])
    assert not mount.get("readOnly")
    assert pod(switch)["spec"]["securityContext"]["fsGroup"] == 65532


def test_secrets_are_files_that_not_everybody_may_read() -> None:
    config = yaml.safe_load(the("shared-key", "ConfigMap")["data"]["config.yaml"])
    volumes = {each["name"]: each for each in pod("shared-key")["spec"]["volumes"]}
    mounts = {each["mountPath"]: each["name"] for each in container("shared-key")["volumeMounts"]}
    folder = str(Path(config["accounts"][0]["auth"]["key_file"]).parent)
    assert volumes[mounts[folder]]["secret"] == {"secretName": "batch-key", "defaultMode": 0o440}


def test_a_web_configuration_is_a_secret_and_probes_only_connect() -> None:
    secret = the("web-config", "Secret")
    assert set(yaml.safe_load(secret["stringData"]["web.yaml"])) == {
        "tls_server_config",
        "basic_auth_users",
    }
    only = container("web-config")
    assert "--web.config.file=/etc/azure-batch-exporter-web/web.yaml" in only["args"]
    assert only["readinessProbe"] == only["livenessProbe"] == {"tcpSocket": {"port": "metrics"}}
    assert container("config")["livenessProbe"]["httpGet"]["path"] == "/-/healthy"
    assert container("config")["readinessProbe"]["httpGet"]["path"] == "/-/ready"
    own = container("web-config-secret")["livenessProbe"]
    assert own == {"tcpSocket": {"port": "metrics"}, "periodSeconds": 20}


def test_helm_test_asks_the_service_and_not_the_pod() -> None:
    for switch, url in (
        ("service-monitor", "http://release-azure-batch-exporter.monitoring.svc:80/-/ready"),
        ("web-config", "tcp://release-azure-batch-exporter.monitoring.svc:10225"),
        ("everything-else", "http://batch-metrics.hpc.svc:10225/-/ready"),
    ):
        test_pod = next(each for each in manifests(switch) if each["kind"] == "Pod")
        (only,) = test_pod["spec"]["containers"]
        assert only["args"] == ["healthcheck", f"--url={url}"]
        assert only["image"] == container(switch)["image"]
        parse(only["args"])


def test_an_image_is_named_by_tag_or_by_digest() -> None:
    assert container("config")["image"] == f"azure-batch-exporter:{exporter.__version__}"
    digest = "sha256:" + 64 * "0"
    assert (
        container("everything-else")["image"] == f"example.azurecr.io/azure-batch-exporter@{digest}"
    )


def test_the_chart_installs_this_version_of_the_exporter() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == exporter.__version__
