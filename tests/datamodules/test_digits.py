"""Simulated events from real digits, and the cache they are kept in."""

from __future__ import annotations

import errno
import pickle
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
import torch

from jellyfit import events
from jellyfit.datamodules import CacheWarning, Digits
from jellyfit.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def digits(digits_root: Path) -> Digits:
    data = Digits(digits_root, batch_size=32)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data


@pytest.fixture
def few_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five digits instead of 1,797."""
    whole = sklearn.datasets.load_digits()
    few = SimpleNamespace(images=whole.images[:5], target=whole.target[:5])
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: few)


def ids(data: Digits, split: str) -> list[str]:
    return [name for name, _, _ in data.samples(split)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_split_by_file_order(digits: Digits) -> None:
    parts = [ids(digits, split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [1000, 200, 597]
    assert list(chain.from_iterable(parts)) == [f"digit-{i:04d}" for i in range(1797)]
    target = sklearn.datasets.load_digits().target
    assert [label for _, _, label in digits.samples("test")] == target[1200:].tolist()


def test_shuffled_split_is_of_the_same_sizes_disjoint_and_seeded(tmp_path: Path) -> None:
    data = [Digits(tmp_path, split="shuffled", seed=seed) for seed in (1, 1, 2)]
    parts = [ids(data[0], split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [1000, 200, 597]
    assert sorted(chain.from_iterable(parts)) == [f"digit-{i:04d}" for i in range(1797)]
    assert parts[0] == ids(data[1], "train")
    assert parts[0] != ids(data[2], "train")
    assert parts[0] != ids(Digits(tmp_path), "train")


def test_batches_are_frames(digits: Digits) -> None:
    batch = next(iter(digits.val_dataloader()))
    assert batch.x.shape == (10, 32, 2, 34, 34)
    assert not batch.x.is_floating_point()
    assert batch.y.dtype == torch.int64
    assert batch.lengths is None
    assert batch.ids == [f"digit-{i:04d}" for i in range(1000, 1032)]
    for n in (0, 31):
        recorded = digits.read(1000 + n)
        assert int(batch.x[:, n].sum()) == len(recorded), "no event is lost"
        assert int(batch.x[:, n, 1].sum()) == int(np.count_nonzero(recorded["p"]))


def test_a_datamodule_can_be_pickled(digits: Digits) -> None:
    again = pickle.loads(pickle.dumps(digits))
    np.testing.assert_array_equal(again.read(3), digits.read(3))


def test_split_must_be_known() -> None:
    with pytest.raises(ConfigError, match="'file-order' or 'shuffled'"):
        Digits(split="random")  # type: ignore[arg-type]


# ------------------------------------------------------------ cache


@pytest.mark.usefixtures("few_scans")
def test_a_cache_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Digits(tmp_path)
    first.prepare_data()
    before = contents(tmp_path)
    monkeypatch.setattr(Digits, "_simulate", lambda *_: pytest.fail("simulated again"))
    for frames in (None, events.FixedNumber(T=3)):
        again = Digits(tmp_path, frames=frames, seed=3, split="shuffled")
        again.prepare_data()
        np.testing.assert_array_equal(again.read(4), first.read(4))
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("few_scans")
@pytest.mark.parametrize("damage", ["changed", "missing", "manifest", "no manifest", "other parameters"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, damage: str) -> None:
    Digits(tmp_path).prepare_data()
    before = contents(tmp_path)
    (folder,) = tmp_path.iterdir()
    if damage == "changed":
        content = bytearray((folder / "events.npy").read_bytes())
        content[-1] ^= 1
        (folder / "events.npy").write_bytes(content)
    elif damage == "missing":
        (folder / "offsets.npy").unlink()
    elif damage == "manifest":
        (folder / "manifest.json").write_text("{")
    elif damage == "no manifest":
        (folder / "manifest.json").unlink()
    else:
        text = (folder / "manifest.json").read_text()
        (folder / "manifest.json").write_text(text.replace('"zoom": 3.0', '"zoom": 4.0'))
    with pytest.warns(CacheWarning, match="is damaged: .*It is made again"):
        Digits(tmp_path).prepare_data()
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("few_scans")
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_simulation_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    save, calls = np.save, []

    def fail(path: Any, values: Any) -> None:
        calls.append(path)
        if len(calls) == 2:
            Path(path).write_bytes(b"half of it")
            raise error
        save(path, values)

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", fail)
        expected = DataError if isinstance(error, OSError) else KeyboardInterrupt
        with pytest.raises(expected) as caught:
            Digits(tmp_path / "digits").prepare_data()
    if isinstance(error, OSError):
        assert "No space left on device. It takes about 200 MB" in str(caught.value)
        assert "--data.init_args.root" in str(caught.value)
    assert list((tmp_path / "digits").iterdir()) == []
    Digits(tmp_path / "digits").prepare_data()


@pytest.mark.usefixtures("few_scans")
def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the cache"):
        Digits(tmp_path / "file/digits").prepare_data()


@pytest.mark.usefixtures("few_scans")
def test_two_that_build_at_once_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate = Digits._simulate

    def slower(self: Digits, folder: Path) -> None:
        simulate(self, folder)
        monkeypatch.setattr(Digits, "_simulate", simulate)
        Digits(tmp_path).prepare_data()  # the other one is done first

    monkeypatch.setattr(Digits, "_simulate", slower)
    data = Digits(tmp_path)
    data.prepare_data()
    assert len(list(tmp_path.iterdir())) == 1
    assert len(data.read(0)) > 0


@pytest.mark.usefixtures("few_scans")
def test_what_changes_the_events_changes_the_cache(tmp_path: Path) -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"zoom": 2.0},
        {"amplitude": 3.0},
        {"simulator": events.DVSSimulator(threshold_on=0.3)},
        {"simulator": events.DVSSimulator(noise_rate=1.0)},
        {"simulator": events.DVSSimulator(noise_rate=1.0, seed=1)},
    ]
    for variant in variants:
        Digits(tmp_path, **variant).prepare_data()
    assert len(list(tmp_path.iterdir())) == len(variants)
    Digits(tmp_path, simulator=events.DVSSimulator()).prepare_data()
    assert len(list(tmp_path.iterdir())) == len(variants)
