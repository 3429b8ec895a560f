"""What tasks that control environments share: acting, evaluating, logging, exact resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from jellyfit import pictures
from jellyfit.callbacks.folders import save_table
from jellyfit.callbacks.loggers import read_metrics
from jellyfit.control import Actor, Episodes, Policy, RunningNorm, Spaces, SpikingActor, Step, stack, unstack
from jellyfit.datamodules.environments import Environments
from jellyfit.errors import ConfigError, ControlError, JellyfitError
from jellyfit.metrics import FiringRateMeter
from jellyfit.rng import Stream, get_rng_state, set_rng_state
from jellyfit.runs import PICTURES, repeats
from jellyfit.tasks.resume import of_every_process
from jellyfit.tasks.task import Task

__all__ = ["ActorFactory", "ControlTask"]

Array: TypeAlias = npt.NDArray[Any]
Net = TypeVar("Net", bound=nn.Module)
ActorFactory: TypeAlias = Callable[[int, int, list[float], list[float]], Actor]
"""Makes an actor for sizes of observations and actions, and bounds; in YAML a class with its other arguments."""


class ControlTask(Task):
    """Base of tasks that learn to control environments (:class:`~jellyfit.datamodules.Environments`).

    This class steps the environments, normalises observations, evaluates without exploration after every epoch, logs,
    and saves what an exact resume needs. A subclass writes :meth:`build` (networks beside the actor),
    :meth:`explore` (actions to learn from), :meth:`remember` (a step), :meth:`learn` (after every turn) and
    ``configure_optimizers``; and when it has more to save than weights, :meth:`kept` and :meth:`go_on`.

    Several learners are trained at once, on networks that are stacked (:func:`~jellyfit.control.stack`): learner ``k``
    does what a run seeded with ``seed_everything + k`` and environments of ``seed + k`` does alone. Networks then take
    ``[N, K, *]``; environment ``e`` is of learner ``e % K``; a subclass makes its networks with :meth:`each` and draws
    from :attr:`rngs`.

    Logged names, once an epoch: ``train/return`` and ``train/length`` (mean of the episodes that ended), ``val/return``
    and ``val/return_std`` (of the evaluation's episodes), ``firing_rate/LAYER`` (of the actor, in the evaluation),
    ``env_steps`` (of all processes), ``steps_per_second``, and what :meth:`count` was given. Of several learners
    ``val/return/0``, ``val/return/1``, ... are the means, ``val/return`` is their mean and ``val/return_std`` their
    standard deviation; steps are those of one.

    Args:
        actor: called with the sizes of observations and actions and the bounds of actions; default
            :class:`~jellyfit.control.SpikingActor`.
        normalise: observations become those of mean 0 and variance 1, as seen so far, clipped to 3; default ``True``.
        learners: how many are trained at once, default 1.

    Raises:
        ConfigError: the data are no environments, or ``learners`` is below 1.
        InputError: the actor cannot be stacked for several learners.
        ControlError: see :class:`~jellyfit.control.Rollout`.

    Examples:
        >>> import numpy as np
        >>> from jellyfit.control import MLPActor
        >>> from jellyfit.tasks import ControlTask
        >>> class Idle(ControlTask):
        ...     def explore(self, obs):
        ...         return np.zeros((len(obs), self.spaces.act_dim), np.float32)
        >>> Idle(MLPActor).monitor
        'val/return'
    """

    monitor = "val/return"
    mode = "max"
    weights_only_best = True

    actor: Actor
    norm: RunningNorm

    def __init__(self, actor: ActorFactory | None = None, normalise: bool = True, learners: int = 1) -> None:
        super().__init__()
        if learners < 1:
            raise ConfigError(f"model.init_args.learners={learners}: expected at least 1.")
        self.automatic_optimization = False
        self.make_actor: ActorFactory = SpikingActor if actor is None else actor
        self.normalise, self.learners = normalise, learners
        self.spaces: Spaces | None = None
        self.env_steps = 0
        self.rng = np.random.default_rng(0)
        self.streams: list[Stream] = []  # of several learners; one alone has rng, and torch's own numbers
        self._seen: list[Array] = []  # observations that the norm does not know yet
        self._returns: list[float] = []
        self._lengths: list[int] = []
        self._sums: dict[str, tuple[float, int]] = {}
        self._clock: tuple[float, int] | None = None  # when the epoch began, at which step; if all of it is measured
        self._act: Array | None = None  # chosen and not done yet
        self._taken = 0  # steps of the turn under way
        self._going = False
        self._to_restore: list[dict[str, Any]] | None = None
        self._keep_hyperparameters()

    # ------------------------------------------------------------ what subclasses write

    def build(self, spaces: Spaces) -> None:
        """Make the networks beside :attr:`actor`."""

    def explore(self, obs: Array) -> Array:
        """Actions ``[E, act_dim]`` to learn from, for observations ``[E, obs_dim]`` as the environments show them."""
        raise TypeError(f"{type(self).__name__} must define explore(self, obs)")

    def remember(self, step: Step) -> None:
        """Take in what happened."""

    def learn(self, steps: int) -> None:
        """Improve the networks after ``steps`` more steps of this process's environments."""

    def kept(self) -> dict[str, Any]:
        """What an exact resume needs beside weights, optimizers and environments, as plain data and tensors."""
        return {}

    def go_on(self, kept: dict[str, Any]) -> None:
        """Go on from :meth:`kept`."""

    def forget(self, which: Array) -> None:
        """The episodes under way were cut off where ``which`` ``[E]`` says so: what was done last leads nowhere."""

    # ------------------------------------------------------------ networks

    @property
    def environments(self) -> Environments:
        """The data."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, Environments):
            raise ConfigError(
                f"{type(self).__name__} learns from environments; data: is {type(data).__name__}. Name "
                "jellyfit.datamodules.Environments there."
            )
        return data

    def setup(self, stage: str) -> None:
        self._going = False
        data = self.environments
        data.learners = self.learners
        self._seed()
        if self.spaces is None:
            self._build(data.spaces)
        elif self.spaces != data.spaces:
            raise ConfigError(f"the networks are made for {self.spaces}, but {data.env_name} has {data.spaces}.")

    def _seed(self) -> None:
        seed = torch.initial_seed() % 2**63
        self.rng = np.random.default_rng([seed, self.global_rank])
        if self.learners > 1:
            self.streams = [Stream(seed + k, self.global_rank) for k in range(self.learners)]

    @property
    def rngs(self) -> list[np.random.Generator]:
        """Of every learner: the source of its random actions and batches."""
        return [stream.numpy for stream in self.streams] or [self.rng]

    def each(self, make: Callable[[], Net], *sizes: int) -> Net:
        """What ``make`` makes; for several learners one of each, from their own random numbers, stacked.

        Args:
            make: makes an ordinary network.
            sizes: features of its inputs, see :func:`~jellyfit.control.stack`.
        """
        if not self.streams:
            return make()
        nets = []
        for stream in self.streams:
            with stream.drawn():
                nets.append(make())
        return stack(nets, *sizes)

    def _build(self, spaces: Spaces) -> None:
        self.spaces = spaces
        self.actor = self.each(lambda: self.make_actor(*spaces), spaces.obs_dim)
        if not isinstance(self.actor, Actor):
            raise ConfigError(f"actor made {type(self.actor).__name__}; expected an actor such as SpikingActor.")
        self.norm = self.each(lambda: RunningNorm(spaces.obs_dim))
        self.build(spaces)

    @property
    def network(self) -> nn.Module | None:
        """The actor."""
        return self.actor if self.spaces is not None else None

    def forward(self, obs: Tensor) -> Tensor:
        """Observations ``[N, obs_dim]`` as environments show them -> actions ``[N, act_dim]``, without exploration."""
        return self.actor(self.normalised(obs))  # type: ignore[no-any-return]

    def normalised(self, obs: Tensor) -> Tensor:
        """Observations as networks take them."""
        return self.norm(obs) if self.normalise else obs

    @torch.no_grad()
    def policy(self, obs: Array) -> Array:
        """Actions ``[N, act_dim]`` without exploration for observations ``[N, obs_dim]``, of all learners in turn."""
        seen = torch.from_numpy(obs).to(self.device)
        acts: Array = self(seen.reshape(-1, *self.norm.mean.shape)).cpu().numpy()
        return acts.reshape(len(obs), -1)

    def policy_of(self, learner: int = 0) -> Policy:
        """An ordinary policy with the weights that a learner has now, and nothing in common with this task.

        Args:
            learner: 0 (default) to the number of learners - 1.

        Raises:
            InputError: there is no such learner.
        """
        assert self.spaces is not None
        with torch.random.fork_rng(devices=[]):
            policy = Policy(self.make_actor(*self.spaces), RunningNorm(self.spaces.obs_dim) if self.normalise else None)
        for name, net in policy.named_children():
            if self.streams:
                unstack(getattr(self, name), learner, net)
            else:
                net.load_state_dict(getattr(self, name).state_dict())
        return policy.to(self.device).eval()

    def policies(self) -> list[Policy]:
        """What is evaluated: the policy of every learner; that of one alone is made of this task's own networks."""
        if self.learners == 1:
            return [Policy(self.actor, self.norm if self.normalise else None)]
        return [self.policy_of(k) for k in range(self.learners)]

    def reduce_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Give every process the mean of all processes' gradients; nothing where there is one."""
        world = self.trainer.world_size
        if world > 1:
            grads = [p.grad for p in parameters if p.grad is not None]
            flat = torch.cat([grad.flatten() for grad in grads])
            torch.distributed.all_reduce(flat)
            flat /= world
            for grad, mean in zip(grads, torch.split(flat, [grad.numel() for grad in grads]), strict=True):
                grad.copy_(mean.view_as(grad))

    # ------------------------------------------------------------ training

    def on_train_epoch_start(self) -> None:
        self._clock = (time.perf_counter(), self.env_steps)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One turn: steps of the environments, then of the networks. One that a fault cut short is taken up again."""
        data, rollout = self.environments, self.environments.rollout
        with self._together():
            while self._taken < data.steps_per_turn // data.environments:
                self._act = self.explore(rollout.obs) if self._act is None else self._act
                step = rollout.step(self._act)
                self._act = None
                self.env_steps += data.environments * self.trainer.world_size
                self._seen.append(step.obs)
                self._returns += step.returns
                self._lengths += step.lengths
                self.remember(step)
                self._taken += 1
        self._taken = 0
        if self.normalise:
            seen = torch.from_numpy(np.concatenate(self._seen)).to(self.device)
            every: Any = self.all_gather(seen)
            self.norm.update(every.reshape(-1, *self.norm.mean.shape))
        self._seen.clear()
        self.learn(data.steps_per_turn)

    @contextmanager
    def _together(self) -> Iterator[None]:
        """What fails within in one process ends all of them, when each is through: none waits for one that is gone."""
        fault: Exception | None = None
        try:
            yield
        except Exception as error:
            fault = error
        if not self.trainer.strategy.reduce_boolean_decision(fault is not None, all=False):
            return
        told = None if fault is None else (isinstance(fault, ControlError), f"{type(fault).__name__}: {fault}")
        faults = {rank: other for rank, other in of_every_process(self, told).items() if other is not None}
        if fault is None:
            rank, (_, message) = next(iter(faults.items()))
            fault = ControlError(f"process {rank}: {message}")
        if isinstance(fault, ControlError):
            fault.resumable = self._going and all(of_environment for of_environment, _ in faults.values())
        raise fault

    def count(self, **values: float) -> None:
        """Values of which the mean over the epoch is logged as ``train/NAME``."""
        for name, value in values.items():
            total, number = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, number + 1)

    def on_train_epoch_end(self) -> None:
        means = {name: total / number for name, (total, number) in self._sums.items()}
        if self._returns:
            means |= {"return": float(np.mean(self._returns)), "length": float(np.mean(self._lengths))}
        for name, value in means.items():
            self._log(f"train/{name}", value)
        self._log("env_steps", float(self.env_steps), prog_bar=True)
        if self._clock is not None:
            begin, before = self._clock
            self._log("steps_per_second", (self.env_steps - before) / max(time.perf_counter() - begin, 1e-9))
        self._returns, self._lengths, self._sums = [], [], {}

    def _log(self, name: str, value: float, **options: Any) -> None:
        """Log the mean of what the processes have."""
        self.log(name, torch.tensor(value, dtype=torch.float64), sync_dist=True, batch_size=1, **options)

    # ------------------------------------------------------------ evaluation

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Play the evaluation's episodes; every process plays its share of them."""
        if self.trainer.sanity_checking:
            self.play(1)
            return
        policies = self.policies()
        with ExitStack() as watched:
            meters = [watched.enter_context(FiringRateMeter(policy.actor)) for policy in policies]
            played = self._play_shares(policies, meters)
        self._log_firing_rates(*meters)
        self._log_episodes("val", played)

    def _play_shares(
        self, policies: Sequence[Policy], meters: Sequence[FiringRateMeter | None] | None = None
    ) -> list[Episodes]:
        """The evaluation's episodes of each policy, of which every process plays some: what one process alone gets."""
        world = self.trainer.world_size
        share = np.arange(self.environments.episodes) % world == self.global_rank

        def played(policy: Policy, meter: FiringRateMeter | None) -> Episodes:
            playing = share.copy()  # of which the evaluation takes out what is over

            def act(obs: Array) -> Array:
                if meter is not None:
                    meter.valid = torch.from_numpy(playing)
                return policy.act(obs)

            return self.play(policy=act, playing=playing)

        with self._together():
            mine = [played(*both) for both in zip(policies, meters or [None] * len(policies), strict=True)]
        if world == 1:
            return mine
        parts = of_every_process(self, mine)
        found = []
        for k, own in enumerate(mine):
            shares = [parts[i % world][k] for i in range(len(own.returns))]
            found.append(Episodes(*([share[j][i] for i, share in enumerate(shares)] for j in range(2))))
        return found

    def play(
        self,
        episodes: int | None = None,
        frames: list[Array] | None = None,
        policy: Callable[[Array], Array] | None = None,
        playing: Array | None = None,
    ) -> Episodes:
        """Play the evaluation's episodes: the same ones every time, with the same draws of random encoders.

        On the process that calls it alone; see :func:`jellyfit.control.evaluate`.

        Args:
            episodes: how many; default: what the data say.
            frames: takes the pictures of the first.
            policy: default: that of the first learner.
            playing: which of them; default all.
        """
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.environments.seed)
            return self.environments.evaluate(policy or self.policies()[0].act, episodes, frames, playing)

    def _log_episodes(self, stage: str, played: Sequence[Episodes]) -> None:
        means = [float(np.mean(each.returns)) for each in played]
        values = {
            "return": float(np.mean(means)),
            "return_std": float(np.std(means if len(means) > 1 else played[0].returns)),
            "length": float(np.mean([each.lengths for each in played])),
        }
        if len(means) > 1:
            values |= {f"return/{learner}": value for learner, value in enumerate(means)}
        for name, value in values.items():
            self._log_same(f"{stage}/{name}", torch.tensor(value, dtype=torch.float64), prog_bar=name == "return")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Play the evaluation's episodes, write their returns and show the first of them."""
        policies = self.policies()
        played = self._play_shares(policies)
        self._log_episodes("test", played)
        folder: Path | None = getattr(self.trainer, "run_folder", None)
        if folder is None or not self.trainer.is_global_zero:
            return
        rows = [
            {"learner": k, "episode": i, "return": str(total), "length": length}
            for k, each in enumerate(played)
            for i, (total, length) in enumerate(zip(each.returns, each.lengths, strict=True))
        ]
        columns = list(rows[0])[self.learners == 1 :]  # one alone has no number
        save_table(self.trainer, "test_returns", columns, rows)  # as text: all digits
        self._draw_curve(folder)
        self._film(folder, policies[_best(played)])

    def _draw_curve(self, folder: Path) -> None:
        """The returns of the run, or the mean over learners and runs that differ in seeds alone and came as far."""
        columns = [f"val/return/{k}" for k in range(self.learners)] if self.learners > 1 else ["val/return"]
        curves = []
        for run in repeats(folder):
            rows = [row for row in read_metrics(run / "metrics.csv") if {"env_steps", *columns} <= row.keys()]
            for column in columns if rows else ():
                points = {row["env_steps"]: row[column] for row in rows}  # of two at one step the last
                curves.append((run, sorted(points), [points[steps] for steps in sorted(points)]))
        if not curves or curves[0][0] != folder:
            return
        runs = [(steps, returns) for _, steps, returns in curves if steps[-1] >= curves[0][1][-1]]
        figure = pictures.mean_curves({type(self.actor).__name__: runs}, title=self.environments.env_name)
        path = pictures.save(figure, folder / PICTURES / "learning_curve.png")
        print(f"Learning curve: {path}" + (f" (mean of {len(runs)} seeds)" if len(runs) > 1 else ""))

    def _film(self, folder: Path, policy: Policy) -> None:
        frames: list[Array] = []
        try:
            self.play(1, frames, policy.act)
        except (JellyfitError, ImportError, OSError) as error:
            print(f"No film of an episode: {str(error).splitlines()[0]}")
            return
        if frames:
            target = folder / PICTURES / "test_episode.gif"
            pictures.save_film(frames, target)
            print(f"Film of an episode: {target}")

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Play one episode: ``obs [T, obs_dim]`` and ``act [T, act_dim]``; ``actions.npz`` in the run folder.

        Of several learners it is the one whose episodes have the largest mean return.
        """
        policies = self.policies()
        best = policies[_best(self._play_shares(policies)) if len(policies) > 1 else 0]
        seen: list[Array] = []
        done: list[Array] = []

        def noted(obs: Array) -> Array:
            acts = best.act(obs)
            seen.append(obs[0])
            done.append(acts[0])
            return acts

        self.play(1, policy=noted)
        played = {"obs": np.stack(seen), "act": np.stack(done)}
        folder: Path | None = getattr(self.trainer, "run_folder", None)
        if folder is not None and self.trainer.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
            np.savez(folder / "actions.npz", obs=played["obs"], act=played["act"])
            print(f"Actions: {folder / 'actions.npz'}")
        return {name: torch.from_numpy(values) for name, values in played.items()}

    # ------------------------------------------------------------ exact resume

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["jellyfit_spaces"] = self.spaces._asdict() if self.spaces else None
        checkpoint["jellyfit_learners"] = self.learners
        weights_only = "optimizer_states" not in checkpoint
        rollout = None if weights_only else self.environments.rollout_state()
        if rollout is None:
            return
        mine = {
            "env_steps": self.env_steps,
            "rng": get_rng_state(),
            "own_rng": self.rng.bit_generator.state,
            "streams": [stream.state_dict() for stream in self.streams],
            "returns": [self._returns, self._lengths],
            "sums": {name: list(value) for name, value in self._sums.items()},
            "rollout": rollout,
            "turn": {
                "taken": self._taken,
                "seen": [torch.from_numpy(obs) for obs in self._seen],
                "act": None if self._act is None else torch.from_numpy(self._act),
            },
            "kept": self.kept(),
        }
        checkpoint["jellyfit_control"] = list(of_every_process(self, mine).values())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        learners = checkpoint.get("jellyfit_learners", 1)
        if learners != self.learners:
            raise ConfigError(
                f"the checkpoint is of {learners} learners, this task of {self.learners}. Set model.init_args.learners="
                f"{learners}; a task that was loaded gives one of them as an ordinary policy: policy_of(learner)."
            )
        if self.spaces is None and checkpoint.get("jellyfit_spaces"):
            self._seed()
            self._build(Spaces(**checkpoint["jellyfit_spaces"]))
        self._to_restore = checkpoint.get("jellyfit_control")
        if "optimizer_states" not in checkpoint:  # made for acting: training begins anew, from its networks
            checkpoint.update(optimizer_states=[], lr_schedulers=[], loops=None)

    def on_train_start(self) -> None:
        with self._together():
            self._begin()
        self._clock = None
        self._going = True

    def _begin(self) -> None:
        everyone, self._to_restore = self._to_restore, None
        for stream in self.streams:
            stream.branch(self.global_rank)
        rollout = self.environments.rollout
        if not everyone:
            self._say_if_resumed()
            if self.global_rank:  # all were seeded alike: every process shall draw noise of its own
                set_rng_state(get_rng_state(), self.global_rank)
            return
        if len(everyone) != self.trainer.world_size:
            raise ConfigError(
                f"the checkpoint is of {len(everyone)} processes with environments of their own; go on with as many, "
                f"not {self.trainer.world_size}."
            )
        mine = everyone[self.global_rank]
        self.env_steps = mine["env_steps"]
        self._returns, self._lengths = (list(values) for values in mine["returns"])
        self._sums = {name: (total, number) for name, (total, number) in mine["sums"].items()}
        self._taken, self._seen = mine["turn"]["taken"], [obs.numpy() for obs in mine["turn"]["seen"]]
        self._act = None if mine["turn"]["act"] is None else mine["turn"]["act"].numpy()
        elsewhere = rollout.load_state_dict(mine["rollout"])
        self.go_on(mine["kept"])
        if elsewhere:
            self._act = None  # it was for what was seen there
            self.forget(np.isin(np.arange(rollout.environments), elsewhere))
            print(
                f"Note: {self.environments.env_name} is not deterministic: the episodes under way begin anew in "
                f"{len(elsewhere)} of {self.environments.environments} environments."
            )
        self.rng.bit_generator.state = mine["own_rng"]
        for stream, state in zip(self.streams, mine.get("streams", []), strict=True):
            stream.load_state_dict(state)
        set_rng_state(mine["rng"])  # last: making environments may draw

    def _say_if_resumed(self) -> None:
        if self.trainer.ckpt_path is not None and self.trainer.is_global_zero:
            print(
                f"Note: {self.trainer.ckpt_path} holds networks alone: training begins anew with them, without the "
                "experience and the optimizers of that run (those are in last.ckpt)."
            )


def _best(played: Sequence[Episodes]) -> int:
    """The learner with the largest mean return."""
    return int(np.argmax([np.mean(each.returns) for each in played]))
