"""Where the time of a network goes: neurons, convolutions, linear layers, norms; and how much memory a process took.

Times are those of ``torch.profiler``, each operation counted for the layer that ran it, forward and backward. Layers
stay as they are: with hooks of their own, a batch norm and the neuron behind it would no longer run as one.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch._C._autograd import DeviceType
from torch.autograd.profiler import record_function
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

from jellyfit.errors import ConfigError
from jellyfit.neurons import BaseNode

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["KINDS", "LayerTimes", "peak_memory"]

KINDS = ("neurons", "convolutions", "linear layers", "norms", "pooling")
"""Kinds of layers. What runs a norm and a neuron as one counts for neurons; small images' norms run backward apart."""

_CLASSES: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("neurons", (BaseNode,)),
    ("convolutions", (_ConvNd,)),
    ("linear layers", (nn.Linear,)),
    ("norms", (_NormBase, nn.LayerNorm, nn.GroupNorm)),
    ("pooling", (nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd, nn.AdaptiveAvgPool2d)),
)
_NAMES = (  # of operations, whoever calls them; the first that is found counts
    ("convolutions", ("convolution", "conv2d", "conv1d", "conv3d", "Conv2d")),
    ("norms", ("batch_norm", "layer_norm", "group_norm", "BatchNorm")),
    ("pooling", ("max_pool", "avg_pool", "MaxPool", "AvgPool")),
    ("linear layers", ("aten::linear", "aten::addmm", "aten::mm", "AddmmBackward", "MmBackward", "mkldnn::_linear")),
    ("neurons", ("_Run", "jellyfit::neurons")),
)
_PREFIX = "jellyfit::"


def peak_memory(device: torch.device) -> int:
    """Most bytes that this process has used so far: resident on the CPU, of torch's allocator on a GPU.

    Examples:
        >>> import torch
        >>> from jellyfit.profiling import peak_memory
        >>> peak_memory(torch.device("cpu")) > 2**20
        True
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):  # Linux: unlike getrusage, it does not begin with what the parent process had
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Keep lines that begin with ``USDT:`` off standard error: torch's profiler writes two each time, past Python."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # closed: nobody reads it
        yield
        return
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            for line in caught:
                if not line.startswith(b"USDT:"):
                    os.write(2, line)


class LayerTimes:
    """Measures what runs inside its ``with`` block: seconds of each kind of layer, forward and backward together.

    What runs there is slower for it, by some 10 µs an operation; shares are what to look at.

    Attributes:
        seconds: by kind, see :data:`KINDS`; what belongs to none stands under ``"other"``. Filled at the block's end.

    Args:
        device: times are those of its kernels on a GPU, else of the processor.
        hooks: look at layers as they run; default ``True``. Without it (under ``torch.compile``, whose graphs hooks
            would change) operations are told apart by their names alone.

    Raises:
        ConfigError: another profiler of torch's is at work: it has one at a time.

    Examples:
        >>> import torch
        >>> from jellyfit import layers, neurons
        >>> from jellyfit.profiling import LayerTimes
        >>> net = torch.nn.Sequential(layers.Conv2d(2, 4, 3, step_mode="m"), neurons.LIFNode(step_mode="m"))
        >>> with LayerTimes() as times:
        ...     net(torch.rand(4, 1, 2, 16, 16)).sum().backward()
        >>> times.seconds["convolutions"] > 0 and times.seconds["neurons"] > 0
        True
    """

    def __init__(self, device: torch.device | None = None, hooks: bool = True) -> None:
        self.device = device or torch.device("cpu")
        self.hooks = hooks
        self.seconds: dict[str, float] = {}
        self._handles: list[RemovableHandle] = []
        self._open: list[tuple[nn.Module, Any]] = []
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(activities=activities, acc_events=True)

    def __enter__(self) -> Self:
        if torch.autograd._profiler_enabled():  # type: ignore[attr-defined]
            raise ConfigError(
                "LayerTimes: another profiler of torch's is at work. Stop it first: there is one at a time."
            )
        with _without_chatter():
            self._profiler.__enter__()  # type: ignore[no-untyped-call]
        if self.hooks:
            self._handles = [
                register_module_forward_pre_hook(self._before),
                register_module_forward_hook(self._behind, always_call=True),
            ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        while self._open:
            self._open.pop()[1].__exit__(None, None, None)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        with _without_chatter():
            self._profiler.__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]
        if error is None:
            self.seconds = self._sum(self._profiler.events() or ())  # type: ignore[no-untyped-call]

    def _before(self, module: nn.Module, inputs: Any) -> None:
        kind = next((kind for kind, classes in _CLASSES if isinstance(module, classes)), None)
        if kind is not None:
            scope = record_function(_PREFIX + kind)
            scope.__enter__()  # type: ignore[no-untyped-call]
            self._open.append((module, scope))

    def _behind(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._open and self._open[-1][0] is module:
            self._open.pop()[1].__exit__(None, None, None)

    def _sum(self, events: Iterable[Any]) -> dict[str, float]:
        events = [event for event in events if event.device_type == DeviceType.CPU]
        kinds: dict[int, str | None] = {}
        forward: dict[int, str] = {}  # kind of the operation that backward nodes with this number belong to

        def kind_of(event: Any) -> str | None:
            if event.id not in kinds:
                found = next((kind for kind, names in _NAMES if any(name in event.name for name in names)), None)
                if event.name.startswith(_PREFIX):
                    found = event.name.removeprefix(_PREFIX)
                if found is None and event.cpu_parent is not None:
                    found = kind_of(event.cpu_parent)
                kinds[event.id] = found
            return kinds[event.id]

        is_backward = [event.name.startswith("autograd::engine::evaluate_function") for event in events]
        for event, back in zip(events, is_backward, strict=True):
            found = kind_of(event)
            if found is not None and not back and event.sequence_nr >= 0:
                forward.setdefault(event.sequence_nr, found)
        kinds.clear()
        for event, back in zip(events, is_backward, strict=True):
            if back and event.sequence_nr in forward and kind_of(event) is None:
                kinds[event.id] = forward[event.sequence_nr]
        kinds = {number: kind for number, kind in kinds.items() if kind is not None}
        seconds = dict.fromkeys((*KINDS, "other"), 0.0)
        for event in events:
            on_gpu = self.device.type == "cuda"
            taken = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            seconds[kind_of(event) or "other"] += 1e-6 * taken
        return seconds
