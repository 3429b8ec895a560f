"""Arrays of many samples in few files: one that is mapped into memory, and an index.

Loading a sample then costs the memory that it takes, and no opening of files. Stores are written in shards, each whole
or absent, so an interrupted run goes on with the shard in which it stopped.
"""

from __future__ import annotations

import bisect
import ctypes
import hashlib
import pickle
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, closing, contextmanager
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from jellyfit import native
from jellyfit.datamodules.cache import cached_folder
from jellyfit.datamodules.fetch import exclusive, free_bytes
from jellyfit.errors import DataError, JellyfitError
from jellyfit.progress import track

__all__ = ["ArrayStore", "StoreWriter", "build_store"]

_DATA, _INDEX = "data.bin", "index.npz"
_ALIGN = 64
_LEVEL = 1  # of zlib: most of the gain, a fraction of the time

# Arrays [T, *] of `samples` places in memory, of `step` bytes a time step, into one [T, samples, *].
_SOURCE = r"""
#include <stdint.h>
#include <string.h>

void gather(const int64_t *places, int64_t samples, int64_t steps, int64_t step, char *out) {
  for (int64_t n = 0; n < samples; n++) {
    const char *from = (const char *)(intptr_t)places[n];
    for (int64_t t = 0; t < steps; t++) memcpy(out + (t * samples + n) * step, from + t * step, step);
  }
}
"""


class StoreWriter(AbstractContextManager["StoreWriter"]):
    """Writes arrays one after another into a folder that exists and is empty.

    Args:
        folder: of the store.
        compress: make it smaller, and loading slower.
    """

    def __init__(self, folder: Path, compress: bool = False) -> None:
        self.folder, self.compress = folder, compress
        self._file = (folder / _DATA).open("wb")
        self._begins: list[int] = []
        self._sizes: list[int] = []
        self._shapes: list[tuple[int, ...]] = []
        self._dtypes: list[int] = []
        self._known: list[str] = []

    def append(self, array: npt.NDArray[Any]) -> None:
        """Add one array."""
        described = repr(np.lib.format.dtype_to_descr(array.dtype))
        if described not in self._known:
            self._known.append(described)
        content = np.ascontiguousarray(array).tobytes()
        if self.compress:
            content = zlib.compress(content, _LEVEL)
        self._file.write(b"\0" * (-self._file.tell() % _ALIGN))
        self._begins.append(self._file.tell())
        self._sizes.append(len(content))
        self._shapes.append(array.shape)
        self._dtypes.append(self._known.index(described))
        self._file.write(content)

    def close(self) -> None:
        """Write the index."""
        self._file.close()
        ranks = {len(shape) for shape in self._shapes}
        if len(ranks) > 1:
            raise DataError(f"the arrays of a store must have equally many axes; got {sorted(ranks)}.")
        np.savez(
            self.folder / _INDEX,
            begins=np.array(self._begins, np.int64),
            sizes=np.array(self._sizes, np.int64),
            shapes=np.array(self._shapes, np.int64).reshape(len(self._shapes), ranks.pop() if ranks else 0),
            dtypes=np.array(self._dtypes, np.int64),
            known=np.array(self._known),
            compress=np.array(self.compress),
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()


class _Shard:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with closing(np.load(folder / _INDEX, allow_pickle=False)) as index:
            self.begins, self.sizes = index["begins"], index["sizes"]
            self.shapes, self.dtypes = index["shapes"], index["dtypes"]
            self.known = [np.lib.format.descr_to_dtype(_literal(text)) for text in index["known"].tolist()]
            self.compress = bool(index["compress"])
        self._map: npt.NDArray[np.uint8] | None = None
        one = len(self.begins) and not self.compress and (self.shapes == self.shapes[0]).all() and len(self.known) == 1
        self._kind = (self.known[0], tuple(self.shapes[0].tolist())) if one else None

    def __len__(self) -> int:
        return len(self.begins)

    def kind(self) -> tuple[np.dtype[Any], tuple[int, ...]] | None:
        """Dtype and shape of every array, if they have one and lie there as they are."""
        return self._kind

    def mapped(self) -> npt.NDArray[np.uint8]:
        if self._map is None:
            empty = not (self.folder / _DATA).stat().st_size
            # as a plain array: slices of the mapped kind cost ten times as much
            self._map = np.empty(0, np.uint8) if empty else np.asarray(np.memmap(self.folder / _DATA, np.uint8, "r"))
        return self._map

    def get(self, i: int) -> npt.NDArray[Any]:
        dtype, shape = self.known[self.dtypes[i]], tuple(self.shapes[i].tolist())
        begin = int(self.begins[i])
        content: Any = self.mapped()[begin : begin + int(self.sizes[i])]
        if self.compress:
            content = np.frombuffer(zlib.decompress(content), np.uint8)
        array: npt.NDArray[Any] = np.asarray(content).view(dtype).reshape(shape)
        return array

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}


