"""Jobs of a SLURM cluster, with a stand-in for ``scontrol``: stopped before time is up, queued again, going on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jellyfit.runs import job_run, slurm_job
from tests.cluster.runs import SMALL, assert_same_state, callback, last, metrics, run
from tests.conftest import ROOT, Outcome, start, wait

SETTINGS = ("--model.backbone.dropout=0.3", "--trainer.max_epochs=2")


def slurm(folder: Path, rank: int = 0, tasks: int = 1, scontrol: str = 'echo "$@" >> scontrol.txt') -> dict[str, str]:
    """The environment that srun gives to a task of job 4711."""
    program = folder / "bin/scontrol"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{scontrol}\n")
    program.chmod(0o755)
    return {
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": str(tasks),
        "SLURM_NTASKS_PER_NODE": str(tasks),
        "SLURM_NNODES": "1",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_NODEID": "0",
        "SLURM_STEP_ID": "0",
    }


def test_a_job_is_queued_again_before_its_time_is_up_and_goes_on_by_itself(tmp_path: Path) -> None:
    run(tmp_path, *SETTINGS, "--name=whole")
    stop = callback("SignalAt", step=15, number=int(signal.SIGUSR1))
    stopped = run(tmp_path, *SETTINGS, *stop, status=130, **slurm(tmp_path))
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 4711\n"
    assert "Saved runs/small/job-4711/checkpoints/last.ckpt. Job 4711 is queued again and goes on." in stopped.out
    assert last(tmp_path, "small", "job-4711")["global_step"] == 16

    again = run(tmp_path, *SETTINGS, *stop, **slurm(tmp_path))  # the same command
    assert "job-4711 was started before: goes on from runs/small/job-4711/checkpoints/last.ckpt" in again.out
    assert [path.name for path in (tmp_path / "runs/small").iterdir()] == ["job-4711"]
    assert_same_state(last(tmp_path, "whole"), last(tmp_path, "small", "job-4711"))
    assert metrics(tmp_path, "whole") == metrics(tmp_path, "small", "job-4711")
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 4711\n", "once"


def test_a_job_that_cannot_be_queued_again_trains_on(tmp_path: Path) -> None:
    run(tmp_path, *SETTINGS, "--name=whole")
    stop = callback("SignalAt", step=15, number=int(signal.SIGUSR1))
    refused = slurm(tmp_path, scontrol="echo Requested operation is presently disabled >&2; exit 1")
    outcome = run(tmp_path, *SETTINGS, *stop, **refused)
    assert "scontrol requeue 4711 failed (Requested operation is presently disabled); training goes on" in outcome.err
    assert_same_state(last(tmp_path, "whole"), last(tmp_path, "small", "job-4711"))
    assert metrics(tmp_path, "whole") == metrics(tmp_path, "small", "job-4711")


def both(folder: Path, *args: object, **environment: str) -> list[Outcome]:
    """Two tasks of a job, told apart by ``environment`` too: its values hold one for each, as in ``"0 1"``."""
    (folder / "small.yaml").write_text(SMALL)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in (0, 1):
        own = {key: value.split()[rank] for key, value in environment.items()}
        settings = {**slurm(folder, rank, 2), **own, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = ("fit", "-c", "small.yaml", "--data.batch_size=2", *args)
        started.append(start(folder, *command, OMP_NUM_THREADS="1", **settings))
    return [wait(process) for process in started]


SRUN = """#!/bin/sh
# the options of srun itself, then the command
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""


def test_the_batch_script_trains_is_queued_again_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    environment = {**os.environ, **slurm(tmp_path), "SLURM_JOB_NUM_NODES": "1", "PYTHONPATH": str(ROOT)}
    for name, text in (("srun", SRUN), ("jellyfit", f'#!/bin/sh\nexec {sys.executable} -m jellyfit "$@"\n')):
        program = tmp_path / "bin" / name
        program.write_text(text)
        program.chmod(0o755)
    stop = callback("SignalAt", step=15, number=int(signal.SIGUSR1))
    command = ["bash", str(ROOT / "examples/slurm/train.sbatch"), "small.yaml", *stop]
    ended = [subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True) for _ in range(2)]
    assert [each.returncode for each in ended] == [130, 0], ended
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 4711\n"
    assert "job-4711 was started before" in ended[1].stdout
    assert last(tmp_path, "small", "job-4711")["global_step"] == 36


