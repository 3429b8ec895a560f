"""Samples in few mapped files: what goes in comes out, whatever interrupts the work."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from jellyfit import events
from jellyfit.datamodules import store as module
from jellyfit.datamodules.cache import CacheWarning, check_cache
from jellyfit.datamodules.store import ArrayStore, StoreWriter, build_store
from jellyfit.errors import DataError
from tests.conftest import ROOT

ARRAYS = [
    np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    np.zeros((0, 3, 4), np.uint8),
    np.full((1, 1, 1), 70000, np.uint32),
    np.linspace(0, 1, 6).reshape(1, 2, 3),
]


@pytest.mark.parametrize("compress", [False, True])
def test_arrays_come_back_with_dtype_and_shape(tmp_path: Path, compress: bool) -> None:
    with StoreWriter(tmp_path, compress) as writer:
        for array in ARRAYS:
            writer.append(array)
    store = pickle.loads(pickle.dumps(ArrayStore([tmp_path])))
    assert len(store) == len(ARRAYS)
    for found, array in zip(store, ARRAYS, strict=True):
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)
    assert np.array_equal(store[-1], ARRAYS[-1])
    with pytest.raises(IndexError):
        store[4]


def test_events_come_back_as_events_without_a_copy(tmp_path: Path) -> None:
    recorded = events.make_events([1, 5, 9], [0, 1, 2], [3, 2, 1], [0, 1, 1])
    with StoreWriter(tmp_path) as writer:
        writer.append(recorded[:0])
        writer.append(recorded)
    store = ArrayStore([tmp_path])
    assert np.array_equal(events.check_events(store[1]), recorded)
    assert len(store[0]) == 0
    assert not store[1].flags.writeable
    assert not store[1].flags.owndata


def test_compression_makes_frames_smaller(tmp_path: Path) -> None:
    frames = (np.random.default_rng(0).random((10, 2, 34, 34)) < 0.02).astype(np.uint8)
    sizes = []
    for compress in (False, True):
        (tmp_path / str(compress)).mkdir()
        with StoreWriter(tmp_path / str(compress), compress) as writer:
            writer.append(frames)
        sizes.append(ArrayStore([tmp_path / str(compress)]).nbytes())
    assert sizes[1] < sizes[0] / 5


MADE: list[int] = []


def make(source: int) -> np.ndarray:
    MADE.append(source)
    if source < 0:
        raise DataError("no such thing")
    return np.full((2, source % 3), source, np.int32)


def build(root: Path, sources: list[int], **options: Any) -> ArrayStore:
    ids = [f"sample-{i}" for i in range(len(sources))]
    return build_store(root, "numbers", {"version": 1}, ids, sources, make, **{"shard": 4, **options})


@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_is_built_once_in_order(tmp_path: Path, workers: int) -> None:
    MADE.clear()
    sources = list(range(10))
    store = build(tmp_path, sources, workers=workers)
    assert [int(array.flat[0]) for array in store if array.size] == [i for i in sources if i % 3]
    MADE.clear()
    assert len(build(tmp_path, sources)) == 10
    assert MADE == []


def test_an_interrupted_build_goes_on_with_the_shard_in_which_it_stopped(tmp_path: Path) -> None:
    sources = list(range(10))
    with pytest.raises(DataError, match="sample 'sample-6': no such thing"):
        build(tmp_path, [*sources[:6], -1, *sources[7:]])
    MADE.clear()
    build(tmp_path, sources)
    assert set(MADE) == set(range(4, 10))  # the first shard was whole


def test_other_parameters_and_other_samples_make_another_store(tmp_path: Path) -> None:
    build(tmp_path, list(range(4)))
    MADE.clear()
    build(tmp_path, list(range(4)), compress=True)
    assert MADE
    MADE.clear()
    build_store(tmp_path, "numbers", {"version": 2}, list("abcd"), list(range(4)), make, shard=4)
    assert MADE


def test_a_damaged_store_is_found_and_made_again(tmp_path: Path) -> None:
    build(tmp_path, list(range(1, 4)))
    (data,) = tmp_path.glob("numbers-*/data.bin")
    assert check_cache(data.parent) is None
    data.write_bytes(data.read_bytes()[:-1])
    assert "changed" in str(check_cache(data.parent))
    with pytest.warns(CacheWarning, match="damaged"):
        store = build(tmp_path, list(range(1, 4)))
    assert int(store[0].flat[0]) == 1


def test_too_little_space_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda folder: 10)
    with pytest.raises(DataError, match=r"take about .* GB free.*cache='none'"):
        build(tmp_path, list(range(10)))
    assert not list(tmp_path.glob("numbers-*"))


def test_long_work_says_how_much_it_is_and_how_far(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(tmp_path, list(range(200)), shard=100, description="Making numbers")
    out = capsys.readouterr().out
    assert "Making numbers: 200 samples, about" in out
    assert "Making numbers: 200 done in" in out


def compete(root: str, barrier: Any, results: Any) -> None:
    barrier.wait()
    results.put(sum(int(array.sum()) for array in build(Path(root), list(range(40)), shard=10)))


def test_two_processes_that_build_at_once_leave_one_good_store(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=compete, args=(str(tmp_path), barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    sums = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert sums == {sum(2 * (i % 3) * i for i in range(40))}
    folders = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(folders) == 4
    assert all(check_cache(folder) is None for folder in folders)


class _Counted:
    """Makes arrays; each copy that a process receives leaves a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, source: int) -> np.ndarray:
        return np.full(3, source)

    def __setstate__(self, state: dict[str, Path]) -> None:
        self.__dict__.update(state)
        tempfile.NamedTemporaryFile(dir=self.folder, delete=False).close()


