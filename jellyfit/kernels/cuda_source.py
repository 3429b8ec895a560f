"""CUDA C++ text of a fused step: one thread takes a few consecutive elements through the whole sequence.

The source has two halves. What is generated are three small functions of one element: the neuron's ``step``, the same
step ``again`` on the way to the gradients, and ``back`` over it. What is fixed are the loops around them: over a
thread's elements, over time, and over what is left for the thread when the grid is smaller than the data.

Loads and stores are 16 bytes wide where sizes and addresses allow it (``..._vector``), else of single elements
(``..._scalar``). States, parameters and everything that backward keeps of a stretch of time live in registers. Threads
never wait for each other, and nothing is added up across them: each leaves its own sum.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence

import torch

from jellyfit.kernels.emit import KernelSpec, Names, Program, lines
from jellyfit.kernels.graph import Value
from jellyfit.kernels.ops import OPS

__all__ = ["THREADS", "CudaNames", "CudaWriter", "identifier", "math_macros", "stretch_of", "width_of"]

THREADS = {"forward": 256, "backward": 128}
"""Threads in a block of each pass."""

_REGISTERS = 64  # what backward may keep of a stretch, in 4-byte registers of a thread
_LONGEST = 8  # steps in a stretch: a longer one would be too much unrolled code
_AHEAD = 4  # steps whose inputs forward loads at a time

_FUNCTIONS = (
    "fma", "sqrt", "floor", "ceil", "rint", "trunc", "copysign", "exp", "expm1", "log", "log1p", "sin", "cos", "tan",
    "atan", "atan2", "sinh", "cosh", "tanh", "erf", "pow",
)  # fmt: skip

# A state of a neuron may be called like a word of C++, or like something in use around the generated lines.
_RESERVED = {
    "alignas", "alignof", "and", "and_eq", "asm", "bitand", "bitor", "catch", "class", "compl", "concept",
    "const_cast", "constexpr", "decltype", "delete", "dynamic_cast", "explicit", "export", "false", "friend",
    "inline", "mutable", "namespace", "new", "noexcept", "not", "not_eq", "nullptr", "operator", "or", "or_eq",
    "private", "protected", "public", "reinterpret_cast", "static_assert", "static_cast", "template",
    "thread_local", "throw", "true", "try", "typeid", "typename", "using", "virtual", "wchar_t", "xor", "xor_eq",
    "param", "state", "keep", "grad", "sum", "step", "again", "back", "raw", "scale", "shift", "numbers", "load",
    "store", "widen", "narrow", "int64", "half", "fabs", "fabsf", "ABS", "SIGMOID", "R", "NAN", "INFINITY",
    *(name.upper() for name in _FUNCTIONS), *_FUNCTIONS, *(f"{name}f" for name in _FUNCTIONS),
}  # fmt: skip

_NOT_FINITE = """\
#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fffffff)
#endif"""

_PLAIN_IO = """\
typedef {io} io;
template <int N> __device__ __forceinline__ void widen(const Chunk<io, N>& from, real* to) {{
    #pragma unroll
    for (int e = 0; e < N; ++e) to[e] = from.at[e];
}}
template <int N> __device__ __forceinline__ Chunk<io, N> narrow(const real* from) {{
    Chunk<io, N> to;
    #pragma unroll
    for (int e = 0; e < N; ++e) to.at[e] = from[e];
    return to;
}}"""

_PACKED_IO = """\
typedef {io} io;
template <int N> __device__ __forceinline__ void widen(const Chunk<io, N>& from, real* to) {{
    #pragma unroll
    for (int e = 0; e + 1 < N; e += 2) {{
        const float2 pair = {widen2}({pack}(from.at[e], from.at[e + 1]));
        to[e] = pair.x;
        to[e + 1] = pair.y;
    }}
    if (N % 2) to[N - 1] = {widen}(from.at[N - 1]);
}}
template <int N> __device__ __forceinline__ Chunk<io, N> narrow(const real* from) {{
    Chunk<io, N> to;
    #pragma unroll
    for (int e = 0; e + 1 < N; e += 2) {{
        const {pair} both = {narrow2}(make_float2(from[e], from[e + 1]));
        to.at[e] = {low}(both);
        to.at[e + 1] = {high}(both);
    }}
    if (N % 2) to.at[N - 1] = {narrow}(from[N - 1]);
    return to;
}}"""

