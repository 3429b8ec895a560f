"""Twin delayed deep deterministic policy gradient, with any actor: a spiking one by default."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from jellyfit.control import (
    ActionNoise,
    Actor,
    Critic,
    Experience,
    GaussianNoise,
    NStep,
    ReplayBuffer,
    Spaces,
    Step,
    Transitions,
    side_by_side,
)
from jellyfit.errors import ConfigError
from jellyfit.optimizers import use_fused
from jellyfit.tasks.control import ActorFactory, Array, ControlTask

__all__ = ["TD3Task", "polyak", "td3_target"]

CriticFactory: TypeAlias = Callable[[int, int], Critic]
ReplayFactory: TypeAlias = Callable[[int, int], ReplayBuffer]


@torch.no_grad()
def td3_target(
    batch: Transitions,
    actor: Actor,
    critic: Critic,
    noise: Tensor | None = None,
    noise_clip: float = 0.5,
) -> Tensor:
    """What actions should be worth: ``y = r + γ' min_i Q_i(o', a')``, ``a' = clip(π(o') + clip(noise))``, ``[N]``.

    γ' is the transition's ``discount``: 0 where the episode came to its end, not where its time was up.

    Args:
        batch: transitions, with observations as the networks take them.
        actor: the target actor π.
        critic: the target critics Q.
        noise: added to the action ``[N, act_dim]``, in its units; default none.
        noise_clip: largest noise, default 0.5.

    Source: Fujimoto, van Hoof and Meger, "Addressing function approximation error in actor-critic methods", ICML 2018.

    Examples:
        >>> import torch
        >>> from jellyfit.control import Critic, MLPActor, Transitions
        >>> from jellyfit.tasks import td3_target
        >>> batch = Transitions(torch.zeros(2, 3), torch.zeros(2, 1), torch.ones(2), torch.zeros(2), torch.zeros(2, 3))
        >>> td3_target(batch, MLPActor(3, 1), Critic(3, 1)).tolist()  # both episodes have ended
        [1.0, 1.0]
    """
    act = actor(batch.next_obs)
    if noise is not None:
        act = (act + noise.clamp(-noise_clip, noise_clip)).clamp(actor.low, actor.high)
    value: Tensor = critic(batch.next_obs, act).amin(0)
    return batch.reward + batch.discount * value


@torch.no_grad()
def polyak(target: nn.Module, source: nn.Module, rho: float) -> None:
    """``θ' ← rho θ' + (1 - rho) θ`` for every parameter of ``target``, which is shaped like ``source``.

    Examples:
        >>> import torch
        >>> from jellyfit.tasks import polyak
        >>> target, source = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        >>> _ = torch.nn.init.zeros_(target.weight), torch.nn.init.ones_(source.weight)
        >>> polyak(target, source, rho=0.75)
        >>> target.weight.item()
        0.25
    """
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), 1.0 - rho)


class TD3Task(ControlTask):
    """Twin delayed DDPG: an actor is improved by critics that learn from all that happened.

    With ``policy_delay=1``, ``target_noise=0`` and a critic of one network it is DDPG. The defaults are those of the
    published spiking actors.

    Args:
        actor, normalise, learners: see :class:`~jellyfit.tasks.ControlTask`.
        critic: called with the sizes of observations and actions; default :class:`~jellyfit.control.Critic`.
        replay: called likewise; default :class:`~jellyfit.control.ReplayBuffer` of 1,000,000 transitions.
        actor_optimizer: callable ``parameters -> optimizer``; default Adam with learning rate 0.0001.
        critic_optimizer: likewise; default Adam with learning rate 0.001.
        batch_size: transitions of an update, default 100.
        gamma: discount γ, default 0.99.
        n_step: steps of a transition, default 1.
        rho: share of the target networks that stays in an update, default 0.995.
        start_steps: so many steps of the environments are random, uniform between the bounds; default 10,000.
        update_after: no update before so many steps, default 1,000.
        updates_per_step: default 1.
        noise: of the actions to learn from; default ``GaussianNoise(0.1)``, in the actions' units.
        target_noise: standard deviation of the noise on the target's actions, default 0.2.
        noise_clip: largest noise on the target's actions, default 0.5.
        policy_delay: the actor and the targets move in every so many updates of the critics, default 2.

    Raises:
        ConfigError: a number that makes no sense.

    Source: Fujimoto et al., ICML 2018; with a spiking actor: Tang et al., CoRL 2020.

    Examples:
        >>> import functools
        >>> from jellyfit.control import SpikingActor
        >>> from jellyfit.tasks import TD3Task
        >>> task = TD3Task(functools.partial(SpikingActor, hidden=[64]), start_steps=1000)
        >>> # lightning.pytorch.Trainer(max_epochs=6).fit(task, Environments("Pendulum-v1")) trains it
        >>> task.policy_delay
        2
    """

    critic: Critic
    target_actor: Actor
    target_critic: Critic

    def __init__(
        self,
        actor: ActorFactory | None = None,
        normalise: bool = True,
        critic: CriticFactory | None = None,
        replay: ReplayFactory | None = None,
        actor_optimizer: OptimizerCallable | None = None,
        critic_optimizer: OptimizerCallable | None = None,
        batch_size: int = 100,
        gamma: float = 0.99,
        n_step: int = 1,
        rho: float = 0.995,
        start_steps: int = 10_000,
        update_after: int = 1_000,
        updates_per_step: float = 1.0,
        noise: ActionNoise | None = None,
        target_noise: float = 0.2,
        noise_clip: float = 0.5,
        policy_delay: int = 2,
        learners: int = 1,
    ) -> None:
        super().__init__(actor, normalise, learners)
        for name, value in {"batch_size": batch_size, "policy_delay": policy_delay, "n_step": n_step}.items():
            if value < 1:
                raise ConfigError(f"model.init_args.{name}={value}: expected at least 1.")
        for name, number in {"gamma": gamma, "rho": rho}.items():
            if not 0 <= number <= 1:
                raise ConfigError(f"model.init_args.{name}={number}: expected a number from 0 to 1.")
        for name, number in {
            "start_steps": start_steps, "update_after": update_after, "updates_per_step": updates_per_step,
            "target_noise": target_noise, "noise_clip": noise_clip,
        }.items():  # fmt: skip
            if not number >= 0:
                raise ConfigError(f"model.init_args.{name}={number}: expected at least 0.")
        self.make_critic: CriticFactory = Critic if critic is None else critic
        self.make_replay: ReplayFactory = ReplayBuffer if replay is None else replay
        self.actor_optimizer, self.critic_optimizer = actor_optimizer, critic_optimizer
        self.batch_size, self.gamma, self.n_step, self.rho = batch_size, gamma, n_step, rho
        self.start_steps, self.update_after, self.updates_per_step = start_steps, update_after, updates_per_step
        self.noise = GaussianNoise() if noise is None else noise
        self.target_noise, self.noise_clip, self.policy_delay = target_noise, noise_clip, policy_delay
        self.updates = 0
        self._owed = 0.0
        self._experience: list[Experience] = []

    def build(self, spaces: Spaces) -> None:
        """See :class:`ControlTask`."""
        sizes = spaces.obs_dim, spaces.act_dim
        self.critic = self.each(lambda: self.make_critic(*sizes), *sizes)
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)

    def configure_optimizers(self) -> Any:
        actor, critic = list(self.actor.parameters()), list(self.critic.parameters())
        made = [
            self.actor_optimizer(actor) if self.actor_optimizer else torch.optim.Adam(actor, lr=1e-4),
            self.critic_optimizer(critic) if self.critic_optimizer else torch.optim.Adam(critic, lr=1e-3),
        ]
        return [use_fused(optimizer) for optimizer in made]

    @property
    def experience(self) -> list[Experience]:
        """What every learner has been through."""
        if not self._experience:
            assert self.spaces is not None
            self._experience = [
                Experience(
                    self.noise if self.learners == 1 else copy.deepcopy(self.noise),
                    NStep(self.environments.environments, self.n_step, self.gamma),
                    self.make_replay(self.spaces.obs_dim, self.spaces.act_dim),
                )
                for _ in range(self.learners)
            ]
        return self._experience

    @property
    def replay(self) -> ReplayBuffer:
        """What happened to the (first) learner."""
        return self.experience[0].replay

    def explore(self, obs: Array) -> Array:
        """Random actions at first, then the actor's with noise."""
        assert self.spaces is not None
        low, high = np.array(self.spaces.low, np.float32), np.array(self.spaces.high, np.float32)
        random = self.env_steps < self.start_steps
        acts = np.empty((len(obs), self.spaces.act_dim), np.float32) if random else self.policy(obs)
        for k, (own, rng) in enumerate(zip(self.experience, self.rngs, strict=True)):
            mine = acts[k :: self.learners]
            mine[:] = rng.uniform(low, high, mine.shape) if random else mine + own.noise.draw(mine.shape, rng)
        return np.clip(acts, low, high)

    def remember(self, step: Step) -> None:
        """Put transitions into the replay buffers."""
        for k, own in enumerate(self.experience):
            own.remember(*(values[k :: self.learners] for values in step[:6]))

    def learn(self, steps: int) -> None:
        """As many updates as there were steps, or what ``updates_per_step`` says."""
        if self.env_steps < self.update_after:
            return
        self._owed += steps * self.updates_per_step
        while self._owed >= 1:
            self._owed -= 1
            self.update(self._to_device(self.sample()))

    def sample(self) -> Transitions:
        """A batch of every learner's own transitions."""
        both = zip(self.experience, self.rngs, strict=True)
        return side_by_side([own.replay.sample(self.batch_size, rng) for own, rng in both])

    def _to_device(self, batch: Transitions) -> Transitions:
        tensors = [value.to(self.device, non_blocking=True) for value in batch[:5]]
        weight = None if batch.weight is None else batch.weight.to(self.device, non_blocking=True)
        obs, act, reward, discount, next_obs = tensors
        return Transitions(self.normalised(obs), act, reward, discount, self.normalised(next_obs), weight, batch.place)

    def update(self, batch: Transitions) -> None:
        """One update of the critics, and in its turn of the actor and the targets."""
        actor_optimizer, critic_optimizer = cast("list[LightningOptimizer]", self.optimizers())
        noise = self._normal(batch.act) * self.target_noise if self.target_noise else None
        target = td3_target(batch, self.target_actor, self.target_critic, noise, self.noise_clip)
        error = self.critic(batch.obs, batch.act) - target
        squared = error.square() if batch.weight is None else error.square() * batch.weight
        loss = squared.mean(1).sum()  # over networks and learners: the gradients are each one's own
        critic_optimizer.zero_grad()
        loss.backward()
        self.reduce_gradients(list(self.critic.parameters()))
        critic_optimizer.step()
        told = {"critic_loss": loss.detach() / self.learners, "q": target.mean()}
        if batch.weight is not None:  # the buffer draws by errors
            assert batch.place is not None
            errors = error.detach().abs().mean(0).cpu().numpy().reshape(-1, self.learners)
            places = batch.place.reshape(-1, self.learners)
            for k, own in enumerate(self.experience):
                own.replay.update(places[:, k], errors[:, k])
        if self.updates % self.policy_delay == 0:
            self.critic.requires_grad_(False)
            actor_loss = -self.critic.first(batch.obs, self.actor(batch.obs)).mean(0).sum()
            actor_optimizer.zero_grad()
            actor_loss.backward()  # type: ignore[no-untyped-call]
            self.reduce_gradients(list(self.actor.parameters()))
            actor_optimizer.step()
            self.critic.requires_grad_(True)
            polyak(self.target_actor, self.actor, self.rho)
            polyak(self.target_critic, self.critic, self.rho)
            told["actor_loss"] = actor_loss.detach() / self.learners
        self.updates += 1
        if self.updates % 50 == 1:  # looking at values makes a GPU wait
            self.count(**{name: float(value) for name, value in told.items()})

    def _normal(self, like: Tensor) -> Tensor:
        """Normal noise of the shape of ``like``, every learner's from its own random numbers."""
        if not self.streams:
            return torch.randn_like(like)
        one = like.shape[0], like.shape[2]
        return torch.stack([torch.randn(one, generator=stream.torch) for stream in self.streams], 1).to(like)

    def kept(self) -> dict[str, Any]:
        """See :class:`ControlTask`."""
        first, *others = (own.state_dict() for own in self.experience)
        return {"updates": self.updates, "owed": self._owed, **first, "others": others}

    def go_on(self, kept: dict[str, Any]) -> None:
        """See :class:`ControlTask`."""
        self.updates, self._owed = kept["updates"], kept["owed"]
        saved = [kept, *kept.get("others", [])]
        for own, state in zip(self.experience, saved, strict=True):
            own.load_state_dict(state)

    def forget(self, which: Array) -> None:
        """See :class:`ControlTask`."""
        for k, own in enumerate(self.experience):
            own.forget(which[k :: self.learners])
