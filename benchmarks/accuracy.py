"""What three networks reach on the digits events: trained and tested by the command line, told in README's table.

    python benchmarks/accuracy.py [--root data/digits] [--threads N] [--json benchmarks/results/accuracy.json]
    python benchmarks/accuracy.py --table   # only write the table of README anew from the JSON

Seed 0, once each, the file-order split. The time is that of ``jellyfit fit``, data prepared before, and says little
where other programs run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from timing import machine

from jellyfit.callbacks import read_metrics

ROOT = Path(__file__).parent.parent
CONFIGS = ("digits.yaml", "plif_digits.yaml", "sew_digits.yaml")
BEGIN, END = "<!-- accuracy -->\n", "<!-- /accuracy -->\n"


def jellyfit(*args: object, threads: int | None, folder: Path) -> str:
    """Run the command line in ``folder``, and give what it printed."""
    command = [sys.executable, "-m", "jellyfit", *map(str, args)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def measure(config: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train and test one config."""
    path = ROOT / "configs" / config
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    common = ("-c", path, f"--data.root={options.root.resolve()}", f"--runs={folder}", *options.extra)
    begin = time.perf_counter()
    jellyfit("fit", *common, threads=options.threads, folder=folder)
    seconds = time.perf_counter() - begin
    printed = jellyfit("test", *common, "--ckpt_path=best", threads=options.threads, folder=folder)
    found = re.search(r"jellyfit test: (\w+), ([\d,]+) parameters", printed)
    assert found is not None, printed
    (row,) = read_metrics(folder / path.stem / "0" / "test_metrics.csv")
    return {
        "config": config,
        "backbone": found[1],
        "parameters": int(found[2].replace(",", "")),
        "T": settings["data"]["init_args"]["frames"]["init_args"]["T"],
        "epochs": settings["trainer"]["max_epochs"],
        "test_accuracy": row["test/accuracy"],
        "fit_seconds": seconds,
    }


def table(figures: dict[str, Any]) -> str:
    """The lines between README's marks."""
    lines = ["| network | config | parameters | epochs | test accuracy | time to train |", "|---|---|---|---|---|---|"]
    for row in figures["rows"]:
        took = f"{row['fit_seconds']:.0f} s" if row["fit_seconds"] < 120 else f"{row['fit_seconds'] / 60:.1f} min"
        lines.append(
            f"| {row['backbone']} | [`{row['config']}`](configs/{row['config']}) | {row['parameters']:,} "
            f"| {row['epochs']} | {100 * row['test_accuracy']:.1f} % | {took} |"
        )
    return "\n".join(lines) + "\n"


def rewrite(text: str, figures: dict[str, Any]) -> str:
    """README with the table of ``figures`` between its marks."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + table(figures) + END + rest.split(END)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("data/digits"), help="of the digits events")
    parser.add_argument("--threads", type=int, help="of each run, default: PyTorch's")
    parser.add_argument("--configs", nargs="+", choices=CONFIGS, default=CONFIGS)
    parser.add_argument("--extra", nargs="*", default=[], help="further settings of every run, as KEY=VALUE")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/accuracy.json")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--table", action="store_true", help="measure nothing, write the table from the JSON")
    options = parser.parse_args()
    options.extra = [f"--{setting}" for setting in options.extra]
    if options.threads:
        torch.set_num_threads(options.threads)
    if not options.table:
        figures: dict[str, Any] = {"machine": machine(), "rows": []}
        with tempfile.TemporaryDirectory() as folder:
            settings = ("-c", ROOT / "configs" / options.configs[0], f"--data.root={options.root.resolve()}")
            jellyfit("data", "prepare", *settings, threads=options.threads, folder=Path(folder))
            for config in options.configs:
                figures["rows"].append(measure(config, options, Path(folder)))
                print(json.dumps(figures["rows"][-1]), flush=True)
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    figures = json.loads(options.json.read_text(encoding="utf-8"))
    options.readme.write_text(rewrite(options.readme.read_text(encoding="utf-8"), figures), encoding="utf-8")
    print(table(figures), end="")


if __name__ == "__main__":
    main()
