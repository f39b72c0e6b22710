"""Freed arrays go back to the system at once, so that a stream's memory does not depend on its length."""

from __future__ import annotations

import ctypes
import sys

# glibc, malloc.h
_M_MMAP_THRESHOLD = -3
LARGE = 4 << 20  # bytes


def give_back_large_arrays() -> None:
    """From now on an array of LARGE bytes or more is memory of its own, in this process (glibc's mallopt(3)).

    glibc otherwise keeps arrays below 32 MiB in one heap for each thread once a few were freed, and our workers' heaps
    keep all: what a stream's three threads free lies there beside what they hold, the more the longer a run is (flat
    network of two layers, 512 x 512, 3 classes: 976 MiB after 100 planes, 1,046 after 400; so, 675 and 690). The price
    is pages that the system has to clear again. Elsewhere than on glibc nothing is done.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE)
