"""C text of a step, the part that the host and CUDA share: the same lines, the same names, in both."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from jellyfit.kernels.graph import Value, reachable
from jellyfit.kernels.ops import OPS
from jellyfit.kernels.partition import values_to_keep
from jellyfit.kernels.trace import StepGraph

__all__ = ["KernelSpec", "Names", "Program", "lines"]


@dataclass
class Program:
    """A traced step, ready to be written down.

    Attributes:
        graph: the trace.
        forward: what the step computes, in order.
        keep: what backward keeps of a recomputed step.
        recompute: what has to be computed for ``keep`` and for the new states.
        backward: what backward computes for one step, given ``keep`` and what it loads.
        loads_x: whether backward needs the input itself on the way back.
    """

    graph: StepGraph
    forward: list[Value]
    keep: list[Value]
    recompute: list[Value]
    backward: list[Value]
    loads_x: bool

    @classmethod
    def of(cls, graph: StepGraph) -> Program:
        """Work out what backward keeps and computes."""
        forward = reachable([graph.spike, *graph.new_states])
        results = [
            value
            for value in (graph.grad_x, *graph.grad_states, *(reduction.value for reduction in graph.reductions))
            if value is not None
        ]
        everything = reachable(results, forward)
        grads = {id(value) for value in (graph.grad_spike, *graph.grad_new_states) if value is not None}
        pure, needed = list(forward), []
        for value in everything:
            if any(id(arg) in grads for arg in value.args):
                grads.add(id(value))
            else:
                pure.append(value)
        for value in everything:
            if id(value) in grads:
                needed += [arg for arg in value.args if id(arg) not in grads]
        needed += [value for value in results if id(value) not in grads]
        keep = values_to_keep(pure, needed, graph.x, graph.states, forward)
        backward = reachable(results, keep)
        taken = {id(arg) for value in backward for arg in value.args} | {id(value) for value in results}
        return cls(
            graph=graph,
            forward=forward,
            keep=keep,
            recompute=reachable([*keep, *graph.new_states]),
            backward=backward,
            loads_x=id(graph.x) in taken,
        )


@dataclass(frozen=True)
class KernelSpec:
    """All that a step's kernels are generated from.

    Attributes:
        program: the step.
        real: dtype of the arithmetic.
        io: dtype of the input, the spikes and their gradients.
        start: what each state starts with where no tensor is given.
        arrays: for each of the graph's parameters, whether it has more than one element.
        title: what the generated source is about.
        lift: pass constants as arguments instead of writing them into the source.
        affine: the input is scaled and shifted first; a batch norm's backward pass may follow that of the step.
    """

    program: Program
    real: torch.dtype
    io: torch.dtype
    start: Sequence[float]
    arrays: Sequence[bool]
    title: str
    lift: bool = False
    affine: bool = False

    @property
    def norm_may_follow(self) -> bool:
        """Whether the host's backward kernel can go on with the backward pass of a batch norm."""
        return self.affine and self.io == torch.float32


_RESERVED = (
            "auto", "bool", "break", "case", "char", "const", "continue", "default", "do", "double",
            "else", "enum", "extern", "float", "for", "goto", "if", "int", "io", "long", "real",
            "register", "return", "short", "signed", "sizeof", "static", "struct", "switch", "this",
            "typedef", "union", "unsigned", "void", "volatile", "while", "e", "i", "j", "k", "n",
            "t", "M", "T", "a",
        )  # fmt: skip


class Names:
    """C names of values: their own where they have one, else ``t0``, ``t1``, ..., each used once.

    Args:
        real: C type of the arithmetic.
        lift: write constants as ``number0``, ``number1``, ... instead of their values, and collect these in
            :attr:`lifted`: one source then serves steps that differ in their numbers alone.
        taken: pattern of names that a target's source uses for something else; values of that name get none, nor do
            those that are called like a constant.
    """

    def __init__(self, real: str, lift: bool = False, taken: str = "") -> None:
        self.real = real
        self._others = re.compile(rf"number\d+|{taken}")
        self.lift = lift
        self.lifted: dict[int, Value] = {}
        self._names: dict[int, str] = {}
        self._taken = set(_RESERVED)

    def __call__(self, value: Value) -> str:
        """The name, or the literal of a constant."""
        if value.is_const:
            return self.literal(value)
        if id(value) not in self._names:
            own = "" if self._others.fullmatch(value.name) else value.name
            name, count = own or "t0", 0
            while name in self._taken:
                count += 1
                name = f"{own or 't'}{count}"
            self._taken.add(name)
            self._names[id(value)] = name
        return self._names[id(value)]

    def literal(self, value: Value) -> str:
        """C text of a constant."""
        number = value.number
        if self.lift and not value.boolean and number not in (0.0, 1.0):
            self.lifted.setdefault(id(value), value)
            return f"number{list(self.lifted).index(id(value))}"
        if value.boolean:
            return str(int(number))
        if math.isnan(number):
            return "(real)NAN"
        if math.isinf(number):
            return "(real)INFINITY" if number > 0 else "(real)-INFINITY"
        shortest = str(np.float32(number)) if self.real == "float" else repr(number)
        text = f"R({shortest})"
        return f"({text})" if number < 0 else text


def lines(values: Iterable[Value], names: Names) -> list[str]:
    """One C line a value; where an equation begins, its name stands behind the line."""
    text, last = [], ""
    for value in values:
        kind = "int" if value.boolean else "real"
        line = f"const {kind} {names(value)} = {OPS[value.op].code.format(*map(names, value.args))};"
        if value.note not in ("", "backward", last):
            line += f"  // {value.note}"
        last = value.note
        text.append(line)
    return text
