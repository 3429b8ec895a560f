"""What the framework costs: a training step of the digits net under jellyfit and Lightning, over a plain PyTorch loop.

Both train the same net on the same batches with the same loss and optimizer, a step of the one after a step of the
other (on a GPU, 20), so that whatever else the machine does meets both alike; the figure is the median of the
differences, over the median of the plain step. Freed memory is kept for both, as `jellyfit fit` does it: what glibc
gives back and maps anew, in one step or another, is ten times that.
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
from jellyfit.datamodules import Batch, as_batch
from jellyfit.memory import keep_freed_memory
from jellyfit.tasks import ClassificationTask

UNCOUNTED = 20  # steps at the start


def make_net() -> backbones.SpikingConvNet:
    torch.manual_seed(0)
    neuron = neurons.LIFNode(tau=2.0, detach_reset=True, surrogate_function=surrogates.ATan())
    return backbones.SpikingConvNet((2, 34, 34), 10, neuron=neuron)


def make_batches(steps: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    frames = [torch.randint(0, 3, (10, 32, 2, 34, 34), dtype=torch.uint8, generator=generator) for _ in range(4)]
    return [Batch(frames[i % 4], torch.arange(32) % 10) for i in range(steps)]


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


class Alternate(PlainProgress):
    """After every ``block`` steps of the trainer, as many of the plain loop; both are timed, in seconds a step.

    It is the progress callback itself: another one would be asked at every hook too, and be counted.
    """

    def __init__(self, device: torch.device, block: int) -> None:
        super().__init__()
        self.device, self.block = device, block
        self.net, self.loss_function = make_net().to(device), losses.PerStepCrossEntropy()
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=0.002)
        self.framework: list[float] = []
        self.plain: list[float] = []
        self.end = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % self.block:
            return
        begin = self.now()
        for _ in range(self.block):
            plain_step(self.net, self.loss_function, self.optimizer, batch, self.device)
        end = self.now()
        if batch_idx >= UNCOUNTED:
            self.framework.append((begin - self.end) / self.block)
            self.plain.append((end - begin) / self.block)
        self.end = end

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def alternate(batches: list[Batch], device: torch.device) -> Alternate:
    block = 20 if device.type == "cuda" else 1  # a GPU is waited for only at their ends, as in training
    task = ClassificationTask(
        make_net(),
        loss=losses.PerStepCrossEntropy(),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.002),
    )
    both = Alternate(device, block)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[both],
    )
    trainer.fit(task, DataLoader(batches, batch_size=None, collate_fn=as_batch))
    return both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help=f"steps of each, after {UNCOUNTED} that do not count")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    keep_freed_memory()
    device = torch.device(arguments.device)
    both = alternate(make_batches(arguments.steps + UNCOUNTED), device)
    differences = [framework - plain for framework, plain in zip(both.framework, both.plain, strict=True)]
    plain = statistics.median(both.plain)
    low, middle, high = (100 * value / plain for value in statistics.quantiles(differences, n=4))
    figures = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU",
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "lightning": pl.__version__,
        "threads": torch.get_num_threads(),
        "steps": arguments.steps,
        "plain_ms": 1e3 * plain,
        "jellyfit_ms": 1e3 * statistics.median(both.framework),
        "overhead_percent": middle,
        "overhead_percent_quartiles": [low, high],
    }
    print(f"plain PyTorch {figures['plain_ms']:.2f} ms/step, jellyfit {figures['jellyfit_ms']:.2f} ms/step")
    print(f"overhead {middle:.2f} % (quartiles of single steps: {low:.1f} to {high:.1f} %)")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
