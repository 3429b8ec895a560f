"""From ATen's operations to those of :mod:`jellyfit.kernels.ops`: what eager PyTorch computes, in smaller words."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from jellyfit.kernels.graph import Builder, Value

__all__ = ["Lowering", "is_pointwise"]

Operand = Value | float | bool | None


class Lowering:
    """Turns one call of an ATen operation into values of ``builder``'s graph.

    Args:
        builder: makes the values.
    """

    def __init__(self, builder: Builder) -> None:
        self.builder = builder

    def __call__(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
        """The value of ATen's ``name`` (without its overload) on values and numbers.

        Raises:
            KeyError: it is not a pointwise operation of the table.
        """
        return _RULES[name](self, *args, **kwargs)

    # ---------------------------------------------------------------- operands

    def real(self, operand: Operand) -> Value:
        """The operand as a real number."""
        if isinstance(operand, Value):
            return self.builder.make("real", operand) if operand.boolean else operand
        return self.builder.const(float(operand))  # type: ignore[arg-type]

    def truth(self, operand: Operand) -> Value:
        """The operand as a truth value."""
        value = self.real(operand) if not isinstance(operand, Value) else operand
        return value if value.boolean else self.builder.make("bool", value)

    def make(self, op: str, *operands: Operand) -> Value:
        """Operation ``op`` on real numbers."""
        return self.builder.make(op, *(self.real(operand) for operand in operands))

    # ---------------------------------------------------------------- rules with more to them than a name

    def add(self, a: Operand, b: Operand, alpha: float = 1.0, sign: float = 1.0) -> Value:
        """Computes a + alpha b, with one rounding where eager PyTorch has one."""
        scale = sign * alpha
        if scale == 1.0:
            return self.make("add", a, b)
        if scale == -1.0:
            return self.make("sub", a, b)
        return self.make("fma", b, scale, a)

    def sub(self, a: Operand, b: Operand, alpha: float = 1.0) -> Value:
        """Computes a - alpha b."""
        return self.add(a, b, alpha, -1.0)

    def rsub(self, a: Operand, b: Operand, alpha: float = 1.0) -> Value:
        """Computes b - alpha a."""
        return self.sub(b, a, alpha)

    def pow(self, base: Operand, exponent: Operand) -> Value:
        """Powers; small whole ones as products."""
        if not isinstance(exponent, Value):
            power = float(exponent)  # type: ignore[arg-type]
            if power == 0.5:
                return self.make("sqrt", base)
            if power == -0.5:
                return self.make("rsqrt", base)
            if power in (1.0, 2.0, 3.0):
                return self._product(base, int(power))
            if power == -1.0:
                return self.make("reciprocal", base)
            if power == -2.0:
                return self.make("reciprocal", self._product(base, 2))
            if power == 0.0:
                return self.builder.const(1.0)
        return self.make("pow", base, exponent)

    def _product(self, base: Operand, count: int) -> Value:
        value = self.real(base)
        result = value
        for _ in range(count - 1):
            result = self.make("mul", result, value)
        return result

    def clamp(self, a: Operand, low: Operand = None, high: Operand = None, **names: Operand) -> Value:
        """Between two bounds, NaN kept."""
        low, high = names.get("min", low), names.get("max", high)
        value = self.real(a)
        if low is not None:
            value = self.make("clamp_min", value, low)
        if high is not None:
            value = self.make("clamp_max", value, high)
        return value

    def where(self, condition: Operand, a: Operand, b: Operand) -> Value:
        """Choose by a condition."""
        truth = self.truth(condition)
        if isinstance(a, Value) and isinstance(b, Value) and a.boolean and b.boolean:
            return self.builder.make("where", truth, a, b)
        return self.builder.make("where", truth, self.real(a), self.real(b))

    def masked_fill(self, a: Operand, mask: Operand, number: Operand) -> Value:
        """A number where the mask is true."""
        return self.where(mask, number, a)

    def cast(self, a: Operand, to_bool: bool) -> Value:
        """Between real numbers and truth values."""
        return self.truth(a) if to_bool else self.real(a)

    def sigmoid_backward(self, grad: Operand, out: Operand) -> Value:
        """From the output of sigmoid."""
        return self.make("mul", grad, self.make("mul", self.make("sub", 1.0, out), out))

    def tanh_backward(self, grad: Operand, out: Operand) -> Value:
        """From the output of tanh."""
        return self.make("mul", grad, self.make("sub", 1.0, self.make("mul", out, out)))

    def threshold_backward(self, grad: Operand, a: Operand, threshold: float) -> Value:
        """Zero up to the threshold."""
        return self.where(self.make("le", a, threshold), 0.0, grad)

    def threshold(self, a: Operand, threshold: float, number: float) -> Value:
        """A number up to the threshold."""
        return self.where(self.make("le", a, threshold), number, a)

    def leaky_relu(self, a: Operand, slope: float = 0.01) -> Value:
        """Slope below zero."""
        return self.where(self.make("gt", a, 0.0), a, self.make("mul", a, slope))

    def leaky_relu_backward(self, grad: Operand, a: Operand, slope: float, is_result: bool) -> Value:
        """Its gradient."""
        return self.where(self.make("gt", a, 0.0), grad, self.make("mul", grad, slope))

    def hardtanh(self, a: Operand, low: float = -1.0, high: float = 1.0) -> Value:
        """Between two bounds."""
        return self.clamp(a, low, high)

    def hardtanh_backward(self, grad: Operand, a: Operand, low: float, high: float) -> Value:
        """Its gradient."""
        outside = self.builder.make("or", self.make("le", a, low), self.make("ge", a, high))
        return self.where(outside, 0.0, grad)

    def softplus(self, a: Operand, beta: float = 1.0, threshold: float = 20.0) -> Value:
        """log(1 + exp(beta a)) / beta."""
        scaled = self.make("mul", a, beta)
        soft = self.make("div", self.make("log1p", self.make("exp", scaled)), beta)
        return self.where(self.make("gt", scaled, threshold), a, soft)

    def softplus_backward(self, grad: Operand, a: Operand, beta: float, threshold: float) -> Value:
        """Its gradient."""
        scaled = self.make("mul", a, beta)
        z = self.make("exp", scaled)
        soft = self.make("div", self.make("mul", grad, z), self.make("add", z, 1.0))
        return self.where(self.make("gt", scaled, threshold), grad, soft)

    def silu(self, a: Operand) -> Value:
        """Computes a sigmoid(a)."""
        return self.make("div", a, self.make("add", 1.0, self.make("exp", self.make("neg", a))))

    def silu_backward(self, grad: Operand, a: Operand) -> Value:
        """Its gradient."""
        s = self.make("sigmoid", a)
        slope = self.make("add", 1.0, self.make("mul", a, self.make("sub", 1.0, s)))
        return self.make("mul", self.make("mul", grad, s), slope)

    def addcmul(self, a: Operand, b: Operand, c: Operand, value: float = 1.0) -> Value:
        """Computes a + value b c."""
        return self.make("add", a, self.make("mul", self.make("mul", value, b), c))

    def addcdiv(self, a: Operand, b: Operand, c: Operand, value: float = 1.0) -> Value:
        """Computes a + value b / c."""
        return self.make("add", a, self.make("div", self.make("mul", value, b), c))

    def logical(self, op: str, *operands: Operand) -> Value:
        """Logic on truth values."""
        return self.builder.make(op, *(self.truth(operand) for operand in operands))

    def isnan(self, a: Operand) -> Value:
        """Not a number."""
        return self.make("ne", a, a)

    def isinf(self, a: Operand) -> Value:
        """Infinite."""
        return self.make("eq", self.make("abs", a), math.inf)

    def isfinite(self, a: Operand) -> Value:
        """Neither infinite nor NaN."""
        return self.make("lt", self.make("abs", a), math.inf)

    def heaviside(self, a: Operand, at_zero: Operand) -> Value:
        """1 above zero, a given value at zero."""
        beyond = self.builder.make("real", self.make("gt", a, 0.0))
        return self.where(self.make("eq", a, 0.0), at_zero, beyond)

    def div(self, a: Operand, b: Operand, rounding_mode: str | None = None) -> Value:
        """Quotient, also cut to whole numbers."""
        quotient = self.make("div", a, b)
        if rounding_mode == "trunc":
            return self.make("trunc", quotient)
        if rounding_mode is not None:
            raise KeyError(f"div(rounding_mode={rounding_mode!r})")
        return quotient

    def round(self, a: Operand, decimals: int = 0) -> Value:
        """To whole numbers, half to even."""
        if decimals:
            raise KeyError("round(decimals)")
        return self.make("round", a)


def _plain(op: str) -> Callable[..., Value]:
    return lambda lowering, *operands: lowering.make(op, *operands)


def _logical(op: str) -> Callable[..., Value]:
    return lambda lowering, *operands: lowering.logical(op, *operands)


_AS_THEY_ARE = (
    "mul", "neg", "reciprocal", "sqrt", "rsqrt", "abs", "floor", "ceil", "trunc", "maximum", "minimum",
    "copysign", "exp", "expm1", "log", "log1p", "sin", "cos", "tan", "atan", "atan2", "sinh", "cosh", "tanh",
    "erf", "sigmoid", "gt", "ge", "lt", "le", "eq", "ne", "clamp_min", "clamp_max",
)  # fmt: skip
_METHODS = (
    "add", "sub", "rsub", "pow", "clamp", "where", "masked_fill", "sigmoid_backward", "tanh_backward",
    "threshold_backward", "threshold", "leaky_relu", "leaky_relu_backward", "hardtanh", "hardtanh_backward",
    "softplus", "softplus_backward", "silu", "silu_backward", "addcmul", "addcdiv", "isnan", "isinf",
    "isfinite", "heaviside", "div", "round",
)  # fmt: skip

_RULES: dict[str, Callable[..., Value]] = {
    **{name: _plain(name) for name in _AS_THEY_ARE},
    **{name: getattr(Lowering, name) for name in _METHODS},
    "multiply": _plain("mul"),
    "sgn": _plain("sign"),
    "sign": _plain("sign"),
    "relu": lambda lowering, a: lowering.make("clamp_min", a, 0.0),
    "square": lambda lowering, a: lowering.pow(a, 2.0),
    "logical_and": _logical("and"),
    "logical_or": _logical("or"),
    "logical_xor": _logical("xor"),
    "logical_not": _logical("not"),
    "bitwise_and": _logical("and"),
    "bitwise_or": _logical("or"),
    "bitwise_xor": _logical("xor"),
    "bitwise_not": _logical("not"),
}


def is_pointwise(name: str) -> bool:
    """Whether ATen's ``name`` has a rule."""
    return name in _RULES