_IO = {
    torch.float32: ("", _PLAIN_IO.format(io="float")),
    torch.float64: ("", _PLAIN_IO.format(io="double")),
    torch.float16: (
        "#include <cuda_fp16.h>",
        _PACKED_IO.format(
            io="__half", pair="__half2", pack="__halves2half2", low="__low2half", high="__high2half",
            widen="__half2float", widen2="__half22float2", narrow="__float2half_rn", narrow2="__float22half2_rn",
        ),
    ),
    torch.bfloat16: (
        "#include <cuda_bf16.h>",
        _PACKED_IO.format(
            io="__nv_bfloat16", pair="__nv_bfloat162", pack="__halves2bfloat162", low="__low2bfloat16",
            high="__high2bfloat16", widen="__bfloat162float", widen2="__bfloat1622float2",
            narrow="__float2bfloat16_rn", narrow2="__float22bfloat162_rn",
        ),
    ),
}  # fmt: skip

_CHUNK = """\
typedef long long int64;

// N elements as they lie in memory, moved 16 bytes at a time.
template <typename T, int N> struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Chunk {
    T at[N];
};
template <int N, typename T> __device__ __forceinline__ Chunk<T, N> load(const T* from) {
    return *(const Chunk<T, N>*)from;
}
template <int N, typename T> __device__ __forceinline__ void store(T* to, const Chunk<T, N>& chunk) {
    if (sizeof(chunk) % 16 == 0) {  // in so many words, or the compiler takes the chunk apart
        #pragma unroll
        for (int n = 0; n < (int)sizeof(chunk) / 16; ++n) __stwb((uint4*)to + n, ((const uint4*)&chunk)[n]);
    } else {
        *to = chunk.at[0];
    }
}
"""

_SHARED = """\
// A parameter of the step: element i of the data takes its element i / inner % period.
struct Param {
    const real* data;
    int64 period, inner;
};

// Arrays have one place more than is used: C++ has none of size 0.
template <int N>
__device__ __forceinline__ void load_params(const Param* from, int64 M, int64 i, real (*to)[PARAMS + 1]) {
    #pragma unroll
    for (int p = 0; p < PARAMS; ++p) {
        if (ARRAYS >> p & 1) {
            const int64 period = from[p].period, inner = from[p].inner;
            int64 row, c;
            if (M <= 0x7fffffff) {  // division of 32 bits is several times faster
                row = (unsigned)i / (unsigned)inner;
                c = (unsigned)row % (unsigned)period;
            } else {
                row = i / inner;
                c = row % period;
            }
            int64 offset = i - row * inner;
            #pragma unroll
            for (int e = 0; e < N; ++e) {
                to[e][p] = from[p].data[c];
                if (++offset == inner) {
                    offset = 0;
                    if (++c == period) c = 0;
                }
            }
        } else {
            const real number = from[p].data[0];
            #pragma unroll
            for (int e = 0; e < N; ++e) to[e][p] = number;
        }
    }
}

// One state, or the gradient of one, from memory if there is any, else a number.
template <int N>
__device__ __forceinline__ void load_state(const real* from, real number, int64 i, real (*to)[STATES + 1], int j) {
    Chunk<real, N> chunk;
    if (from) chunk = load<N>(from + i);
    #pragma unroll
    for (int e = 0; e < N; ++e) to[e][j] = from ? chunk.at[e] : number;
}

template <int N> __device__ __forceinline__ void store_state(real* to, int64 i, const real (*from)[STATES + 1], int j) {
    Chunk<real, N> chunk;
    #pragma unroll
    for (int e = 0; e < N; ++e) chunk.at[e] = from[e][j];
    store(to + i, chunk);
}
"""

