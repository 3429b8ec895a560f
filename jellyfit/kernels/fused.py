"""A step fused over time: traced once, run by kernels forward and backward, and one operation for autograd."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jellyfit.kernels import cuda, naive
from jellyfit.kernels.emit import KernelSpec, Program
from jellyfit.kernels.errors import KernelUnavailableError
from jellyfit.kernels.freed import saved_tensors
from jellyfit.kernels.host import HostTarget
from jellyfit.kernels.layout import Layout, Param, aligned, is_dense_sequence
from jellyfit.kernels.norm_backward import NormBackward
from jellyfit.kernels.trace import StepFunction, trace_step

__all__ = ["FusedStep", "eager_gradients", "source"]

_MOST_SUMS = 1 << 20  # of parameters, kept apart for every channel, while a batch norm follows


class Packed(NamedTuple):
    """The parameters of one call.

    Attributes:
        slots: every tensor of the outer program by its slot.
        taken: those that the kernel takes.
    """

    slots: dict[int, Tensor]
    taken: list[Param]


_NOTHING = Packed({}, [])


class FusedStep:
    """The kernels of one step for one shape, dtype and set of parameters that want a gradient.

    Args:
        step: one time step, see :func:`jellyfit.kernels.trace.trace_step`.
        shape: of one step's input ``[N, *]``.
        dtype: of the input and the spikes; the arithmetic is float32, or float64 for float64.
        device: where it runs.
        states: the states' names; one called ``v`` can be recorded at every step.
        start: what each state starts with when no tensor is given.
        params: shape, dtype and whether a gradient is wanted, of every parameter.
        title: what the generated source is about.
        affine: the step's input is ``scale * x + shift``. These two, of shape ``[C, 1, ...]``, then follow the
            parameters of every pass, and the gradient of ``x`` is that of the step's input.
        residual: a second sequence like ``x``, which comes with every pass, is added to that; on the CPU, and with
            ``affine``. Its gradient is that of the step's input, too.
        lift: one kernel for all steps that differ in their numbers alone, a little slower.

    Raises:
        NotPointwiseError: the step cannot become a kernel.
        KernelUnavailableError: kernels cannot run on that device here.

    Examples:
        >>> import torch
        >>> from jellyfit.kernels import FusedStep
        >>> def integrate(x, states, params, say):
        ...     (v,) = states
        ...     return x + v, [x + v]
        >>> cpu = torch.device("cpu")
        >>> step = FusedStep(integrate, [1, 2], torch.float32, cpu, ["v"], [0.0], [], "Integrator")
        >>> y_seq, (v,), _ = step(torch.ones(3, 1, 2), [None], [])
        >>> y_seq[:, 0, 0].tolist(), v.tolist()
        ([1.0, 2.0, 3.0], [[3.0, 3.0]])
    """

    def __init__(
        self,
        step: StepFunction,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        states: Sequence[str],
        start: Sequence[float],
        params: Sequence[tuple[Sequence[int], torch.dtype, bool]],
        title: str,
        affine: bool = False,
        lift: bool = False,
        residual: bool = False,
    ) -> None:
        if residual and device.type != "cpu":
            raise KernelUnavailableError("kernels that add a residual run on the CPU alone")
        self.step = step
        self.states = list(states)
        self.start = list(start)
        spec = _specify(step, shape, dtype, states, start, params, title, affine, lift, residual)
        self.real, self.program, self.graph = spec.real, spec.program, spec.program.graph
        self.target = _target(device)(spec)
        self.target.prepare()
        self._independent = [i for i, value in enumerate(self.graph.grad_states) if value is None]  # nothing uses them
        self._layouts: dict[tuple[int, ...] | None, tuple[Layout, list[tuple[int, int]]]] = {}

    # ---------------------------------------------------------------- running it

    def __call__(
        self, x_seq: Tensor, states: Sequence[Tensor | None], params: Sequence[Tensor], want_v_seq: bool = False
    ) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """Run over a sequence.

        Args:
            x_seq: ``[T, N, *]``.
            states: before the first step, ``[N, *]`` each; ``None`` stands for the start value.
            params: the step's parameters.
            want_v_seq: also record the state ``v`` after every step.

        Returns:
            Spikes ``[T, N, *]``, states after the last step, and ``v`` after every step or ``None``.
        """
        if not is_dense_sequence(x_seq):
            x_seq = x_seq.contiguous()
        if self._independent:
            states = self.cut(states)
        if torch.is_grad_enabled() and (
            x_seq.requires_grad
            or any(state is not None and state.requires_grad for state in states)
            or any(param.requires_grad for param in params)
        ):
            spikes, *lasts = _apply(self, want_v_seq, x_seq, *states, *params)
            v_seq = lasts.pop() if want_v_seq else None
            return spikes, lasts, v_seq
        packed = self.pack(x_seq, params)
        spikes, lasts, v_seq, _ = self.forward_pass(x_seq, states, packed, want_v_seq, keep=False)
        return spikes, lasts, v_seq

    def cut(self, states: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        """``states``, of which those that no gradient reaches are cut from the graph that made them."""
        return [
            state.detach() if i in self._independent and state is not None else state for i, state in enumerate(states)
        ]

    def gradients(
        self,
        x_seq: Tensor,
        states: Sequence[Tensor],
        params: Sequence[Tensor],
        grad_spikes: Tensor,
        grad_states: Sequence[Tensor],
        grad_v_seq: Tensor | None,
    ) -> list[Tensor | None]:
        """Gradients of input, states and parameters, for callers that keep no graph (``torch.compile``)."""
        packed, kept = self.pack(x_seq, params), None
        if len(x_seq) > self.target.stretch:
            *_, kept = self.forward_pass(x_seq, states, packed, False, keep=True)
        grad_x, firsts, grad_params = self.backward_pass(
            x_seq, states, packed, kept, grad_spikes, grad_states, grad_v_seq
        )
        return [grad_x, *firsts, *grad_params]

    def _layout(self, x: Tensor) -> tuple[Layout, list[tuple[int, int]]]:
        """The layout of ``x``, and period and inner size of each reduction in it."""
        key = None if x.is_contiguous() else x.stride()
        found = self._layouts.get(key)
        if found is None:
            layout = Layout.of(x)
            found = self._layouts[key] = layout, [layout.indexing(total.shape) for total in self.graph.reductions]
        return found

    def _aligned(self, tensors: Sequence[Tensor | None], x: Tensor) -> list[Tensor | None]:
        return [None if t is None else aligned(t, x.shape[1:], x.stride()[1:], self.real) for t in tensors]

    def pack(self, x: Tensor, params: Sequence[Tensor]) -> Packed:
        """The parameters of a call on ``x`` as forward and backward take them; outside autograd."""
        if not params:
            return _NOTHING
        slots = dict(enumerate(params))
        self.graph.before.run(slots)
        layout, _ = self._layout(x)
        return Packed(slots, [layout.pack(slots[slot], self.real) for _, slot in self.graph.params])

    def forward_pass(
        self,
        x: Tensor,
        states: Sequence[Tensor | None],
        packed: Packed,
        want_v_seq: bool,
        keep: bool,
        residual: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor], Tensor | None, Tensor | None]:
        """Spikes, last states, ``v_seq`` and what backward needs kept, outside autograd; ``x`` is dense."""
        return self.target.forward(x, self._aligned(states, x), self._taken(packed, x, residual), want_v_seq, keep)

    def norm_can_follow(self, x: Tensor) -> bool:
        """Whether :meth:`backward_pass` of contiguous ``x`` can go on with a batch norm's, channel by channel."""
        if not isinstance(self.target, HostTarget) or x.dtype != torch.float32:
            return False
        channels = x.shape[2]
        if self.graph.reductions:  # whose order of summation must not depend on the number of threads
            return sum(period for period, _ in self._layout(x)[1]) * channels <= _MOST_SUMS
        return channels >= torch.get_num_threads()  # which share the channels

    def _taken(self, packed: Packed, x: Tensor, residual: Tensor | None) -> list[Param]:
        if residual is None:
            return packed.taken
        return [*packed.taken, (aligned(residual, x.shape, x.stride(), self.real), x.numel(), 1)]

    def backward_pass(
        self,
        x: Tensor,
        states: Sequence[Tensor | None],
        packed: Packed,
        kept: Tensor | None,
        grad_spikes: Tensor | None,
        grad_lasts: Sequence[Tensor | None],
        grad_v_seq: Tensor | None,
        residual: Tensor | None = None,
        norm: NormBackward | None = None,
    ) -> tuple[Tensor | None, list[Tensor | None], list[Tensor | None]]:
        """Gradients of the step's input, of the first states and of the parameters, outside autograd.

        If a batch norm before it :meth:`norm_can_follow`, its gradients too; where ``norm`` names no place for that of
        its input, it takes the place of the gradient of the step's input.
        """
        reductions = self.graph.reductions
        if grad_spikes is None:
            grad_spikes = torch.zeros_like(x)
        grad_x, grad_states, sums = self.target.backward(
            x,
            self._aligned(states, x),
            self._taken(packed, x, residual),
            kept,
            aligned(grad_spikes, x.shape, x.stride(), x.dtype),
            self._aligned(grad_lasts, x),
            None if grad_v_seq is None else aligned(grad_v_seq, x.shape, x.stride(), self.real),
            self._layout(x)[1] if reductions else (),
            *(() if norm is None else (norm,)),
        )
        grad_params: list[Tensor | None] = [None] * len(self.graph.grad_params)
        if reductions:
            layout, _ = self._layout(x)
            slots = dict(packed.slots)
            for reduction, total in zip(reductions, sums, strict=True):
                slots[reduction.slot] = layout.unpack_sum(total, reduction.shape, reduction.result)
            self.graph.after.run(slots)
            for i, slot in enumerate(self.graph.grad_params):
                if slot is not None:
                    grad, param = slots[slot], slots[i]
                    if grad.shape != param.shape:
                        grad = grad.sum_to_size(param.shape)
                    grad_params[i] = grad if grad.dtype == param.dtype else grad.to(param.dtype)
        for place in self._independent:
            grad_states[place] = None
        return None if self.graph.grad_x is None else grad_x, grad_states, grad_params


