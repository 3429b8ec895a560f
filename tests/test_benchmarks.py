"""The benchmarks run and give figures that make sense; how large they are is no test's business."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

PEERS = ("SpikingJelly", "snnTorch", "Norse")


def run(script: str, folder: Path, *args: str) -> tuple[dict[str, Any], str]:
    """Figures and printed table of a benchmark."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *args, "--json", str(folder / "figures.json")],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "figures.json").read_text()), done.stdout


def medians(figures: Any) -> Iterator[float]:
    if isinstance(figures, dict):
        if "median" in figures:
            yield from (figures["median"], figures["low"], figures["high"])
        for value in figures.values():
            yield from medians(value)
    elif isinstance(figures, list):
        for value in figures:
            yield from medians(value)


def assert_sound(figures: dict[str, Any]) -> None:
    found = list(medians(figures))
    assert found
    assert all(math.isfinite(figure) and figure > 0 for figure in found)
    assert figures["checks"]
    for check in figures["checks"]:
        assert check["equal"], check
        assert check["differing"] == 0, check


@pytest.mark.slow
def test_every_section_of_the_neuron_benchmark_runs(tmp_path: Path) -> None:
    figures, table = run(
        "neurons.py", tmp_path, "--quick", "--neurons", "LIF", "--steps", "3", "--sizes", "256", "--point", "3", "2",
        "16", "--seconds", "0.05", "--threads", "1",
    )  # fmt: skip
    assert_sound(figures)
    (cell,) = figures["cells"]
    assert set(cell["times_copy"]) == {"copy fresh", "copy mapped"}
    assert set(cell["parts_times_copy"]) == {"kernels/fresh", "kernels/mapped", "function/fresh", "function/mapped"}
    for library, version in figures["libraries"].items():
        assert (library in cell["times_jellyfit"]) == (version is not None)
        assert (library in figures["point"]["times_jellyfit"]) == (version is not None)
        assert version is not None or cell["skipped"][library] == "not installed"
    assert figures["point"]["first_call_seconds"]["jellyfit"] > 0
    assert all(check["equal"] for check in figures["point"]["checks"])
    assert [row["what"] for row in figures["overhead"]] == ["forward", "forward + backward"]
    assert figures["memory"][0]["bytes_per_element"]["eager"] > figures["memory"][0]["bytes_per_element"]["jellyfit"]
    (first_use,) = figures["first-use"]
    assert all(first_use[cache]["first forward"] > 0 for cache in ("empty", "filled"))
    assert "LIF" in table


def test_the_overhead_is_the_difference_between_steps_of_one_net(tmp_path: Path) -> None:
    figures, table = run("overhead.py", tmp_path, "--steps", "5")
    assert figures["steps"] == 5
    assert figures["plain_ms"] > 0 and figures["jellyfit_ms"] > 0
    low, high = figures["overhead_percent_quartiles"]
    assert low <= figures["overhead_percent"] <= high
    assert f"overhead {figures['overhead_percent']:.2f} %" in table


def test_without_other_libraries_only_eager_pytorch_and_copies_are_measured(tmp_path: Path) -> None:
    figures, table = run(
        "neurons.py", tmp_path, "--quick", "--only", "cells", "memory", "--steps", "2", "--sizes", "64", "--seconds",
        "0.02", "--threads", "1", "--without", *PEERS,
    )  # fmt: skip
    assert_sound(figures)
    assert [cell["neuron"] for cell in figures["cells"]] == ["IF", "LIF", "PLIF", "EIF", "Izhikevich"]
    for cell in figures["cells"]:
        assert set(cell["times_jellyfit"]) == {"eager"}
        assert all(cell["skipped"][library] == "not installed" for library in PEERS)
    assert "not installed" in table


def test_the_events_benchmark_compares_every_path_before_it_is_timed(tmp_path: Path) -> None:
    figures, table = run("events.py", tmp_path, "--events", "2000", "--repeats", "2")
    peers = {name for name, module in (("SpikingJelly", "spikingjelly"), ("tonic", "tonic")) if find_spec(module)}
    ours = {"memory copy", "jellyfit (C)", "jellyfit NumPy", "bincount", "add.at"}
    assert {row["path"] for row in figures["frames"]} == ours | peers
    paths = {(row["what"], row["path"]) for row in figures["representations"]}
    each = ("jellyfit (C)", "jellyfit NumPy", "jellyfit torch", "usual NumPy")
    assert paths >= {(what, path) for what in ("voxel grid", "time surface") for path in each}
    assert all(row["ms"] > 0 for row in figures["frames"] + figures["representations"])
    assert ("tonic: not installed" in table) != (("voxel grid", "tonic") in paths)


