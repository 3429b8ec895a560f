"""The vector functions inside libtorch: the very ones that eager PyTorch computes exp, tanh, ... with.

Another implementation of the same function differs in the last bit here and there, and a spike with it. libtorch
exports two families: those of Intel's VML, which take whole arrays, and those of SLEEF, which take one vector register
(for what is left over at the end of a tensor, eager PyTorch calls the C library instead: there a last bit may differ).
Where neither is exported (another build of torch, another processor) kernels use the C library's functions.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable
from pathlib import Path

import torch

__all__ = ["available", "bind", "declarations"]

_VML = {
    "exp": "Exp",
    "log": "Ln",
    "sin": "Sin",
    "cos": "Cos",
    "tan": "Tan",
    "atan": "Atan",
    "tanh": "Tanh",
    "erf": "Erf",
}
_SLEEF = {"expm1": "expm1", "log1p": "log1p", "cosh": "cosh", "sigmoid": "exp"}

_SLEEF_CODE = """\
static VEC (*sleef_{op})(VEC);
static void vector_{op}(int n, const real* a, real* y) {{
    for (int i = 0; i < n; i += LANES) {{
        union {{ VEC v; real x[LANES]; }} u = {{0}};
        const int count = n - i < LANES ? n - i : LANES;
        memcpy(u.x, a + i, count * sizeof(real));
        u.v = {code};
        memcpy(y + i, u.x, count * sizeof(real));
    }}
}}
"""


@functools.cache
def available(real: torch.dtype) -> dict[str, int]:
    """Addresses of the functions by operation (``exp``, ``sigmoid``, ...); empty where there are none."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    except OSError:
        return {}
    single = real == torch.float32
    names = {op: f"vm{'s' if single else 'd'}{name}" for op, name in _VML.items()}
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        names |= {op: f"Sleef_{name}{'f8' if single else 'd4'}_u10" for op, name in _SLEEF.items()}
    found = {}
    for op, name in names.items():
        function = getattr(library, name, None)
        if function is not None:
            found[op] = ctypes.cast(function, ctypes.c_void_p).value or 0
    return found


def declarations(used: Iterable[str], real: torch.dtype) -> str:
    """C text that declares ``vector_OP(n, arguments, results)`` for every operation in ``used``."""
    used = sorted(used)
    if not used:
        return ""
    vml, sleef = [op for op in used if op in _VML], [op for op in used if op in _SLEEF]
    text = f"// functions of libtorch: {' '.join(used)}\n"
    for op in vml:
        text += f"static void (*vml_{op})(int, const real*, real*, int64_t);\n"
        text += f"#define vector_{op}(n, a, y) vml_{op}(n, a, y, 0x140102)  // accurate, denormals kept, no reports\n"
    if sleef:
        kind, lanes = ("__m256", 8) if real == torch.float32 else ("__m256d", 4)
        text += f"#include <immintrin.h>\n#define VEC {kind}\nenum {{ LANES = {lanes} }};\n"
        for op in sleef:
            code = "1 / (1 + sleef_sigmoid(0 - u.v))" if op == "sigmoid" else f"sleef_{op}(u.v)"
            text += _SLEEF_CODE.format(op=op, code=code)
    text += "void bind(const int64_t* address) {\n"
    for i, op in enumerate(used):
        family = "vml" if op in _VML else "sleef"
        text += f"    {family}_{op} = (void*)(intptr_t)address[{i}];\n"
    return text + "}\n"


def bind(library: ctypes.CDLL, source: str, real: torch.dtype) -> None:
    """Tell a compiled source of :func:`declarations` where the functions are."""
    for line in source.splitlines():
        if line.startswith("// functions of libtorch: "):
            found = available(real)
            addresses = [found[op] for op in line.split(": ")[1].split()]
            library.bind.restype = None
            library.bind((ctypes.c_int64 * len(addresses))(*addresses))
            return
