"""The software bill of materials that `make sbom` writes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests import tools
from tests.deploy.rendering import DEPLOY
from tests.test_packaging import pins

pytestmark = pytest.mark.full

ROOT = DEPLOY.parent


def test_the_bill_names_every_package_of_the_image_with_version_and_hash(tmp_path: Path) -> None:
    tools.sbom_python()
    file = tmp_path / "sbom.json"
    subprocess.run([ROOT / "tools" / "write_sbom.sh", file], check=True)
    bill = json.loads(file.read_text())
    found = {canonicalize_name(each["name"]): each for each in bill["components"]}
    locked = pins(ROOT / "requirements.lock")
    assert found.keys() == locked.keys()
    for name, pin in locked.items():
        assert str(pin.specifier) == f"=={found[name]['version']}"
        (source,) = found[name]["externalReferences"]
        assert {each["alg"] for each in source["hashes"]} == {"SHA-256"}
    assert bill["metadata"]["component"]["name"] == "azure-batch-exporter"
