"""Environments that break: the cause is told, nothing learnt is lost, and a mended one goes on to the bit."""

from __future__ import annotations

import copy
import functools
import os
import signal
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from jellyfit.callbacks import InterruptCheckpoint, read_metrics
from jellyfit.control import OrnsteinUhlenbeckNoise, PrioritisedReplay, SpikingActor
from jellyfit.datamodules import Environments
from jellyfit.errors import ControlError, InputError
from jellyfit.tasks import TD3Task
from tests.conftest import CONFIGS, Cli, start, wait

pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install 'jellyfit[rl]'")

from tests.control.test_rollout import Line
from tests.tasks.test_td3 import task, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*"),
]


class Breaks(Line):
    """A line that breaks in step ``at`` of its episode number ``episode``, or at its start, in one of many ways."""

    def __init__(self, fault: str | None = None, episode: int = 12, at: int = 4, **options: Any) -> None:
        super().__init__(at=at, **options)
        self.how, self.episode, self.episodes = fault, episode, 0

    def reset(self, **options: Any) -> Any:
        self.episodes += 1
        if self.how == "reset" and self.episodes == self.episode:
            raise ValueError("the motor is stuck")
        return super().reset(**options)

    def step(self, action: np.ndarray) -> Any:
        self.fault = self.how if self.episodes == self.episode else None
        if self.fault == "killed" and self.t == self.at - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        seen, *rest = super().step(action)
        return (seen[:1] if self.fault == "shape" and self.t == self.at else seen), *rest


def lines(fault: str | None = None, **options: Any) -> Environments:
    return Environments(
        Breaks, {"fault": fault}, **{"steps_per_epoch": 252, "steps_per_turn": 28, "episodes": 2, **options}
    )


