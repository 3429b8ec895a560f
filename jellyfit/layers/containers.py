"""Containers that run what they hold over time: step by step, or with time merged into the batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from jellyfit import functional
from jellyfit.errors import InputTypeError
from jellyfit.neurons.base import StepModule

__all__ = ["MultiStepContainer", "SeqToANNContainer", "StepModeContainer"]


class _Container(StepModule, nn.Sequential):
    """A sequential whose modules stay in single-step mode; in step mode ``"s"`` it is a plain ``nn.Sequential``."""

    keeps_children_single_step = True
    _advice = "Put it beside this container, in step mode 'm', or into a MultiStepContainer."

    def __init__(self, *modules: nn.Module) -> None:
        nn.Sequential.__init__(self, *modules)

    def _merges_time(self) -> bool:
        """Whether step mode ``"m"`` runs all time steps as one batch."""
        return False

    def _empty(self) -> _Container:
        return type(self)()

    def _admit(self, name: str, module: nn.Module | None) -> None:
        """Refuse what cannot work in here; the rest takes single steps."""
        if module is None:
            return
        if self._merges_time():
            for inner, stateful in functional.named_stateful(module):
                place = f"{name}.{inner}".rstrip(".")
                raise InputTypeError(
                    f"{self.describe()} runs all time steps as one batch, but {place!r} in it "
                    f"({type(stateful).__name__}) remembers from one step to the next. {self._advice}"
                )
        functional.set_step_mode(module, "s")

    def add_module(self, name: str, module: nn.Module | None) -> None:
        self._admit(name, module)
        super().add_module(name, module)

    def insert(self, index: int, module: nn.Module) -> _Container:
        self._admit(str(index), module)
        return super().insert(index, module)

    def __setitem__(self, index: int, module: nn.Module) -> None:
        self._admit(str(index), module)
        super().__setitem__(index, module)

    def __getitem__(self, index: slice | int) -> Any:
        if not isinstance(index, slice):
            return super().__getitem__(index)
        part = self._empty()
        for name, module in list(self._modules.items())[index]:
            part.add_module(name, module)
        part.step_mode = self.step_mode
        return part

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

    Raises:
        InputTypeError: one of them, or of those inside them, keeps a state (a neuron).
    """

    _step_mode = "m"

    def _merges_time(self) -> bool:
        return True

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

    Raises:
        InputTypeError: one of them, or of those inside them, keeps a state, but ``stateful`` is ``False``.
    """

    _advice = "Set stateful=True."

    def __init__(self, stateful: bool, *modules: nn.Module) -> None:
        self.stateful = stateful  # first: modules are admitted by it
        super().__init__(*modules)

    def _merges_time(self) -> bool:
        return not self.stateful

    def _empty(self) -> StepModeContainer:
        return type(self)(self.stateful)

    def forward(self, x: Tensor) -> Tensor:
        if self.step_mode == "s":
            return self._run(x)
        if self.stateful:
            return functional.multi_step_forward(x, self._run)
        return functional.seq_to_ann_forward(x, self._run)

    def extra_repr(self) -> str:
        return f"stateful={self.stateful}, step_mode={self.step_mode!r}"