class _Run(torch.autograd.Function):
    """:class:`FusedStep` as autograd sees it: ``(spikes, states at the end, ..., v_seq)``."""

    @staticmethod
    def forward(ctx: Any, fused: FusedStep, want_v_seq: bool, x: Tensor, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        count = len(fused.states)
        states, params = tensors[:count], tensors[count:]
        packed = fused.pack(x, params)  # type: ignore[arg-type]
        spikes, lasts, v_seq, kept = fused.forward_pass(x, states, packed, want_v_seq, keep=True)
        ctx.fused, ctx.packed, ctx.want_v_seq = fused, packed, want_v_seq
        ctx.save_for_backward(x, kept, *tensors)
        ctx.set_materialize_grads(False)
        return (spikes, *lasts) if v_seq is None else (spikes, *lasts, v_seq)

    @staticmethod
    def backward(ctx: Any, grad_spikes: Tensor | None, *grads: Tensor | None) -> tuple[Any, ...]:
        fused: FusedStep = ctx.fused
        x, kept, *tensors = saved_tensors(ctx)
        count = len(fused.states)
        states, params = tensors[:count], tensors[count:]
        grad_lasts, grad_v_seq = grads[:count], grads[count] if ctx.want_v_seq else None
        if torch.is_grad_enabled():  # create_graph=True: a gradient that can be differentiated again
            return (
                None,
                None,
                *eager_gradients(fused, ctx.needs_input_grad[2:], x, states, params, grad_spikes, grads),
            )
        grad_x, grad_states, grad_params = fused.backward_pass(
            x, states, ctx.packed, kept, grad_spikes, grad_lasts, grad_v_seq
        )
        return None, None, grad_x, *grad_states, *grad_params


# Function.apply without its look at torch.func, whose tensors never come here.
_apply: Callable[..., tuple[Tensor, ...]] = super(torch.autograd.Function, _Run).apply


def eager_gradients(
    fused: FusedStep,
    needed: Sequence[bool],
    x: Tensor,
    states: Sequence[Tensor | None],
    params: Sequence[Tensor],
    grad_spikes: Tensor | None,
    grads: Sequence[Tensor | None],
    given: Sequence[Tensor | None] | None = None,
) -> list[Tensor | None]:
    """The same gradients from the eager twin, as functions of everything.

    ``needed`` says of which tensors of ``given`` (default: input, states, parameters).
    """
    begin = [
        torch.full_like(x[0], number, dtype=fused.real) if state is None else state
        for state, number in zip(states, fused.start, strict=True)
    ]
    given = [x, *states, *params] if given is None else given
    spikes, lasts, sequences = naive.run(fused.step, x, begin, params)
    outputs = [spikes, *lasts]
    if len(grads) > len(lasts):
        outputs.append(sequences[fused.states.index("v")])
    pairs = [
        (output, grad)
        for output, grad in zip(outputs, [grad_spikes, *grads], strict=True)
        if grad is not None and output.requires_grad
    ]
    wanted = [tensor for tensor, need in zip(given, needed, strict=True) if need]
    found = iter(
        torch.autograd.grad(
            [output for output, _ in pairs],
            wanted,  # type: ignore[arg-type]
            [grad for _, grad in pairs],
            create_graph=True,
            allow_unused=True,
        )
    )
    return [next(found) if need else None for need in needed]


def source(
    step: StepFunction,
    shape: Sequence[int],
    dtype: torch.dtype,
    target: str,
    states: Sequence[str],
    start: Sequence[float],
    params: Sequence[tuple[Sequence[int], torch.dtype, bool]],
    title: str,
    which: str,
) -> str:
    """The generated source that :class:`FusedStep` would run on ``target`` (``"cpu"`` or ``"cuda"``).

    Examples:
        >>> import torch
        >>> from jellyfit.kernels import source
        >>> def integrate(x, states, params, say):
        ...     (v,) = states
        ...     return x + v, [x + v]
        >>> text = source(integrate, [1, 2], torch.float32, "cuda", ["v"], [0.0], [], "Integrator", "forward")
        >>> "Integrator" in text
        True
    """
    return _TARGETS[target](_specify(step, shape, dtype, states, start, params, title)).source(which)


def _specify(
    step: StepFunction,
    shape: Sequence[int],
    dtype: torch.dtype,
    states: Sequence[str],
    start: Sequence[float],
    params: Sequence[tuple[Sequence[int], torch.dtype, bool]],
    title: str,
    affine: bool = False,
    lift: bool = False,
    residual: bool = False,
) -> KernelSpec:
    """Trace a step and say what its kernels are generated from."""
    real = torch.promote_types(dtype, torch.float32)  # of the arithmetic
    channels = (shape[1], *(1 for _ in shape[2:])) if affine else None
    graph = trace_step(step, shape, real, states, params, channels, residual)
    arrays = [math.prod(graph.shapes[slot]) != 1 for _, slot in graph.params]
    return KernelSpec(Program.of(graph), real, dtype, start, arrays, title, lift, affine)


_TARGETS: dict[str, Callable[..., HostTarget | cuda.CudaTarget]] = {"cpu": HostTarget, "cuda": cuda.CudaTarget}


def _target(device: torch.device) -> Callable[..., HostTarget | cuda.CudaTarget]:
    if device.type == "cpu":
        return HostTarget
    if device.type == "cuda":
        reason = cuda.why_not()
        if reason is not None:
            raise KernelUnavailableError(reason)
        return functools.partial(cuda.CudaTarget, device=device)
    raise KernelUnavailableError(f"there are no kernels for devices of type {device.type!r}")