def saved(path: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    return checkpoint


def assert_same_run(one: TD3Task, other: TD3Task) -> None:
    assert (one.env_steps, one.updates) == (other.env_steps, other.updates)
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(one.replay.state_dict()["rows"], other.replay.state_dict()["rows"])
    assert one.rng.bit_generator.state == other.rng.bit_generator.state


MESSAGES = {
    "nan": "gave observations that are nan",
    "reward": "gave rewards that are inf",
    "raise": "the motor is stuck",
    "reset": "failed at the start of an episode.*the motor is stuck",
    "shape": "failed in a step",
    "killed": r"the process of environment \d ended by signal 9 \(Killed\)",
}
PLAIN: dict[str, Any] = {}
RICH = {
    "actor": functools.partial(SpikingActor, hidden=[8]), "noise": OrnsteinUhlenbeckNoise(), "n_step": 3,
    "replay": functools.partial(PrioritisedReplay, capacity=150),
}  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "environments", "vectorization", "options"),
    [(fault, 1, "sync", PLAIN) for fault in MESSAGES if fault != "killed"]
    + [("nan", 4, "sync", RICH), ("reset", 4, "sync", RICH), ("raise", 4, "async", RICH)]
    + [("nan", 2, "async", PLAIN), ("killed", 2, "async", PLAIN)],
)
def test_a_run_whose_environment_was_mended_is_the_undisturbed_one_to_the_bit(
    fault: str, environments: int, vectorization: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    def run(fault: str | None, checkpoint: Path | None = None) -> TD3Task:
        pl.seed_everything(0, verbose=False)
        learner, callback = task(**copy.deepcopy(options)), InterruptCheckpoint(tmp_path)
        data = lines(fault, environments=environments, vectorization=vectorization)
        fit = trainer(tmp_path, callbacks=[callback])
        try:
            fit.fit(learner, data, ckpt_path=checkpoint, weights_only=True)
        finally:
            assert (callback.saved is not None) == (fault is not None)
            assert data._rollout is None, "the environments are closed"
        return learner

    whole = run(None)
    with pytest.raises(ControlError, match=MESSAGES[fault]) as caught:
        run(fault)
    assert caught.value.__notes__ == [f"Saved {tmp_path / 'last.ckpt'}."]
    state = saved(tmp_path / "last.ckpt")["jellyfit_control"][0]
    assert 0 < state["turn"]["taken"] < 28 // environments, "in the midst of a turn"
    assert state["env_steps"] > 40
    assert sum(map(len, state["turn"]["seen"])) == state["turn"]["taken"] * environments
    assert_same_run(run(None, tmp_path / "last.ckpt"), whole)
    assert whole.env_steps == 504


class BreaksInItsSecondEvaluation(Environments):
    evaluations = 0

    def evaluate(self, *args: Any, **options: Any) -> Any:
        self.evaluations += 1
        self.env_kwargs = {"fault": "raise", "episode": 1} if self.evaluations == 2 else {}
        return super().evaluate(*args, **options)


def test_a_fault_in_an_evaluation_is_gone_on_from_with_that_evaluation(tmp_path: Path) -> None:
    def run(kind: type[Environments], checkpoint: Path | None = None) -> tuple[TD3Task, list[float]]:
        pl.seed_everything(0, verbose=False)
        learner, returns = task(), []

        class Returns(pl.Callback):
            def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
                returns.append(float(trainer.callback_metrics["val/return"]))

        fit = trainer(tmp_path, 3, callbacks=[Returns(), InterruptCheckpoint(tmp_path)])
        data = kind(Breaks, steps_per_epoch=120, steps_per_turn=20, episodes=2)
        fit.fit(learner, data, ckpt_path=checkpoint, weights_only=True)
        return learner, returns

    whole, expected = run(Environments)
    with pytest.raises(ControlError, match="in step 4 of evaluation episode 0: ValueError: the motor is stuck"):
        run(BreaksInItsSecondEvaluation)
    state = saved(tmp_path / "last.ckpt")["jellyfit_control"][0]
    assert (state["env_steps"], state["turn"]["taken"]) == (240, 0)
    again, returns = run(Environments, tmp_path / "last.ckpt")
    assert_same_run(again, whole)
    assert returns == expected[1:]


def test_an_environment_that_is_still_broken_when_gone_on_with_leaves_the_checkpoint_alone(tmp_path: Path) -> None:
    def run(checkpoint: Path | None, **kwargs: Any) -> None:
        data = Environments(Breaks, kwargs, steps_per_epoch=120, steps_per_turn=20, episodes=2)
        trainer(tmp_path, callbacks=[InterruptCheckpoint(tmp_path)]).fit(
            task(), data, ckpt_path=checkpoint, weights_only=True
        )

    with pytest.raises(ControlError):
        run(None, fault="nan")
    before = (tmp_path / "last.ckpt").read_bytes()
    with pytest.raises(ControlError, match="while its last episode was done again") as caught:
        run(tmp_path / "last.ckpt", fault="nan", episode=2, at=2)  # the first is begun when the environment is made
    assert not caught.value.resumable
    assert (tmp_path / "last.ckpt").read_bytes() == before
    (tmp_path / "last.ckpt").unlink()
    with pytest.raises(ControlError, match="after 0 steps"):  # nothing was learnt yet
        run(None, fault="reset", episode=1)
    assert not (tmp_path / "last.ckpt").exists()


def test_what_does_not_go_on_where_it_was_begins_an_episode_and_joins_no_others(tmp_path: Path) -> None:
    def run(checkpoint: Path | None, **kwargs: Any) -> TD3Task:
        pl.seed_everything(0, verbose=False)
        learner = task(n_step=3, start_steps=10_000)
        data = Environments(Breaks, kwargs, steps_per_epoch=120, steps_per_turn=20, episodes=2)
        trainer(tmp_path, 1, callbacks=[InterruptCheckpoint(tmp_path)]).fit(
            learner, data, ckpt_path=checkpoint, weights_only=True
        )
        return learner

    with pytest.raises(ControlError):
        run(None, fault="nan", limit=6, noisy=True)
    state = saved(tmp_path / "last.ckpt")["jellyfit_control"][0]
    assert len(state["kept"]["steps"]["open"][0]) == 2
    learner = run(tmp_path / "last.ckpt", limit=6, noisy=True)
    rows = learner.replay._take(np.arange(len(learner.replay)))
    steps = (rows.next_obs[:, 1] - rows.obs[:, 1]).numpy()
    np.testing.assert_allclose(0.99**steps, rows.discount, rtol=1e-6)
    assert steps.min() == 1
    assert len(rows.obs) == 120 - 2 - 2, "two were cut off then, two are open now"


def test_networks_that_have_diverged_are_no_fault_of_the_environment(tmp_path: Path) -> None:
    class Diverged(TD3Task):
        def explore(self, obs: Any) -> Any:
            return super().explore(obs) * (np.nan if self.env_steps >= 140 else 1)

    learner = Diverged(task().make_actor, start_steps=40, update_after=10_000)
    with pytest.raises(InputError, match="Line was given actions that are NaN or infinite: the networks have diverged"):
        trainer(tmp_path, callbacks=[InterruptCheckpoint(tmp_path)]).fit(
            learner, Environments(Line, steps_per_epoch=120, steps_per_turn=20, episodes=2)
        )
    assert not (tmp_path / "last.ckpt").exists()


# ------------------------------------------------------------ on the command line


class BreaksInOneProcess(Breaks):
    """In that of rank ``rank`` alone."""

    def __init__(self, rank: int, fault: str, **options: Any) -> None:
        super().__init__(fault if int(os.environ.get("LOCAL_RANK", 0)) == rank else None, **options)


SETTINGS = (
    "-c", CONFIGS / "rl_pendulum.yaml", "--trainer.max_epochs=2", "--trainer.accelerator=cpu",
    "--model.actor.hidden=[8]", "--model.start_steps=40", "--model.update_after=40", "--model.batch_size=16",
    "--model.critic={class_path: jellyfit.control.Critic, init_args: {hidden: [8]}}",
    "--model.replay={class_path: jellyfit.control.ReplayBuffer, init_args: {capacity: 100}}",
    "--data.steps_per_epoch=112", "--data.steps_per_turn=28", "--data.episodes=3",
)  # fmt: skip
HERE = "tests.tasks.test_td3_faults"
LINES = f"--data.env={HERE}.Breaks"
TWO = ("--trainer.devices=2", "--trainer.strategy=ddp")


def last(folder: Path, name: str) -> dict[str, Any]:
    return saved(folder / f"runs/{name}/0/checkpoints/last.ckpt")


def assert_same_checkpoints(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    assert len(one["jellyfit_control"]) == len(other["jellyfit_control"])
    for a, b in zip(one["jellyfit_control"], other["jellyfit_control"], strict=True):
        assert torch.equal(a["kept"]["replay"]["rows"], b["kept"]["replay"]["rows"])
        assert a["own_rng"] == b["own_rng"]
        assert a["env_steps"] == b["env_steps"]


def test_the_command_line_tells_the_cause_the_checkpoint_and_how_to_go_on(cli: Cli, tmp_path: Path) -> None:
    assert cli("fit", *SETTINGS, LINES, "--name=whole").status == 0
    broken = ("fit", *SETTINGS, LINES, "--name=parts")
    outcome = cli(*broken, "--data.env_kwargs={fault: raise}")
    assert outcome.status == 1
    cause, checkpoint, advice = outcome.err.strip().splitlines()[-3:]
    assert cause.startswith("jellyfit fit: error: Breaks failed in a step, after")
    assert cause.endswith("ValueError: the motor is stuck.")
    assert checkpoint == "Saved runs/parts/0/checkpoints/last.ckpt."
    assert advice.startswith("When it is mended, go on: jellyfit fit -c")
    assert advice.endswith("--name=parts --data.env_kwargs={fault: raise} --ckpt_path last")
    assert "Traceback" not in outcome.err
    again = cli(*broken, "--ckpt_path=last")
    assert again.status == 0, again.err
    assert_same_checkpoints(last(tmp_path, "whole"), last(tmp_path, "parts"))
    for one, other in zip(
        *(read_metrics(tmp_path / f"runs/{n}/0/metrics.csv") for n in ("whole", "parts")), strict=True
    ):
        for name in one.keys() - {"steps_per_second"}:
            assert one[name] == other[name], name


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "fault"), [(0, "nan"), (1, "reset")])
def test_a_fault_in_one_of_two_processes_is_one_of_both(rank: int, fault: str, tmp_path: Path) -> None:
    def fit(name: str, *arguments: str) -> Any:
        env = (f"--data.env={HERE}.BreaksInOneProcess", f"--name={name}")
        return wait(start(tmp_path, "fit", *SETTINGS, *env, *TWO, *arguments, OMP_NUM_THREADS="1"), 120)

    whole = ("--data.env_kwargs={rank: 7, fault: nan}",)
    outcome = fit("whole", *whole)
    assert outcome.status == 0, outcome.err
    # each takes half of the 4 turns of an epoch: the 7th episode lies in the second of its turns
    broken = fit("parts", f"--data.env_kwargs={{rank: {rank}, fault: {fault}, episode: 7}}")
    assert broken.status == 1, broken
    assert broken.err.count("jellyfit fit: error") == 1, "one process talks"
    assert f"process {rank}: " in broken.err or rank == 0
    assert "Saved runs/parts/0/checkpoints/last.ckpt." in broken.err
    turns = [state["turn"]["taken"] for state in last(tmp_path, "parts")["jellyfit_control"]]
    assert turns[1 - rank] == 28, "the other has ended its turn"
    assert 0 < turns[rank] < 28
    again = fit("parts", *whole, "--ckpt_path=last")
    assert again.status == 0, again.err
    assert_same_checkpoints(last(tmp_path, "whole"), last(tmp_path, "parts"))


class FailsToLearn(TD3Task):
    """In the process of rank ``FAILING``, after some updates."""

    def update(self, batch: Any) -> None:
        if self.updates == 30 and self.global_rank == int(os.environ["FAILING"]):
            raise ValueError("no memory left")
        super().update(batch)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_another_error_in_one_of_two_processes_ends_both(rank: int, tmp_path: Path) -> None:
    begin = time.monotonic()
    arguments = (*SETTINGS, LINES, *TWO, f"--model={HERE}.FailsToLearn")
    outcome = wait(start(tmp_path, "fit", *arguments, OMP_NUM_THREADS="1", FAILING=str(rank)), 120)
    assert outcome.status not in (0, None)
    assert "no memory left" in outcome.err
    assert time.monotonic() - begin < 100
    assert not (tmp_path / "runs/rl_pendulum/0/checkpoints/last.ckpt").exists()
