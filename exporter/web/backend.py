"""What the web server needs of the service behind it."""

from __future__ import annotations

from typing import Protocol

from exporter.config import Config
from exporter.config.shard import Shard
from exporter.exposition.body import Exposition, Format
from exporter.exposition.scrapes import Scrapes
from exporter.polling.load import Load
from exporter.polling.sign_in_trouble import SignInTrouble
from exporter.state.failures import Failures
from exporter.state.store import Store


class Backend(Protocol):
    """A service: what it knows, and how it does."""

    exposition: Exposition
    scrapes: Scrapes
    store: Store
    failures: Failures
    shard: Shard

    @property
    def config(self) -> Config:
        """The configuration in force."""

    @property
    def is_ready(self) -> bool:
        """Whether each account has finished a first round of polls."""

    @property
    def problem(self) -> str | None:
        """Why the process should be restarted; None: it need not."""

    def now(self) -> float:
        """Unix time."""

    def load(self, account: str) -> Load | None:
        """How busy the polls of an account are; None while it is being added."""

    def is_account_ready(self, account: str) -> bool:
        """Whether an account has finished a first round of polls."""

    def sign_in_trouble(self, account: str) -> SignInTrouble | None:
        """Why the token of an account cannot be renewed; None: it can."""

    def own_metrics(self, format_: Format, series_of_state: int) -> bytes:
        """The exporter's own metrics as text, with the end mark of OpenMetrics."""
