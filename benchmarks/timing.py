"""How the benchmarks measure: contenders take turns, and what counts is the ratio within a turn.

A machine's speed changes while one measures (other programs, clock frequency, heat). Contenders that run one after the
other within a turn meet about the same machine, so ratios within a turn are steadier than times. The order changes from
turn to turn: whoever runs after a contender that has filled the caches is slower for it.
"""

from __future__ import annotations

import gc
import math
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from jellyfit import native


def once(call: Callable[[], object], number: int = 1) -> float:
    """Seconds of one call, as the mean of ``number`` calls."""
    begin = time.perf_counter()
    for _ in range(number):
        call()
    return (time.perf_counter() - begin) / number


def take_turns(
    calls: Mapping[str, Callable[[], object]],
    seconds: float,
    turns: tuple[int, int] = (3, 40),
    at_least: float = 5e-3,
    long: Collection[str] = (),
) -> dict[str, list[float]]:
    """Seconds of a call in each turn, by contender: A B C, C A B, ... The contenders have run before.

    Args:
        calls: the contenders.
        seconds: how long to go on.
        turns: fewest and most turns.
        at_least: seconds that a contender runs in a turn: short calls are repeated.
        long: contenders known to take longer than that.
    """
    number = {name: 1 if name in long else math.ceil(at_least / once(call)) for name, call in calls.items()}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    gc.freeze()  # so that collecting looks at what the contenders leave, not at all of PyTorch
    shuffle = random.Random(0).shuffle
    order = list(calls)
    begin = time.perf_counter()
    done = 0
    while done < turns[0] or (done < turns[1] and time.perf_counter() - begin < seconds):
        gc.collect()
        shuffle(order)
        for name in order:
            if number[name] > 1:  # finds the caches full of what another contender left: not a matter of its speed
                calls[name]()
            taken[name].append(once(calls[name], number[name]))
        done += 1
    gc.unfreeze()
    return taken


def spread(figures: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = statistics.quantiles(figures, n=4, method="inclusive") if len(figures) > 1 else [*figures] * 3
    return {"median": median, "low": low, "high": high, "turns": len(figures)}


def ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of the ratios within turns."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


def machine() -> dict[str, Any]:
    """What was measured on."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "date": time.strftime("%Y-%m-%d"),
        "system": f"{platform.system()} {platform.machine()}",
        "huge_pages": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "compiler": native.status().version,
    }


def _cpu() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
