"""What the README says, runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, Cli

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.split("\n", 1)[0])
def test_python_snippets_run(code: str) -> None:
    assert len(code.splitlines()) <= 30
    names: dict[str, object] = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec"), names)
    if "y_seq" in names:
        assert list(names["y_seq"].shape) == [8, 4, 10]  # type: ignore[attr-defined]
    if "SquareLIF" in names:
        import torch

        node = names["SquareLIF"](step_mode="m")  # type: ignore[operator]
        assert node(torch.full((4, 1, 1), 2.0)).flatten().tolist() == [1.0, 1.0, 1.0, 1.0]
    if "MyCamera" in names:
        camera = names["MyCamera"]
        assert list(camera("nowhere").samples("train")) == []  # type: ignore[operator]


def test_the_yaml_trains(cli: Cli, tmp_path: Path, digits_root: Path) -> None:
    (text,) = blocks("yaml")
    (tmp_path / "readme.yaml").write_text(text)
    outcome = cli("fit", "-c", "readme.yaml", "--trainer.fast_dev_run=1", f"--data.root={digits_root}")
    assert outcome.status == 0, outcome.err


def test_the_yaml_is_the_digits_config() -> None:
    (text,) = blocks("yaml")
    shown, shipped = yaml.safe_load(text), yaml.safe_load((ROOT / "configs/digits.yaml").read_text())
    assert shown["model"]["init_args"]["backbone"] == shipped["model"]["init_args"]["backbone"]
    assert shown["model"]["init_args"]["loss"] == shipped["model"]["init_args"]["loss"]


def test_the_command_lines_run(cli: Cli, digits_root: Path) -> None:
    commands = [
        line.split("#")[0].split()[1:] for block in blocks("bash") for line in block.splitlines() if "jellyfit" in line
    ]
    commands = [command for command in commands if command[0] in ("fit", "test", "predict", "doctor")]
    assert {command[0] for command in commands} == {"fit", "test", "predict", "doctor"}
    small = (f"--data.root={digits_root}", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1")
    for command in commands:
        command = [str(ROOT / word) if word.startswith("configs/") else word for word in command]
        if command[0] == "fit":
            epochs = "4" if "last" in command else "1"
            command += [*small, *([] if "max_epochs" in " ".join(command) else [f"--trainer.max_epochs={epochs}"])]
        elif command[0] != "doctor":
            command += [f"--data.root={digits_root}", f"--trainer.limit_{command[0]}_batches=2"]
        outcome = cli(*command)
        assert outcome.status == 0, (command, outcome.err)


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"^make (\w+)", README + (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))
    assert {"digits", "test", "lint"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_linked_files_exist() -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_every_config_has_a_row() -> None:
    for path in (ROOT / "configs").glob("*.yaml"):
        assert f"configs/{path.name}" in README, path.name
