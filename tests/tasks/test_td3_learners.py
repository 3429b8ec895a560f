"""Several learners of TD3 in one process: each is what it is alone, down to evaluation, resume and prediction."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from jellyfit.control import Critic, MLPActor, OrnsteinUhlenbeckNoise, PrioritisedReplay, ReplayBuffer, SpikingActor
from jellyfit.encoders import PopSpikeEncoderRandom
from jellyfit.errors import ConfigError, InputError
from jellyfit.neurons import PSN
from jellyfit.tasks import TD3Task

pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install 'jellyfit[rl]'")

from tests.tasks.test_td3 import Doubled, lines, small, task, trainer
from tests.tasks.test_td3 import pytestmark as quiet

pytestmark = quiet
spiking = functools.partial(SpikingActor, hidden=[8])
random_encoder = functools.partial(PopSpikeEncoderRandom, pop_dim=5, spike_ts=3, mean_range=(-3, 3), std=0.4)


def fitted(
    folder: Path,
    learners: int,
    seed: int = 3,
    data_seed: int = 0,
    epochs: int = 2,
    environments: int = 2,
    change: Callable[[TD3Task], None] | None = None,
    **options: Any,
) -> TD3Task:
    pl.seed_everything(seed, verbose=False)
    learner = task(**{"actor": spiking, "learners": learners, **copy.deepcopy(options)})
    if change is not None:
        change(learner)
    trainer(folder, epochs).fit(learner, lines(seed=data_seed, environments=environments))
    return learner


# ------------------------------------------------------------ each is what it is alone


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"noise": OrnsteinUhlenbeckNoise(), "n_step": 3, "normalise": False},
        {"replay": functools.partial(PrioritisedReplay, capacity=150), "actor": small, "updates_per_step": 0.7},
    ],
    ids=["spiking", "steps", "prioritised"],
)
def test_every_learner_is_the_run_with_its_seeds(options: dict[str, Any], tmp_path: Path) -> None:
    together = fitted(tmp_path, 3, **options)
    assert together.env_steps == 240
    for k in range(3):
        alone = fitted(tmp_path, 1, seed=3 + k, data_seed=k, **options)
        assert alone.updates == together.updates > 100
        assert len(alone.replay) == len(together.experience[k].replay)
        for (name, own), value in zip(alone.state_dict().items(), together.state_dict().values(), strict=True):
            torch.testing.assert_close(
                value[k].view_as(own), own, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n} {m}"
            )


def test_another_learners_data_change_nothing(tmp_path: Path) -> None:
    def spoilt(learner: TD3Task) -> None:
        sample = learner.sample

        def other() -> Any:
            batch = sample()
            batch.reward[:, 0] = 50.0
            batch.obs[:, 0] = -1.0
            return batch

        learner.sample = other  # type: ignore[method-assign]

    one = fitted(tmp_path, 3, start_steps=1000)
    two = fitted(tmp_path, 3, start_steps=1000, change=spoilt)
    changed = 0
    for name, value in one.state_dict().items():
        other = two.state_dict()[name]
        assert torch.equal(value[1:], other[1:]), name
        changed += not torch.equal(value[0], other[0])
    assert changed > 20


def test_learners_differ_in_weights_data_and_noise(tmp_path: Path) -> None:
    learner = fitted(tmp_path, 3, actor=functools.partial(spiking, encoder=random_encoder))
    rows = [own.replay.state_dict()["rows"] for own in learner.experience]
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert not torch.equal(rows[a], rows[b])
        assert not torch.equal(rows[a][:, :2], rows[b][:, :2]), "other episodes"
        assert not torch.equal(learner.actor.core.layers[0].weight[a], learner.actor.core.layers[0].weight[b])  # type: ignore[union-attr]
        assert learner.experience[a].noise is not learner.experience[b].noise


def test_one_learner_alone_has_the_names_and_shapes_of_an_ordinary_run(tmp_path: Path) -> None:
    alone, together = fitted(tmp_path, 1), fitted(tmp_path, 2)
    assert alone.streams == []
    assert list(alone.state_dict()) == list(together.state_dict())
    assert alone.norm.mean.shape == (2,)
    assert alone.actor.scale.shape == (1,)
    assert together.norm.mean.shape == (2, 2)


# ------------------------------------------------------------ going on


@pytest.mark.parametrize(
    "options",
    [
        {"noise": OrnsteinUhlenbeckNoise(), "n_step": 3},
        {"replay": functools.partial(PrioritisedReplay, capacity=150)},
        {"actor": functools.partial(spiking, encoder=random_encoder)},
    ],
    ids=["steps", "prioritised", "random"],
)
def test_learners_resume_to_the_bit(options: dict[str, Any], tmp_path: Path) -> None:
    def run(epochs: int, checkpoint: Path | None = None) -> TD3Task:
        pl.seed_everything(0, verbose=False)
        learner = task(**{"actor": spiking, "learners": 3, **copy.deepcopy(options)})
        fit = trainer(tmp_path, epochs)
        fit.fit(learner, lines(environments=2), ckpt_path=checkpoint, weights_only=True)
        if checkpoint is None:
            fit.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return learner

    whole, _ = run(4), run(2)
    again = run(4, tmp_path / "2.ckpt")
    assert again.updates == whole.updates > 200
    for (name, a), b in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for mine, theirs in zip(whole.experience, again.experience, strict=True):
        assert torch.equal(mine.replay.state_dict()["rows"], theirs.replay.state_dict()["rows"])


def test_a_learner_is_taken_out_of_a_checkpoint_as_an_ordinary_policy(tmp_path: Path) -> None:
    pl.seed_everything(0, verbose=False)
    learner, fit = task(actor=spiking, learners=3), trainer(tmp_path)
    fit.fit(learner, lines())
    fit.save_checkpoint(tmp_path / "a.ckpt")
    options: dict[str, Any] = {"actor": spiking, "critic": functools.partial(Critic, hidden=[8]), "weights_only": True}
    loaded = TD3Task.load_from_checkpoint(tmp_path / "a.ckpt", learners=3, **options)
    obs = np.random.default_rng(0).random((5, 2), np.float32)
    every = learner.policy(obs.repeat(3, 0)).reshape(5, 3, 1)
    names, before = list(SpikingActor(2, 1, hidden=[8]).state_dict()), torch.get_rng_state()
    for k in range(3):
        policy = loaded.policy_of(k)
        assert list(policy.actor.state_dict()) == names
        np.testing.assert_array_equal(policy.act(obs), learner.policy_of(k).act(obs))
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(learner)).policy_of(k).act(obs), policy.act(obs))
        np.testing.assert_allclose(policy.act(obs), every[:, k], rtol=1e-5, atol=1e-6)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(InputError, match="there is no network 3"):
        loaded.policy_of(3)
    with pytest.raises(ConfigError, match=r"the checkpoint is of 3 learners, this task of 1\. .*learners=3"):
        TD3Task.load_from_checkpoint(tmp_path / "a.ckpt", **options)


def test_a_policy_of_one_learner_has_nothing_in_common_with_its_task(tmp_path: Path) -> None:
    learner = fitted(tmp_path, 1)
    obs = np.random.default_rng(0).random((5, 2), np.float32)
    policy, expected = learner.policy_of(), learner.policy(obs)
    np.testing.assert_array_equal(policy.act(obs), expected)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(learner.policy(obs), expected)


# ------------------------------------------------------------ evaluation


def test_returns_are_those_of_every_learner(tmp_path: Path) -> None:
    learner = task(actor=spiking, learners=3)
    fit = trainer(tmp_path)
    fit.fit(learner, lines())
    logged = {name: float(value) for name, value in fit.callback_metrics.items()}
    means = [float(np.mean(learner.play(policy=learner.policy_of(k).act).returns)) for k in range(3)]
    assert [logged[f"val/return/{k}"] for k in range(3)] == pytest.approx(means, rel=1e-12)
    assert len(set(means)) == 3
    assert logged["val/return"] == pytest.approx(np.mean(means), rel=1e-12)
    assert logged["val/return_std"] == pytest.approx(np.std(means), rel=1e-12)
    assert 0 < logged["firing_rate/core.layers.1"] < 1
    assert "val/return/3" not in logged


def test_the_best_learner_is_predicted(tmp_path: Path) -> None:
    learner, fit = task(actor=spiking, learners=3), trainer(tmp_path)
    data = lines()
    fit.fit(learner, data)
    means = [np.mean(learner.play(policy=learner.policy_of(k).act).returns) for k in range(3)]
    (played,) = fit.predict(learner, data)
    best = learner.policy_of(int(np.argmax(means)))
    np.testing.assert_array_equal(best.act(played["obs"].numpy()), played["act"].numpy())


# ------------------------------------------------------------ mistakes


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="learners=0: expected at least 1"):
        task(learners=0)
    for actor, why in (
        (functools.partial(spiking, neuron=PSN(5)), "weight of PSN"),
        (Doubled, "for 2 of them it gives"),
    ):
        with pytest.raises(InputError, match=f"cannot be stacked for several learners: .*{why}"):
            fitted(tmp_path, 2, actor=actor)


def test_a_critic_that_cannot_be_stacked_is_told(tmp_path: Path) -> None:
    class OneRow(Critic):
        def forward(self, obs: torch.Tensor, act: torch.Tensor) -> torch.Tensor:
            return super().forward(obs - obs.mean(1, keepdim=True), act)

    with pytest.raises(InputError, match="OneRow cannot be stacked"):
        fitted(tmp_path, 2, actor=functools.partial(MLPActor, hidden=[8]), critic=OneRow)


def test_a_run_of_one_is_not_gone_on_with_by_two(tmp_path: Path) -> None:
    learner, fit = task(replay=functools.partial(ReplayBuffer, capacity=150)), trainer(tmp_path)
    fit.fit(learner, lines())
    fit.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(ConfigError, match="the checkpoint is of 1 learners, this task of 2"):
        trainer(tmp_path, 3).fit(task(learners=2), lines(), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
