"""Headers that the transport reads: Retry-After on the first line, Date on the second."""

from __future__ import annotations

from typing import Any

from exporter.batch import transport
from exporter.batch.transport import Transport
from exporter.collectors import preparation_release, tasks

_NOTHING: Any = None


def target(data: bytes) -> None:
    """Any header has a meaning or none, and what follows from it can be asked for."""
    first, _, second = data.decode("latin-1").partition("\n")
    headers = {"retry-after": first, "date": second}
    pause = transport._retry_after(headers)
    assert pause is None or pause == pause
    reader = Transport(
        http=_NOTHING,
        auth=_NOTHING,
        budget=_NOTHING,
        observer=_NOTHING,
        request_timeout=1.0,
        now=lambda: 1_750_000_000.0,
    )
    offset = reader._offset(headers)
    for _ in range(2 if offset is not None else 0):  # one answer is no proof
        reader.clock.note(offset)
    moment = 1_750_000_000.0 + reader.clock.offset_for_changes
    for changes_since in (preparation_release.changes_since, tasks.changes_since):
        assert "ime ge DateTime'" in changes_since(moment)
