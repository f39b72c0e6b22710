"""What forward passes leave of the system's memory: run in processes of their own, since malloc's thresholds stay."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

# Frees one block, so that glibc would keep blocks of that size, then takes one and a small one behind it.
KEEPS = """
import ctypes, sys
from ctpipe.models.process import give_back_large_blocks

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20

def block(size):
    at = libc.malloc(size)
    ctypes.memset(at, 1, size)
    return at

if sys.argv[1] == "given back":
    give_back_large_blocks()
libc.free(block(24 << 20))
large, behind = block(20 << 20), block(100_000)
full = resident()
libc.free(large)
print(full - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone has these thresholds")
@pytest.mark.parametrize(("way", "given"), [("given back", 20), ("kept", 0)])
def test_a_freed_block_of_some_mebibytes_goes_back_to_the_system(way: str, given: int) -> None:
    """Decision 16."""
    done = subprocess.run([sys.executable, "-c", KEEPS, way], capture_output=True, text=True, check=True)
    assert abs(int(done.stdout) - given) <= 1


@pytest.mark.parametrize(("set_by_user", "seen"), [(None, "1"), ("0", "0")])
def test_torch_is_asked_for_huge_pages_unless_the_user_has_decided(set_by_user: str | None, seen: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    if set_by_user is not None:
        environment["THP_MEM_ALLOC_ENABLE"] = set_by_user
    line = "import ctpipe, os; print(os.environ['THP_MEM_ALLOC_ENABLE'])"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == seen
