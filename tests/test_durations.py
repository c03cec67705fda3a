"""Prometheus durations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.config.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("150ms", 0.15),
        ("1d", 86400),
        ("1w", 604800),
        ("1y", 31536000),
        ("0", 0),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        *[(text, "write for example 30s, 5m or 1h30m") for text in ("", "30", "s", "-5s")],
        ("5 m", r"did you mean 5m\?"),
        ("1m1h", r"did you mean 1h1m\?"),
        ("1.5h", r"did you mean 1h30m\?"),
        ("30S", r"did you mean 30s\?"),
    ],
)
def test_what_is_no_duration_is_refused_with_a_cure(text: str, cure: str) -> None:
    with pytest.raises(ValueError, match=cure):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**12))
def test_a_duration_survives_writing_and_reading(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds)
