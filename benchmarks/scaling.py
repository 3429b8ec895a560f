"""How throughput grows with processes: the same net and the same batch a process, on 1 and on 2 (or more) processes.

Each run is a group of processes started by this script (gloo on CPUs, NCCL on GPUs); within a turn the runs of 1 and of
N follow each other, in an order that changes. Efficiency is the time of a step with one process over that with N, from
the same turn: 1 when N processes do N times as much in the same time. On CPUs every process computes with
`cores / N` threads, with one process too, so that the processes of a group share the machine evenly:

    python benchmarks/scaling.py --net SpikingResNet --depth 18 --json benchmarks/results/scaling.json

Beside it stands what the gradients weigh, and the bytes that a ring all-reduce sends from each process in a step.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing
from timing import machine, spread
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from jellyfit import backbones, functional


def make_net(settings: argparse.Namespace) -> nn.Module:
    torch.manual_seed(0)
    make = getattr(backbones, settings.net)
    return make(settings.depth, num_classes=10, in_channels=settings.channels)  # type: ignore[no-any-return]


def steps(rank: int, number: int, port: int, settings: argparse.Namespace, out: Any) -> None:
    """One process of a group: seconds of each step after the warm-up, into ``out`` (of the first process)."""
    device = torch.device("cuda", rank) if settings.device == "cuda" else torch.device("cpu")
    if device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // settings.processes))
    else:
        torch.cuda.set_device(device)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    backend = "nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, rank=rank, world_size=number)
    net = make_net(settings).to(device)
    ddp = DistributedDataParallel(net) if number > 1 else net
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    generator = torch.Generator().manual_seed(rank)
    shape = (settings.T, settings.batch, settings.channels, settings.size, settings.size)
    x = torch.rand(shape, generator=generator).to(device)
    y = torch.randint(0, 10, (settings.batch,), generator=generator).to(device)
    taken = []
    for _ in range(settings.warmup + settings.steps):
        torch.distributed.barrier()
        begin = time.perf_counter()
        functional.reset_net(net)
        loss = nn.functional.cross_entropy(ddp(x).mean(0), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        torch.distributed.barrier()
        taken.append(time.perf_counter() - begin)
    if rank == 0:
        out.put(taken[settings.warmup :])
    torch.distributed.destroy_process_group()


def group(number: int, settings: argparse.Namespace) -> float:
    """Median seconds of a step of ``number`` processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = torch.multiprocessing.get_context("spawn").SimpleQueue()
    torch.multiprocessing.spawn(steps, (number, port, settings, out), nprocs=number)
    return statistics.median(out.get())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="SpikingResNet", help="a class of jellyfit.backbones that takes a depth")
    parser.add_argument("--depth", type=int, default=18)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--T", type=int, default=4, help="time steps")
    parser.add_argument("--batch", type=int, default=4, help="samples a process")
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--size", type=int, default=64, help="height and width in pixels")
    parser.add_argument("--steps", type=int, default=8, help="steps counted in a run")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--turns", type=int, default=5, help="runs of each")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", type=Path, help="write the figures here")
    settings = parser.parse_args()
    number = settings.processes
    seconds: dict[int, list[float]] = {1: [], number: []}
    order, shuffle = [1, number], random.Random(0).shuffle
    for _ in range(settings.turns):
        shuffle(order)
        for each in order:
            seconds[each].append(group(each, settings))
    efficiency = spread([one / many for one, many in zip(seconds[1], seconds[number], strict=True)])
    gradients = 4 * sum(parameter.numel() for parameter in make_net(settings).parameters())
    figures = {
        **{key: value for key, value in vars(settings).items() if key != "json"},
        "machine": machine(),
        "threads_a_process": max(1, (os.cpu_count() or 1) // number),
        "seconds_a_step": {str(each): spread(taken) for each, taken in seconds.items()},
        "efficiency": efficiency,
        "gradient_bytes": gradients,
        "sent_bytes": round(2 * (number - 1) / number * gradients),
    }
    one, many = (statistics.median(seconds[each]) for each in (1, number))
    print(
        f"{settings.net} {settings.depth}, T={settings.T}, {settings.batch} samples a process: {one:.3f} s a step with"
    )
    print(f"1 process, {many:.3f} s with {number}; gradients {gradients / 1e6:.1f} MB")
    print(f"efficiency {efficiency['median']:.0%} ({efficiency['low']:.0%} to {efficiency['high']:.0%})")
    if settings.json:
        settings.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
