"""Pictures of a spiking network and of its training: NumPy arrays in, matplotlib figures out.

Nothing here needs a display, touches pyplot or leaves a global setting changed, so the functions can be called from a
training loop on a server. matplotlib is imported by the first call, not by the import of this module. Show a figure by
`save` (a PNG file) or `to_array` (for TensorBoard and other loggers).

The colours are those of Okabe and Ito (2008), which people with a colour vision deficiency can tell apart; event frames
alone are green and red, as the event camera field draws them.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import textwrap
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
from numpy.typing import NDArray

from jellyfit.errors import InputError, InputTypeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "confusion_matrix",
    "event_frame_image",
    "event_frames",
    "firing_rates",
    "learning_curves",
    "save",
    "spike_raster",
    "to_array",
]

P = ParamSpec("P")
Table = dict[tuple[bool, str], dict[str, dict[float, float]]]  # (is a group, panel) -> line -> x -> value

BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
INK, MUTED, RULE, GRID = "#1F2933", "#66717E", "#B8C0CA", "#E8EBEF"
STAGE_COLOURS = {"train": MUTED, "val": BLUE, "test": VERMILLION}
SATURATED = 0.5  # spikes per neuron per step above which a layer hardly tells one input from another
WIDTH = 10.0  # inches: 1200 pixels at the default 120 dpi

# What matplotlib reads when an artist is made. Layer and class names are shown as they are: "$" starts no formula.
STYLE: Any = {
    "axes.edgecolor": RULE,
    "axes.facecolor": "white",
    "axes.grid": False,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "normal",
    "figure.facecolor": "white",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "text.usetex": False,
}
IMAGE: Any = {"origin": "upper", "aspect": "equal"}


def _styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run `draw` under `STYLE` and put the caller's matplotlib settings back afterwards."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper


def _figure(
    width: float, height: float, rows: int, columns: int, title: str | None, ratios: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """Make a figure of `width` x `height` inches with `rows` x `columns` panels; `ratios` are of the rows' heights."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    if title is not None:
        figure.suptitle(textwrap.fill(title, int(width * 9)), x=0.012, ha="left", fontsize=12, weight="bold")
    panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False, height_ratios=ratios).flat)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        # Ticks are made when the figure is drawn, outside STYLE, so their look is set on the axes.
        axes.tick_params(color=RULE, labelcolor=MUTED, labelsize=8, length=3, width=0.8, grid_color=GRID)
        axes.set_axisbelow(True)
    return figure, panels


