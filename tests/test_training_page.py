"""Every piece of YAML in ``docs/training.md`` trains, behind a config of ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from jellyfit import losses
from tests.conftest import CONFIGS, ROOT, Cli

PAGE = (ROOT / "docs/training.md").read_text()
PIECES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def keys(piece: str) -> str:
    content = yaml.safe_load(piece)
    return ",".join([*content.get("model", {}).get("init_args", {}), *content.get("trainer", {})])


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated.*:DeprecationWarning")  # torch's compiler uses it
@pytest.mark.parametrize(
    "piece",
    [pytest.param(piece, marks=[pytest.mark.slow] if "compile" in piece else []) for piece in PIECES],
    ids=[keys(piece) for piece in PIECES],
)
def test_the_yaml_trains(cli: Cli, tmp_path: Path, digits_root: Path, piece: str) -> None:
    (tmp_path / "piece.yaml").write_text(piece)
    alone = ("--trainer.devices=1", "--trainer.strategy=auto") if "devices" in piece else ()
    small = ("--trainer.fast_dev_run=1", f"--data.root={digits_root}", "--data.batch_size=4", *alone)
    outcome = cli("fit", "-c", CONFIGS / "digits.yaml", "-c", "piece.yaml", *small)
    assert outcome.status == 0, outcome.err
    assert "train/loss" in outcome.out


def test_the_table_names_every_loss() -> None:
    named = set(re.findall(r"^\| `(\w+)`", PAGE[: PAGE.index("## Schedules")], re.MULTILINE))
    own = {name for name in losses.__all__ if isinstance(getattr(losses, name), type)}
    assert named == {name for name in own if issubclass(getattr(losses, name), losses.Loss)} - {"Loss"}


def test_the_page_is_in_the_documentation() -> None:
    assert "training.md" in (ROOT / "mkdocs.yml").read_text()
    reference = (ROOT / "docs/reference.md").read_text()
    assert "::: jellyfit.schedules" in reference and "::: jellyfit.parameter_groups" in reference
