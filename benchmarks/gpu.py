"""How fast neurons run on an NVIDIA GPU: against memory bandwidth, SpikingJelly 2.0, eager PyTorch and torch.compile.

    python benchmarks/gpu.py [--folder benchmarks/results] [--neurons LIFNode ...] [--steps 4 ...] [--sizes 262144 ...]

Every contender runs in a process of its own, on the same inputs: forward without a gradient, forward and backward, and
(ours) forward and backward replayed as a CUDA graph, which leaves out what Python costs. The fraction of bandwidth is
that of the bytes that must move (forward: input in, spikes and last states out; backward: input and gradient in,
gradient out), over the time, over what a plain copy on the same device reaches. Above 1 means that the data stayed in
the second-level cache. Figures are printed as ratios to ours, and all of them go into a JSON file.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from jellyfit import neurons, surrogates
from jellyfit.kernels import cuda

NEURONS = ("IFNode", "LIFNode", "ParametricLIFNode", "EIFNode", "IzhikevichNode")
STEPS = (4, 16, 64)
SIZES = (1 << 12, 1 << 18, 1 << 22)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
CONTENDERS = ("jellyfit", "eager", "torch.compile", "spikingjelly triton", "spikingjelly cuda", "spikingjelly torch")
STATES = {"IzhikevichNode": 2}
SECONDS = 0.2  # of measuring each figure
LONGEST_COMPILED = 16  # steps; torch.compile unrolls the loop over time, and takes minutes for a longer one

Step = Callable[[torch.Tensor], torch.Tensor]


def make(contender: str, neuron: str) -> torch.nn.Module:
    """The neuron of a contender, in multi-step mode."""
    if contender.startswith("spikingjelly"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from spikingjelly.activation_based import neuron as theirs
            from spikingjelly.activation_based import surrogate
        node: torch.nn.Module = getattr(theirs, neuron)(surrogate_function=surrogate.ATan(), step_mode="m")
        return node
    backend = "cupy" if contender == "jellyfit" else "torch"
    kind: Callable[..., torch.nn.Module] = getattr(neurons, neuron)
    return kind(surrogate_function=surrogates.ATan(), step_mode="m", backend=backend)


def seconds(call: Callable[[], object]) -> float:
    """Median time of a call on the device."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    begin, taken = time.perf_counter(), []
    while time.perf_counter() - begin < SECONDS or len(taken) < 5:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        taken.append(start.elapsed_time(end) / 1e3)
    return sorted(taken)[len(taken) // 2]


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second that a plain copy moves, read and written."""
    source = torch.empty(1 << 28, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source))


def graph_of(call: Callable[[], object]) -> Callable[[], None]:
    """``call`` as a CUDA graph to replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def measure(
    contender: str, neuron: str, dtype: torch.dtype, T: int, N: int, bandwidth: float, device: torch.device
) -> dict[str, Any]:
    """One row: milliseconds, and fractions of the bandwidth of a copy."""
    node: Any = make(contender, neuron).to(device)
    run: Step = torch.compile(node) if contender == "torch.compile" else node
    generator = torch.Generator(device=device).manual_seed(0)
    x = (torch.randn(T, N, device=device, generator=generator) + 0.3).to(dtype).requires_grad_()
    grad = torch.randn(T, N, device=device, generator=generator).to(dtype)
    inputs = [x, *node.parameters()]

    def forward() -> None:
        node.reset()
        with torch.no_grad():
            run(x)

    def both() -> None:
        node.reset()
        torch.autograd.grad(run(x), inputs, grad)

    states = 4 * N * STATES.get(neuron, 1)
    least = {"forward": 2 * x.nbytes + states, "forward_backward": 5 * x.nbytes + states}
    found = {"forward": seconds(forward), "forward_backward": seconds(both)}
    row: dict[str, Any] = {"contender": contender, "neuron": neuron, "dtype": str(dtype)[6:], "T": T, "N": N}
    if contender == "jellyfit":
        found["graph"] = seconds(graph_of(both))
        least["graph"] = least["forward_backward"]
    for name, taken in found.items():
        row[f"{name}_ms"] = 1e3 * taken
        row[f"{name}_of_copy"] = least[name] / taken / bandwidth
    return row


def contend(arguments: argparse.Namespace) -> None:
    """Measure one contender, in this process."""
    device, rows = torch.device("cuda"), []
    for neuron in arguments.neurons:
        for name in arguments.dtypes:
            for T in arguments.steps:
                if arguments.contender == "torch.compile" and T > LONGEST_COMPILED:
                    continue
                torch.compiler.reset()
                for N in arguments.sizes:
                    setting = (arguments.contender, neuron, DTYPES[name], T, N)
                    try:
                        rows.append(measure(*setting, arguments.bandwidth, device))
                    except Exception as error:  # one that cannot run says why in the file
                        said = f"{type(error).__name__}: {error}".split("\n")[0][:300]
                        row = {"neuron": neuron, "dtype": name, "T": T, "N": N, "error": said}
                        rows.append({"contender": arguments.contender, **row})
                    torch.cuda.empty_cache()
        print(f"{arguments.contender:>20} {neuron}", flush=True)
    arguments.rows.write_text(json.dumps(rows))


def environment(contender: str) -> dict[str, str]:
    """What chooses an implementation of SpikingJelly 2.0."""
    kind = contender.removeprefix("spikingjelly ")
    names = ("IF", "LIF", "PLIF", "QIF", "EIF", "IZHIKEVICH") if kind != contender else ()
    return {**os.environ, **{f"SJ_{name}_CUDA_IMPLEMENTATION": kind for name in names}}


def report(rows: list[dict[str, Any]]) -> None:
    """Ours in milliseconds, the others as ratios to it."""
    table: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        table.setdefault((row["neuron"], row["dtype"], row["T"], row["N"]), {})[row["contender"]] = row
    others = [name for name in CONTENDERS if name != "jellyfit" and any(name in found for found in table.values())]
    print("\nforward and backward: ms, fraction of a copy, ms as a graph; then the others' times over ours")
    print(f"{'':>42} ms  of copy   graph" + "".join(f"{name:>20}" for name in others))
    for (neuron, dtype, T, N), found in table.items():
        line, ours = f"{neuron:>18} {dtype:>9} T={T:<3} N={N:<8}", found.get("jellyfit", {})
        if "forward_backward_ms" not in ours:
            print(line, ours.get("error", "not measured"))
            continue
        mine = ours["forward_backward_ms"]
        line += f"{mine:8.3f} {ours['forward_backward_of_copy']:8.2f} {ours['graph_ms']:7.3f}"
        for name in others:
            theirs = found.get(name, {}).get("forward_backward_ms")
            line += f"{'-':>20}" if theirs is None else f"{theirs / mine:20.2f}"
        print(line)


def version(package: str) -> str | None:
    """The version of an installed package."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/results"), help="where the JSON file goes")
    parser.add_argument("--neurons", nargs="+", default=NEURONS, choices=NEURONS)
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--contenders", nargs="+", default=CONTENDERS, choices=CONTENDERS)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--bandwidth", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    reason = cuda.why_not()
    if reason is not None:
        sys.exit(f"benchmarks/gpu.py: {reason}.")
    if arguments.contender:
        contend(arguments)
        return
    bandwidth = copy_bandwidth(torch.device("cuda"))
    torch.cuda.empty_cache()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for contender in arguments.contenders:
            file = Path(folder) / "rows.json"
            command: list[object] = [
                sys.executable,
                __file__,
                "--contender",
                contender,
                "--rows",
                file,
                "--bandwidth",
                bandwidth,
            ]
            for name in ("neurons", "dtypes", "steps", "sizes"):
                command += [f"--{name}", *getattr(arguments, name)]
            done = subprocess.run([str(part) for part in command], env=environment(contender))
            if done.returncode == 0:
                rows += json.loads(file.read_text())
            else:
                rows.append({"contender": contender, "error": f"the process ended with status {done.returncode}"})
    report([row for row in rows if "neuron" in row])
    figures = {
        "device": torch.cuda.get_device_name(),
        "capability": ".".join(map(str, torch.cuda.get_device_capability())),
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cupy": version("cupy-cuda12x") or version("cupy-cuda13x") or version("cupy"),
        "triton": version("triton"),
        "spikingjelly": version("spikingjelly"),
        "copy_gigabytes_per_second": bandwidth / 1e9,
        "rows": rows,
    }
    arguments.folder.mkdir(parents=True, exist_ok=True)
    name = "".join(c if c.isalnum() else "-" for c in figures["device"])
    path = arguments.folder / f"gpu-{name}-{figures['date']}.json"
    path.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
