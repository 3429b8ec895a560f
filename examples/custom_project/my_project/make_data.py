"""Write toy recordings: a bright edge that crosses the sensor to the left or to the right."""

import sys
from pathlib import Path

import numpy as np

from jellyfit import events


def main(root="data/my_camera", sizes=(("train", 32), ("val", 8), ("test", 8))):
    times = np.arange(0, 17_000, 1_000)
    for seed, (split, size) in enumerate(sizes):
        for name in ("left", "right"):
            folder = Path(root) / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(size):
                edge = np.arange(17) if name == "right" else 16 - np.arange(17)
                video = (np.arange(16)[None, None, :] < edge[:, None, None]) * np.ones((17, 16, 16))
                camera = events.DVSSimulator(threshold_on=0.8, threshold_off=0.8, noise_rate=50.0, seed=seed)
                events.write_events(folder / f"{i:03d}.npz", camera.simulate(video, times, sample=i))


if __name__ == "__main__":
    main(*sys.argv[1:2])
