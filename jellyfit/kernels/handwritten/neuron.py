"""A neuron's two passes through time, of which only the lines of its charge are written by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from jellyfit.errors import InputError
from jellyfit.kernels.cuda_source import CudaNames, math_macros
from jellyfit.kernels.emit import lines
from jellyfit.kernels.graph import Value, reachable
from jellyfit.kernels.handwritten.base import CKernel2D, folded, indented
from jellyfit.kernels.trace import StepGraph, trace_step
from jellyfit.surrogates import DeterministicPass, SurrogateFunction

__all__ = ["NeuronBPTTKernel", "NeuronFPTTKernel"]


class _NeuronKernel(CKernel2D):
    """What both passes share: the types, the thresholds, and firing and reset, which are traced from PyTorch code."""

    _shapes: ClassVar[Mapping[str, int | None]] = {}
    """Steps that a sequence has more than ``T``; ``None`` for what has no axis of time."""

    def __init__(self, what: str, hard_reset: bool, dtype: str, reverse: bool) -> None:
        if dtype not in ("float", "double", "half2"):
            raise InputError(f"{type(self).__name__}(dtype={dtype!r}): expected 'float', 'double' or 'half2'.")
        super().__init__(f"{type(self).__name__}_{dtype}_{what}", reverse)
        self.hard_reset = hard_reset
        self.dtype = dtype

    def _add_thresholds(self) -> None:
        for name in self._thresholds:
            self.add_param(f"{self.dtype} &", name)

    @property
    def _thresholds(self) -> list[str]:
        return ["v_th", "v_reset"] if self.hard_reset else ["v_th"]

    def __call__(self, grid: Sequence[int], block: Sequence[int], py_dict: Mapping[str, object]) -> None:
        tensors, _ = self._checked(py_dict)
        T, N = self._steps_and_neurons(tensors)
        for name, more in self._shapes.items():
            expected = [N] if more is None else [T + more, N]
            if list(tensors[name].shape) != expected:
                raise InputError(f"{self.kernel_name}: {name} is {list(tensors[name].shape)}; expected {expected}.")
        units = 2 if self.dtype == "half2" else 1
        if (py_dict["numel"], py_dict["N"]) != (T * N // units, N // units):
            raise InputError(
                f"{self.kernel_name}: numel={py_dict['numel']}, N={py_dict['N']}; expected {T * N // units} and "
                f"{N // units} for sequences of {T} steps and {N} neurons."
            )
        super().__call__(grid, block, py_dict)

    # ---------------------------------------------------------------- CUDA text

    @property
    def _real(self) -> str:
        return "double" if self.dtype == "double" else "float"

    def _trace(self, surrogate: SurrogateFunction, detach_reset: bool) -> StepGraph:
        """Fire and reset, and their gradient, from the equations that every neuron has."""

        def step(
            h: Tensor, states: Sequence[Tensor], params: Sequence[Tensor], say: Callable[..., None]
        ) -> tuple[Tensor, list[Tensor]]:
            v_th = params[0]
            say("fire")
            spike = surrogate(h - v_th)
            say("reset")
            kept = spike.detach() if detach_reset else spike
            return spike, [(1.0 - kept) * h + kept * params[1] if self.hard_reset else h - kept * v_th]

        real = torch.float64 if self._real == "double" else torch.float32
        graph = trace_step(step, (2, 2), real, ["v"], [((), real, False) for _ in self._thresholds])
        graph.x.name = "h"
        for value, slot in graph.params:
            value.name = self._thresholds[slot]
        return graph

    def _function(
        self, comment: str, head: str, inputs: Sequence[Value | None], results: Mapping[str, Value | None]
    ) -> str:
        """A device function that computes ``results``, each stored by the C text it stands by."""
        names = CudaNames(self._real)
        for value in inputs:  # these are its arguments: they have their names for themselves
            if value is not None:
                names(value)
        wanted = {store: value or Value("const") for store, value in results.items()}
        body = lines(reachable(wanted.values()), names)
        body += [f"{store.format(names(value))};" for store, value in wanted.items()]
        text = (
            f"// {comment}\n{folded(f'__device__ __forceinline__ {head}')} {{\n{indented(chr(10).join(body), 1)}}}\n\n"
        )
        return f"{math_macros(self._real, text)}\n{text}"

    def _call(self, function: str, first: str, lane: str = "") -> str:
        """A call of ``function`` with the thresholds behind its first arguments; for a ``half2`` in a lane."""
        thresholds = [f"__low2float({name})" if lane else name for name in self._thresholds]
        return f"{function}({', '.join([first, *thresholds])}"


class NeuronFPTTKernel(_NeuronKernel):
    """Forward propagation through time of a neuron. A subclass writes :meth:`neuronal_charge`.

    Parameters: ``x_seq`` ``[T, N]`` input; ``v_v_seq`` ``[T + 1, N]`` potentials, of which the first step is given and
    the others are written; ``h_seq`` and ``spike_seq`` ``[T, N]`` potentials after the charge and spikes, written;
    numbers ``v_th`` and, with a hard reset, ``v_reset``.

    Args:
        hard_reset: to ``v_reset``; else down by ``v_th``.
        dtype: ``"float"``, ``"double"`` or ``"half2"`` (float16, two neurons a thread: an even number of neurons).

    Raises:
        InputError: another dtype.

    Examples:
        >>> from jellyfit.kernels.handwritten import NeuronFPTTKernel
        >>> class IFNodeFPTTKernel(NeuronFPTTKernel):
        ...     def neuronal_charge(self):
        ...         return "h_seq[t] = v_v_seq[t] + x_seq[t];"
        >>> list(IFNodeFPTTKernel(hard_reset=False, dtype="float").cparams)
        ['numel', 'N', 'x_seq', 'v_v_seq', 'h_seq', 'spike_seq', 'v_th']
    """

    _shapes = {"x_seq": 0, "v_v_seq": 1, "h_seq": 0, "spike_seq": 0}  # noqa: RUF012

    def __init__(self, hard_reset: bool, dtype: str) -> None:
        super().__init__("hard_reset" if hard_reset else "soft_reset", hard_reset, dtype, reverse=False)
        self.add_param(f"const {dtype} *", "x_seq")
        for written in ("v_v_seq", "h_seq", "spike_seq"):
            self.add_param(f"{dtype} *", written)
        self._add_thresholds()

    def neuronal_charge(self) -> str:
        """CUDA lines that compute ``h_seq[t]`` from ``x_seq[t]``, ``v_v_seq[t]`` and further parameters."""
        raise TypeError(
            f"{type(self).__name__} must define neuronal_charge(self): CUDA lines, for example "
            "'h_seq[t] = v_v_seq[t] + x_seq[t];'"
        )

    @property
    def preamble(self) -> str:
        graph = self._trace(DeterministicPass(), False)  # the surrogate is a matter of the other pass
        arguments = ", ".join(f"const real {name}" for name in ("h", *self._thresholds))
        return super().preamble + self._function(
            "Fire and reset.",
            f"void fire({arguments}, real* spike, real* v)",
            [graph.x, *(value for value, _ in graph.params)],
            {"*spike = {}": graph.spike, "*v = {}": graph.new_states[0]},
        )

    @property  # type: ignore[misc]
    def core(self) -> str:
        if self.dtype != "half2":
            fire = f"{self._call('fire', 'h_seq[t]')}, &spike_seq[t], &v_v_seq[t + dt]);"
            return f"{self.neuronal_charge()}\n{fire}"
        return f"""{self.neuronal_charge()}
{{
    const float2 h = __half22float2(h_seq[t]);
    float2 spike, v;
    {self._call("fire", "h.x", "x")}, &spike.x, &v.x);
    {self._call("fire", "h.y", "y")}, &spike.y, &v.y);
    spike_seq[t] = __float22half2_rn(spike);
    v_v_seq[t + dt] = __float22half2_rn(v);
}}"""


class NeuronBPTTKernel(_NeuronKernel):
    """Backward propagation through time. A subclass writes :meth:`grad_h_next_to_v` and :meth:`grad_h_to_x`.

    Parameters: ``grad_spike_seq``, ``grad_v_seq`` and ``h_seq`` ``[T, N]`` gradients that come in, and what forward
    wrote; ``grad_x_seq`` ``[T, N]`` and ``grad_v_init`` ``[N]`` gradients of the input and of the potential at the
    start, written; numbers ``v_th`` and, with a hard reset, ``v_reset``.

    Args:
        surrogate_function: whose :meth:`~jellyfit.surrogates.SurrogateFunction.gradient` stands in for the step's.
        hard_reset: to ``v_reset``; else down by ``v_th``.
        detach_reset: let no gradient flow through the spike inside the reset.
        dtype: ``"float"``, ``"double"`` or ``"half2"`` (float16, two neurons a thread: an even number of neurons).

    Raises:
        InputError: another dtype.
        NotPointwiseError: the surrogate's gradient cannot become CUDA lines.

    Examples:
        >>> from jellyfit.kernels.handwritten import NeuronBPTTKernel
        >>> from jellyfit.surrogates import ATan
        >>> class IFNodeBPTTKernel(NeuronBPTTKernel):
        ...     def grad_h_next_to_v(self):
        ...         return "const float grad_h_next_to_v = 1.0f;"
        ...
        ...     def grad_h_to_x(self):
        ...         return "const float grad_h_to_x = 1.0f;"
        >>> kernel = IFNodeBPTTKernel(ATan(), hard_reset=False, detach_reset=True, dtype="float")
        >>> "grad_v_init" in kernel.cparams
        True
    """

    _shapes = {"grad_spike_seq": 0, "grad_v_seq": 0, "h_seq": 0, "grad_x_seq": 0, "grad_v_init": None}  # noqa: RUF012

    def __init__(self, surrogate_function: SurrogateFunction, hard_reset: bool, detach_reset: bool, dtype: str) -> None:
        what = f"{'hard' if hard_reset else 'soft'}_reset_{'detach' if detach_reset else 'nodetach'}_reset"
        super().__init__(what, hard_reset, dtype, reverse=True)
        self.surrogate_function = surrogate_function
        self.detach_reset = detach_reset
        for given in ("grad_spike_seq", "grad_v_seq", "h_seq"):
            self.add_param(f"const {dtype} *", given)
        for written in ("grad_x_seq", "grad_v_init"):
            self.add_param(f"{dtype} *", written)
        self._add_thresholds()

    def grad_h_next_to_v(self) -> str:
        """CUDA lines that declare ``grad_h_next_to_v``, the derivative of ``h`` at the next step after ``v``."""
        raise TypeError(
            f"{type(self).__name__} must define grad_h_next_to_v(self): CUDA lines, for example "
            "'const float grad_h_next_to_v = 1.0f;'"
        )

    def grad_h_to_x(self) -> str:
        """CUDA lines that declare ``grad_h_to_x``, the derivative of ``h`` after ``x`` at the same step."""
        raise TypeError(
            f"{type(self).__name__} must define grad_h_to_x(self): CUDA lines, for example "
            "'const float grad_h_to_x = 1.0f;'"
        )

    @property
    def preamble(self) -> str:
        graph = self._trace(self.surrogate_function, self.detach_reset)
        arguments = ", ".join(f"const real {name}" for name in ("h", "grad_s", "grad_v", *self._thresholds))
        return super().preamble + self._function(
            "Back over reset and firing: the gradient of h.",
            f"real fire_backward({arguments})",
            [graph.x, graph.grad_spike, *graph.grad_new_states, *(value for value, _ in graph.params)],
            {"return {}": graph.grad_x},
        )

    @property  # type: ignore[misc]
    def pre_core(self) -> str:
        return "float2 grad_h = make_float2(0.0f, 0.0f);" if self.dtype == "half2" else "real grad_h = R(0.0);"

    @property  # type: ignore[misc]
    def core(self) -> str:
        if self.dtype != "half2":
            given = "h_seq[t], grad_spike_seq[t], grad_v_seq[t] + grad_h * grad_h_next_to_v"
            return f"""{self.grad_h_next_to_v()}
