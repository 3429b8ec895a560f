"""TD3: its formulas by hand, when what moves, resume to the bit, faults, DDPG, Pendulum."""

from __future__ import annotations

import copy
import functools
import pickle
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor

from jellyfit.control import (
    Critic,
    GaussianNoise,
    MLPActor,
    OrnsteinUhlenbeckNoise,
    PrioritisedReplay,
    ReplayBuffer,
    SpikingActor,
    Transitions,
)
from jellyfit.datamodules import Environments
from jellyfit.encoders import PopSpikeEncoderRandom
from jellyfit.errors import ConfigError, ControlError
from jellyfit.tasks import TD3Task, polyak, td3_target

pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install 'jellyfit[rl]'")

from tests.control.test_rollout import Line

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*"),
]
small = functools.partial(MLPActor, hidden=[8])


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def trainer(folder: Path, epochs: int = 2, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        **{
            "default_root_dir": folder, "max_epochs": epochs, "accelerator": "cpu", "logger": False,
            "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False,
            "num_sanity_val_steps": 0, **options,
        }
    )  # fmt: skip


def task(**options: Any) -> TD3Task:
    return TD3Task(
        **{
            "actor": small, "critic": functools.partial(Critic, hidden=[8]), "batch_size": 16, "start_steps": 40,
            "update_after": 40, "replay": functools.partial(ReplayBuffer, capacity=150), **options,
        }
    )  # fmt: skip


def lines(**options: Any) -> Environments:
    return Environments(Line, **{"steps_per_epoch": 120, "steps_per_turn": 20, "episodes": 2, **options})


# ------------------------------------------------------------ formulas


class Doubled(MLPActor):
    """Twice the first value of the observation."""

    def values(self, obs: Tensor) -> Tensor:
        return torch.atanh(2 * obs[:, :1])


class Sums(Critic):
    """The sum of observation and action, and that plus 1."""

    def forward(self, obs: Tensor, act: Tensor) -> Tensor:
        total = obs.sum(-1) + act.sum(-1)
        return torch.stack([total + 1, total])


def test_the_target_is_the_hand_computation() -> None:
    batch = Transitions(
        obs=torch.zeros(3, 2),
        act=torch.zeros(3, 1),
        reward=torch.tensor([1.0, 2.0, 3.0]),
        discount=torch.tensor([0.9, 0.0, 0.5]),
        next_obs=torch.tensor([[0.1, 1.0], [0.2, 1.0], [0.45, 1.0]]),
    )
    noise = torch.tensor([[0.1], [9.0], [-9.0]])  # clipped to 0.1, 0.5, -0.5
    # actions 0.2 + 0.1, -, 0.9 - 0.5; the smaller critic 0.1 + 1 + 0.3 = 1.4, -, 0.45 + 1 + 0.4 = 1.85
    target = td3_target(batch, Doubled(2, 1), Sums(2, 1), noise, noise_clip=0.5)
    torch.testing.assert_close(target, torch.tensor([1 + 0.9 * 1.4, 2.0, 3 + 0.5 * 1.85]))
    # the noisy action stays between the bounds: 0.9 + 0.5 becomes 1
    upwards = td3_target(batch, Doubled(2, 1), Sums(2, 1), -noise, noise_clip=0.5)
    torch.testing.assert_close(upwards[2], torch.tensor(3 + 0.5 * 2.45))
    without = td3_target(batch, Doubled(2, 1), Sums(2, 1))
    torch.testing.assert_close(without[0], torch.tensor(1 + 0.9 * 1.3))


def test_polyak_moves_every_parameter_by_its_share() -> None:
    torch.manual_seed(0)
    target, source = SpikingActor(3, 1, hidden=[4]), SpikingActor(3, 1, hidden=[4])
    expected = [0.9 * t + 0.1 * s for t, s in zip(target.parameters(), source.parameters(), strict=True)]
    polyak(target, source, 0.9)
    for found, value in zip(target.parameters(), expected, strict=True):
        torch.testing.assert_close(found, value)
    assert any("encoder.mean" in name for name, _ in target.named_parameters()), "the encoder's centres too"


