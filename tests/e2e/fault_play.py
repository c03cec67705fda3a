"""Plays faults on simulated accounts that one real exporter polls, and tells what was seen."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from exporter.simulator import SCENARIOS, Clock, Simulation, World, serve
from exporter.simulator.faults import Faults, Rule
from exporter.simulator.signatures import make_account
from tests.process import logged_address, program
from tests.truth import Series, Truth
from tools.fault_matrix import JOBS, Case

STATES = ["active", "disabling", "disabled", "enabling", "terminating", "completed", "deleting"]
PLAYED = 3
"""Requests that meet a fault, at least, before anything is said of it."""

LASTS = 2.2
"""Seconds that a fault lasts, at least: polls are a second apart."""

PATIENCE = 60.0
"""Seconds after which something that must happen does not."""

Labels = frozenset[tuple[str, str]]

_FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')
"""Of a log line in logfmt."""


@dataclass
class Seen:
    """What was seen of one fault; `others`: what it did to those whom it does not concern."""

    shown: bool = False
    """Whether a poll was shown as failed."""
    up: set[float] = field(default_factory=set)
    codes: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    infos: list[str] = field(default_factory=list)
    right: bool = False
    """Whether all values of the account were the simulator's while the fault lasted."""
    others: set[str] = field(default_factory=set)
    recovered: bool = False
    memory: float = 0.0
    """MB that the process took at most while it lasted, more than before."""


class Exporter:
    """A running exporter: its latest metrics and its log."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.series: Series = {}
        self.log: list[dict[str, str]] = []
        self._url = url
        self._scraped = asyncio.Condition()

    async def scrape(self) -> None:
        """Scrape and check the health, again and again."""
        async with aiohttp.ClientSession(headers={"Accept": "text/plain;version=0.0.4"}) as session:
            while True:
                async with session.get(self._url.replace("/metrics", "/-/healthy")) as answer:
                    assert answer.status == 200
                async with session.get(self._url) as answer:
                    text = await answer.text()
                self.series = {
                    (sample.name, frozenset(sample.labels.items())): sample.value
                    for family in text_string_to_metric_families(text)
                    for sample in family.samples
                }
                async with self._scraped:
                    self._scraped.notify_all()
                await asyncio.sleep(0.4)

    async def read_log(self) -> None:
        """Take every line as it comes."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            fields = _FIELD.findall(line.decode())
            self.log.append({k: json.loads(v) if v.startswith('"') else v for k, v in fields})

    async def until(self, condition: Callable[[], bool], patience: float | None = None) -> bool:
        """Look at each scrape; whether the condition came true in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience or PATIENCE):
                while True:
                    async with self._scraped:
                        await self._scraped.wait()
                    if condition():
                        return True
        return False

    def value(self, name: str, **labels: str) -> float | None:
        """One series; None where there is none."""
        return self.series.get((f"azure_batch_{name}", frozenset(labels.items())))

    def of(self, name: str, account: str) -> dict[Labels, float]:
        """All series of one family of an account."""
        wanted = ("account", account)
        return {
            labels: value
            for (found, labels), value in self.series.items()
            if found == f"azure_batch_{name}" and wanted in labels
        }

    def forget_peak(self) -> float:
        """Let VmHWM begin anew; returns what it was."""
        peak = self.memory("VmHWM")
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return peak

    def memory(self, what: str) -> float:
        """VmRSS or VmHWM of the process, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        match = re.search(rf"{what}:\s+(\d+) kB", status)
        assert match
        return int(match[1]) / 1024


