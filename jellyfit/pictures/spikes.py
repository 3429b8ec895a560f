"""When which neuron fires."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jellyfit.errors import InputError
from jellyfit.pictures.style import (
    BLUE,
    MUTED,
    VERMILLION,
    WIDTH,
    as_array,
    evenly,
    integer_ticks,
    make_figure,
    number_text,
    plural,
    short,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["spike_raster"]


@styled
def spike_raster(spikes: Mapping[str, NDArray[Any]], *, max_neurons: int = 200, title: str | None = None) -> Figure:
    """Draw every spike of a few layers: one panel a layer, the time step on x, the neuron's index on y.

    A mark stands at each value other than 0: blue, or vermillion where the value is negative. Where the values differ
    (graded spikes, or several spikes in one step), the smaller a value, the shorter and paler its mark. The label of a
    panel gives the number of neurons, the firing rate and, where values differ, their range; all are over every neuron,
    drawn or not. The rate is the share of (step, neuron) pairs that hold a spike. A layer without a spike keeps its
    panel, marked "silent".

    Args:
        spikes: Layer name to an array ``[T, n]`` of any real or boolean dtype; ``T`` steps (the same for every layer)
            of ``n`` neurons (flatten channels and space first).
        max_neurons: Draw at most so many neurons of a layer, evenly spaced over it; the label says when some are left
            out.
        title: Title of the figure.

    Returns:
        A figure of 1200 pixels width at 120 dpi, whose height grows with the number of layers.

    Raises:
        InputError: No layer, a wrong shape, unequal ``T``, values that are not finite, or ``max_neurons < 1``.
        InputTypeError: Something that is not an array of numbers.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import pictures
        >>> figure = pictures.spike_raster({"hidden": np.eye(10), "output": np.zeros((10, 2))})
        >>> len(figure.axes)
        2
    """
    layers = {name: as_array(f"spikes[{name!r}]", value, ("T", "n")) for name, value in spikes.items()}
    if not layers:
        raise InputError("spikes: got no layer, expected at least one. Record the output of some spiking layer first.")
    lengths = {name: len(value) for name, value in layers.items()}
    steps = max(lengths.values())
    if len(set(lengths.values())) > 1:
        raise InputError(f"spikes: got different numbers of time steps, {lengths}; expected one T for every layer.")

    drawn = {name: evenly(value.shape[1], max_neurons, "max_neurons") for name, value in layers.items()}
    ceiling = 2.0 if len(layers) <= 6 else 0.9  # inches, so that 20 layers still make one page
    heights = [float(np.clip(0.5 + len(index) / 60, 0.6, ceiling)) for index in drawn.values()]
    figure, panels = make_figure(WIDTH, 0.8 + sum(heights) + 0.35 * len(layers), len(layers), 1, title, heights)
    for axes, (name, value), height in zip(panels, layers.items(), heights, strict=True):
        size, index = value.shape[1], drawn[name]
        axes.set_xlim(-0.5, steps - 0.5)
        margin = 0.5 * size / len(index)
        axes.set_ylim(-margin, size - 1 + margin)
        axes.grid(axis="x", linewidth=0.6)
        integer_ticks(axes, x=12, y=4)
        axes.set_title(short(name, 50), weight="bold")
        axes.set_title(_describe(value, len(index)), loc="right", color=MUTED, fontsize=9)
        if not value.any():
            axes.text(
                0.5, 0.5, "silent", transform=axes.transAxes, ha="center", va="center", color=MUTED, style="italic"
            )
        _draw_spikes(axes, value, index, height)
        axes.tick_params(labelbottom=axes is panels[-1])
    panels[-1].set_xlabel("time step")
    figure.supylabel("neuron index", fontsize=9, color=MUTED)
    return figure


def _describe(value: NDArray[np.float64], drawn: int) -> str:
    size = value.shape[1]
    parts = [plural(size, "neuron") if drawn == size else f"{drawn:,} of {size:,} neurons drawn"]
    parts.append(f"rate {number_text(np.count_nonzero(value) / value.size)}")
    spikes = value[value != 0]
    if spikes.size and spikes.min() != spikes.max():
        parts.append(f"values {number_text(spikes.min())} to {number_text(spikes.max())}")
    return " · ".join(parts)


def _draw_spikes(axes: Axes, value: NDArray[np.float64], index: NDArray[np.intp], height: float) -> None:
    """Add one upright line for each non-zero of `value` [T, n] at the neurons `index`; the panel is `height` inches."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb

    step, row = np.nonzero(value[:, index])
    strength = value[step, index[row]]
    share = np.abs(strength) / max(float(np.abs(strength).max(initial=0.0)), np.finfo(np.float64).tiny)
    size = value.shape[1]
    spacing = size / len(index)
    point = size / (height * 72)  # one point, in neurons: a mark stays visible where neurons are denser than pixels
    half = np.maximum(0.4 * spacing * (0.4 + 0.6 * share), 0.5 * point)
    x, y = step.astype(np.float64), index[row].astype(np.float64)
    segments = np.stack([np.stack([x, y - half], -1), np.stack([x, y + half], -1)], 1)
    colours = np.empty((len(x), 4))
    colours[:, :3] = np.where(strength[:, None] > 0, to_rgb(BLUE), to_rgb(VERMILLION))
    colours[:, 3] = 0.35 + 0.65 * share
    width = float(np.clip(0.35 * (WIDTH - 1) * 72 / value.shape[0], 0.8, 5.0))  # points
    marks = LineCollection(list(segments), colors=colours, linewidths=width)
    marks.set_snap(False)  # else rounding to pixels makes equal marks differ
    axes.add_collection(marks, autolim=False)
