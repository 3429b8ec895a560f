"""Write ``docs/neurons.md`` and ``docs/surrogates.md``, and draw ``docs/surrogates.png``, from the classes themselves.

Run ``python docs/pictures.py`` after a change to them; a test compares the pages.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from jellyfit import neurons, surrogates
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


NEURONS_HEAD = """# Neurons

A neuron is three equations a time step: it charges (`h = f(v, x)`), fires (`s = Θ(h - v_threshold)`) and resets (hard:
`v = (1 - s) h + s v_reset`; soft, `v_reset=None`: `v = h - s v_threshold`). A class states the one in which it differs
from its parent, in plain PyTorch; the [fused kernels](kernels.md) are generated from it.

```python
import torch
from jellyfit import neurons

node = neurons.LIFNode(tau=2.0, v_reset=None, step_mode="m")
spikes = node(torch.rand(8, 4, 16))  # [T, N, *]
```

Every value (`tau`, `v_threshold`, ...) may be a number, a tensor (per channel of images: `[C, 1, 1]`; of vectors:
`[C]`) or an `nn.Parameter`, which is learnt. Arguments that all share: `v_threshold`, `v_reset`, `surrogate_function`
([surrogates](surrogates.md)), `detach_reset`, `step_mode`, `backend`, `store_v_seq`.

## As pure functions

`node.step(x, state)` and `node.run(x_seq, state)` take the state and give it back, and leave what the neuron remembers
alone. They run the same equations, on the same kernels, and go through `torch.func`:

```python
spikes, state = node.run(torch.rand(8, 4, 16))
more, state = node.run(torch.rand(8, 4, 16), state)  # goes on
spike, state = node.step(torch.rand(4, 16), state)
per_sample = torch.func.vmap(lambda x: node.step(x)[0])(torch.rand(32, 4, 16))
```

## All of them

"""


def neuron_classes() -> list[type[neurons.BaseNode]]:
    """Every neuron, family by family."""
    found = [getattr(neurons, name) for name in neurons.__all__]
    public = [cls for cls in found if inspect.isclass(cls) and issubclass(cls, neurons.BaseNode)]
    order = ["base", "integrate", "leaky", "linear", "nonlinear", "adaptive", "variants", "current", "gated"]
    order += ["multilevel", "resonate", "parallel", "online", "nonspiking"]
    lines = {cls: inspect.getsourcelines(cls)[1] for cls in public}
    return sorted(public, key=lambda cls: (order.index(cls.__module__.split(".")[-1]), lines[cls]))


def neurons_page() -> str:
    """The page of neurons: of every one the arguments of its own, the first line of its docstring and its parent."""
    shared = {"v_threshold", "v_reset", "surrogate_function", "detach_reset", "step_mode", "backend", "store_v_seq"}
    rows = ["| `neurons.` | what it is | from |\n|---|---|---|\n"]
    for cls in neuron_classes():
        own = [
            name if parameter.default is parameter.empty else f"{name}={_short(parameter.default)}"
            for name, parameter in inspect.signature(cls).parameters.items()
            if name not in shared
        ]
        line = re.sub("``", "`", inspect.getdoc(cls).splitlines()[0]).replace("|", r"\|")  # type: ignore[union-attr]
        line = re.sub(r":class:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", line)
        parents = [base.__name__ for base in cls.__mro__[1:] if base in neuron_classes()][:1]
        rows.append(f"| `{cls.__name__}({', '.join(own)})` | {line} | {f'`{parents[0]}`' if parents else ''} |\n")
    return NEURONS_HEAD + "".join(rows)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


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
    (HERE / "neurons.md").write_text(neurons_page())
    (HERE / "surrogates.md").write_text(page())
    print(f"wrote {HERE / 'neurons.md'}, {save(picture(), HERE / 'surrogates.png')} and {HERE / 'surrogates.md'}")
