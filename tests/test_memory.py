"""What a step frees is kept for the next one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's")

GIVEN_BACK = """
import sys, torch
from jellyfit.memory import keep_freed_memory
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS:")).split()[1]) / 1024
print(keep_freed_memory() if sys.argv[1] == "keep" else "left")
step = torch.ones(int(sys.argv[2]) << 18)
before = resident()
del step
print(before - resident())
"""


def run(how: str, mib: int = 30, **environment: str) -> tuple[str, float]:
    """What the call gave, and what share of a tensor's memory went back to the system when it was freed."""
    done = subprocess.run(
        [sys.executable, "-c", GIVEN_BACK, how, str(mib)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    said, given = done.stdout.split()
    return said, float(given) / mib


@pytest.mark.parametrize("mib", [30, 100])  # below and above 32 MiB, from which glibc always maps by default
def test_what_is_freed_stays_with_the_process(mib: int) -> None:
    (_, left), (done, kept) = run("leave", mib), run("keep", mib)
    assert done == "True"
    assert left > 0.9
    assert kept < 0.1


@pytest.mark.parametrize("name", ["MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_"])
def test_settings_of_the_user_stay(name: str) -> None:
    said, given = run("keep", **{name: "0" if name == "MALLOC_TOP_PAD_" else "65536"})
    assert said == "False"
    assert given > 0.9
