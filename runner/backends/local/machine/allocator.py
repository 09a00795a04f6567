"""Memory that libraries keep: freed tensors of some megabytes for the next one of their size, kernels by shape."""

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # mallopt(3)
MEBIBYTE = 2**20
KERNELS = "192"
"""Kernels that oneDNN keeps, instead of 1,024. Most batches have packs of new lengths, and a kernel is good for one
length: after 24 steps of the embedded model 1,024 kernels take 240 MB more and save no measurable time."""


def configure() -> None:
    """Let glibc keep what is freed, and oneDNN fewer kernels.

    By default a large tensor's memory goes back to the system when it is freed, and the next one of its size
    pays for every page again: a softmax over 60 MB takes 23 ms so, and 9 ms with memory that is there.
    32 MiB is the most that glibc allows. What a lane has freed is there for the others, too.
    """
    # Read when the first kernel is made (oneDNN, "Primitive Cache").
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, 32 * MEBIBYTE)
        libc.mallopt(_TRIM_THRESHOLD, 1024 * MEBIBYTE)
        # One arena for all threads: by default each lane would keep a heap of its own (mallopt(3)).
        libc.mallopt(_ARENA_MAX, 1)
