"""Spiking actors against one that does not spike: returns by task, actor and seed, and the average performance ratio.

    python benchmarks/rl.py [--tasks halfcheetah hopper ...] [--actors san popsan ann] [--seeds 0 1 2] [--jobs 1]
                            [--steps 1000000] [--every 10000] [--folder runs/rl] [--json PATH] [--picture PATH]
    python benchmarks/rl.py --speed [options of benchmarks/rl_speed.py]

Every run is ``jellyfit fit`` with the config ``rl_TASK.yaml``, and behind it ``rl_actor_ACTOR.yaml`` but for ``san``.
It has ``--folder/TASK-ACTOR-SEED``; called again, the script trains what is missing or was interrupted and reads the
rest, so that more steps, seeds or actors may be asked for later, and Ctrl-C loses nothing. ``--jobs`` run beside each
other and share the cores.

A run's score is the mean of its last ten evaluations, or the best one; a task's is the mean over seeds. An actor's
average performance ratio (APR) is the mean over tasks of its score over ``ann``'s. JSON holds the curves too; the
picture shows them.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import queue
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rl_speed
import yaml
from timing import machine

from jellyfit import native, pictures
from jellyfit.callbacks import read_metrics
from jellyfit.runs import CHECKPOINTS

ROOT = Path(__file__).parent.parent
TASKS = ("ant", "halfcheetah", "hopper", "walker2d")
ACTORS = ("san", "popsan", "ann")
BASELINE = "ann"
LAST = 10  # evaluations
POLL = 5.0  # seconds


@dataclass(frozen=True)
class Run:
    """One run of the command line."""

    task: str
    actor: str
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.task}-{self.actor}-{self.seed}"

    @property
    def place(self) -> Path:
        """Its run folder: the newest version, for one that ended before its first checkpoint begins anew."""
        versions = [int(path.name) for path in (self.folder / self.name).glob("*") if path.name.isdigit()]
        return self.folder / self.name / str(max(versions, default=0))

    def configs(self) -> list[Path]:
        """What describes it."""
        names = [f"rl_{self.task}.yaml"] + ([] if self.actor == "san" else [f"rl_actor_{self.actor}.yaml"])
        return [ROOT / "configs" / name for name in names]

    def curve(self) -> list[tuple[int, float]]:
        """Steps of the environment and the evaluation's mean return there."""
        rows = read_metrics(self.place / "metrics.csv")
        return [
            (int(row["env_steps"]), row["val/return"]) for row in rows if "val/return" in row and "env_steps" in row
        ]

    def command(self, steps: int, every: int) -> list[str]:
        """Trains it, or goes on with it."""
        options = [f"--seed_everything={self.seed}", f"--data.init_args.seed={self.seed}"]
        options += [f"--data.init_args.steps_per_epoch={every}", f"--trainer.max_epochs={steps // every}"]
        options += [f"--runs={self.folder}", f"--name={self.name}"]
        if (self.place / CHECKPOINTS / "last.ckpt").is_file():
            options.append("--ckpt_path=last")
        return [sys.executable, "-m", "jellyfit", "fit", *(f"--config={path}" for path in self.configs()), *options]


def describe(run: Run) -> tuple[int, int]:
    """Steps in all and between evaluations, as the configs have them."""
    found: dict[str, int] = {}
    for path in run.configs():
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        found |= {"every": settings["data"]["init_args"]["steps_per_epoch"]} if "data" in settings else {}
        found |= {"epochs": settings["trainer"]["max_epochs"]} if "trainer" in settings else {}
    return found["epochs"] * found["every"], found["every"]


