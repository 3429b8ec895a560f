"""How fast events become frames, and files become events: M events/s (with OMP_NUM_THREADS=1 on one core).

    python benchmarks/events.py [--events 1000000 10000000] [--decode 1000000] [--repeats 15] [--json PATH]

Frames stand beside copying the same bytes, two usual NumPy ways, and SpikingJelly and tonic where they are installed
(SpikingJelly's are compared by number; the others' slices have other bounds); the copy of the events' bytes is the
limit of what reading them once (and writing as much) can reach. Decoding stands beside the loaders of SpikingJelly
and tonic, where they are installed, and np.load. Every path is checked against the others before it is timed. Files
come from the disk's cache. Then voxel grids and time surfaces, with C, without, on PyTorch's CPU device, the usual
NumPy way, and tonic's (timed, not compared: its voxel grid is another).
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from event_peers import decoders, frame_makers

from jellyfit import native
from jellyfit.events import (
    EVENT_DTYPE,
    EventArray,
    FixedNumber,
    Framing,
    TimeSurface,
    VoxelGrid,
    read_events,
    to_frames,
    write_events,
)
from jellyfit.frames import frames_on_device

try:
    import tonic.transforms as tonic
except ImportError:
    tonic = None

T = 16
SENSOR = (128, 128)
TAU = 50_000.0
SUFFIXES = {"aedat3": ".aedat", "atis": ".bin", "npz": ".npz"}


def make(N: int, kind: str) -> EventArray:
    random = np.random.default_rng(0)
    events = np.empty(N, EVENT_DTYPE)
    events["t"] = np.sort(random.integers(0, max(N, 1_000_000), N))
    events["p"] = random.integers(0, 2, N).astype(bool)
    for name, side in (("x", SENSOR[1]), ("y", SENSOR[0])):
        place = random.integers(0, side, N) if kind == "uniform" else random.normal(side / 2, side / 12, N)
        events[name] = np.clip(place, 0, side - 1).astype(np.uint16)
    return events


def add_at(events: EventArray, framing: FixedNumber) -> npt.NDArray[Any]:
    """np.add.at into float frames."""
    frames = np.zeros((T, 2, *SENSOR), np.float32)
    for j, (start, stop) in enumerate(framing.slices(events)):
        e = events[start:stop]
        np.add.at(frames[j], (e["p"].astype(np.intp), e["y"], e["x"]), 1)
    return frames


def bincount(events: EventArray, framing: FixedNumber) -> npt.NDArray[Any]:
    """np.bincount per slice and polarity into float frames."""
    height, width = SENSOR
    frames = np.zeros((T, 2, height * width), np.float32)
    for j, (start, stop) in enumerate(framing.slices(events)):
        for polarity in (0, 1):
            e = events[start:stop][events["p"][start:stop] == polarity]
            pixel = e["y"].astype(np.intp) * width + e["x"]
            frames[j, polarity] = np.bincount(pixel, minlength=height * width)
    return frames.reshape(T, 2, height, width)


def voxels_add_at(events: EventArray) -> npt.NDArray[Any]:
    """np.add.at, twice an event, into a signed float grid."""
    t = events["t"].astype(np.float64)
    place = (T - 1) * (t - t[0]) / (t[-1] - t[0])
    left = np.minimum(place.astype(np.intp), T - 2)
    share, sign = place - left, np.where(events["p"], 1.0, -1.0)
    grid = np.zeros((T, *SENSOR), np.float32)
    np.add.at(grid, (left, events["y"], events["x"]), sign * (1 - share))
    np.add.at(grid, (left + 1, events["y"], events["x"]), sign * share)
    return grid[:, None]


def surface_by_slice(events: EventArray) -> npt.NDArray[Any]:
    """The latest time of every pixel by assignment, slice after slice."""
    framing = FixedNumber(T, "time")
    latest = np.full((2, *SENSOR), -np.inf)
    frames = np.zeros((T, 2, *SENSOR), np.float32)
    for j, ((start, stop), (_, end)) in enumerate(zip(framing.slices(events), framing.windows(events), strict=True)):
        e = events[start:stop]
        latest[e["p"].astype(np.intp), e["y"], e["x"]] = e["t"]
        frames[j] = np.exp((latest - end) / TAU)
    return frames


@contextmanager
def without_compiler() -> Iterator[None]:
    before = os.environ.get("JELLYFIT_NATIVE")
    os.environ["JELLYFIT_NATIVE"] = "0"
    try:
        yield
    finally:
        os.environ.pop("JELLYFIT_NATIVE") if before is None else os.environ.update(JELLYFIT_NATIVE=before)


def numpy_path(events: EventArray, framing: Framing) -> npt.NDArray[Any]:
    """to_frames without a compiler."""
    with without_compiler():
        return to_frames(events, framing, SENSOR)


def numpy_read(path: Path) -> EventArray:
    """read_events without a compiler."""
    with without_compiler():
        return read_events(path)


def c_path(events: EventArray, framing: Framing) -> npt.NDArray[Any]:
    """to_frames."""
    return to_frames(events, framing, SENSOR)


def seconds(call: Callable[[], object], repeats: int) -> float:
    call()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def run(counts: list[int], repeats: int) -> list[dict[str, Any]]:
    rows = []
    print(
        f"{'events':>10} {'where':>9} {'split_by':>8} {'path':>14} {'ms':>9} {'M ev/s':>8}"
        f" {'of copy':>8} {'x bincount':>10}"
    )
    for N in counts:
        for kind in ("uniform", "clustered"):
            events = make(N, kind)
            raw, target = events.view(np.uint8), np.empty(events.nbytes, np.uint8)
            copy = seconds(lambda raw=raw, target=target: np.copyto(target, raw), repeats)
            for split_by in ("number", "time"):
                framing = FixedNumber(T, split_by)
                paths = {"jellyfit (C)": c_path, "jellyfit NumPy": numpy_path, "bincount": bincount, "add.at": add_at}
                expected = bincount(events, framing)
                taken = {"memory copy": copy}
                for name, path in paths.items():
                    np.testing.assert_array_equal(path(events, framing), expected, err_msg=name)
                    few = repeats if name.startswith("jellyfit") else max(repeats // 4, 2)
                    taken[name] = seconds(lambda path=path, e=events, f=framing: path(e, f), few)
                for name, make_frames in frame_makers(T, split_by, SENSOR).items():
                    found = make_frames(events)
                    if name == "SpikingJelly" and split_by == "number":
                        np.testing.assert_array_equal(found, expected, err_msg=name)
                    taken[name] = seconds(lambda make=make_frames, e=events: make(e), max(repeats // 5, 1))
                for name, s in taken.items():
                    row = {
                        "events": N,
                        "where": kind,
                        "split_by": split_by,
                        "path": name,
                        "ms": s * 1e3,
                        "M_events_per_s": N / s / 1e6,
                        "of_copy": copy / s,
                        "times_bincount": taken["bincount"] / s,
                    }
                    rows.append(row)
                    print(
                        f"{N:>10} {kind:>9} {split_by:>8} {name:>14} {row['ms']:>9.2f} {row['M_events_per_s']:>8.0f} "
                        f"{row['of_copy']:>8.2f} {row['times_bincount']:>10.2f}"
                    )
    return rows


def decode(N: int, repeats: int) -> list[dict[str, Any]]:
    """Files of N events, decoded by each library."""
    events = make(N, "uniform")
    rows = []
    print(f"\n{'events':>10} {'format':>8} {'path':>14} {'ms':>9} {'M ev/s':>8} {'x jellyfit':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for name, others in decoders().items():
            path = Path(folder) / f"events{SUFFIXES[name]}"
            write_events(path, events, name)
            paths = {"jellyfit (C)": read_events, "jellyfit NumPy": numpy_read, **others}
            taken = {}
            for library, read in paths.items():
                found = read(path)
                for field in "txyp":
                    np.testing.assert_array_equal(found[field], events[field], err_msg=f"{library} {name} {field}")
                few = repeats if library.startswith("jellyfit") else max(repeats // 5, 1)
                taken[library] = seconds(lambda read=read, path=path: read(path), few)
            for library, s in taken.items():
                row = {
                    "events": N,
                    "format": name,
                    "path": library,
                    "ms": s * 1e3,
                    "M_events_per_s": N / s / 1e6,
                    "times_jellyfit": s / taken["jellyfit (C)"],
                }
                rows.append(row)
                print(
                    f"{N:>10} {name:>8} {library:>14} {row['ms']:>9.2f} {row['M_events_per_s']:>8.1f} "
                    f"{row['times_jellyfit']:>10.1f}"
                )
    return rows


def run_representations(N: int, repeats: int) -> list[dict[str, Any]]:
    events = make(N, "uniform")
    size = (SENSOR[1], SENSOR[0], 2)
    cases: dict[str, tuple[Framing, Callable[[EventArray], npt.NDArray[Any]], Callable[[], Any] | None]] = {
        "voxel grid": (
            VoxelGrid(T),
            voxels_add_at,
            tonic and (lambda: tonic.ToVoxelGrid(size, n_time_bins=T)),
        ),
        "time surface": (
            TimeSurface(FixedNumber(T, "time"), TAU),
            surface_by_slice,
            tonic and (lambda: tonic.ToTimesurface(size, dt=max(N, 1_000_000) // T, tau=TAU)),
        ),
    }
    rows = []
    print(f"\n{'events':>10} {'what':>12} {'path':>16} {'ms':>9} {'M ev/s':>8} {'x NumPy':>8}")
    for what, (framing, usual, theirs) in cases.items():
        paths: dict[str, Callable[[], Any]] = {
            "jellyfit (C)": lambda f=framing: c_path(events, f),
            "jellyfit NumPy": lambda f=framing: numpy_path(events, f),
            "jellyfit torch": lambda f=framing: frames_on_device(events, f, SENSOR, "cpu"),
            "usual NumPy": lambda u=usual: u(events),
        }
        expected = usual(events)
        for name in list(paths)[:3]:
            np.testing.assert_allclose(np.asarray(paths[name]()), expected, rtol=1e-3, atol=1e-3, err_msg=name)
        if theirs is not None:
            transform = theirs()
            paths["tonic"] = lambda t=transform: t(events)
        taken = {
            name: seconds(path, repeats if "(C)" in name else max(repeats // 4, 2)) for name, path in paths.items()
        }
        for name, s in taken.items():
            row = {"events": N, "what": what, "path": name, "ms": s * 1e3, "M_events_per_s": N / s / 1e6}
            rows.append({**row, "times_usual_numpy": taken["usual NumPy"] / s})
            print(
                f"{N:>10} {what:>12} {name:>16} {row['ms']:>9.2f} {row['M_events_per_s']:>8.0f} "
                f"{rows[-1]['times_usual_numpy']:>8.2f}"
            )
    if tonic is None:
        print("tonic: not installed")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--decode", type=int, default=1_000_000, help="events of the files that are decoded")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    state = native.status()
    print(f"C code: {state.version if state.usable else state.reason}")
    rows = run(arguments.events, arguments.repeats)
    others = [row for N in arguments.events for row in run_representations(N, arguments.repeats)]
    decoded = decode(arguments.decode, arguments.repeats)
    if arguments.json:
        machine = {"machine": platform.machine(), "numpy": np.__version__, "compiler": state.version}
        figures = {"machine": machine, "frames": rows, "representations": others, "decode": decoded}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
