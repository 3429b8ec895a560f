"""How fast neurons are: forward and backward over a sequence, against eager PyTorch, other libraries and copying.

    python benchmarks/neurons.py [--quick] [--neurons LIF ...] [--only cells ...] [--threads N] [--json PATH]

Everything is float32. A contender runs only where its neuron is the same (``peers.py``), and after its spikes and
gradients were compared with those of jellyfit in eager PyTorch. Contenders take turns (``timing.py``); what is printed
is the median of the ratios within turns, with the quartiles. With ``--keep`` freed memory is kept for all of them, as
``jellyfit fit`` does it; not for the largest cells, which in eager PyTorch take what others then lack. Sections:

* ``cells``: neurons, T time steps, N elements a step. "eager" is jellyfit with ``backend="torch"``, "compiled" is that
  under ``torch.compile``. The limit is the time to move the bytes that must move: forward reads the input and writes
  the spikes (a copy) and the state at the end, backward reads the input and the spikes' gradient and writes the input's
  (an addition); into fresh memory, as every library allocates its results, and into memory that is mapped already.
  "kernels" are jellyfit's two passes alone, results allocated; "function" is a bare ``torch.autograd.Function`` around
  them: what it takes longer than they is PyTorch's own, and what the whole call takes longer yet is the module.
* ``point``: T = 100, batch 16, 1024 neurons, with the seconds of each contender's first call (``--compile`` adds
  ``torch.compile`` of eager jellyfit and of SpikingJelly, which take minutes to compile).
* ``first-use``: seconds of a neuron's first forward and backward in a fresh process, with an empty cache of kernels
  (trace and compile) and with a filled one (trace and load).
* ``overhead``: what a call costs where there is next to nothing to compute: T = 5, 256 neurons, the reset included.
* ``memory``: bytes kept for backward.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peers
import torch
from peers import NEURONS, Runner
from timing import machine, once, ratio, spread, take_turns
from torch import Tensor

from jellyfit.memory import keep_freed_memory
from jellyfit.neurons import BaseNode

SECTIONS = ("cells", "point", "first-use", "overhead", "memory")
COMPILED = {("LIF", 4, 2**18), ("LIF", 16, 2**18)}  # cells where torch.compile takes part: it takes long to compile
COPIES = ("copy fresh", "copy mapped")
PARTS = {
    f"{part}/{copy[5:]}": (part, copy) for part in ("kernels", "function") for copy in COPIES
}  # of jellyfit's call
COLUMNS = ("eager", *peers.LIBRARIES, "compiled", *COPIES, *PARTS)


def data(*shape: int) -> tuple[Tensor, Tensor]:
    """An input that makes all neurons fire now and then, and a gradient of the spikes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.empty(shape).normal_(0.0, 1.5, generator=generator)
    return x.requires_grad_(), torch.empty(shape).normal_(generator=generator)


