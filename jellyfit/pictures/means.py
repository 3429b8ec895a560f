"""Means over repeated runs, with how sure they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jellyfit.errors import InputError
from jellyfit.pictures.curves import line_colours
from jellyfit.pictures.style import MUTED, as_array, make_figure, plural, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["mean_curves"]


@styled
def mean_curves(
    curves: Mapping[str, Sequence[tuple[ArrayLike, ArrayLike]]],
    *,
    x: str = "steps of the environment",
    y: str = "return",
    title: str | None = None,
) -> Figure:
    """Draw what several runs of each of some methods reached: their mean, within its 95 % confidence interval.

    The interval is Student's, ``mean ± t s / √n`` for n runs with the standard deviation s; one run is a line alone.
    The mean goes as far as all runs of the method; those that were measured at other places are interpolated linearly.

    Args:
        curves: For each method its runs, such as those of several seeds: pairs of places on the x axis ``[P]``, in
            order, and values there ``[P]``. The legend has the methods' names and numbers of runs.
        x: Name of the x axis.
        y: Name of the y axis.
        title: Title of the figure.

    Returns:
        A figure of 840 x 516 pixels at 120 dpi.

    Raises:
        InputError: No method, or one without a run; places that are not in order, another number of values than of
            places, values that are not finite, or runs that have no stretch of the x axis in common.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import pictures
        >>> steps = np.arange(5) * 1000
        >>> runs = [(steps, steps / 100 + seed) for seed in range(3)]
        >>> (axes,) = pictures.mean_curves({"spiking": runs, "ReLU": runs[:1]}).axes
        >>> [text.get_text() for text in axes.get_legend().get_texts()]
        ['spiking (3 seeds)', 'ReLU (1 seed)']
    """
    from matplotlib.ticker import EngFormatter

    if not curves:
        raise InputError("curves: got none; expected the runs of at least one method.")
    figure, (axes,) = make_figure(7.0, 4.3, 1, 1, title)
    for (name, runs), colour in zip(curves.items(), line_colours(len(curves)), strict=True):
        places, mean, half = _mean_and_interval(name, runs)
        marker = "o" if len(places) == 1 else None
        label = f"{name} ({plural(len(runs), 'seed')})"
        axes.plot(places, mean, color=colour, linewidth=1.8, marker=marker, label=label)
        if len(runs) > 1:
            axes.fill_between(places, mean - half, mean + half, color=colour, alpha=0.18, linewidth=0)
    axes.grid(linewidth=0.6)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(x=0.02)
    axes.legend(frameon=False, loc="best")
    if any(len(runs) > 1 for runs in curves.values()):
        axes.set_title("mean and its 95 % confidence interval (t)", loc="right", color=MUTED, fontsize=8)
    return figure


def _mean_and_interval(
    name: str, runs: Sequence[tuple[ArrayLike, ArrayLike]]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Places, the mean there, and half the width of its interval."""
    from scipy.special import stdtrit

    if not runs:
        raise InputError(f"curves: {name!r} has no runs; leave it out, or give at least one.")
    checked = []
    for number, (places, values) in enumerate(runs):
        what = f"curves[{name!r}][{number}]"
        at, found = as_array(f"{what}: places", places, "P"), as_array(f"{what}: values", values, "P")
        if len(at) != len(found):
            raise InputError(f"{what}: got {len(at)} places and {len(found)} values; expected as many.")
        if (np.diff(at) <= 0).any():
            raise InputError(f"{what}: its places are not in order; expected each to lie behind the one before.")
        checked.append((at, found))
    first, last = max(at[0] for at, _ in checked), min(at[-1] for at, _ in checked)
    grid = np.unique(np.concatenate([at for at, _ in checked]))
    grid = grid[(grid >= first) & (grid <= last)]
    if not len(grid):
        raise InputError(f"curves: the runs of {name!r} have nothing of the x axis in common ({first:g} > {last:g}).")
    values = np.stack([np.interp(grid, at, found) for at, found in checked])
    n = len(checked)
    if n == 1:
        return grid, values[0], np.zeros_like(grid)
    return grid, values.mean(0), stdtrit(n - 1, 0.975) * values.std(0, ddof=1) / np.sqrt(n)
