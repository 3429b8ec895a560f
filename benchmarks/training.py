"""One whole training step of networks: jellyfit against SpikingJelly's own, and against other libraries' neurons.

    python benchmarks/training.py [--quick] [--only nets ...] [--memory-format channels_last] [--json PATH]

A step is forward, cross entropy of the mean over time, backward and optimizer: the same net, weights, batch, T, dtype,
memory format and optimizer for all, in one process and in turns. Before they are timed, contenders are compared in
float64: outputs and all gradients. Figures are the others' times over jellyfit's within a turn; "eager" is jellyfit
with ``backend="torch"``. Dropout is off. Freed memory is kept, for all of them, as ``jellyfit fit`` does it
(``--give-back``: it is not).

"time" follows T, "memory" is what a process of its own takes for a step, "profile" is where jellyfit's step goes.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import nets
import peers
import torch
import torch.nn.functional as F
from nets import CASES, Case, Contender
from timing import machine, once, ratio, spread, take_turns
from torch import Tensor

from jellyfit.memory import keep_freed_memory
from jellyfit.profiling import LayerTimes, peak_memory

SECTIONS = ("nets", "time", "memory", "profile")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-3, momentum=0.9),
    "sgd-fused": lambda parameters: torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, fused=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-5),
    "adam-fused": lambda parameters: torch.optim.Adam(parameters, lr=1e-5, fused=True),
}


def data(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Uniform input that lets neurons of every layer fire, and labels."""
    generator = torch.Generator().manual_seed(0)
    return 2.0 * torch.rand(shape, generator=generator), torch.arange(shape[1]) % nets.CLASSES


def step_of(contender: Contender, x: Tensor, y: Tensor, options: argparse.Namespace) -> Callable[[], None]:
    """A training step as a function."""
    net = contender.net.train()
    if options.memory_format == "channels_last":
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = OPTIMIZERS[options.optimizer](net.parameters())
    half = DTYPES[options.dtype] is torch.bfloat16

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            loss = F.cross_entropy(contender.run(x).mean(0), y)
        loss.backward()
        optimizer.step()

    return step


# -------------------------------------------------------------------- comparing


def check(name: str, one: Contender, other: Contender, x: Tensor, y: Tensor) -> dict[str, Any]:
    """Largest differences of outputs and of gradients in float64, relative to the largest value."""
    found = [_gradients(contender, x.double(), y) for contender in (one, other)]
    least = 1e-6 * max(float(b.abs().max()) for b in found[1][1:])  # a bias before a norm has no gradient but roundings
    errors = [
        float((a - b).abs().max() / b.abs().max().clamp(min=least)) for a, b in zip(*found, strict=True) if a.numel()
    ]
    return {
        "check": name,
        "output_error": errors[0],
        "gradient_error": max(errors[1:]),
        "differing": int((found[0][0] - found[1][0]).abs().gt(1e-9).sum()),
        "equal": max(errors) < 1e-5 and bool(found[1][0].std() > 0),
    }


def _gradients(contender: Contender, x: Tensor, y: Tensor) -> list[Tensor]:
    """Output and gradients; the net's numbers are afterwards what they were."""
    net = contender.net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.double()
    output = contender.run(x)
    gradients = torch.autograd.grad(F.cross_entropy(output.mean(0), y), list(net.parameters()))
    net.float()
    net.load_state_dict(before)
    order = sorted(range(len(gradients)), key=lambda i: tuple(gradients[i].shape))  # libraries' orders differ
    return [output.detach(), *(gradients[i] for i in order)]


def compare(case: Case, found: dict[str, Contender], against: dict[str, str]) -> list[dict[str, Any]]:
    T, _, *frame = case.shape
    x, y = data((min(T, 4), 2, *frame))
    return [
        {"net": case.name, **check(f"{name} and {same}", found[name], found[same], x, y)}
        for name, same in against.items()
    ]


# -------------------------------------------------------------------- sections


def title(case: Case) -> str:
    T, N, _, H, W = case.shape
    return f"{case.name}, T={T} N={N} {H}x{W}"


