"""Containers that run what they hold over time: step by step, or with time merged into the batch."""

from __future__ import annotations

from torch import Tensor, nn

from jellyfit import functional
from jellyfit.neurons.base import StepModule

__all__ = ["MultiStepContainer", "SeqToANNContainer", "StepModeContainer"]


class _Container(StepModule, nn.Sequential):
    """A sequential whose modules stay in single-step mode; in step mode ``"s"`` it is a plain ``nn.Sequential``."""

    keeps_children_single_step = True

    def __init__(self, *modules: nn.Module) -> None:
        nn.Sequential.__init__(self, *modules)
        for module in self:
            functional.set_step_mode(module, "s")

    def _run(self, x: Tensor) -> Tensor:
        return nn.Sequential.forward(self, x)  # type: ignore[no-untyped-call,no-any-return]


class MultiStepContainer(_Container):
    """Holds single-step modules (stateful or not) and runs them over ``[T, N, *]`` one time step after another.

    In step mode ``"s"`` it runs them on one step ``[N, *]``. Starts in step mode ``"m"``.

    Args:
        modules: applied in turn to each step.
    """

    _step_mode = "m"

    def forward(self, x: Tensor) -> Tensor:
        if self.step_mode == "s":
            return self._run(x)
        return functional.multi_step_forward(x, self._run)


class SeqToANNContainer(_Container):
    """Holds stateless modules and runs them over ``[T, N, *]`` at once, as a batch of ``T·N``.

    In step mode ``"s"`` it runs them on one step ``[N, *]``. Starts in step mode ``"m"``.

    Args:
        modules: stateless modules, applied in turn.
    """

    _step_mode = "m"

    def forward(self, x: Tensor) -> Tensor:
        if self.step_mode == "s":
            return self._run(x)
        return functional.seq_to_ann_forward(x, self._run)


class StepModeContainer(_Container):
    """Gives modules without a step mode one: both modes over whatever it holds. Starts in step mode ``"s"``.

    Args:
        stateful: whether what it holds keeps a state between steps: then step mode ``"m"`` runs step by step, else
            with time merged into the batch.
        modules: applied in turn.
    """

    def __init__(self, stateful: bool, *modules: nn.Module) -> None:
        super().__init__(*modules)
        self.stateful = stateful

    def forward(self, x: Tensor) -> Tensor:
        if self.step_mode == "s":
            return self._run(x)
        if self.stateful:
            return functional.multi_step_forward(x, self._run)
        return functional.seq_to_ann_forward(x, self._run)

    def extra_repr(self) -> str:
        return f"stateful={self.stateful}, step_mode={self.step_mode!r}"
