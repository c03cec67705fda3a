"""The base of what is kept of each job."""

from __future__ import annotations

import msgspec


class StateRecord(msgspec.Struct, frozen=True, gc=False):
    """A value that is replaced and never changed, so it cannot be part of a reference cycle.

    The garbage collector need not look at it. With 10,000 jobs, looking at everything that is kept
    of them stops the process for a quarter of a second.
    """
