"""Progress of long work: a bar in a terminal, a few plain lines where output goes to a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

__all__ = ["track"]

Item = TypeVar("Item")


def track(
    items: Iterable[Item], description: str, total: int | None = None, every: float = 5.0, enabled: bool = True
) -> Iterator[Item]:
    """Yield ``items`` while showing how far the work is.

    Args:
        items: what is worked through.
        description: what is being done, e.g. ``"Simulating events"``.
        total: number of items; default ``len(items)``.
        every: seconds between plain lines when there is no terminal, default 5.
        enabled: ``False`` shows nothing.
    """
    if total is None:
        total = len(items) if isinstance(items, Sized) else 0
    if not enabled:
        yield from items
        return
    if sys.stdout.isatty():
        from rich.progress import track as rich_track

        yield from rich_track(items, description=description, total=total or None)
        return
    start = last = time.monotonic()
    count = 0
    for item in items:
        yield item
        count += 1
        now = time.monotonic()
        if now - last >= every and count < total:
            last = now
            print(f"{description}: {count}/{total} ({now - start:.0f} s)", flush=True)
    print(f"{description}: {count} done in {time.monotonic() - start:.1f} s", flush=True)
