"""Patterns of rules, and the ids that they are to match: a match, none, or a ValueError."""

from __future__ import annotations

from exporter.config.patterns import Pattern


def target(data: bytes) -> None:
    """Take the first line as a pattern, the rest as an id."""
    text, _, job_id = data.decode("utf-8", "replace").partition("\n")
    try:
        pattern = Pattern(text)
    except ValueError:
        return
    groups = pattern.groups(job_id)
    assert groups is None or set(groups) == set(pattern.names)
