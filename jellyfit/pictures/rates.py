"""How much each layer fires."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from jellyfit.errors import InputError
from jellyfit.pictures.style import BLUE, INK, MUTED, VERMILLION, WIDTH, make_figure, number_text, short, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["firing_rates"]

SATURATED = 0.5  # spikes per neuron per step above which a layer hardly tells one input from another


@styled
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

    Examples:
        >>> from jellyfit import pictures
        >>> figure = pictures.firing_rates({"conv.0": 0.12, "conv.1": 0.0})
        >>> any("silent" in text.get_text() for text in figure.axes[0].texts)
        True
    """
    if not rates:
        raise InputError("rates: got no layer, expected at least one name with its rate.")
    for name, rate in rates.items():
        if not (math.isfinite(rate) and rate >= 0):
            raise InputError(
                f"rates[{name!r}]: got {rate}, expected a finite number of spikes per neuron per step, >= 0."
            )
    values = [float(rate) for rate in rates.values()]
    figure, (axes,) = make_figure(WIDTH, 1.1 + 0.32 * len(values), 1, 1, title)
    colours = [VERMILLION if value > SATURATED else BLUE for value in values]
    axes.barh(range(len(values)), values, height=0.62, color=colours)
    for place, value in enumerate(values):
        note = " · silent" if value == 0 else " · saturated" if value > SATURATED else ""
        axes.annotate(
            number_text(value) + note,
            (value, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=MUTED if value == 0 else VERMILLION if value > SATURATED else INK,
            style="italic" if value == 0 else "normal",
        )
    axes.set_yticks(range(len(values)), [short(name, 40) for name in rates])
    axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=9)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlim(0, (max(values) or 1.0) * 1.15)
    axes.grid(axis="x", linewidth=0.6)
    axes.set_xlabel("firing rate [spikes per neuron per step]")
    return figure
