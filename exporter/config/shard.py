"""Which jobs are this process's, where several share the accounts between them.

A rendezvous hash: each shard has a weight for each job, and the heaviest owns it. One shard more
takes its jobs from all the others evenly, and no job moves between those.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

MAX_COUNT = 1000
"""Shards at most: whoever writes more made a slip of the keyboard."""


@dataclass(frozen=True)
class Shard:
    """Shard `index`, counted from 0, of `count`."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """What `I/N` says. ValueError where it says nothing that can be."""
        match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text, re.ASCII)
        index, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not index < count <= MAX_COUNT:
            raise ValueError(
                f"{text!r} is no shard: write I/N, this process's number, counted from 0, and how"
                f" many there are (at most {MAX_COUNT}), as in 0/4"
            )
        return cls(index, count)

    def owns(self, account: str, job_id: str) -> bool:
        """Whether a job is this shard's: the same everywhere and for ever, in any case of letters.

        It costs some ln(count) hashes, for most jobs soon meet a shard that is heavier than ours.
        """
        if self.count == 1:
            return True
        name = f"{account}\0{job_id}".lower().encode()
        own = _weight(name, self.index)
        return all(_weight(name, other) < own for other in range(self.count) if other != self.index)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


WHOLE = Shard(0, 1)
"""The one shard of those who do not split their jobs."""


def _weight(name: bytes, index: int) -> bytes:
    # As the person of a BLAKE2, the shard's number costs nothing to join with the name.
    return hashlib.blake2b(name, digest_size=8, person=b"%d" % index).digest()
