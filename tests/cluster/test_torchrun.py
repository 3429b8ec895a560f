"""examples/slurm/torchrun.sh with two processes on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.cluster.runs import SMALL, callback, last, rows, run
from tests.conftest import ROOT

SCRIPTS = sorted((ROOT / "examples/slurm").iterdir())


@pytest.mark.slow
def test_a_killed_worker_is_started_again_and_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    kill = callback("SignalAt", step=15, number=int(signal.SIGKILL), rank=1)  # within the second epoch
    settings = ("--data.batch_size=2", "--trainer.devices=auto")
    environment = {"PROCESSES": "2", "RESTARTS": "1", "RUN_ID": "elastic", "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", str(ROOT / "examples/slurm/torchrun.sh"), "small.yaml", *settings, *kill],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sent-1").exists(), "the worker was killed"
    assert "job-elastic was started before: goes on from runs/small/job-elastic/checkpoints/last.ckpt" in done.stdout
    assert [row["epoch"] for row in rows(tmp_path, "small", "job-elastic")] == [0, 1, 2]
    run(tmp_path, "--data.batch_size=4", "--name=one")
    for name, tensor in last(tmp_path, "one")["state_dict"].items():
        found = last(tmp_path, "small", "job-elastic")["state_dict"][name]
        torch.testing.assert_close(found, tensor, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_say_how_they_are_used(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    outcome = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    assert outcome.returncode == 2
    assert outcome.stderr.startswith("usage: ")
    assert "set -euo pipefail" in script.read_text()
