"""Parallel spiking neurons: no recurrence, so all time steps at once, as one matrix product and a threshold."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from jellyfit import surrogates
from jellyfit.errors import InputError, StateError
from jellyfit.neurons import pure
from jellyfit.neurons.base import BaseNode

__all__ = ["PSN", "MaskedPSN", "SlidingPSN"]


class _ParallelNode(BaseNode):
    """What they share: potentials ``h_seq = W x_seq + b`` over time, then ``Θ(h)``, fused with its gradient."""

    k: int
    _seen: list[Tensor]

    def __init__(
        self, surrogate_function: surrogates.SurrogateFunction | None, step_mode: str, backend: str = "auto"
    ) -> None:
        super().__init__(
            surrogate_function=surrogates.ATan() if surrogate_function is None else surrogate_function,
            step_mode=step_mode,
            backend=backend,
        )
        self._memories.clear()  # no potential is left behind by a step

    def single_step_forward(self, x: Tensor) -> Tensor:
        """Fire: spikes of potentials ``x``."""
        return self.surrogate_function(x)  # type: ignore[no-any-return]

    def _run_eager(self, x_seq: Tensor) -> Tensor:
        return self.surrogate_function(x_seq)  # type: ignore[no-any-return]

    def _fire(self, h_seq: Tensor) -> Tensor:
        """Spikes of potentials ``[T, N, *]``."""
        spikes = self._run_kernels(h_seq)
        return self._run_eager(h_seq) if spikes is None else spikes

    def _remember(self, x: Tensor) -> None:
        """Keep the inputs of the last ``k`` single steps."""
        if pure.is_backward_running():
            self._check_not_recomputed()
        self._seen = [*self._seen[-(self.k - 1) :], x] if self.k > 1 else [x]

    def _multiply(self, weight: Tensor, bias: Tensor, x_seq: Tensor) -> Tensor:
        """``weight [T, T] x_seq [T, N, *] + bias``."""
        return torch.addmm(bias.to(x_seq.dtype), weight.to(x_seq.dtype), x_seq.flatten(1)).view(x_seq.shape)

    def extra_repr(self) -> str:
        return f"step_mode={self.step_mode!r}, backend={self.backend!r}"


def _weight_and_bias(T: int) -> tuple[nn.Parameter, nn.Parameter]:
    if T < 1:
        raise InputError(f"T={T}: expected at least 1 time step.")
    weight = nn.Parameter(torch.empty(T, T))
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
    return weight, nn.Parameter(torch.full((T, 1), -1.0))


def _check_steps(node: BaseNode, x_seq: Tensor, T: int) -> None:
    if x_seq.shape[0] != T:
        raise InputError(
            f"{node.describe()}: made for sequences of T = {T} steps; got shape {list(x_seq.shape)}. Its weights are a "
            "[T, T] matrix: use SlidingPSN for sequences of any length."
        )


class PSN(_ParallelNode):
    """Parallel spiking neuron: ``H = W X + B`` over time, ``S = Θ(H)``, with learnable ``W [T, T]`` and ``B [T, 1]``.

    Multi-step mode only: a step sees the whole sequence, the future included.

    Args:
        T: number of time steps.
        surrogate_function: default ``ATan()``.
        backend: of the threshold, see :class:`~jellyfit.neurons.BaseNode`.

    Raises:
        InputError: a sequence of another length, or single-step mode.

    Source: Fang et al., "Parallel spiking neurons with high efficiency and ability to learn long-term dependencies",
    NeurIPS 2023.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> node = neurons.PSN(T=4)
        >>> node(torch.rand(4, 2, 8)).shape
        torch.Size([4, 2, 8])
        >>> node.weight.shape
        torch.Size([4, 4])
    """

    def __init__(
        self, T: int, surrogate_function: surrogates.SurrogateFunction | None = None, backend: str = "auto"
    ) -> None:
        super().__init__(surrogate_function, "m", backend)
        self.T = T
        self.weight, self.bias = _weight_and_bias(T)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, *] -> [T, N, *]``."""
        if self.step_mode == "s":
            raise InputError(
                f"{self.describe()}: runs in step mode 'm' only, because every step sees the whole sequence. Set "
                "step_mode='m', or use SlidingPSN, which also goes step by step."
            )
        self._check_input(x)
        _check_steps(self, x, self.T)
        return self._fire(self._multiply(self.weight, self.bias, x))

    def extra_repr(self) -> str:
        return f"T={self.T}, {super().extra_repr()}"