@dataclass
class Contenders:
    """Everything that runs one neuron, checked.

    Attributes:
        runners: by name: "jellyfit", "eager", the libraries, and "jellyfit as LIBRARY" where its equation differs.
        against: which of them a peer's time is divided by.
        checks: how they were compared.
        absent: why others do not take part.
    """

    neuron: str
    runners: dict[str, Runner] = field(default_factory=dict)
    against: dict[str, str] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    speed: dict[tuple[str, int], float] = field(default_factory=dict)  # seconds an element, by name and T
    saved: dict[tuple[str, int], float] = field(default_factory=dict)  # bytes an element, by name and T

    @classmethod
    def of(cls, neuron: str, without: list[str], shape: tuple[int, ...]) -> Contenders:
        self = cls(neuron)
        x, grad = data(*shape)
        self.runners["eager"] = peers.ours(peers.main_neuron(neuron), "torch")
        self._add_ours("jellyfit", peers.main_neuron(neuron), x, grad)
        for library in peers.LIBRARIES:
            if library in without or not peers.installed(library):
                self.absent[library] = "not installed"
            else:
                self.absent[library] = f"has no {neuron} neuron"
        for peer in peers.peers(neuron, without):
            same, reference = "jellyfit", self.runners["eager"]
            if peer.twin is not None:
                same = f"jellyfit as {peer.library}"
                reference = peers.ours(peer.twin, "torch")
            if not self._check(peer.what, peer.runner, reference, x, grad):
                self.absent[peer.library] = f"its spikes or gradients are not the same: {self.checks[-1]}"
                continue
            if peer.twin is not None:
                self._add_ours(same, peer.twin, x, grad)
            self.runners[peer.library], self.against[peer.library] = peer.runner, same
            del self.absent[peer.library]
        return self

    def _add_ours(self, name: str, node: BaseNode, x: Tensor, grad: Tensor) -> None:
        runner = self.runners[name] = peers.ours(node)
        if not self._check(name, runner, peers.ours(node, "torch"), x, grad):
            raise SystemExit(f"{self.neuron}: jellyfit's kernels and eager PyTorch disagree: {self.checks[-1]}")
        self.checks[-1]["kernels"] = runner.module.kernels.plan(x) is not None

    def _check(self, what: str, runner: Runner, reference: Runner, x: Tensor, grad: Tensor) -> bool:
        self.checks.append({"neuron": self.neuron, **peers.check(what, runner, reference, x, grad)})
        return bool(self.checks[-1]["equal"])

    def bytes_saved(self, name: str, steps: int) -> float:
        """Bytes kept for backward, per element of the input."""
        if (name, steps) not in self.saved:
            x, _ = data(steps, 1, 256)
            self.saved[name, steps] = peers.saved_bytes(self.runners[name], x) / x.numel()
        return self.saved[name, steps]


# -------------------------------------------------------------------- cells


def cell(contenders: Contenders, T: int, N: int, options: argparse.Namespace) -> dict[str, Any]:
    """Times and ratios of one neuron, T and N."""
    result: dict[str, Any] = {"neuron": contenders.neuron, "T": T, "N": N, "skipped": dict(contenders.absent)}
    skipped, elements = result["skipped"], T * N
    base = 6 * 4 * elements  # input, gradient, two results, and what the copies write
    if base > options.gib * 2**30:
        result["skipped"] = {"all": f"too large: {base / 2**30:.0f} GiB"}
        return result
    x, grad = data(T, 1, N)
    calls: dict[str, Callable[[], object]] = {}
    long = []
    for name, runner in contenders.runners.items():
        need = (base + contenders.bytes_saved(name, T) * elements) / 2**30
        if need > options.gib:
            skipped[name] = f"too large: {need:.0f} GiB"
            continue
        call = functools.partial(runner.forward_backward, x, grad)
        seconds = contenders.speed.get((name, T), 0.0) * elements
        if seconds <= options.cap:
            seconds = once(call)
        if seconds > options.cap and not name.startswith("jellyfit"):
            skipped[name] = f"too slow: {seconds:.0f} s a call"
            continue
        calls[name] = call
        if seconds > 0.1:
            long.append(name)
    against = {"eager": "jellyfit", **contenders.against}
    if (contenders.neuron, T, N) in COMPILED and not options.quick:
        runner = peers.compiled(contenders.runners["eager"])
        first = once(lambda: runner.forward_backward(x, grad))
        compare = peers.check("torch.compile(eager)", runner, contenders.runners["eager"], x, grad)
        contenders.checks.append({"neuron": contenders.neuron, **compare})
        calls["compiled"], against["compiled"] = lambda: runner.forward_backward(x, grad), "jellyfit"
        result["compile_seconds"] = first - once(calls["compiled"])
    else:
        skipped["compiled"] = "only in selected cells"
    calls |= copies(x.detach(), grad)
    parts = parts_of(contenders.runners["jellyfit"], x, grad)
    calls |= parts
    if not parts:
        skipped |= dict.fromkeys(PARTS, "has no kernels")
    for name in COPIES:
        calls[name]()
    taken = take_turns(calls, options.seconds, long=long)
    contenders.speed.update({(name, T): statistics.median(taken[name]) / elements for name in taken})
    result["ms"] = {name: spread([1e3 * seconds for seconds in taken[name]]) for name in taken}
    result["times_jellyfit"] = {
        name: {**ratio(taken[name], taken[same]), "against": same} for name, same in against.items() if name in taken
    }
    result["times_copy"] = {name: ratio(taken["jellyfit"], taken[name]) for name in COPIES}
    result["parts_times_copy"] = {
        column: ratio(taken[part], taken[copy]) for column, (part, copy) in PARTS.items() if part in parts
    }
    return result


