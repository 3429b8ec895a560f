"""What backward keeps of a recomputed step: few values, and no expensive one twice.

Backward runs the forward step again over a stretch of time and then goes back over it. For every step it may keep a
value (store and load it) or compute it once more from others on the way back. The cheapest choice is a minimum cut.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence

from jellyfit.kernels.graph import Value
from jellyfit.kernels.ops import OPS

__all__ = ["values_to_keep"]

_KEEP = 5.0  # cost of storing and loading one value, in additions
_LOAD = 1.5  # of loading the input once more


def values_to_keep(
    candidates: Sequence[Value], needed: Iterable[Value], x: Value, states: Sequence[Value], forward: Iterable[Value]
) -> list[Value]:
    """The values to keep of each step, so that every one ``needed`` is at hand or computed from them.

    Args:
        candidates: everything that does not depend on a gradient, in order of computation.
        needed: what backward's operations take.
        x: the input, which can be loaded again instead of kept; never part of the result.
        states: the states before the step.
        forward: what the forward step computes anyway; computing these on the way back too costs extra.

    Returns:
        A subset of ``states`` and ``candidates``, in that order.
    """
    needed = [value for value in needed if not value.is_const]
    twice = {id(value) for value in forward}
    graph = _Flow()
    for value in [x, *states]:
        graph.edge("source", ("in", id(value)), math.inf)
        graph.edge(("in", id(value)), ("out", id(value)), _LOAD if value is x else _KEEP)
    free = {id(value) for value in [x, *states]}
    for value in candidates:
        graph.edge("source", ("in", id(value)), OPS[value.op].cost if id(value) in twice else 0.01)
        graph.edge(("in", id(value)), ("out", id(value)), _KEEP)
        for arg in value.args:
            if not arg.is_const and not (arg.is_input and id(arg) not in free):  # parameters are at hand
                graph.edge(("out", id(arg)), ("in", id(value)), math.inf)
    for value in needed:
        if id(value) in free or not value.is_input:
            graph.edge(("out", id(value)), "sink", math.inf)
    before = graph.source_side()
    return [
        value for value in [*states, *candidates] if ("in", id(value)) in before and ("out", id(value)) not in before
    ]


class _Flow:
    """Maximum flow (Edmonds and Karp 1972): enough for graphs of a few hundred nodes."""

    def __init__(self) -> None:
        self.capacity: dict[object, dict[object, float]] = defaultdict(dict)

    def edge(self, a: object, b: object, capacity: float) -> None:
        self.capacity[a][b] = self.capacity[a].get(b, 0.0) + capacity
        self.capacity[b].setdefault(a, 0.0)

    def source_side(self) -> set[object]:
        """Nodes on the source's side of a minimum cut."""
        while True:
            came_from = self._search()
            if "sink" not in came_from:
                return set(came_from)
            path = []
            node: object = "sink"
            while node != "source":
                path.append((came_from[node], node))
                node = came_from[node]
            flow = min(self.capacity[a][b] for a, b in path)
            for a, b in path:
                self.capacity[a][b] -= flow
                self.capacity[b][a] += flow

    def _search(self) -> dict[object, object]:
        came_from: dict[object, object] = {"source": None}
        queue: deque[object] = deque(["source"])
        while queue and "sink" not in came_from:
            node = queue.popleft()
            for target, capacity in self.capacity[node].items():
                if capacity > 1e-9 and target not in came_from:
                    came_from[target] = node
                    queue.append(target)
        return came_from
