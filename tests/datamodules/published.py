"""What is checked of every published data set: its files are made in their true bytes, and read in every way."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import pickle
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch

from jellyfit import events
from jellyfit.datamodules import Batch, SpikingDataModule
from jellyfit.datamodules.recordings import Recording, RecordingsModule
from jellyfit.errors import DataError
from tests.conftest import CONFIGS, Cli


class Truth(NamedTuple):
    """What one sample must be."""

    part: str | None  # None: the publishers give none, so it is drawn
    label: int
    events: list[tuple[int, int, int, int]]  # t, x, y, p


def draw(seed: int, count: int, size: tuple[int, int], step: int = 1000, first: int = 0) -> list[tuple[int, ...]]:
    """Events at times that rise, some of them at the same instant."""
    random = np.random.default_rng(seed)
    t = first + np.cumsum(random.integers(0, step, count))
    x, y, p = random.integers(0, size[1], count), random.integers(0, size[0], count), random.integers(0, 2, count)
    return [tuple(event) for event in np.stack([t, x, y, p], axis=1).tolist()]


def slow_frames(recorded: Sequence[tuple[int, ...]], T: int, size: tuple[int, int]) -> np.ndarray:
    """Frames by number, one event after another."""
    frames = np.zeros((T, 2, *size), int)
    for i, (_, x, y, p) in enumerate(recorded):
        frames[min(i // max(len(recorded) // T, 1), T - 1) if len(recorded) >= T else T - 1, p, y, x] += 1
    return frames


_DOWNLOADERS = ("torchaudio", "torchvision", "torchvision.datasets", "torchvision.datasets.utils")


class _StandIn(types.ModuleType):
    """Has whatever is asked for; a class can be made of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def spikingjelly_datasets(name: str) -> Any:
    """``spikingjelly.datasets.NAME``; it imports packages that what is compared here does not use."""
    pytest.importorskip("spikingjelly", reason="SpikingJelly is not installed")
    absent = [name for name in _DOWNLOADERS if importlib.util.find_spec(name.split(".")[0]) is None]
    stand_ins = {module: _StandIn(module) for module in absent}
    with mock.patch.dict(sys.modules, stand_ins):
        try:
            found = importlib.import_module(f"spikingjelly.datasets.{name}")
        except ImportError as error:
            pytest.skip(f"SpikingJelly's data sets cannot be imported: {error}")
        loaded = {key: module for key, module in sys.modules.items() if key.startswith("spikingjelly")}
    sys.modules.update(loaded)
    return found