class Account:
    """A simulated account, whose time moves only by hand."""

    def __init__(self, exporter: Exporter, simulation: Simulation, faults: Faults) -> None:
        self._exporter = exporter
        self._simulation = simulation
        self._faults = faults
        self.name = simulation.account_name

    def pass_time(self) -> None:
        """Make changes that must be shown."""
        self._simulation.clock.advance(2.0)
        self._simulation.world.advance(self._simulation.clock.now())

    def victim(self) -> str:
        """A job that has something to show in each collector; time passes until there is one."""
        for _ in range(100):
            for job in self._simulation.world.jobs.values():
                if job.preparation and job.records and job.state == "active":
                    return str(job.id)
            self.pass_time()
        raise AssertionError("no job of the account is prepared")

    def is_right(self) -> bool:
        """Whether what is shown of jobs and nodes is the simulator's truth."""
        return not self.wrong()

    def wrong(self) -> set[str]:
        """Series of jobs and nodes that are not the simulator's truth."""
        truth = Truth(self._simulation.world, self.name, 0.0).everything()
        shown = {
            key: value
            for key, value in self._exporter.series.items()
            if ("account", self.name) in key[1]
        }
        # A pool that was met once stays in the counters and gauges of its job, with zeros.
        known = {pool_id for _, labels in truth for name, pool_id in labels if name == "pool_id"}
        shown = {
            key: value
            for key, value in shown.items()
            if value or dict(key[1]).get("pool_id", "") in known | {""}
        }
        differing = _values(shown).items() ^ _values(truth).items()
        return {f"{name} {sorted(labels)}" for (name, labels), _ in differing}

    def stamps(self) -> dict[Labels, float]:
        """When each poll of a job last succeeded."""
        return self._exporter.of("job_last_scrape_success_timestamp_seconds", self.name)

    def failing(self) -> set[Labels]:
        """The polls of the account that are shown as failed, those of jobs and its own."""
        return {
            labels
            for name in ("job_scrape_success", "account_scrape_success")
            for labels, value in self._exporter.of(name, self.name).items()
            if not value
        }

    def not_fresh(self, since: float, but: str | None = None) -> set[str]:
        """Polls of jobs that failed, or did not succeed since a Unix time."""
        failing = {" ".join(sorted(value for _, value in labels)) for labels in self.failing()}
        late = {
            f"late: {sorted(labels)}"
            for labels, at in self.stamps().items()
            if at < since and dict(labels).get("job_id") in self._simulation.world.jobs
        }
        return {text for text in failing | late if but is None or but not in text}

    def codes(self, operation: str) -> dict[str, float]:
        """Attempts by code."""
        found: dict[str, float] = {}
        for labels, value in self._exporter.of("exporter_requests_total", self.name).items():
            given = dict(labels)
            if operation == given["operation"]:
                found[given["code"]] = found.get(given["code"], 0.0) + value
        return found

    async def play(self, case: Case) -> Seen:
        """One fault from its beginning until all is well again."""
        seen, exporter, clock = Seen(), self._exporter, asyncio.get_running_loop().time
        began, log = clock(), len(exporter.log)
        codes = self.codes(case.operation)
        self.pass_time()
        since = datetime.now(UTC).timestamp()
        job = None if case.operation == JOBS else self.victim()
        victim = job or "jobs"
        before = self._faults.played[case.fault]
        count = 1 if case.pauses else None  # one pause, and not one after the other
        self._faults.set(Rule(case.fault, operation=case.operation, job_id=job, count=count))

        def is_over() -> bool:
            seen.up.add(exporter.value("up", account=self.name) or 0.0)
            seen.shown |= bool(self.failing())
            seen.right = self.is_right()
            played = self._faults.played[case.fault] - before
            if played < (1 if case.pauses else PLAYED) or clock() - began < LASTS:
                return False
            if case.log is None:
                return seen.right or not case.right
            return seen.shown and (case.pauses or not self.not_fresh(since, but=victim))

        if not await exporter.until(is_over):
            seen.others.add("not seen, or others were not fresh in time")
            seen.others |= self.not_fresh(since, but=victim)
        seen.codes = {
            code
            for code, number in self.codes(case.operation).items()
            if number > codes.get(code, 0)
        }
        self._faults.clear()
        await self._recover(seen)
        for line in exporter.log[log:]:
            if line.get("account") == self.name and line["msg"].endswith("again"):
                seen.infos.append(line["msg"])
            elif line.get("account") == self.name and line["level"] != "INFO":
                seen.warnings.append(line["msg"])
        seen.warnings = [
            text for text in seen.warnings if text != "task failed" and "is left out" not in text
        ]
        return seen

    async def _recover(self, seen: Seen) -> None:
        healed = datetime.now(UTC).timestamp()
        seen.recovered = await self._exporter.until(
            lambda: not self.not_fresh(healed) and self.is_right() and self._is_up()
        )
        if not seen.recovered:
            seen.others |= {"not recovered", *list(self.wrong() | self.not_fresh(healed))[:5]}

    async def live(self) -> set[str]:
        """Let time pass; what is not shown, or not right, soon after."""
        self.pass_time()
        since = datetime.now(UTC).timestamp()
        await self._exporter.until(lambda: not self.not_fresh(since) and self.is_right())
        return {*list(self.not_fresh(since) | self.wrong())[:5]}

    def _is_up(self) -> bool:
        return self._exporter.value("up", account=self.name) == 1

    def _others_are_fresh(self, job: str, since: float) -> bool:
        return not self.not_fresh(since, but=job)