def _array(name: str, value: object, axes: Sequence[str]) -> NDArray[np.float64]:
    """Return `value` as finite floats with one dimension, of at least one element, for each of `axes`."""
    shape = f"[{', '.join(axes)}]"
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputTypeError(
            f"{name}: cannot be read as a NumPy array ({error}). Pass an array {shape}; "
            "for a tensor, pass tensor.detach().cpu().numpy()."
        ) from error
    if array.dtype.kind not in "biuf":
        raise InputTypeError(f"{name}: got dtype {array.dtype}, expected real numbers or booleans of shape {shape}.")
    if array.ndim != len(axes):
        raise InputError(f"{name}: got shape {list(array.shape)}, expected {shape}. Reshape or index it first.")
    if array.size == 0:
        raise InputError(
            f"{name}: got shape {list(array.shape)}, which is empty; expected {shape} with every size > 0."
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise InputError(f"{name}: {bad} of {array.size} values are NaN or infinite. Find where they arise first.")
    return array


def _evenly(size: int, most: int, name: str) -> NDArray[np.intp]:
    """Return at most `most` indices of `range(size)`, evenly spaced, with both ends where there is room for two."""
    if most < 1:
        raise InputError(f"{name}: got {most}, expected at least 1.")
    if size <= most:
        return np.arange(size)
    return np.linspace(0, size - 1, most).round().astype(np.intp)


def _short(name: str, most: int) -> str:
    """Return `name` with its middle left out where it is longer than `most` characters."""
    half = (most - 1) // 2
    return name if len(name) <= most else f"{name[: most - 1 - half]}…{name[-half:]}"


def _number(value: float, digits: int = 3) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _integer_ticks(axes: Axes, *, x: int | None = None, y: int | None = None) -> None:
    """Put ticks on integers only, about `x` and `y` of them."""
    from matplotlib.ticker import MaxNLocator

    for axis, count in ((axes.xaxis, x), (axes.yaxis, y)):
        if count is not None:
            axis.set_major_locator(MaxNLocator(count, integer=True, min_n_ticks=1))


@_styled
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
    """
    layers = {name: _array(f"spikes[{name!r}]", value, ("T", "n")) for name, value in spikes.items()}
    if not layers:
        raise InputError("spikes: got no layer, expected at least one. Record the output of some spiking layer first.")
    lengths = {name: len(value) for name, value in layers.items()}
    steps = max(lengths.values())
    if len(set(lengths.values())) > 1:
        raise InputError(f"spikes: got different numbers of time steps, {lengths}; expected one T for every layer.")

    drawn = {name: _evenly(value.shape[1], max_neurons, "max_neurons") for name, value in layers.items()}
    ceiling = 2.0 if len(layers) <= 6 else 0.9  # inches, so that 20 layers still make one page
    heights = [float(np.clip(0.5 + len(index) / 60, 0.6, ceiling)) for index in drawn.values()]
    figure, panels = _figure(WIDTH, 0.8 + sum(heights) + 0.35 * len(layers), len(layers), 1, title, heights)
    for axes, (name, value), height in zip(panels, layers.items(), heights, strict=True):
        size, index = value.shape[1], drawn[name]
        axes.set_xlim(-0.5, steps - 0.5)
        margin = 0.5 * size / len(index)
        axes.set_ylim(-margin, size - 1 + margin)
        axes.grid(axis="x", linewidth=0.6)
        _integer_ticks(axes, x=12, y=4)
        axes.set_title(_short(name, 50), weight="bold")
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
    parts = [_plural(size, "neuron") if drawn == size else f"{drawn:,} of {size:,} neurons drawn"]
    parts.append(f"rate {_number(np.count_nonzero(value) / value.size)}")
    spikes = value[value != 0]
    if spikes.size and spikes.min() != spikes.max():
        parts.append(f"values {_number(spikes.min())} to {_number(spikes.max())}")
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


@_styled
def firing_rates(rates: Mapping[str, float], *, title: str | None = None) -> Figure:
    """Draw the firing rates of the layers as horizontal bars, in the order given, with the values printed.

    A layer at exactly 0 is marked "silent" and one above 0.5 "saturated" (with a vermillion bar): neither passes on
    much about its input.

    Args:
        rates: Layer name to its rate, in spikes per neuron per step; 0 or more.
        title: Title of the figure.

    Returns:
        A figure of 1200 pixels width at 120 dpi, whose height grows with the number of layers.

    Raises:
        InputError: No layer, or a rate that is negative, NaN or infinite.
    """
    if not rates:
        raise InputError("rates: got no layer, expected at least one name with its rate.")
    for name, rate in rates.items():
        if not (math.isfinite(rate) and rate >= 0):
            raise InputError(
                f"rates[{name!r}]: got {rate}, expected a finite number of spikes per neuron per step, >= 0."
            )
    values = [float(rate) for rate in rates.values()]
    figure, (axes,) = _figure(WIDTH, 1.1 + 0.32 * len(values), 1, 1, title)
    colours = [VERMILLION if value > SATURATED else BLUE for value in values]
    axes.barh(range(len(values)), values, height=0.62, color=colours)
    for place, value in enumerate(values):
        note = " · silent" if value == 0 else " · saturated" if value > SATURATED else ""
        axes.annotate(
            _number(value) + note,
            (value, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=MUTED if value == 0 else VERMILLION if value > SATURATED else INK,
            style="italic" if value == 0 else "normal",
        )
    axes.set_yticks(range(len(values)), [_short(name, 40) for name in rates])
    axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=9)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlim(0, (max(values) or 1.0) * 1.15)
    axes.grid(axis="x", linewidth=0.6)
    axes.set_xlabel("firing rate [spikes per neuron per step]")
    return figure


def event_frame_image(frame: NDArray[Any], scale: float) -> NDArray[np.uint8]:
    """Colour one event frame: ON events green, OFF events red, both yellow, none black.

    A channel's brightness is ``255 * sqrt(clip(value / scale, 0, 1))``; the root keeps single events visible beside
    pixels with many.

    Args:
        frame: Counts (or other intensities) ``[2, H, W]``; channel 0 is OFF, channel 1 is ON. What is below 0 is drawn
            as 0.
        scale: The value that gets full brightness, > 0.

    Returns:
        An RGB image ``[H, W, 3]``.

    Raises:
        InputError: A wrong shape, values that are not finite, or a scale that is not a finite number above 0.
        InputTypeError: Something that is not an array of numbers.
    """
    array = _array("frame", frame, ("2", "H", "W"))
    if array.shape[0] != 2:
        raise InputError(
            f"frame: got shape {list(array.shape)}, expected [2, H, W] with channel 0 = OFF, channel 1 = ON events."
        )
    if not (math.isfinite(scale) and scale > 0):
        raise InputError(f"scale: got {scale}, expected a finite number > 0: the value drawn with full brightness.")
    image = np.zeros((*array.shape[1:], 3), np.uint8)
    image[..., :2] = np.moveaxis(np.rint(255 * np.sqrt(np.clip(array / scale, 0, 1))), 0, -1)  # red: OFF, green: ON
    return image


@_styled
def event_frames(
    frames: NDArray[Any], *, label: str | int | None = None, max_frames: int = 16, title: str | None = None
) -> Figure:
    """Draw the frames of one event sample as a grid, each with the number of its time step.

    ON events are green, OFF events red, both yellow, on black (see `event_frame_image`). One scale serves the whole
    sample: the 99th percentile of the values above 0, so that a hot pixel does not darken the rest.

    Args:
        frames: Counts (or other intensities) ``[T, 2, H, W]``; channel 0 is OFF, channel 1 is ON.
        label: Class of the sample, written above the grid.
        max_frames: Draw at most so many frames, evenly spaced over the sample; the figure says when some are left out.
        title: Title of the figure.

    Returns:
        A figure of up to 1200 pixels width at 120 dpi.

    Raises:
        InputError: A wrong shape, values that are not finite, or ``max_frames < 1``.
        InputTypeError: Something that is not an array of numbers.
    """
    array = _array("frames", frames, ("T", "2", "H", "W"))
    if array.shape[1] != 2:
        raise InputError(
            f"frames: got shape {list(array.shape)}, expected [T, 2, H, W] with channel 0 = OFF, channel 1 = ON events."
        )
    index = _evenly(len(array), max_frames, "max_frames")
    events = array[array > 0]
    scale = float(np.percentile(events, 99)) if events.size else 1.0
    columns = _grid_columns(len(index))
    rows = math.ceil(len(index) / columns)
    width = max(5.0, min(WIDTH, 2.2 * columns))
    tile = min(4.0, (width / columns - 0.2) * array.shape[2] / array.shape[3])
    figure, panels = _figure(width, 0.4 + 0.35 * (title is not None) + rows * (tile + 0.4), rows, columns, title)
    for axes, step in zip(panels, index, strict=False):
        axes.imshow(event_frame_image(array[step], scale), interpolation="antialiased", **IMAGE)
        axes.set_title(f"step {step}", fontsize=8, color=MUTED, pad=3)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    for axes in panels[len(index) :]:
        axes.remove()
    parts = [] if label is None else [f"label: {label}"]
    parts.append(
        _plural(len(array), "step") if len(index) == len(array) else f"{len(index)} of {len(array)} steps drawn"
    )
    parts.append("ON green, OFF red" if events.size else "no events")
    figure.supxlabel(textwrap.fill(" · ".join(parts), int(width * 11)), x=0.012, ha="left", fontsize=9, color=MUTED)
    return figure


def _grid_columns(count: int) -> int:
    """Return the number of columns, from square to twice as wide as high, that leaves the fewest cells empty."""
    least = math.ceil(math.sqrt(count))
    return min(range(least, min(count, 2 * least) + 1), key=lambda columns: (-count % columns, columns))


@_styled
def learning_curves(
    rows: Sequence[Mapping[str, float | str | None]],
    *,
    x: str = "epoch",
    groups: Sequence[str] = (),
    title: str | None = None,
) -> Figure:
    """Draw how the metrics changed: a panel for each metric, a line for each of train and val, a point for test.

    The metric is what follows the first ``/`` of a column (``train/loss`` and ``val/loss`` share the panel ``loss``).
    The best validation value has a ring and stands, with its epoch, at the panel's top right. The lowest is the best
    where the name holds "loss", "error", "mse", "mae", "rmse", "nll" or "perplexity" as a word; else the highest. Of
    equal ones it is the first.

    Args:
        rows: Rows of a ``metrics.csv`` (see `csv.DictReader`), each with some of the columns. A value may be a number
            or its text; what is missing, empty, None, NaN or infinite is skipped, as is a row without `x`. Of several
            values at one `x` the last is drawn.
        x: The column on the x axis, such as ``"epoch"`` or ``"step"``.
        groups: Further columns to draw, a panel for each group with a line for each column: ``"firing_rate"`` is every
            ``firing_rate/...``, ``"lr"`` is ``lr`` and every ``lr-...``.
        title: Title of the figure.

    Returns:
        A figure of 1200 pixels width at 120 dpi (700 where there is one panel).

    Raises:
        InputError: No row with `x`, nothing to draw, a group without a value, or a value that is not a number.
    """
    table = _curves(rows, x, groups)
    columns = min(2, len(table))
    count = math.ceil(len(table) / columns)
    figure, panels = _figure(WIDTH if columns == 2 else 7.0, 0.6 + 3.0 * count, count, columns, title)
    for axes, ((is_group, name), lines) in zip(panels, table.items(), strict=False):
        axes.set_title(_short(name, 24), weight="bold")
        axes.grid(linewidth=0.6)
        axes.set_xlabel(x)
        _integer_ticks(axes, x=8)
        if is_group:
            colours = _line_colours(len(lines))
            _draw_lines(axes, [(line, colour, lines[line]) for line, colour in zip(lines, colours, strict=True)])
        else:
            _draw_lines(
                axes, [(stage, STAGE_COLOURS[stage], lines[stage]) for stage in STAGE_COLOURS if stage in lines]
            )
            if "val" in lines:
                _mark_best(axes, name, x, lines["val"])
    for axes in panels[len(table) :]:
        axes.remove()
    return figure


def _curves(rows: Sequence[Mapping[str, float | str | None]], x: str, groups: Sequence[str]) -> Table:
    """Sort the values of `rows` into panels and lines."""
    table: Table = {}
    for row in rows:
        at = _value(x, row.get(x))
        for column, raw in row.items() if at is not None else ():
            place = _panel_and_line(column, groups)
            value = None if place is None else _value(column, raw)
            if at is not None and place is not None and value is not None:
                table.setdefault(place[0], {}).setdefault(place[1], {})[at] = value
    columns = sorted({column for row in rows for column in row})
    if not any(_value(x, row.get(x)) is not None for row in rows):
        raise InputError(
            f"x: no row of {len(rows)} has a value for {x!r}. The columns are {columns}; choose one of them."
        )
    if missing := [group for group in groups if (True, group) not in table]:
        raise InputError(f"groups: no column has a value for {missing}. The columns are {columns}.")
    if not table:
        raise InputError(
            f"rows: found nothing to draw. Expected columns such as 'train/loss' or 'val/accuracy', got {columns}; "
            "name other ones by groups=."
        )
    return dict(sorted(table.items(), key=lambda item: item[0][0]))  # groups last, else in order of appearance


def _panel_and_line(column: str, groups: Iterable[str]) -> tuple[tuple[bool, str], str] | None:
    stage, _, metric = column.partition("/")
    if stage in STAGE_COLOURS and metric:
        return (False, metric), stage
    for group in groups:
        if column == group or column.startswith((f"{group}/", f"{group}-")):
            return (True, group), column[len(group) + 1 :] or group
    return None


def _value(column: str, raw: float | str | None) -> float | None:
    """Return a finite number, or None for what is to be skipped."""
    if raw is None or (isinstance(raw, str) and not raw.strip()):
        return None
    try:
        number = float(raw)
    except (TypeError, ValueError) as error:
        raise InputError(f"rows: got {raw!r} in the column {column!r}, expected a number or nothing.") from error
    return number if math.isfinite(number) else None


def _line_colours(count: int) -> list[Any]:
    """Return `count` colours: distinct ones for a few lines, a dark to light sequence for many."""
    from matplotlib import colormaps

    few = [BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY]
    return few[:count] if count <= len(few) else list(colormaps["viridis"](np.linspace(0, 0.88, count)))


def _draw_lines(axes: Axes, lines: Sequence[tuple[str, Any, Mapping[float, float]]]) -> None:
    """Draw (name, colour, x to y) lines, named at their right ends; `test` is one point."""
    ends, texts = [], []
    for name, colour, points in lines:
        xs, ys = map(list, zip(*sorted(points.items()), strict=True))
        if name == "test":
            last = list(points)[-1]  # the last one logged, wherever it lies
            xs, ys = [last], [points[last]]
        marker = "D" if name == "test" else "o" if len(xs) <= 40 else None
        axes.plot(
            xs, ys, color=colour, linewidth=1.6, marker=marker, markersize=6 if name == "test" else 3.5, label=name
        )
        ends.append(ys[-1])
        texts.append(f"test {_number(ys[-1], 4)}" if name == "test" else _short(name, 24))
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    gap = min(0.06, 1 / max(1, len(ends) - 1))  # of the panel's height: what a line of text takes, while there is room
    places = _spread([(end - low) / (high - low) for end in ends], gap)
    for (_, colour, _), text, place in zip(lines, texts, places, strict=True):
        axes.annotate(
            text,
            (1, place),
            xytext=(4, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            color=colour,
            va="center",
            fontsize=max(4.0, 9 * gap / 0.06),
        )


def _spread(places: Sequence[float], gap: float) -> list[float]:
    """Move places in [0, 1] at least `gap` apart, in the same order, and within [0, 1] if they fit there."""
    order = sorted(range(len(places)), key=places.__getitem__)
    moved = list(places)
    for before, here in itertools.pairwise(order):
        moved[here] = max(moved[here], moved[before] + gap)
    limit = 1.0
    for here in reversed(order):
        moved[here] = min(moved[here], limit)
        limit = moved[here] - gap
    return moved


def _mark_best(axes: Axes, metric: str, x: str, points: Mapping[float, float]) -> None:
    """Ring the best of the points and say where it is."""
    words = set(metric.lower().replace("-", "_").replace("/", "_").split("_"))
    sign = 1 if words & {"loss", "error", "mse", "mae", "rmse", "nll", "perplexity"} else -1
    at, best = min(sorted(points.items()), key=lambda point: sign * point[1])
    colour = STAGE_COLOURS["val"]
    axes.plot([at], [best], "o", markersize=9, markerfacecolor="none", markeredgecolor=colour, label="best val")
    axes.set_title(f"best val {_number(best, 4)} · {x} {at:g}", loc="right", color=colour, fontsize=9)


@_styled
def confusion_matrix(matrix: NDArray[Any], labels: Sequence[str] | None = None, *, title: str | None = None) -> Figure:
    """Draw a confusion matrix: each row coloured by the share of its true class, with the accuracy above.

    The counts are written in the cells up to 20 classes. A row without samples is hatched and marked "no samples"; with
    more than 20 classes the line above says how many there are.

    Args:
        matrix: Counts ``[C, C]``, integers >= 0 of any dtype; row = true class, column = predicted class.
        labels: The ``C`` class names; their indices when None. Above 50 classes the axes show indices only.
        title: Title of the figure.

    Returns:
        A figure of about 700 to 1200 pixels width at 120 dpi, wider above 900 classes: a cell gets at least one pixel.

    Raises:
        InputError: A matrix that is not square or holds anything but counts, or a wrong number of labels.
        InputTypeError: Something that is not an array of numbers.
    """
    counts = _array("matrix", matrix, ("C", "C"))
    size = len(counts)
    if counts.shape[1] != size:
        raise InputError(
            f"matrix: got shape {list(counts.shape)}, expected a square [C, C] of true x predicted classes."
        )
    if (counts < 0).any() or (counts != np.rint(counts)).any():
        raise InputError(
            "matrix: got negative or fractional values, expected counts. Pass the matrix before normalising."
        )
    if labels is not None and len(labels) != size:
        raise InputError(f"labels: got {len(labels)} names for {size} classes, expected one for each.")
    totals = counts.sum(axis=1)
    shares = np.divide(counts, totals[:, None], out=np.full_like(counts, np.nan), where=totals[:, None] > 0)

    names = [str(place) for place in range(size)] if labels is None else [_short(str(label), 28) for label in labels]
    longest = max(map(len, names)) if size <= 50 else 4
    tilted = size <= 50 and size * longest > 90
    side = float(np.clip(0.5 * size, 4.0, max(8.5, size / 110)))  # inches; a cell gets a pixel or more at 120 dpi
    beside, below = 1.5 + 0.075 * longest, 0.9 + 0.055 * longest * tilted + 0.35 * (title is not None)
    figure, (axes,) = _figure(side + beside, side + below, 1, 1, title)
    masked = np.ma.masked_invalid(shares)
    image = axes.imshow(masked, cmap=_blues(), vmin=0, vmax=1, interpolation="nearest", **IMAGE)
    total, right = totals.sum(), np.trace(counts)
    accuracy = f"accuracy {right / total:.2%} ({right:,.0f} of {total:,.0f})" if total else "no samples"
    if size > 20 and total and (totals == 0).any():
        accuracy += f" · {(totals == 0).sum()} of {size:,} classes without samples"
    axes.set_title(accuracy, weight="bold")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.spines[:].set_visible(False)
    _name_classes(axes, names, tilted)
    _mark_empty_rows(axes, np.flatnonzero(totals == 0), size)
    if size <= 20:
        _write_counts(axes, counts, shares, side)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=24, label="share of the true class", ticks=[0, 0.5, 1])
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=MUTED)
    bar.outline.set_visible(False)
    return figure


def _blues() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("jellyfit_blues", ["#F7F9FB", "#9CC7E3", BLUE, "#003A5D"])


def _name_classes(axes: Axes, names: Sequence[str], tilted: bool) -> None:
    size = len(names)
    if size > 50:
        _integer_ticks(axes, x=10, y=10)
        return
    axes.set_xticks(range(size), names, rotation=45 if tilted else 0, ha="right" if tilted else "center")
    axes.set_yticks(range(size), names)
    for label in axes.get_xticklabels():
        label.set_rotation_mode("anchor")
    axes.tick_params(length=0, labelsize=9 if size <= 25 else 7, labelcolor=INK)


def _mark_empty_rows(axes: Axes, rows: NDArray[np.intp], size: int) -> None:
    from matplotlib.patches import Rectangle

    for row in rows:
        face = "white" if size <= 50 else GRID
        box = Rectangle((-0.5, row - 0.5), size, 1, facecolor=face, edgecolor=GRID, linewidth=0)
        box.set_hatch("////" if size <= 50 else "")
        axes.add_patch(box)
        if size <= 20:
            axes.text(
                (size - 1) / 2,
                row,
                "no samples",
                ha="center",
                va="center",
                color=MUTED,
                style="italic",
                backgroundcolor="white",
            )


def _write_counts(axes: Axes, counts: NDArray[np.float64], shares: NDArray[np.float64], side: float) -> None:
    """Write the counts of the rows that have samples; the matrix is `side` inches wide."""
    longest = len(f"{counts.max():.0f}")
    font = min(10.0, 1.2 * side * 72 / len(counts) / max(longest, 2))
    for row, column in np.argwhere(~np.isnan(shares)):
        count, share = counts[row, column], shares[row, column]
        colour = "white" if share > 0.5 else MUTED if count == 0 else INK
        text = axes.text(column, row, f"{count:.0f}", ha="center", va="center", color=colour, fontsize=font)
        text.set_in_layout(False)  # it lies within the image; measuring 400 of them is slow


def to_array(figure: Figure, dpi: float = 120) -> NDArray[np.uint8]:
    """Return the figure as an RGB image ``[H, W, 3]``, for loggers such as TensorBoard (``dataformats="HWC"``).

    Args:
        figure: Any matplotlib figure; it is left as it was.
        dpi: Pixels per inch, > 0. `H` and `W` are the figure's height and width in inches times it.

    Raises:
        InputError: A `dpi` that is not a finite number above 0.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if not (math.isfinite(dpi) and dpi > 0):
        raise InputError(f"dpi: got {dpi}, expected a finite number of pixels per inch > 0.")
    canvas, before = figure.canvas, figure.dpi
    try:
        figure.dpi = dpi
        agg: Any = FigureCanvasAgg(figure)  # half of it has no types
        agg.draw()
        return np.array(agg.buffer_rgba(), dtype=np.uint8)[..., :3].copy()
    finally:
        figure.dpi = before
        figure.set_canvas(canvas)


def save(figure: Figure, path: str | os.PathLike[str], dpi: float = 120) -> Path:
    """Write the figure to a PNG file, whole or not at all.

    The file is written under another name in the same folder and then renamed, so a reader never sees half of it and a
    failure leaves an older file as it was.

    Args:
        figure: Any matplotlib figure.
        path: Where to write, ending in ``.png``. Missing folders are made; an older file is replaced.
        dpi: Pixels per inch, > 0.

    Returns:
        The path.

    Raises:
        InputError: Another suffix, or a `dpi` that is not a finite number above 0.
        OSError: The folder cannot be made or written.
    """
    from matplotlib.image import imsave

    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"path: got {str(path)!r}, expected a name that ends in .png, the one format written.")
    image = to_array(figure, dpi)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            imsave(file, image, format="png", dpi=dpi, origin="upper")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