@pytest.mark.slow
def test_two_tasks_stop_at_the_same_step_when_the_signal_meets_one_of_them(tmp_path: Path) -> None:
    settings = (*SETTINGS, "--trainer.devices=2", "--trainer.strategy=ddp")
    whole = both(tmp_path, *settings, "--name=whole")
    assert [outcome.status for outcome in whole] == [0, 0], whole
    stop = callback("SignalAt", step=15, number=int(signal.SIGUSR1), rank=1)
    stopped = both(tmp_path, *settings, *stop)
    assert [outcome.status for outcome in stopped] == [130, 130], stopped
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 4711\n", "by the first task alone"
    again = both(tmp_path, *settings, *stop)
    assert [outcome.status for outcome in again] == [0, 0], again
    assert_same_state(last(tmp_path, "whole", "job-4711"), last(tmp_path, "small", "job-4711"))
    assert metrics(tmp_path, "whole", "job-4711") == metrics(tmp_path, "small", "job-4711")


@pytest.mark.slow
@pytest.mark.parametrize("per_node", [True, False])
def test_data_are_prepared_once_on_each_node_or_once_in_all(tmp_path: Path, per_node: bool) -> None:
    nodes = {"SLURM_NNODES": "2 2", "SLURM_NODEID": "0 1", "SLURM_LOCALID": "0 0", "SLURM_NTASKS_PER_NODE": "1 1"}
    settings = ("--trainer.num_nodes=2", "--trainer.strategy=ddp", "--trainer.max_epochs=1")
    outcomes = both(tmp_path, *settings, "--data.note=note", f"--data.per_node={per_node}", **nodes)
    assert [outcome.status for outcome in outcomes] == [0, 0], outcomes
    lines = sorted((tmp_path / "note").read_text().splitlines())
    assert lines == ["node 0 process 0", "node 1 process 0"][: 2 if per_node else 1]


def test_sigterm_saves_as_ctrl_c_does(tmp_path: Path) -> None:
    stop = callback("SignalAt", step=15, number=int(signal.SIGTERM))
    stopped = run(tmp_path, *SETTINGS, *stop, status=130, **slurm(tmp_path))
    assert last(tmp_path, "small", "job-4711")["global_step"] == 16
    assert "Go on: jellyfit fit" in stopped.out
    assert not (tmp_path / "scontrol.txt").exists()


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "12"}, None),
        ({"SLURM_NTASKS": "1", "SLURM_JOB_ID": "12"}, "job-12"),
        ({"SLURM_NTASKS": "1", "SLURM_JOB_ID": "12", "SLURM_STEP_ID": "1"}, "job-12.1"),
        ({"SLURM_NTASKS": "1", "SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "bash"}, None),
        (
            {"SLURM_NTASKS": "1", "SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "3"},
            "job-9_3",
        ),
        ({"TORCHELASTIC_RUN_ID": "mine", "SLURM_NTASKS": "1", "SLURM_JOB_ID": "12"}, "job-mine"),
        ({"TORCHELASTIC_RUN_ID": "none"}, None),
    ],
)
def test_the_job_names_the_run_folder(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], name: str | None
) -> None:
    for key in [key for key in os.environ if key.startswith(("SLURM_", "TORCHELASTIC_"))]:
        monkeypatch.delenv(key)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    folder = job_run(Path("runs"), "name")
    assert folder == (None if name is None else Path("runs/name") / name)
    assert (slurm_job() is None) == ("SLURM_NTASKS" not in environment or "SLURM_JOB_NAME" in environment)
