"""What all pictures share: colours, matplotlib settings, panels, checks of what is drawn, and texts."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
from numpy.typing import NDArray

from jellyfit.errors import InputError, InputTypeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["as_array", "evenly", "integer_ticks", "make_figure", "number_text", "plural", "short", "styled"]

P = ParamSpec("P")

BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
INK, MUTED, RULE, GRID = "#1F2933", "#66717E", "#B8C0CA", "#E8EBEF"
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


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run `draw` under `STYLE` and put the caller's matplotlib settings back afterwards."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper


def make_figure(
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


def as_array(name: str, value: object, axes: Sequence[str]) -> NDArray[np.float64]:
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


def evenly(size: int, most: int, name: str) -> NDArray[np.intp]:
    """Return at most `most` indices of `range(size)`, evenly spaced, with both ends where there is room for two."""
    if most < 1:
        raise InputError(f"{name}: got {most}, expected at least 1.")
    if size <= most:
        return np.arange(size)
    return np.linspace(0, size - 1, most).round().astype(np.intp)


def short(name: str, most: int) -> str:
    """Return `name` with its middle left out where it is longer than `most` characters."""
    half = (most - 1) // 2
    return name if len(name) <= most else f"{name[: most - 1 - half]}…{name[-half:]}"


def number_text(value: float, digits: int = 3) -> str:
    """Return `value` with thousands marked, or with so many significant digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def plural(count: int, noun: str) -> str:
    """Return "1 noun" or "2 nouns"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def integer_ticks(axes: Axes, *, x: int | None = None, y: int | None = None) -> None:
    """Put ticks on integers only, about `x` and `y` of them."""
    from matplotlib.ticker import MaxNLocator

    for axis, count in ((axes.xaxis, x), (axes.yaxis, y)):
        if count is not None:
            axis.set_major_locator(MaxNLocator(count, integer=True, min_n_ticks=1))