def train(runs: Sequence[Run], steps: int | None, every: int | None, jobs: int) -> None:
    """Train what is missing, so many at a time, and tell how it goes."""
    waiting: queue.SimpleQueue[Run] = queue.SimpleQueue()
    for run in runs:
        waiting.put(run)
    threads = str(max(native.usable_cores() // jobs, 1))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": threads}
    failed: list[str] = []
    stopped = threading.Event()

    def work() -> None:
        while not stopped.is_set():
            try:
                run = waiting.get_nowait()
            except queue.Empty:
                return
            wanted, apart = describe(run)
            wanted, apart = steps or wanted, every or apart
            done = run.curve()
            if done and done[-1][0] >= wanted:
                print(f"{run.name}: {done[-1][0]:,} steps are there", flush=True)
                continue
            run.folder.mkdir(parents=True, exist_ok=True)
            with (run.folder / f"{run.name}.log").open("a", encoding="utf-8") as log:
                process = subprocess.Popen(run.command(wanted, apart), env=environment, stdout=log, stderr=log)
                watch(run, process, wanted)
            if process.returncode:
                failed.append(f"{run.name} ended with {process.returncode}: see {log.name}")
                if not stopped.is_set():
                    print(failed[-1], flush=True)

    workers = [threading.Thread(target=work) for _ in range(jobs)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            while worker.is_alive():
                worker.join(0.5)
    except KeyboardInterrupt:  # the runs have got the signal too, and save what they have
        stopped.set()
        for worker in workers:
            worker.join()
        raise SystemExit("Stopped; the same command goes on.") from None
    if failed:
        raise SystemExit("\n".join(failed))


def watch(run: Run, process: subprocess.Popen[bytes], wanted: int) -> None:
    """Print a line for every evaluation until the process ends."""
    before = run.curve()
    told, first, begin = len(before), before[-1][0] if before else 0, time.monotonic()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL)
        curve = run.curve()
        for at, value in curve[told:]:
            rate = (at - first) / (time.monotonic() - begin)
            print(f"{run.name}: {at:>9,} of {wanted:,} steps, return {value:9.2f}, {rate:.0f} steps/s", flush=True)
        told = max(told, len(curve))
        if process.returncode is not None:
            return


def scores(curve: Sequence[tuple[int, float]]) -> dict[str, float]:
    """Both ways to say what a run reached."""
    values = [value for _, value in curve]
    return {"last": statistics.fmean(values[-LAST:]), "best": max(values)}


def summary(runs: Sequence[Run], steps: int | None) -> dict[str, Any]:
    """Scores by task and actor, ratios to the actor that does not spike, and their means over tasks.

    Curves are cut where the shortest of a task ends, so that all had as many steps.
    """
    found: list[dict[str, Any]] = []
    by_task = {task: list(group) for task, group in itertools.groupby(runs, key=lambda run: run.task)}
    for task, group in by_task.items():
        curves = {run: [point for point in run.curve() if steps is None or point[0] <= steps] for run in group}
        curves = {run: curve for run, curve in curves.items() if curve}
        shared = min((curve[-1][0] for curve in curves.values()), default=0)
        for run, curve in curves.items():
            cut = [point for point in curve if point[0] <= shared]
            if cut:
                found.append({"task": task, "actor": run.actor, "seed": run.seed, "curve": cut, **scores(cut)})
    table: list[dict[str, Any]] = []
    for (task, actor), rows in itertools.groupby(found, key=lambda row: (row["task"], row["actor"])):
        listed = list(rows)
        entry: dict[str, Any] = {
            "task": task, "actor": actor, "seeds": len(listed), "steps": listed[0]["curve"][-1][0],
        }  # fmt: skip
        for kind in ("last", "best"):
            values = [row[kind] for row in listed]
            entry[kind] = statistics.fmean(values)
            entry[f"{kind}_std"] = statistics.stdev(values) if len(values) > 1 else 0.0
        table.append(entry)
    for entry in table:
        other = next((row for row in table if (row["task"], row["actor"]) == (entry["task"], BASELINE)), None)
        for kind in ("last", "best"):  # a ratio says nothing unless both are above zero
            sensible = other is not None and other[kind] > 0 and entry[kind] > 0
            entry[f"{kind}_ratio"] = entry[kind] / other[kind] if other is not None and sensible else None
    apr = {
        actor: {
            kind: _mean([row[f"{kind}_ratio"] for row in table if row["actor"] == actor]) for kind in ("last", "best")
        }
        for actor in dict.fromkeys(row["actor"] for row in table)
    }
    return {"machine": machine(), "table": table, "average_performance_ratio": apr, "runs": found}


def _mean(ratios: Sequence[float | None]) -> float | None:
    known = [ratio for ratio in ratios if ratio is not None]
    return statistics.fmean(known) if known and len(known) == len(ratios) else None


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The table as text."""
    yield f"{'task':>16} {'actor':>7} {'seeds':>5} {'steps':>9} {'last ten':>19} {'best':>19} {'ratios':>12}"
    for row in found["table"]:
        cells = [f"{row[kind]:9.1f} ± {row[f'{kind}_std']:7.1f}" for kind in ("last", "best")]
        ratios = " ".join(
            "   -" if row[f"{kind}_ratio"] is None else f"{row[f'{kind}_ratio']:5.2f}" for kind in ("last", "best")
        )
        head = f"{row['task']:>16} {row['actor']:>7} {row['seeds']:>5} {row['steps']:>9,}"
        yield f"{head} {cells[0]} {cells[1]} {ratios:>12}"
    for actor, ratio in found["average_performance_ratio"].items():
        told = ", ".join(f"{kind} {'-' if value is None else f'{value:.2%}'}" for kind, value in ratio.items())
        yield f"average performance ratio of {actor}: {told}"


def main() -> None:
    if "--speed" in sys.argv:
        sys.argv.remove("--speed")
        rl_speed.main()
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = sorted(path.stem[3:] for path in (ROOT / "configs").glob("rl_*.yaml") if "actor" not in path.stem)
    parser.add_argument("--tasks", nargs="+", choices=known, default=list(TASKS))
    parser.add_argument("--actors", nargs="+", choices=ACTORS, default=list(ACTORS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="of the environment; default: what the config says")
    parser.add_argument("--every", type=int, help="steps between evaluations; default: what the config says")
    parser.add_argument("--jobs", type=int, default=1, help="runs beside each other")
    parser.add_argument("--folder", type=Path, default=Path("runs/rl"))
    parser.add_argument("--json", type=Path, help="write scores and curves here")
    parser.add_argument("--picture", type=Path, help="draw the curves here")
    parser.add_argument("--show", action="store_true", help="train nothing, read what is there")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    # seeds last: every actor has one run before any has two
    order = itertools.product(arguments.seeds, arguments.tasks, arguments.actors)
    runs = [Run(task, actor, seed, folder) for seed, task, actor in order]
    if not arguments.show:
        train(runs, arguments.steps, arguments.every, arguments.jobs)
    runs.sort(key=lambda run: (run.task, ACTORS.index(run.actor), run.seed))
    found = summary(runs, arguments.steps)
    print("\n".join(lines(found)))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if arguments.picture:
        draw(found, arguments.picture)


def draw(found: dict[str, Any], path: Path) -> None:
    """Curves of every task, an actor a colour, with a band over seeds; several tasks: ``NAME-TASK.png`` each."""
    tasks = list(dict.fromkeys(row["task"] for row in found["runs"]))
    for task in tasks:
        curves: dict[str, list[tuple[list[int], list[float]]]] = {}
        for row in found["runs"]:
            if row["task"] == task:
                steps, returns = zip(*row["curve"], strict=True)
                curves.setdefault(row["actor"], []).append((list(steps), list(returns)))
        target = path if len(tasks) == 1 else path.with_stem(f"{path.stem}-{task}")
        print(f"Curves: {pictures.save(pictures.mean_curves(curves, title=task), target)}")


if __name__ == "__main__":
    main()
