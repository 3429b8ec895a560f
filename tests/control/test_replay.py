"""The memory of transitions: what goes in comes out, what is old goes, priorities, n steps."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from jellyfit.control import GaussianNoise, NStep, OrnsteinUhlenbeckNoise, PrioritisedReplay, ReplayBuffer
from jellyfit.errors import ConfigError, InputError


def fill(buffer: ReplayBuffer, first: int, number: int) -> None:
    """Transitions of which every value tells the number."""
    n = np.arange(first, first + number, dtype=float)
    obs = np.stack([n, n + 0.1], 1)
    buffer.add(obs, n[:, None] + 0.2, n + 0.3, n + 0.4, obs + 0.5)


@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritisedReplay])
@pytest.mark.parametrize("mapped", [False, True])
def test_what_went_in_comes_out_and_the_oldest_go(kind: type[ReplayBuffer], mapped: bool, tmp_path: Path) -> None:
    buffer = kind(2, 1, 10, tmp_path / "new" if mapped else None)
    for first, number in ((0, 4), (4, 1), (5, 9), (14, 0), (14, 3)):
        fill(buffer, first, number)
    assert len(buffer) == 10
    batch = buffer.sample(2000, np.random.default_rng(0))
    n = batch.obs[:, 0]
    assert sorted(set(n.tolist())) == list(range(7, 17))
    torch.testing.assert_close(batch.obs[:, 1], n + 0.1)
    torch.testing.assert_close(batch.act, n[:, None] + 0.2)
    torch.testing.assert_close(batch.reward, n + 0.3)
    torch.testing.assert_close(batch.discount, n + 0.4)
    torch.testing.assert_close(batch.next_obs, batch.obs + 0.5)


def test_draws_are_uniform_with_replacement_and_repeat_by_seed() -> None:
    buffer = ReplayBuffer(2, 1, 100)
    fill(buffer, 0, 10)
    counts = np.bincount(buffer.sample(100_000, np.random.default_rng(0)).place, minlength=10)
    assert counts.min() > 9_500
    assert len(counts) == 10, "only what is filled"
    first, second = (buffer.sample(50, np.random.default_rng(3)).obs for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritisedReplay])
def test_a_saved_buffer_goes_on_exactly(kind: type[ReplayBuffer], tmp_path: Path) -> None:
    buffer = kind(2, 1, 10)
    fill(buffer, 0, 7)
    fill(buffer, 7, 6)
    if isinstance(buffer, PrioritisedReplay):
        buffer.update(np.arange(10), np.arange(10.0))
    torch.save(buffer.state_dict(), tmp_path / "state.pt")
    again = kind(2, 1, 10)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    copied = pickle.loads(pickle.dumps(buffer))
    fill(buffer, 13, 2)
    expected = buffer.sample(64, np.random.default_rng(1))
    for each in (again, copied):
        fill(each, 13, 2)
        drawn = each.sample(64, np.random.default_rng(1))
        assert torch.equal(drawn.obs, expected.obs)
        assert (drawn.weight is None) == (expected.weight is None)
        assert drawn.weight is None or torch.equal(drawn.weight, expected.weight)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="holds 10 transitions of 7 values, this one 20 of 7"):
        kind(2, 1, 20).load_state_dict(buffer.state_dict())


def test_priorities_decide_how_often_and_weights_make_up_for_it() -> None:
    buffer = PrioritisedReplay(2, 1, 6, alpha=1.0, beta=1.0, eps=0.0)
    fill(buffer, 0, 5)
    errors = np.array([1.0, 2.0, 3.0, 0.0, -4.0])
    buffer.update(np.arange(5), errors)
    batch = buffer.sample(100_000, np.random.default_rng(0))
    share = np.bincount(batch.place, minlength=5) / 100_000
    np.testing.assert_allclose(share, np.abs(errors) / 10, atol=0.005)
    assert batch.weight is not None
    expected = 1 / np.abs(errors[batch.place])
    np.testing.assert_allclose(batch.weight, expected / expected.max(), rtol=1e-5)
    fill(buffer, 5, 1)
    again = buffer.sample(100_000, np.random.default_rng(0))
    assert np.isclose((again.place == 5).mean(), 4 / 14, atol=0.005), "a new one has the largest so far"
    with pytest.raises(InputError, match="NaN or infinite"):
        buffer.update(np.array([0]), np.array([np.nan]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obs": np.zeros((3, 3))}, r"obs has the shape \[3, 3\]; expected \[3, 2\]"),
        ({"reward": np.zeros(2)}, r"reward has the shape \[2\]; expected \[3\]"),
        ({"reward": np.full(3, np.nan)}, "reward holds NaN or infinity"),
        ({"next_obs": np.full((3, 2), np.inf)}, "next_obs holds NaN or infinity"),
    ],
)
def test_bad_transitions_are_named(change: dict[str, np.ndarray], message: str) -> None:
    good = {
        "obs": np.zeros((3, 2)), "act": np.zeros((3, 1)), "reward": np.zeros(3), "discount": np.ones(3),
        "next_obs": np.zeros((3, 2)),
    }  # fmt: skip
    buffer = ReplayBuffer(2, 1, 10)
    with pytest.raises(InputError, match=message):
        buffer.add(**{**good, **change})
    assert len(buffer) == 0
    with pytest.raises(InputError, match="it is empty"):
        buffer.sample(1, np.random.default_rng(0))
    with pytest.raises(InputError, match="3 transitions at once, but there is room for 2"):
        ReplayBuffer(2, 1, 2).add(**good)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_transitions_over_n_steps_are_those_of_the_definition(n: int) -> None:
    random, gamma, T, E = np.random.default_rng(0), 0.9, 60, 2
    obs, act, reward = random.random((T + 1, E, 2)), random.random((T, E, 1)), random.random((T, E))
    terminated, truncated = random.random((T, E)) < 0.08, random.random((T, E)) < 0.08
    steps = NStep(E, n, gamma)
    made = [[], []]  # type: list[list[tuple[float, ...]]]
    for t in range(T):
        transitions = steps.push(obs[t], act[t], reward[t], obs[t + 1], terminated[t], truncated[t])
        steps_again = NStep(E, n, gamma)
        steps_again.load_state_dict(steps.state_dict())
        steps = steps_again
        for o, a, r, d, last in zip(*transitions, strict=True):
            e = int(np.argwhere(obs[:, :, 0] == o[0])[0][1])
            made[e].append((o[0], a[0], r, d, last[0]))
    for e in range(E):
        expected = []
        for t in range(T):
            total, k = 0.0, t
            while True:
                total += gamma ** (k - t) * reward[k, e]
                ends = terminated[k, e] or truncated[k, e]
                k += 1
                if ends or k - t == n or k == T:
                    break
            if not ends and k - t < n:
                continue  # not over yet
            discount = 0.0 if terminated[k - 1, e] else gamma ** (k - t)
            expected.append((obs[t, e, 0], act[t, e, 0], total, discount, obs[k, e, 0]))
        np.testing.assert_allclose(sorted(made[e]), sorted(expected))


def test_noises() -> None:
    rng = np.random.default_rng(0)
    drawn = GaussianNoise(0.3).draw((20_000, 2), rng)
    assert drawn.dtype == np.float32
    assert drawn.std() == pytest.approx(0.3, rel=0.02)
    noise = OrnsteinUhlenbeckNoise(std=0.2, theta=0.15, dt=1.0)
    values = np.stack([noise.draw((1, 1), rng)[0, 0] for _ in range(20_000)])
    assert np.corrcoef(values[:-1], values[1:])[0, 1] == pytest.approx(0.85, abs=0.01), "it drifts"
    again = OrnsteinUhlenbeckNoise(std=0.2, theta=0.15, dt=1.0)
    again.load_state_dict(noise.state_dict())
    one, two = (each.draw((1, 1), np.random.default_rng(1)) for each in (noise, again))
    assert one == two
    again.forget(np.array([True]))
    assert again.state_dict()["value"] == [[0.0]]
    for wrong in (-0.1, float("nan")):
        with pytest.raises(InputError, match="std must be at least 0"):
            GaussianNoise(wrong)
