"""Networks whose parameters are shared out among processes (FSDP2, ``torch.distributed.fsdp.fully_shard``)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from jellyfit.errors import InputError, StateError
from jellyfit.runs import is_sharded

__all__ = ["consolidate", "shard"]


def shard(net: nn.Module, mesh: DeviceMesh) -> None:
    """Share the parameters of ``net``, their gradients and the optimizer's state out among the processes of ``mesh``.

    Each process keeps one part of them; the whole is put together for forward and backward. Parameters without an axis
    (such as the ``w`` of :class:`~jellyfit.neurons.ParametricLIFNode`), which cannot be cut, stay whole in every
    process; their gradients are averaged. Memories of neurons are no parameters: every process has its own. All
    processes must have made the network with the same weights (the same seed).

    Args:
        net: any network that is on its device, or on the CPU; changed in place.
        mesh: of one dimension, as ``torch.distributed.device_mesh.init_device_mesh`` makes it.

    Raises:
        StateError: parameters that are not there yet (on the ``meta`` device). Neurons look at their values when they
            are made, and layers draw theirs; make the network on the CPU.

    Source: Zhao et al., "PyTorch FSDP: experiences on scaling fully sharded data parallel", arXiv:2304.11277 (2023).

    Examples:
        >>> import torch
        >>> from jellyfit.errors import StateError
        >>> from jellyfit.sharding import shard
        >>> with torch.device("meta"):
        ...     net = torch.nn.Linear(3, 2)
        >>> try:
        ...     shard(net, mesh=None)
        ... except StateError as error:
        ...     print(str(error).partition(";")[0])
        Linear: the parameter 'weight' is on the meta device, without values
    """
    from torch.distributed.fsdp import fully_shard

    for name, parameter in net.named_parameters():
        if parameter.is_meta:
            raise StateError(
                f"{type(net).__name__}: the parameter {name!r} is on the meta device, without values; make the network "
                "on the CPU and shard it then (neurons look at values when they are made)."
            )
    whole = {parameter for parameter in net.parameters() if parameter.ndim == 0}
    fully_shard(net, mesh=mesh, ignored_params=whole)
    group = mesh.get_group()

    def average(parameter: Tensor) -> None:
        if parameter.grad is not None:
            torch.distributed.all_reduce(parameter.grad, group=group)
            parameter.grad /= mesh.size()

    for parameter in whole:
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(average)  # type: ignore[no-untyped-call]


def consolidate(folder: str | os.PathLike[str], file: str | os.PathLike[str]) -> Path:
    """Make of a sharded checkpoint one file, which any number of processes and any strategy can go on from.

    Args:
        folder: the checkpoint that training under Lightning's ``ModelParallelStrategy`` has written.
        file: where the one goes.

    Returns:
        ``file``.

    Raises:
        InputError: no sharded checkpoint.

    Examples:
        >>> from jellyfit.errors import InputError
        >>> from jellyfit.sharding import consolidate
        >>> try:
        ...     consolidate("runs/digits/0/checkpoints", "one.ckpt")
        ... except InputError as error:
        ...     print(error)
        runs/digits/0/checkpoints: no sharded checkpoint; expected a folder with a file meta.pt in it.
    """
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    folder, file = Path(folder), Path(file)
    if not is_sharded(folder):
        raise InputError(f"{folder}: no sharded checkpoint; expected a folder with a file meta.pt in it.")
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
        dcp_to_torch_save(folder, Path(scratch) / "parts")
        parts = torch.load(Path(scratch) / "parts", weights_only=True, map_location="cpu")
    checkpoint = torch.load(folder / "meta.pt", weights_only=True, map_location="cpu")
    checkpoint["state_dict"] = parts.pop("state_dict")
    checkpoint["optimizer_states"] = [_numbered(parts[key]) for key in sorted(parts, key=lambda key: int(key[10:]))]
    torch.save(checkpoint, file)
    return file


def _numbered(optimizer: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state by the numbers of its parameters, as ``Optimizer.state_dict``, in place of their names."""
    names = [name for group in optimizer["param_groups"] for name in group["params"]]
    numbers = {name: number for number, name in enumerate(names)}
    groups = [{**group, "params": [numbers[name] for name in group["params"]]} for group in optimizer["param_groups"]]
    state = {numbers[name]: values for name, values in optimizer["state"].items()}
    return {"state": state, "param_groups": groups}
