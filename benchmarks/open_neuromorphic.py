"""The net of the Open Neuromorphic benchmark: one Linear(n, n) and one LIF, batch 16, 500 time steps, on the CPU.

    python benchmarks/open_neuromorphic.py [--quick] [--sizes 512 4096] [--threads N] [--json PATH]

Seconds of forward and of backward (of the sum of the spikes), and the peak of the process's memory. Unlike the original
(open-neuromorphic.org, "Spiking neural network framework benchmarking", 2023), all run the same LIF (``peers.py``;
spikes and gradients are compared first), and all apply the Linear to the whole sequence at once, which is the faster
way. jellyfit's net has its own Linear, the others torch's; "Linear alone" and "ours alone" are these without a neuron:
what is above them is what the neuron costs.

Each measurement has a process of its own, which warms up on a small net; contenders take turns. What does not fit into
memory, or takes too long, is left out and said.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import peers
import torch
from timing import machine, ratio, spread
from torch import nn

from jellyfit import layers

ALONE, OURS_ALONE = "Linear alone", "ours alone"
NAMES = (ALONE, OURS_ALONE, "jellyfit", "eager", *peers.LIBRARIES)


def runner_of(name: str) -> peers.Runner:
    if name in (ALONE, OURS_ALONE):
        return peers.Runner(lambda current: current)
    if name in ("jellyfit", "eager"):
        return peers.ours(peers.main_neuron("LIF"), "torch" if name == "eager" else "auto")
    (peer,) = peers.peers("LIF", without=[library for library in peers.LIBRARIES if library != name])
    return peer.runner


def net(n: int, runner: peers.Runner, linear_layer: type[nn.Linear] = nn.Linear) -> peers.Runner:
    """``Linear(n, n)`` and a neuron, as one runner."""
    torch.manual_seed(0)
    linear = linear_layer(n, n)
    return peers.Runner(lambda x: runner.run(linear(x)), tuple(linear.parameters()), linear)


def data(T: int, B: int, n: int) -> torch.Tensor:
    """Normal input, as in the original, but strong enough for neurons to fire now and then."""
    return torch.empty(T, B, n).normal_(0.0, 3.0, generator=torch.Generator().manual_seed(0))


def gib() -> float:
    """Largest memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def child(name: str, T: int, B: int, n: int) -> dict[str, float]:
    """One measurement, in this process."""
    runner, linear = runner_of(name), layers.Linear if name in ("jellyfit", OURS_ALONE) else nn.Linear
    once(net(64, runner, linear), data(T, B, 64))  # first use
    before = gib()
    made, x = net(n, runner, linear), data(T, B, n)
    runs = [once(made, x)]
    while sum(run["forward"] + run["backward"] for run in runs) < 2.0 and len(runs) < 20:
        runs.append(once(made, x))
    medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    return {**medians, "peak_gib": gib(), "gib_before": before, "runs": len(runs)}


def once(made: peers.Runner, x: torch.Tensor) -> dict[str, float]:
    made.module.zero_grad()
    begin = time.perf_counter()
    spikes = made.run(x)
    middle = time.perf_counter()
    spikes.sum().backward()
    end = time.perf_counter()
    return {"forward": middle - begin, "backward": end - middle, "firing_rate": float(spikes.detach().mean())}


def checks(without: list[str]) -> list[dict[str, Any]]:
    """All contenders on a small net."""
    x, grad = data(50, 4, 64), torch.randn(50, 4, 64)
    eager = net(64, runner_of("eager"))
    found = [peers.check("jellyfit", net(64, runner_of("jellyfit")), eager, x, grad)]
    for peer in peers.peers("LIF", without):
        twin = eager if peer.twin is None else net(64, peers.ours(peer.twin, "torch"))
        found.append(peers.check(peer.what, net(64, peer.runner), twin, x, grad))
    return found


