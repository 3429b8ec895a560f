"""Neurons that do not fire: their potential is the output, as read-out of a network."""

from __future__ import annotations

import torch
from torch import Tensor

from jellyfit.errors import ConfigError
from jellyfit.neurons.base import BaseNode, Value, _short
from jellyfit.neurons.leaky import LIFNode

__all__ = ["NonSpikingBaseNode", "NonSpikingIFNode", "NonSpikingLIFNode"]

_DECODERS = ("last-mem", "max-mem", "max-abs-mem", "mean-mem")


class NonSpikingBaseNode(BaseNode):
    """Base of neurons that neither fire nor reset: a subclass writes ``neuronal_charge``.

    Args:
        decode: ``None`` (default): the potential of every step, ``[T, N, *]``. Else one value of the potentials over
            time, ``[N, *]``: ``"last-mem"``, ``"max-mem"``, ``"max-abs-mem"`` (the potential that is farthest from 0)
            or ``"mean-mem"``. In step mode ``"s"`` that of the steps since the last reset.
        step_mode, backend, store_v_seq: see :class:`~jellyfit.neurons.BaseNode`.

    Raises:
        ConfigError: an unknown ``decode``.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> class Double(neurons.NonSpikingBaseNode):
        ...     def neuronal_charge(self, x):
        ...         self.v = self.v + 2 * x
        >>> Double(decode="mean-mem", step_mode="m")(torch.ones(3, 1, 1)).tolist()
        [[4.0]]
    """

    fires = False
    _decoded: Tensor | None
    _steps: int

    def __init__(
        self, decode: str | None = None, step_mode: str = "s", backend: str = "auto", store_v_seq: bool = False
    ) -> None:
        super().__init__(step_mode=step_mode, backend=backend, store_v_seq=store_v_seq)
        self._set_decode(decode)

    def _set_decode(self, decode: str | None) -> None:
        if decode is not None and decode not in _DECODERS:
            raise ConfigError(
                f"{type(self).__name__}(decode={decode!r}): expected None or one of {', '.join(map(repr, _DECODERS))}."
            )
        self.decode = decode
        self.register_memory("_decoded", None)
        self.register_memory("_steps", 0)

    def single_step_forward(self, x: Tensor) -> Tensor:
        """One time step ``[N, *]`` -> potential ``[N, *]``."""
        self.neuronal_charge(x)
        return self.v  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Potentials of every step, or their decoded value ``[N, *]``."""
        potential = super().forward(x)
        if self.decode is None:
            return potential
        if self._step_mode == "m":
            return _decode(potential, self.decode)
        self._steps += 1
        before = self._decoded
        if before is None or self.decode == "last-mem":
            self._decoded = potential
        elif self.decode == "mean-mem":
            self._decoded = before + (potential - before) / self._steps
        else:
            self._decoded = _decode(torch.stack([before, potential]), self.decode)
        return self._decoded

    def extra_repr(self) -> str:
        return f"decode={self.decode!r}, step_mode={self.step_mode!r}, backend={self.backend!r}"


def _decode(potentials: Tensor, decode: str) -> Tensor:
    """One value of ``potentials`` ``[T, N, *]``, ``[N, *]``."""
    if decode == "last-mem":
        return potentials[-1]
    if decode == "mean-mem":
        return potentials.mean(0)
    if decode == "max-mem":
        return potentials.max(0).values
    farthest = potentials.abs().max(0, keepdim=True).indices
    return potentials.gather(0, farthest).squeeze(0)


class NonSpikingIFNode(NonSpikingBaseNode):
    """Integrator without a leak that does not fire: ``v = v + x``.

    Args:
        decode, step_mode, backend, store_v_seq: see :class:`NonSpikingBaseNode`.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> neurons.NonSpikingIFNode(step_mode="m")(torch.ones(3, 1, 1)).flatten().tolist()
        [1.0, 2.0, 3.0]
    """

    def neuronal_charge(self, x: Tensor) -> None:
        self.v = self.v + x


class NonSpikingLIFNode(NonSpikingBaseNode, LIFNode):
    """Leaky integrator that does not fire: ``v = v + (x - v) / τ``.

    Args:
        tau: membrane time constant in time steps, above 1, default 2.
        decode, step_mode, backend, store_v_seq: see :class:`NonSpikingBaseNode`.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> neurons.NonSpikingLIFNode(decode="last-mem", step_mode="m")(torch.ones(3, 1, 1)).tolist()
        [[0.875]]
    """

    def __init__(
        self,
        tau: Value = 2.0,
        decode: str | None = None,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
    ) -> None:
        LIFNode.__init__(self, tau, step_mode=step_mode, backend=backend, store_v_seq=store_v_seq)
        self._set_decode(decode)

    def extra_repr(self) -> str:
        return f"tau={_short(self.tau)}, {NonSpikingBaseNode.extra_repr(self)}"
