"""Fixtures that many tests share."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from exporter import config
from exporter.batch.auth import SharedKeyAuth
from exporter.batch.budget import Budget
from exporter.batch.client import BatchClient
from exporter.batch.session import Session
from exporter.batch.transport import Transport
from exporter.config import loader
from tests.fake_batch import FakeBatch, fake_batch
from tests.tools import find_tool

# `make test` tries a few examples of each property, `make test-all` many: it has
# --hypothesis-profile=many. A slow machine fails no test, so there is no deadline. CI tries the
# same examples for the same code; a run by hand tries others each time.
hypothesis.settings.register_profile(
    "few",
    max_examples=30,
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "many", hypothesis.settings.get_profile("few"), max_examples=300
)
hypothesis.settings.load_profile("few")

FIXTURES = Path(__file__).parent / "fixtures"

KEY = json.loads((FIXTURES / "sharedkey_vectors.json").read_text())["key"]


class Observed:
    """The attempts that the client reported."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.retries: list[str] = []
        self.problems: list[tuple[str, str]] = []

    def request_done(self, operation: str, code: str, seconds: float) -> None:
        assert seconds >= 0
        self.requests.append((operation, code))

    def retried(self, operation: str) -> None:
        self.retries.append(operation)

    def page_read(self, operation: str, problems: Sequence[str]) -> None:
        self.problems += [(operation, problem) for problem in problems]


@pytest.fixture
async def batch() -> AsyncIterator[FakeBatch]:
    """A Batch account that answers what the test tells it to."""
    async with fake_batch() as fake:
        yield fake


@pytest.fixture
def observed() -> Observed:
    """What `client` reports."""
    return Observed()


@pytest.fixture
def pauses() -> list[float]:
    """How long `client` paused, each time."""
    return []


@pytest.fixture
def request_timeout() -> float:
    """Seconds after which `client` gives up a request; a test that needs it has its own."""
    return 60.0


@pytest.fixture
def now() -> Callable[[], float]:
    """The Unix time of `client`; a test that needs another one has its own."""
    return time.time


@pytest.fixture
async def client(
    batch: FakeBatch,
    observed: Observed,
    pauses: list[float],
    request_timeout: float,
    now: Callable[[], float],
) -> AsyncIterator[BatchClient]:
    """A client of the account `batch`."""
    transport = Transport(
        http=Session(batch.endpoint),
        auth=SharedKeyAuth("myaccount", lambda: base64.b64decode(KEY)),
        budget=Budget(1000.0, pauses.append),
        observer=observed,
        request_timeout=request_timeout,
        jitter=lambda: 0.01,
        now=now,
    )
    yield BatchClient(batch.endpoint, "2024-07-01.20.0", transport)
    await transport.close()


@pytest.fixture
def make_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., config.Config]:
    """A configuration of one account with the endpoint and the settings given."""
    monkeypatch.setenv("BATCH_KEY", KEY)

    def make(endpoint: str, **account: Any) -> config.Config:
        defaults = account.pop("defaults", {})
        data = {
            "defaults": defaults,
            "accounts": [
                {
                    "name": "myaccount",
                    "endpoint": endpoint,
                    "auth": {"method": "shared_key", "key_env": "BATCH_KEY"},
                    "requests_per_second": 1000,
                    **account,
                }
            ],
        }
        return loader.parse(json.dumps(data), "test.yaml", tmp_path)

    return make


@pytest.fixture
def official() -> Callable[[str], Any]:
    """The body of an example of the published specification, by file name."""

    def load(name: str) -> Any:
        example = json.loads((FIXTURES / "official" / f"{name}.json").read_text())
        return example["responses"]["200"]["body"]

    return load


@pytest.fixture
def recorded() -> Callable[[str], Any]:
    """A recording of the real service, by file name."""

    def load(name: str) -> Any:
        return json.loads((FIXTURES / "recorded" / f"{name}.json").read_text())

    return load


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` rewrites the expected texts: look at the diff."""
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--update-golden` only the tests run that write a file."""
    if config.getoption("--update-golden"):
        others = [item for item in items if "golden" not in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares a text with a file of tests/golden, whole."""

    def compare(name: str, text: str) -> None:
        file = Path(__file__).parent / "golden" / name
        if request.config.getoption("--update-golden"):
            file.write_text(text)
        expected = file.read_text() if file.exists() else ""
        assert text == expected, (
            f"tests/golden/{name} is not what the code writes. If the new text is right, run"
            " `make fix` and commit the file; if it is wrong, edit the code."
        )

    return compare


@pytest.fixture
def promtool() -> Path:
    """Prometheus' own checker."""
    return find_tool("promtool")
