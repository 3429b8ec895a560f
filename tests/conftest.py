"""What tests share: the real command line run in this process or in another, and data made once."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"


@pytest.fixture(scope="session")
def digits_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the simulated digits, shared by all test processes."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "digits-data"


@dataclass
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str


Cli = Callable[..., Outcome]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Run ``jellyfit ARGS`` in this process, from an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["jellyfit"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    from jellyfit.__main__ import main

    def run(*args: object) -> Outcome:
        capfd.readouterr()
        status = 0
        with warnings.catch_warnings():
            try:
                main([str(arg) for arg in args])
            except SystemExit as stop:
                status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        captured = capfd.readouterr()
        return Outcome(status, captured.out, captured.err)

    yield run


def start(folder: Path, *args: object, **environment: str) -> subprocess.Popen[str]:
    """Start ``python -m jellyfit ARGS`` from ``folder``; warnings are errors there too where they are ours."""
    return subprocess.Popen(
        [sys.executable, "-m", "jellyfit", *map(str, args)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait(process: subprocess.Popen[str], seconds: float = 300) -> Outcome:
    """Wait for a process and give how it ended."""
    out, err = process.communicate(timeout=seconds)
    return Outcome(process.returncode, out, err)
