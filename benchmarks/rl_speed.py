"""How fast a spiking actor is trained and acts: updates of TD3 a second, against the same networks on other neurons.

    python benchmarks/rl_speed.py [--seconds 10] [--json PATH]
    python benchmarks/rl_speed.py --learners 1 4 8 [--hidden 256 256] [--actor spiking]

No environment: 17 observations, 6 actions, hidden 256 x 2, T = 5, batch 100, from a buffer of 1,000,000 transitions.
Contenders take turns (``timing.py``): jellyfit's actor; the same with its neurons replaced by SpikingJelly's, where it
is installed (LIF neurons of the same shape, as SpikingJelly has no current-based ones, against jellyfit's LIF); and a
loop over time steps in eager PyTorch, as PopSAN's program has it. The latter two have torch's linear layers, in the
critics too, as their users do. All updates are whole ones: critics, and in every
second the actor and the targets.

With ``--learners``, the same for several learners stacked in one process: updates of all of them a second, and how many
times that is what the first number of learners does.
"""

from __future__ import annotations

import argparse
import copy
import functools
import importlib.util
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from peers import torchs_linear
from timing import machine, once, ratio, spread, take_turns
from torch import Tensor, nn

from jellyfit import functional
from jellyfit.control import (
    Critic,
    Experience,
    MLPActor,
    NStep,
    RateDecoder,
    ReplayBuffer,
    Spaces,
    SpikingActor,
    Transitions,
)
from jellyfit.neurons import BaseNode, CUBALIFNode, LIFNode
from jellyfit.surrogates import ATan
from jellyfit.tasks import TD3Task

OBS, ACT, BATCH = 17, 6, 100


class PopSANCore(nn.Module):
    """The layers of an actor of current-based neurons, run step by step in eager PyTorch."""

    def __init__(self, core: nn.Module) -> None:
        super().__init__()
        self.linears = nn.ModuleList(layer for layer in core.layers if isinstance(layer, nn.Linear))  # type: ignore[union-attr]
        self.decoder = core.decoder
        nodes = [node for node in core.modules() if isinstance(node, BaseNode) and node.fires]
        self.spike = nodes[0].surrogate_function

    def forward(self, x_seq: Tensor) -> Tensor:
        zeros = [x_seq.new_zeros(x_seq.shape[1], linear.out_features) for linear in self.linears]  # type: ignore[arg-type]
        current, potential, spikes = list(zeros), list(zeros), list(zeros)
        out = []
        for x in x_seq:
            for i, linear in enumerate(self.linears):
                current[i] = current[i] * 0.5 + nn.functional.linear(x, linear.weight, linear.bias)  # type: ignore[arg-type]
                potential[i] = potential[i] * 0.75 * (1.0 - spikes[i]) + current[i]
                x = spikes[i] = self.spike(potential[i] - 0.5)
            out.append(x)
        decoded: Tensor = self.decoder(torch.stack(out))
        return decoded


class Learner(TD3Task):
    """TD3 outside a trainer."""

    def __init__(self, change: Callable[[SpikingActor], None] | None, **options: Any) -> None:
        super().__init__(**options)
        torch.manual_seed(0)
        self.spaces = Spaces(OBS, ACT, [-1.0] * ACT, [1.0] * ACT)
        self._seed()
        self._build(self.spaces)
        if change is not None:
            change(self.actor)  # type: ignore[arg-type]
            change(self.target_actor)  # type: ignore[arg-type]
            for net in (self.actor, self.target_actor, self.critic, self.target_critic):
                torchs_linear(net)
        self.both = self.configure_optimizers()

    def optimizers(self, use_pl_optimizer: bool = True) -> Any:
        return self.both

    def reduce_gradients(self, parameters: Any) -> None:
        """One process."""

    def read(self, buffer: ReplayBuffer) -> None:
        """Every learner draws from ``buffer``."""
        self._experience = [Experience(self.noise, NStep(1), buffer) for _ in range(self.learners)]

    def one(self) -> None:
        self.update(self._to_device(self.sample()))


def popsan(actor: SpikingActor) -> None:
    """Loop over time steps."""
    actor.core = PopSANCore(actor.core)  # type: ignore[assignment]


def spikingjelly(actor: SpikingActor) -> None:
    """SpikingJelly's neurons in the same layers."""
    from spikingjelly.activation_based import functional as theirs
    from spikingjelly.activation_based import neuron, surrogate

    for name, module in list(actor.core.layers.named_children()):
        if isinstance(module, BaseNode):
            node = neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(), step_mode="m")
            setattr(actor.core.layers, name, node)
    encoder = actor.encoder
    their_encoder = neuron.IFNode(v_threshold=0.999, v_reset=None, surrogate_function=surrogate.ATan(), step_mode="m")

    def encode(obs: Tensor) -> Tensor:
        activation = encoder.activation(obs)
        spikes: Tensor = their_encoder(activation.expand(5, *activation.shape).contiguous())
        theirs.reset_net(their_encoder)
        return spikes

    forward = actor.core.forward

    def values(obs: Tensor) -> Tensor:
        result: Tensor = forward(encode(obs))
        for module in actor.core.layers:
            if hasattr(module, "reset"):
                module.reset()
        functional.reset_net(actor.core.decoder)
        return result

    actor.values = values  # type: ignore[method-assign]


