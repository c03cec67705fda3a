"""Time as text."""

from datetime import UTC, datetime, timedelta

import pytest

from exporter.simulator import ticks

MOMENT = ticks.from_datetime(datetime(2025, 9, 3, 22, 41, 21, tzinfo=UTC))


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0, "2025-09-03T22:41:21Z"),
        (1, "2025-09-03T22:41:21.0000001Z"),
        (1_218_620, "2025-09-03T22:41:21.121862Z"),
        (9_573_160, "2025-09-03T22:41:21.957316Z"),
        (7_323_731, "2025-09-03T22:41:21.7323731Z"),
        (5_000_000, "2025-09-03T22:41:21.5Z"),
    ],
)
def test_a_timestamp_has_up_to_seven_digits_without_trailing_zeros(
    fraction: int, text: str
) -> None:
    assert ticks.timestamp(MOMENT + fraction) == text


def test_the_time_in_an_error_has_all_seven_digits() -> None:
    assert ticks.full_timestamp(MOMENT + 5_000_000) == "2025-09-03T22:41:21.5000000Z"


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (0, "PT0S"),
        (ticks.INFINITE, "P10675199DT2H48M5.4775807S"),
        (7 * ticks.DAY, "P7D"),
        (15 * ticks.MINUTE, "PT15M"),
        (ticks.HOUR, "PT1H"),
        (ticks.HOUR + 90 * ticks.SECOND + 5_000_000, "PT1H1M30.5S"),
        (ticks.DAY + 1, "P1DT0.0000001S"),
    ],
)
def test_a_duration_is_iso_8601_as_dotnet_writes_it(span: int, text: str) -> None:
    assert ticks.duration(span) == text


def test_an_etag_is_the_time_of_the_last_change_as_recorded() -> None:
    moment = ticks.from_datetime(datetime(2025, 9, 3, 22, 41, 23, tzinfo=UTC)) + 7_323_731
    assert ticks.etag(moment) == "0x8DDEB3B02B26BD3"


def test_a_moment_survives_the_way_there_and_back() -> None:
    moment = datetime(2026, 1, 5, 8, 0, 0, 123456, tzinfo=UTC)
    tick = ticks.from_datetime(moment)
    assert ticks.to_datetime(tick + 9) == moment
    assert ticks.to_seconds(tick) == pytest.approx(moment.timestamp(), abs=1e-6)
    assert ticks.to_datetime(tick + ticks.SECOND) - moment == timedelta(seconds=1)
