"""Prometheus and Alertmanager with the shipped rules and examples, and who is told of alerts.

What the files say in minutes takes seconds here: nothing else in them is changed.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from tests.process import free_ports, process
from tests.tools import find_tool

SHIPPED = Path(__file__).parent.parent.parent / "deploy" / "prometheus"
RULE_FILES = ("recording-rules.yaml", "alerts.yaml")

FASTER = 60
PATIENCE = 20.0
"""Seconds that anything lasts at most before it is told: hours show no more than that."""

INTERVAL = "1s"
"""Between two scrapes, and between two evaluations of the rules."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = r"\d+(?:ms|s|m|h|d)"


def seconds(duration: str) -> float:
    """Of a Prometheus duration of one unit."""
    number, unit = re.fullmatch(r"(\d+)([a-z]+)", duration).groups()  # type: ignore[union-attr]
    return int(number) * _UNITS[unit]


def shorter(duration: str, most: float = math.inf) -> str:
    """The duration that stands for this one here."""
    return f"{min(seconds(duration) / FASTER, most) * 1000:.0f}ms"


def shorten(expression: str) -> str:
    """An expression with its ranges, offsets and thresholds in seconds as they are here."""
    text = re.sub(
        rf"(?<=\[){_DURATION}(?=\])|(?<=offset ){_DURATION}",
        lambda found: shorter(found[0]),
        expression,
    )
    return re.sub(
        r"(?<= )\d{3,}\b", lambda found: f"{min(int(found[0]) / FASTER, PATIENCE):g}", text
    )


def shortened_rules(text: str) -> str:
    """A rule file in which everything happens sooner."""
    content = yaml.safe_load(text)
    for group in content["groups"]:
        for rule in group["rules"]:
            rule["expr"] = shorten(rule["expr"])
            for key in ("for", "keep_firing_for"):
                if key in rule:
                    rule[key] = shorter(rule[key], PATIENCE)
    return json.dumps(content)


def shortened_alertmanager(text: str, url: str) -> str:
    """The example in which groups wait for less, and every receiver is the one at this URL."""
    content = yaml.safe_load(text)
    for route in (content["route"], *content["route"].get("routes", ())):
        for key in ("group_wait", "group_interval"):
            if key in route:
                route[key] = shorter(route[key])
    for receiver in content["receivers"]:
        receiver["webhook_configs"] = [{"url": url, "send_resolved": False}]
    return json.dumps(content)


Names = dict[str, set[str]]
"""The names of alerts, by account, or by scrape job for those that are of no account."""


@dataclass
class Inbox:
    """What the webhook of one Alertmanager was told."""

    alerts: list[dict[str, Any]] = field(default_factory=list)

    def names(self) -> Names:
        """Every alert that was told of so far."""
        found: Names = defaultdict(set)
        for alert in self.alerts:
            labels = alert["labels"]
            found[labels.get("account", labels.get("job"))].add(labels["alertname"])
        return dict(found)


@dataclass
class Watch:
    """One Prometheus with its Alertmanager, and what came of both."""

    inbox: Inbox
    api: aiohttp.ClientSession
    load_rules: Callable[[], None]
    """To be called when everything was scraped once: Prometheus waits for seconds before it does,
    and here seconds are minutes."""

    async def evaluations(self) -> float:
        """How often the alerts of jobs have been evaluated."""
        async with self.api.get("/metrics") as answer:
            found = re.search(
                r'prometheus_rule_group_iterations_total\{rule_group="\S+azure-batch-jobs"\} (\S+)',
                await answer.text(),
            )
        return float(found[1]) if found else 0.0


@asynccontextmanager
async def watching(release: str, folder: Path, targets: Mapping[str, str]) -> AsyncIterator[Watch]:
    """Prometheus and Alertmanager of a release, scraping these targets; both are up."""
    folder.mkdir()
    inbox = Inbox()
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(_webhook(inbox))
        example = (SHIPPED / "alertmanager.example.yaml").read_text()
        (folder / "alertmanager.yaml").write_text(shortened_alertmanager(example, url))
        alertmanager, port = free_ports(2)
        await stack.enter_async_context(
            process(
                find_tool("alertmanager", release),
                f"--config.file={folder}/alertmanager.yaml",
                f"--storage.path={folder}/alertmanager",
                f"--web.listen-address=127.0.0.1:{alertmanager}",
                "--cluster.listen-address=",
                "--log.level=error",
            )
        )
        _write_prometheus(folder, targets, alertmanager, rule_files=())
        prometheus = await stack.enter_async_context(
            process(
                find_tool("prometheus", release),
                f"--config.file={folder}/prometheus.yaml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
                # An alert is sent at most so late after its rule was evaluated again.
                "--rules.alert.resend-delay=2s",
                "--log.level=error",
            )
        )
        for served in (alertmanager, port):
            await _ready(f"http://127.0.0.1:{served}/-/ready")
        api = await stack.enter_async_context(aiohttp.ClientSession(f"http://127.0.0.1:{port}"))

        def load_rules() -> None:
            _write_prometheus(folder, targets, alertmanager, RULE_FILES)
            prometheus.send_signal(signal.SIGHUP)

        yield Watch(inbox, api, load_rules)


def _write_prometheus(
    folder: Path, targets: Mapping[str, str], alertmanager: int, rule_files: Sequence[str]
) -> None:
    config = yaml.safe_load((SHIPPED / "prometheus.example.yaml").read_text())
    assert config["rule_files"] == list(RULE_FILES)
    config["rule_files"] = list(rule_files)
    for name in RULE_FILES:
        (folder / name).write_text(shortened_rules((SHIPPED / name).read_text()))
    times = ("scrape_interval", "evaluation_interval", "scrape_timeout")
    config["global"] = dict.fromkeys(times, INTERVAL)
    managers = {"targets": [f"127.0.0.1:{alertmanager}"]}
    config["alerting"]["alertmanagers"] = [{"static_configs": [managers]}]
    config["scrape_configs"] = [
        {"job_name": name, "static_configs": [{"targets": [target]}]}
        for name, target in targets.items()
    ]
    (folder / "prometheus.yaml").write_text(json.dumps(config))


@asynccontextmanager
async def _webhook(inbox: Inbox) -> AsyncIterator[str]:
    async def receive(request: web.Request) -> web.Response:
        inbox.alerts += (await request.json())["alerts"]
        return web.Response()

    app = web.Application(client_max_size=2**26)
    app.router.add_post("/", receive)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def _ready(url: str) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(200):
        while True:
            try:
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.1)
