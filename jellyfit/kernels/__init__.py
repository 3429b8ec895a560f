"""Backends that can run a neuron through time.

Eager PyTorch (``"torch"``) runs everywhere and defines the numbers. This is where generated kernels for the host
(``"cpu"``) and for CUDA (``"cupy"``) join it.
"""

from __future__ import annotations

from jellyfit.errors import ConfigError

__all__ = ["BACKENDS", "backend_status", "check_backend"]

BACKENDS = ("auto", "torch", "cpu", "cupy")
"""Every value that a neuron's ``backend`` can take; ``"auto"`` picks the fastest that can run."""

_NOT_YET = "this version of jellyfit has no generated kernels yet; use 'auto' or 'torch'"


def backend_status() -> dict[str, str | None]:
    """Backends by name, each with ``None`` when it can run here, else with the reason why it cannot."""
    return {"torch": None, "cpu": _NOT_YET, "cupy": _NOT_YET}


def check_backend(backend: str) -> None:
    """Raise :class:`~jellyfit.errors.ConfigError` unless ``backend`` is known and can run on this machine."""
    if backend not in BACKENDS:
        raise ConfigError(f"backend={backend!r}; expected one of {', '.join(map(repr, BACKENDS))}.")
    reason = None if backend == "auto" else backend_status()[backend]
    if reason is not None:
        raise ConfigError(f"backend={backend!r} cannot run here: {reason}.")