def test_each_process_is_given_what_makes_the_arrays_once(tmp_path: Path) -> None:
    (tmp_path / "copies").mkdir()
    ids = [str(i) for i in range(40)]
    store = build_store(tmp_path, "arrays", {}, ids, range(40), _Counted(tmp_path / "copies"), workers=2)
    assert [int(array[0]) for array in store] == list(range(40))
    assert len(list((tmp_path / "copies").iterdir())) <= 2


SCRIPT = """
from pathlib import Path

import numpy as np

from jellyfit.datamodules.store import build_store
{definition}
print(len(build_store(Path("cache"), "arrays", {{}}, list("abcdefgh"), list(range(1, 9)), {make}, workers=2)), "made")
"""
OWN = """
def own(source):
    return np.ones(source)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("definition", "make", "guarded"), [("", "np.ones", False), (OWN, "own", True)])
def test_a_script_is_not_run_again_by_the_processes_that_help_it(
    tmp_path: Path, definition: str, make: str, guarded: bool
) -> None:
    lines = SCRIPT.format(definition=definition, make=make)
    (tmp_path / "script.py").write_text(
        lines.replace("print", "if __name__ == '__main__':\n    print") if guarded else lines
    )
    ran = run_script(tmp_path)
    assert (ran.returncode, ran.stdout.count("8 made")) == (0, 1), ran.stderr


@pytest.mark.slow
def test_a_script_that_must_be_imported_and_does_not_guard_itself_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(definition=OWN, make="own"))
    ran = run_script(tmp_path)
    assert ran.returncode == 1
    assert "a process that helps to prepare them imports it" in ran.stderr
    assert "put what it does under `if __name__ == '__main__':`" in ran.stderr


def run_script(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "script.py"], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip


# ------------------------------------------------------------ many at once


def stored(root: Path, *shards: list[npt.NDArray[Any]], compress: bool = False) -> ArrayStore:
    folders = []
    for i, arrays in enumerate(shards):
        folder = root / str(i)
        folder.mkdir()
        with StoreWriter(folder, compress) as writer:
            for array in arrays:
                writer.append(array)
        folders.append(folder)
    return ArrayStore(folders)


@pytest.mark.parametrize("shape", [(1,), (3, 5), (4, 2, 3, 3), (2, 0)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_gathered_arrays_are_those_of_one_by_one(tmp_path: Path, shape: tuple[int, ...], dtype: Any) -> None:
    random = np.random.default_rng(0)
    arrays = [random.integers(0, 200, shape).astype(dtype) for _ in range(7)]
    store = stored(tmp_path, arrays[:3], arrays[3:4], arrays[4:])
    indices = [6, 0, 3, 3, 2]
    expected = np.stack([arrays[i] for i in indices], axis=1)
    for each in (store, pickle.loads(pickle.dumps(store))):
        gathered = each.gather(indices)
        assert gathered is not None
        assert gathered.dtype == dtype
        assert gathered.flags.writeable
        np.testing.assert_array_equal(gathered, expected)
    again = store.gather([1])
    assert again is not None
    again[:] = 0
    np.testing.assert_array_equal(store[1], arrays[1], err_msg="the file stays as it is")


def test_what_is_not_alike_is_not_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    three, two = np.ones((3, 4), np.uint8), np.ones((2, 4), np.uint8)
    different: dict[str, list[list[npt.NDArray[Any]]]] = {
        "shapes": [[three], [two]],
        "shapes in one shard": [[three, two]],
        "dtypes": [[three], [three.astype(np.uint16)]],
        "dtypes in one shard": [[three, three.astype(np.uint16)]],
        "empty": [[]],
    }
    for name, shards in different.items():
        (tmp_path / name).mkdir()
        assert stored(tmp_path / name, *shards).gather([0]) is None, name
    (tmp_path / "compressed").mkdir()
    assert stored(tmp_path / "compressed", [three, three], compress=True).gather([0]) is None
    (tmp_path / "plain").mkdir()
    plain = stored(tmp_path / "plain", [three, three])
    gathered = plain.gather([1])
    assert gathered is not None
    assert gathered.shape == (3, 1, 4)
    monkeypatch.setenv("JELLYFIT_NATIVE", "0")
    assert plain.gather([1]) is None, "without a compiler they are taken one by one"