def parts_of(runner: Runner, x: Tensor, grad: Tensor) -> dict[str, Callable[[], Any]]:
    """Parts of a call of jellyfit's neuron, each giving spikes and the gradient of ``x``; none if it has no kernels."""
    given, node = x.detach(), runner.module
    node.reset()
    plan = node.kernels.plan(given)
    if plan is None:
        return {}
    states = [None] * len(plan.states)

    def forward() -> tuple[Any, Tensor, Tensor | None]:
        packed = plan.pack(given, node.kernels.params())
        spikes, _, _, kept = plan.forward_pass(given, states, packed, False, keep=True)
        return packed, spikes, kept

    def backward(packed: Any, kept: Tensor | None, grad_spikes: Tensor) -> Tensor:
        grad_x: Tensor = plan.backward_pass(given, states, packed, kept, grad_spikes, states, None)[0]
        return grad_x

    @torch.no_grad()
    def kernels() -> tuple[Tensor, Tensor]:
        packed, spikes, kept = forward()
        return spikes, backward(packed, kept, grad)

    class Bare(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.packed, spikes, ctx.kept = forward()
            return spikes

        @staticmethod
        def backward(ctx: Any, grad_spikes: Tensor) -> Tensor:
            return backward(ctx.packed, ctx.kept, grad_spikes)

    def function() -> tuple[Tensor, Tensor]:
        spikes = Bare.apply(x)  # type: ignore[no-untyped-call]
        return spikes, torch.autograd.grad(spikes, x, grad)[0]

    expected, (expected_grad, *_) = runner.forward_backward(x, grad)
    parts: dict[str, Callable[[], Any]] = {"kernels": kernels, "function": function}
    for name, call in parts.items():
        made, made_grad = call()
        if not (torch.equal(made, expected) and torch.equal(made_grad, expected_grad)):
            raise SystemExit(f"{type(node).__name__}: {name} does not give what the neuron gives")
    return parts


def copies(x: Tensor, grad: Tensor) -> dict[str, Callable[[], object]]:
    """The bytes that forward and backward must move, moved."""
    spikes, grad_x, state = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x[0])

    def fresh() -> None:
        made, last = x.clone(), torch.ones_like(x[0])
        also = x + grad
        del made, also, last

    def mapped() -> None:
        spikes.copy_(x)
        state.fill_(1.0)
        torch.add(x, grad, out=grad_x)

    return {"copy fresh": fresh, "copy mapped": mapped}


def run_cells(options: argparse.Namespace, everyone: dict[str, Contenders]) -> list[dict[str, Any]]:
    print("\nForward + backward. jellyfit in ms; the others' times over jellyfit's; jellyfit's time over the copies'.")
    print(f"{'neuron':>10} {'T':>4} {'N':>8} {'jellyfit':>9}" + "".join(f" {name:>17}" for name in COLUMNS))
    results, reasons = [], []
    for contenders in everyone.values():
        for T in options.steps:
            for N in options.sizes:
                result = cell(contenders, T, N, options)
                results.append(result)
                skipped = result["skipped"]
                head = f"{contenders.neuron:>10} {T:>4} {N:>8}"
                if "all" in skipped:
                    print(f"{head}  skipped: {skipped['all']}", flush=True)
                    continue
                ratios = result["times_jellyfit"] | result["times_copy"] | result["parts_times_copy"]
                columns = [show(ratios[name]) if name in ratios else brief(skipped[name]) for name in COLUMNS]
                print(
                    f"{head} {result['ms']['jellyfit']['median']:>9.3g}" + "".join(f" {text:>17}" for text in columns),
                    flush=True,
                )
                reasons += [
                    f"  {head.strip()}, {name}: skipped: {reason}"
                    for name, reason in skipped.items()
                    if reason.startswith(("too", "its"))
                ]
                if "compile_seconds" in result:
                    reasons.append(f"  {head.strip()}, compiled: {result['compile_seconds']:.1f} s to compile")
    print("\n".join(reasons))
    return results


