"""What is added to actions so that others are tried."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from jellyfit.errors import InputError

__all__ = ["ActionNoise", "GaussianNoise", "OrnsteinUhlenbeckNoise"]

Array = npt.NDArray[np.float32]


class ActionNoise(ABC):
    """Base of noises. A subclass writes :meth:`draw`; one that remembers, also the three others.

    Examples:
        >>> import numpy as np
        >>> from jellyfit.control import ActionNoise
        >>> class None_(ActionNoise):
        ...     def draw(self, shape, rng):
        ...         return np.zeros(shape, np.float32)
        >>> None_().draw((1, 2), np.random.default_rng(0)).tolist()
        [[0.0, 0.0]]
    """

    @abstractmethod
    def draw(self, shape: tuple[int, int], rng: np.random.Generator) -> Array:
        """Noise ``[environments, act_dim]``, in the actions' own units."""

    def forget(self, ended: npt.NDArray[np.bool_]) -> None:  # noqa: B027 most remember nothing
        """Begin anew in the environments ``[environments]`` whose episode ended."""

    def state_dict(self) -> dict[str, Any]:
        """What must be saved to go on exactly."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Go on from what was saved."""


class GaussianNoise(ActionNoise):
    """Independent normal noise.

    Args:
        std: standard deviation in the actions' units, default 0.1; at least 0.

    Raises:
        InputError: below 0 or not finite.

    Examples:
        >>> import numpy as np
        >>> from jellyfit.control import GaussianNoise
        >>> round(float(GaussianNoise(0.2).draw((1000, 2), np.random.default_rng(0)).std()), 1)
        0.2
    """

    def __init__(self, std: float = 0.1) -> None:
        self.std = _positive("GaussianNoise: std", std)

    def draw(self, shape: tuple[int, int], rng: np.random.Generator) -> Array:
        return (self.std * rng.standard_normal(shape)).astype(np.float32)


class OrnsteinUhlenbeckNoise(ActionNoise):
    """Noise that drifts: ``n ← n - theta n dt + std √dt N(0, 1)``, from 0 at the start of an episode.

    Args:
        std: default 0.2.
        theta: pull towards 0, default 0.15.
        dt: default 0.01.

    Raises:
        InputError: a value below 0 or not finite.

    Examples:
        >>> import numpy as np
        >>> from jellyfit.control import OrnsteinUhlenbeckNoise
        >>> noise, rng = OrnsteinUhlenbeckNoise(), np.random.default_rng(0)
        >>> noise.draw((1, 2), rng).shape
        (1, 2)
    """

    def __init__(self, std: float = 0.2, theta: float = 0.15, dt: float = 0.01) -> None:
        self.std = _positive("OrnsteinUhlenbeckNoise: std", std)
        self.theta = _positive("OrnsteinUhlenbeckNoise: theta", theta)
        self.dt = _positive("OrnsteinUhlenbeckNoise: dt", dt)
        self._value: npt.NDArray[np.float64] | None = None

    def draw(self, shape: tuple[int, int], rng: np.random.Generator) -> Array:
        if self._value is None or self._value.shape != shape:
            self._value = np.zeros(shape)
        step = self.std * np.sqrt(self.dt) * rng.standard_normal(shape)
        self._value = self._value * (1.0 - self.theta * self.dt) + step
        return self._value.astype(np.float32)

    def forget(self, ended: npt.NDArray[np.bool_]) -> None:
        if self._value is not None:
            self._value[ended] = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"value": None if self._value is None else self._value.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._value = None if state["value"] is None else np.array(state["value"])


def _positive(name: str, value: float) -> float:
    if not (np.isfinite(value) and value >= 0):
        raise InputError(f"{name} must be at least 0; got {value!r}.")
    return float(value)
