"""Rows of encoders."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from jellyfit import encoders, functional
from jellyfit.errors import InputError
from tests.compat.rows import Row, close, peer

POPULATION = {"obs_dim": 3, "pop_dim": 5, "spike_ts": 6, "mean_range": (-2.0, 2.0), "std": 0.7}


def values(high: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.rand(4, 50, generator=torch.Generator().manual_seed(0), dtype=dtype) * high
    x[0, :2] = torch.tensor([0.0, high])
    return x


def trains_agree(name: str, args: tuple[Any, ...], x: Tensor, steps: int) -> None:
    """The same steps in both step modes, past the end of the train and after a reset."""
    ours, theirs = getattr(encoders, name)(*args), getattr(peer("encoding"), name)(*args)
    for _ in range(2):
        expected = torch.stack([theirs(x) for _ in range(steps)])
        assert torch.equal(torch.stack([ours(x) for _ in range(steps)]), expected)
        functional.reset_net(ours)
        peer("functional").reset_net(theirs)
        x = x.flip(0)
    for module in (ours, theirs):
        module.step_mode = "m"
    x_seq = x.expand(steps, *x.shape)
    assert torch.equal(ours(x_seq), theirs(x_seq))


def check_poisson() -> None:
    for mode, shape in (("s", (40, 50)), ("m", (5, 40, 50))):
        x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        torch.manual_seed(1)
        ours = encoders.PoissonEncoder(mode)(x)
        torch.manual_seed(1)
        assert torch.equal(ours, peer("encoding").PoissonEncoder(mode)(x))


def check_latency() -> None:
    for dtype in (torch.float32, torch.float64):
        for T in (1, 2, 5, 20):
            for enc_function in ("linear", "log"):
                if T > 1 or enc_function == "linear":
                    trains_agree("LatencyEncoder", (T, enc_function), values(dtype=dtype), 2 * T + 1)
    for bad in (torch.tensor([[1.5]]), torch.tensor([[-0.5]])):
        with pytest.raises(InputError):
            encoders.LatencyEncoder(5)(bad)
    # SpikingJelly: an overflow where there are many steps
    x = torch.tensor([[0.5]])
    ours, theirs = encoders.LatencyEncoder(100, "log", "m"), peer("encoding").LatencyEncoder(100, "log", "m")
    assert ours(x.expand(100, 1, 1)).sum() == 1.0
    with pytest.raises(RuntimeError):
        theirs(x.expand(100, 1, 1))


def check_phase() -> None:
    for K in (1, 3, 8):
        trains_agree("WeightedPhaseEncoder", (K,), values(1.0 - 2.0**-K), 2 * K + 1)
        with pytest.raises(InputError):
            encoders.WeightedPhaseEncoder(K)(torch.ones(1, 1))
        with pytest.raises(AssertionError):
            peer("encoding").WeightedPhaseEncoder(K)(torch.ones(1, 1))


def check_periodic() -> None:
    train = torch.eye(3)[:, None]
    x = torch.full((3, 1, 3), 9.0)
    ours, theirs = encoders.PeriodicEncoder(train), peer("encoding").PeriodicEncoder(train)
    assert ours.T == theirs.T == 3
    assert torch.equal(torch.stack([ours(x[0]) for _ in range(4)]), train[[0, 1, 2, 0]])
    assert torch.equal(torch.stack([theirs(x) for _ in range(4)]), x[[0, 1, 2, 0]])


def check_stateful() -> None:
    def twice(base: Any) -> Any:
        class Twice(base):  # type: ignore[misc]
            def single_step_encode(self, x: Tensor) -> Tensor:
                return torch.stack([x * t for t in range(self.T)])

        return Twice(3)

    ours, theirs, x = twice(encoders.StatefulEncoder), twice(peer("encoding").StatefulEncoder), values()
    assert torch.equal(torch.stack([ours(x) for _ in range(5)]), torch.stack([theirs(x) for _ in range(5)]))
    assert ours.t == theirs.t and torch.equal(ours.spike, theirs.spike)


def check_stateless() -> None:
    for module, error in ((encoders, TypeError), (peer("encoding"), NotImplementedError)):
        assert module.StatelessEncoder("m").step_mode == "m"
        with pytest.raises(error):
            module.StatelessEncoder()(values())


def populations(name: str) -> tuple[Any, Any, Tensor]:
    ours, theirs = getattr(encoders, name)(**POPULATION), getattr(peer("encoding"), name)(**POPULATION)
    close(ours.mean.detach(), theirs.mean.detach(), "means at the start")
    close(ours.std.detach(), theirs.std.detach(), "widths at the start")
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs, torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


def compare_populations(ours: Any, theirs: Any, x: Tensor) -> None:
    found = []
    for encoder in (ours, theirs):
        torch.manual_seed(1)
        y = encoder(x)
        encoder.zero_grad()
        (y * torch.linspace(-1.0, 2.0, y.numel()).view(y.shape)).sum().backward()
        found.append((y.detach(), encoder.mean.grad, encoder.std.grad))
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)  # gradients are sums that cancel


def check_pop() -> None:
    compare_populations(*populations("PopEncoder"))


def check_pop_random() -> None:
    compare_populations(*populations("PopSpikeEncoderRandom"))


def check_pop_deterministic() -> None:
    ours, theirs, x = populations("PopSpikeEncoderDeterministic")
    compare_populations(ours, theirs, x)
    first = ours(x)
    assert torch.equal(ours(x), first)
    assert not torch.equal(theirs(x), first)  # it goes on from where the call before stopped
    peer("functional").reset_net(theirs)
    assert torch.equal(theirs(x), first)


ROWS: list[Row] = [
    Row(
        "LatencyEncoder",
        "different",
        check_latency,
        "the same spikes; values outside [0, 1] are a clear error, and `log` works for any `T`",
    ),
    Row("PeriodicEncoder", "different", check_periodic, "plays the train; SpikingJelly's plays its first input"),
    Row("PoissonEncoder", "same", check_poisson),
    Row("PopEncoder", "same", check_pop),
    Row(
        "PopSpikeEncoderDeterministic",
        "different",
        check_pop_deterministic,
        "the same spikes, but every call starts anew: no `reset_net` between observations",
    ),
    Row("PopSpikeEncoderRandom", "same", check_pop_random),
    Row("StatefulEncoder", "same", check_stateful),
    Row("StatelessEncoder", "same", check_stateless),
    Row("WeightedPhaseEncoder", "same", check_phase),
]