_FORWARD = """\
template <int N>
__device__ __forceinline__ void forward(
        const int64 M, const int T, const io* __restrict__ x, io* __restrict__ s, real* __restrict__ v_seq,
        real* __restrict__ kept, const real* start, const real* const* first, real* const* last, const Param* params) {
    const int64 all = (int64)gridDim.x * blockDim.x * N;
    for (int64 i = ((int64)blockIdx.x * blockDim.x + threadIdx.x) * N; i < M; i += all) {
        real state[N][STATES + 1], param[N][PARAMS + 1];
        load_params<N>(params, M, i, param);
        #pragma unroll
        for (int j = 0; j < STATES; ++j) load_state<N>(first[j], start[j], i, state, j);
        for (int begin = 0; begin < T; begin += AHEAD) {
            Chunk<io, N> ahead[AHEAD];  // the inputs of a few steps: the loads wait for memory together
            #pragma unroll
            for (int k = 0; k < AHEAD; ++k)
                if (begin + k < T) ahead[k] = load<N>(x + (begin + k) * M + i);
            #pragma unroll
            for (int k = 0; k < AHEAD; ++k) {
                const int t = begin + k;
                if (t < T) {
                    real x_t[N], s_t[N];
                    widen<N>(ahead[k], x_t);
                    #pragma unroll
                    for (int e = 0; e < N; ++e) s_t[e] = step(x_t[e], state[e], param[e]);
                    store(s + t * M + i, narrow<N>(s_t));
                    if (v_seq) store_state<N>(v_seq + t * M, i, state, V);
                    if (kept && (t + 1) % STRETCH == 0 && t + 1 < T) {
                        real* to = kept + ((t + 1) / STRETCH - 1) * STATES * M;
                        #pragma unroll
                        for (int j = 0; j < STATES; ++j) store_state<N>(to + j * M, i, state, j);
                    }
                }
            }
        }
        #pragma unroll
        for (int j = 0; j < STATES; ++j) store_state<N>(last[j], i, state, j);
    }
}
"""

_BACKWARD = """\
template <int N>
__device__ __forceinline__ void backward(
        const int64 M, const int T, const io* __restrict__ x, const io* __restrict__ grad_s, io* __restrict__ grad_x,
        const real* __restrict__ grad_v_seq, const real* __restrict__ kept, const real* start,
        const real* const* first, const real* const* grad_last, real* const* grad_first, const Param* params,
        double* const* total, real* const* each) {
    const int64 thread = (int64)blockIdx.x * blockDim.x + threadIdx.x, all = (int64)gridDim.x * blockDim.x;
    double mine[SUMS + 1] = {};  // this thread's share of the sums over all elements
    for (int64 i = thread * N; i < M; i += all * N) {
        real state[N][STATES + 1], grad[N][STATES + 1], param[N][PARAMS + 1], sum[N][SUMS + 1] = {};
        load_params<N>(params, M, i, param);
        #pragma unroll
        for (int j = 0; j < STATES; ++j) load_state<N>(grad_last[j], R(0.0), i, grad, j);
        for (int begin = (T - 1) / STRETCH * STRETCH; begin >= 0; begin -= STRETCH) {
            real keep[STRETCH][N][KEEP + 1];
            Chunk<io, N> ahead[STRETCH], above[STRETCH];
            if (KEEP || LOADS_X) {
                #pragma unroll
                for (int k = 0; k < STRETCH; ++k)
                    if (begin + k < T) ahead[k] = load<N>(x + (begin + k) * M + i);
            }
            if (KEEP) {  // the forward step again
                #pragma unroll
                for (int j = 0; j < STATES; ++j) {
                    const real* from = begin ? kept + ((begin / STRETCH - 1) * STATES + j) * M : first[j];
                    load_state<N>(from, start[j], i, state, j);
                }
                #pragma unroll
                for (int k = 0; k < STRETCH; ++k) {
                    if (begin + k < T) {
                        real x_t[N];
                        widen<N>(ahead[k], x_t);
                        #pragma unroll
                        for (int e = 0; e < N; ++e) again(x_t[e], state[e], param[e], keep[k][e]);
                    }
                }
            }
            if (LOADS_GRAD_S) {
                #pragma unroll
                for (int k = 0; k < STRETCH; ++k)
                    if (begin + k < T) above[k] = load<N>(grad_s + (begin + k) * M + i);
            }
            #pragma unroll
            for (int k = STRETCH - 1; k >= 0; --k) {  // and back over it
                const int t = begin + k;
                if (t < T) {
                    real x_t[N] = {}, grad_s_t[N] = {}, grad_x_t[N];
                    if (LOADS_X) widen<N>(ahead[k], x_t);
                    if (LOADS_GRAD_S) widen<N>(above[k], grad_s_t);
                    if (grad_v_seq) {
                        const Chunk<real, N> more = load<N>(grad_v_seq + t * M + i);
                        #pragma unroll
                        for (int e = 0; e < N; ++e) grad[e][V] += more.at[e];
                    }
                    #pragma unroll
                    for (int e = 0; e < N; ++e)
                        grad_x_t[e] = back(x_t[e], grad_s_t[e], keep[k][e], param[e], grad[e], sum[e]);
                    store(grad_x + t * M + i, narrow<N>(grad_x_t));
                }
            }
        }
        #pragma unroll
        for (int j = 0; j < STATES; ++j)
            if (grad_first[j]) store_state<N>(grad_first[j], i, grad, j);
        #pragma unroll
        for (int q = 0; q < SUMS; ++q) {
            if (EACH >> q & 1) {
                Chunk<real, N> chunk;
                #pragma unroll
                for (int e = 0; e < N; ++e) chunk.at[e] = sum[e][q];
                store(each[q] + i, chunk);
            } else {
                #pragma unroll
                for (int e = 0; e < N; ++e) mine[q] += sum[e][q];
            }
        }
    }
    #pragma unroll
    for (int q = 0; q < SUMS; ++q)
        if (!(EACH >> q & 1)) total[q][thread] = mine[q];
}
"""


