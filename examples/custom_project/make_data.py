"""Write toy recordings: a bar that moves left or right over a simulated camera of 16x16 pixels.

python make_data.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np

from jellyfit import events

SENSOR = (16, 16)  # height, width
NUMBERS = {"train": 40, "val": 10, "test": 10}  # recordings per class


def record(direction: str, rng: np.random.Generator, sample: int) -> events.EventArray:
    """Events ``[N]`` of one bar that crosses the sensor in 32 ms, 2 to 4 pixels wide, as bright as it happens to be."""
    steps = 33
    start, width, brightness = rng.uniform(-2, 2), rng.uniform(2, 4), rng.uniform(0.5, 1.0)
    centre = start + np.linspace(0, SENSOR[1], steps)
    if direction == "left":
        centre = SENSOR[1] - 1 - centre
    inside = np.abs(np.arange(SENSOR[1]) - centre[:, None]) < width / 2
    video = np.repeat((inside * brightness)[:, None, :], SENSOR[0], axis=1)
    times = np.arange(steps, dtype=np.int64) * 1000
    return events.DVSSimulator().simulate(video, times, sample=sample)


def main(root: Path) -> None:
    """Write ``root/SPLIT/CLASS/NNN.npz``."""
    rng = np.random.default_rng(0)
    sample = 0
    for split, number in NUMBERS.items():
        for direction in ("left", "right"):
            folder = root / split / direction
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(number):
                events.write_events(folder / f"{i:03d}.npz", record(direction, rng, sample))
                sample += 1
    print(f"Wrote {sample} recordings to {root}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "data"))
