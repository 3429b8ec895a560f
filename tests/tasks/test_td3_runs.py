"""TD3 through the command line: a pendulum that is learnt, two processes, a stop and a resume, mistakes."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jellyfit import pictures
from jellyfit.callbacks import read_metrics
from jellyfit.datamodules import Environments
from jellyfit.runs import repeats
from jellyfit.tasks import Task, TD3Task
from tests.conftest import CONFIGS, Cli, start, wait

pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install 'jellyfit[rl]'")

PENDULUM = ("-c", CONFIGS / "rl_pendulum.yaml")
SMALL = (
    "--model.actor.hidden=[8]", "--model.start_steps=40", "--model.update_after=40", "--model.batch_size=16",
    "--data.steps_per_epoch=80", "--data.steps_per_turn=20", "--data.episodes=1",
    "--data.env_kwargs={max_episode_steps: 30}",
    "--model.replay={class_path: jellyfit.control.ReplayBuffer, init_args: {capacity: 100}}",
)  # fmt: skip


@pytest.mark.slow
def test_the_pendulum_is_held_after_6000_steps(cli: Cli, tmp_path: Path) -> None:
    fitted = cli("fit", *PENDULUM)
    assert fitted.status == 0, fitted.err
    folder = tmp_path / "runs/rl_pendulum/0"
    returns = [row["val/return"] for row in read_metrics(folder / "metrics.csv")]
    assert len(returns) == 6
    assert returns[0] < -800, "it cannot do it from the start"
    assert max(returns) >= -200
    assert "val/return" in fitted.out
    tested = cli("test", *PENDULUM, "--ckpt_path=best")
    assert tested.status == 0, tested.err
    with (folder / "test_returns.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["length"] for row in rows] == ["200"] * 10
    assert np.mean([float(row["return"]) for row in rows]) == pytest.approx(max(returns), rel=1e-6)
    predicted = cli("predict", *PENDULUM, "--ckpt_path=best")
    assert predicted.status == 0, predicted.err
    actions = np.load(next(tmp_path.glob("runs/rl_pendulum/*/actions.npz")))
    assert actions["obs"].shape == (200, 3)
    assert actions["act"].shape == (200, 1)
    assert np.abs(actions["act"]).max() <= 2.0


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, Any] = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    weights_: dict[str, torch.Tensor] = state["state_dict"]
    return weights_


def assert_it_resumes_to_the_bit(folder: Path, epochs: int, *more: str) -> None:
    """Train ``runs/whole`` in one go and ``runs/parts`` in two, and compare their weights."""

    def fit(*arguments: str) -> None:
        outcome = wait(start(folder, "fit", *PENDULUM, *SMALL, *more, *arguments, OMP_NUM_THREADS="1"))
        assert outcome.status == 0, outcome.err

    fit("--name=whole", f"--trainer.max_epochs={epochs}")
    fit("--name=parts", "--trainer.max_epochs=1")
    fit("--name=parts", f"--trainer.max_epochs={epochs}", "--ckpt_path=last")
    whole, parts = (weights(folder / f"runs/{name}/0") for name in ("whole", "parts"))
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_runs_of_one_and_two_processes_resume_to_the_bit(processes: int, tmp_path: Path) -> None:
    more = ("--trainer.accelerator=cpu", f"--trainer.devices={processes}") + (
        ("--trainer.strategy=ddp",) * (processes > 1)
    )

    assert_it_resumes_to_the_bit(tmp_path, 3, *more)
    rows = read_metrics(tmp_path / "runs/whole/0/metrics.csv")
    assert rows[-1]["env_steps"] == 240, "of all processes together"
    if processes > 1:
        saved = torch.load(tmp_path / "runs/whole/0/checkpoints/last.ckpt", weights_only=True)["jellyfit_control"]
        first, second = (state["kept"]["replay"]["rows"] for state in saved)
        assert not torch.equal(first, second), "every process has experience of its own"


TWO = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp")
RANDOM = (
    "--data.env=tests.control.test_rollout.Line", "--data.env_kwargs={limit: 9}", "--data.episodes=5",
    "--model.actor.encoder={class_path: jellyfit.encoders.PopSpikeEncoderRandom, init_args: "
    "{pop_dim: 5, spike_ts: 4, mean_range: [-3.0, 3.0], std: 0.5}}",
)  # fmt: skip


@pytest.mark.slow
def test_episodes_of_an_evaluation_are_shared_by_two_processes_and_are_those_of_one(tmp_path: Path) -> None:
    def run(*arguments: str) -> None:
        outcome = wait(start(tmp_path, *arguments[:1], *PENDULUM, *SMALL, *RANDOM, *arguments[1:], OMP_NUM_THREADS="1"))
        assert outcome.status == 0, outcome.err

    run("fit", "--trainer.max_epochs=1")
    folder = tmp_path / "runs/rl_pendulum/0"
    found = []
    for processes in ((), TWO):
        run("test", "--ckpt_path=best", *processes)
        run("validate", "--ckpt_path=best", *processes)
        returns = (folder / "test_returns.csv").read_text()
        found.append((returns, *(read_metrics(folder / f"{verb}_metrics.csv") for verb in ("test", "validate"))))
    assert found[0] == found[1]
    rows = list(csv.DictReader(found[0][0].splitlines()))
    assert [row["episode"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert len({row["return"] for row in rows}) == 5
    rates = [value for name, value in found[1][2][0].items() if name.startswith("firing_rate/")]
    assert len(rates) == 2
    assert all(0 < rate < 1 for rate in rates)


def test_the_best_checkpoint_holds_what_acting_needs_and_training_begins_anew_from_it(cli: Cli, tmp_path: Path) -> None:
    assert cli("fit", *PENDULUM, *SMALL, "--trainer.max_epochs=2", "--model.normalise=true").status == 0
    folder = tmp_path / "runs/rl_pendulum/0"
    best, last = (torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert not {"jellyfit_control", "optimizer_states", "callbacks"} & best.keys()
    assert {"jellyfit_control", "optimizer_states"} <= last.keys()
    assert best["state_dict"].keys() == last["state_dict"].keys()
    assert float(best["state_dict"]["norm.count"]) >= 80
    tested = cli("test", *PENDULUM, *SMALL, "--model.normalise=true", "--ckpt_path=best")
    assert tested.status == 0, tested.err
    rows = read_metrics(folder / "metrics.csv")
    scored = read_metrics(folder / "test_metrics.csv")[-1]["test/return"]
    assert scored == max(row["val/return"] for row in rows)
    still = "{class_path: torch.optim.SGD, init_args: {lr: 0.0}}"
    optimizers = [f"--model.{name}_optimizer={still}" for name in ("actor", "critic")]
    anew = ("--trainer.max_epochs=1", "--model.normalise=true", *optimizers)
    again = cli("fit", *PENDULUM, *SMALL, *anew, "--ckpt_path=best")
    assert again.status == 0, again.err
    assert "holds networks alone: training begins anew with them" in again.out
    begun = weights(tmp_path / "runs/rl_pendulum/1")
    for name, value in best["state_dict"].items():
        if name.startswith(("actor.", "critic.")):
            assert torch.equal(begun[name], value), name
    assert read_metrics(tmp_path / "runs/rl_pendulum/1/metrics.csv")[-1]["env_steps"] == 80


def test_a_test_draws_the_learning_curve_of_runs_that_differ_in_seeds_alone(cli: Cli, tmp_path: Path) -> None:
    short = ("fit", *PENDULUM, *SMALL, "--trainer.max_epochs=2")
    for arguments in (
        ("--seed_everything=1",),
        ("--seed_everything=2", "--data.seed=3"),
        ("--seed_everything=1",),  # once more: no other seed
        ("--seed_everything=4", "--model.gamma=0.9"),  # another run
        (),
    ):
        assert cli(*short, *arguments).status == 0
    runs = [tmp_path / f"runs/rl_pendulum/{number}" for number in range(5)]
    assert repeats(runs[4]) == [runs[4], runs[2], runs[1]]
    assert repeats(runs[3]) == [runs[3]]
    tested = cli("test", *PENDULUM, *SMALL, "--ckpt_path=last")
    assert tested.status == 0, tested.err
    path = "runs/rl_pendulum/4/pictures/learning_curve.png"
    assert f"Learning curve: {path} (mean of 3 seeds)" in tested.out
    assert "learning_curve.png" in tested.out.splitlines()[-1]
    assert (tmp_path / path).read_bytes().startswith(b"\x89PNG")
    alone = cli("test", *PENDULUM, *SMALL, "--model.gamma=0.9", f"--ckpt_path={runs[3]}/checkpoints/last.ckpt")
    assert f"Learning curve: {runs[3]}/pictures/learning_curve.png\n" in alone.out


def test_checkpoints_that_were_asked_for_are_whole_unless_asked_otherwise(cli: Cli, tmp_path: Path) -> None:
    kept = "--trainer.callbacks={class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {monitor: "
    mine = kept + "val/return, mode: max, save_top_k: 2, save_last: true, dirpath: mine, filename: '{epoch}'}}"
    assert cli("fit", *PENDULUM, *SMALL, "--trainer.max_epochs=3", mine).status == 0
    paths = sorted((tmp_path / "mine").iterdir())
    assert len(paths) == 3
    for path in paths:
        assert "jellyfit_control" in torch.load(path, weights_only=True), path
    assert cli("fit", *PENDULUM, *SMALL, "--trainer.max_epochs=4", "--ckpt_path=mine/last.ckpt").status == 0


def test_learners_are_trained_tested_and_taken_out(cli: Cli, tmp_path: Path) -> None:
    configs = (*PENDULUM, "-c", CONFIGS / "rl_learners.yaml", *SMALL)
    fitted = cli("fit", *configs, "--trainer.max_epochs=2")
    assert fitted.status == 0, fitted.err
    folder = tmp_path / "runs/rl_pendulum/0"
    for row in read_metrics(folder / "metrics.csv"):
        means = [row[f"val/return/{k}"] for k in range(4)]
        assert row["val/return"] == pytest.approx(np.mean(means), rel=1e-6)
        assert row["val/return_std"] == pytest.approx(np.std(means), rel=1e-5)
        assert row["env_steps"] in (80, 160), "of one learner"
    curves = pictures.learning_curves(read_metrics(folder / "metrics.csv"))
    assert [len(axes.collections) for axes in curves.axes if axes.get_title(loc="left") == "return"] == [1], "a band"
    tested = cli("test", *configs, "--ckpt_path=best", "--data.episodes=2")
    assert tested.status == 0, tested.err
    with (folder / "test_returns.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["learner"], row["episode"]) for row in rows] == [(str(k), str(i)) for k in range(4) for i in range(2)]
    assert "(mean of 4 seeds)" in tested.out
    assert (folder / "pictures/learning_curve.png").is_file()
    task = Task.load_from_checkpoint(folder / "checkpoints/last.ckpt")
    assert isinstance(task, TD3Task)
    policy = task.policy_of(3)
    data = Environments("Pendulum-v1", {"max_episode_steps": 30}, episodes=1)
    assert data.evaluate(policy.act).returns == pytest.approx([row["val/return/3"]], rel=1e-6)
    again = cli("fit", *configs, "--trainer.max_epochs=3", "--ckpt_path=last", "--model.learners=2")
    assert again.status != 0
    assert "the checkpoint is of 4 learners, this task of 2" in again.err
    assert "Traceback" not in again.err


@pytest.mark.slow
def test_learners_of_two_processes_share_their_weights_and_resume_to_the_bit(tmp_path: Path) -> None:
    more = ("--model.learners=2", "--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp")

    assert_it_resumes_to_the_bit(tmp_path, 2, *more)
    saved = torch.load(tmp_path / "runs/whole/0/checkpoints/last.ckpt", weights_only=True)["jellyfit_control"]
    streams = [stream["torch"] for state in saved for stream in state["streams"]]
    rows = [each["replay"]["rows"] for state in saved for each in (state["kept"], *state["kept"]["others"])]
    for several in (streams, rows):
        assert len(several) == 4
        assert not any(torch.equal(a, b) for a, b in itertools.combinations(several, 2))


def test_mistakes_in_a_config_are_told_in_one_line(cli: Cli) -> None:
    for arguments, message in (
        (("--data.env=Pendulum-v9",), "Pendulum-v9"),
        (("--data.env=CartPole-v1",), "its actions are Discrete"),
        (("--model.gamma=2",), "gamma=2"),
        (("--data.steps_per_turn=7",), "steps_per_epoch=1000: expected a multiple of steps_per_turn (7)"),
    ):
        outcome = cli("fit", *PENDULUM, *arguments)
        assert outcome.status in (1, 2), arguments
        assert message in outcome.err
        assert "Traceback" not in outcome.err
    outcome = cli("fit", *PENDULUM, "--data=jellyfit.datamodules.DigitImages")
    assert outcome.status != 0
    assert "jellyfit.datamodules.Environments" in outcome.err
