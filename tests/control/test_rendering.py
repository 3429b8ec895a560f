"""MuJoCo's pictures without a display: what is chosen, and that a broken driver neither hangs nor ends the run."""

from __future__ import annotations

import subprocess
import sys
import time
from types import ModuleType

import pytest

from jellyfit.control import rendering
from jellyfit.control.rendering import choose_renderer
from jellyfit.errors import ConfigError


@pytest.fixture(autouse=True)
def headless(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "PYOPENGL_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MUJOCO_GL", "")  # and whatever is set below is put back
    monkeypatch.setitem(sys.modules, "mujoco", ModuleType("mujoco"))


@pytest.mark.parametrize(("working", "chosen"), [({"egl", "osmesa"}, "egl"), ({"osmesa"}, "osmesa")])
def test_the_first_that_can_draw_is_chosen(working: set[str], chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_can_draw", lambda name, seconds: name in working)
    assert choose_renderer() == chosen
    monkeypatch.setattr(rendering, "_can_draw", lambda name, seconds: pytest.fail("it has been chosen"))
    assert choose_renderer() == chosen


def test_drivers_that_crash_or_hang_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = "import os, time; os.kill(os.getpid(), 11) if '{0}' == 'egl' else time.sleep(60)"
    monkeypatch.setattr(rendering, "_TRY", broken)
    begin = time.monotonic()
    with pytest.raises(ConfigError, match="neither by EGL nor by OSMesa; install one"):
        choose_renderer(seconds=1.0)
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize("name", ["DISPLAY", "WAYLAND_DISPLAY"])
def test_nothing_is_changed_where_there_is_a_display_or_no_mujoco(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_can_draw", lambda name, seconds: pytest.fail("nothing is to be tried"))
    with monkeypatch.context() as patch:
        patch.setenv(name, ":0")
        assert not choose_renderer()
    monkeypatch.delitem(sys.modules, "mujoco")
    assert not choose_renderer()


def test_mujoco_is_drawn_or_it_is_told_why_not() -> None:
    pytest.importorskip("mujoco", reason="mujoco is not installed: pip install 'jellyfit[rl]'")
    code = """
import numpy as np
from jellyfit.datamodules import Environments
from jellyfit.errors import ConfigError
frames = []
try:
    Environments("InvertedPendulum-v5").evaluate(lambda obs: np.zeros((len(obs), 1), np.float32), 1, frames)
    print("drawn", len(frames), frames[0].shape, frames[0].std() > 1)
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("drawn") or "install one" in done.stdout
    assert not done.stdout.startswith("drawn") or done.stdout.strip().endswith("(480, 480, 3) True")
