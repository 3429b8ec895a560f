"""Other libraries' decoders of event files and makers of frames, where they are installed."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

Columns = Mapping[str, Any]


class _Empty(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Empty modules for what SpikingJelly's data sets import and do not need to decode events."""

    names = ("torchvision", "torchaudio")

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        wanted = name.split(".")[0] in self.names
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if wanted else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Stub(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class _Stub(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@contextmanager
def spikingjelly_datasets(*names: str) -> Iterator[dict[str, Any]]:
    """SpikingJelly's modules of data sets, without torchvision and torchaudio if those are not installed."""
    finder = _Empty()
    sys.meta_path.append(finder)  # behind the others: an installed package comes first
    try:
        yield {name: importlib.import_module(f"spikingjelly.datasets.{name}") for name in names}
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if getattr(module, "__loader__", None) is finder]:
            del sys.modules[name]


def decoders() -> dict[str, dict[str, Callable[[Path], Columns]]]:
    """Functions path -> columns t, x, y, p for each format, by library."""
    found: dict[str, dict[str, Callable[[Path], Columns]]] = {"aedat3": {}, "atis": {}, "npz": {"np.load": _np_load}}
    if importlib.util.find_spec("spikingjelly") is not None:
        with spikingjelly_datasets("utils") as modules:
            utils = modules["utils"]
        found["aedat3"]["SpikingJelly"] = utils.load_aedat_v3
        found["atis"]["SpikingJelly"] = utils.load_ATIS_bin
    if importlib.util.find_spec("tonic") is not None:
        found["aedat3"]["tonic"] = _tonic_aedat3
    return found


def frame_makers(T: int, split_by: str, size: tuple[int, int]) -> dict[str, Callable[[Any], Any]]:
    """Functions events -> frames ``[T, 2, H, W]``, by library."""
    found: dict[str, Callable[[Any], Any]] = {}
    if importlib.util.find_spec("spikingjelly") is not None:
        with spikingjelly_datasets("utils") as modules:
            integrate = modules["utils"].integrate_events_by_fixed_frames_number
        found["SpikingJelly"] = lambda events: integrate({name: events[name] for name in "txyp"}, split_by, T, *size)
    if importlib.util.find_spec("tonic") is not None:
        from tonic.transforms import ToFrame

        by = {"number": "n_event_bins", "time": "n_time_bins"}[split_by]
        found["tonic"] = ToFrame((size[1], size[0], 2), **{by: T})
    return found


def _tonic_aedat3(path: Path) -> Columns:
    """What tonic's DVSGesture does for a recording, its fields taken out as there."""
    from tonic import io

    version, start, _ = io.read_aedat_header_from_file(str(path))
    found = io.get_aer_events_from_file(str(path), version, start)
    address = found["address"]
    x, y, p = (address >> 17) & 0x1FFF, (address >> 2) & 0x1FFF, (address >> 1) & 1
    return io.make_structured_array(x, y, found["timeStamp"], p)  # type: ignore[no-any-return]


def _np_load(path: Path) -> Columns:
    with np.load(path) as archive:
        return {name: archive[name] for name in "txyp"}
