"""``jellyfit kernels show NEURON``: the source that is generated for a neuron."""

from __future__ import annotations

import argparse
import ast
import importlib
from collections.abc import Sequence
from typing import Any

import torch

from jellyfit import neurons
from jellyfit.config_errors import nearest
from jellyfit.errors import ConfigError
from jellyfit.kernels import NotPointwiseError

__all__ = ["kernel_source", "main"]

_DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}


def kernel_source(
    node: neurons.BaseNode,
    target: str = "cpu",
    which: str = "forward",
    shape: Sequence[int] = (2, 3, 4, 5),
    dtype: torch.dtype = torch.float32,
) -> str:
    """Generated source of a neuron's kernel.

    Args:
        node: the neuron.
        target: ``"cpu"`` (C) or ``"cuda"``.
        which: ``"forward"`` or ``"backward"``.
        shape: of one step's input ``[N, *]``; it has to fit the neuron's parameters.
        dtype: of the input.

    Raises:
        ConfigError: the neuron's step is not pointwise, or an unknown target.
    """
    if target not in ("cpu", "cuda") or which not in ("forward", "backward"):
        raise ConfigError(f"target={target!r}, which={which!r}: expected 'cpu' or 'cuda', 'forward' or 'backward'.")
    try:
        return node.kernels.source(target, which, torch.Size(shape), dtype)
    except NotPointwiseError as error:
        raise ConfigError(f"{node.describe()} has no kernel: {error}.") from error


def main(arguments: Sequence[str]) -> None:
    """The verb ``kernels``; raises ``SystemExit`` on wrong usage."""
    parser = argparse.ArgumentParser(prog="jellyfit kernels", allow_abbrev=False)
    verbs = parser.add_subparsers(dest="what", required=True, metavar="show")
    show = verbs.add_parser("show", help="print the generated source of a neuron's kernels", allow_abbrev=False)
    show.add_argument("neuron", help="class: jellyfit.neurons.LIFNode, LIFNode, or my_project.MyNode")
    show.add_argument("options", nargs="*", metavar="NAME=VALUE", help="arguments of the class, such as tau=4.0")
    show.add_argument("--target", choices=("cpu", "cuda"), default="cpu")
    show.add_argument("--pass", dest="which", choices=("forward", "backward", "both"), default="both")
    show.add_argument("--dtype", choices=tuple(_DTYPES), default="float32")
    given = parser.parse_args(list(arguments))
    node = _make(given.neuron, given.options)
    for which in ("forward", "backward") if given.which == "both" else (given.which,):
        print(kernel_source(node, given.target, which, dtype=_DTYPES[given.dtype]))


def _make(name: str, options: Sequence[str]) -> neurons.BaseNode:
    module, _, kind = name.rpartition(".")
    try:
        found: Any = getattr(importlib.import_module(module or "jellyfit.neurons"), kind)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"no neuron {name!r}{nearest(kind, neurons.__all__)}: {error}.") from error
    values = {}
    for option in options:
        key, sign, text = option.partition("=")
        if not sign:
            raise ConfigError(f"{option!r}: expected NAME=VALUE, such as tau=4.0.")
        try:
            values[key] = ast.literal_eval(text)
        except (SyntaxError, ValueError) as error:
            raise ConfigError(f"{option!r}: {text!r} is not a number, true or false, or None.") from error
    try:
        node = found(**values)
    except TypeError as error:
        raise ConfigError(f"{name}: {error}.") from error
    if not isinstance(node, neurons.BaseNode):
        raise ConfigError(f"{name} is {type(node).__name__}, not a neuron (a subclass of jellyfit.neurons.BaseNode).")
    return node
