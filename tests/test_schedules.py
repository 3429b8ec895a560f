"""Schedules against torch's own, in the optimizer, and resumed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from jellyfit.errors import ConfigError
from jellyfit.schedules import WarmupCosine


def optimizer(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in rates or (0.4,)])


def walk(schedule: Any, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    return rates


def test_it_is_torchs_linear_warmup_followed_by_its_cosine() -> None:
    own = walk(WarmupCosine(optimizer(), total=30, warmup=8, start_factor=0.05, min_factor=0.1), 30)
    warmup = walk(LinearLR(optimizer(), 0.05, total_iters=8), 8)
    cosine = walk(CosineAnnealingLR(optimizer(), 22, eta_min=0.04), 22)
    assert own == pytest.approx(warmup + cosine, rel=1e-6)


def test_without_a_warmup_it_is_a_cosine() -> None:
    own = walk(WarmupCosine(optimizer(), total=12), 12)
    assert own == pytest.approx(walk(CosineAnnealingLR(optimizer(), 12), 12), rel=1e-6)


def test_it_stays_at_its_end() -> None:
    rates = walk(WarmupCosine(optimizer(), total=4, warmup=1, min_factor=0.25), 10)
    assert rates[4:] == pytest.approx([0.1] * 6)


def test_groups_keep_their_ratios() -> None:
    made = optimizer(0.4, 0.04)
    schedule = WarmupCosine(made, total=5, warmup=2)
    for _ in range(5):
        assert made.param_groups[0]["lr"] == pytest.approx(10 * made.param_groups[1]["lr"])
        made.step()
        schedule.step()


@pytest.mark.parametrize("at", [0, 3, 7, 25])
def test_resuming_goes_on_to_the_bit(at: int) -> None:
    settings: dict[str, Any] = {"total": 20, "warmup": 5}
    whole = walk(WarmupCosine(optimizer(), **settings), 30)
    first = WarmupCosine(optimizer(), **settings)
    start = walk(first, at)
    second = WarmupCosine(optimizer(), **settings)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    assert start + walk(second, 30 - at) == whole


def test_it_can_be_part_of_a_sequence_of_schedules() -> None:
    made = optimizer()
    rates = walk(SequentialLR(made, [LinearLR(made, 1.0, 1.0), WarmupCosine(made, total=4)], milestones=[3]), 7)
    assert rates == pytest.approx([0.4] * 4 + walk(WarmupCosine(optimizer(), total=4), 4)[1:])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"total": 5, "warmup": 5}, "a warm-up of 0 or more that ends before"),
        ({"total": 0}, "total=0"),
        ({"total": 5, "warmup": -1}, "warmup=-1"),
        ({"total": 5, "start_factor": 0.0}, "start_factor above 0"),
        ({"total": 5, "min_factor": 1.5}, "min_factor from 0 to 1"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        WarmupCosine(optimizer(), **settings)