def measure(T: int, B: int, n: int, options: argparse.Namespace, expected: float) -> dict[str, Any]:
    result: dict[str, Any] = {"n": n, "T": T, "B": B, "skipped": {}}
    weights, activity = 2 * 4 * n * n / 2**30, 4 * T * B * n / 2**30
    need = weights + 8 * activity  # input, current, spikes, two gradients, and what eager PyTorch keeps
    if need > options.gib:
        return result | {"skipped": {"all": f"too large: about {need:.0f} GiB"}}
    if expected > options.cap:
        return result | {"skipped": {"all": f"too slow: about {expected:.0f} s a contender"}}
    absent = [name for name in peers.LIBRARIES if name in options.without or not peers.installed(name)]
    result["skipped"] = dict.fromkeys(absent, "not installed")
    names = [name for name in NAMES if name not in absent]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    begin = time.perf_counter()
    while not runs[names[0]] or (len(runs[names[0]]) < options.turns and time.perf_counter() - begin < options.seconds):
        for name in names:
            command = [sys.executable, __file__, "--child", name, "--sizes", str(n), "--steps", str(T)]
            command += ["--batch", str(B), "--threads", str(torch.get_num_threads())]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
    total = {name: [run["forward"] + run["backward"] for run in many] for name, many in runs.items()}
    for name, many in runs.items():
        alone = OURS_ALONE if name in ("jellyfit", OURS_ALONE) else ALONE
        result[name] = {
            "forward_s": spread([run["forward"] for run in many]),
            "backward_s": spread([run["backward"] for run in many]),
            "times_jellyfit": ratio(total[name], total["jellyfit"]),
            "above_linear_s": spread([a - b for a, b in zip(total[name], total[alone], strict=True)]),
            "peak_gib": max(run["peak_gib"] for run in many),
            "gib_before": max(run["gib_before"] for run in many),
            "firing_rate": many[0]["firing_rate"],
        }
    return result


def show(result: dict[str, Any]) -> None:
    n, skipped = result["n"], result["skipped"]
    if "all" in skipped:
        print(f"{n:>6} skipped: {skipped['all']}", flush=True)
        return
    for name in NAMES:
        if name in skipped:
            print(f"{n:>6} {name:>13} {skipped[name]}")
            continue
        row = result[name]
        ratios = row["times_jellyfit"]
        print(
            f"{n:>6} {name:>13} {row['forward_s']['median']:>10.4f} {row['backward_s']['median']:>11.4f} "
            f"{ratios['median']:>7.2f} ({ratios['low']:.2f}-{ratios['high']:.2f}) "
            f"{1e3 * row['above_linear_s']['median']:>12.0f} {row['peak_gib']:>9.2f}",
            flush=True,
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one turn of the smallest size")
    parser.add_argument("--sizes", type=int, nargs="+", help="n, default 512 4096 8192 16384")
    parser.add_argument("--steps", type=int, default=500, help="T, default 500")
    parser.add_argument("--batch", type=int, default=16, help="default 16")
    parser.add_argument("--threads", type=int, help="default: PyTorch's")
    parser.add_argument("--turns", type=int, help="most turns of a size, default 5")
    parser.add_argument(
        "--seconds", type=float, default=240.0, help="no further turn of a size after these, default 240"
    )
    parser.add_argument("--cap", type=float, default=120.0, help="most seconds of forward + backward, default 120")
    parser.add_argument("--gib", type=float, default=12.0, help="most memory for a contender, default 12")
    parser.add_argument("--without", nargs="*", choices=list(peers.LIBRARIES), default=[], help="leave these peers out")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--child", choices=NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.sizes = options.sizes or ([512] if options.quick else [512, 4096, 8192, 16384])
    options.turns = options.turns or (1 if options.quick else 5)
    return options


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.child:
        print(json.dumps(child(options.child, options.steps, options.batch, options.sizes[0])))
        return
    figures: dict[str, Any] = {"machine": machine(), "checks": checks(options.without), "nets": []}
    figures["libraries"] = {library: peers.version(library) for library in peers.LIBRARIES}
    print(json.dumps({key: figures[key] for key in ("machine", "libraries")}, indent=1))
    different = [check for check in figures["checks"] if not check["equal"]]
    if different:
        raise SystemExit(f"These do not run the same neuron: {different}")
    print(f"\nLinear(n, n) + LIF, T={options.steps}, B={options.batch}")
    print(f"{'n':>6} {'':>13} {'forward, s':>10} {'backward, s':>11} {'x jellyfit':>19} {'neuron, ms':>12} {'GiB':>9}")
    seconds_per_weight = 0.0
    for n in options.sizes:
        result = measure(options.steps, options.batch, n, options, seconds_per_weight * n * n)
        figures["nets"].append(result)
        show(result)
        slowest = [
            row["forward_s"]["median"] + row["backward_s"]["median"]
            for row in result.values()
            if isinstance(row, dict) and "forward_s" in row
        ]
        seconds_per_weight = max(slowest) / n**2 if slowest else seconds_per_weight
        if options.json:
            options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
