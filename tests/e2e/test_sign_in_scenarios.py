"""The stand-in of Microsoft Entra ID as `simulate` and `demo` serve it, with the real program."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from asyncio.subprocess import Process
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from exporter.simulator import SIGN_IN_SCENARIOS
from tests.process import finish, logged_address, program, stop


async def until(process: Process, last: str) -> str:
    """What the process prints, up to the line that begins with `last`."""
    assert process.stdout is not None
    lines = [""]
    while not lines[-1].startswith(last):
        lines.append((await process.stdout.readline()).decode())
        assert lines[-1], f"the program ended: {lines}"
    return "".join(lines)


async def test_each_way_to_sign_in_works_with_what_the_simulator_prints(tmp_path: Path) -> None:
    arguments = ("--identity", "--jobs=2", "--nodes=2", "--speed=0")
    async with program("simulate", *arguments) as process, asyncio.timeout(300):
        text = await until(process, "IDENTITY_HEADER")
        given = dict(re.findall(r"^(\w.*?): (.*)", text, re.MULTILINE))
        entra, workload, machine, app_service = (
            dict(re.findall(r"^([A-Z_]+)=(.*)", part, re.MULTILINE))
            for part in text.split("\n\n")[1:]
        )
        ids = {name: given[name] for name in ("tenant_id", "client_id")}
        (tmp_path / "secret").write_text(given["client_secret"])
        ways: list[tuple[dict[str, str], dict[str, str]]] = [
            (
                {"method": "client_secret", **ids, "client_secret_file": f"{tmp_path}/secret"},
                entra,
            ),
            *(
                ({"method": "client_certificate", **ids, "certificate_file": given[file]}, entra)
                for file in ("certificate_file", "certificate_file (PFX)")
            ),
            ({"method": "workload_identity"}, {**entra, **workload}),
            ({"method": "managed_identity"}, machine),
            ({"method": "managed_identity"}, {**machine, **app_service}),
        ]
        for auth, environment in ways:
            account = {"name": "simulated", "endpoint": given["endpoint"], "auth": auth}
            file = tmp_path / "config.yaml"
            file.write_text(json.dumps({"accounts": [account | {"requests_per_second": 100}]}))
            status, output, errors = await finish("scrape", f"--config.file={file}", **environment)
            assert status == 0, (auth, errors)
            assert 'azure_batch_up{account="simulated"} 1\n' in output
        async with aiohttp.ClientSession() as session:
            state = await (await session.get(given["sign-in control"])).json()
        assert state["issued"] == {"entra": 4, "imds": 1, "app_service": 1}
        await stop(process)
    assert process.returncode == 0
    assert not Path(given["certificate_file"]).exists()
    assert not Path(entra["SSL_CERT_FILE"]).exists()


async def test_a_sign_in_scenario_of_the_simulator_needs_the_token_endpoints() -> None:
    status, _, errors = await finish("simulate", "--scenario=sign-in-throttled")
    assert (status, errors) == (2, "--scenario=sign-in-throttled needs --identity: add it\n")


class Demo:
    """A demo that runs, and its two controls."""

    def __init__(self, metrics: str, text: str, session: aiohttp.ClientSession) -> None:
        self._metrics = metrics
        self._session = session
        self.text = text
        self._scenario, _, *identity = re.findall(r"curl -X PUT (\S+)", text)
        self._identity = identity[0] if identity else ""

    async def put(self, scenario: str) -> tuple[int, Any]:
        answer = await self._session.put(self._scenario, data=json.dumps({"scenario": scenario}))
        return answer.status, await answer.json()

    async def failure(self) -> str | None:
        """The failure that the token endpoints play or are about to play."""
        active = (await (await self._session.get(self._identity)).json())["active"]
        return active and active["failure"]

    async def wait(self, line: str) -> None:
        """Until the metrics have a line."""
        while line not in await (await self._session.get(self._metrics)).text():  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # another process: there is no event to wait for


UP = 'azure_batch_up{account="simulated"} 1\n'
DOWN = 'azure_batch_up{account="simulated"} 0\n'


async def play(scenario: str, use: Callable[[Demo, Process], Any]) -> str:
    """Start the demo with a scenario, use it, and stop it; gives its log."""
    arguments = (f"--scenario={scenario}", "--web.listen-address=127.0.0.1:0")
    async with (
        program("demo", *arguments) as process,
        asyncio.timeout(200),
        aiohttp.ClientSession() as session,
    ):
        url = await logged_address(process)
        demo = Demo(url, await until(process, "Press Ctrl-C"), session)
        await use(demo, process)
        errors = await stop(process, signal.SIGINT)
    assert process.returncode == 0, errors
    return errors


async def test_the_secret_of_the_demo_has_expired_and_every_other_scenario_can_follow() -> None:
    async def use(demo: Demo, _: Process) -> None:
        assert all(
            f"\n  {name}  " in demo.text for name in SIGN_IN_SCENARIOS if "secret" not in name
        )
        await demo.wait(DOWN)
        assert await demo.put("steady") == (200, {"scenario": "steady"})
        await demo.wait(UP)
        for name, scenario in SIGN_IN_SCENARIOS.items():
            assert await demo.put(name) == (200, {"scenario": name})
            assert await demo.failure() == scenario.failure
        assert (await demo.put("prep-storm"))[0] == 200
        assert await demo.failure() is None

    assert "AADSTS7000222" in await play("sign-in-secret-expired", use)


async def test_the_certificate_of_the_demo_has_expired_until_another_scenario_begins() -> None:
    async def use(demo: Demo, _: Process) -> None:
        await demo.wait(DOWN)
        assert (await demo.put("steady"))[0] == 200  # the file has another certificate
        await demo.wait(UP)

    assert "AADSTS700027" in await play("sign-in-certificate-expired", use)


@pytest.mark.parametrize("scenario", ["sign-in-throttled", "sign-in-hangs"])
async def test_the_demo_gets_one_token_and_no_other(scenario: str) -> None:
    async def use(demo: Demo, _: Process) -> None:
        assert await demo.failure() == SIGN_IN_SCENARIOS[scenario].failure
        await demo.wait("\nazure_batch_jobs{")

    await play(scenario, use)


async def test_a_demo_with_the_account_key_says_how_to_start_one_that_signs_in() -> None:
    async def use(demo: Demo, _: Process) -> None:
        assert not re.search(r"^  sign-in-", demo.text, re.MULTILINE)
        assert "start one with --scenario=sign-in-secret-expired" in demo.text
        status, answer = await demo.put("sign-in-hangs")
        assert status == 409
        assert "Start `demo --scenario=sign-in-hangs`" in answer["error"]

    await play("steady", use)