class Watched(TD3Task):
    """Notes after every update whether actor and targets moved, and the updates so far."""

    def update(self, batch: Transitions) -> None:
        before = copy.deepcopy([self.actor, self.target_actor, self.target_critic, self.critic])
        super().update(batch)
        after = [self.actor, self.target_actor, self.target_critic, self.critic]
        moved = [
            any(not torch.equal(a, b) for a, b in zip(x.parameters(), y.parameters(), strict=True))
            for x, y in zip(before, after, strict=True)
        ]
        self.__dict__.setdefault("moves", []).append(moved)


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_actor_and_targets_move_in_every_so_many_updates_of_the_critic(delay: int, tmp_path: Path) -> None:
    watched = Watched(small, critic=functools.partial(Critic, hidden=[8]), start_steps=20, update_after=40,
                      batch_size=8, policy_delay=delay)  # fmt: skip
    trainer(tmp_path, 1).fit(watched, lines(steps_per_epoch=60))
    assert len(watched.moves) == 40, "an update a step, from update_after on"
    for i, (actor, target_actor, target_critic, critic) in enumerate(watched.moves):
        assert critic
        assert actor == target_actor == target_critic == (i % delay == 0)


def test_the_end_of_time_still_has_a_value_and_an_end_has_none(tmp_path: Path) -> None:
    learner = task(gamma=0.9, start_steps=10_000)
    trainer(tmp_path).fit(learner, lines())
    batch = learner.replay.sample(1000, np.random.default_rng(0))
    ended, late = batch.next_obs[:, 0] > 2, batch.next_obs[:, 1] >= 7
    assert bool(ended.any())
    assert bool((late & ~ended).any())
    torch.testing.assert_close(batch.discount, torch.where(ended, 0.0, 0.9))
    torch.testing.assert_close(batch.next_obs[:, 1], batch.obs[:, 1] + 1), "never the first of the next episode"


def test_random_actions_come_first_then_the_actors_with_noise(tmp_path: Path) -> None:
    learner = task(start_steps=100, noise=GaussianNoise(0.0), update_after=10_000, normalise=False)
    trainer(tmp_path, 1).fit(learner, lines(steps_per_epoch=140))
    rows = learner.replay._take(np.arange(140))
    expected = learner.actor(rows.obs)
    torch.testing.assert_close(rows.act[100:], expected[100:])
    assert float(rows.act[:100].std()) == pytest.approx(3**-0.5, abs=0.08), "uniform between the bounds"
    assert float((rows.act[:100] - expected[:100]).detach().abs().max()) > 0.5


