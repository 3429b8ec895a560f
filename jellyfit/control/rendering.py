"""Pictures of MuJoCo's environments where there is no display."""

from __future__ import annotations

import os
import subprocess
import sys

from jellyfit.errors import ConfigError

__all__ = ["choose_renderer"]

_TRY = "from mujoco.{0} import GLContext; context = GLContext(64, 64); context.make_current(); context.free()"


def choose_renderer(seconds: float = 30.0) -> str | None:
    """Let MuJoCo draw by EGL, else by OSMesa, where there is no display: sets the variable ``MUJOCO_GL``.

    Nothing is changed where there is a display, where ``MUJOCO_GL`` is set, or as long as MuJoCo has not been imported.
    Each is tried in a process of its own first: a broken driver may crash it, or never answer.

    Args:
        seconds: how long a try may take, default 30.

    Returns:
        The value of ``MUJOCO_GL``, if any.

    Raises:
        ConfigError: neither can draw; says what to install.

    Examples:
        >>> from jellyfit.control.rendering import choose_renderer
        >>> choose_renderer() in (None, "egl", "osmesa", "glfw")
        True
    """
    named = os.environ.get("MUJOCO_GL")
    if named or "mujoco" not in sys.modules or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY"))):
        return named
    for name in ("egl", "osmesa"):
        if _can_draw(name, seconds):
            os.environ["MUJOCO_GL"] = name
            return name
    raise ConfigError(
        "there is no display, and MuJoCo can draw neither by EGL nor by OSMesa; install one (Debian: libegl1 or "
        "libosmesa6), or set MUJOCO_GL"
    )


def _can_draw(name: str, seconds: float) -> bool:
    environment = {**os.environ, "MUJOCO_GL": name, "PYOPENGL_PLATFORM": name}
    command = [sys.executable, "-c", _TRY.format(name)]
    try:
        return (
            subprocess.run(command, env=environment, capture_output=True, timeout=seconds, check=False).returncode == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