def test_what_is_too_large_or_too_slow_is_left_out_and_said(tmp_path: Path) -> None:
    figures, table = run(
        "neurons.py", tmp_path, "--only", "cells", "--neurons", "IF", "--steps", "2", "--sizes", "64", "65536",
        "--seconds", "0.02", "--threads", "1", "--without", *PEERS, "--gib", "0.002", "--cap", "0",
    )  # fmt: skip
    small, large = figures["cells"]
    assert small["skipped"]["eager"].startswith("too slow")
    assert set(small["ms"]) == {"jellyfit", "kernels", "function", "copy fresh", "copy mapped"}
    assert large["skipped"]["all"].startswith("too large")
    assert "too slow" in table
    assert "skipped: too large" in table


@pytest.mark.slow
def test_the_open_neuromorphic_benchmark_runs(tmp_path: Path) -> None:
    figures, _ = run(
        "open_neuromorphic.py", tmp_path, "--quick", "--sizes", "16", "--steps", "4", "--batch", "2", "--threads", "1",
        "--without", *PEERS,
    )  # fmt: skip
    (net,) = figures["nets"]
    assert all(check["equal"] for check in figures["checks"])
    for name in ("Linear alone", "jellyfit", "eager"):
        row = net[name]
        assert row["forward_s"]["median"] > 0
        assert row["backward_s"]["median"] > 0
        assert math.isfinite(row["times_jellyfit"]["median"])
        assert row["peak_gib"] > 0
    assert all(net["skipped"][library] == "not installed" for library in PEERS)


def test_the_event_benchmark_counts_and_decodes(tmp_path: Path) -> None:
    figures, table = run("events.py", tmp_path, "--events", "2000", "--decode", "2000", "--repeats", "2")
    assert {row["path"] for row in figures["frames"]} >= {"jellyfit (C)", "jellyfit NumPy", "bincount", "memory copy"}
    assert {row["format"] for row in figures["decode"]} == {"aedat3", "atis", "npz"}
    for row in figures["frames"] + figures["decode"]:
        assert row["ms"] > 0
        assert math.isfinite(row["M_events_per_s"])
    assert all(row["times_jellyfit"] == 1 for row in figures["decode"] if row["path"] == "jellyfit (C)")
    assert "x jellyfit" in table


def test_the_benchmark_of_loading_looks_at_samples_epochs_and_memory(tmp_path: Path) -> None:
    figures, table = run(
        "loading.py", tmp_path, "--samples", "100", "--sample-events", "500", "--recording-events", "2000000",
        "--seconds", "0.05",
    )  # fmt: skip
    for row in (figures["one_sample"], figures["one_epoch"]):
        assert row["times_other"]["median"] > 0
        assert all(each["median"] > 0 for each in row["ms"].values())
    assert figures["one_epoch"]["samples"] == 90
    grown = figures["memory"]
    assert grown["grown_megabytes"] < grown["file_megabytes"] / 2, "a recording is not held as a whole"
    assert "one epoch" in table


@pytest.mark.slow
def test_the_benchmark_of_training_steps_compares_nets_before_it_times_them(tmp_path: Path) -> None:
    figures, table = run(
        "training.py", tmp_path, "--quick", "--only", "nets", "memory", "profile", "--threads", "1", "--without",
        "snnTorch", "Norse",
    )  # fmt: skip
    assert_sound(figures)
    (net,) = figures["nets"]
    peers = [name for name, version in figures["libraries"].items() if version and name == "SpikingJelly"]
    assert list(net["times_jellyfit"]) == ["eager", *peers]
    assert [check["check"] for check in figures["checks"]] == [f"{name} and jellyfit" for name in ("eager", *peers)]
    assert figures["memory"][0]["mib"]["jellyfit"] > 0
    shares = figures["profile"][0]["percent"]
    assert sum(shares.values()) == pytest.approx(100)
    assert min(shares["neurons"], shares["convolutions"], shares["optimizer"]) > 0
    assert "PLIF-Net small" in table


def test_the_table_of_accuracies_is_what_was_measured() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import accuracy
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    figures = json.loads((ROOT / "benchmarks/results/accuracy.json").read_text())
    readme = (ROOT / "README.md").read_text()
    assert accuracy.rewrite(readme, figures) == readme
    assert [row["config"] for row in figures["rows"]] == list(accuracy.CONFIGS)
    (plif,) = [row for row in figures["rows"] if row["backbone"] == "PLIFNet"]
    assert plif["test_accuracy"] >= 0.93
    figures["rows"][0]["test_accuracy"] = 0.1234
    changed = accuracy.rewrite(readme, figures)
    assert "| 12.3 % |" in changed
    assert changed.split(accuracy.BEGIN)[0] == readme.split(accuracy.BEGIN)[0]