def test_ddpg_is_the_special_case_and_equals_a_plain_loop(tmp_path: Path) -> None:
    """One critic, no delay, no noise on targets: against DDPG written out."""
    learner = task(
        policy_delay=1, target_noise=0.0, critic=functools.partial(Critic, hidden=[8], number=1), normalise=False,
        gamma=0.95, rho=0.9,
    )  # fmt: skip
    trainer(tmp_path, 1).fit(learner, lines(steps_per_epoch=60))
    actor, critic = copy.deepcopy(learner.actor), copy.deepcopy(learner.critic)
    targets = copy.deepcopy(learner.target_actor), copy.deepcopy(learner.target_critic)
    batch = learner.replay.sample(32, np.random.default_rng(0))
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in (actor, critic)]
    with torch.no_grad():
        value = targets[1](batch.next_obs, targets[0](batch.next_obs))[0]
        y = batch.reward + batch.discount * value
    (critic(batch.obs, batch.act)[0] - y).square().mean().backward()
    optimizers[1].step()
    optimizers[0].zero_grad()
    (-critic(batch.obs, actor(batch.obs))[0].mean()).backward()
    optimizers[0].step()
    mine = [torch.optim.SGD(net.parameters(), lr=0.1) for net in (learner.actor, learner.critic)]
    learner.optimizers = lambda *a, **k: mine  # type: ignore[method-assign]
    learner.update(batch)
    for found, expected in ((learner.actor, actor), (learner.critic, critic)):
        for a, b in zip(found.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(a, b)


# ------------------------------------------------------------ going on


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"actor": functools.partial(SpikingActor, hidden=[8]), "noise": OrnsteinUhlenbeckNoise(), "n_step": 3},
        {"replay": functools.partial(PrioritisedReplay, capacity=150), "updates_per_step": 0.7},
    ],
    ids=["plain", "spiking", "prioritised"],
)
@pytest.mark.parametrize("environments", [1, 4])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(
    options: dict[str, Any], environments: int, tmp_path: Path
) -> None:
    def run(epochs: int, checkpoint: Path | None = None) -> TD3Task:
        pl.seed_everything(0, verbose=False)
        learner = task(**copy.deepcopy(options))
        fit = trainer(tmp_path, epochs)
        fit.fit(learner, lines(environments=environments), ckpt_path=checkpoint, weights_only=True)
        if checkpoint is None:
            fit.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return learner

    whole, _ = run(4), run(2)
    again = run(4, tmp_path / "2.ckpt")
    assert again.env_steps == whole.env_steps == 480
    assert again.updates == whole.updates > 200
    for (name, a), b in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(whole.replay.state_dict()["rows"], again.replay.state_dict()["rows"])


def test_a_policy_is_loaded_from_its_checkpoint_alone(tmp_path: Path) -> None:
    learner, fit = task(), trainer(tmp_path)
    fit.fit(learner, lines())
    fit.save_checkpoint(tmp_path / "a.ckpt")
    loaded = TD3Task.load_from_checkpoint(
        tmp_path / "a.ckpt", actor=small, critic=functools.partial(Critic, hidden=[8]), weights_only=True
    )
    obs = np.random.default_rng(0).random((5, 2), np.float32)
    np.testing.assert_array_equal(loaded.policy(obs), learner.policy(obs))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(learner)).policy(obs), learner.policy(obs))


# ------------------------------------------------------------ faults


@pytest.mark.parametrize("fault", ["nan", "raise"])
def test_a_broken_environment_ends_with_its_cause(fault: str, tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="the motor is stuck" if fault == "raise" else "are nan"):
        trainer(tmp_path).fit(task(), lines(env_kwargs={"fault": fault, "at": 6}))


def test_wrong_settings_are_told(tmp_path: Path) -> None:
    for name, value in {"gamma": 1.5, "batch_size": 0, "policy_delay": 0, "rho": -0.1, "start_steps": -1}.items():
        with pytest.raises(ConfigError, match=f"{name}="):
            task(**{name: value})
    with pytest.raises(ConfigError, match="expected a multiple of the number of environments"):
        lines(environments=3)
    with pytest.raises(ConfigError, match="expected a multiple of steps_per_turn"):
        lines(steps_per_epoch=50)
    with pytest.raises(ConfigError, match="Pendulum-v9"):
        trainer(tmp_path).fit(task(), Environments("Pendulum-v9"))
    with pytest.raises(ConfigError, match="gravity"):
        trainer(tmp_path).fit(task(), Environments("Pendulum-v1", {"gravity": 9.8}))
    with pytest.raises(ConfigError, match="jellyfit.datamodules.Environments"):
        trainer(tmp_path).fit(task(), torch.utils.data.DataLoader(range(3)))  # type: ignore[arg-type]


def test_evaluations_with_random_encoders_are_repeated_and_leave_the_generators_alone(tmp_path: Path) -> None:
    encoder = functools.partial(PopSpikeEncoderRandom, pop_dim=5, spike_ts=3, mean_range=(-3, 3), std=0.4)
    learner, data = task(actor=functools.partial(SpikingActor, hidden=[8], encoder=encoder)), lines()
    trainer(tmp_path, 1).fit(learner, data)
    before = torch.get_rng_state()
    first = learner.play()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert learner.play() == first
    assert learner.play(1).returns != first.returns
