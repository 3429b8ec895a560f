"""Encoders: values -> spikes.

An encoder has a step mode like a neuron: ``"s"`` encodes one step ``[N, *]``, ``"m"`` a sequence ``[T, N, *]`` (for a
still image: the image repeated ``T`` times, which is what a task with ``T`` set gives it).

* *Stateless* ones draw each step anew: :class:`PoissonEncoder`.
* *Stateful* ones turn their first input into a spike train and play it, step by step and from the start again at its
  end, until they are reset: :class:`LatencyEncoder`, :class:`WeightedPhaseEncoder`, :class:`GaussianTuningEncoder`.
  :class:`PeriodicEncoder` plays a train of one's own.
* *Populations* have several learnable neurons a value, for control: :class:`PopulationEncoder`, and
  :class:`PopEncoder` with its kin, which make a sequence of one observation.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from jellyfit import functional
from jellyfit.errors import InputError, StateError
from jellyfit.functional.encoding import check_steps, poisson_spikes
from jellyfit.neurons import IFNode
from jellyfit.neurons.base import MemoryModule, StepModule
from jellyfit.rng import Drawing
from jellyfit.surrogates import DeterministicPass, PoissonPass

__all__ = [
    "Encoder",
    "GaussianTuningEncoder",
    "LatencyEncoder",
    "PeriodicEncoder",
    "PoissonEncoder",
    "PopEncoder",
    "PopSpikeEncoderDeterministic",
    "PopSpikeEncoderRandom",
    "PopulationEncoder",
    "StatefulEncoder",
    "StatelessEncoder",
    "WeightedPhaseEncoder",
]


class Encoder(StepModule):
    """Base of all encoders: ``forward`` maps ``[N, *]`` or ``[T, N, *]`` to spikes of the same leading axes.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``.

    Raises:
        InputError: another step mode.

    Examples:
        >>> import torch
        >>> from jellyfit.encoders import Encoder
        >>> class Above(Encoder):
        ...     def forward(self, x):
        ...         return (x > 0.5).to(x.dtype)
        >>> Above()(torch.tensor([[0.2, 0.7]]))
        tensor([[0., 1.]])
    """

    def __init__(self, step_mode: str = "s") -> None:
        super().__init__()
        self.step_mode = step_mode


class StatelessEncoder(Encoder):
    """Base of encoders that remember nothing: subclass it and write ``forward``, the same for both step modes.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``.

    Examples:
        >>> import torch
        >>> from jellyfit.encoders import StatelessEncoder
        >>> class Above(StatelessEncoder):
        ...     def forward(self, x):
        ...         return (x > 0.5).to(x.dtype)
        >>> Above("m")(torch.tensor([[[0.2, 0.7]]]))
        tensor([[[0., 1.]]])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of ``x`` ``[N, *]`` or ``[T, N, *]``. Subclasses write it."""
        raise TypeError(f"{type(self).__name__} must define forward(self, x)")


class PoissonEncoder(Drawing, StatelessEncoder):
    """Rate code: a spike with probability ``x`` at every step, ``s = [u <= x]`` with ``u`` uniform in [0, 1).

    Values below 0 never spike, values of 1 and more always do. No gradient flows to ``x``. The function is
    :func:`~jellyfit.functional.poisson_encode`.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the draws of all steps are independent in both.
        generator: source of the random numbers, for draws that can be repeated; default torch's own. A pickle or copy
            of the encoder goes on from where it is.

    Raises:
        InputError: ``x`` is not floating-point, or holds NaN (looked for on the CPU alone).

    Examples:
        >>> import torch
        >>> from jellyfit.encoders import PoissonEncoder
        >>> encoder = PoissonEncoder("m", generator=torch.Generator().manual_seed(0))
        >>> 0.2 < encoder(torch.full((1000, 1, 1), 0.25)).mean().item() < 0.3
        True
    """

    def __init__(self, step_mode: str = "s", generator: torch.Generator | None = None) -> None:
        super().__init__(step_mode)
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        return poisson_spikes(self.describe(), x, x.shape, self.generator)


class StatefulEncoder(MemoryModule, Encoder):
    """Base of encoders that play a spike train: subclass it and write :meth:`single_step_encode`.

    The first input is encoded; every step then gives the train's next one, and after the last the first again. Later
    inputs count for nothing until ``functional.reset_net(net)``. A sequence ``[t, N, *]`` is ``t`` steps, of which the
    first is encoded; where it is shorter than the train, the train's end is never seen.

    Args:
        T: length of the train in time steps.
        step_mode: ``"s"`` (default) or ``"m"``.

    Raises:
        InputError: ``T`` is no whole number above 0.
        StateError: an input of another shape, dtype or device than the one encoded.

    Examples:
        >>> import torch
        >>> from jellyfit.encoders import StatefulEncoder
        >>> class Twice(StatefulEncoder):
        ...     def single_step_encode(self, x):
        ...         return torch.stack([x, 0 * x])
        >>> encoder = Twice(T=2)
        >>> [encoder(torch.ones(1)).item() for _ in range(3)]
        [1.0, 0.0, 1.0]
    """

    spike: Tensor | None  # the train
    t: int  # its step that comes next
    encoded: tuple[tuple[int, ...], torch.dtype, torch.device] | None  # of what it was made

    def __init__(self, T: int, step_mode: str = "s") -> None:
        super().__init__(step_mode)
        check_steps(f"{type(self).__name__}: T", T)
        self.T = T
        self.register_memory("spike", None)
        self.register_memory("t", 0)
        self.register_memory("encoded", None)

    def single_step_encode(self, x: Tensor) -> Tensor:
        """The spike train ``[T, N, *]`` of ``x`` ``[N, *]``. Subclasses write it."""
        raise TypeError(f"{type(self).__name__} must define single_step_encode(self, x)")

    def single_step_forward(self, x: Tensor) -> Tensor:
        """This step of the train, ``[N, *]``."""
        return self._play(x, 1)[0]

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        """As many steps of the train as ``x_seq`` ``[t, N, *]`` has."""
        if x_seq.ndim < 2 or x_seq.shape[0] == 0:
            raise InputError(
                f"{self.describe()}: step mode 'm' takes a sequence [T, N, *] with T >= 1 (a still image: repeated); "
                f"got shape {list(x_seq.shape)}."
            )
        return self._play(x_seq[0], x_seq.shape[0])

    def _play(self, x: Tensor, steps: int) -> Tensor:
        given = (tuple(x.shape), x.dtype, x.device)
        if self.spike is None:
            self.spike, self.encoded = self._encode(x), given
        elif self.encoded is not None and self.encoded != given:
            shape, dtype, device = self.encoded
            raise StateError(
                f"{self.describe()}: it plays the train of an input {list(shape)} {dtype} on {device}, but got "
                f"{list(x.shape)} {x.dtype} on {x.device}. Call jellyfit.functional.reset_net(net) before a new input."
            )
        train = self.spike
        times = (self.t + torch.arange(steps, device=train.device)) % len(train)
        self.t = (self.t + steps) % len(train)
        return train[times]

    def _encode(self, x: Tensor) -> Tensor:
        try:
            return self.single_step_encode(x)
        except InputError as error:
            raise InputError(f"{self.describe()}: {error}") from None

    def extra_repr(self) -> str:
        return f"T={self.T}, {super().extra_repr()}"


class LatencyEncoder(StatefulEncoder):
    """Time code: one spike a value, the earlier the larger it is; see :func:`~jellyfit.functional.latency_encode`.

    Args:
        T: length of the train in time steps.
        enc_function: ``"linear"`` (default): step ``round((T - 1)(1 - x))``; ``"log"``: ``round(T - 1 - ln(αx + 1))``
            with ``α = exp(T - 1) - 1``.
        step_mode: ``"s"`` (default) or ``"m"``.

    Raises:
        InputError: NaN or values outside [0, 1], ``T`` below 1, or an unknown function.
        StateError: see :class:`StatefulEncoder`.

    Examples:
        >>> import torch
        >>> from jellyfit.encoders import LatencyEncoder
        >>> encoder = LatencyEncoder(T=5)
        >>> x = torch.tensor([[0.0, 0.5, 1.0]])
        >>> torch.stack([encoder(x) for _ in range(5)]).argmax(0)
        tensor([[4, 2, 0]])
    """

    def __init__(self, T: int, enc_function: Literal["linear", "log"] = "linear", step_mode: str = "s") -> None:
        super().__init__(T, step_mode)
        if enc_function not in ("linear", "log"):
            raise InputError(f"LatencyEncoder(enc_function={enc_function!r}): expected 'linear' or 'log'.")
        self.enc_function = enc_function

    def single_step_encode(self, x: Tensor) -> Tensor:
        return functional.latency_encode(x, self.T, self.enc_function)

    def extra_repr(self) -> str:
        return f"enc_function={self.enc_function!r}, {super().extra_repr()}"


class WeightedPhaseEncoder(StatefulEncoder):
    """Binary code: step ``k`` is the ``k``-th binary digit of ``x``; see
    :func:`~jellyfit.functional.weighted_phase_encode`.

    Args:
        K: digits, and so length of the train.
        step_mode: ``"s"`` (default) or ``"m"``.

    Raises:
        InputError: NaN or values outside ``[0, 1 - 2^-K]``, or ``K`` below 1.
        StateError: see :class:`StatefulEncoder`.

    Examples:
        >>> import torch
        >>> from jellyfit.encoders import WeightedPhaseEncoder
        >>> encoder = WeightedPhaseEncoder(K=3, step_mode="m")
        >>> encoder(torch.full((3, 1, 1), 0.625)).flatten()
        tensor([1., 0., 1.])

    Source: Kim et al., "Deep neural networks with weighted spikes", Neurocomputing 311 (2018).
    """  # noqa: D205

    def __init__(self, K: int, step_mode: str = "s") -> None:
        check_steps("WeightedPhaseEncoder: K", K)
        super().__init__(K, step_mode)

    def single_step_encode(self, x: Tensor) -> Tensor:
        return functional.weighted_phase_encode(x, self.T)


class GaussianTuningEncoder(StatefulEncoder):
    """Population time code with fixed bell curves (Bohté): ``n`` neurons a value, the nearer its centre the earlier.

    See :func:`~jellyfit.functional.gaussian_tuning_encode` for the formula. ``[N, *]`` gives ``[N, *, n]`` a step.

    Args:
        n: neurons a value, above 2.
        T: length of the train in time steps, at least 2.
        x_min: least value: a number, or one for every feature as a tensor that broadcasts to ``[N, *]``.
        x_max: largest value, likewise.
        beta: overlap of the curves, default 1.5: larger is narrower.
        step_mode: ``"s"`` (default) or ``"m"``.

    Raises:
        InputError: NaN or values outside the range, an empty range, or ``n``, ``T`` or ``beta`` too small.
        StateError: see :class:`StatefulEncoder`.

    Examples:
        >>> import torch
        >>> from jellyfit.encoders import GaussianTuningEncoder
        >>> GaussianTuningEncoder(n=5, T=4)(torch.tensor([[0.5]]))
        tensor([[[0., 0., 1., 0., 0.]]])

    Source: Bohté, Kok and La Poutré, "Error-backpropagation in temporally encoded networks of spiking neurons",
    Neurocomputing 48 (2002).
    """

    def __init__(
        self,
        n: int,
        T: int,
        x_min: float | Tensor = 0.0,
        x_max: float | Tensor = 1.0,
        beta: float = 1.5,
        step_mode: str = "s",
    ) -> None:
        super().__init__(T, step_mode)
        self.n, self.x_min, self.x_max, self.beta = n, x_min, x_max, beta
        lowest, _ = torch.broadcast_tensors(  # type: ignore[no-untyped-call]
            torch.as_tensor(x_min).float(), torch.as_tensor(x_max).float()
        )
        functional.gaussian_tuning_encode(lowest, n, T, x_min, x_max, beta)  # for its checks

    def single_step_encode(self, x: Tensor) -> Tensor:
        return functional.gaussian_tuning_encode(x, self.n, self.T, self.x_min, self.x_max, self.beta)

    def extra_repr(self) -> str:
        return f"n={self.n}, {super().extra_repr()}"


class PeriodicEncoder(StatefulEncoder):
    """Plays a given spike train again and again, whatever the input.

    SpikingJelly 2.0 plays the first input instead of the train it was given; this one plays the train.

    Args:
        spike: the train ``[T, N, *]`` (or ``[T, 1, *]``, which every sample gets).
        step_mode: ``"s"`` (default) or ``"m"``.

    Raises:
        InputError: ``spike`` is no sequence, or does not fit the batch.

    Examples:
        >>> import torch
        >>> from jellyfit.encoders import PeriodicEncoder
        >>> encoder = PeriodicEncoder(torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1), "m")
        >>> encoder(torch.zeros(5, 1, 1)).flatten()
        tensor([1., 0., 0., 1., 0.])
    """

    def __init__(self, spike: Tensor, step_mode: str = "s") -> None:
        if not isinstance(spike, Tensor) or spike.ndim < 2 or spike.shape[0] == 0:
            given = list(spike.shape) if isinstance(spike, Tensor) else type(spike).__name__
            raise InputError(f"PeriodicEncoder: expected a spike train [T, N, *] with T >= 1; got {given}.")
        super().__init__(spike.shape[0], step_mode)
        self.register_buffer("train_spike", spike, persistent=False)

    train_spike: Tensor

    def single_step_encode(self, x: Tensor) -> Tensor:
        batch, own = x.shape[0] if x.ndim else 0, self.train_spike.shape[1]
        if batch != own and own != 1:
            raise InputError(f"the train is of {own} samples, the input of {batch}.")
        return self.train_spike.expand(-1, batch, *self.train_spike.shape[2:])


class _Population(nn.Module):
    """Learnable bell curves, ``pop_dim`` for each of ``obs_dim`` values.

    The activation of one is ``exp(-(x - mean)² / (2 std²))``; the means start evenly spaced over ``mean_range``.
    """

    def __init__(self, obs_dim: int, pop_dim: int, mean_range: tuple[float, float], std: float) -> None:
        super().__init__()
        check_steps(f"{type(self).__name__}: obs_dim", obs_dim)
        check_steps(f"{type(self).__name__}: pop_dim", pop_dim)
        low, high = (float(end) for end in mean_range)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InputError(f"{type(self).__name__}(mean_range={mean_range!r}): expected two numbers, low and high.")
        if not (math.isfinite(std) and std > 0):
            raise InputError(f"{type(self).__name__}(std={std!r}): expected a finite number above 0.")
        self.obs_dim, self.pop_dim = obs_dim, pop_dim
        means = torch.linspace(low, high, pop_dim).repeat(1, obs_dim, 1)
        self.mean = nn.Parameter(means)
        self.std = nn.Parameter(torch.full_like(means, std))

    def activation(self, x: Tensor) -> Tensor:
        """Activations in (0, 1] of the values ``[..., obs_dim]``: ``[..., obs_dim · pop_dim]``."""
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2 or x.shape[-1] != self.obs_dim:
            given = f"{list(x.shape)} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
            raise InputError(
                f"{type(self).__name__}: expected floating-point observations [N, {self.obs_dim}]; got {given}."
            )
        distance = (x.unsqueeze(-1) - self.mean.squeeze(-3)) / self.std.squeeze(-3)
        return torch.exp(-0.5 * distance.square()).flatten(-2)


def _accumulator(step_mode: str) -> IFNode:
    """The neuron that turns an activation into as many spikes; its threshold is just below the largest activation."""
    return IFNode(
        v_threshold=0.999,
        v_reset=None,
        surrogate_function=DeterministicPass(),
        detach_reset=True,
        step_mode=step_mode,
    )


class PopulationEncoder(Drawing, _Population, Encoder):
    """Gaussian population code of changing values: a group of neurons for each, with learnable centres and widths.

    Neuron ``j`` of value ``x`` is active by ``A = exp(-(x - mean_j)² / (2 std_j²))``, and spikes by it:

    * ``"deterministic"``: an integrate-and-fire neuron adds up ``A`` and spikes at 0.999, which is subtracted (a
      state, forgotten by ``functional.reset_net``);
    * ``"random"``: with probability ``A``;
    * ``"none"``: no spikes, ``A`` itself.

    Gradients pass straight through the spikes to ``A``, and so to centres, widths and input.

    Args:
        obs_dim: number of values.
        pop_dim: neurons a value, default 10.
        mean_range: centres of the first and the last at the start, default (-3, 3).
        std: width of all at the start, default √0.15.
        spiking: ``"deterministic"`` (default), ``"random"`` or ``"none"``.
        step_mode: ``"s"`` (default): ``[N, obs_dim]`` to ``[N, obs_dim · pop_dim]``; ``"m"``: the same with ``T`` in
            front.
        generator: source of the random numbers; default torch's own.

    Raises:
        InputError: an argument that makes no sense, or observations of another shape.

    Examples:
        >>> import torch
        >>> from jellyfit.encoders import PopulationEncoder
        >>> encoder = PopulationEncoder(obs_dim=1, pop_dim=3, mean_range=(-1, 1), step_mode="m")
        >>> encoder(torch.zeros(2, 1, 1)).detach()
        tensor([[[0., 1., 0.]],
        <BLANKLINE>
                [[0., 1., 0.]]])

    Source: Tang et al., "Deep reinforcement learning with population-coded spiking neural network for continuous
    control", CoRL 2020.
    """

    def __init__(
        self,
        obs_dim: int,
        pop_dim: int = 10,
        mean_range: tuple[float, float] = (-3.0, 3.0),
        std: float = math.sqrt(0.15),
        spiking: Literal["deterministic", "random", "none"] = "deterministic",
        step_mode: str = "s",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(obs_dim, pop_dim, mean_range, std)
        if spiking not in ("deterministic", "random", "none"):
            raise InputError(f"PopulationEncoder(spiking={spiking!r}): expected 'deterministic', 'random' or 'none'.")
        self.spiking = spiking
        self.generator = generator
        self.neurons = _accumulator(step_mode) if spiking == "deterministic" else None
        self.step_mode = step_mode

    def forward(self, x: Tensor) -> Tensor:
        """Spikes ``[N, obs_dim · pop_dim]`` or ``[T, N, obs_dim · pop_dim]``."""
        activation = self.activation(x)
        if self.neurons is not None:
            self.neurons.step_mode = self.step_mode
            return self.neurons(activation)  # type: ignore[no-any-return]
        if self.spiking == "random":
            return PoissonPass(generator=self.generator)(activation)  # type: ignore[no-any-return]
        return activation

    def extra_repr(self) -> str:
        return f"obs_dim={self.obs_dim}, pop_dim={self.pop_dim}, spiking={self.spiking!r}, step_mode={self.step_mode!r}"


class PopEncoder(_Population):
    """Gaussian population code of one observation, as a current repeated over time: no spikes.

    Takes an observation, gives a sequence, and so has no step mode; for observations that change from step to step see
    :class:`PopulationEncoder`.

    Args:
        obs_dim: number of values.
        pop_dim: neurons a value.
        spike_ts: time steps ``T``.
        mean_range: centres of the first and the last neuron at the start.
        std: width of all at the start.

    Raises:
        InputError: an argument that makes no sense, or observations of another shape than ``[N, obs_dim]``.

    Examples:
        >>> import torch
        >>> from jellyfit.encoders import PopEncoder
        >>> PopEncoder(obs_dim=2, pop_dim=10, spike_ts=5, mean_range=(-3, 3), std=0.15**0.5)(torch.zeros(4, 2)).shape
        torch.Size([5, 4, 20])

    Source: Tang et al., "Deep reinforcement learning with population-coded spiking neural network for continuous
    control", CoRL 2020.
    """

    def __init__(self, obs_dim: int, pop_dim: int, spike_ts: int, mean_range: tuple[float, float], std: float) -> None:
        super().__init__(obs_dim, pop_dim, mean_range, std)
        check_steps(f"{type(self).__name__}: spike_ts", spike_ts)
        self.spike_ts = spike_ts

    def forward(self, obs: Tensor) -> Tensor:
        """``[N, obs_dim]`` to ``[spike_ts, N, obs_dim · pop_dim]``."""
        activation = self.activation(obs)
        return self._spikes(activation.expand(self.spike_ts, *activation.shape))

    def _spikes(self, activation: Tensor) -> Tensor:
        return activation.clone()

    def extra_repr(self) -> str:
        return f"obs_dim={self.obs_dim}, pop_dim={self.pop_dim}, spike_ts={self.spike_ts}"


class PopSpikeEncoderDeterministic(PopEncoder):
    """Gaussian population code of one observation, as regular spikes of an integrate-and-fire neuron.

    Threshold 0.999, subtracted at a spike; every call starts from an empty neuron, so no reset is needed.

    Args:
        obs_dim: number of values.
        pop_dim: neurons a value.
        spike_ts: time steps ``T``.
        mean_range: centres of the first and the last neuron at the start.
        std: width of all at the start.

    Raises:
        InputError: an argument that makes no sense, or observations of another shape than ``[N, obs_dim]``.

    Examples:
        >>> import torch
        >>> from jellyfit.encoders import PopSpikeEncoderDeterministic
        >>> encoder = PopSpikeEncoderDeterministic(obs_dim=1, pop_dim=3, spike_ts=4, mean_range=(-1, 1), std=1.0)
        >>> encoder(torch.zeros(1, 1)).sum(0).detach()
        tensor([[2., 4., 2.]])

    Source: Tang et al., "Deep reinforcement learning with population-coded spiking neural network for continuous
    control", CoRL 2020.
    """

    def __init__(self, obs_dim: int, pop_dim: int, spike_ts: int, mean_range: tuple[float, float], std: float) -> None:
        super().__init__(obs_dim, pop_dim, spike_ts, mean_range, std)
        self.neurons = _accumulator("m")

    def _spikes(self, activation: Tensor) -> Tensor:
        self.neurons.step_mode = "m"  # whatever the network around has been set to
        self.neurons.reset()
        spikes: Tensor = self.neurons(activation)
        self.neurons.reset()
        return spikes


class PopSpikeEncoderRandom(Drawing, PopEncoder):
    """Gaussian population code of one observation, as random spikes: at every step with the activation's probability.

    Gradients pass straight through the spikes.

    Args:
        obs_dim: number of values.
        pop_dim: neurons a value.
        spike_ts: time steps ``T``.
        mean_range: centres of the first and the last neuron at the start.
        std: width of all at the start.
        generator: source of the random numbers; default torch's own.

    Raises:
        InputError: an argument that makes no sense, or observations of another shape than ``[N, obs_dim]``.

    Examples:
        >>> import torch
        >>> from jellyfit.encoders import PopSpikeEncoderRandom
        >>> encoder = PopSpikeEncoderRandom(obs_dim=1, pop_dim=3, spike_ts=4, mean_range=(-9, 9), std=1.0)
        >>> encoder(torch.zeros(1, 1)).sum(0).detach()
        tensor([[0., 4., 0.]])

    Source: Tang et al., "Deep reinforcement learning with population-coded spiking neural network for continuous
    control", CoRL 2020.
    """

    def __init__(
        self,
        obs_dim: int,
        pop_dim: int,
        spike_ts: int,
        mean_range: tuple[float, float],
        std: float,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(obs_dim, pop_dim, spike_ts, mean_range, std)
        self.generator = generator

    def _spikes(self, activation: Tensor) -> Tensor:
        return PoissonPass(generator=self.generator)(activation)  # type: ignore[no-any-return]
