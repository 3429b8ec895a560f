"""Simulated events from real digits: the data set that needs no download."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from jellyfit import events
from jellyfit.datamodules.base import EventDataModule
from jellyfit.datamodules.cache import cached_folder
from jellyfit.errors import ConfigError
from jellyfit.frames import BatchTransform, FrameTransform
from jellyfit.progress import track

__all__ = ["Digits"]

_VERSION = 2  # of what is simulated; a new number makes a new cache
BOUNDS: dict[str, tuple[int, int]] = {"train": (0, 1000), "val": (1000, 1200), "test": (1200, 1797)}
"""First sample of each part in file order, and the one behind its last."""


class Digits(EventDataModule):
    """1,797 handwritten digits (real scans, bundled with scikit-learn) seen by a simulated event camera.

    Each 8x8 scan is magnified onto a 34x34 sensor and moved along N-MNIST's three saccades (300 ms); the camera model
    is :class:`jellyfit.events.DVSSimulator`. The events are made once and kept under ``root``, in a folder keyed by
    every parameter of the simulation; frames are integrated when training starts, so changing ``frames`` simulates
    nothing again. Always say "simulated events from real digits".

    The default split is by file order: 1,000 training, 200 validation, 597 test samples. Writers differ between the
    parts, which makes it harder than a shuffled split, and honest.

    Args:
        root: folder of the cache, default ``data/digits``.
        frames: how events become frames; default ``FixedNumber(T=10)``.
        batch_size, num_workers, pin_memory, seed: see :class:`~jellyfit.datamodules.SpikingDataModule`.
        split: ``"file-order"`` (default), or ``"shuffled"``: the same sizes drawn at random by ``seed``, with
            writers in common between the parts.
        simulator: the camera; default ``DVSSimulator()``.
        zoom: camera pixels per scan pixel, default 3.
        amplitude: size of the saccades in camera pixels, default 4.
        event_transforms, frame_transforms, batch_transforms: augmentation of the training samples, see
            :class:`~jellyfit.datamodules.EventDataModule`; default none.

    Source: scikit-learn's ``load_digits`` (Alpaydin and Kaynak, 1998, UCI); the saccades of Orchard et al., 2015.

    Examples:
        >>> from jellyfit.datamodules import Digits
        >>> from jellyfit.events import DVSSimulator, FixedNumber
        >>> data = Digits(frames=FixedNumber(T=8), simulator=DVSSimulator(threshold_on=0.3))
        >>> data.sensor_size, len(data.classes)  # prepare_data() then makes the events, once
        ((34, 34), 10)
    """

    sensor_size = (34, 34)
    classes = tuple("0123456789")

    def __init__(
        self,
        root: str | os.PathLike[str] = "data/digits",
        frames: events.Framing | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        pin_memory: bool | None = None,
        seed: int = 0,
        split: Literal["file-order", "shuffled"] = "file-order",
        simulator: events.DVSSimulator | None = None,
        zoom: float = 3.0,
        amplitude: float = 4.0,
        event_transforms: Sequence[events.EventTransform | events.EventMix | Callable[..., Any]] | None = None,
        frame_transforms: Sequence[FrameTransform | Callable[..., Any]] | None = None,
        batch_transforms: Sequence[BatchTransform] | None = None,
    ) -> None:
        super().__init__(
            root,
            frames,
            batch_size,
            num_workers,
            pin_memory,
            seed,
            in_memory=True,
            event_transforms=event_transforms,
            frame_transforms=frame_transforms,
            batch_transforms=batch_transforms,
        )
        if split not in ("file-order", "shuffled"):
            raise ConfigError(f"Digits(split={split!r}): expected 'file-order' or 'shuffled'.")
        self.split = split
        self.simulator = events.DVSSimulator() if simulator is None else simulator
        self.zoom = zoom
        self.amplitude = amplitude
        self._folder: Path | None = None
        self._events: npt.NDArray[Any] | None = None
        self._offsets: npt.NDArray[np.int64] | None = None

    def prepare_data(self) -> None:
        """Simulate the events unless they are in the cache."""
        self._folder = cached_folder(self.root, "events", self._parameters(), self._simulate, "about 200 MB")

    def _parameters(self) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "sensor_size": list(self.sensor_size),
            "zoom": self.zoom,
            "amplitude": self.amplitude,
            "simulator": self.simulator.key(),
        }

    def _simulate(self, folder: Path) -> None:
        from sklearn.datasets import load_digits

        scans = load_digits().images / 16.0
        parts = []
        for index, scan in enumerate(track(scans, "Simulating events from digits")):
            video, times = events.three_saccades(scan, self.sensor_size, zoom=self.zoom, amplitude=self.amplitude)
            parts.append(self.simulator.simulate(video, times, sample=index))
        np.save(folder / "offsets.npy", np.cumsum([0, *map(len, parts)]))
        np.save(folder / "events.npy", np.concatenate(parts))

    def samples(self, split: str) -> Iterable[tuple[str, int, int]]:
        """Id, index in scikit-learn's order and label of every sample of ``split``."""
        from sklearn.datasets import load_digits

        labels = load_digits().target
        order = np.arange(len(labels))
        if self.split == "shuffled":
            order = np.random.default_rng(self.seed).permutation(len(labels))
        start, stop = BOUNDS[split]
        return [(f"digit-{i:04d}", int(i), int(labels[i])) for i in order[start:stop]]

    def read(self, source: int) -> events.EventArray:
        """Events of the digit with index ``source``."""
        if self._events is None or self._offsets is None:
            if self._folder is None:
                self.prepare_data()
            assert self._folder is not None
            self._events = np.load(self._folder / "events.npy", mmap_mode="r")
            self._offsets = np.load(self._folder / "offsets.npy")
        return self._events[self._offsets[source] : self._offsets[source + 1]]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_events": None, "_offsets": None}
