"""Durations of the configuration and of the service: seconds, or ValueError."""

from __future__ import annotations

from exporter.batch.models import duration_seconds
from exporter.config.durations import format_duration, parse_duration


def target(data: bytes) -> None:
    """Read the text as both kinds of duration."""
    text = data.decode("utf-8", "replace")
    try:
        seconds = parse_duration(text)
    except ValueError:
        pass
    else:
        assert parse_duration(format_duration(seconds)) == round(seconds, 3)
    try:
        seconds = duration_seconds(text)
    except ValueError:
        pass
    else:
        assert isinstance(seconds, float)
        assert seconds == seconds, "not a number"
