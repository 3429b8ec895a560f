"""What the runs of these tests are made of; named in YAML and on command lines."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from jellyfit import layers, neurons
from jellyfit.backbones import Backbone
from jellyfit.datamodules import Sample, SpikingDataModule


class SignalAt(pl.Callback):
    """Send this process a signal in the midst of a batch, once.

    Args:
        step: of training, or with ``validation`` the epoch in whose validation.
        number: of the signal.
        rank: the process that gets it; -1 is all of them.
        once: a file that is made then; where it lies already, nothing is sent.
    """

    def __init__(
        self, step: int, number: int = int(signal.SIGINT), rank: int = 0, once: str = "sent", validation: bool = False
    ) -> None:
        self.step, self.number, self.rank, self.once, self.validation = step, number, rank, Path(once), validation

    def _send(self, trainer: pl.Trainer) -> None:
        file = self.once.with_name(f"{self.once.name}-{trainer.global_rank}")
        if self.rank in (-1, trainer.global_rank) and not file.exists():
            file.touch()
            os.kill(os.getpid(), self.number)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        if not self.validation and trainer.fit_loop.total_batch_idx == self.step:
            self._send(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        if self.validation and not trainer.sanity_checking and trainer.current_epoch == self.step:
            self._send(trainer)


class Losses(pl.Callback):
    """Write the loss of every batch of this process into ``FOLDER/RANK.json``."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *args: Any) -> None:
        self.losses.append(float(outputs["loss"]))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(self.losses))


class _Drawn(Dataset[Sample]):
    def __init__(self, size: int, draws: bool) -> None:
        self.size, self.draws = size, draws
        self.frames = torch.rand(size, 3, 12, generator=torch.Generator().manual_seed(size))

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        frame = self.frames[index] * (1 + index % 2)
        if self.draws:  # from all that people draw from
            frame = frame + torch.rand(12) * 0.1 + random.random() * 0.1 + float(np.random.rand()) * 0.1  # noqa: NPY002
        return Sample(frame, index % 2, f"sample-{index:03d}")


class Vectors(SpikingDataModule):
    """Random sequences; with ``draws`` others every time they are asked for."""

    classes = ("few", "many")

    def __init__(
        self,
        size: int = 48,
        draws: bool = False,
        note: str | None = None,
        per_node: bool = True,
        batch_size: int = 4,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, False, seed)
        self.size, self.draws, self.note = size, draws, note
        self.prepare_data_per_node = per_node

    def prepare_data(self) -> None:
        if self.note is not None:
            with Path(self.note).open("a") as file:
                file.write(f"node {self.trainer.node_rank} process {self.trainer.local_rank}\n")

    def dataset(self, split: str) -> Dataset[Sample]:
        return _Drawn(self.size if split == "train" else 10, self.draws and split == "train")


class Small(Backbone):
    """Two layers, with or without dropout, batch norm, and a layer that is never used."""

    def __init__(self, dropout: float = 0.0, norm: bool = False, unused: bool = False) -> None:
        super().__init__()
        self.num_classes = 2
        self.layers = nn.Sequential(
            layers.Linear(12, 16),
            layers.BatchNorm1d(16) if norm else nn.Identity(),
            neurons.ParametricLIFNode(),
            layers.Dropout(dropout),
            layers.Linear(16, 2),
        )
        self.spare = layers.Linear(3, 3) if unused else None
        self.set_step_mode("m")

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class States(pl.Callback):
    """Write which buffers DDP sends around and every process's potentials after a step into ``states-RANK.json``."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        nodes = [module for module in pl_module.modules() if isinstance(module, neurons.BaseNode)]
        sent = [name for name, _ in trainer.strategy.model.named_buffers()]
        found = {"buffers": sent, "v": nodes[0].v.flatten().tolist()}
        Path(f"states-{trainer.global_rank}.json").write_text(json.dumps(found))
