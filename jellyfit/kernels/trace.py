"""One time step of a neuron and its vector-Jacobian product, traced into one graph of pointwise operations.

The step is ordinary PyTorch code. It is run once, with autograd, on tensors that have a shape but no data, and every
ATen operation it makes is written down (:class:`_Recorder`). What comes out (:class:`StepGraph`) has two parts:

* *inner* values depend on the input, the state or a gradient: they become the kernel, in the same arithmetic;
* *outer* values depend on parameters alone (``sigmoid(w)``): eager PyTorch computes them, once a call, on tensors as
  small as the parameters, and so does it the way back from their gradients to the parameters'.

A gradient crosses from the inside to the outside where autograd sums over the axes along which a parameter was
broadcast: the kernel sums there, and over time.

Where the step's input is an affine function of what is given (a batch norm in front of a neuron), scale and shift are
two of the parameters, whose gradients are left to the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from jellyfit.kernels.errors import NotPointwiseError
from jellyfit.kernels.graph import Builder, Value
from jellyfit.kernels.lower import Lowering, is_pointwise
from jellyfit.kernels.ops import OPS

__all__ = ["OuterProgram", "Reduction", "StepFunction", "StepGraph", "trace_step"]

StepFunction = Callable[
    [Tensor, Sequence[Tensor], Sequence[Tensor], Callable[..., None]], tuple[Tensor, Sequence[Tensor]]
]
"""``(x, states, params, say) -> (spike, new states)``."""


@dataclass(frozen=True)
class _Outer:
    """A tensor that eager PyTorch computes: number ``slot`` of an :class:`OuterProgram`."""

    slot: int
    shape: tuple[int, ...]


@dataclass
class OuterProgram:
    """ATen calls on tensors as small as the parameters, replayed at every call."""

    calls: list[tuple[Callable[..., Tensor], tuple[Any, ...], dict[str, Any], int]] = field(default_factory=list)

    def run(self, slots: dict[int, Tensor]) -> None:
        """Compute every call's result into ``slots``, in which the inputs are."""
        for function, args, kwargs, slot in self.calls:
            slots[slot] = function(*_replace(args, slots), **kwargs)


def _replace(args: tuple[Any, ...], slots: dict[int, Tensor]) -> tuple[Any, ...]:
    return tuple(slots[arg.slot] if isinstance(arg, _Outer) else arg for arg in args)


@dataclass(frozen=True)
class Reduction:
    """A gradient that the kernel sums over time and over the axes of one step that are 1 in ``shape``.

    ``result`` is the shape in which the outer program takes the sum.
    """

    value: Value
    slot: int
    shape: tuple[int, ...]
    result: tuple[int, ...]


@dataclass
class StepGraph:
    """What :func:`trace_step` found. All values but the inputs named ``grad_*`` are of the forward step.

    Attributes:
        x: the input.
        residual: a second sequence, or ``None``.
        states: the states before the step.
        params: inner inputs whose values the outer program (or a parameter itself) gives, with their slots.
        spike: the output.
        new_states: the states after the step.
        grad_spike, grad_new_states: the gradients that come in; ``None`` where no gradient can come.
        grad_x, grad_states: the gradients that go out; ``None`` where there is none.
        reductions: gradients that leave the kernel summed.
        before, after: outer programs: what the kernels take, and what is made of their sums.
        grad_params: slot of each parameter's gradient, ``None`` where there is none.
        shapes: of the outer tensors, by slot.
    """

    x: Value
    residual: Value | None
    states: list[Value]
    params: list[tuple[Value, int]]
    spike: Value
    new_states: list[Value]
    grad_spike: Value | None
    grad_new_states: list[Value | None]
    grad_x: Value | None
    grad_states: list[Value | None]
    reductions: list[Reduction]
    before: OuterProgram
    after: OuterProgram
    grad_params: list[int | None]
    shapes: dict[int, tuple[int, ...]]


_VIEWS = {"detach", "alias", "view", "_unsafe_view", "expand", "lift_fresh", "_reshape_alias", "unsqueeze", "squeeze"}
_FILLED = {"zeros_like": 0.0, "ones_like": 1.0, "new_zeros": 0.0, "new_ones": 1.0, "zeros": 0.0, "ones": 1.0}
_COMPARISONS = {
    "gt", "ge", "lt", "le", "eq", "ne", "isnan", "isinf", "isfinite", "logical_and", "logical_or", "logical_xor",
    "logical_not",
}  # fmt: skip


