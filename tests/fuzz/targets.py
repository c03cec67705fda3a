"""The targets by name, and the inputs that are kept of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.fuzz import (
    answers,
    configuration,
    connection,
    durations,
    filters,
    headers,
    links,
    negotiation,
    patterns,
    queries,
    texts,
)

CORPUS = Path(__file__).parent / "corpus"

TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "answers": answers.target,
    "configuration": configuration.target,
    "connection": connection.target,
    "durations": durations.target,
    "filters": filters.target,
    "headers": headers.target,
    "links": links.target,
    "negotiation": negotiation.target,
    "patterns": patterns.target,
    "queries": queries.target,
    "texts": texts.target,
}


def corpus(name: str) -> list[bytes]:
    """The kept inputs of a target, in the order of their names."""
    return [file.read_bytes() for file in sorted((CORPUS / name).iterdir())]
