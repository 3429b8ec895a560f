"""Environments side by side: what is shown, when episodes end, going on where a run was interrupted, faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jellyfit.control import Rollout, evaluate, spaces_of
from jellyfit.errors import ConfigError, ControlError, InputError

gym = pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install 'jellyfit[rl]'")


class Line(gym.Env):  # type: ignore[misc, name-defined]
    """A point that is moved along a line: it ends beyond 2, and after ``limit`` steps its time is up.

    Args:
        fault: what goes wrong in step ``at`` of an episode: ``"nan"``, ``"reward"``, ``"shape"``, ``"raise"``.
        noisy: draws from a generator that no seed reaches.
    """

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, limit: int = 7, fault: str | None = None, at: int = 3, noisy: bool = False) -> None:
        self.limit, self.fault, self.at, self.noisy = limit, fault, at, noisy

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.t = float(self.np_random.uniform(-1, 1)), 0
        return self._seen(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        self.x += float(action[0]) + 0.1 * float(self.np_random.normal())
        if self.noisy:
            self.x -= 1 + float(np.random.default_rng().random())  # away from the end, which would begin an episode
        reward, seen = -abs(self.x), self._seen()
        if self.t == self.at:
            if self.fault == "nan":
                seen[1] = np.nan
            elif self.fault == "reward":
                reward = np.inf
            elif self.fault == "raise":
                raise ValueError("the motor is stuck")
        return seen, reward, self.x > 2, self.t >= self.limit, {}

    def _seen(self) -> np.ndarray:
        return np.array([self.x, self.t])


def acts(rollout: Rollout, step: int) -> np.ndarray:
    return np.random.default_rng(step).uniform(-0.5, 1, (rollout.environments, 1)).astype(np.float32)


def play(rollout: Rollout, first: int, steps: int) -> list[tuple[Any, ...]]:
    return [
        (s.obs.tolist(), s.reward.tolist(), s.next_obs.tolist(), s.terminated.tolist(), s.truncated.tolist(), s.returns)
        for s in (rollout.step(acts(rollout, first + i)) for i in range(steps))
    ]


@pytest.mark.parametrize("environments", [1, 3])
def test_what_is_seen_follows_what_was_seen_but_where_an_episode_ends(environments: int) -> None:
    rollout = Rollout(Line, environments)
    ends, before = 0, rollout.obs
    sums, lengths = np.zeros(environments), np.zeros(environments, int)
    for i in range(60):
        step = rollout.step(acts(rollout, i))
        np.testing.assert_array_equal(step.obs, before)
        over = step.terminated | step.truncated
        np.testing.assert_array_equal(step.terminated, step.next_obs[:, 0] > 2, "the last observation is given too")
        np.testing.assert_array_equal(step.truncated, step.next_obs[:, 1] >= 7)
        np.testing.assert_array_equal(rollout.obs[:, 1] == 0, over)
        sums, lengths = sums + step.reward, lengths + 1
        assert step.returns == pytest.approx(sums[over].tolist())
        assert step.lengths == lengths[over].tolist()
        sums[over], lengths[over] = 0, 0
        ends += int(over.sum())
        before = rollout.obs
    assert ends >= 6 * environments
    assert rollout.steps == 60 * environments


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("at", [0, 5, 7, 8, 23])
def test_a_rollout_that_was_saved_goes_on_to_the_bit(vectorization: Any, at: int) -> None:
    whole = Rollout(Line, 3, seed=4)
    play(whole, 0, at)
    saved = whole.state_dict()
    expected = play(whole, at, 20)
    again = Rollout(Line, 3, vectorization, seed=4)
    play(again, 100, 11)  # wherever it is
    assert again.load_state_dict(saved) == []
    assert again.steps == 3 * at
    assert play(again, at, 20) == expected
    again.close()


def test_seeds_make_other_episodes() -> None:
    first, same, other = (Rollout(Line, 2, seed=seed) for seed in (0, 0, 1))
    assert play(first, 0, 10) == play(same, 0, 10)
    assert not np.array_equal(first.obs, other.obs)
    assert len(np.unique(first.obs[:, 0])) == 2, "environments differ"


def test_an_environment_that_is_not_deterministic_begins_a_new_episode() -> None:
    rollout = Rollout(lambda: Line(noisy=True), 2)
    play(rollout, 0, 3)
    again = Rollout(lambda: Line(noisy=True), 2)
    assert again.load_state_dict(rollout.state_dict()) == [0, 1]
    assert again.obs[:, 1].tolist() == [0, 0]
    play(again, 0, 20)


def test_another_number_of_environments_cannot_go_on() -> None:
    with pytest.raises(ConfigError, match="is of 2 environments, but there are 3"):
        Rollout(Line, 3).load_state_dict(Rollout(Line, 2).state_dict())


def test_a_step_behind_which_no_episode_can_begin_has_not_been() -> None:
    class Once(Line):
        begun = 0

        def reset(self, **options: Any) -> Any:
            Once.begun += 1
            if Once.begun == 4:
                raise ValueError("the motor is stuck")
            return super().reset(**options)

    rollout, whole = Rollout(lambda: Once(limit=4), 2), Rollout(lambda: Line(limit=4), 2)
    play(rollout, 0, 3)
    before = rollout.state_dict()
    with pytest.raises(ControlError, match="failed at the start of an episode, after 6 steps"):
        play(rollout, 3, 1)
    assert rollout.state_dict() == before
    again = Rollout(lambda: Line(limit=4), 2)
    again.load_state_dict(before)
    assert play(again, 3, 9) == play(whole, 0, 12)[3:]


def test_actions_that_are_not_finite_are_the_policys_fault() -> None:
    with pytest.raises(InputError, match="the networks have diverged"):
        Rollout(Line).step(np.full((1, 1), np.nan))
    with pytest.raises(InputError, match="the networks have diverged"):
        evaluate(lambda obs: np.full((len(obs), 1), np.inf), Line, 1)
    with pytest.raises(InputError, match=r"actions of the shape \[2, 1\]; expected \[1, 1\]"):
        Rollout(Line).step(np.zeros((2, 1)))


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nan", r"environment 0, gave observations that are nan \(value 1\) in a step, after 4 steps"),
        ("reward", r"environment 0, gave rewards that are inf in a step, after 4 steps"),
        ("raise", r"Line failed in a step, after 4 steps: ValueError: the motor is stuck"),
    ],
)
def test_faults_of_environments_are_told(vectorization: Any, fault: str, message: str) -> None:
    rollout = Rollout(lambda: Line(fault=fault), 2, vectorization)
    with pytest.raises(ControlError, match=message):
        play(rollout, 0, 5)
    with pytest.raises(ControlError, match="the motor is stuck" if fault == "raise" else "it gave NaN or infinity"):
        evaluate(lambda obs: np.zeros((len(obs), 1), np.float32), lambda: Line(fault=fault), 2)
    rollout.close()


def space(observation: Any = Line.observation_space, action: Any = Line.action_space) -> Callable[[], Any]:
    def make() -> Any:
        env = Line()
        env.observation_space, env.action_space = observation, action
        return env

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (space(gym.spaces.Discrete(4)), "its observations are Discrete"),
        (space(gym.spaces.Box(0, 1, (4, 4))), "FlattenObservation"),
        (space(action=gym.spaces.Discrete(2)), "its actions are Discrete"),
        (space(action=gym.spaces.Box(-np.inf, np.inf, (1,))), "expected finite bounds"),
    ],
)
def test_spaces_that_cannot_be_used_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spaces_of(make())
    with pytest.raises(ConfigError, match=message):
        Rollout(make)


def test_evaluation_plays_the_same_episodes_every_time() -> None:
    def policy(obs: np.ndarray) -> np.ndarray:
        return np.clip(-obs[:, :1], -1, 1).astype(np.float32)

    first, second, other = (evaluate(policy, Line, 4, seed) for seed in (0, 0, 1))
    assert first == second
    assert first != other
    assert first.lengths == [7] * 4
    assert len(set(first.returns)) == 4


@pytest.mark.parametrize("world", [2, 3, 6])
def test_episodes_played_in_parts_are_those_played_together(world: int) -> None:
    def player() -> Callable[[np.ndarray], np.ndarray]:
        rng = np.random.default_rng(0)  # as a random encoder, draws for the whole batch
        return lambda obs: rng.uniform(-0.2, 1.0, (len(obs), 1)).astype(np.float32)

    whole = evaluate(player(), Line, 5)
    assert len(set(whole.lengths)) > 1
    parts = []
    for rank in range(world):
        playing = np.arange(5) % world == rank
        parts.append(evaluate(player(), Line, 5, playing=playing))
        assert not playing.any(), "those that are over play no more"
    assert np.sum([part.returns for part in parts], axis=0).tolist() == whole.returns
    assert np.sum([part.lengths for part in parts], axis=0).tolist() == whole.lengths