class _Recorder(TorchDispatchMode):
    """Writes down what a step does to the tensors it was given."""

    def __init__(self, real: torch.dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.real = real
        self.builder = Builder(np.float64 if real == torch.float64 else np.float32)
        self.lower = Lowering(self.builder)
        self.values: dict[int, Value | _Outer] = {}  # by storage: aliases of a tensor are the same value
        self.alive: list[Tensor] = []  # so that no storage is used again
        self.inputs: set[int] = set()
        self.before, self.after = OuterProgram(), OuterProgram()
        self.summed: set[int] = set()  # slots that depend on what the kernel sums
        self.params: dict[int, Value] = {}  # inner inputs by slot
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.reductions: list[Reduction] = []
        self.backward = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else importing this module would import the whole of torch.compile

    # ---------------------------------------------------------------- values and tensors

    def bind(self, tensor: Tensor, value: Value | _Outer) -> Tensor:
        self.values[_storage(tensor)] = value
        self.alive.append(tensor)
        return tensor

    def input(self, shape: Sequence[int], dtype: torch.dtype, value: Value | _Outer) -> Tensor:
        tensor = self.bind(torch.empty(tuple(shape), dtype=dtype, device="meta"), value)
        self.inputs.add(_storage(tensor))
        return tensor

    def outer(self, shape: Sequence[int]) -> _Outer:
        slot = len(self.shapes)
        self.shapes[slot] = tuple(shape)
        return _Outer(slot, tuple(shape))

    def value_of(self, tensor: Tensor, name: str) -> Value | _Outer:
        found = self.values.get(_storage(tensor))
        if found is None:
            if tensor.ndim == 0 and tensor.device.type == "cpu":  # a number written as torch.tensor(2.0) in the step
                return self.builder.const(float(tensor))
            raise NotPointwiseError(
                f"{name} uses a tensor of shape {list(tensor.shape)} that is no parameter, buffer or memory "
                "(make it one with register_buffer)"
            )
        return found

    def inner(self, value: Value | _Outer) -> Value:
        """The value inside the kernel: what the outside computes comes in as an input."""
        if isinstance(value, Value):
            return value
        if value.slot in self.summed:
            raise NotPointwiseError("a gradient of a parameter flows back into the neurons")
        if value.slot not in self.params:
            self.params[value.slot] = Value("input", name=f"p{len(self.params)}")
        return self.params[value.slot]

    # ---------------------------------------------------------------- the operations

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "profiler":  # its marks around modules compute nothing
            return func(*args, **(kwargs or {}))
        kwargs = {key: value for key, value in (kwargs or {}).items() if key not in ("layout", "device", "pin_memory")}
        name = func.overloadpacket.__name__
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        known = {id(tensor): self.value_of(tensor, name) for tensor in tensors}
        if name.endswith("_") and not name.endswith("__"):
            return self._in_place(func, name, args, kwargs, known)
        if name in _VIEWS:
            return self._view(func, name, args, kwargs, known)
        if self._is_outside(tensors, known):
            return self._outside(func, name, args, kwargs, known)
        return self._inside(func, name, args, kwargs, known)

    def _is_outside(self, tensors: list[Tensor], known: dict[int, Value | _Outer]) -> bool:
        """Whether parameters alone are at work, perhaps with constants no larger than they."""
        outer = [tensor for tensor in tensors if isinstance(known[id(tensor)], _Outer)]
        if not outer:
            return False
        size = math.prod(np.broadcast_shapes(*(tensor.shape for tensor in outer)))
        return all(
            isinstance(value, _Outer) or (value.is_const and tensor.numel() <= size)
            for tensor, value in ((tensor, known[id(tensor)]) for tensor in tensors)
        )

    def _view(self, func: Any, name: str, args: Any, kwargs: Any, known: dict[int, Value | _Outer]) -> Tensor:
        value = known[id(args[0])]
        if isinstance(value, _Outer) and name not in ("detach", "alias"):
            return self._outside(func, name, args, kwargs, known)
        out: Tensor = func(*args, **kwargs)
        if out.shape != args[0].shape and not (isinstance(value, Value) and value.is_const):
            raise NotPointwiseError(f"{name} changes the shape {list(args[0].shape)} to {list(out.shape)}")
        self.alive.append(out)
        return out if _storage(out) in self.values else self.bind(out, value)

    def _outside(self, func: Any, name: str, args: Any, kwargs: Any, known: dict[int, Value | _Outer]) -> Tensor:
        if is_pointwise(name):
            shape = np.broadcast_shapes(*(arg.shape for arg in args if isinstance(arg, Tensor)))
            out = torch.empty(shape, dtype=self._dtype(name, args), device="meta")
        else:
            out = func(*args, **kwargs)
            if not isinstance(out, Tensor):
                raise NotPointwiseError(f"aten.{name} on parameters gives {type(out).__name__}, not one tensor")
            if _storage(out) in self.values:  # a view: of its own from here on
                out = torch.empty(out.shape, dtype=out.dtype, device="meta")
        result = self.outer(out.shape)
        replayed = tuple(_replayed(arg, known) for arg in args)
        if any(isinstance(arg, Tensor) and arg.is_meta for arg in _flat(replayed)):
            raise NotPointwiseError(f"aten.{name} takes a list of parameters")
        if any(isinstance(arg, _Outer) and arg.slot in self.summed for arg in replayed):
            self.summed.add(result.slot)
            self.after.calls.append((func, replayed, kwargs, result.slot))
        else:
            self.before.calls.append((func, replayed, kwargs, result.slot))
        return self.bind(out, result)

    def _inside(self, func: Any, name: str, args: Any, kwargs: Any, known: dict[int, Value | _Outer]) -> Tensor:
        if name == "sum":
            return self._sum(args, kwargs, known)
        if name in _FILLED or name in ("full_like", "new_full", "full", "scalar_tensor"):
            return self._filled(func, name, args, kwargs)
        if name in ("empty_like", "new_empty", "empty", "new_empty_strided", "empty_strided"):
            return self.bind(func(*args, **kwargs, **_on_meta(name)), self.builder.const(0.0))
        operands = tuple(self.inner(known[id(arg)]) if isinstance(arg, Tensor) else arg for arg in args)
        if name in ("clone", "_to_copy", "contiguous"):
            dtype = kwargs.get("dtype") or args[0].dtype
            if dtype not in (self.real, torch.bool):
                raise NotPointwiseError(f"aten.{name} to {dtype}: kernels compute in {self.real} and bool")
            shape, value = args[0].shape, self.lower.cast(operands[0], dtype == torch.bool)
        elif not is_pointwise(name):
            raise NotPointwiseError(f"aten.{name} is not a pointwise operation that kernels know")
        else:
            dtype = self._dtype(name, args)
            if dtype not in (self.real, torch.bool):
                raise NotPointwiseError(f"aten.{name} gives {dtype}: kernels compute in {self.real} and bool")
            shape = np.broadcast_shapes(*(arg.shape for arg in args if isinstance(arg, Tensor)))
            try:
                value = self.lower(name, operands, kwargs)
            except (KeyError, TypeError, ValueError) as error:
                raise NotPointwiseError(f"aten.{name}: {error} is not supported in kernels") from error
        return self.bind(torch.empty(shape, dtype=dtype, device="meta"), value)

    def _dtype(self, name: str, args: Any) -> torch.dtype:
        if name in _COMPARISONS:
            return torch.bool
        if name in ("where", "masked_fill"):
            args = args[1:] if name == "where" else (args[0], args[2])
        operands = [arg for arg in args if isinstance(arg, (Tensor, float, int, bool)) and arg is not None]
        if name not in ("add", "sub", "mul", "rsub", "div", "pow", "where", "maximum", "minimum", "atan2", "copysign"):
            operands = [arg for arg in operands if isinstance(arg, Tensor)]
        kinds = [arg for arg in operands if isinstance(arg, Tensor)] or operands
        dtype = kinds[0].dtype if isinstance(kinds[0], Tensor) else torch.float32
        for other in operands:
            if other is not kinds[0]:
                dtype = torch.result_type(torch.empty(_shape(kinds[0]), dtype=dtype, device="meta"), other)
        if not (dtype.is_floating_point or name.startswith("bitwise") or name in ("where", "masked_fill")):
            dtype = self.real if dtype == torch.bool else dtype
        return dtype

    def _filled(self, func: Any, name: str, args: Any, kwargs: Any) -> Tensor:
        position = {"full_like": 1, "new_full": 2, "full": 1, "scalar_tensor": 0}.get(name)
        number = _FILLED[name] if position is None else args[position]
        out: Tensor = func(*args, **kwargs, **_on_meta(name))
        if out.dtype not in (self.real, torch.bool):
            raise NotPointwiseError(f"aten.{name} gives {out.dtype}: kernels compute in {self.real} and bool")
        return self.bind(out, self.builder.const(float(number), boolean=False))

    def _sum(self, args: Any, kwargs: Any, known: dict[int, Value | _Outer]) -> Tensor:
        if not self.backward:
            raise NotPointwiseError("aten.sum mixes neurons, so a step is not pointwise")
        source = args[0]
        axes = args[1] if len(args) > 1 and args[1] else list(range(source.ndim))
        axes = {axis % source.ndim for axis in axes}
        keep = bool(args[2]) if len(args) > 2 else bool(kwargs.get("keepdim", False))
        shape = [1 if axis in axes else size for axis, size in enumerate(source.shape)]
        without = [size for axis, size in enumerate(source.shape) if axis not in axes]
        result = self.sum(self.inner(known[id(source)]), shape, shape if keep else without)
        self.summed.add(result.slot)
        return self.bind(torch.empty(result.shape, dtype=source.dtype, device="meta"), result)

    def sum(self, value: Value, shape: Sequence[int], result: Sequence[int] | None = None) -> _Outer:
        """What the kernel sums, see :class:`Reduction`; ``result`` by default is ``shape``."""
        outside = self.outer(shape if result is None else result)
        self.reductions.append(Reduction(value, outside.slot, tuple(shape), outside.shape))
        return outside

    def _in_place(self, func: Any, name: str, args: Any, kwargs: Any, known: dict[int, Value | _Outer]) -> Tensor:
        target: Tensor = args[0]
        value = known[id(target)]
        if _storage(target) in self.inputs:
            raise NotPointwiseError(f"aten.{name} writes in place into the input, a state or a parameter")
        if isinstance(value, _Outer):
            if not all(isinstance(other, _Outer) for other in known.values()) or name in ("copy_", "fill_", "zero_"):
                raise NotPointwiseError(f"aten.{name} writes in place into what parameters alone make")
            plain = getattr(getattr(torch.ops.aten, name[:-1]), func._overloadname)
            result = self._outside(plain, name[:-1], args, kwargs, known)
            self.values[_storage(target)] = self.values[_storage(result)]
            return target
        if name in ("copy_", "fill_", "zero_"):
            source = args[1] if len(args) > 1 else 0.0
            new = self.inner(known[id(source)]) if isinstance(source, Tensor) else source
            self.values[_storage(target)] = self.lower.cast(new, target.dtype == torch.bool)
            return target
        operands = tuple(self.inner(known[id(arg)]) if isinstance(arg, Tensor) else arg for arg in args)
        if not is_pointwise(name[:-1]):
            raise NotPointwiseError(f"aten.{name} is not a pointwise operation that kernels know")
        self.values[_storage(target)] = self.lower.cast(
            self.lower(name[:-1], operands, kwargs), target.dtype == torch.bool
        )
        return target


def _on_meta(name: str) -> dict[str, str]:
    """Tensors made of nothing are made where those of the trace are."""
    return {"device": "meta"} if name in ("zeros", "ones", "full", "scalar_tensor", "empty", "empty_strided") else {}


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _replayed(arg: Any, known: dict[int, Value | _Outer]) -> Any:
    """An argument of an outer call: a slot, a constant as a tensor, or what it was."""
    value = known.get(id(arg)) if isinstance(arg, Tensor) else None
    if value is None:
        return arg
    if isinstance(value, _Outer):
        return value
    constant = torch.empty((), dtype=arg.dtype, device="cpu")
    return constant.fill_(value.number)


def _shape(operand: Any) -> tuple[int, ...]:
    return tuple(operand.shape) if isinstance(operand, Tensor) else ()


def _flat(args: Any) -> list[Any]:
    return [item for arg in args for item in (_flat(arg) if isinstance(arg, (list, tuple)) else [arg])]


def trace_step(
    step: StepFunction,
    shape: Sequence[int],
    real: torch.dtype,
    states: Sequence[str],
    params: Sequence[tuple[Sequence[int], torch.dtype, bool]],
    affine: Sequence[int] | None = None,
    residual: bool = False,
) -> StepGraph:
    """Trace one time step and its vector-Jacobian product.

    Args:
        step: the step, ``(x, states, params, say) -> (spike, new states)``, in PyTorch operations. It may call
            ``say("fire", h=tensor)`` and so on: what follows is then marked as that equation in the generated source,
            and the tensor goes by that name there.
        shape: of one step's input.
        real: dtype of the arithmetic, ``torch.float32`` or ``torch.float64``.
        states: names of the states, each of shape ``shape``.
        params: shape, dtype and whether a gradient is wanted, of every parameter.
        affine: shape of ``scale`` and ``shift``, two further parameters behind ``params``, which the step does not see:
            its input then is ``scale * x + shift`` with one rounding, and ``grad_x`` the gradient of that input.
        residual: a second sequence like ``x`` is added to that.

    Raises:
        NotPointwiseError: it cannot become a kernel. Exceptions of the step itself pass through.
    """
    recorder = _Recorder(real)
    given = x_value = Value("input", name="x")
    state_values = [Value("input", name=name) for name in states]
    nobodys_hooks = torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)
    with torch.inference_mode(False), torch.enable_grad(), nobodys_hooks:
        state_tensors = [recorder.input(shape, real, value).requires_grad_() for value in state_values]
        param_tensors = []
        for size, dtype, wanted in params:
            param_tensors.append(recorder.input(size, dtype, recorder.outer(size)).requires_grad_(wanted))
        if affine is not None:
            scale, shift = (recorder.inner(recorder.outer(affine)) for _ in range(2))
            scale.name, shift.name = "scale", "shift"
            x_value = recorder.builder.make("fma", given, scale, shift)
            x_value.name = "y"
        added = Value("input", name="residual") if residual else None
        if added is not None:
            x_value = recorder.builder.make("add", x_value, added)
        x = recorder.input(shape, real, x_value).requires_grad_()

        def say(equation: str, **named: Tensor) -> None:
            recorder.builder.note = equation
            for name, tensor in named.items():
                value = recorder.value_of(tensor, "the step")
                if isinstance(value, Value) and value.op in OPS and not value.name:
                    value.name = name

        with recorder:
            spike, after = step(x, state_tensors, param_tensors, say)
        outputs = [spike, *after]
        for what, output in zip(["the spike", *(f"the new {name}" for name in states)], outputs, strict=True):
            if not isinstance(output, Tensor) or tuple(output.shape) != tuple(shape):
                got = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise NotPointwiseError(f"{what} is {got}, not of the input's shape {list(shape)}")
        values = [recorder.inner(recorder.value_of(output, "the step")) for output in outputs]
        for name, value in zip(["s", *(f"{name}_next" for name in states)], values, strict=True):
            if value.op in OPS and not value.name:
                value.name = name
        recorder.backward = True
        say("backward")
        grads: list[Value | None] = []
        differentiable, incoming = [], []
        for name, output in zip(["grad_s", *(f"grad_{name}" for name in states)], outputs, strict=True):
            grads.append(Value("input", name=name) if output.requires_grad else None)
            if output.requires_grad:
                differentiable.append(output)
                incoming.append(recorder.input(shape, output.dtype, grads[-1]))  # type: ignore[arg-type]
        sources = [x, *state_tensors, *(tensor for tensor in param_tensors if tensor.requires_grad)]
        results: Sequence[Tensor | None] = [None] * len(sources)
        if differentiable:
            with recorder:
                results = _gradients(differentiable, sources, incoming)
    inner = [
        None if result is None else recorder.inner(recorder.value_of(result, "its gradient"))
        for result in results[: 1 + len(states)]
    ]
    remaining = iter(results[1 + len(states) :])
    grad_params = [_leave(recorder, next(remaining)) if wanted else None for _, _, wanted in params]
    return StepGraph(
        x=given,
        residual=added,
        states=state_values,
        params=[(value, slot) for slot, value in recorder.params.items()],
        spike=values[0],
        new_states=values[1:],
        grad_spike=grads[0],
        grad_new_states=grads[1:],
        grad_x=inner[0],
        grad_states=inner[1:],
        reductions=recorder.reductions,
        before=recorder.before,
        after=recorder.after,
        grad_params=grad_params,
        shapes=recorder.shapes,
    )


def _gradients(outputs: Sequence[Tensor], inputs: Sequence[Tensor], grads: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """``torch.autograd.grad``, without the checks of ``grads`` that would import the whole of sympy (a second)."""
    engine = torch.autograd.Variable._execution_engine
    found: Sequence[Tensor | None] = engine.run_backward(
        tuple(outputs), tuple(grads), False, False, tuple(inputs), allow_unreachable=True, accumulate_grad=False
    )
    return found


def _leave(recorder: _Recorder, result: Tensor | None) -> int | None:
    """The slot of a parameter's gradient; one as large as the input itself leaves the kernel only here."""
    if result is None:
        return None
    value = recorder.value_of(result, "its gradient")
    if isinstance(value, _Outer):
        return value.slot
    return recorder.sum(value, result.shape).slot
