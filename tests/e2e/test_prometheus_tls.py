"""A real Prometheus scrapes the real program over TLS, with a client certificate and basic auth."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import bcrypt
import pytest
import yaml

from tests.certificates import Authority
from tests.e2e.test_prometheus import prometheus_api, query
from tests.process import logged_address, program
from tests.tools import find_tool

pytestmark = pytest.mark.full

PASSWORD = "correct horse"


@pytest.fixture
def prometheus() -> Path:
    """The server's program."""
    return find_tool("prometheus")


async def test_prometheus_scrapes_over_tls_with_certificate_and_password_and_not_without(
    prometheus: Path, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    authority.server()
    certificate, key = authority.client("prometheus.example")
    (tmp_path / "web.yaml").write_text(
        yaml.safe_dump(
            {
                "tls_server_config": {
                    "cert_file": "server.crt",
                    "key_file": "server.key",
                    "client_auth_type": "RequireAndVerifyClientCert",
                    "client_ca_file": "ca.crt",
                    "client_allowed_sans": ["prometheus.example"],
                    "min_version": "TLS13",
                },
                "basic_auth_users": {
                    "prometheus": bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
                },
            }
        )
    )
    flags = (f"--web.config.file={tmp_path}/web.yaml", "--web.listen-address=127.0.0.1:0")
    async with program("demo", *flags) as demo, asyncio.timeout(200):
        url = await logged_address(demo)
        assert url.startswith("https://")
        target = url.removeprefix("https://").removesuffix("/metrics")
        tls = {
            "ca_file": str(authority.file),
            "cert_file": str(certificate),
            "key_file": str(key),
            "server_name": "localhost",
        }

        def scrape(name: str, password: str, **tls_config: str) -> dict[str, Any]:
            return {
                "job_name": name,
                "scheme": "https",
                "tls_config": tls_config,
                "basic_auth": {"username": "prometheus", "password": password},
                "static_configs": [{"targets": [target]}],
            }

        without = {name: tls[name] for name in ("ca_file", "server_name")}
        jobs = [
            scrape("right", PASSWORD, **tls),
            scrape("wrong password", "wrong", **tls),
            scrape("no certificate", PASSWORD, **without),
        ]
        async with prometheus_api(prometheus, tmp_path, jobs) as api:
            up: dict[str, float] = {}
            while len(up) < len(jobs) or not up["right"]:
                await asyncio.sleep(0.2)
                up = {labels["job"]: value for labels, value in await query(api, "up")}
            assert up == {"right": 1, "wrong password": 0, "no certificate": 0}
            assert await query(api, 'azure_batch_up{job="right"}')
            errors = await last_errors(api)
            assert errors["right"] == ""
            assert errors["wrong password"] == "server returned HTTP status 401 Unauthorized"
            # The handshake is broken off; which of the two sees it depends on who is faster.
            assert errors["no certificate"].endswith(("EOF", "connection reset by peer"))


async def last_errors(api: aiohttp.ClientSession) -> dict[str, str]:
    """Why each scrape job failed the last time."""
    async with api.get("/api/v1/targets") as answer:
        targets = json.loads(await answer.text())["data"]["activeTargets"]
    return {target["labels"]["job"]: target["lastError"] for target in targets}
