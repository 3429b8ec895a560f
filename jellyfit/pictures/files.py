"""Figures as PNG files and as arrays."""

from __future__ import annotations

import math
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jellyfit.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["save", "to_array"]


def to_array(figure: Figure, dpi: float = 120) -> NDArray[np.uint8]:
    """Return the figure as an RGB image ``[H, W, 3]``, for loggers such as TensorBoard (``dataformats="HWC"``).

    Args:
        figure: Any matplotlib figure; it is left as it was.
        dpi: Pixels per inch, > 0. `H` and `W` are the figure's height and width in inches times it.

    Raises:
        InputError: A `dpi` that is not a finite number above 0.

    Examples:
        >>> from jellyfit import pictures
        >>> image = pictures.to_array(pictures.firing_rates({"layer": 0.1}), dpi=50)
        >>> image.shape[1:], str(image.dtype)
        ((500, 3), 'uint8')
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

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from jellyfit import pictures
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pictures.save(pictures.firing_rates({"layer": 0.1}), Path(folder, "new", "rates.png"))
        ...     path.name, path.exists()
        ('rates.png', True)
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
