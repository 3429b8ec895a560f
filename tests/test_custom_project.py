"""examples/custom_project: a project of one's own, run as its README says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, start, wait


def test_a_custom_neuron_task_and_camera_train_from_their_own_folder(tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(ROOT / "examples" / "custom_project", project)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "my_project.make_data"], cwd=project, env=environment, check=True)
    fitted = wait(start(project, "fit", "-c", "my.yaml"))
    assert fitted.status == 0, fitted.err
    header, *rows = (project / "runs/my/0/metrics.csv").read_text().splitlines()
    assert {"train/f1", "val/f1", "firing_rate/conv.0.2"} <= set(header.split(","))
    assert len(rows) == 3
    assert "my_project.neuron.SquareLIF" in (project / "runs/my/0/config.yaml").read_text().replace(
        "my_project.SquareLIF", "my_project.neuron.SquareLIF"
    )
    tested = wait(start(project, "test", "-c", "my.yaml", "--ckpt_path", "best"))
    assert tested.status == 0, tested.err
    figures = dict(line.split(": ") for line in tested.out.splitlines() if line.startswith("test/"))
    assert float(figures["test/f1"]) > 0.9, "left and right are easy to tell apart"
