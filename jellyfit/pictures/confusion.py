"""Which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jellyfit.errors import InputError
from jellyfit.pictures.style import BLUE, GRID, IMAGE, INK, MUTED, as_array, integer_ticks, make_figure, short, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["confusion_matrix"]


@styled
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

    Examples:
        >>> import numpy as np
        >>> from jellyfit import pictures
        >>> figure = pictures.confusion_matrix(np.array([[8, 2], [1, 9]]), ["cat", "dog"])
        >>> len(figure.axes) > 0
        True
    """
    counts = as_array("matrix", matrix, ("C", "C"))
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

    names = [str(place) for place in range(size)] if labels is None else [short(str(label), 28) for label in labels]
    longest = max(map(len, names)) if size <= 50 else 4
    tilted = size <= 50 and size * longest > 90
    side = float(np.clip(0.5 * size, 4.0, max(8.5, size / 110)))  # inches; a cell gets a pixel or more at 120 dpi
    beside, below = 1.5 + 0.075 * longest, 0.9 + 0.055 * longest * tilted + 0.35 * (title is not None)
    figure, (axes,) = make_figure(side + beside, side + below, 1, 1, title)
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
        integer_ticks(axes, x=10, y=10)
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
