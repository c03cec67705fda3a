"""The latest record of each task or node, and how listings change them.

Pages are no snapshot: a listing may lack a record, or show it twice, once in an older version.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from exporter.batch.client import MAX_RECORDS
from exporter.batch.errors import TooLarge

MISSING = "missing"
"""The last part of a saved record's key if the record is missing."""

MAX_MISSING = 100_000
"""Missing records that are kept of a job's tasks, or of one of its special tasks in a pool.

Workflow engines delete tasks as these succeed, so a long job would collect them without end. A
listing loses records between two pages for a short time only: the latest ones are those that may
come back.
"""


def check_number(numbers: Iterable[int]) -> None:
    """TooLarge where these are more records, all told, than are kept of a job."""
    if sum(numbers) > MAX_RECORDS:
        raise TooLarge(f"the job has more than {MAX_RECORDS} records")


class Versioned(Protocol):
    """A record as a listing shows it."""

    def is_older_than(self, known: Any, /) -> bool:
        """Whether this is an earlier version of the known record."""


R = TypeVar("R", bound=Versioned)
"""A record as a listing shows it."""

K = TypeVar("K")
"""What is kept of a record."""


class KnownRecords(msgspec.Struct, Generic[R, K], frozen=True, gc=False):
    """Records by task or node id.

    `missing`: the last known records of ids that listings lack, in the order in which they went
    missing. One that comes back is not counted again.
    """

    latest: Mapping[str, K] = {}
    missing: Mapping[str, K] = {}

    def changes(
        self, ids: Iterable[str], records: Iterable[R], found: dict[str, R | K]
    ) -> Iterator[tuple[int, R | K | None]]:
        """The position in a listing of each record that is new or changed, and the record before.

        `found` receives the latest record of each id in the listing.
        """
        for number, (key, record) in enumerate(zip(ids, records, strict=True)):
            before = found.get(key)
            if before is None:
                before = self.latest.get(key)
            if before is None:
                before = self.missing.get(key)
            if before is not None and (record == before or record.is_older_than(before)):
                found[key] = before
            else:
                found[key] = record
                yield number, before

    def after(
        self, found: dict[str, K], expected: Iterable[str] | None
    ) -> tuple[dict[str, K], dict[str, K]]:
        """The latest and the missing records after a listing, which may share `found`.

        `expected`: ids that the listing must have; an absent one was deleted. None: a full listing.
        """
        missing = {key: last for key, last in self.missing.items() if key not in found}
        for key in tuple(islice(missing, max(0, len(missing) - MAX_MISSING))):
            del missing[key]
        candidates = self.latest if expected is None else expected
        gone = {key: self.latest[key] for key in candidates if key not in found}
        missing.update(gone)
        if expected is None:
            return found, missing
        latest = dict(self.latest)
        latest.update(found)
        for key in gone:
            del latest[key]
        return latest, missing

    def all(self) -> Iterator[tuple[tuple[str, ...], K | None]]:
        """All records to save, by key."""
        return self.changed_since(KnownRecords(), self.latest)

    def changed_since(
        self, before: KnownRecords[R, K], ids: Iterable[str]
    ) -> Iterator[tuple[tuple[str, ...], K | None]]:
        """The records to save, by key; None: to delete. `ids`: those of the listing in between.

        Missing records are saved too: they may come back after a restart.
        """
        if self is before:
            return
        for key in ids:
            if self.latest[key] is not before.latest.get(key):
                yield (key,), self.latest[key]
        for key in before.missing:
            if key not in self.missing:
                yield (key, MISSING), None
        for key, record in self.missing.items():
            if key not in before.missing:
                yield (key,), None
                yield (key, MISSING), record
