"""Reuse of freed memory: otherwise large tensors are returned to the system in every step and mapped again.

glibc returns freed blocks at once, and Linux hands pages out cleared, one fault each. Where a training step allocates
and frees the same hundreds of megabytes, that takes a fifth of a radiance field's step on a CPU.
"""

from __future__ import annotations

import ctypes
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # names of mallopt's settings in glibc's malloc.h
LARGEST = 2**31 - 1  # bytes free at the end of the heap before any are returned
LARGEST_MAPPED = 32 * 2**20  # bytes of a block from which on it is mapped by itself; glibc allows no more


def keep_freed_memory() -> None:
    """From now on, use freed blocks of up to 32 MB again. Nothing happens where the C library is not glibc."""
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(TRIM_THRESHOLD, LARGEST)
    mallopt(MMAP_THRESHOLD, LARGEST_MAPPED)
