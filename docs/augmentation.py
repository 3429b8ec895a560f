"""Draw ``docs/augmentation.png``: one recording under every augmentation of events, frames and batches.

Run ``python docs/augmentation.py`` after a change to them; a test compares the picture's panels with what there is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from jellyfit import events, frames
from jellyfit.events import EventArray
from jellyfit.pictures import event_frame_image, save
from jellyfit.pictures.style import IMAGE, MUTED, make_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
SIZE = (34, 34)
STEP, STEPS = 9_000, 40  # µs; 360 ms in all
FIRST = 11  # steps of the first saccade, which are drawn as a picture
COLUMNS = 4

# with a seed; settings are for show, stronger than the defaults where those can hardly be seen
EVENT_TRANSFORMS: list[tuple[events.EventTransform, int]] = [
    (events.DropTime(0.3), 11),
    (events.DropArea(0.3), 11),
    (events.DropEvents(0.7), 0),
    (events.EventDrop(), 3),
    (events.HorizontalFlip(1.0), 0),
    (events.Shift(8), 5),
    (events.Roll(12), 5),
    (events.Rotate(40.0), 3),
    (events.Shear(40.0), 3),
    (events.CutOut(12), 0),
    (events.NDA(2, number=2), 3),
    (events.SpatialJitter(1.5), 0),
    (events.TimeJitter(20_000.0), 0),
    (events.TimeScale(0.6), 0),
    (events.PolarityFlip(1.0), 0),
]
FRAME_TRANSFORMS: list[tuple[frames.FrameTransform, int]] = [
    (frames.RandomCrop(6), 0),
    (frames.HorizontalFlip(1.0), 0),
    (frames.Roll(12), 4),
    (frames.Rotate(40.0, "bilinear"), 4),
    (frames.Shear(40.0), 10),
    (frames.CutOut(12), 8),
    (frames.NDA(2, number=2), 0),
]
BATCH_TRANSFORMS: list[frames.BatchTransform] = [frames.Mixup(), frames.CutMix()]


def recording(index: int) -> EventArray:
    """The simulated events of one of scikit-learn's digits."""
    video, times = events.three_saccades(load_digits().images[index] / 16.0, SIZE)
    return events.DVSSimulator().simulate(video, times, sample=index)


def integrated(recorded: EventArray) -> NDArray[Any]:
    """Frames [STEPS, 2, H, W] of equal duration; later events are left out."""
    inside = recorded[recorded["t"] < STEP * STEPS]
    edges = np.searchsorted(inside["t"], STEP * np.arange(STEPS + 1))
    edges[0] = 0  # jitter may have moved the first events to before the beginning
    return events.to_frames(inside, events.CustomSlices(lambda _: edges), SIZE)


def panels() -> list[tuple[str, NDArray[Any]]]:
    """Title and frames of every panel."""
    first, other = recording(3), recording(4)
    drawn = [("a digit", integrated(first)), ("another digit", integrated(other))]
    for transform, seed in EVENT_TRANSFORMS:
        augmented = transform.for_sensor(SIZE)(first, np.random.default_rng(seed))
        drawn.append((f"events.{type(transform).__name__}", integrated(augmented)))
    mixed, share = events.EventMix(sensor_size=SIZE)(first, other, np.random.default_rng(2))
    drawn.append((f"events.EventMix: {share:.0%}", integrated(mixed)))
    for way, seed in FRAME_TRANSFORMS:
        drawn.append((f"frames.{type(way).__name__}", way(integrated(first), np.random.default_rng(seed))))
    both = torch.stack([torch.from_numpy(integrated(each)) for each in (first, other)], 1)
    for mix in BATCH_TRANSFORMS:
        x, y, _ = mix(both, torch.eye(2), np.random.default_rng(12))
        drawn.append((f"frames.{type(mix).__name__}: {float(y[0, 0]):.0%}", x[:, 0].numpy()))
    return drawn


def image(frames_: NDArray[Any], scale: tuple[float, float]) -> NDArray[np.uint8]:
    """On the left the first saccade; on the right every row over time, to the right."""
    picture = event_frame_image(frames_[:FIRST].sum(0), scale[0])
    over_time = event_frame_image(frames_.sum(3).transpose(1, 2, 0), scale[1])
    gap = np.full((SIZE[0], 2, 3), 255, np.uint8)
    return np.concatenate([picture, gap, over_time], 1)


@styled
def picture() -> Figure:
    """The figure."""
    drawn = panels()
    plain = drawn[0][1]
    scale = float(np.percentile(plain[:FIRST].sum(0), 98)), float(np.percentile(plain.sum(3), 98))
    rows = -(-len(drawn) // COLUMNS)
    figure, axes = make_figure(10.0, 1.35 * rows + 0.3, rows, COLUMNS, None)
    for (title, frames_), ax in zip(drawn, axes, strict=False):
        ax.imshow(image(frames_, scale), interpolation="nearest", **IMAGE)
        ax.set_title(title, fontsize=8, color=MUTED, pad=3)
    for ax in axes:
        ax.axis("off")
    figure.supxlabel(
        "left: the first 100 ms · right: the same rows over 360 ms, time runs to the right · ON green, OFF red · "
        "per cent: share of the digit in the label",
        x=0.012,
        ha="left",
        fontsize=8,
        color=MUTED,
    )
    return figure


if __name__ == "__main__":
    save(picture(), HERE / "augmentation.png")