def contenders() -> dict[str, Learner]:
    pop = functools.partial(SpikingActor, decoder=RateDecoder, neuron=CUBALIFNode())
    lif = functools.partial(SpikingActor, neuron=LIFNode(tau=2.0, surrogate_function=ATan()))
    made = {
        "PopSAN, jellyfit": Learner(None, actor=pop, batch_size=BATCH),
        "PopSAN, loop over time": Learner(popsan, actor=pop, batch_size=BATCH),
        "SAN (LIF), jellyfit": Learner(None, actor=lif, batch_size=BATCH),
    }
    if importlib.util.find_spec("spikingjelly") is None:
        print("SpikingJelly: not installed")
    else:
        made["SAN (LIF), SpikingJelly"] = Learner(spikingjelly, actor=lif, batch_size=BATCH)
    return made


def fill(buffer: ReplayBuffer, size: int) -> None:
    random = np.random.default_rng(0)
    for begin in range(0, size, 100_000):
        n = min(100_000, size - begin)
        obs = random.standard_normal((n + 1, OBS))
        buffer.add(obs[:-1], random.uniform(-1, 1, (n, ACT)), random.random(n), np.full(n, 0.99), obs[1:])


def check(made: dict[str, Learner]) -> None:
    """The same weights give the same actions, whatever runs them."""
    obs = torch.randn(64, OBS)
    for kind in ("PopSAN", "SAN (LIF)"):
        acts = [learner.actor(obs) for name, learner in made.items() if name.startswith(kind)]
        for other in acts[1:]:
            torch.testing.assert_close(other, acts[0], rtol=1e-4, atol=1e-5)


def several(buffer: ReplayBuffer, arguments: argparse.Namespace) -> dict[str, Any]:
    """Time updates of several learners, in turns."""
    hidden = arguments.hidden
    actor: Any = {"spiking": SpikingActor, "mlp": MLPActor}[arguments.actor]
    made = {}
    for number in arguments.learners:
        learner = made[number] = Learner(
            None, actor=functools.partial(actor, hidden=hidden), critic=functools.partial(Critic, hidden=hidden),
            batch_size=BATCH, learners=number,
        )  # fmt: skip
        learner.read(buffer)
        for _ in range(4):
            learner.one()
    taken = take_turns(
        {str(number): lambda each=each: [each.one(), each.one()] for number, each in made.items()}, arguments.seconds
    )
    first, rows = arguments.learners[0], []
    for number in arguments.learners:
        times = taken[str(number)]
        alone = [seconds * number / first for seconds in taken[str(first)]]
        row: dict[str, Any] = {"learners": number, "updates_per_second": spread([2 * number / s for s in times]),
               "times_the_first": ratio(alone, times)}  # fmt: skip
        rows.append(row)
        median, times_first = row["updates_per_second"]["median"], row["times_the_first"]["median"]
        what = f"{number:>3} learners, {arguments.actor} {' '.join(map(str, hidden))}"
        print(f"{what}: {median:7.1f} updates/s of all, {times_first:.2f} times those of {first}")
    return {"machine": machine(), "actor": arguments.actor, "hidden": hidden, "learners": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="to measure")
    parser.add_argument("--transitions", type=int, default=1_000_000, help="in the buffer")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--learners", type=int, nargs="+", help="measure so many learners in one process instead")
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 256], help="of their actors and critics")
    parser.add_argument("--actor", choices=("spiking", "mlp"), default="spiking", help="theirs")
    arguments = parser.parse_args()
    pl.seed_everything(0, verbose=False)
    buffer = ReplayBuffer(OBS, ACT, arguments.transitions)
    fill(buffer, arguments.transitions)
    found = several(buffer, arguments) if arguments.learners else contend(buffer, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def contend(buffer: ReplayBuffer, arguments: argparse.Namespace) -> dict[str, Any]:
    """Time the contenders, in turns."""
    made = contenders()
    check(made)
    for learner in made.values():
        learner.read(buffer)
        for _ in range(4):
            learner.one()
    taken = take_turns(
        {name: lambda each=each: [each.one(), each.one()] for name, each in made.items()}, arguments.seconds
    )
    pairs = {"PopSAN, loop over time": "PopSAN, jellyfit", "SAN (LIF), SpikingJelly": "SAN (LIF), jellyfit"}
    rows = []
    for name, times in taken.items():
        row: dict[str, Any] = {"what": name, "updates_per_second": spread([2 / s for s in times])}
        if name in pairs:
            row["times_jellyfit"] = ratio(times, taken[pairs[name]])
        rows.append(row)
        more = f", {row['times_jellyfit']['median']:.2f} times jellyfit's time" if name in pairs else ""
        print(f"{name:>26}: {row['updates_per_second']['median']:6.1f} updates/s{more}")
    actor, rng = copy.deepcopy(made["SAN (LIF), jellyfit"].actor), np.random.default_rng(0)
    one = torch.zeros(1, OBS)
    with torch.no_grad():
        acting = statistics.median(once(lambda: actor(one), 20) for _ in range(50))
    sampling = statistics.median(once(lambda: buffer.sample(256, rng), 20) for _ in range(50))
    print(f"{'one action':>26}: {1e6 * acting:.0f} µs; a batch of 256: {1e6 * sampling:.0f} µs")
    assert isinstance(buffer.sample(1, rng), Transitions)
    return {"machine": machine(), "updates": rows, "act_us": 1e6 * acting, "sample_us": 1e6 * sampling}


if __name__ == "__main__":
    main()
