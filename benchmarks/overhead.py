"""What the framework costs: a training step of the digits net under jellyfit and Lightning, over a plain PyTorch loop.

Both train the same net on the same batches with the same loss and optimizer, taking turns in one process; the figure
is the median, over the turns, of the ratio of the times per step, `jellyfit / plain - 1`. Freed memory is kept for
both, as `jellyfit fit` does it: what glibc gives back and maps anew, in one turn or another, is ten times that.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from jellyfit import backbones, losses, neurons, surrogates
from jellyfit.callbacks import PlainProgress
from jellyfit.datamodules import Batch
from jellyfit.memory import keep_freed_memory
from jellyfit.tasks import ClassificationTask


def make_net() -> backbones.SpikingConvNet:
    torch.manual_seed(0)
    neuron = neurons.LIFNode(tau=2.0, detach_reset=True, surrogate_function=surrogates.ATan())
    return backbones.SpikingConvNet((2, 34, 34), 10, neuron=neuron)


def make_batches(steps: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    frames = [torch.randint(0, 3, (10, 32, 2, 34, 34), dtype=torch.uint8, generator=generator) for _ in range(4)]
    return [Batch(frames[i % 4], torch.arange(32) % 10) for i in range(steps)]


def plain(batches: list[Batch], device: torch.device) -> float:
    net, loss_function = make_net().to(device), losses.PerStepCrossEntropy()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.002)
    net.train()
    for batch in batches[:3]:
        plain_step(net, loss_function, optimizer, batch, device)
    synchronise(device)
    begin = time.perf_counter()
    for batch in batches[3:]:
        plain_step(net, loss_function, optimizer, batch, device)
    synchronise(device)
    return (time.perf_counter() - begin) / (len(batches) - 3)


def plain_step(
    net: torch.nn.Module,
    loss_function: losses.Loss,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    device: torch.device,
) -> None:
    x, y = batch.x.to(device).float(), batch.y.to(device)
    loss = loss_function(net(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


class Stopwatch(pl.Callback):
    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.begin = self.end = 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        if batch_idx == 3:
            synchronise(self.device)
            self.begin = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        synchronise(self.device)
        self.end = time.perf_counter()


def framework(batches: list[Batch], device: torch.device) -> float:
    task = ClassificationTask(
        make_net(),
        loss=losses.PerStepCrossEntropy(),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.002),
    )
    watch = Stopwatch(device)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[PlainProgress(), watch],
    )
    trainer.fit(task, DataLoader(batches, batch_size=None))
    return (watch.end - watch.begin) / (len(batches) - 3)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=33, help="training steps a turn, the first 3 not counted")
    parser.add_argument("--turns", type=int, default=7, help="turns of each")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    keep_freed_memory()
    device = torch.device(arguments.device)
    batches = make_batches(arguments.steps)
    pairs = [(plain(batches, device), framework(batches, device)) for _ in range(arguments.turns)]
    ratios = sorted(b / a for a, b in pairs)
    figures = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU",
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "lightning": pl.__version__,
        "plain_ms": 1e3 * statistics.median(a for a, _ in pairs),
        "jellyfit_ms": 1e3 * statistics.median(b for _, b in pairs),
        "overhead_percent": 100 * (statistics.median(ratios) - 1),
        "overhead_percent_per_turn": [100 * (ratio - 1) for ratio in ratios],
    }
    print(f"plain PyTorch {figures['plain_ms']:.2f} ms/step, jellyfit {figures['jellyfit_ms']:.2f} ms/step")
    print(f"overhead {figures['overhead_percent']:.2f} % (turns: {ratios[0] - 1:.1%} to {ratios[-1] - 1:.1%})")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
