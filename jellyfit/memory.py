"""Memory that a training step frees is kept for the next one, instead of being given back to the system each time."""

from __future__ import annotations

import ctypes
import os
import platform

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4  # glibc's numbers of its settings, from malloc.h
_LARGEST = 32 << 20  # the most that glibc takes for the threshold of mmap
_NEVER = 2**31 - 1
_USERS = (
    "GLIBC_TUNABLES",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_TOP_PAD_",
    "MALLOC_MMAP_MAX_",
)


def keep_freed_memory() -> bool:
    """Have this process keep what it frees, as long as it lives: on the CPU every step asks for the same memory again.

    By default glibc gives tensors of some MiB back to the system when they are freed, and the next ones are mapped anew
    page by page, zeroed. That is 5 to 25 % of a training step of the smaller networks here. The process then holds up
    to 12 % more memory at its peak (a fifth more where single tensors take tens of MiB), and what it has once held it
    holds until it ends. The numbers stay what they are. ``jellyfit fit`` calls this; another program calls it before it
    trains.

    Returns:
        Whether it was done: not without glibc (macOS, Windows, musl), and not where its settings are the user's
        (``GLIBC_TUNABLES``, ``MALLOC_MMAP_THRESHOLD_``, ``MALLOC_TRIM_THRESHOLD_``, ``MALLOC_TOP_PAD_`` or
        ``MALLOC_MMAP_MAX_``).

    Examples:
        >>> from jellyfit.memory import keep_freed_memory
        >>> keep_freed_memory() in (True, False)
        True
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _USERS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, 64 << 20), (_MMAP_MAX, 0))
    taken = [mallopt(name, value) for name, value in settings]  # all of them, also behind one that is refused
    return all(taken)
