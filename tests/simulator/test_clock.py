"""Simulated time against real time."""

from datetime import UTC, datetime, timedelta

import pytest

from exporter.simulator import Clock

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


class Stopwatch:
    """Real time under the test's hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.parametrize(("speed", "passed"), [(1.0, 8.0), (60.0, 480.0), (0.5, 4.0), (0.0, 0.0)])
def test_simulated_time_passes_at_the_given_speed(speed: float, passed: float) -> None:
    stopwatch = Stopwatch()
    clock = Clock(START, speed=speed, monotonic=stopwatch)
    stopwatch.seconds += 8
    assert clock.now() - START == timedelta(seconds=passed)


def test_frozen_time_moves_by_hand() -> None:
    clock = Clock(START, speed=0)
    clock.advance(90)
    assert clock.now() == START + timedelta(seconds=90)


def test_time_does_not_run_backwards() -> None:
    with pytest.raises(ValueError, match="backwards"):
        Clock(START, speed=-1)
    with pytest.raises(ValueError, match="backwards"):
        Clock(START, speed=0).advance(-1)