grad_h = {self._call("fire_backward", given)});
{self.grad_h_to_x()}
grad_x_seq[t] = grad_h * grad_h_to_x;"""
        calls = [
            f"    grad_h.{a} = {self._call('fire_backward', f'h.{a}, s.{a}, v.{a} + grad_h.{a} * to_v.{a}', a)});"
            for a in "xy"
        ]
        return f"""{self.grad_h_next_to_v()}
{{
    const float2 h = __half22float2(h_seq[t]), s = __half22float2(grad_spike_seq[t]);
    const float2 v = __half22float2(grad_v_seq[t]), to_v = __half22float2(grad_h_next_to_v);
{calls[0]}
{calls[1]}
}}
{self.grad_h_to_x()}
{_half2_product("grad_x_seq[t]", "grad_h_to_x")}"""

    @property  # type: ignore[misc]
    def post_core(self) -> str:
        if self.dtype != "half2":
            return f"{self.grad_h_next_to_v()}\ngrad_v_init[index] = grad_h * grad_h_next_to_v;"
        return f"{self.grad_h_next_to_v()}\n{_half2_product('grad_v_init[index]', 'grad_h_next_to_v')}"


def _half2_product(target: str, factor: str) -> str:
    return f"""{{
    const float2 factor = __half22float2({factor});
    {target} = __float22half2_rn(make_float2(grad_h.x * factor.x, grad_h.y * factor.y));
}}"""