def _literal(text: str) -> Any:
    import ast

    return ast.literal_eval(text)


class ArrayStore(Sequence[npt.NDArray[Any]]):
    """Arrays in the order in which they were written; each is a read-only view of a mapped file.

    Cheap to pickle: a worker process maps the files anew.

    Args:
        folders: of its shards.

    Examples:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from jellyfit.datamodules.store import ArrayStore, StoreWriter
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with StoreWriter(pathlib.Path(folder)) as writer:
        ...         writer.append(np.arange(3))
        ...         writer.append(np.zeros(2, np.uint8))
        ...     store = ArrayStore([pathlib.Path(folder)])
        ...     [array.tolist() for array in store]
        [[0, 1, 2], [0, 0]]
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._shards = [_Shard(folder) for folder in folders]
        self._ends = np.cumsum([len(shard) for shard in self._shards]).tolist()
        self._places: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        if i < 0:
            i += len(self)
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of a store of {len(self)}")
        shard = bisect.bisect_right(self._ends, i)
        return self._shards[shard].get(i - (self._ends[shard - 1] if shard else 0))

    def gather(self, indices: Sequence[int]) -> npt.NDArray[Any] | None:
        """Arrays ``[T, *]`` as one ``[T, N, *]``, where all of the store are alike and lie there as they are.

        None where they are not, or where there is no compiler: then take them one by one.

        Args:
            indices: of the N arrays, from 0.
        """
        alike = self._alike()
        library = native.load("gathering", _SOURCE) if alike and len(indices) else None
        if alike is None or library is None:
            return None
        dtype, shape = alike
        if not shape:
            return None
        if self._places is None:
            begins = [shard.mapped().ctypes.data + shard.begins for shard in self._shards]
            self._places = np.concatenate(begins)
        out: npt.NDArray[Any] = np.empty((shape[0], len(indices), *shape[1:]), dtype)
        places = self._places[np.asarray(indices, np.int64)]
        if out.size:
            step = out.nbytes // (shape[0] * len(indices))
            pointer, number = ctypes.c_void_p, ctypes.c_int64
            library.gather.argtypes = [pointer, number, number, number, pointer]
            library.gather.restype = None
            library.gather(places.ctypes.data, len(indices), shape[0], step, out.ctypes.data)
        return out

    def _alike(self) -> tuple[np.dtype[Any], tuple[int, ...]] | None:
        """Dtype and shape that all arrays have, if they have one and are not compressed."""
        kinds = {shard.kind() for shard in self._shards}
        return kinds.pop() if len(kinds) == 1 else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_places": None}

    def nbytes(self) -> int:
        """Bytes on disk."""
        return sum((shard.folder / _DATA).stat().st_size for shard in self._shards)


def build_store(
    root: Path,
    name: str,
    parameters: dict[str, Any],
    ids: Sequence[str],
    sources: Sequence[Any],
    make: Callable[[Any], npt.NDArray[Any]],
    *,
    workers: int = 0,
    compress: bool = False,
    shard: int = 1000,
    description: str = "Preparing samples",
) -> ArrayStore:
    """The store ``root/name-KEY/...``, made where it is missing.

    Of several processes one works and the others wait. Ctrl-C keeps the shards that are whole.

    Args:
        root: where caches lie.
        name: first part of the folders' names.
        parameters: everything that the arrays depend on, as plain data.
        ids: of the samples.
        sources: what ``make`` takes, one a sample; picklable when there are workers.
        make: source -> array; a function of a module, or a method of something picklable.
        workers: processes that work; 0 (default): this one alone.
        compress: see :class:`StoreWriter`.
        shard: samples in a shard.
        description: of the work, for the progress shown.

    Raises:
        DataError: a sample cannot be made (names it), or the disk has no room for all.
    """
    groups = [range(begin, min(begin + shard, len(ids))) for begin in range(0, len(ids), shard)] or [range(0)]
    keys = [
        {**parameters, "compress": compress, "samples": _digest([ids[i] for i in group]), "count": len(group)}
        for group in groups
    ]
    folders = []
    with exclusive(root, name):
        work = _Work(ids, sources, make, workers, description)
        for group, key in zip(groups, keys, strict=True):

            def build(folder: Path, group: range = group) -> None:
                work.begin(root, group.start, compress)
                with StoreWriter(folder, compress) as writer:
                    for array in work.arrays(group):
                        writer.append(array)

            folders.append(cached_folder(root, name, key, build, whole=False))
        work.end()
    return ArrayStore(folders)


def _digest(ids: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


class _Work:
    """Makes arrays in order, in several processes if there is enough to do, and shows how far it is."""

    def __init__(
        self,
        ids: Sequence[str],
        sources: Sequence[Any],
        make: Callable[[Any], npt.NDArray[Any]],
        workers: int,
        description: str,
    ) -> None:
        self.ids, self.sources, self.make = ids, sources, make
        self.workers, self.description = workers, description
        self._pool: ProcessPoolExecutor | None = None
        self._progress: Iterator[None] | None = None

    def begin(self, root: Path, first: int, compress: bool) -> None:
        """Say once how much there is to do, and whether there is room for it."""
        if self._progress is not None:
            return
        left = len(self.ids) - first
        probe = range(first, min(first + 3, len(self.ids)))
        needed, free = max((self._one(i).nbytes for i in probe), default=0) * left, free_bytes(root)
        if not compress and needed > free:
            raise DataError(
                f"{self.description}: {left} samples take about {needed / 1e9:.1f} GB, and {root.resolve()} has "
                f"{free / 1e9:.1f} GB free. Free some space, choose another folder, or keep less: compress the cache, "
                "or set cache='none'."
            )
        size = f"about {needed / 1e9:.1f} GB" if needed >= 1e9 else f"about {max(needed / 1e6, 0.1):.1f} MB"
        if left > 100:
            print(f"{self.description}: {left} samples, {size}{' before compression' if compress else ''}", flush=True)
        if self.workers > 0 and left > 2 * self.workers:
            # forked processes inherit locks of HDF5 and OpenMP in any state
            self._pool = ProcessPoolExecutor(self.workers, get_context("spawn"), _take, (self.make,))
        self._progress = track(self._steps(left), self.description, total=left, enabled=left > 100)

    @staticmethod
    def _steps(count: int) -> Iterator[None]:
        for _ in range(count):
            yield None

    def _one(self, i: int) -> npt.NDArray[Any]:
        return _make_named(self.make, self.ids[i], self.sources[i])

    def arrays(self, group: range) -> Iterator[npt.NDArray[Any]]:
        """The arrays of samples ``group``, in order."""
        names, sources = [self.ids[i] for i in group], [self.sources[i] for i in group]
        made: Iterator[npt.NDArray[Any]]
        if self._pool is None:
            made = map(_make_named, [self.make] * len(group), names, sources)
        else:
            with _script_left_alone(self.make):
                made = self._pool.map(_make_taken, names, sources, chunksize=4)
        try:
            for array in made:
                yield array
                if self._progress is not None:
                    next(self._progress, None)
        except BrokenProcessPool as error:
            self.end(wait=False)
            raise DataError(
                f"{self.description}: a process that helped has ended (see above). Was there too little memory? In a "
                "script of your own, put what it does under `if __name__ == '__main__':`. prepare_workers=0 does "
                "without other processes."
            ) from error
        except BaseException:
            self.end(wait=False)
            raise

    def end(self, wait: bool = True) -> None:
        """Stop the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=wait, cancel_futures=True)
            self._pool = None
        if self._progress is not None and wait:
            next(self._progress, None)  # says how long it took