def _values(series: Series) -> Series:
    return {
        (name, labels): value
        for (name, labels), value in series.items()
        if name.startswith(("azure_batch_job_", "azure_batch_jobs", "azure_batch_pool_nodes"))
        and not name.endswith("_total")
        and "scrape" not in name
        and "progress" not in name
    }


@dataclass
class Played:
    """What came of a whole matrix."""

    seen: dict[str, Seen]
    untouched: set[str]
    """What happened to the account that no fault was played on."""
    growth: float
    """MB by which the process grew."""
    peak: float
    """MB that it had at most."""
    defects: float


_PATIENT = 1
"""The account that waits long enough for answers that are a lot of work on a busy machine."""


@asynccontextmanager
async def _polled(folder: Path, accounts: int) -> AsyncIterator[tuple[Exporter, list[Account]]]:
    """So many accounts, and an exporter that polls them."""
    async with AsyncExitStack() as stack:
        served = []
        for seed in range(1, accounts + 1):
            start = datetime.now(UTC)
            world = World(SCENARIOS["steady"], seed=seed, jobs=4, nodes=3, start=start)
            faults = Faults()
            clock = Clock(start, speed=0.0)
            own = replace(make_account(seed), name=f"account{seed}")
            serving = serve(world, clock, account=own, interceptors=[faults])
            simulation = await stack.enter_async_context(serving)
            served.append((simulation, faults))
        settings = {"interval": "1s", "idle_interval": "0s", "resync_interval": "0s"}
        collect = ["task_counts", "preparation_release", "tasks"]
        config = {
            "defaults": {**settings, "collect": collect},
            "exclude_metrics": ["*_duration_seconds", "azure_batch_task_*_seconds"],
            "accounts": [
                {
                    "name": simulation.account_name,
                    "endpoint": simulation.endpoint,
                    "auth": {"method": "shared_key", "key_env": f"KEY_{number}"},
                    "requests_per_second": 500,
                    "request_timeout": "30s" if number == _PATIENT else "3s",
                    "discovery_interval": "1s",
                    "jobs": [{"id_regex": "(?s).*", "states": STATES}],
                }
                for number, (simulation, _) in enumerate(served)
            ],
        }
        (folder / "config.yaml").write_text(json.dumps(config))
        keys = {f"KEY_{number}": one.account_key for number, (one, _) in enumerate(served)}
        options = ("--web.listen-address=127.0.0.1:0",)
        process = await stack.enter_async_context(
            program("run", f"--config.file={folder}/config.yaml", *options, **keys)
        )
        exporter = Exporter(process, await logged_address(process))
        tasks = [asyncio.create_task(run()) for run in (exporter.scrape, exporter.read_log)]
        yield exporter, [Account(exporter, *one) for one in served]
        for task in tasks:
            if task.done():
                task.result()
            task.cancel()


async def play(
    folder: Path, together: Sequence[Case], alone: Sequence[Case], lanes: int, report: bool = False
) -> Played:
    """Play all faults: `together` on `lanes` accounts at once, `alone` one by one after them."""
    seen: dict[str, Seen] = {}
    async with _polled(folder, lanes + 2) as (exporter, (untouched, patient, *accounts)):
        everyone = (untouched, patient, *accounts)
        assert await exporter.until(lambda: all(account.is_right() for account in everyone))
        first, watch, problems = exporter.memory("VmRSS"), True, set[str]()

        async def run(account: Account, cases: list[Case]) -> None:
            while cases:
                case = cases.pop(0)
                seen[case.name] = await account.play(case)
                if report:
                    print(case.fault, case.operation, seen[case.name], flush=True)

        async def watch_untouched() -> None:
            while watch:
                problems.update(await untouched.live())

        watching = asyncio.create_task(watch_untouched())
        slow = [case for case in together if case.pauses]
        rest = [case for case in together if not case.pauses]
        await asyncio.gather(run(accounts[0], slow), *(run(one, rest) for one in accounts[1:]))
        peaks = [exporter.forget_peak()]
        for case in alone:
            before = exporter.memory("VmRSS")
            await run(patient, [case])
            peaks.append(exporter.forget_peak())
            seen[case.name].memory = peaks[-1] - before
        watch = False
        await watching
        problems.update(
            line["msg"]
            for line in exporter.log
            if line.get("account") == untouched.name
            and line["level"] != "INFO"
            and line["msg"] != "task failed"
        )
        assert exporter.process.returncode is None
        defects = sum(
            value
            for (name, _), value in exporter.series.items()
            if name == "azure_batch_exporter_internal_errors_total"
        )
        growth = exporter.memory("VmRSS") - first
        return Played(seen, problems, growth, max(peaks), defects)
