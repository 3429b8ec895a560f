"""The table of operations: from ATen's names to one C expression each, for the host and for CUDA alike.

Upper-case names in the expressions (``EXP``, ``SQRT``, ...) are macros that each target defines in its preamble.
``real`` is the type of the arithmetic, ``R(x)`` a literal of it. The results of elementary operations are those of
eager PyTorch to the bit; what it fuses into one rounding (``add`` with ``alpha``) is fused here too.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OPS", "Op"]


@dataclass(frozen=True)
class Op:
    """One pointwise operation.

    Attributes:
        code: C expression with ``{0}``, ``{1}``, ... for its arguments.
        cost: of computing it once more, in additions.
        boolean: whether the result is a truth value.
    """

    code: str
    cost: float = 1.0
    boolean: bool = False


def _function(name: str, cost: float = 20.0, arity: int = 1) -> Op:
    arguments = ", ".join(f"{{{i}}}" for i in range(arity))
    return Op(f"{name}({arguments})", cost)


def _compare(sign: str) -> Op:
    return Op(f"({{0}} {sign} {{1}})", boolean=True)


OPS: dict[str, Op] = {
    # arithmetic
    "add": Op("{0} + {1}"),
    "sub": Op("{0} - {1}"),
    "mul": Op("{0} * {1}"),
    "div": Op("{0} / {1}", 5),
    "neg": Op("-{0}"),
    "fma": Op("FMA({0}, {1}, {2})"),  # {0} * {1} + {2} with one rounding
    "reciprocal": Op("R(1.0) / {0}", 5),
    "sqrt": _function("SQRT", 6),
    "rsqrt": Op("R(1.0) / SQRT({0})", 10),
    "abs": _function("ABS", 1),
    "sign": Op("(real)({0} > R(0.0)) - (real)({0} < R(0.0))", 3),
    "floor": _function("FLOOR", 2),
    "ceil": _function("CEIL", 2),
    "round": _function("RINT", 2),  # half to even
    "trunc": _function("TRUNC", 2),
    "maximum": Op("(({0} > {1} || {0} != {0}) ? {0} : {1})", 2),  # NaN if either is
    "minimum": Op("(({0} < {1} || {0} != {0}) ? {0} : {1})", 2),
    "clamp_min": Op("({0} < {1} ? {1} : {0})", 1),
    "clamp_max": Op("({0} > {1} ? {1} : {0})", 1),
    "where": Op("({0} ? {1} : {2})", 1),
    "copysign": _function("COPYSIGN", 2, arity=2),
    # transcendental
    "exp": _function("EXP"),
    "expm1": _function("EXPM1", 30),
    "log": _function("LOG"),
    "log1p": _function("LOG1P", 30),
    "sin": _function("SIN"),
    "cos": _function("COS"),
    "tan": _function("TAN"),
    "atan": _function("ATAN"),
    "atan2": _function("ATAN2", 30, arity=2),
    "sinh": _function("SINH", 30),
    "cosh": _function("COSH", 30),
    "tanh": _function("TANH", 25),
    "erf": _function("ERF", 25),
    "sigmoid": _function("SIGMOID", 25),
    "pow": _function("POW", 40, arity=2),
    # comparisons and logic
    "gt": _compare(">"),
    "ge": _compare(">="),
    "lt": _compare("<"),
    "le": _compare("<="),
    "eq": _compare("=="),
    "ne": _compare("!="),
    "and": Op("({0} && {1})", boolean=True),
    "or": Op("({0} || {1})", boolean=True),
    "xor": Op("({0} != {1})", boolean=True),
    "not": Op("(!{0})", boolean=True),
    # between the two kinds
    "real": Op("({0} ? R(1.0) : R(0.0))", 1),
    "bool": Op("({0} != R(0.0))", 1, boolean=True),
}
"""Every operation that kernels can hold, by name."""
