"""``benchmarks/scaling.py`` runs and gives figures that make sense; how large they are is no test's business."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_throughput_of_two_processes_against_one(tmp_path: Path) -> None:
    small = ("--T=2", "--batch=1", "--size=32", "--steps=2", "--warmup=1", "--turns=1")
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/scaling.py"), *small, "--json", str(tmp_path / "figures.json")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    one, two = (figures["seconds_a_step"][number]["median"] for number in "12")
    assert figures["efficiency"]["median"] == pytest.approx(one / two)
    assert figures["sent_bytes"] == figures["gradient_bytes"], "of two processes each sends as much as there is"
    assert "efficiency" in done.stdout
