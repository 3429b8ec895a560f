"""Rows of surrogates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from jellyfit import surrogates
from jellyfit.errors import ConfigError
from tests.compat.rows import Row, close, peer

# window edges, zero and far away, between them everything
GRID = torch.cat(
    [
        torch.linspace(-6.0, 6.0, 401, dtype=torch.float64),
        torch.tensor([0.0, 1e-6, -1e-6, 0.25, 0.5, 1.0, 2.0, 1e4, -0.5, -1.0, -2.0, -1e4], dtype=torch.float64),
    ]
)


def both(name: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    return getattr(surrogates, name)(*args, **kwargs), getattr(peer("surrogate"), name)(*args, **kwargs)


def outcome(surrogate: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    out = surrogate(x)
    (out * torch.linspace(-1.0, 2.0, len(x), dtype=x.dtype)).sum().backward()
    assert x.grad is not None
    return out.detach(), x.grad


def agree(name: str, *options: dict[str, Any], primitive: bool = True, grid: Tensor = GRID) -> Callable[[], None]:
    """Spikes, gradients and primitives agree for all options, in both precisions."""

    def check() -> None:
        for dtype in (torch.float64, torch.float32):
            x = grid.to(dtype)
            for kwargs in ({}, *options):
                for spiking in (True, False) if primitive else (True,):
                    extra = {} if spiking else {"spiking": False}
                    ours, theirs = both(name, **kwargs, **extra)
                    for mine, other in zip(outcome(ours, x), outcome(theirs, x), strict=True):
                        close(mine, other, f"{name} {kwargs} {dtype} spiking={spiking}")

    return check


def alphas(*values: float) -> list[dict[str, Any]]:
    return [{"alpha": value} for value in values]


def away_from(*edges: float) -> Tensor:
    """The grid without points where the primitive has a corner: its derivative there is a matter of taste."""
    return GRID[(GRID[:, None].abs() - torch.tensor(edges, dtype=torch.float64)).abs().amin(1) > 1e-9]


def check_rect() -> None:
    agree("Rect", *alphas(0.5, 3.0), primitive=False)()
    agree("Rect", *alphas(0.5, 3.0), grid=away_from(0.5, 1.0, 1 / 6))()


def check_leaky() -> None:
    options = ({"w": 0.5, "c": 0.1}, {"w": 2.0, "c": 0.0})
    agree("PiecewiseLeakyReLU", *options, primitive=False)()
    agree("PiecewiseLeakyReLU", *options, grid=away_from(0.5, 1.0, 2.0))()


def check_s2nn() -> None:
    options = ({"alpha": 3.0, "beta": 2.0},)
    agree("S2NN", *options, primitive=False)()
    ours, theirs = both("S2NN", spiking=False)
    torch.testing.assert_close(ours(GRID), theirs(GRID), rtol=0, atol=2e-5)
    zero = torch.zeros(1, dtype=torch.float64)
    assert ours(zero).item() == 0.5 and theirs(zero).item() > 0.5 + 5e-6


def check_poisson() -> None:
    x = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    ours, theirs = both("PoissonPass")
    torch.manual_seed(1)
    spikes = outcome(ours, x)
    torch.manual_seed(1)
    for mine, other in zip(spikes, outcome(theirs, x), strict=True):
        assert torch.equal(mine, other)
    outside = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    assert ours(outside).tolist() == [0.0, 1.0]
    with pytest.raises(RuntimeError):
        theirs(outside)
    assert (ours(outside.clamp(0, 1)).dtype, theirs(outside.clamp(0, 1)).dtype) == (torch.float64, torch.float32)


def check_counts() -> None:
    options = ({"max_spike_count": 4}, {"max_spike_count": 1}, {"max_spike_count": 3, "grad_window": (1.0, 2.0)})
    for kwargs in options:
        for spiking in (True, False):
            ours, theirs = both("MultiLevelSpikeCount", **kwargs, spiking=spiking)
            for mine, other in zip(outcome(ours, GRID), outcome(theirs, GRID), strict=True):
                close(mine, other, f"{kwargs} {spiking}")
    assert surrogates.MultiLevelSpikeCount().max_spike_count == 4
    with pytest.raises(TypeError):
        peer("surrogate").MultiLevelSpikeCount()


def check_base() -> None:
    class Ours(surrogates.SurrogateFunction):
        def gradient(self, x: Tensor) -> Tensor:
            return (1.0 - x.abs()).clamp(min=0.0)

    theirs = peer("surrogate").PiecewiseQuadratic()
    assert isinstance(theirs, peer("surrogate").SurrogateFunctionBase)
    for mine, other in zip(outcome(Ours(), GRID), outcome(theirs, GRID), strict=True):
        close(mine, other)


def check_super_spike() -> None:
    agree("SuperSpike", *alphas(0.5, 3.0), primitive=False)()
    with pytest.raises(ConfigError):
        surrogates.SuperSpike(spiking=False)


def check_heaviside() -> None:
    x = torch.tensor([-1.0, -0.0, 0.0, 1e-9, 2.0, float("nan")])
    assert torch.equal(surrogates.heaviside(x), peer("surrogate").heaviside(x))


FUNCTION = "make the surrogate once and call it: `surrogates.{}(...)(x)`"
GRADIENT = "`surrogates.{}(...).gradient(x)`, times the incoming gradient"
FUNCTIONS = {
    "atan": "ATan",
    "deterministic_pass": "DeterministicPass",
    "erf": "Erf",
    "fake_numerical_gradient": "FakeNumericalGradient",
    "leaky_k_relu": "LeakyKReLU",
    "log_tailed_relu": "LogTailedReLU",
    "nonzero_sign_log_abs": "NonzeroSignLogAbs",
    "piecewise_exp": "PiecewiseExp",
    "piecewise_leaky_relu": "PiecewiseLeakyReLU",
    "piecewise_quadratic": "PiecewiseQuadratic",
    "poisson_pass": "PoissonPass",
    "q_pseudo_spike": "QPseudoSpike",
    "rect": "Rect",
    "s2nn": "S2NN",
    "sigmoid": "Sigmoid",
    "soft_sign": "SoftSign",
    "squarewave_fourier_series": "SquarewaveFourierSeries",
    "super_spike": "SuperSpike",
}
WITHOUT_BACKWARD = ("deterministic_pass", "poisson_pass", "q_pseudo_spike", "s2nn", "squarewave_fourier_series")

ROWS: list[Row] = [
    *(
        Row(name, "same", agree(name, *alphas(0.5, 3.0)))
        for name in (
            "ATan", "Erf", "NonzeroSignLogAbs", "PiecewiseExp", "PiecewiseQuadratic", "Sigmoid", "SoftSign",
        )
    ),
    Row("DeterministicPass", "same", agree("DeterministicPass")),
    Row("FakeNumericalGradient", "same", agree("FakeNumericalGradient", *alphas(0.1, 2.0), primitive=False)),
    Row("LeakyKReLU", "same", agree("LeakyKReLU", {"leak": 0.2, "k": 0.7})),
    Row("LogTailedReLU", "same", agree("LogTailedReLU", *alphas(0.2, 1.0))),
    Row(
        "MultiLevelSpikeCount",
        "different",
        check_counts,
        "the same numbers",
        arguments={"max_spike_count": "4 by default, as in the paper; SpikingJelly asks for it"},
    ),
    Row("PiecewiseLeakyReLU", "same", check_leaky),
    Row(
        "PoissonPass",
        "different",
        check_poisson,
        "the same draws; below 0 it never spikes and above 1 always, where SpikingJelly raises; float64 stays float64",
    ),
    Row("QPseudoSpike", "same", agree("QPseudoSpike", *alphas(1.5, 3.0))),
    Row("Rect", "same", check_rect),
    Row(
        "S2NN",
        "different",
        check_s2nn,
        "the same spikes and gradients; the primitive is `β ln(x + 1) + 1/2`, without the 1e-5 that SpikingJelly adds "
        "inside the logarithm",
    ),
    Row("SquarewaveFourierSeries", "same", agree("SquarewaveFourierSeries", {"n": 3}, {"n": 5, "T_period": 5.0})),
    Row("SuperSpike", "same", check_super_spike),
    Row(
        "SurrogateFunctionBase",
        "different",
        check_base,
        "a subclass writes `gradient(x)` (and `primitive(x)`), not an autograd function",
        ours="surrogates.SurrogateFunction",
    ),
    Row("heaviside", "same", check_heaviside),
    *(Row(name, "absent", note=FUNCTION.format(cls)) for name, cls in FUNCTIONS.items()),
    *(
        Row(f"{name}_backward", "absent", note=GRADIENT.format(cls))
        for name, cls in FUNCTIONS.items()
        if name not in WITHOUT_BACKWARD
    ),
    Row("check_manual_grad", "absent", note="`torch.autograd.gradcheck` of `surrogate(spiking=False)`"),
    Row("plot_surrogate_function", "absent", note="see the picture of all surrogates in the documentation"),
]  # fmt: skip
