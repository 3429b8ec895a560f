"""Environments to control, in the place where other tasks have their data."""

from __future__ import annotations

import pydoc
from collections.abc import Callable
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from jellyfit.control import Rollout, Spaces
from jellyfit.control.rendering import choose_renderer
from jellyfit.control.rollout import Episodes, evaluate, gymnasium, spaces_of
from jellyfit.errors import ConfigError
from jellyfit.rng import seed_of

__all__ = ["Environments"]


class _Turns(DataLoader[int]):
    """The turns of an epoch. They carry nothing: one that was interrupted goes on by their number alone."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


class Environments(pl.LightningDataModule):
    """One environment or several side by side, for training; and others of the kind for evaluations.

    An epoch is ``steps_per_epoch`` steps of the environments (of all together), taken in turns of ``steps_per_turn``
    with as many updates of the networks after each. A run goes on exactly where it was interrupted, where the
    environment is deterministic: the episode under way is played again (see :class:`~jellyfit.control.Rollout`).

    Under DDP every process has environments and seeds of its own, and takes its share of an epoch's turns.

    A task with several learners has so many environments and steps for each of them; they all step together.

    Attributes:
        learners: whose environments they are, default 1; the task says so.

    Args:
        env: name that gymnasium knows, such as ``Pendulum-v1`` or ``package.module:MyEnv-v0``; or a function that makes
            an environment, which YAML names by its path.
        env_kwargs: arguments of the environment.
        environments: how many run side by side (for each learner), default 1.
        vectorization: ``"sync"`` (default): one after the other; ``"async"``: a process for each.
        steps_per_epoch: default 1,000; an evaluation follows each epoch.
        steps_per_turn: default 50.
        episodes: of an evaluation, default 10.
        seed: of the episodes, default 0; learner ``k`` has ``seed + k``. Evaluations have seeds of their own, the same
            every time and for every learner.

    Raises:
        ConfigError: an environment that is not known or cannot be used; numbers that do not go into each other.

    Examples:
        >>> from jellyfit.datamodules import Environments
        >>> data = Environments("Pendulum-v1", steps_per_epoch=500)
        >>> data.spaces.act_dim, len(data.train_dataloader())
        (1, 10)
    """

    def __init__(
        self,
        env: str | Callable[..., Any],
        env_kwargs: dict[str, Any] | None = None,
        environments: int = 1,
        vectorization: Literal["sync", "async"] = "sync",
        steps_per_epoch: int = 1_000,
        steps_per_turn: int = 50,
        episodes: int = 10,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if environments < 1 or episodes < 1:
            raise ConfigError(f"environments={environments}, episodes={episodes}: expected at least 1 of each.")
        if steps_per_turn < environments or steps_per_turn % environments:
            raise ConfigError(
                f"steps_per_turn={steps_per_turn}: expected a multiple of the number of environments ({environments}), "
                "which step together."
            )
        if steps_per_epoch < steps_per_turn or steps_per_epoch % steps_per_turn:
            raise ConfigError(
                f"steps_per_epoch={steps_per_epoch}: expected a multiple of steps_per_turn ({steps_per_turn})."
            )
        self.env, self.env_kwargs = env, dict(env_kwargs or {})
        self.environments, self.vectorization = environments, vectorization
        self.steps_per_epoch, self.steps_per_turn = steps_per_epoch, steps_per_turn
        self.episodes, self.seed, self.learners = episodes, seed, 1
        self._rollout: Rollout | None = None
        self._spaces: Spaces | None = None
        self._saved: dict[str, Any] | None = None

    @property
    def env_name(self) -> str:
        """The environment's."""
        return self.env if isinstance(self.env, str) else getattr(self.env, "__name__", repr(self.env))

    def make(self, **options: Any) -> Any:
        """One environment; ``options`` such as ``render_mode`` are added to ``env_kwargs``."""
        gym = gymnasium()
        arguments = {**self.env_kwargs, **options}
        env: Any = self.env
        if isinstance(env, str) and "." in env and ":" not in env and env not in gym.registry:
            env = pydoc.locate(env) or env
        try:
            return env(**arguments) if callable(env) else gym.make(env, **arguments)
        except gym.error.Error as error:
            raise ConfigError(
                f"data.init_args.env={self.env_name}: {error} (MuJoCo's need pip install 'jellyfit[rl]'; yours is "
                "named package.module:NAME, or package.module.function)"
            ) from error
        except TypeError as error:
            raise ConfigError(f"data.init_args.env_kwargs={arguments}: {error}") from error

    @property
    def spaces(self) -> Spaces:
        """What the environment shows and takes."""
        if self._spaces is None:
            env = self.make()
            self._spaces = spaces_of(env)
            env.close()
        return self._spaces

    @property
    def rollout(self) -> Rollout:
        """The environments of training, made when they are first asked for."""
        if self._rollout is None:
            rank = self.trainer.global_rank if self.trainer else 0
            seed = self.seed if rank == 0 else seed_of(self.seed, rank)
            number = self.environments * self.learners
            self._rollout = Rollout(self.make, number, self.vectorization, seed, self.learners)
        return self._rollout

    def evaluate(
        self,
        policy: Callable[[Any], Any],
        episodes: int | None = None,
        frames: list[Any] | None = None,
        playing: Any | None = None,
    ) -> Episodes:
        """Play whole episodes of the evaluation, see :func:`jellyfit.control.evaluate`."""
        options = {}
        if frames is not None:
            options["render_mode"] = "rgb_array"
            _ = self.spaces  # makes an environment, after which it is known whether MuJoCo draws it
            choose_renderer()
        return evaluate(policy, lambda: self.make(**options), episodes or self.episodes, self.seed, frames, playing)

    def setup(self, stage: str) -> None:
        """See that the environment can be used."""
        _ = self.spaces

    def train_dataloader(self) -> _Turns:
        """The turns of an epoch."""
        return self._loader(self.steps_per_epoch // self.steps_per_turn)

    @staticmethod
    def _loader(turns: int) -> _Turns:
        # with a generator of its own: making an iterator draws a number, and a resumed run makes others
        return _Turns(range(turns), batch_size=None, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]

    def val_dataloader(self) -> _Turns:
        """One evaluation."""
        return self._loader(1)

    def test_dataloader(self) -> _Turns:
        """One evaluation."""
        return self.val_dataloader()

    def predict_dataloader(self) -> _Turns:
        """One evaluation."""
        return self.val_dataloader()

    def teardown(self, stage: str) -> None:
        """Close the environments."""
        if self._rollout is not None:
            self._saved = self._rollout.state_dict()
            self._rollout.close()
            self._rollout = None

    def on_exception(self, exception: BaseException) -> None:
        """Close the environments; Lightning does not take down what failed."""
        self.teardown("fit")

    def rollout_state(self) -> dict[str, Any] | None:
        """What a rollout needs to go on, of the present one or of that which was closed last; None before the first."""
        return self._saved if self._rollout is None else self._rollout.state_dict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "trainer": None, "_rollout": None}
