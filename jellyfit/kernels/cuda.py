"""Kernels for CUDA."""

from __future__ import annotations


def why_not() -> str | None:
    """Why CUDA kernels cannot run here; ``None`` when they can."""
    return "not yet"
