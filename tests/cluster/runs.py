"""Runs of one and of two processes, through the real command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import torch

from tests.conftest import Outcome, start, wait

TWO = ("--trainer.devices=2", "--trainer.strategy=ddp")

SMALL = """
model:
  class_path: jellyfit.tasks.ClassificationTask
  init_args:
    backbone: {class_path: tests.cluster.parts.Small}
    optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.01}}
data: {class_path: tests.cluster.parts.Vectors}
trainer: {max_epochs: 3, accelerator: cpu, devices: 1}
"""


def run(folder: Path, *args: object, status: int = 0, **environment: str) -> Outcome:
    """``jellyfit fit -c small.yaml ARGS``."""
    (folder / "small.yaml").write_text(SMALL)
    outcome = wait(start(folder, "fit", "-c", "small.yaml", *args, OMP_NUM_THREADS="1", **environment))
    assert outcome.status == status, outcome
    assert status == 1 or "Traceback" not in outcome.err, outcome.err
    return outcome


def callback(name: str, **arguments: object) -> list[str]:
    """Arguments that add a callback of ``parts``."""
    settings = [f"--trainer.callbacks.{key}={value}" for key, value in arguments.items()]
    return [f"--trainer.callbacks+=tests.cluster.parts.{name}", *settings]


def last(folder: Path, name: str, version: str = "0") -> dict[str, Any]:
    """The last checkpoint of a run."""
    path = folder / f"runs/{name}/{version}/checkpoints/last.ckpt"
    return torch.load(path, weights_only=True)  # type: ignore[no-any-return]


def metrics(folder: Path, name: str, version: str = "0") -> str:
    """The rows of a run."""
    return (folder / f"runs/{name}/{version}/metrics.csv").read_text()


def rows(folder: Path, name: str, version: str = "0") -> list[dict[str, float]]:
    """The rows of a run, as numbers."""
    reader = csv.DictReader(metrics(folder, name, version).splitlines())
    return [{key: float(value) for key, value in row.items() if value} for row in reader]


def losses(folder: Path) -> list[float]:
    """The loss of every batch of all processes: the mean of theirs."""
    parts = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [sum(each) / len(each) for each in zip(*parts, strict=True)]


def assert_same_state(first: dict[str, Any], second: dict[str, Any]) -> None:
    """The same weights and the same optimizer state, to the bit."""
    assert first["state_dict"].keys() == second["state_dict"].keys()
    for name, tensor in first["state_dict"].items():
        assert torch.equal(tensor, second["state_dict"][name]), name
    (one,), (two,) = first["optimizer_states"], second["optimizer_states"]
    for key, state in one["state"].items():
        for name, value in state.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(two["state"][key][name])), (key, name)
