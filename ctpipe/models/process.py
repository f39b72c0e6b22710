"""What a process that runs forward passes does: how many threads torch has, and what becomes of freed memory."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

# Blocks from here on are taken from the system and given back (glibc: 128 KiB at first, 32 MiB once such were freed) …
LARGE_BYTES = 16 << 20
# … and so much of the rest is kept: small tensors come and go by the thousand.
KEPT_BYTES = 16 << 20
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of mallopt(3)


def use_threads(threads: int) -> None:
    """Let torch use `threads` threads in this thread's operations: their number changes the last bits of sums."""
    import torch

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


@cache
def give_back_large_blocks() -> None:
    """Let malloc keep no freed block of LARGE_BYTES or more, in this process; elsewhere than on glibc nothing is done.

    Reading, scoring and reducing run in threads of their own, and glibc keeps what each has freed for that thread
    alone: a stream of planes held twice what it used (docs/decisions/0016). Threads begun from here on share one heap.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
