"""What one line of the table says, and how it is shown to be true."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
import torch

from benchmarks.stand_ins import spikingjelly_module

__all__ = ["Row", "close", "defaults_differ", "peer"]

GROUPS = {  # heading: where SpikingJelly has the names, and where jellyfit has them
    "neurons": ("neuron", "neurons"),
    "surrogates": ("surrogate", "surrogates"),
    "encoders": ("encoding", "encoders"),
    "layers": ("layer", "layers"),
    "recurrent": ("rnn", "layers"),
    "functional": ("functional", "functional"),
    "backbones": ("model", "backbones"),
    "plif_nets": ("model.parametric_lif_net", "backbones"),
    "spiking_vgg": ("model.spiking_vgg", "backbones"),
    "spiking_resnet": ("model.spiking_resnet", "backbones"),
    "sew_resnet": ("model.sew_resnet", "backbones"),
}


@dataclass(frozen=True)
class Row:
    """One name of SpikingJelly's.

    Attributes:
        name: SpikingJelly's.
        status: ``"same"``: name, arguments, defaults and numbers; ``"different"``: see ``note``; ``"absent"``: not
            here, and ``note`` says what to use instead, or why.
        check: runs both and asserts what the row says: that the numbers agree, or, for a difference, that it is there.
            Never for absent names.
        note: for the reader of the table; may be empty for ``"same"`` alone.
        ours: jellyfit's name when it is another one.
        arguments: SpikingJelly's arguments that are absent here or have another default, each with the reason.
    """

    name: str
    status: str
    check: Callable[[], None] | None = None
    note: str = ""
    ours: str = ""
    arguments: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.status in ("same", "different", "absent"), self
        assert (self.check is None) == (self.status == "absent"), self
        assert self.note or self.status == "same", self
        assert not (self.arguments and self.status == "same"), self


def peer(module: str = "") -> ModuleType:
    """A module of SpikingJelly (``peer("neuron")``).

    Where it is not installed the tests are skipped, unless it was promised to be there.
    """
    if importlib.util.find_spec("spikingjelly") is None:
        message = "SpikingJelly is not installed (pip install --no-deps spikingjelly==2.0.0, with its dependencies)"
        if os.environ.get("JELLYFIT_REQUIRE_SPIKINGJELLY") == "1":
            pytest.fail(f"JELLYFIT_REQUIRE_SPIKINGJELLY=1, but {message}", pytrace=False)
        pytest.skip(message)
    return spikingjelly_module(module)


def close(ours: torch.Tensor, theirs: torch.Tensor, what: str = "") -> None:
    """Assert that two tensors agree as far as their dtype goes."""
    rtol, atol = (1e-12, 1e-13) if ours.dtype == torch.float64 else (1e-5, 1e-6)
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol, msg=lambda text: f"{what}: {text}")


def defaults_differ(ours: Callable[..., Any], theirs: Callable[..., Any]) -> dict[str, str]:
    """Arguments of ``theirs`` that ``ours`` lacks, or for which it has another default, with what differs."""
    found = {}
    mine = _parameters(ours)
    for name, parameter in _parameters(theirs).items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if name not in mine:
            found[name] = "absent"
        elif not _same_default(mine[name].default, parameter.default):
            found[name] = f"{mine[name].default!r}, not {parameter.default!r}"
    return found


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = dict(inspect.signature(function).parameters)
    if inspect.isclass(function):  # arguments passed on to a base class
        for base in function.__mro__[1:]:
            if not any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values()):
                break
            parameters = {**inspect.signature(base).parameters, **parameters} if base is not object else parameters
    return parameters


def _same_default(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, torch.nn.Module):  # a surrogate made in advance; ours is None and made when asked for
        return ours is None
    return bool(ours == theirs)
