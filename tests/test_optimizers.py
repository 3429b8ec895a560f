"""Optimizers in the form that steps fastest: the same weights, and only where it can be."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from jellyfit.optimizers import use_fused

MAKERS: dict[str, Callable[..., Optimizer]] = {
    "Adam": lambda p, **more: torch.optim.Adam(p, lr=0.01, weight_decay=0.1, amsgrad=True, **more),
    "AdamW": lambda p, **more: torch.optim.AdamW(p, lr=0.01, **more),
    "SGD": lambda p, **more: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01, **more),
}


def steps(net: nn.Module, optimizer: Optimizer, number: int, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(number):
        optimizer.zero_grad()
        net(torch.randn(5, 7, generator=generator)).pow(2).mean().backward()
        optimizer.step()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_weights_are_those_of_the_other_form(make: Callable[..., Optimizer]) -> None:
    one = nn.Linear(7, 3)
    other = copy.deepcopy(one)
    fused = use_fused(make(one.parameters()))
    assert [group["fused"] for group in fused.param_groups] == [True]
    steps(one, fused, 20)
    steps(other, make(other.parameters(), foreach=False), 20)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_what_is_saved_goes_on_to_the_bit_in_its_own_form(make: Callable[..., Optimizer]) -> None:
    for fuse in (True, False):  # False: a checkpoint of before
        net = nn.Linear(7, 3)
        optimizer = use_fused(make(net.parameters())) if fuse else make(net.parameters())
        steps(net, optimizer, 3)
        resumed = copy.deepcopy(net)
        again = use_fused(make(resumed.parameters()))
        again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        assert bool(again.param_groups[0]["fused"]) is fuse
        steps(net, optimizer, 3, seed=1), steps(resumed, again, 3, seed=1)
        assert all(torch.equal(a, b) for a, b in zip(net.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("settings", [{"fused": False}, {"foreach": True}, {"differentiable": True}], ids=str)
def test_what_was_chosen_stays(settings: dict[str, Any]) -> None:
    net = nn.Linear(7, 3)
    optimizer = torch.optim.Adam(net.parameters(), **settings)
    before = dict(optimizer.param_groups[0])
    assert use_fused(optimizer).param_groups[0] == before
    lr = torch.tensor(0.01)
    assert use_fused(torch.optim.Adam(net.parameters(), lr=lr)).param_groups[0]["fused"] is None


def test_others_stay_as_they_are() -> None:
    net = nn.Linear(7, 3)

    class Mine(torch.optim.Adam):
        pass

    for kind in (torch.optim.RMSprop, torch.optim.Adagrad, Mine):
        assert use_fused(kind(net.parameters())).param_groups[0].get("fused") is None
    for parameter in (nn.Parameter(torch.ones(2, dtype=torch.complex64)), nn.Parameter(torch.ones(2, device="meta"))):
        assert use_fused(torch.optim.Adam([parameter])).param_groups[0]["fused"] is None


def test_groups_are_looked_at_one_by_one() -> None:
    real, complex_one = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, dtype=torch.complex64))
    optimizer = use_fused(torch.optim.SGD([{"params": [real]}, {"params": [complex_one]}], lr=0.1))
    assert [group["fused"] for group in optimizer.param_groups] == [True, None]
    real.sum().backward()
    complex_one.abs().sum().backward()
    optimizer.step()
    assert torch.allclose(real, torch.full((2,), 0.9))