def show(figure: dict[str, float]) -> str:
    """A median and its quartiles."""
    digits = 1 if figure["median"] >= 10 else 2
    return f"{figure['median']:.{digits}f} ({figure['low']:.{digits}f}-{figure['high']:.{digits}f})"


def brief(reason: str) -> str:
    """Why there is no figure, for a column of the table."""
    if reason.startswith(("has no", "only")):
        return "-"
    return "not the same" if reason.startswith("its") else reason.split(":")[0]


# -------------------------------------------------------------------- the point


def run_point(options: argparse.Namespace) -> dict[str, Any]:
    """One size of LIF, with first calls: in a process of its own, where nothing has been compiled yet."""
    if not options.here:
        return in_own_process(options)
    T, B, N = options.point
    x, grad = data(T, B, N)
    torch.autograd.grad(x.sigmoid(), x, grad)  # PyTorch's own first use
    runners = {"jellyfit": peers.ours(peers.main_neuron("LIF"))}
    runners["eager"] = eager = peers.ours(peers.main_neuron("LIF"), "torch")
    found = {peer.library: peer for peer in peers.peers("LIF", options.without)}
    runners |= {library: peer.runner for library, peer in found.items()}
    against = {"eager": "jellyfit", **dict.fromkeys(found, "jellyfit")}
    if options.compile:
        torch.compile(lambda y: y + 1)(x.detach())  # the compiler's own first use
        runners["compiled"], against["compiled"] = peers.compiled(eager), "jellyfit"
        if "SpikingJelly" in found:
            name = "SpikingJelly compiled"
            runners[name], against[name] = peers.compiled(found["SpikingJelly"].runner), "jellyfit"
    calls = {name: functools.partial(runner.forward_backward, x, grad) for name, runner in runners.items()}
    first = {name: once(call) for name, call in calls.items()}
    for library, peer in found.items():
        if peer.twin is not None:
            against[library] = f"jellyfit as {library}"
            calls[against[library]] = functools.partial(peers.ours(peer.twin).forward_backward, x, grad)
            calls[against[library]]()
    references = {library: peers.ours(peer.twin, "torch") for library, peer in found.items() if peer.twin is not None}
    checks = [
        {"neuron": "LIF", **peers.check(name, runner, references.get(name, eager), x, grad)}
        for name, runner in runners.items()
    ]
    taken = take_turns(calls, options.seconds)
    return {
        "T": T,
        "B": B,
        "N": N,
        "checks": checks,
        "first_call_seconds": first,
        "ms": {name: spread([1e3 * seconds for seconds in taken[name]]) for name in taken},
        "times_jellyfit": {
            name: {**ratio(taken[name], taken[same]), "against": same} for name, same in against.items()
        },
    }


