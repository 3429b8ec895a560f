"""Metrics over a training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jellyfit.errors import InputError
from jellyfit.pictures.style import (
    BLUE,
    GREEN,
    MUTED,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    WIDTH,
    integer_ticks,
    make_figure,
    number_text,
    short,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["learning_curves"]

STAGE_COLOURS = {"train": MUTED, "val": BLUE, "test": VERMILLION}

Table = dict[tuple[bool, str], dict[str, dict[float, float]]]  # (is a group, panel) -> line -> x -> value


@styled
def learning_curves(
    rows: Sequence[Mapping[str, float | str | None]],
    *,
    x: str = "epoch",
    groups: Sequence[str] = (),
    title: str | None = None,
) -> Figure:
    """Draw how the metrics changed: a panel for each metric, a line for each of train and val, a point for test.

    The metric is what follows the first ``/`` of a column (``train/loss`` and ``val/loss`` share the panel ``loss``).
    Columns of several learners (``val/return/0``, ``val/return/1``, ...) are a band of their mean and standard
    deviation in the panel of the metric.
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

    Examples:
        >>> from jellyfit import pictures
        >>> rows = [{"epoch": 0, "train/loss": 1.2, "val/loss": 1.1}, {"epoch": 1, "train/loss": 0.8, "val/loss": 0.9}]
        >>> [axes.get_title(loc="left") for axes in pictures.learning_curves(rows).axes]
        ['loss']
    """
    table = _curves(rows, x, groups)
    columns = min(2, len(table))
    count = math.ceil(len(table) / columns)
    figure, panels = make_figure(WIDTH if columns == 2 else 7.0, 0.6 + 3.0 * count, count, columns, title)
    for axes, ((is_group, name), lines) in zip(panels, table.items(), strict=False):
        axes.set_title(short(name, 24), weight="bold")
        axes.grid(linewidth=0.6)
        axes.set_xlabel(x)
        integer_ticks(axes, x=8)
        if is_group:
            colours = line_colours(len(lines))
            _draw_lines(axes, [(line, colour, lines[line]) for line, colour in zip(lines, colours, strict=True)])
        else:
            for stage, colour in STAGE_COLOURS.items():
                _draw_band(axes, colour, [points for line, points in lines.items() if line.startswith(f"{stage}/")])
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
    columns = sorted({column for row in rows for column in row})
    for row in rows:
        at = _value(x, row.get(x))
        for column, raw in row.items() if at is not None else ():
            place = _panel_and_line(column, columns, groups)
            value = None if place is None else _value(column, raw)
            if at is not None and place is not None and value is not None:
                table.setdefault(place[0], {}).setdefault(place[1], {})[at] = value
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


def _panel_and_line(column: str, columns: Container[str], groups: Iterable[str]) -> tuple[tuple[bool, str], str] | None:
    stage, _, metric = column.partition("/")
    if stage in STAGE_COLOURS and metric:
        whole, _, learner = metric.rpartition("/")
        if learner.isdigit() and f"{stage}/{whole}" in columns:
            return (False, whole), f"{stage}/{learner}"
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


def line_colours(count: int) -> list[Any]:
    """Return `count` colours: distinct ones for a few lines, a dark to light sequence for many."""
    from matplotlib import colormaps

    few = [BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY]
    return few[:count] if count <= len(few) else list(colormaps["viridis"](np.linspace(0, 0.88, count)))


def _draw_band(axes: Axes, colour: Any, lines: Sequence[Mapping[float, float]]) -> None:
    """Draw mean and standard deviation of `lines` (x to y) where all of them have a value."""
    xs = sorted(set.intersection(*map(set, lines))) if lines else []
    if xs:
        ys = np.array([[points[x] for x in xs] for points in lines])
        mean, std = ys.mean(0), ys.std(0)
        axes.fill_between(xs, mean - std, mean + std, color=colour, alpha=0.2, linewidth=0)


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
        texts.append(f"test {number_text(ys[-1], 4)}" if name == "test" else short(name, 24))
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
    axes.set_title(f"best val {number_text(best, 4)} · {x} {at:g}", loc="right", color=colour, fontsize=9)