@pytest.mark.slow
def test_the_accuracy_benchmark_trains_tests_and_writes_its_table(tmp_path: Path, digits_root: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- accuracy -->\nold\n<!-- /accuracy -->\nbehind\n")
    extra = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_test_batches=1")
    figures, table = run(
        "accuracy.py", tmp_path, "--root", str(digits_root), "--threads", "1", "--configs", "plif_digits.yaml",
        "--readme", str(readme), "--extra", *extra,
    )  # fmt: skip
    (row,) = figures["rows"]
    assert (row["backbone"], row["config"]) == ("PLIFNet", "plif_digits.yaml")
    assert 0 <= row["test_accuracy"] <= 1
    text = readme.read_text()
    assert text.startswith("before\n<!-- accuracy -->\n| network |")
    assert text.endswith("<!-- /accuracy -->\nbehind\n")
    assert "old" not in text
    assert "PLIFNet" in table


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gymnasium") is None, reason="gymnasium is not installed: pip install 'jellyfit[rl]'")
def test_the_control_benchmark_trains_what_is_missing(tmp_path: Path) -> None:
    common = ("--tasks", "pendulum", "--actors", "san", "ann", "--seeds", "3", "--every", "600")
    figures, table = run("rl.py", tmp_path, *common, "--steps", "1200", "--jobs", "2", "--picture", "curves.png")
    assert [(row["actor"], row["seed"], [at for at, _ in row["curve"]]) for row in figures["runs"]] == [
        ("san", 3, [600, 1200]),
        ("ann", 3, [600, 1200]),
    ]
    assert "pendulum-ann-3:     1,200 of 1,200 steps" in table
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    before = (tmp_path / "runs" / "rl" / "pendulum-ann-3" / "0" / "metrics.csv").read_text()
    further, table = run("rl.py", tmp_path, *common, "--steps", "1800", "--actors", "san")
    (row,) = further["runs"]
    assert [at for at, _ in row["curve"]] == [600, 1200, 1800]
    assert row["curve"][:2] == figures["runs"][0]["curve"], "it went on"
    assert "pendulum-san-3:     1,800 of 1,800 steps" in table
    shown, table = run("rl.py", tmp_path, *common, "--show")
    assert [row["steps"] for row in shown["table"]] == [1200, 1200], "no further than the shortest"
    assert (tmp_path / "runs" / "rl" / "pendulum-ann-3" / "0" / "metrics.csv").read_text() == before


def test_scores_and_ratios_of_the_control_benchmark(tmp_path: Path) -> None:
    def curve(name: str, *returns: float) -> None:
        folder = tmp_path / "runs" / "rl" / name / "0"
        folder.mkdir(parents=True)
        rows = [f"{i},{i},{value},{100 * (i + 1)}" for i, value in enumerate(returns)]
        (folder / "metrics.csv").write_text("\n".join(["epoch,step,val/return,env_steps", *rows]) + "\n")

    curve("ant-san-0", *[0.0] * 3, *[10.0] * 9, 20.0)
    curve("ant-san-1", *[0.0] * 3, *[30.0] * 10)
    curve("ant-ann-0", *[0.0] * 3, *[20.0] * 9, 60.0)
    curve("hopper-san-0", 5.0, 15.0)
    curve("hopper-ann-0", 10.0, 10.0, 100.0)
    curve("hopper-popsan-0", -10.0, -10.0)
    figures, table = run("rl.py", tmp_path, "--show", "--tasks", "ant", "hopper", "--seeds", "0", "1")
    rows = {(row["task"], row["actor"]): row for row in figures["table"]}
    assert rows["ant", "san"]["seeds"] == 2
    assert rows["ant", "san"]["last"] == pytest.approx((11 + 30) / 2)
    assert rows["ant", "san"]["last_ratio"] == pytest.approx(20.5 / 24)
    assert rows["ant", "san"]["best_ratio"] == pytest.approx(25 / 60)
    assert rows["hopper", "ann"]["best"] == 10.0, "200 steps are what all have"
    assert rows["hopper", "popsan"]["last_ratio"] is None, "returns below zero have no ratio"
    apr = figures["average_performance_ratio"]
    assert apr["san"]["last"] == pytest.approx((20.5 / 24 + 1.0) / 2)
    assert apr["popsan"]["last"] is None
    assert apr["ann"] == {"last": 1.0, "best": 1.0}
    assert "average performance ratio of san: last 92.71%, best 95.83%" in table
