"""A neuron's time step as a graph of pointwise operations, and what keeps it small.

A :class:`Value` is one quantity of the step: an input, a constant, or an operation of :mod:`jellyfit.kernels.ops` on
other values. :class:`Builder` makes them, so that the same operation on the same values is made once (common
subexpressions) and operations on constants alone, or without effect, are not made at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from jellyfit.kernels.ops import OPS

__all__ = ["Builder", "Value", "reachable"]


@dataclass(eq=False)
class Value:
    """One quantity of a step.

    Attributes:
        op: ``"input"``, ``"const"`` or a name in :data:`jellyfit.kernels.ops.OPS`.
        args: the values that the operation takes.
        number: of a constant.
        boolean: whether it is a truth value, not a real number.
        name: of an input, or given to results that people know by a name (``h``, ``s``).
        note: the equation that computes it: ``charge``, ``fire``, ``reset`` or ``backward``.
    """

    op: str
    args: tuple[Value, ...] = ()
    number: float = 0.0
    boolean: bool = False
    name: str = ""
    note: str = ""

    @property
    def is_input(self) -> bool:
        """Whether it is given from outside the step."""
        return self.op == "input"

    @property
    def is_const(self) -> bool:
        """Whether it is a number known when the kernel is generated."""
        return self.op == "const"

    def __repr__(self) -> str:
        if self.is_const:
            return f"{self.number!r}"
        label = f"{self.name}: " if self.name else ""
        return f"<{label}{self.op}{' of ' + str(len(self.args)) if self.args else ''}>"


_FOLDABLE: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "neg": lambda a: -a,
}


_COMPARISONS = ("gt", "ge", "lt", "le", "eq", "ne")


class Builder:
    """Makes values of one graph. ``real`` is the type that constants are folded in."""

    def __init__(self, real: type[np.floating] = np.float32) -> None:
        self._real = real
        self._made: dict[tuple[object, ...], Value] = {}
        self.note = ""

    def const(self, number: float, boolean: bool = False) -> Value:
        """The constant ``number``, as it is in the neuron's arithmetic."""
        number = float(self._real(number))
        key = ("const", number if number == number else "nan", np.signbit(number), boolean)
        if key not in self._made:
            self._made[key] = Value("const", number=number, boolean=boolean)
        return self._made[key]

    def make(self, op: str, *args: Value) -> Value:
        """The value of ``op`` on ``args``: an existing one, a folded constant, or a new one."""
        simpler = self._simplify(op, args)
        if simpler is not None:
            return simpler
        key = (op, *map(id, args))
        if key not in self._made:
            self._made[key] = Value(op, args, boolean=OPS[op].boolean, note=self.note)
        return self._made[key]

    def _simplify(self, op: str, args: Sequence[Value]) -> Value | None:
        if op in _FOLDABLE and all(arg.is_const for arg in args):
            with np.errstate(all="ignore"):
                return self.const(float(_FOLDABLE[op](*(self._real(arg.number) for arg in args))))
        if op == "real" and not args[0].boolean:
            return args[0]
        if op == "mul" and args[1].is_const and args[1].number == 1.0:
            return args[0]
        if op == "mul" and args[0].is_const and args[0].number == 1.0:
            return args[1]
        if op == "div" and args[1].is_const and args[1].number == 1.0:
            return args[0]
        if op == "sub" and args[1].is_const and args[1].number == 0.0 and not np.signbit(args[1].number):
            return args[0]  # adding 0 is not the same: it turns -0 into 0
        if op in _COMPARISONS and args[0].op == "sub" and args[1].is_const and args[1].number == 0.0:
            a, b = args[0].args
            if b.is_const and 1e-30 < abs(b.number) < np.inf:  # a - b then is no number that might be flushed to 0
                return self.make(op, a, b)
        if op == "neg" and args[0].op == "neg":
            return args[0].args[0]
        if op == "where" and args[1] is args[2]:
            return args[1]
        return None


def reachable(outputs: Iterable[Value], known: Iterable[Value] = ()) -> list[Value]:
    """What has to be computed for ``outputs``, in order, when ``known`` values are at hand: dead code is left out.

    Inputs and constants are not listed.
    """
    done = {id(value) for value in known}
    order: list[Value] = []
    stack = [(value, False) for value in reversed(list(outputs))]
    while stack:
        value, ready = stack.pop()
        if ready:
            order.append(value)
        elif id(value) not in done:
            done.add(id(value))
            if not (value.is_input or value.is_const):
                stack.append((value, True))
                stack.extend((arg, False) for arg in reversed(value.args))
    return order
