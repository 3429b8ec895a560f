"""Batch norm over the batches of all processes: step modes stay, and two processes compute what one computes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import TorchSyncBatchNorm
from torch import nn

from jellyfit import layers
from jellyfit.backbones import SpikingConvNet
from jellyfit.callbacks import read_metrics
from jellyfit.errors import ConfigError
from jellyfit.tasks import ClassificationTask, StepModeSyncBatchNorm
from tests.conftest import ROOT, start, wait

MINE = """
import torch
from jellyfit.datamodules import InMemory, Sample, SpikingDataModule

class Frames(SpikingDataModule):
    classes = ("few", "many")

    def dataset(self, split):
        generator = torch.Generator().manual_seed(len(split))
        frames = [torch.rand(2, 1, 8, 8, generator=generator) * (1 + i % 2) for i in range(8)]
        return InMemory(Sample(frame, i % 2, str(i)) for i, frame in enumerate(frames))
"""

# 4 samples a process and 4 channels: where time is taken for the batch, no shape tells
MINE_YAML = """
model:
  class_path: jellyfit.tasks.ClassificationTask
  init_args:
    backbone:
      class_path: jellyfit.backbones.SpikingConvNet
      init_args: {input_size: [1, 8, 8], num_classes: 2, channels: [4, 4]}
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1}}
data: {class_path: frames_to_share.Frames, init_args: {batch_size: 8}}
trainer: {max_epochs: 4}
"""


def test_a_task_puts_its_own_plugin_in_the_place_of_lightnings() -> None:
    task = ClassificationTask(SpikingConvNet((1, 8, 8), 2))
    for given, expected in ((TorchSyncBatchNorm(), StepModeSyncBatchNorm), (None, type(None))):
        strategy = SimpleNamespace(_layer_sync=given)
        task._trainer = SimpleNamespace(strategy=strategy)  # type: ignore[assignment]
        task.setup("fit")
        assert type(strategy._layer_sync) is expected


def test_what_is_fitted_shares_statistics_and_then_is_what_it_was() -> None:
    net = nn.Sequential(
        layers.BatchNorm1d(3, step_mode="m"),
        nn.Sequential(layers.ThresholdDependentBatchNorm1d(1.0, 0.5, 3), layers.BatchNormThroughTime1d(4, 3)),
        nn.BatchNorm1d(3),
    )
    kinds, sync = [type(module) for module in net.modules()], StepModeSyncBatchNorm()
    parameters = list(net.parameters())
    assert sync.apply(net) is net
    shared = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert [type(module) for module in shared] == [layers.SyncBatchNorm] * (3 + 4)
    assert all(one is other for one, other in zip(net.parameters(), parameters, strict=True)), "what optimizers hold"
    net[0](torch.rand(4, 2, 3))
    learnt = {name: value.clone() for name, value in net.state_dict().items()}
    sync.revert(net.eval())
    assert [type(module) for module in net.modules()] == kinds
    assert net[1][0].alpha == 1.0 and net[0].step_mode == "m" and not net[0].training
    assert net.state_dict().keys() == learnt.keys()
    assert all(torch.equal(value, learnt[name]) for name, value in net.state_dict().items())
    assert learnt["0.running_mean"].abs().min() > 0


def test_a_norm_that_cannot_share_is_named() -> None:
    with pytest.raises(ConfigError, match="TemporalEffectiveBatchNorm1d.* has no form that shares"):
        StepModeSyncBatchNorm().apply(nn.Sequential(layers.TemporalEffectiveBatchNorm1d(4, 3)))


PART = """
import sys
import torch
import torch.distributed as dist
from tests.tasks.test_sync_batchnorm import one_step

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.save(one_step(slice(0, 3) if rank == 0 else slice(3, 8)), f"{sys.argv[1]}/{rank}.pt")
dist.destroy_process_group()
"""


def one_step(part: slice) -> dict[str, Any]:
    """A training pass over a part of 8 samples, through norms of all kinds, its loss a sum over samples."""
    generator = torch.Generator().manual_seed(0)
    x = (3 * torch.randn(4, 8, 3, 5, generator=generator) + 1)[:, part].requires_grad_()
    weights = torch.randn(4, 8, 3, 5, generator=generator)[:, part]
    norms = [
        layers.BatchNorm1d(3, step_mode="m"),
        layers.BatchNorm1d(3, momentum=None, affine=False, step_mode="m"),
        layers.BatchNorm1d(3, track_running_stats=False, step_mode="m"),
        layers.ThresholdDependentBatchNorm1d(1.0, 0.5, 3),
    ]
    net = layers.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(*norms))
    y = net(x).tanh()
    y = net(0.5 * y)  # a second batch: momentum=None averages over both
    (y * weights).sum().backward()
    grads = {name: parameter.grad for name, parameter in net.named_parameters()}
    return {"y": y.detach(), "x": x.grad, "grads": grads, "state": net.state_dict()}


@pytest.mark.slow
def test_two_processes_give_what_one_gives_of_the_joint_batch(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen([sys.executable, "-c", PART, tmp_path], cwd=ROOT, env={**common, "RANK": rank})
        for rank in ("0", "1")
    ]
    assert [process.wait(120) for process in processes] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    one = one_step(slice(0, 8))
    for name in ("y", "x"):
        torch.testing.assert_close(torch.cat([first[name], second[name]], 1), one[name], rtol=1e-4, atol=1e-6)
    for name, grad in one["grads"].items():
        torch.testing.assert_close(first["grads"][name] + second["grads"][name], grad, rtol=1e-4, atol=1e-5)
    for name, value in one["state"].items():
        for part in (first, second):
            torch.testing.assert_close(part["state"][name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_fit_of_two_processes_is_that_of_one_with_the_joint_batch(tmp_path: Path) -> None:
    (tmp_path / "frames_to_share.py").write_text(MINE)
    (tmp_path / "mine.yaml").write_text(MINE_YAML)
    two = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=4")
    for name, args in (("one", ()), ("two", (*two, "--trainer.sync_batchnorm=true")), ("apart", two)):
        outcome = wait(start(tmp_path, "fit", "-c", "mine.yaml", f"--name={name}", *args, OMP_NUM_THREADS="1"))
        assert outcome.status == 0, outcome.err
    weights = {
        name: torch.load(tmp_path / f"runs/{name}/0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("one", "two", "apart")
    }
    for key, value in weights["one"].items():
        torch.testing.assert_close(weights["two"][key], value, rtol=1e-4, atol=1e-5)
    key = "backbone.conv.0.1.running_var"
    assert not torch.allclose(weights["apart"][key], weights["one"][key], rtol=1e-4), "statistics of half a batch"
    losses = {name: read_metrics(tmp_path / f"runs/{name}/0/metrics.csv")[-1]["train/loss"] for name in weights}
    assert losses["two"] == pytest.approx(losses["one"], rel=1e-5)
