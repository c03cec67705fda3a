"""A client that reads what a service shows, without a server between them."""

from __future__ import annotations

from exporter.service.service import Service


def read(service: Service) -> None:
    """A client scrapes, and what waited for that is shown; with a state file, once it is saved."""
    service.scrapes.note(("127.0.0.1", "Prometheus"), service.scrapes.now())
    service.store.flush()
