"""Environments that run side by side, and go on after an interruption where they were."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from jellyfit.errors import ConfigError, ControlError, InputError
from jellyfit.functional.encoding import check_steps
from jellyfit.rng import seed_of

if TYPE_CHECKING:
    import gymnasium as gym

__all__ = ["Episodes", "Rollout", "Spaces", "Step", "evaluate", "gymnasium", "spaces_of"]

Array = npt.NDArray[Any]
MakeEnv = Callable[[], "gym.Env[Any, Any]"]


def gymnasium() -> Any:
    """The package ``gymnasium``.

    Raises:
        ConfigError: it is not installed; says how to install it.
    """
    try:
        import gymnasium
    except ImportError as error:
        raise ConfigError(
            "environments need the package gymnasium, which is not installed: pip install 'jellyfit[rl]'"
        ) from error
    return gymnasium


@contextmanager
def _hushed() -> Iterator[None]:
    """Without what gymnasium says by itself of the faults of an environment, which are raised."""
    logger = gymnasium().logger
    before, logger.min_level = logger.min_level, 2 * logger.ERROR
    try:
        yield
    finally:
        logger.min_level = before


class Spaces(NamedTuple):
    """What an environment shows and takes.

    Attributes:
        obs_dim: values of an observation.
        act_dim: values of an action.
        low: least action ``[act_dim]``.
        high: largest action ``[act_dim]``.

    Examples:
        >>> from jellyfit.control import Spaces
        >>> Spaces(3, 1, [-2.0], [2.0]).act_dim
        1
    """

    obs_dim: int
    act_dim: int
    low: list[float]
    high: list[float]


def _name(env: gym.Env[Any, Any]) -> str:
    return getattr(env.spec, "id", None) or type(env.unwrapped).__name__


def spaces_of(env: gym.Env[Any, Any]) -> Spaces:
    """The sizes of ``env``.

    Raises:
        ConfigError: observations are no vector of numbers, or actions no vector of numbers between finite bounds.

    Examples:
        >>> import gymnasium
        >>> from jellyfit.control import spaces_of
        >>> spaces_of(gymnasium.make("Pendulum-v1"))
        Spaces(obs_dim=3, act_dim=1, low=[-2.0], high=[2.0])
    """
    Box = gymnasium().spaces.Box
    obs, act = env.observation_space, env.action_space
    name = _name(env)
    if not isinstance(obs, Box) or len(obs.shape) != 1:
        raise ConfigError(
            f"{name}: its observations are {obs}; expected a vector of numbers (Box of one dimension). "
            "gymnasium.wrappers.FlattenObservation makes one of most others."
        )
    if not isinstance(act, Box) or len(act.shape) != 1:
        raise ConfigError(f"{name}: its actions are {act}; expected a vector of numbers (Box of one dimension).")
    if not (np.isfinite(act.low).all() and np.isfinite(act.high).all() and (act.low < act.high).all()):
        raise ConfigError(f"{name}: its actions lie between {act.low} and {act.high}; expected finite bounds.")
    return Spaces(obs.shape[0], act.shape[0], act.low.tolist(), act.high.tolist())


class Step(NamedTuple):
    """One step of E environments.

    Attributes:
        obs: what was seen ``[E, obs_dim]``, float32.
        act: what was done ``[E, act_dim]``.
        reward: ``[E]``.
        next_obs: what was seen then, in the last step of an episode too ``[E, obs_dim]``.
        terminated: the episode came to its end ``[E]``.
        truncated: its time was up ``[E]``.
        returns: sum of the rewards of each episode that is over.
        lengths: their steps.

    Examples:
        >>> from jellyfit.control import Step
        >>> Step._fields[:3]
        ('obs', 'act', 'reward')
    """

    obs: Array
    act: Array
    reward: Array
    next_obs: Array
    terminated: Array
    truncated: Array
    returns: list[float]
    lengths: list[int]


class Rollout:
    """E environments that are stepped together; where an episode is over the next one begins.

    Every episode has a seed of its own, made from ``seed``, the environment's number and the episode's. A rollout that
    is saved keeps, of the episodes under way, the seeds and actions so far: one that goes on replays them.

    With several learners the environments are theirs in turn: environment ``e`` is number ``e // learners`` of learner
    ``e % learners``, whose seed is ``seed + e % learners``.

    Args:
        make: makes one environment.
        environments: how many, default 1.
        vectorization: ``"sync"`` (default): one after the other; ``"async"``: a process for each.
        seed: default 0.
        learners: whose environments they are, default 1.

    Raises:
        ConfigError: spaces that cannot be used, see :func:`spaces_of`.
        ControlError: in a step: an exception in the environment, a process that was killed, NaN, another shape;
            says where and why.
        InputError: in a step: actions of another shape, or that are not finite.

    Examples:
        >>> import gymnasium
        >>> import numpy as np
        >>> from jellyfit.control import Rollout
        >>> rollout = Rollout(lambda: gymnasium.make("Pendulum-v1"), environments=2)
        >>> step = rollout.step(np.zeros((2, 1), np.float32))
        >>> step.next_obs.shape, step.reward.shape, step.returns
        ((2, 3), (2,), [])
        >>> rollout.close()
    """

    def __init__(
        self,
        make: MakeEnv,
        environments: int = 1,
        vectorization: Literal["sync", "async"] = "sync",
        seed: int = 0,
        learners: int = 1,
    ) -> None:
        gym = gymnasium()
        check_steps("Rollout: environments", environments)
        if vectorization not in ("sync", "async"):
            raise ConfigError(f"vectorization={vectorization!r}: expected 'sync' or 'async'.")
        probe = make()
        self.spaces = spaces_of(probe)
        self.name = _name(probe)
        probe.close()
        self.environments, self.seed, self.learners = environments, seed, learners
        kind = gym.vector.SyncVectorEnv if vectorization == "sync" else gym.vector.AsyncVectorEnv
        self._apart = vectorization == "async"
        self._envs = kind([make] * environments, autoreset_mode=gym.vector.AutoresetMode.DISABLED)
        self._episodes = np.zeros(environments, np.int64)
        self._returns = np.zeros(environments)
        self._actions: list[list[Array]] = [[] for _ in range(environments)]
        self._failed = False
        self.steps = 0  # of all environments together
        self.obs = self._begin(np.ones(environments, np.bool_), self._episodes)

    def _begin(self, which: Array, episodes: Array) -> Array:
        """Begin the episodes ``[E]`` (their numbers) where ``which`` says so, and give what is seen everywhere."""
        when = "at the start of an episode"
        seeds = []
        for e, episode in enumerate(episodes.tolist()):
            number, learner = divmod(e, self.learners)
            seeds.append(seed_of(self.seed + learner, number, episode))
        try:
            with _hushed():
                obs, _ = self._envs.reset(seed=seeds, options={"reset_mask": which})
        except Exception as error:
            raise self._fault(when, error) from error
        return self._checked(np.asarray(obs), when)

    def _do(self, act: Array, when: str) -> tuple[Array, Array, Array, Array]:
        """What is seen after ``act``, the reward, and where an episode came to its end or its time was up."""
        try:
            with _hushed():
                seen, rewards, ends, cuts, _ = self._envs.step(act)
        except Exception as error:
            raise self._fault(when, error) from error
        reward = np.asarray(rewards, np.float64)
        obs = self._checked(np.asarray(seen), when, reward)
        return obs, reward, np.array(ends, np.bool_), np.array(cuts, np.bool_)

    def _fault(self, when: str, error: Exception) -> ControlError:
        self._failed = True
        cause = f"{type(error).__name__}: {error}"
        if self._apart and isinstance(error, (EOFError, OSError)):  # of a pipe whose other end is gone
            processes = self._envs.processes
            gone = connection.wait([process.sentinel for process in processes], timeout=1.0)
            for e, process in enumerate(processes):
                if process.sentinel in gone:
                    process.join()
                    cause = f"the process of environment {e} ended {_ending(process.exitcode)}"
        return ControlError(f"{self.name} failed {when}, after {self.steps} steps: {cause}.")

    def _checked(self, obs: Array, when: str, reward: Array | None = None) -> Array:
        expected = (self.environments, self.spaces.obs_dim)
        if obs.shape != expected:
            raise ControlError(
                f"{self.name} gave observations of the shape {list(obs.shape)} {when}, after {self.steps} steps; "
                f"expected {list(expected)}."
            )
        for what, values in (("observation", obs), ("reward", reward)):
            if values is not None and not np.isfinite(values).all():
                e, *place = np.argwhere(~np.isfinite(values))[0].tolist()
                where = f" (value {place[0]})" if place else ""
                raise ControlError(
                    f"{self.name}, environment {e}, gave {what}s that are {values[(e, *place)]}{where} {when}, after "
                    f"{self.steps} steps. Look into the environment, or bound its actions."
                )
        return obs.astype(np.float32)

    def step(self, act: Array) -> Step:
        """Do ``act`` ``[E, act_dim]`` everywhere.

        A step that fails, or the beginning of an episode behind it, has not been: what was before is what is saved.
        """
        act = np.ascontiguousarray(act, np.float32)
        _check_actions(self.name, act, (self.environments, self.spaces.act_dim))
        next_obs, reward, terminated, truncated = self._do(act, "in a step")
        over = terminated | truncated
        episodes, obs = self._episodes + over, next_obs
        if over.any():
            obs = np.where(over[:, None], self._begin(over, episodes), next_obs)
        before, self.obs, self._episodes = self.obs, obs, episodes
        self.steps += self.environments
        self._returns += reward
        for e in range(self.environments):
            self._actions[e].append(act[e].copy())
        returns, lengths = [], []
        for e in np.flatnonzero(over).tolist():
            returns.append(float(self._returns[e]))
            lengths.append(len(self._actions[e]))
            self._returns[e], self._actions[e] = 0.0, []
        return Step(before, act, reward, next_obs, terminated, truncated, returns, lengths)

    def close(self) -> None:
        """End the environments and their processes."""
        ended_by_force = self._failed and self._apart
        if ended_by_force:  # else gymnasium would wait for the answers of processes that are gone
            self._envs._state = gymnasium().vector.async_vector_env.AsyncState.DEFAULT
        with _hushed():
            self._envs.close(**({"terminate": True} if ended_by_force else {}))

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on exactly."""
        return {
            "episodes": self._episodes.tolist(),
            "returns": self._returns.tolist(),
            "actions": [[act.tolist() for act in acts] for acts in self._actions],
            "obs": self.obs.tolist(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> list[int]:
        """Go on from :meth:`state_dict`: begin the episodes under way again and do what was done.

        Returns:
            The environments that came out elsewhere, because they are not deterministic. Their episodes begin anew.

        Raises:
            ConfigError: it was saved by another number of environments.
        """
        if len(state["episodes"]) != self.environments:
            raise ConfigError(
                f"what was saved is of {len(state['episodes'])} environments, but there are {self.environments}. Go on "
                f"with as many."
            )
        episodes = np.array(state["episodes"], np.int64)
        actions = [[np.array(act, np.float32) for act in acts] for acts in state["actions"]]
        returns = np.array(state["returns"])
        obs, expected = self._replay(episodes, actions), np.array(state["obs"], np.float32)
        elsewhere = np.array([not np.array_equal(obs[e], expected[e]) for e in range(self.environments)])
        if elsewhere.any():
            episodes, returns = episodes + elsewhere, np.where(elsewhere, 0.0, returns)
            actions = [[] if elsewhere[e] else acts for e, acts in enumerate(actions)]
            obs = np.where(elsewhere[:, None], self._begin(elsewhere, episodes), obs)
        self.obs, self._episodes, self._actions, self._returns = obs, episodes, actions, returns
        self.steps = int(state["steps"])
        return [int(e) for e in np.flatnonzero(elsewhere)]

    def _replay(self, episodes: Array, saved: Sequence[Sequence[Array]]) -> Array:
        """Begin every episode again and do in it what was done.

        They end together: the shorter an episode, the later it begins. Until then its environment does anything.
        """
        when = "while its last episode was done again"
        obs = self._begin(np.ones(self.environments, np.bool_), episodes)
        begins = max(map(len, saved)) - np.array([len(acts) for acts in saved])
        anything = (np.array(self.spaces.low, np.float32) + np.array(self.spaces.high, np.float32)) / 2
        for t in range(int(begins.max() + len(saved[int(begins.argmax())]))):
            if t and (begins == t).any():
                self._begin(begins == t, episodes)
            acts = [saved[e][t - begins[e]] if t >= begins[e] else anything for e in range(self.environments)]
            obs, _, ends, cuts = self._do(np.stack(acts), when)
            over = (ends | cuts) & (t < begins)
            if over.any():
                self._begin(over, episodes)
        late = np.array([not acts for acts in saved])
        if late.any() and not late.all():
            obs = np.where(late[:, None], self._begin(late, episodes), obs)
        return obs


def _ending(status: int) -> str:
    return f"with status {status}" if status >= 0 else f"by signal {-status} ({signal.strsignal(-status)})"


def _check_actions(name: str, act: Array, expected: tuple[int, int]) -> None:
    if act.shape != expected:
        raise InputError(f"{name} was given actions of the shape {list(act.shape)}; expected {list(expected)}.")
    if not np.isfinite(act).all():
        raise InputError(
            f"{name} was given actions that are NaN or infinite: the networks have diverged. Go back to an earlier "
            "checkpoint, with smaller learning rates."
        )


class Episodes(NamedTuple):
    """What came of some episodes: the sum of the rewards, and the number of steps of each.

    Examples:
        >>> from jellyfit.control import Episodes
        >>> Episodes([-200.0], [200]).returns
        [-200.0]
    """

    returns: list[float]
    lengths: list[int]


def evaluate(
    policy: Callable[[Array], Array],
    make: MakeEnv,
    episodes: int = 10,
    seed: int = 0,
    frames: list[Array] | None = None,
    playing: Array | None = None,
) -> Episodes:
    """Play whole episodes, which begin from seeds of their own: the same ones every time.

    The policy is asked for all of them at once in every step, whether they are played here and still going or not: what
    it computes or draws for one does not depend on how long the others last, nor on where they are played.

    Args:
        policy: observations ``[N, obs_dim]`` (float32) -> actions ``[N, act_dim]``, N being ``episodes``; 0 where
            nothing was seen.
        make: makes one environment.
        episodes: how many, default 10, all at once.
        seed: default 0.
        frames: a list to which the pictures of the first episode are added, if the environment renders any.
        playing: which of them are played ``[N]``, bool; default all. An episode that is over is set to ``False``, so
            a policy can look at which of its rows count.

    Returns:
        Returns and lengths of all; 0 where an episode was not played.

    Raises:
        ControlError: an environment fails or shows values that are not finite.
        InputError: actions of another shape, or that are not finite.

    Examples:
        >>> import gymnasium
        >>> import numpy as np
        >>> from jellyfit.control import evaluate
        >>> still = lambda obs: np.zeros((len(obs), 1), np.float32)
        >>> evaluate(still, lambda: gymnasium.make("Pendulum-v1"), episodes=2).lengths
        [200, 200]
    """
    check_steps("evaluate: episodes", episodes)
    playing = np.ones(episodes, np.bool_) if playing is None else playing
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    envs = {i: make() for i in np.flatnonzero(playing).tolist()}
    try:
        spaces = [spaces_of(env) for env in envs.values()]
        seen = np.zeros((episodes, spaces[0].obs_dim if spaces else 0), np.float32)
        for i, env in envs.items():
            with _told(env, f"at the start of evaluation episode {i}"):
                obs, _ = env.reset(seed=seed_of(seed, 2**31, i))
                seen[i] = _looked_at(obs, seen[i])
        while playing.any():
            if frames is not None and playing[0]:
                with _told(envs[0], "when it was to be rendered"):
                    picture = envs[0].render()
                if isinstance(picture, np.ndarray):
                    frames.append(picture)
            acts = policy(seen.copy())
            for i in np.flatnonzero(playing).tolist():
                env = envs[i]
                _check_actions(_name(env), acts[i : i + 1], (1, spaces[0].act_dim))
                lengths[i] += 1
                with _told(env, f"in step {lengths[i]} of evaluation episode {i}"):
                    obs, reward, terminated, truncated, _ = env.step(acts[i])
                    seen[i] = _looked_at(obs, seen[i], float(reward))
                returns[i] += float(reward)
                playing[i] = not (terminated or truncated)
    finally:
        for env in envs.values():
            env.close()
    return Episodes(returns.tolist(), lengths.tolist())


@contextmanager
def _told(env: gym.Env[Any, Any], when: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise ControlError(f"{_name(env)} failed {when}: {type(error).__name__}: {error}") from error


def _looked_at(obs: Array, before: Array, reward: float = 0.0) -> Array:
    if np.shape(obs) != before.shape:
        raise ValueError(f"it gave an observation of the shape {list(np.shape(obs))}; expected {list(before.shape)}")
    if not (np.isfinite(obs).all() and np.isfinite(reward)):
        raise ValueError("it gave NaN or infinity")
    return obs