def in_own_process(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        caches = {"JELLYFIT_CACHE": f"{folder}/jellyfit", "TORCHINDUCTOR_CACHE_DIR": f"{folder}/torch"}
        command = [sys.executable, __file__, "--here", "--only", "point", "--json", f"{folder}/point.json"]
        command += ["--seconds", str(options.seconds), "--threads", str(torch.get_num_threads())]
        command += ["--point", *map(str, options.point), "--without", *options.without]
        command += ["--compile"] if options.compile else []
        command += ["--keep"] if options.keep else []
        subprocess.run(command, check=True, env=os.environ | caches, stdout=subprocess.DEVNULL)
        result: dict[str, Any] = json.loads(Path(folder, "point.json").read_text(encoding="utf-8"))["point"]
    print(f"\nLIF, T={result['T']}, B={result['B']}, N={result['N']}: forward + backward")
    print(f"{'':>22} {'first call, s':>13} {'then ms':>9} {'over jellyfit':>18}")
    for name, first in result["first_call_seconds"].items():
        over = "" if name == "jellyfit" else show(result["times_jellyfit"][name])
        print(f"{name:>22} {first:>13.2f} {result['ms'][name]['median']:>9.3g} {over:>18}")
    return result


# -------------------------------------------------------------------- first use, overhead, memory


def run_first_use(options: argparse.Namespace) -> list[dict[str, Any]]:
    results = []
    print("\nFirst use in a fresh process, seconds (median): imports, PyTorch's own first backward,")
    print("and the neuron's first forward / backward, with an empty cache of kernels and with a filled one")
    print(f"{'neuron':>10} {'torch':>6} {'jellyfit':>8} {'backward':>8} {'empty':>13} {'filled':>13}")
    for neuron in options.neurons[:1] if options.quick else options.neurons:
        runs: dict[str, list[dict[str, float]]] = {"empty": [], "filled": []}
        for _ in range(options.processes):
            with tempfile.TemporaryDirectory() as folder:
                for cache in runs:
                    command = [sys.executable, str(Path(__file__).with_name("first_use.py")), neuron]
                    environment = os.environ | {"JELLYFIT_CACHE": folder}
                    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
                    runs[cache].append(json.loads(done.stdout))
        medians = {
            cache: {key: statistics.median(run[key] for run in many) for key in many[0]} for cache, many in runs.items()
        }
        results.append({"neuron": neuron, "processes": options.processes, **medians})
        shown = [f"{run['first forward']:.2f} / {run['first backward']:.2f}" for run in medians.values()]
        filled = medians["filled"]
        print(
            f"{neuron:>10} {filled['import torch']:>6.2f} {filled['import jellyfit']:>8.2f} "
            f"{filled['first backward of PyTorch']:>8.2f} " + " ".join(f"{text:>13}" for text in shown),
            flush=True,
        )
    return results


def run_overhead(options: argparse.Namespace) -> list[dict[str, Any]]:
    T, N = 5, 256
    results = []
    x, grad = data(T, 1, N)
    print(f"\nOverhead: T={T}, {N} neurons; µs a call (the others' time over jellyfit's)")
    names = ("jellyfit", "eager", "SpikingJelly")
    print(f"{'neuron':>10} {'':>18} {'jellyfit':>9}" + "".join(f" {name:>27}" for name in names[1:]))
    for neuron in options.neurons:
        contenders = Contenders.of(neuron, options.without, (T, 1, N))
        runners = {name: contenders.runners[name] for name in names if name in contenders.runners}
        for what in ("forward", "forward + backward"):
            if what == "forward":
                with torch.no_grad():
                    calls = {name: functools.partial(runner.run, x) for name, runner in runners.items()}
                    taken = take_turns(calls, options.seconds / 4, turns=(5, 200), at_least=5e-3)
            else:
                calls = {name: functools.partial(runner.forward_backward, x, grad) for name, runner in runners.items()}
                taken = take_turns(calls, options.seconds / 4, turns=(5, 200), at_least=5e-3)
            result = {
                "neuron": neuron,
                "what": what,
                "us": {name: spread([1e6 * seconds for seconds in taken[name]]) for name in taken},
                "times_jellyfit": {name: ratio(taken[name], taken["jellyfit"]) for name in taken},
            }
            results.append(result)
            columns = [
                f"{result['us'][name]['median']:.0f} = {show(result['times_jellyfit'][name])}"
                if name in taken
                else brief(contenders.absent[name])
                for name in names[1:]
            ]
            print(
                f"{neuron:>10} {what:>18} {result['us']['jellyfit']['median']:>9.1f}"
                + "".join(f" {text:>27}" for text in columns),
                flush=True,
            )
    return results


def run_memory(everyone: dict[str, Contenders]) -> list[dict[str, Any]]:
    T = 16
    results = []
    print(f"\nKept for backward, bytes per element of the input (which is 4 bytes, not counted), T={T}")
    print(f"{'neuron':>10} {'jellyfit':>9} {'eager':>9}" + "".join(f" {library:>13}" for library in peers.LIBRARIES))
    for neuron, contenders in everyone.items():
        kept = {name: contenders.bytes_saved(name, T) for name in contenders.runners if " as " not in name}
        results.append({"neuron": neuron, "T": T, "bytes_per_element": kept})
        columns = [f"{kept[name]:.2f}" if name in kept else brief(contenders.absent[name]) for name in peers.LIBRARIES]
        print(
            f"{neuron:>10} {kept['jellyfit']:>9.2f} {kept['eager']:>9.2f}" + "".join(f" {text:>13}" for text in columns)
        )
    return results


# -------------------------------------------------------------------- all of it


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, few turns: less than 2 minutes")
    parser.add_argument("--neurons", nargs="+", choices=NEURONS, default=list(NEURONS))
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections to run")
    parser.add_argument("--threads", type=int, help="default: PyTorch's")
    parser.add_argument("--keep", action="store_true", help="keep freed memory, as jellyfit fit does it")
    parser.add_argument("--compile", action="store_true", help="torch.compile at the point as well (minutes)")
    parser.add_argument("--steps", type=int, nargs="+", help="T of the cells, default 4 16 64 500")
    parser.add_argument("--sizes", type=int, nargs="+", help="N of the cells, default 2^12 2^18 2^22")
    parser.add_argument("--point", type=int, nargs=3, metavar=("T", "B", "N"), help="default 100 16 1024")
    parser.add_argument("--seconds", type=float, help="how long to measure a cell, default 6 (3 turns at least)")
    parser.add_argument("--cap", type=float, default=4.0, help="longest call, in seconds, of a contender, default 4")
    parser.add_argument("--gib", type=float, default=8.0, help="most memory for a contender, default 8")
    parser.add_argument("--without", nargs="*", choices=list(peers.LIBRARIES), default=[], help="leave these peers out")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.processes = 1 if options.quick else 3
    options.steps = options.steps or ([4, 16] if options.quick else [4, 16, 64, 500])
    options.sizes = options.sizes or ([2**12, 2**16] if options.quick else [2**12, 2**18, 2**22])
    options.point = options.point or ([20, 4, 256] if options.quick else [100, 16, 1024])
    options.seconds = options.seconds or (0.5 if options.quick else 6.0)
    return options


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.keep:
        keep_freed_memory()
    figures: dict[str, Any] = {"machine": machine(), "command": " ".join(sys.argv[1:])}
    figures["libraries"] = {
        library: None if library in options.without else peers.version(library) for library in peers.LIBRARIES
    }
    print(json.dumps(figures, indent=1, ensure_ascii=False))

    everyone: dict[str, Contenders] = {}
    if {"cells", "memory"} & set(options.only):
        shape = (16, 1, min(4096, max(options.sizes)))
        everyone = {neuron: Contenders.of(neuron, options.without, shape) for neuron in options.neurons}
        figures["checks"] = [check for contenders in everyone.values() for check in contenders.checks]
        for check in figures["checks"]:
            print(
                f"{check['neuron']}, {check['check']}: {check['differing']} of {check['spikes']} spikes differ, "
                f"gradients by {check['gradient_error']:.0e} of the largest"
                + ("" if check.get("kernels", True) else "; NO KERNELS, it runs in eager PyTorch")
            )
    runs: dict[str, Callable[[], Any]] = {
        "cells": lambda: run_cells(options, everyone),
        "point": lambda: run_point(options),
        "first-use": lambda: run_first_use(options),
        "overhead": lambda: run_overhead(options),
        "memory": lambda: run_memory(everyone),
    }
    for section in SECTIONS:
        if section in options.only:
            figures[section] = runs[section]()
            figures["checks"] = [check for contenders in everyone.values() for check in contenders.checks]
            if options.json:  # after each section: a long run that is cut off leaves what it has
                options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