class MaskedPSN(_ParallelNode):
    """Parallel spiking neuron that sees the last ``k`` steps: ``W`` is masked by ``λ M + (1 - λ)``.

    ``M_ij = 1`` where ``i - k < j <= i``. In training ``lambda_`` goes from 0 (all steps seen) to 1; from then on it
    also runs step by step.

    Args:
        k: number of steps seen, from 1 to T.
        T: number of time steps.
        lambda_init: λ at the start, default 0.
        surrogate_function: default ``ATan()``.
        step_mode: ``"s"`` (default) or ``"m"``.
        backend: of the threshold, see :class:`~jellyfit.neurons.BaseNode`.

    Raises:
        InputError: a sequence of another length, or step mode ``"s"`` while λ < 1.
        StateError: more than T single steps without a reset.

    Source: as :class:`PSN`.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> node = neurons.MaskedPSN(k=2, T=3, lambda_init=1.0, step_mode="m")
        >>> (node.masked_weight() != 0).int().tolist()
        [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """

    _lambda_: Tensor
    mask0: Tensor
    _steps: int

    def __init__(
        self,
        k: int,
        T: int,
        lambda_init: float = 0.0,
        surrogate_function: surrogates.SurrogateFunction | None = None,
        step_mode: str = "s",
        backend: str = "auto",
    ) -> None:
        super().__init__(surrogate_function, step_mode, backend)
        if not 1 <= k <= T:
            raise InputError(f"MaskedPSN(k={k}, T={T}): expected 1 <= k <= T.")
        self.k, self.T = k, T
        self.weight, self.bias = _weight_and_bias(T)
        ones = torch.ones(T, T)
        self.register_buffer("_lambda_", torch.tensor(float(lambda_init)))
        self.register_buffer("mask0", ones.tril() * ones.triu(-(k - 1)))
        self.register_buffer("mask1", ones)
        self.register_memory("_steps", 0)
        self.register_memory("_seen", [])

    @property
    def lambda_(self) -> Tensor:
        """λ: how much of the mask is on, 0 to 1."""
        return self._lambda_

    @lambda_.setter
    def lambda_(self, value: float) -> None:
        self._lambda_.fill_(value)

    def masked_weight(self) -> Tensor:
        """``W (λ M + (1 - λ))``, ``[T, T]``."""
        return self.weight * (self._lambda_ * self.mask0 + (1.0 - self._lambda_))

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, *] -> [T, N, *]``, or one step of it."""
        self._check_input(x)
        if self.step_mode == "m":
            _check_steps(self, x, self.T)
            return self._fire(self._multiply(self.masked_weight(), self.bias, x))
        if self._lambda_ < 1.0:
            raise InputError(
                f"{self.describe()}: with lambda_ = {float(self._lambda_):g} a step sees the future, so it runs in "
                "step mode 'm' only. Set lambda_ to 1 first."
            )
        if self._steps >= self.T:
            raise StateError(
                f"{self.describe()}: has run T = {self.T} steps since its last reset. Call functional.reset_net(net) "
                "before a new sequence."
            )
        self._remember(x)
        step = self._steps
        row = self.masked_weight()[step, step + 1 - len(self._seen) : step + 1].to(x.dtype)
        h = torch.einsum("k,k...->...", row, torch.stack(self._seen)) + self.bias[step].to(x.dtype)
        self._steps = step + 1
        return self._fire(h.unsqueeze(0)).squeeze(0)

    def extra_repr(self) -> str:
        return f"k={self.k}, T={self.T}, lambda_={float(self._lambda_):g}, {super().extra_repr()}"


class SlidingPSN(_ParallelNode):
    """Parallel spiking neuron with one window for all steps: ``h_t = Σ_{i<k} w_i x_{t-k+1+i} + b``.

    Args:
        k: number of steps seen, at least 1.
        exp_init: start with ``w`` = ..., 1/4, 1/2, 1 (default), else uniformly at random.
        surrogate_function: default ``ATan()``.
        step_mode: ``"s"`` (default) or ``"m"``.
        backend: of the threshold, see :class:`~jellyfit.neurons.BaseNode`.

    Source: as :class:`PSN`.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> node = neurons.SlidingPSN(k=2, step_mode="m")
        >>> node.weight.tolist()
        [0.5, 1.0]
        >>> node(torch.tensor([0.8, 0.8, 0.4]).view(3, 1, 1)).flatten().tolist()
        [0.0, 1.0, 0.0]
    """

    def __init__(
        self,
        k: int,
        exp_init: bool = True,
        surrogate_function: surrogates.SurrogateFunction | None = None,
        step_mode: str = "s",
        backend: str = "auto",
    ) -> None:
        super().__init__(surrogate_function, step_mode, backend)
        if k < 1:
            raise InputError(f"SlidingPSN(k={k}): expected at least 1 step.")
        self.k = k
        weight = 0.5 ** torch.arange(k - 1, -1, -1, dtype=torch.float32)
        if not exp_init:
            nn.init.kaiming_uniform_(weight.view(1, k), a=math.sqrt(5))
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.tensor(-1.0))
        self.register_memory("_seen", [])

    def gen_gemm_weight(self, T: int) -> Tensor:
        """The window as a banded matrix ``[T, T]``."""
        steps = torch.arange(T, device=self.weight.device)
        place = steps - steps.unsqueeze(1) + self.k - 1  # of step j in the window of step i
        inside = (place >= 0) & (place < self.k)
        return torch.where(inside, self.weight[place.clamp(0, self.k - 1)], 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, *] -> [T, N, *]``, or one step of it."""
        self._check_input(x)
        if self.step_mode == "m":
            weight = self.gen_gemm_weight(x.shape[0])
            return self._fire(self._multiply(weight, self.bias, x))
        self._remember(x)
        row = self.weight[self.k - len(self._seen) :].to(x.dtype)
        h = torch.einsum("k,k...->...", row, torch.stack(self._seen)) + self.bias.to(x.dtype)
        return self._fire(h.unsqueeze(0)).squeeze(0)

    def extra_repr(self) -> str:
        return f"k={self.k}, {super().extra_repr()}"
