"""Importing SpikingJelly's networks without torchvision, of which they take one function for downloads."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_NAMES = ("torchvision", "torchvision.models", "torchvision.models.utils")


def spikingjelly_module(name: str) -> ModuleType:
    """``spikingjelly.activation_based.NAME``, or the package itself for an empty name."""
    with warnings.catch_warnings(), _torchvision():
        warnings.simplefilter("ignore")  # what its dependencies say at import is not our matter
        return importlib.import_module(f"spikingjelly.activation_based.{name}".rstrip("."))


@contextmanager
def _torchvision() -> Iterator[None]:
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    modules = {name: ModuleType(name) for name in _NAMES}
    modules[_NAMES[-1]].load_state_dict_from_url = None  # type: ignore[attr-defined]
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in _NAMES:
            del sys.modules[name]
