"""What glibc does with blocks of memory once its thresholds are fixed."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, json, sys
from exporter.service import allocator

class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info
if sys.argv[1] == "fixed":
    allocator.fix_thresholds()

def of_the_kernel(size):
    before = mallinfo().hblkhd
    block = bytearray(size)
    return mallinfo().hblkhd - before >= size

bytearray(16 << 20)  # taken, and free again
print(json.dumps([of_the_kernel(size) for size in (1 << 20, 5 << 20, 15 << 20)]))
"""


@pytest.mark.parametrize(
    ("way", "of_the_kernel"),
    [
        ("fixed", [False, True, True]),
        ("as it is", [False, False, False]),
    ],
)
def test_large_blocks_go_back_to_the_kernel_and_pages_of_records_do_not(
    way: str, of_the_kernel: list[bool]
) -> None:
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("the C library is not glibc, or one of before 2021")
    command = [sys.executable, "-c", PROGRAM, way]
    ran = subprocess.run(command, capture_output=True, check=True, text=True)
    assert json.loads(ran.stdout) == of_the_kernel
