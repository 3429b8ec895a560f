"""C text of a step's kernels for the host.

Elements stand in blocks that fit the cache of a core; time runs inside a block, and the innermost loop runs over its
elements, as vectors. Backward runs the block's forward again from the nearest state kept (every :data:`STRETCH` steps)
and goes back over it, so that nothing of the input's size is kept but the input itself.

A block's steps lie far apart in memory, which is more than a processor foresees: while it works on one, what the next
one reads and writes is asked for, strip by strip.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from jellyfit.kernels import vector
from jellyfit.kernels.emit import KernelSpec, Names, lines
from jellyfit.kernels.graph import Value, reachable
from jellyfit.kernels.host_text import ADVISE, FILL, SCATTER, SET, preamble
from jellyfit.kernels.norm_backward import ARGUMENTS, SOURCE
from jellyfit.kernels.ops import OPS

__all__ = ["BLOCK", "STRETCH", "Writer"]

STRETCH = 64
"""Time steps between two states that forward keeps for backward; a shorter sequence keeps none."""

BLOCK = 1024
"""Largest number of elements in a block: what one step takes fits the first-level cache."""

_STRIP = 128  # elements worked on between two requests for memory

_IO = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "bf16", torch.float16: "half"}

# Names of what stands around the lines of a step, which a step's own values must not hide.
_PLACES = (
    r"\w+_|\w+_(t|in|out|p|first|last|start|seq|period|inner|offset)|(buffer|sum)\d*|(kept|norm|grad_of)_\w+|"
    "ahead|at|begin|blocks?|chunks?|constants|end|first|from|last|longest|more|next|partial|scratch|states|zeros"
)

_BLOCK_BOUNDS = """\
        const int64_t first = block * E, n = first + E < M ? E : M - first;
        const int64_t next = first + n < M ? first + n : first;  // elements worked on after these"""

# A chunk is some blocks that lie one after another,
_BLOCKS_OF_CHUNKS = f"""\
    for (int64_t chunk = lower; chunk < upper; ++chunk)
    for (int64_t block = chunk * blocks / chunks; block < (chunk + 1) * blocks / chunks; ++block) {{
{_BLOCK_BOUNDS}"""

# or, if a batch norm follows, the blocks of a channel, which has a span in every image.
_BLOCKS_OF_CHANNELS = """\
    for (int64_t chunk = lower; chunk < upper; ++chunk) {
    for (int64_t span = 0; span < spans; ++span) {
    const int64_t start = norm_inner ? (span * norm_channels + chunk) * norm_inner : chunk * blocks / chunks * E;
    const int64_t stop = norm_inner ? start + norm_inner : (chunk + 1) * blocks / chunks * E;
    const int64_t until = stop < M ? stop : M;
    for (int64_t first = start; first < until; first += E) {
        const int64_t n = first + E < until ? E : until - first, after = first + n < until ? first + n : until + gap;
        const int64_t next = after < M ? after : first;  // elements worked on after these"""
_NORM = (
    f"    const Norm norm = {{{', '.join(argument.split()[-1] for argument in ARGUMENTS)}}};",
    "    const int64_t spans = norm_inner ? M / (norm_channels * norm_inner) : 1;",
    "    const int64_t gap = norm_inner ? (norm_channels - 1) * norm_inner : 0;  // from a span to the next",
)
_END_OF_CHANNEL = """\
    }
    if (norm_inner) norm_backward(&norm, grad_x, chunk);
    }"""

_ADD_PARTIAL = """\
    // the same order whatever the number of threads
    for (int64_t chunk = 1; chunk < chunks; ++chunk)
        for (int64_t i = 0; i < width; ++i) partial[i] += partial[chunk * width + i];
    for (int64_t i = 0; i < width; ++i) sums[i] = (real)partial[i];
    free(partial);"""


def _unpacked(arguments: Sequence[str], body: Sequence[str]) -> list[str]:
    """``body``, behind lines that take those arguments that it uses out of the packed list ``a``."""
    text = []
    for i, argument in enumerate([*arguments, "const double* constants"]):
        kind, name = argument.rsplit(" ", 1)
        if any(re.search(rf"\b{name}\b", line) for line in body):
            text.append(f"    const {argument} = a[{i}];" if kind == "int64_t" else f"    {argument} = ({kind})a[{i}];")
    return [*text, *(line for line in body if line)]