def identifier(title: str) -> str:
    """``title`` as a C identifier."""
    name = re.sub(r"\W+", "_", title, flags=re.ASCII)
    return name if name and not name[0].isdigit() else f"neuron_{name}"


def width_of(io: torch.dtype) -> int:
    """Elements in 16 bytes."""
    return 16 // io.itemsize


def stretch_of(program: Program, real: torch.dtype, io: torch.dtype) -> int:
    """Steps that backward recomputes and goes back over at a time, so that what it keeps of them fits in registers."""
    a_step = len(program.keep) * width_of(io) * (real.itemsize // 4)
    steps = _LONGEST
    while steps > 2 and steps * a_step > _REGISTERS:
        steps //= 2
    return steps


def math_macros(real: str, text: str) -> str:
    """What expressions of :mod:`jellyfit.kernels.ops` in ``text`` need; ``real`` is ``"float"`` or ``"double"``."""
    suffix = "f" if real == "float" else ""
    used = set(re.findall(r"\w+", text)) | ({"EXP"} if "SIGMOID" in text else set())
    macros = [f"#define {name.upper()} {name}{suffix}" for name in _FUNCTIONS if name.upper() in used]
    if "ABS" in used:
        macros.append(f"#define ABS fabs{suffix}")
    if "SIGMOID" in used:
        macros.append("#define SIGMOID(x) (R(1.0) / (R(1.0) + EXP(-(x))))")
    if used & {"INFINITY", "NAN"}:
        macros.append(_NOT_FINITE)
    return "\n".join([f"typedef {real} real;", f"#define R(x) {'x##f' if suffix else 'x'}", *macros])


class CudaNames(Names):
    """C++ names of values: plain ASCII, and no word of the language or name in use around the generated lines.

    Args:
        real: ``"float"`` or ``"double"``.
        lift: see :class:`~jellyfit.kernels.emit.Names`.
    """

    def __init__(self, real: str, lift: bool = False) -> None:
        super().__init__(real, lift)
        self._taken |= _RESERVED
        self._twins: list[Value] = []

    def __call__(self, value: Value) -> str:
        plain = re.sub(r"\W", "_", value.name, flags=re.ASCII)
        if plain != value.name and id(value) not in self._names:
            twin = Value("input", name=plain)
            self._twins.append(twin)  # alive, so that no other value gets its id
            self._names[id(value)] = super().__call__(twin)
        return super().__call__(value)


class CudaWriter:
    """Writes the CUDA C++ text of one program.

    Args:
        spec: what the kernels are generated from.
    """

    def __init__(
        self,
        spec: KernelSpec,
    ) -> None:
        real, io = spec.real, spec.io
        self.program, self.graph, self.title = spec.program, spec.program.graph, spec.title
        self.real = "double" if real == torch.float64 else "float"
        self.io = io
        self.width, self.stretch = width_of(io), stretch_of(spec.program, real, io)
        self.names = CudaNames(self.real, spec.lift)
        self.start = [self.names.literal(Value("const", number=number)) for number in spec.start]
        self.arrays = spec.arrays
        self.x = self.names(self.graph.x)
        self.grad_s = "no_grad_s" if self.graph.grad_spike is None else self.names(self.graph.grad_spike)
        self.states = [self.names(value) for value in self.graph.states]
        self.params = [self.names(value) for value, _ in self.graph.params]
        self.each = [math.prod(reduction.shape) != 1 for reduction in self.graph.reductions]
        self._numbers = 0  # constants taken from memory

    # ---------------------------------------------------------------- one element, one step

    def step(self) -> str:
        """The function of one forward step."""
        stores = [(f"state[{j}] = {{}}", value) for j, value in enumerate(self.graph.new_states)]
        return self._function(
            "One time step: from the input and the state to the spike and, in place, the new state.",
            f"real step(const real {self.x}, real* state, const real* param)",
            self._body(self.program.forward, [*stores, ("return {}", self.graph.spike)], self._places("state")),
        )

    def again(self) -> str:
        """The function of the same step in the backward pass."""
        stores = [(f"keep[{i}] = {{}}", value) for i, value in enumerate(self.program.keep)]
        stores += [(f"state[{j}] = {{}}", value) for j, value in enumerate(self.graph.new_states)]
        return self._function(
            "The step again: what the way back needs of it and, in place, the new state.",
            f"void again(const real {self.x}, real* state, const real* param, real* keep)",
            self._body(self.program.recompute, stores, self._places("state")),
        )

    def back(self) -> str:
        """The function of one step of the way back."""
        graph, zero = self.graph, Value("const")
        stores = [(f"grad[{j}] = {{}}", value or zero) for j, value in enumerate(graph.grad_states)]
        stores += [(f"sum[{q}] += {{}}", reduction.value) for q, reduction in enumerate(graph.reductions)]
        arguments = f"const real {self.x}, const real {self.grad_s}, const real* keep, const real* param"
        return self._function(
            "Back over the step: from the gradients of the spike and, in place, of the state to that of the input.",
            f"real back({arguments},\n{' ' * 37}real* grad, real* sum)",
            self._body(self.program.backward, [*stores, ("return {}", graph.grad_x or zero)], self._places("grad")),
        )

    def _places(self, what: str) -> list[tuple[str, Value]]:
        """Where a function finds values: those of the state or of its gradient, what is kept, and the parameters."""
        values = self.graph.states if what == "state" else self.graph.grad_new_states
        found = [(f"{what}[{j}]", value) for j, value in enumerate(values) if value is not None]
        if what == "grad":
            found += [(f"keep[{i}]", value) for i, value in enumerate(self.program.keep)]
        return found + [(f"param[{p}]", value) for p, (value, _) in enumerate(self.graph.params)]

    def _body(
        self, values: Sequence[Value], stores: Sequence[tuple[str, Value]], places: Sequence[tuple[str, Value]]
    ) -> list[str]:
        """Lines that load what is needed from its place, compute ``values`` and store some."""
        wanted = {id(arg) for value in values for arg in value.args} | {id(value) for _, value in stores}
        text = []
        for place, value in places:
            if id(value) in wanted:
                text.append(f"const {'int' if value.boolean else 'real'} {self.names(value)} = {place};")
        text += lines(values, self.names)
        for store, value in stores:
            name = self.names(value)
            text.append(f"{store.format(OPS['real'].code.format(name) if value.boolean else name)};")
        used = sorted({int(number) for line in text for number in re.findall(r"\bnumber(\d+)\b", line)})
        return [f"const real number{i} = param[{len(self.arrays) + i}];" for i in used] + text

    def _function(self, comment: str, head: str, body: Sequence[str]) -> str:
        start = f"__device__ __forceinline__ {head} {{"
        return "\n".join([f"// {comment}", start, *(f"    {line}" for line in body), "}\n"])

    # ---------------------------------------------------------------- whole files

    def forward(self) -> str:
        """CUDA C++ source of the forward pass."""
        return self._file("forward", f"constexpr int AHEAD = {_AHEAD};", [self.step()], _FORWARD)

    def backward(self) -> str:
        """CUDA C++ source of the backward pass."""
        sizes = (
            f"constexpr int KEEP = {len(self.program.keep)}, SUMS = {len(self.each)};\n"
            f"constexpr bool LOADS_X = {_truth(self.program.loads_x)}, "
            f"LOADS_GRAD_S = {_truth(self.graph.grad_spike is not None)};\n"
            f"constexpr unsigned long long EACH = {_bits(self.each)};  // sums that stay apart for every element"
        )
        return self._file("backward", sizes, [self.again(), self.back()], _BACKWARD)

    def kernels(self, which: str) -> dict[int, str]:
        """Names of a pass's kernels by the number of elements that a thread takes at a time."""
        name = f"{identifier(self.title)}_{which}"
        return {self.width: f"{name}_vector", 1: f"{name}_scalar"}

    def _file(self, which: str, sizes: str, functions: Sequence[str], loops: str) -> str:
        include, io_code = _IO[self.io]
        self._numbers = len(self.names.lifted)  # all of them, now that the functions are written
        parts = [
            f"// {self.title}: {which}. Generated by jellyfit.",
            include,
            math_macros(self.real, "\n".join([*functions, *self.start])),
            _CHUNK,
            io_code,
            "",
            f"constexpr int STATES = {len(self.states)}, PARAMS = {len(self.arrays) + self._numbers};",
            f"constexpr int V = {self.states.index('v') if 'v' in self.states else 0};  // the state to record",
            f"constexpr int STRETCH = {self.stretch};  // steps between two states kept for backward",
            f"constexpr unsigned long long ARRAYS = {_bits(self.arrays)};  // parameters of more than one element",
            sizes,
            "",
            *functions,
            _SHARED,
            loops,
        ]
        kernel = self._forward_kernel if which == "forward" else self._backward_kernel
        parts += [kernel(name, width) for width, name in self.kernels(which).items()]
        return "\n".join(part for part in parts if part) + "\n"

    def _forward_kernel(self, name: str, width: int) -> str:
        arguments = [
            "const int64 M", "const int64 T", "const io* __restrict__ x", "io* __restrict__ s",
            "real* __restrict__ v_seq", "real* __restrict__ kept", *self._pointers("const real*", "first"),
            *self._pointers("real*", "last"), *self._param_arguments(),
        ]  # fmt: skip
        body = [
            self._start(),
            self._list("const real* const", "first", self.states),
            self._list("real* const", "last", self.states),
            self._param_list(),
            f"forward<{width}>(M, (int)T, x, s, v_seq, kept, start, first, last, params);",
        ]
        return _kernel(name, THREADS["forward"], arguments, body)

    def _backward_kernel(self, name: str, width: int) -> str:
        arguments = [
            "const int64 M", "const int64 T", "const io* __restrict__ x", "const io* __restrict__ grad_s",
            "io* __restrict__ grad_x", "const real* __restrict__ grad_v_seq", "const real* __restrict__ kept",
            *self._pointers("const real*", "first"), *self._pointers("const real*", "grad_last"),
            *self._pointers("real*", "grad_first"), *self._param_arguments(),
            *(f"real* each_{q}" if each else f"double* total_{q}" for q, each in enumerate(self.each)),
        ]  # fmt: skip
        numbers = range(len(self.each))
        body = [
            self._start(),
            self._list("const real* const", "first", self.states),
            self._list("const real* const", "grad_last", self.states),
            self._list("real* const", "grad_first", self.states),
            self._param_list(),
            _array("double* const total", ["nullptr" if self.each[q] else f"total_{q}" for q in numbers]),
            _array("real* const each", [f"each_{q}" if self.each[q] else "nullptr" for q in numbers]),
            f"backward<{width}>(M, (int)T, x, grad_s, grad_x, grad_v_seq, kept, start, first, grad_last, grad_first,",
            "             params, total, each);",
        ]
        return _kernel(name, THREADS["backward"], arguments, body)

    def _pointers(self, kind: str, what: str) -> list[str]:
        return [f"{kind} {what}_{name}" for name in self.states]

    def _list(self, kind: str, what: str, names: Sequence[str]) -> str:
        return _array(f"{kind} {what}", [f"{what}_{name}" for name in names])

    def _start(self) -> str:
        items = [re.sub(r"^number(\d+)$", r"numbers[\1]", number) for number in self.start]
        return _array("const real start", items)

    def _param_arguments(self) -> list[str]:
        found = [
            text
            for name in self.params
            for text in (f"const real* {name}", f"const int64 {name}_period", f"const int64 {name}_inner")
        ]
        return found + (["const real* numbers"] if self._numbers else [])

    def _param_list(self) -> str:
        params = [f"{{{name}, {name}_period, {name}_inner}}" for name in self.params]
        return _array("const Param params", params + [f"{{numbers + {i}, 1, 1}}" for i in range(self._numbers)])


def _array(declaration: str, items: Sequence[str]) -> str:
    return f"{declaration}[] = {{{', '.join([*items, '{}'])}}};"


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _bits(flags: Sequence[bool]) -> str:
    return f"{sum(1 << i for i, flag in enumerate(flags) if flag)}ull"


def _kernel(name: str, threads: int, arguments: Sequence[str], body: Sequence[str]) -> str:
    head = f'extern "C" __global__ void __launch_bounds__({threads}) {name}('
    whole = ", ".join(argument.replace(" ", "\0") for argument in arguments) + ")\0{"  # break lines between arguments
    folded = [line.replace("\0", " ") for line in textwrap.wrap(whole, 112, break_long_words=False)]
    return "\n".join([head, *(f"        {line}" for line in folded), *(f"    {line}" for line in body), "}\n"])
