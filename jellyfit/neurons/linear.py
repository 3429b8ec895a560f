"""The general linear neuron: whatever decay and input gain, fixed or learnt."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jellyfit import surrogates
from jellyfit.errors import InputError
from jellyfit.neurons.base import BaseNode, Value, _short

__all__ = ["LinearNode"]


class LinearNode(BaseNode):
    """General linear neuron: ``h = α v + β x``, with decay α in (0, 1), input gain β and threshold learnable.

    ``α = sigmoid(decay)``, so that it stays between 0 and 1 however it is learnt. IF, LIF and their like are special
    cases: ``β = 1 - α`` is a LIF neuron whose input decays.

    Args:
        init_alpha: α at the start, between 0 and 1, default 0.5; one number for the layer, or a tensor that broadcasts
            over one step ``[N, *]`` (per channel: ``[C, 1, 1]`` for images).
        init_beta: β at the start, default 1; number or tensor.
        v_threshold: threshold at the start, default 1; number or tensor.
        learn_alpha, learn_beta, learn_v_threshold: which of them are learnt; default: all.
        v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq: see
            :class:`~jellyfit.neurons.BaseNode`.

    Raises:
        InputError: ``init_alpha`` outside (0, 1).

    Source: the general form given in Fang et al., "SpikingJelly", Science Advances 9 (2023).

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> node = neurons.LinearNode(init_alpha=0.75, init_beta=0.5, step_mode="m")
        >>> node(torch.ones(4, 1, 1)).flatten().tolist()
        [0.0, 0.0, 1.0, 0.0]
        >>> sorted(name for name, _ in node.named_parameters())
        ['beta', 'decay', 'v_threshold']
    """

    decay: Tensor
    beta: Value

    def __init__(
        self,
        init_alpha: Value = 0.5,
        init_beta: Value = 1.0,
        v_threshold: Value = 1.0,
        learn_alpha: bool = True,
        learn_beta: bool = True,
        learn_v_threshold: bool = True,
        v_reset: Value | None = 0.0,
        surrogate_function: surrogates.SurrogateFunction | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
    ) -> None:
        super().__init__(
            _learnt(v_threshold, learn_v_threshold),
            v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq,
        )  # fmt: skip
        alpha = torch.as_tensor(init_alpha, dtype=torch.get_default_dtype()).detach()
        if not bool(((alpha > 0) & (alpha < 1)).all()):
            raise InputError(f"LinearNode(init_alpha={init_alpha!r}): every decay must be between 0 and 1, exclusive.")
        self.register_value("decay", _learnt(torch.logit(alpha), learn_alpha))
        self.register_value("beta", _learnt(init_beta, learn_beta))

    @property
    def alpha(self) -> Tensor:
        """The present decay ``sigmoid(decay)``, detached."""
        return self.decay.detach().sigmoid()

    def neuronal_charge(self, x: Tensor) -> None:
        self.v = self.decay.sigmoid() * self.v + self.beta * x

    def extra_repr(self) -> str:
        return f"alpha={_short(self.alpha)}, beta={_short(self.beta)}, {super().extra_repr()}"


def _learnt(value: Value, learn: bool) -> Value:
    """``value`` as an ``nn.Parameter`` if it is to be learnt."""
    if not learn or isinstance(value, nn.Parameter):
        return value
    return nn.Parameter(torch.as_tensor(value, dtype=torch.get_default_dtype()).detach().clone())