class Writer:
    """Writes the C text of one program.

    Args:
        spec: what the kernels are generated from.
    """

    def __init__(
        self,
        spec: KernelSpec,
    ) -> None:
        program, real = spec.program, spec.real
        self.program = program
        self.graph = program.graph
        self.real = "double" if real == torch.float64 else "float"
        self.names = Names(self.real, spec.lift, _PLACES)
        self.io = _IO[spec.io]
        self.start = [self.names.literal(Value("const", number=number)) for number in spec.start]
        self.arrays = spec.arrays
        self.title = spec.title
        self.vectors = vector.available(real)
        self.dtype = real
        self.norm = spec.norm_may_follow
        self.used: set[str] = set()  # vector functions
        self.sources: dict[int, str] = {}  # where a loop over elements finds a value
        self.states = [self.names(value) for value in self.graph.states]
        # the block that holds what a state starts with where no tensor is given
        self.starts = [
            "zeros" if start == "R(0.0)" else f"{name}_start"
            for name, start in zip(self.states, self.start, strict=True)
        ]
        self.params = [self.names(value) for value, _ in self.graph.params]
        self.sources[id(self.graph.x)] = f"LOAD({self.names(self.graph.x)}_t[e])"
        self.residual: list[str] = []  # a second sequence comes like one more parameter
        if self.graph.residual is not None:
            self.residual = ["residual"]
            self.sources[id(self.graph.residual)] = "residual_p[t * M + first + e]"
        for value in self.graph.states:
            self.sources[id(value)] = f"{self.names(value)}_in[e]"
        for (value, _), array in zip(self.graph.params, spec.arrays, strict=True):
            if array:
                self.sources[id(value)] = f"{self.names(value)}_[e]"

    # ---------------------------------------------------------------- loops over elements

    def is_vector(self, value: Value) -> bool:
        """Whether a vector function computes it."""
        return value.op in self.vectors

    def loops(
        self,
        values: Sequence[Value],
        stores: Sequence[tuple[str, Value]],
        exact: bool,
        ahead: Sequence[str],
        pad: str,
    ) -> list[str]:
        """Loops over a block's elements that compute ``values`` and then store some.

        Args:
            values: in order of computation.
            stores: what to store, each as C text with ``{}`` for the value, and the value.
            exact: use vector functions; they stand between loops and work on buffers.
            ahead: C lines that ask for the memory of what comes next; they stand in the first loop, before each strip,
                which begins at ``from``.
            pad: indentation.
        """
        stage: dict[int, int] = {}
        for value in values:
            behind = (stage.get(id(arg), 0) + (exact and self.is_vector(arg)) for arg in value.args)
            stage[id(value)] = max(behind, default=0)
        count = 1 + max((stage[id(v)] + (exact and self.is_vector(v)) for v in values), default=0)
        sources, text = dict(self.sources), []
        places: dict[int, str] = {}  # buffers by value
        for number in range(count):
            mine = [v for v in values if stage[id(v)] == number]
            calls = [v for v in mine if exact and self.is_vector(v)]
            inside = [v for v in mine if v not in calls]
            here = {id(v) for v in inside}
            crossing = {id(arg) for v in values if stage[id(v)] > number for arg in v.args}
            if number < count - 1:
                crossing |= {id(v) for _, v in stores}
            wanted = [arg for v in mine for arg in v.args] + ([v for _, v in stores] if number == count - 1 else [])
            loads = {id(v): v for v in wanted if id(v) in sources and id(v) not in here}
            body = [f"const {self.kind(v)} {self.names(v)} = {sources[key]};" for key, v in loads.items()]
            body += lines(inside, self.names)
            arguments = [v.args[0] for v in calls]
            buffers = [v for v in inside if id(v) in crossing] + arguments
            for value in {id(v): v for v in buffers if id(v) not in places}.values():
                place = places[id(value)] = f"buffer{len(places)}"
                text.append(f"{pad}{self.kind(value)} {place}[BLOCK];")
                body.append(f"{place}[e] = {self.names(value)};")
                if id(value) not in loads and not value.is_const:
                    sources[id(value)] = f"{place}[e]"
            if number == count - 1:
                body += [f"{store.format(self.as_real(value))};" for store, value in stores]
            if number == 0:
                text.append(f"{pad}for (int64_t from = 0; from < n; from += STRIP) {{")
                text += [f"{pad}    {line}" for line in ahead]
                text += [f"{pad}    EACH(", *(f"{pad}        {line}" for line in body), f"{pad}    )", f"{pad}}}"]
            else:
                text += [f"{pad}#pragma omp simd", f"{pad}for (int64_t e = 0; e < n; ++e) {{"]
                text += [*(f"{pad}    {line}" for line in body), f"{pad}}}"]
            for value in calls:
                self.used.add(value.op)
                place = places[id(value)] = f"buffer{len(places)}"
                sources[id(value)] = f"{place}[e]"
                text.append(f"{pad}real {place}[BLOCK];  // {value.op}, as eager PyTorch computes it")
                text.append(f"{pad}vector_{value.op}((int)n, {places[id(value.args[0])]}, {place});")
        return text

    def kind(self, value: Value) -> str:
        """C type of a value."""
        return "int" if value.boolean else "real"

    def as_real(self, value: Value) -> str:
        """C text of a value as a real number."""
        name = self.names(value)
        return OPS["real"].code.format(name) if value.boolean else name

    # ---------------------------------------------------------------- what both passes share

    def file(
        self,
        arguments: Sequence[str],
        work: Sequence[str],
        begin: Sequence[str],
        count: str,
        end: Sequence[str] = (),
        helpers: str = "",
        more: str = "",
    ) -> str:
        """The whole file: preamble, helpers, ``work``, and the function ``run`` that shares it among threads.

        Args:
            arguments: of both functions, in order.
            work: lines that do the work from ``lower`` to ``upper``; a function of their own, whose variables are then
                its own: those that threads share are loaded again and again.
            begin: lines of ``run`` before it,
            count: how much work there is,
            end: and lines behind it.
            helpers: other functions.
            more: a pointer made in ``begin`` that ``work`` is given too.
        """
        vectors = vector.declarations(self.used, self.dtype)
        constants = [f"    const real number{i} = (real)constants[{i}];" for i in range(len(self.names.lifted))]
        given = f", {more.rsplit(' ', 1)[1]}" if more else ""
        run = [
            *begin,
            "    if (threads > 1) {",
            "        #pragma omp parallel for schedule(static) num_threads(threads)",
            "        for (int64_t part = 0; part < threads; ++part)",
            f"            work(a, part * {count} / threads, (part + 1) * {count} / threads{given});",
            "    } else",
            f"        work(a, 0, {count}{given});",
            *end,
        ]
        parts = [
            f"// {self.title}. Generated by jellyfit.",
            preamble(self.real, self.io, BLOCK, _STRIP),
            vectors,
            ADVISE,
            SET if self.states or self.graph.reductions else "",
            FILL if any(self.arrays) else "",
            helpers,
            "__attribute__((noinline))",
            f"static void work(const int64_t* a, int64_t lower, int64_t upper{', ' if more else ''}{more}) {{",
            *_unpacked(arguments, [*constants, *work]),
            "}\n",
            "void run(const int64_t* a) {",
            *_unpacked(arguments, run),
            "}\n",
        ]
        return "\n".join(part for part in parts if part)

    def param_arguments(self) -> list[str]:
        """Arguments that say where parameters are."""
        return [
            text
            for name in [*self.params, *self.residual]
            for text in (f"const real* {name}_p", f"int64_t {name}_period", f"int64_t {name}_inner")
        ]

    def param_scalars(self) -> list[str]:
        """Lines that load parameters of one element."""
        return [
            f"    const real {name} = *{name}_p;"
            for name, array in zip(self.params, self.arrays, strict=True)
            if not array
        ]

    def param_blocks(self, pad: str) -> list[str]:
        """Lines that lay out the other parameters over a block's elements."""
        text = []
        for name, array in zip(self.params, self.arrays, strict=True):
            if array:
                text.append(f"{pad}real {name}_[BLOCK];")
                text.append(f"{pad}fill({name}_, {name}_p, first, n, {name}_period, {name}_inner);")
        return text

    def constant_blocks(self, zeros: bool, starts: bool = True) -> list[str]:
        """Lines that fill blocks with one number: ``zeros``, and what states start with."""
        numbers = {"zeros": "R(0.0)"} if zeros else {}
        if starts:
            numbers |= dict(zip(self.starts, self.start, strict=True))
        return [
            text
            for block, number in numbers.items()
            for text in (f"    real {block}[BLOCK];", f"    set({block}, {number}, E < M ? E : M);")
        ]

    def begin_states(self, pad: str) -> list[str]:
        """Lines that say where a block's states stand at the start of the sequence."""
        return [
            f"{pad}const real* {name}_in = {name}_first ? {name}_first + first : {start};"
            for name, start in zip(self.states, self.starts, strict=True)
        ]

    # ---------------------------------------------------------------- the two passes

    def forward(self) -> str:
        """C source of the forward pass."""
        graph, x = self.graph, self.names(self.graph.x)
        stores = [("s_t[e] = STORE({})", graph.spike)]
        stores += [(f"{name}_out[e] = {{}}", value) for name, value in zip(self.states, graph.new_states, strict=True)]
        ahead = [f"AHEAD({x} + ahead + from, 0);", "AHEAD(s + ahead + from, 1);"]
        ahead += [f"if (t + 1 == T) AHEAD({name}_last + next + from, 1);" for name in self.states]
        ahead += ["AHEAD(residual_p + ahead + from, 0);"] if self.residual else []
        step = self.loops(self.program.forward, stores, True, ahead, " " * 12)
        begin = [
            "    large_pages(s, T * M * sizeof(io));",
            "    large_pages(v_seq, T * M * sizeof(real));" if "v" in self.states else "",
            *(f"    large_pages({name}_last, M * sizeof(real));" for name in self.states),
            "    const int64_t blocks = (M + E - 1) / E;",
        ]
        body = [
            *self.param_scalars(),
            *self.constant_blocks(zeros=False),
            "    for (int64_t block = lower; block < upper; ++block) {",
            _BLOCK_BOUNDS,
            *(f"        real {name}_[BLOCK];" for name in self.states),
            *self.param_blocks(" " * 8),
            *self.begin_states(" " * 8),
            "        for (int64_t t = 0; t < T; ++t) {",
            f"            const io* {x}_t = {x} + t * M + first;",
            "            io* s_t = s + t * M + first;",
            "            const int64_t ahead = t + 1 < T ? (t + 1) * M + first : next;",
            *(f"            real* {name}_out = t + 1 < T ? {name}_ : {name}_last + first;" for name in self.states),
            *step,
        ]
        if "v" in self.states:
            body.append("            if (v_seq) memcpy(v_seq + t * M + first, v_out, n * sizeof(real));")
        if self.states:
            body.append(f"            if (kept && (t + 1) % {STRETCH} == 0 && t + 1 < T) {{")
            body.append(
                f"                real* to = kept + ((t + 1) / {STRETCH} - 1) * {len(self.states)} * M + first;"
            )
            for i, name in enumerate(self.states):
                body.append(f"                memcpy(to + {i} * M, {name}_out, n * sizeof(real));")
            body.append("            }")
        body += [f"            {name}_in = {name}_out;" for name in self.states]
        body += ["        }", "    }"]
        arguments = [
            "int64_t M", "int64_t T", "int64_t E", "int64_t threads", f"const io* {x}", "io* s", "real* v_seq",
            "real* kept", *(f"const real* {name}_first" for name in self.states),
            *(f"real* {name}_last" for name in self.states), *self.param_arguments(),
        ]  # fmt: skip
        return self.file(arguments, body, begin, "blocks")

    def backward(self) -> str:
        """C source of the backward pass."""
        graph, x = self.graph, self.names(self.graph.x)
        states, reductions = self.states, graph.reductions
        size = len(self.program.keep)
        kept = [f"kept_{self.names(value)}" for value in self.program.keep]
        grads = [f"grad_{name}" if f"grad_{name}" not in states else f"grad_of_{name}" for name in states]
        again, back = self._again(kept), self._back(kept, grads)
        begin = [
            "    large_pages(grad_x, T * M * sizeof(io));",
            "    double* partial = calloc(chunks * width, sizeof(double));" if reductions else "",
        ]
        body = [
            *self.param_scalars(),
            "    const int64_t blocks = (M + E - 1) / E;",
            *(_NORM if self.norm else ()),
            f"    const int64_t longest = T < {STRETCH} ? T : {STRETCH}, last = (T - 1) / {STRETCH} * {STRETCH};",
            f"    real* scratch = aligned_alloc(64, longest * {size} * E * sizeof(real));" if size else "",
            *self.constant_blocks(zeros=bool(grads), starts=size > 0),
            _BLOCKS_OF_CHANNELS if self.norm else _BLOCKS_OF_CHUNKS,
            *(f"        real {name}_[BLOCK];" for name in [*states, *grads]),
            *(f"        real sum{i}[BLOCK];" for i in range(len(reductions))),
            *self.param_blocks(" " * 8),
        ]
        body += [f"        const real* {name}_in = {name}_last ? {name}_last + first : zeros;" for name in grads]
        body += [
            f"        for (int64_t begin = last; begin >= 0; begin -= {STRETCH}) {{",
            f"            const int64_t end = begin + {STRETCH} < T ? begin + {STRETCH} : T;",
            *(f"            set(sum{i}, R(0.0), n);" for i in range(len(reductions))),
            *again,
            *back,
        ]
        for i in range(len(reductions)):
            where = f"partial + chunk * width + sum{i}_offset"
            body.append(f"            scatter({where}, sum{i}, first, n, sum{i}_period, sum{i}_inner);")
        body += ["        }", "    }", _END_OF_CHANNEL if self.norm else "", "    free(scratch);" if size else ""]
        arguments = [
            "int64_t M", "int64_t T", "int64_t E", "int64_t threads", "int64_t chunks", "int64_t width",
            *(ARGUMENTS if self.norm else ()),
            *(f"int64_t sum{i}_{what}" for i in range(len(reductions)) for what in ("period", "inner", "offset")),
            f"const io* {x}", "const io* grad_s", "io* grad_x", "const real* grad_v_seq", "const real* states",
            "real* sums",
            *(f"const real* {name}_first" for name in states), *(f"const real* {name}_last" for name in grads),
            *(f"real* {name}_first" for name in grads), *self.param_arguments(),
        ]  # fmt: skip
        helpers = (SCATTER if reductions else "") + (SOURCE if self.norm else "")
        end = [_ADD_PARTIAL] if reductions else []
        return self.file(arguments, body, begin, "chunks", end, helpers, "double* partial" if reductions else "")

    def _again(self, kept: Sequence[str]) -> list[str]:
        """Lines that run a block forward over a stretch of time again, and keep what the way back needs."""
        program, states, x = self.program, self.states, self.names(self.graph.x)
        if not program.keep:
            return []
        joined = self.last_is_joined
        ahead = ["AHEAD(ahead + from, 0);"]
        if joined:
            ahead.append("if (t + 2 == end) AHEAD(grad_s + (t + 1) * M + first + from, 0);")
            ahead.append("if (t + 2 == end) AHEAD(grad_x + (t + 1) * M + first + from, 1);")
        else:
            ahead.append("if (t + 1 == end) AHEAD(grad_x + t * M + first + from, 1);")
        ahead += ["if (t + 1 < end) AHEAD(residual_p + (t + 1) * M + first + from, 0);"] if self.residual else []
        stores = [(f"{place}[e] = {{}}", value) for place, value in zip(kept, program.keep, strict=True)]
        stores += [(f"{name}_[e] = {{}}", value) for name, value in zip(states, self.graph.new_states, strict=True)]
        text = self.begin_states(" " * 12)
        if states:
            text.append("            if (begin > 0) {")
            text.append(
                f"                const real* from = states + (begin / {STRETCH} - 1) * {len(states)} * M + first;"
            )
            text += [f"                {name}_in = from + {i} * M;" for i, name in enumerate(states)]
            text.append("            }")
        stop = "end - 1" if joined else "end"
        following = f"{x}_t + M" if joined else f"t + 1 < end ? {x}_t + M : grad_s + t * M + first"
        return [
            *text,
            f"            for (int64_t t = begin; t < {stop}; ++t) {{  // the forward step again",
            f"                const io* {x}_t = {x} + t * M + first;",
            f"                const io* ahead = {following};",
            f"                real* at = scratch + (t - begin) * {len(kept)} * E;",
            *(f"                real* {place} = at + {i} * E;" for i, place in enumerate(kept)),
            "                {",
            *self.loops(program.recompute, stores, True, ahead, " " * 20),
            "                }",
            *(f"                {name}_in = {name}_;" for name in states),
            "            }",
        ]

    @property
    def last_is_joined(self) -> bool:
        """Whether a stretch's last step goes forward and back in one loop, in which nothing has to be kept."""
        keep = self.program.keep
        return bool(keep) and not any(self.is_vector(value) for value in reachable(keep))

    def _back(self, kept: Sequence[str], grads: Sequence[str]) -> list[str]:
        """Lines that go back over a stretch of time, and leave the gradients of its first states in ``grads``."""
        graph, program, x = self.graph, self.program, self.names(self.graph.x)
        if graph.grad_spike is not None:
            self.sources[id(graph.grad_spike)] = "LOAD(grad_s_t[e])"
        for name, grad in zip(grads, graph.grad_new_states, strict=True):
            if grad is not None:
                self.sources[id(grad)] = f"{name}_in[e]"
        zero = Value("const")
        stores: list[tuple[str, Value]] = [("grad_x_t[e] = STORE({})", graph.grad_x or zero)]
        stores += [(f"{name}_out[e] = {{}}", grad or zero) for name, grad in zip(grads, graph.grad_states, strict=True)]
        stores += [(f"sum{i}[e] += {{}}", reduction.value) for i, reduction in enumerate(graph.reductions)]
        ahead = ["AHEAD(ahead + from, 0);", "if (t > begin) AHEAD(grad_x_t - M + from, 1);"]
        follows = f"(begin > 0 ? (begin - {STRETCH}) * M + first : last * M + next)"
        loads_x = f"                const io* {x}_t = {x} + t * M + first;"
        begin = [
            "                const io* grad_s_t = grad_s + t * M + first;" if graph.grad_spike is not None else "",
            "                io* grad_x_t = grad_x + t * M + first;",
            f"                const io* ahead = t > begin ? grad_s + (t - 1) * M + first : {x} + {follows};",
            *(
                f"                real* {name}_out = t == 0 && {name}_first ? {name}_first + first : {name}_;"
                for name in grads
            ),
        ]
        if "v" in self.states:
            v = grads[self.states.index("v")]
            begin += [
                "                if (grad_v_seq) {",
                "                    const real* more = grad_v_seq + t * M + first;",
                f"                    for (int64_t e = 0; e < n; ++e) {v}_[e] = {v}_in[e] + more[e];",
                f"                    {v}_in = {v}_;",
                "                }",
            ]
        end = ["                }", *(f"                {name}_in = {name}_out;" for name in grads), "            }"]
        text = []
        if self.last_is_joined:
            both = list({id(value): value for value in [*reachable(program.keep), *program.backward]}.values())
            alone = "if (t == 0 && T - last == 1)"  # so is the next block's step
            once = [f"{alone} AHEAD({to} + last * M + next + from, {i});" for i, to in enumerate(("grad_s", "grad_x"))]
            text += [
                "            {  // the stretch's last step: forward again and back at once",
                "                const int64_t t = end - 1;",
                loads_x,
                *begin,
                "                {",
                *self.loops(both, stores, False, [*ahead, *once], " " * 20),
                *end,
            ]
        for place, value in zip(kept, program.keep, strict=True):
            self.sources[id(value)] = f"{place}[e]"
        return [
            *text,
            f"            for (int64_t t = end - {2 if text else 1}; t >= begin; --t) {{  // and back over it",
            loads_x if program.loads_x else "",
            *begin,
            f"                const real* at = scratch + (t - begin) * {len(kept)} * E;" if kept else "",
            *(f"                const real* {place} = at + {i} * E;" for i, place in enumerate(kept)),
            "                {",
            *self.loops(program.backward, stores, False, ahead, " " * 20),
            *end,
        ]
