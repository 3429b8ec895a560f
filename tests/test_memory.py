"""What a step frees is kept for the next one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's")

MIB = 30
GIVEN_BACK = f"""
import sys, torch
from jellyfit.memory import keep_freed_memory
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS:")).split()[1]) / 1024
print(keep_freed_memory() if sys.argv[1] == "keep" else "left")
step = torch.ones({MIB} << 18)
before = resident()
del step
print(before - resident())
"""


def run(how: str, **environment: str) -> tuple[str, float]:
    """What the call gave, and how many MiB of a tensor's went back to the system when it was freed."""
    done = subprocess.run(
        [sys.executable, "-c", GIVEN_BACK, how],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    said, given = done.stdout.split()
    return said, float(given)


def test_what_is_freed_stays_with_the_process() -> None:
    (_, left), (done, kept) = run("leave"), run("keep")
    assert done == "True"
    assert left > 0.9 * MIB
    assert kept < 0.1 * MIB


def test_settings_of_the_user_stay() -> None:
    said, given = run("keep", MALLOC_TOP_PAD_="0")
    assert said == "False"
    assert given > 0.9 * MIB