def run_nets(options: argparse.Namespace, figures: dict[str, Any]) -> list[dict[str, Any]]:
    settings = f"{options.dtype}, {options.memory_format}, all with {options.optimizer}"
    print(f"\nTraining step; the others' times over jellyfit's ({settings})")
    columns = ("eager", *peers.LIBRARIES)
    print(f"{'':>36} {'jellyfit, ms':>13}" + "".join(f" {name:>19}" for name in columns) + f" {'goal':>6}")
    rows = []
    for case in options.cases:
        found, against, absent = nets.of_case(case, options.without)
        checks = compare(case, found, against)
        figures["checks"] += checks
        different = [found for found in checks if not found["equal"]]
        if different:
            raise SystemExit(f"These are not the same net: {different}")
        x, y = data(case.shape)
        steps = {name: step_of(contender, x, y, options) for name, contender in found.items()}
        for step in steps.values():
            step(), step()
        taken = take_turns(steps, options.seconds, turns=options.turns, long=steps)
        ratios = {name: {**ratio(taken[name], taken[same]), "against": same} for name, same in against.items()}
        rows.append(
            {
                "net": case.name,
                "neuron": case.neuron,
                "shape": case.shape,
                "goal": case.goal,
                "ms": {name: spread([1e3 * seconds for seconds in taken[name]]) for name in taken},
                "times_jellyfit": ratios,
                "skipped": absent,
            }
        )
        shown = [show(ratios[name]) if name in ratios else absent.get(name, "-") for name in columns]
        goal = f"{case.goal:.2f}x" if case.goal else ""
        ms = rows[-1]["ms"]["jellyfit"]["median"]
        print(f"{title(case):>36} {ms:>13.1f}" + "".join(f" {text:>19}" for text in shown) + f" {goal:>6}", flush=True)
    return rows


def show(figure: dict[str, float]) -> str:
    return f"{figure['median']:.2f} ({figure['low']:.2f}-{figure['high']:.2f})"


