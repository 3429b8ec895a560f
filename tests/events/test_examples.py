"""The examples in the docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import re

import made_files as made
import pytest

from jellyfit import events
from jellyfit.events.formats import FORMATS
from tests.conftest import ROOT


@pytest.mark.parametrize(
    "name", ["events.cutting", "events.files", "events.formats.hdf5", "events.summary", "pictures.animation"]
)
def test_the_examples_run(name):
    outcome = doctest.testmod(importlib.import_module(f"jellyfit.{name}"))
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_the_code_in_the_documentation_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = made.events(made.random_rows(200, 128, 128, 100_000))
    events.write_events("recording.aedat", rows)
    (tmp_path / "recording_labels.csv").write_text("class,startTime_usec,endTime_usec\n3,0,50000\n4,50000,100000\n")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/events.md").read_text(), re.DOTALL)
    space: dict[str, object] = {}
    for block in blocks:
        exec(block, space)
    assert space["count"] == 200
    assert space["frames"].sum() == 200
    assert (events.read_events("out.npz") == rows).all()
    assert sum(int(line.split()[1]) for line in capsys.readouterr().out.splitlines()[1:]) == 200


def test_the_documentation_lists_every_format():
    rows = re.findall(
        r"^\| `(\w+)` \| `(\.\w+)` \|.*\| (.*?) ?\|$", (ROOT / "docs/events.md").read_text(), re.MULTILINE
    )
    assert {(name, suffix, bool(written)) for name, suffix, written in rows} == {
        (known.name, known.suffixes[0], known.writes) for known in FORMATS
    }
