"""``jellyfit doctor``: what is installed, what can run here, and why the rest cannot."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import torch

import jellyfit
from jellyfit import native
from jellyfit.kernels import backend_status

__all__ = ["has_fast_bfloat16", "report", "slow_precision"]

_NEEDED = (
    "torch",
    "lightning",
    "torchmetrics",
    "jsonargparse",
    "numpy",
    "scipy",
    "h5py",
    "matplotlib",
    "scikit-learn",
    "tensorboard",
)
_EXTRAS = {
    "cupy": (("cupy-cuda12x", "cupy-cuda13x"), "jellyfit[cuda12] or [cuda13]: kernels on NVIDIA GPUs"),
    "wandb": (("wandb",), "jellyfit[wandb]: Weights & Biases logger"),
    "gymnasium": (("gymnasium",), "jellyfit[rl]: reinforcement learning"),
    "lava-dl": (("lava-dl",), "jellyfit[lava]: Loihi (Python 3.10 only)"),
    "pillow": (("pillow",), "jellyfit[images]: image files, augmentation of images"),
    "aedat": (("aedat",), "jellyfit[sensors]: AEDAT 4 recordings"),
    "nir": (("nir",), "jellyfit[nir]: exchange format"),
}


def _version(*names: str) -> str | None:
    for name in names:
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return None


def has_fast_bfloat16() -> bool:
    """Whether this machine's processor computes in bfloat16 by itself; where that cannot be found out, ``True``.

    Examples:
        >>> from jellyfit.doctor import has_fast_bfloat16
        >>> has_fast_bfloat16() in (True, False)
        True
    """
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return True
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def slow_precision(precision: str, device: torch.device) -> str | None:
    """What to tell who trains with ``precision`` on ``device``, where that is a trap; else ``None``.

    Without instructions of its own for bfloat16 a processor can be 20 times slower in it than in float32.

    Args:
        precision: as Lightning's Trainer names it, for example ``"bf16-mixed"``.
        device: where the network is.

    Examples:
        >>> import torch
        >>> from jellyfit.doctor import slow_precision
        >>> slow_precision("32-true", torch.device("cpu")) is None
        True
    """
    if device.type != "cpu" or not precision.startswith("bf16") or has_fast_bfloat16():
        return None
    return (
        f"trainer.precision={precision}: this processor has no instructions for bfloat16 (avx512_bf16), and may be 20 "
        "times slower with it. Use trainer.precision=32-true here."
    )


def report() -> str:
    """The whole report as text, a line a fact."""
    lines = [f"jellyfit {jellyfit.__version__}  Python {platform.python_version()}  {platform.platform()}", ""]
    lines.append("Packages")
    lines += [f"  {name:<14}{_version(name) or 'MISSING: pip install jellyfit again'}" for name in _NEEDED]
    for name, (packages, purpose) in _EXTRAS.items():
        lines.append(f"  {name:<14}{_version(*packages) or f'not installed ({purpose})'}")
    lines += ["", "Devices", f"  {'cpu':<14}{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"]
    lines.append(f"  {'bfloat16':<14}{'fast' if has_fast_bfloat16() else 'slow on this processor: train in float32'}")
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(i)
            lines.append(f"  {f'cuda:{i}':<14}{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    else:
        why = "torch was built without CUDA" if torch.version.cuda is None else "no NVIDIA driver or GPU was found"
        lines.append(f"  {'cuda':<14}no: {why}")
    lines += ["", "Neuron backends"]
    lines += [
        f"  {name:<14}{'ready' if reason is None else f'no: {reason}'}" for name, reason in backend_status().items()
    ]
    lines += ["", "Compiled event code", *(f"  {line}" for line in _native())]
    lines += ["", "Places", f"  {'working in':<14}{Path.cwd()}"]
    lines.append(f"  {'disk free':<14}{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB")
    lines.append(f"  {'executable':<14}{sys.executable}")
    return "\n".join(lines)


def _native() -> list[str]:
    status = native.status()
    facts = {
        "ready": "yes" if status.usable else f"no: {status.reason}",
        "compiler": f"{status.compiler} ({status.version})" if status.compiler else "none found",
        "cache": f"{status.cache}" + ("" if status.cache_writable else " (cannot be written)"),
    }
    return [f"{name:<14}{value}" for name, value in facts.items()]