def run_time(options: argparse.Namespace, figures: dict[str, Any]) -> list[dict[str, Any]]:
    """A step's time against T; all lengths take turns, so that their ratios are fair."""
    rows = []
    print(f"\nTime against T: ms a step, and the exponent between the least and the most T\n{'':>36} {'':>13}", end="")
    print("".join(f" {f'T={T}':>8}" for T in options.steps) + f" {'exponent':>9}")
    for case in options.cases[:1]:
        _, N, *frame = case.shape
        found, _, _ = nets.of_case(case, options.without)
        for name in ("jellyfit", "SpikingJelly"):
            if name not in found:
                continue
            steps = {str(T): step_of(found[name], *data((T, max(2, N // 2), *frame)), options) for T in options.steps}
            for step in steps.values():
                step()
            taken = take_turns(steps, options.seconds, turns=options.turns, long=steps)
            first, last = (str(T) for T in (options.steps[0], options.steps[-1]))
            growth = ratio(taken[last], taken[first])
            scale = math.log(options.steps[-1] / options.steps[0]) or 1.0
            exponent = math.log(growth["median"]) / scale
            ms = {T: spread([1e3 * seconds for seconds in taken[T]]) for T in taken}
            rows.append({"net": case.name, "who": name, "N": max(2, N // 2), "ms": ms, "exponent": exponent})
            cells = "".join(f" {ms[str(T)]['median']:>8.1f}" for T in options.steps)
            print(f"{case.name:>36} {name:>13}{cells} {exponent:>9.2f}", flush=True)
    return rows


def run_memory(options: argparse.Namespace, figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Most memory of a process that runs steps of one contender, without what it took before the net was made."""
    rows = []
    print(f"\nPeak memory of steps, MiB\n{'':>36}" + "".join(f" {name:>13}" for name in ("jellyfit", "SpikingJelly")))
    for case in options.cases:
        row: dict[str, Any] = {"net": case.name, "shape": case.shape, "mib": {}}
        for name in ("jellyfit", "SpikingJelly"):
            if name == "SpikingJelly" and (name in options.without or not peers.installed(name)):
                continue
            command = [sys.executable, __file__, "--child", name, str(CASES.index(case))]
            command += ["--memory-format", options.memory_format, "--dtype", options.dtype]
            command += ["--give-back"] if options.give_back else []
            command += ["--optimizer", options.optimizer, "--threads", str(torch.get_num_threads())]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row["mib"][name] = float(done.stdout.splitlines()[-1])
        rows.append(row)
        print(f"{title(case):>36}" + "".join(f" {value:>13.0f}" for value in row["mib"].values()), flush=True)
    return rows


def child(name: str, case: Case, options: argparse.Namespace) -> float:
    """MiB that three steps of one contender take in this process."""
    net = nets.prepared(case.make(nets.neuron_of(case.neuron)))
    small = (2, 2, *case.shape[2:])
    contender = Contender(net, net) if name == "jellyfit" else nets.theirs_of(case, net)
    before = peak_memory(torch.device("cpu"))
    step_of(contender, *data(small), options)()  # kernels are compiled, libraries are loaded
    step = step_of(contender, *data(case.shape), options)
    for _ in range(3):
        step()
    return (peak_memory(torch.device("cpu")) - before) / 2**20


def run_profile(options: argparse.Namespace, figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Shares of jellyfit's step: kinds of layers by the profiler, the optimizer by a clock."""
    rows = []
    print("\nWhere jellyfit's step goes, % (neurons with the norms that run as one with them)")
    for case in options.cases:
        net = nets.prepared(case.make(nets.neuron_of(case.neuron)))
        if options.memory_format == "channels_last":
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = OPTIMIZERS[options.optimizer](net.parameters())
        x, y = data(case.shape)

        def backward(net: torch.nn.Module = net, x: Tensor = x, y: Tensor = y) -> None:
            F.cross_entropy(net(x).mean(0), y).backward()

        backward(), optimizer.step(), backward()
        with LayerTimes() as times:
            backward()
        seconds = {**times.seconds, "optimizer": once(optimizer.step, 3)}
        total = sum(seconds.values())
        shares = {kind: 100 * value / total for kind, value in seconds.items()}
        rows.append({"net": case.name, "shape": case.shape, "percent": shares})
        print(f"{title(case):>36}  " + ", ".join(f"{kind} {share:.0f}" for kind, share in shares.items()), flush=True)
    return rows


# -------------------------------------------------------------------- command line


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two turns of each, a small net")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="sections, default all")
    parser.add_argument("--nets", type=int, nargs="+", help=f"numbers of nets, default all {len(CASES)}")
    parser.add_argument("--steps", type=int, nargs="+", help="T of the section time, default 1 2 4 8 16")
    parser.add_argument("--memory-format", choices=("contiguous", "channels_last"), default="contiguous")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="float32", help="bfloat16: by autocast")
    parser.add_argument("--optimizer", choices=tuple(OPTIMIZERS), default="sgd")
    parser.add_argument("--threads", type=int, help="default: PyTorch's")
    parser.add_argument("--give-back", action="store_true", help="freed memory, as glibc does it by default")
    parser.add_argument("--seconds", type=float, default=30.0, help="for the turns of a net, default 30")
    parser.add_argument("--without", nargs="*", choices=list(peers.LIBRARIES), default=[], help="leave these peers out")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.turns = (2, 2) if options.quick else (3, 40)
    options.steps = options.steps or ([1, 2] if options.quick else [1, 2, 4, 8, 16])
    chosen = options.nets if options.nets is not None else [len(CASES) - 1] if options.quick else range(len(CASES))
    options.cases = [CASES[i] for i in chosen]
    return options


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    if not options.give_back:
        keep_freed_memory()
    if options.child:
        print(child(options.child[0], CASES[int(options.child[1])], options))
        return
    figures: dict[str, Any] = {"machine": machine(), "checks": []}
    figures["settings"] = {
        name: getattr(options, name) for name in ("memory_format", "dtype", "optimizer", "give_back")
    }
    figures["libraries"] = {library: peers.version(library) for library in peers.LIBRARIES}
    print(json.dumps({key: figures[key] for key in ("machine", "settings", "libraries")}, indent=1))
    sections = {"nets": run_nets, "time": run_time, "memory": run_memory, "profile": run_profile}
    for name in SECTIONS:
        if name in options.only:
            figures[name] = sections[name](options, figures)
            if options.json:
                options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