class Published:
    """Tests of one data set. A subclass says how its files are made, and which config trains on it."""

    module: ClassVar[type[RecordingsModule]]
    config: ClassVar[str]
    net: ClassVar[tuple[str, ...]] = ("--model.backbone.channels=[2,2]", "--model.backbone.hidden=[]")
    frames: ClassVar[tuple[str, ...]] = ("--data.frames.T=2",)
    settings: ClassVar[dict[str, Any]] = {}
    first_file: ClassVar[str]

    def write(self, root: Path) -> dict[str, Truth]:
        """Write a small data set under ``root``; what each of its samples must be, by id."""
        raise NotImplementedError

    def theirs(self, root: Path, name: str) -> dict[str, np.ndarray]:
        """Columns t, x, y, p of a sample as SpikingJelly reads the same bytes."""
        raise NotImplementedError

    def arranged(self, frames: np.ndarray) -> np.ndarray:
        """What a network sees of frames ``[T, 2, H, W]``."""
        return frames

    # ------------------------------------------------------------

    @pytest.fixture
    def made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, Truth]]:
        root = tmp_path / "data"
        root.mkdir()
        truth = self.write(root)
        self.publish(root, monkeypatch)
        return root, truth

    def publish(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The data set's MD5s become those of the files that were made, and nothing can be downloaded."""
        files = []
        for file in self.module.files:
            content = (root / file.name).read_bytes() if (root / file.name).is_file() else None
            md5 = hashlib.md5(content).hexdigest() if content is not None else file.md5
            files.append(dataclasses.replace(file, md5=md5, urls=()))
        monkeypatch.setattr(self.module, "files", tuple(files))

    def flags(self) -> list[str]:
        """The same settings for the command line."""
        return [f"--data.{name}={value}" for name, value in self.settings.items()]

    def data(self, root: Path, **settings: Any) -> RecordingsModule:
        return self.module(
            root,
            **{"frames": events.FixedNumber(T=3), "prepare_workers": 0, "batch_size": 4, **self.settings, **settings},
        )

    def batches(self, data: SpikingDataModule) -> list[Batch]:
        data.setup("fit")
        data.setup("test")
        return [
            batch
            for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
            for batch in loader
        ]

    def test_every_sample_is_read_exactly(self, made: tuple[Path, dict[str, Truth]]) -> None:
        root, truth = made
        data = self.data(root)
        found: dict[str, tuple[str, Recording, int]] = {}
        for part in ("train", "val", "test"):
            for name, recording, label in data.samples(part):
                assert name not in found, "no sample stands in two parts"
                found[name] = (part, recording, label)
        assert set(found) == set(truth)
        for name, (part, label, recorded) in truth.items():
            assert part in (found[name][0], None) or (found[name][0], part) == ("val", "train"), "the publishers' parts"
            assert found[name][2] == label
            assert [tuple(map(int, event)) for event in data.read(found[name][1]).tolist()] == recorded

    def test_frames_equal_those_of_one_event_after_another(self, made: tuple[Path, dict[str, Truth]]) -> None:
        root, truth = made
        for batch in self.batches(self.data(root)):
            for n, name in enumerate(batch.ids or ()):
                expected = self.arranged(slow_frames(truth[name].events, 3, self.module.sensor_size))
                np.testing.assert_array_equal(batch.x[:, n].numpy(), expected)
                assert int(batch.y[n]) == truth[name].label

    def test_frames_equal_spikingjelly_s(self, made: tuple[Path, dict[str, Truth]]) -> None:
        utils = spikingjelly_datasets("utils")
        root, truth = made
        for batch in self.batches(self.data(root))[:2]:
            for n, name in enumerate(batch.ids or ()):
                columns = self.theirs(root, name)
                assert len(columns["t"]) == len(truth[name].events)
                frames = utils.integrate_events_by_fixed_frames_number(columns, "number", 3, *self.module.sensor_size)
                np.testing.assert_array_equal(batch.x[:, n].numpy(), frames)

    def test_every_cache_gives_the_same_and_is_used_again(
        self, made: tuple[Path, dict[str, Truth]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root, _ = made
        kept = ({"cache": "events"}, {"cache": "frames"}, {"cache": "events", "compress": True})
        expected = self.batches(self.data(root, cache="none"))
        before = {settings["cache"]: self.batches(self.data(root, **settings)) for settings in kept}
        monkeypatch.setattr(self.module, "decode", lambda *_: pytest.fail("decoded again"))
        for settings in kept:
            for found in (before[settings["cache"]], self.batches(self.data(root, **settings))):
                assert [batch.ids for batch in found] == [batch.ids for batch in expected]
                assert all(torch.equal(a.x, b.x) for a, b in zip(found, expected, strict=True))

    @pytest.mark.parametrize("cache", ["events", "none"])
    def test_worker_processes_give_the_same(self, made: tuple[Path, dict[str, Truth]], cache: str) -> None:
        root, _ = made
        both = (self.batches(self.data(root, cache=cache, num_workers=n, pin_memory=False)) for n in (0, 2))
        (one, *_), (two, *_) = both
        assert one.ids == two.ids
        assert torch.equal(one.x, two.x)
        assert len(pickle.loads(pickle.dumps(self.data(root))).classes) == len(self.module.classes)

    def test_missing_files_are_named_with_their_page_and_place(self, tmp_path: Path) -> None:
        with pytest.raises(DataError) as told:
            self.module(tmp_path, download=False).prepare_data()
        for file in self.module.files:
            if file.needed:
                assert file.name in str(told.value)
                assert file.md5 is None or f"MD5 {file.md5}" in str(told.value)
                assert file.size is None or f"{file.size / 1e6:,.0f} MB" in str(told.value)
        assert self.module.page in str(told.value)
        assert str(tmp_path.resolve()) in str(told.value)

    def test_a_file_that_was_cut_short_is_named(self, made: tuple[Path, dict[str, Truth]]) -> None:
        root, _ = made
        path = root / self.first_file
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(DataError, match=rf"{self.first_file} is not the file that it should be: its MD5"):
            self.data(root).prepare_data()

    def test_the_config_trains_and_tests(self, made: tuple[Path, dict[str, Truth]], cli: Cli) -> None:
        root, _ = made
        for verb in ("fit", "test"):
            outcome = cli(
                verb, "-c", CONFIGS / self.config, f"--data.root={root}", "--data.prepare_workers=0",
                "--data.batch_size=2", "--trainer.fast_dev_run=true", *self.net, *self.frames, *self.flags(),
            )  # fmt: skip
            assert outcome.status == 0, outcome.err
            assert {"fit": "train/loss", "test": "test/accuracy"}[verb] in outcome.out

    def test_it_is_prepared_and_checked_from_the_command_line(
        self, made: tuple[Path, dict[str, Truth]], cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root, truth = made
        arguments = ("-c", CONFIGS / self.config, f"--data.root={root}", "--data.prepare_workers=0", *self.flags())
        outcome = cli("data", "prepare", *arguments)
        assert outcome.status == 0, outcome.err
        tested = sum(sample.part in ("test", None) for sample in truth.values())
        assert None in {sample.part for sample in truth.values()} or f"test  {tested:7,} samples" in outcome.out
        if self.module.expected:
            outcome = cli("data", "check", *arguments)
            assert outcome.status == 1, "this is not the whole data set"
            assert "the whole data set has" in outcome.out
        parts = {sample.part for sample in truth.values()}
        counts = {part or "all": sum(sample.part == part for sample in truth.values()) for part in parts}
        monkeypatch.setattr(self.module, "expected", counts)
        outcome = cli("data", "check", *arguments)
        assert outcome.status == 0, outcome.err
        assert "every byte is as it should be" in outcome.out
