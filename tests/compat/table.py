"""Write ``docs/migrating.md`` from the rows: ``python -m tests.compat.table``."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.compat.rows import GROUPS, Row

PAGE = Path(__file__).parents[2] / "docs" / "migrating.md"
HEAD = """# Coming from SpikingJelly

Names, arguments and defaults are SpikingJelly 2.0's, so most code moves by changing its imports:

| SpikingJelly | jellyfit |
|---|---|
| `from spikingjelly.activation_based import neuron, layer` | `from jellyfit import neurons, layers` |
| `from spikingjelly.activation_based import surrogate, encoding` | `from jellyfit import surrogates, encoders` |
| `neuron.LIFNode(...)` | `neurons.LIFNode(...)` |
| `layer.Conv2d(...)` | `layers.Conv2d(...)` |
| `surrogate.ATan()` | `surrogates.ATan()` |
| `functional.set_step_mode(net, "m")` | the same |
| `functional.reset_net(net)` | the same; backbones and tasks do it by themselves |
| `functional.set_backend(net, "cupy")` | not needed: the fastest backend is chosen |

The tables below are written from the tests that compare both libraries. *Same* means name, arguments, defaults and
numbers. Everything of ours also takes what SpikingJelly's does not: tensors for a neuron's numbers, `backend="auto"`.
"""


def rows(group: str) -> list[Row]:
    """The rows of one group."""
    found: list[Row] = importlib.import_module(f"tests.compat.{group}").ROWS
    return found


def heading(group: str) -> str:
    """A group's name as words."""
    words = group.replace("_", " ")
    for name in ("plif", "vgg", "sew"):
        words = words.replace(name, name.upper())
    return (words[0].upper() + words[1:]).replace("resnet", "ResNet")


def page() -> str:
    """The page's text."""
    parts = [HEAD]
    for group, (theirs, ours) in GROUPS.items():
        parts.append(f"\n## {heading(group)}: `{theirs}` to `{ours}`\n\n| SpikingJelly | jellyfit | |\n|---|---|---|\n")
        for row in sorted(rows(group), key=lambda row: row.name.lower()):
            name = "" if row.status == "absent" else f"`{row.ours or f'{ours}.{row.name}'}`"
            notes = [row.note] if row.note else []
            notes += [f"`{argument}`: {why}" for argument, why in row.arguments.items()]
            text = ". ".join(note.rstrip(".") for note in notes)
            parts.append(f"| `{row.name}` | {name} | {row.status}{': ' + text if text else ''} |\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
