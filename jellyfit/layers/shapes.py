"""What layers share: the shape they take, and whether what they remember fits it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from jellyfit.errors import InputError, StateError
from jellyfit.neurons.base import MemoryModule, StepModule

__all__ = ["ImageModule", "LineModule", "MemoryLayer", "ShapedModule", "VolumeModule", "check_state"]


class ShapedModule(StepModule):
    """A :class:`~jellyfit.neurons.StepModule` that knows the shape of one step, and says so when given another.

    Attributes:
        step_shape: one step's axes, for messages.
        step_ndims: how many axes one step can have.
        channels: name of the attribute that holds the number of channels; empty: any number will do.
        channel_axis: where one step has its channels.

    Examples:
        >>> import torch
        >>> from jellyfit.layers.shapes import ImageModule
        >>> ImageModule().check_shape(torch.zeros(2, 3, 8, 8))
    """

    step_shape: ClassVar[str] = "[N, *]"
    step_ndims: ClassVar[Sequence[int]] = range(1, 64)
    channels: ClassVar[str] = ""
    channel_axis: ClassVar[int] = 1

    def check_shape(self, x: Tensor) -> None:
        """Raise :class:`~jellyfit.errors.InputError` unless ``x`` has the axes and channels of a step or sequence."""
        shape, sequence = x.shape, self._step_mode == "m"
        if len(shape) - sequence not in self.step_ndims:
            raise InputError(
                f"{self._misfit(x)}. Give it that shape, or call "
                f"functional.set_step_mode(net, {'s' if sequence else 'm'!r}).{self._hint()}"
            )
        if sequence and shape[0] == 0:
            raise InputError(f"{self._misfit(x)} with T >= 1: at least one time step.")
        if self.channels:
            axis = self.channel_axis + sequence if self.channel_axis > 0 else self.channel_axis
            count = getattr(self, self.channels)
            if shape[axis] != count:
                raise InputError(
                    f"{self._misfit(x)} with {self.channels} = {count} on axis {axis}, which has {shape[axis]}. Look "
                    f"at the layer before, and at the order of the axes.{self._hint()}"
                )

    def extra_repr(self) -> str:
        own = super().extra_repr()
        mode = f"step_mode={self._step_mode!r}"
        return f"{own}, {mode}" if own else mode

    def _misfit(self, x: Tensor) -> str:
        expected = self.step_shape.replace("[N", "[T, N") if self._step_mode == "m" else self.step_shape
        return f"{self.describe()} in step mode {self._step_mode!r}: got shape {list(x.shape)}; expected {expected}"

    def _hint(self) -> str:
        if self._step_mode == "s":
            return ""
        return " Where the batch comes before time, functional.time_first puts time first."


class MemoryLayer(MemoryModule, ShapedModule):
    """A :class:`~jellyfit.neurons.MemoryModule` that checks the shape of its input first.

    Examples:
        >>> from jellyfit.layers import Delay
        >>> from jellyfit.layers.shapes import MemoryLayer
        >>> issubclass(Delay, MemoryLayer)
        True
    """

    def forward(self, x: Tensor) -> Tensor:
        self.check_shape(x)
        return super().forward(x)


class LineModule(ShapedModule):
    """A :class:`ShapedModule` of one space axis.

    Examples:
        >>> from jellyfit.layers.shapes import LineModule
        >>> LineModule.step_shape
        '[N, C, L]'
    """

    step_shape = "[N, C, L]"
    step_ndims: ClassVar[Sequence[int]] = (3,)


class ImageModule(ShapedModule):
    """A :class:`ShapedModule` of two space axes.

    Examples:
        >>> from jellyfit.layers.shapes import ImageModule
        >>> ImageModule.step_shape
        '[N, C, H, W]'
    """

    step_shape = "[N, C, H, W]"
    step_ndims = (4,)


class VolumeModule(ShapedModule):
    """A :class:`ShapedModule` of three space axes.

    Examples:
        >>> from jellyfit.layers.shapes import VolumeModule
        >>> VolumeModule.step_shape
        '[N, C, D, H, W]'
    """

    step_shape = "[N, C, D, H, W]"
    step_ndims = (5,)


def check_state(module: StepModule, name: str, value: Tensor, shape: Sequence[int], device: torch.device) -> None:
    """Raise :class:`~jellyfit.errors.StateError` unless a memory is of ``shape`` and on ``device``.

    Args:
        module: whose memory it is.
        name: of the memory.
        value: its present value.
        shape: what this step asks for.
        device: of this step's input.

    Examples:
        >>> import torch
        >>> from jellyfit.layers import Dropout
        >>> from jellyfit.layers.shapes import check_state
        >>> check_state(Dropout(), "mask", torch.ones(2, 3), (2, 3), torch.device("cpu"))
    """
    if tuple(value.shape) != tuple(shape) or value.device != device:
        raise StateError(
            f"{module.describe()}: its state {name!r} is {list(value.shape)} on {value.device}, left by an earlier "
            f"call, but this step's input asks for {list(shape)} on {device}. Call "
            "jellyfit.functional.reset_net(net) before a new sequence or batch."
        )
