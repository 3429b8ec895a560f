"""Fused kernels, generated from a neuron's own time step, for the host (``"cpu"``) and for CUDA (``"cupy"``).

Eager PyTorch (``"torch"``) runs everywhere and defines the numbers. How a step becomes a kernel:

1. :mod:`~jellyfit.kernels.trace` runs it once on tensors without data and writes down its operations and those of its
   vector-Jacobian product; :mod:`~jellyfit.kernels.lower` and :mod:`~jellyfit.kernels.graph` make them small;
2. :mod:`~jellyfit.kernels.partition` decides what backward keeps and what it computes once more;
3. :mod:`~jellyfit.kernels.emit` writes the graph as C lines, which :mod:`~jellyfit.kernels.host` and
   :mod:`~jellyfit.kernels.cuda` put into a loop over time;
4. :mod:`~jellyfit.kernels.fused` runs them, and is one operation for autograd.

:mod:`~jellyfit.kernels.naive` says in the plainest words what they compute.
"""

from __future__ import annotations

import torch

from jellyfit import native
from jellyfit.errors import ConfigError
from jellyfit.kernels.batchnorm import Normalisation, batch_norm_step
from jellyfit.kernels.compression import SpikeCompression
from jellyfit.kernels.errors import KernelUnavailableError, KernelWarning, NotPointwiseError
from jellyfit.kernels.fused import FusedStep, source

__all__ = [
    "BACKENDS",
    "FusedStep",
    "KernelUnavailableError",
    "KernelWarning",
    "Normalisation",
    "NotPointwiseError",
    "SpikeCompression",
    "applicable",
    "backend_status",
    "batch_norm_step",
    "check_backend",
    "check_device",
    "on_host",
    "source",
]

BACKENDS = ("auto", "torch", "cpu", "cupy")
"""Every value that a neuron's ``backend`` can take; ``"auto"`` picks the fastest that can run."""

_PLAIN = {torch.Tensor, torch.nn.Parameter}
_DEVICES = {"cpu": "cpu", "cupy": "cuda"}


def applicable(x: torch.Tensor) -> bool:
    """Whether ``x`` is plain data that a kernel can be given.

    Empty tensors, tensors without data, those of ``torch.func`` transforms, of batched gradients and of forward-mode
    differentiation, negated views, and everything under a dispatch mode that wants to see ATen's operations, are for
    eager PyTorch.

    Examples:
        >>> import torch
        >>> from jellyfit import kernels
        >>> kernels.applicable(torch.zeros(4, 2)), kernels.applicable(torch.zeros(0, 2))
        (True, False)
    """
    return (
        not torch._C._is_tracing()
        and type(x) in _PLAIN
        and x.numel() > 0
        and (x.is_cpu or x.is_cuda)
        and x.layout is torch.strided
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch.autograd.forward_ad._current_level < 0
        and not torch._C._functorch.is_legacy_batchedtensor(x)
        and not x.is_neg()
    )


def on_host(*tensors: torch.Tensor) -> bool:
    """Whether these are float32 on the CPU for a kernel of a layer: plain data, and neither compiling nor autocast.

    Examples:
        >>> import torch
        >>> from jellyfit import kernels
        >>> kernels.on_host(torch.zeros(4), torch.zeros(2)), kernels.on_host(torch.zeros(4).double())
        (True, False)
    """
    return (
        not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and all(tensor.is_cpu and tensor.dtype is torch.float32 and applicable(tensor) for tensor in tensors)
    )


def backend_status() -> dict[str, str | None]:
    """Backends by name, each with ``None`` when it can run here, else with the reason why it cannot.

    Examples:
        >>> from jellyfit import kernels
        >>> sorted(kernels.backend_status())
        ['cpu', 'cupy', 'torch']
        >>> kernels.backend_status()["torch"] is None  # eager PyTorch always runs
        True
    """
    from jellyfit.kernels import cuda

    host = native.status()
    return {"torch": None, "cpu": None if host.usable else host.reason.rstrip("."), "cupy": cuda.why_not()}


def check_backend(backend: str) -> None:
    """Raise :class:`~jellyfit.errors.ConfigError` unless ``backend`` is known and can run on this machine.

    Examples:
        >>> from jellyfit import kernels
        >>> kernels.check_backend("auto")
    """
    if backend not in BACKENDS:
        raise ConfigError(f"backend={backend!r}; expected one of {', '.join(map(repr, BACKENDS))}.")
    reason = None if backend in ("auto", "torch") else backend_status()[backend]
    if reason is not None:
        raise ConfigError(f"backend={backend!r} cannot run here: {reason}.")


def check_device(backend: str, device: torch.device) -> None:
    """Raise :class:`KernelUnavailableError` unless ``backend`` runs on ``device``.

    Examples:
        >>> import torch
        >>> from jellyfit import kernels
        >>> kernels.check_device("cpu", torch.device("cpu"))
    """
    if _DEVICES.get(backend, device.type) != device.type:
        raise KernelUnavailableError(f"the input is on {device}, and that backend runs on {_DEVICES[backend]}")
