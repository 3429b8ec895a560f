"""Draw and write ``docs/surrogates.png`` and ``docs/surrogates.md`` from the surrogates themselves.

Run ``python docs/pictures.py`` after a change to them; a test compares the page.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from jellyfit import surrogates
from jellyfit.pictures import save
from jellyfit.pictures.style import BLUE, MUTED, ORANGE, RULE, make_figure, styled
from jellyfit.surrogates import SurrogateFunction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
COLUMNS = 5
HEAD = """# Surrogates

A neuron fires where its potential reaches the threshold: `s = Θ(h - v_threshold)`. The derivative of that step is 0
almost everywhere, so backward passes use a *surrogate* `g'(x)` of `x = h - v_threshold` instead. If there is a smooth
function with that derivative, the *primitive* `g(x)`, it is what a surrogate with `spiking=False` puts out.

```python
from jellyfit import neurons, surrogates

node = neurons.LIFNode(surrogate_function=surrogates.ATan(alpha=2.0))
```

All fuse into the neuron's kernels but `PoissonPass`, which draws random numbers. One's own is a class with a
`gradient`:

```python
class Triangle(surrogates.SurrogateFunction):
    def gradient(self, x):
        return (1.0 - x.abs()).clamp(min=0.0)
```

![Gradient and primitive of every surrogate](surrogates.png)

| `surrogates.` | what it is |
|---|---|
"""


def classes() -> list[type[SurrogateFunction]]:
    """Every surrogate, in the order of the source."""
    found = [value for value in vars(surrogates).values() if inspect.isclass(value)]
    public = [cls for cls in found if cls.__name__ in surrogates.__all__ and issubclass(cls, SurrogateFunction)]
    return [cls for cls in public if cls is not SurrogateFunction]


def page() -> str:
    """The page's text: of every surrogate its arguments with their defaults, and the first line of its docstring."""
    rows = []
    for cls in classes():
        arguments = [
            f"{name}={parameter.default:g}"
            for name, parameter in inspect.signature(cls).parameters.items()
            if isinstance(parameter.default, (int, float)) and name != "spiking"
        ]
        line = re.sub("``", "`", inspect.getdoc(cls).splitlines()[0]).replace("|", r"\|")  # type: ignore[union-attr]
        rows.append(f"| `{cls.__name__}({', '.join(arguments)})` | {line} |\n")
    return HEAD + "".join(rows)


@styled
def picture() -> Figure:
    """Every surrogate's gradient, and its primitive where there is one, in a panel of its own."""
    made = [cls() for cls in classes()]
    rows = -(-(len(made) + 1) // COLUMNS)
    figure, panels = make_figure(10.0, 1.75 * rows, rows, COLUMNS, None)
    for i, (axes, surrogate) in enumerate(zip(panels, made, strict=False)):
        _draw(axes, surrogate)
        if i + COLUMNS >= len(made):  # nothing below it
            axes.set_xlabel("x = h − v_threshold")
        if i % COLUMNS == 0:
            axes.set_ylabel("g′(x),  g(x)")
    _legend(panels[len(made)])
    for axes in panels[len(made) + 1 :]:
        axes.set_axis_off()
    return figure


def _draw(axes: Axes, surrogate: SurrogateFunction) -> None:
    counts = isinstance(surrogate, surrogates.MultiLevelSpikeCount)
    wide = isinstance(surrogate, surrogates.FakeNumericalGradient)  # flat up to 1/α
    low, high = (-1.0, 5.0) if counts else (-9.0, 9.0) if wide else (-3.0, 3.0)
    x = torch.linspace(low, high, 1201)
    axes.axhline(0.0, color=RULE, linewidth=0.8)
    axes.axvline(0.0, color=RULE, linewidth=0.8)
    if counts:
        axes.plot(x.numpy(), surrogate.spike(x).numpy(), color=MUTED, linewidth=1.0, linestyle=":")
    if type(surrogate).primitive is not SurrogateFunction.primitive:
        axes.plot(x.numpy(), surrogate.primitive(x).numpy(), color=ORANGE, linewidth=1.4)
    axes.plot(x.numpy(), surrogate.gradient(x).numpy(), color=BLUE, linewidth=1.8)
    axes.set_title(type(surrogate).__name__, fontsize=8.5)
    axes.set_xlim(low, high)
    if counts:
        axes.set_ylim(-0.4, 4.4)
        axes.set_xticks([0, 2, 4])
        axes.set_yticks([0, 1, 4])
    else:
        axes.set_ylim(-0.75, 1.75)
        axes.set_xticks([-6, 0, 6] if wide else [-2, 0, 2])
        axes.set_yticks([0, 1])


def _legend(axes: Axes) -> None:
    axes.set_axis_off()
    lines = [
        axes.plot([], [], color=BLUE, linewidth=1.8, label="gradient g′(x)")[0],
        axes.plot([], [], color=ORANGE, linewidth=1.4, label="primitive g(x)")[0],
        axes.plot([], [], color=MUTED, linewidth=1.0, linestyle=":", label="counts that it fires")[0],
    ]
    axes.legend(handles=lines, loc="center left", frameon=False, fontsize=9, borderpad=0.0)


if __name__ == "__main__":
    (HERE / "surrogates.md").write_text(page())
    print(f"wrote {save(picture(), HERE / 'surrogates.png')} and {HERE / 'surrogates.md'}")
