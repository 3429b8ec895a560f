"""How fast cached samples are loaded, against reading the same bytes with NumPy; and the memory that decoding takes.

    python benchmarks/loading.py [--samples 2000] [--sample-events 300000] [--recording-events 20000000] [--json PATH]

* one sample: a recording from a cache of recordings (all of its bytes are looked at), against np.load of an .npy file.
* one epoch: N-MNIST-sized frames (T=10, 2 x 34 x 34) in shuffled batches of 64 through the datamodule, not its first
  time, against taking the same rows of one .npy file mapped into memory, in one process.
* memory: how much more a process takes at most while it goes through a large AEDAT 3.1 recording; what the file takes.

Everything comes from the disk's cache. The contenders take turns (``timing.py``).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from timing import machine, ratio, spread, take_turns
from torch.utils.data import DataLoader

from jellyfit.datamodules import NMNIST
from jellyfit.datamodules.store import ArrayStore, StoreWriter
from jellyfit.events import EVENT_DTYPE, EventArray, FixedNumber, iter_events, write_events

T, BATCH = 10, 64


def make(N: int, side: int, seed: int = 0) -> EventArray:
    random = np.random.default_rng(seed)
    events = np.empty(N, EVENT_DTYPE)
    events["t"] = np.sort(random.integers(0, max(N, 300_000), N))
    events["p"] = random.integers(0, 2, N).astype(bool)
    events["x"], events["y"] = random.integers(0, side, (2, N))
    return events


def one_sample(folder: Path, N: int, seconds: float) -> dict[str, Any]:
    """A recording of N events from a store of 50, and from an .npy file."""
    (folder / "store").mkdir()
    recordings = [make(N, 128, seed) for seed in range(4)]
    with StoreWriter(folder / "store") as writer:
        for i in range(50):
            writer.append(recordings[i % 4])
    np.save(folder / "one.npy", recordings[0])
    store = ArrayStore([folder / "store"])

    def ours() -> Any:
        return store[20].view(np.uint8).copy()  # field by field it would take ten times as long

    def numpy() -> Any:
        return np.load(folder / "one.npy")

    np.testing.assert_array_equal(ours(), numpy().view(np.uint8))
    taken = take_turns({"jellyfit": ours, "np.load": numpy}, seconds)
    return figures({"events": N, "megabytes": recordings[0].nbytes / 1e6}, taken, "np.load")


def one_epoch(folder: Path, samples: int, seconds: float) -> dict[str, Any]:
    """An epoch of N-MNIST-sized frames from the cache."""
    with zipfile.ZipFile(folder / "Train.zip", "w") as archive:
        for i in range(samples):
            write_events(folder / "one.bin", make(4500, 34, i), "atis")
            archive.write(folder / "one.bin", f"Train/{i % 10}/{i + 1:05d}.bin")
    data = NMNIST(folder, FixedNumber(T), BATCH, cache="frames", split="file-order", val_fraction=0.0, pin_memory=False)
    data.prepare_data()
    data.setup("fit")
    loader: DataLoader[Any] = data.train_dataloader()
    flat = np.concatenate([batch.x.numpy().swapaxes(0, 1) for batch in loader])
    np.save(folder / "frames.npy", flat)
    mapped = np.load(folder / "frames.npy", mmap_mode="r")
    random = np.random.default_rng(0)

    def ours() -> int:
        return sum(batch.x.shape[1] for batch in loader)

    def numpy() -> int:
        order, count = random.permutation(len(mapped)), 0
        for begin in range(0, len(order), BATCH):
            count += len(np.ascontiguousarray(mapped[order[begin : begin + BATCH]]))
        return count

    assert ours() == numpy() == len(flat)
    taken = take_turns({"jellyfit": ours, "NumPy": numpy}, seconds)
    return figures({"samples": len(flat), "megabytes": flat.nbytes / 1e6}, taken, "NumPy")


def figures(what: dict[str, Any], taken: dict[str, list[float]], other: str) -> dict[str, Any]:
    ms = {name: spread([1e3 * s for s in times]) for name, times in taken.items()}
    return {**what, "ms": ms, "times_other": {"other": other, **ratio(taken["jellyfit"], taken[other])}}


def memory(folder: Path, N: int) -> dict[str, float]:
    """Megabytes that a process grows by while it goes through a recording, and of the file."""
    path = folder / "large.aedat"
    write_events(path, make(N, 128), "aedat3")
    told = subprocess.run(
        [sys.executable, __file__, "--child", str(path)], capture_output=True, text=True, check=True
    ).stdout
    count, grown = told.split()
    assert int(count) == N
    return {"events": N, "file_megabytes": path.stat().st_size / 1e6, "grown_megabytes": float(grown)}


def child(path: str) -> None:
    # the first chunk brings in what is needed to decode at all
    chunks = iter_events(path)
    count = len(next(chunks))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count += sum(len(chunk) for chunk in chunks)
    print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2_000, help="of the epoch, a tenth of which tests")
    parser.add_argument("--sample-events", type=int, default=300_000)
    parser.add_argument("--recording-events", type=int, default=20_000_000)
    parser.add_argument("--seconds", type=float, default=6.0, help="to measure each")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
    with tempfile.TemporaryDirectory() as folder:
        sample = one_sample(Path(folder), arguments.sample_events, arguments.seconds)
        epoch = one_epoch(Path(folder), arguments.samples, arguments.seconds)
        grown = memory(Path(folder), arguments.recording_events)
    for name, row in (("one sample", sample), ("one epoch", epoch)):
        other = row["times_other"]["other"]
        print(
            f"{name:>10} ({row['megabytes']:.1f} MB): jellyfit {row['ms']['jellyfit']['median']:.3g} ms, "
            f"{other} {row['ms'][other]['median']:.3g} ms; ratio {row['times_other']['median']:.2f}"
        )
    print(
        f"{'memory':>10}: {grown['grown_megabytes']:.1f} MB more for a recording of {grown['file_megabytes']:.0f} MB, "
        "chunk by chunk"
    )
    if arguments.json:
        found = {"machine": machine(), "one_sample": sample, "one_epoch": epoch, "memory": grown}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
