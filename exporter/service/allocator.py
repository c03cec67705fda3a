"""What the C library is told about the memory of this process."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
"""Of glibc's malloc.h."""

LARGE = 4 * 1024 * 1024
"""Bytes from which on a block is the kernel's, and goes back to it when it is free."""

SPARE = 8 * 1024 * 1024
"""Bytes that may lie free at the end of the heap before they go back to the kernel."""


def fix_thresholds() -> None:
    """Take blocks up to `LARGE` from the process' own memory, and larger ones from the kernel.

    By itself glibc asks the kernel for each block of more than 128 KiB, and the kernel clears every
    page of it: for a page of a thousand records, 1.3 MB, that is a seventh of all that polling it
    takes. After the first block of 16 MB it would keep such blocks. Where there is another C
    library nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, LARGE)
    mallopt(_M_TRIM_THRESHOLD, SPARE)
