"""Current-based neurons: the input charges a synaptic current, and the current charges the potential."""

from __future__ import annotations

from torch import Tensor

from jellyfit import surrogates
from jellyfit.neurons.base import BaseNode, Value, _short

__all__ = ["CUBALIFNode"]


class CUBALIFNode(BaseNode):
    """Current-based LIF neuron: ``c = c_decay · c + x``, ``h = v_decay · v + c``.

    Args:
        c_decay: what is left of the current after a step, default 0.5.
        v_decay: what is left of the potential after a step, default 0.75.
        v_threshold: default 0.5.
        v_reset: default 0; ``None`` selects the soft reset.
        surrogate_function: default ``Rect(alpha=1.0)``.
        detach_reset, step_mode, backend, store_v_seq: see :class:`~jellyfit.neurons.BaseNode`.

    Source: Tang et al., "Deep reinforcement learning with population-coded spiking neural network for continuous
    control", CoRL 2020.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> node = neurons.CUBALIFNode(step_mode="m")
        >>> node(torch.full((3, 1, 1), 0.3)).flatten().tolist()
        [0.0, 1.0, 1.0]
        >>> round(node.c.item(), 4)
        0.525
    """

    c: Tensor | float
    c_decay: Value
    v_decay: Value

    def __init__(
        self,
        c_decay: Value = 0.5,
        v_decay: Value = 0.75,
        v_threshold: Value = 0.5,
        v_reset: Value | None = 0.0,
        surrogate_function: surrogates.SurrogateFunction | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
    ) -> None:
        super().__init__(
            v_threshold, v_reset,
            surrogates.Rect() if surrogate_function is None else surrogate_function,
            detach_reset, step_mode, backend, store_v_seq,
        )  # fmt: skip
        self.register_value("c_decay", c_decay)
        self.register_value("v_decay", v_decay)
        self.register_memory("c", 0.0)

    def neuronal_charge(self, x: Tensor) -> None:
        self.c = self.c * self.c_decay + x
        self.v = self.v * self.v_decay + self.c

    def extra_repr(self) -> str:
        return f"c_decay={_short(self.c_decay)}, v_decay={_short(self.v_decay)}, {super().extra_repr()}"