def _make_named(make: Callable[[Any], npt.NDArray[Any]], name: str, source: Any) -> npt.NDArray[Any]:
    try:
        return make(source)
    except (JellyfitError, OSError) as error:
        raise DataError(f"sample {name!r}: {error}") from error


_taken: Callable[[Any], npt.NDArray[Any]] | None = None  # what a process of the pool makes arrays with


@contextmanager
def _script_left_alone(make: Callable[[Any], npt.NDArray[Any]]) -> Iterator[None]:
    """Start processes that do not run the user's script again, which they would do to find what is defined in it.

    A script that prepares data without asking whether it is ``__main__`` would begin there once more, and wait for the
    lock that this process holds. Where ``make`` is of the script itself it has to ask.
    """
    script = sys.modules["__main__"]
    if b"__main__" in pickle.dumps(make):
        yield
        return
    names = {name: getattr(script, name) for name in ("__spec__", "__file__") if hasattr(script, name)}
    try:
        for name in names:
            setattr(script, name, None)
        yield
    finally:
        for name, value in names.items():
            setattr(script, name, value)


def _take(make: Callable[[Any], npt.NDArray[Any]]) -> None:
    """Begin a process: it is given ``make`` once, not with every few samples, so what ``make`` opens stays open."""
    global _taken
    _taken = make


def _make_taken(name: str, source: Any) -> npt.NDArray[Any]:
    assert _taken is not None
    return _make_named(_taken, name, source)


def default_workers() -> int:
    """Processes for preparing data: one a core, and none where there is a single one."""
    cores = native.usable_cores()
    return cores if cores > 1 else 0
