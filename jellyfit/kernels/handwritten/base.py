"""Kernels of one element, or of one neuron through time, out of CUDA lines."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jellyfit.errors import ConfigError, InputError, InputTypeError
from jellyfit.kernels.cuda import CupyLauncher, Launch, Launcher, why_not

__all__ = ["CKernel", "CKernel1D", "CKernel2D", "folded", "indented"]

_THREADS = 256
_INDENT = "    "


@dataclass(frozen=True)
class _CType:
    """A C type that parameters can have: its tensors, how many of their elements it holds, and the header it needs."""

    dtype: torch.dtype
    elements: int = 1
    header: str = ""

    @property
    def numpy(self) -> np.dtype[Any]:
        return torch.empty(0, dtype=self.dtype).numpy().dtype


_HALF, _BFLOAT = "cuda_fp16.h", "cuda_bf16.h"
_CTYPES = {
    "float": _CType(torch.float32),
    "double": _CType(torch.float64),
    "half": _CType(torch.float16, header=_HALF),
    "half2": _CType(torch.float16, 2, _HALF),
    "__half": _CType(torch.float16, header=_HALF),
    "__half2": _CType(torch.float16, 2, _HALF),
    "__nv_bfloat16": _CType(torch.bfloat16, header=_BFLOAT),
    "__nv_bfloat162": _CType(torch.bfloat16, 2, _BFLOAT),
    "bool": _CType(torch.bool),
    "unsigned char": _CType(torch.uint8),
    "int": _CType(torch.int32),
    "long long": _CType(torch.int64),
}


@dataclass(frozen=True)
class _Declared:
    """A parameter's type as it was given, taken apart."""

    base: str
    pointer: bool
    const: bool

    @classmethod
    def parse(cls, ctype: str, cname: str) -> _Declared:
        found = re.fullmatch(r"(const\s+)?(\w[\w ]*?)\s*([*&]?)", ctype.strip())
        if found is None or found[2] not in _CTYPES:
            raise InputError(
                f"add_param(ctype={ctype!r}, cname={cname!r}): expected one of {', '.join(_CTYPES)}, perhaps behind "
                "'const', and followed by '*' for a tensor or '&' for a number."
            )
        return cls(found[2], found[3] == "*", found[1] is not None)

    @property
    def kind(self) -> _CType:
        return _CTYPES[self.base]

    def text(self, cname: str) -> str:
        if not self.pointer:
            return f"const {self.base} {cname}"
        return f"{'const ' if self.const else ''}{self.base} * {cname}"


class CKernel:
    """A CUDA kernel: parameters by name, and lines of CUDA. :class:`CKernel1D` and :class:`CKernel2D` bring a loop.

    Args:
        kernel_name: of the kernel; a C identifier.

    Attributes:
        cparams: the C type of every parameter by its name, in the order of the declaration.
        reserved_cnames: names that parameters cannot have.
        launcher: what compiles and launches; CuPy.

    Raises:
        InputError: not an identifier.

    Source: Fang et al., "SpikingJelly", Science Advances 9 (2023), the semi-automatic CUDA code generation.

    Examples:
        >>> from jellyfit.kernels.handwritten import CKernel1D
        >>> kernel = CKernel1D("twice")
        >>> kernel.add_param("const float *", "x")
        >>> kernel.add_param("float *", "y")
        >>> list(kernel.cparams)
        ['numel', 'x', 'y']
    """

    _device_type = "cuda"

    def __init__(self, kernel_name: str) -> None:
        if not re.fullmatch(r"[A-Za-z_]\w*", kernel_name, re.ASCII):
            raise InputError(f"kernel_name={kernel_name!r}: expected a C identifier.")
        self.kernel_name = kernel_name
        self.cparams: dict[str, str] = {}
        self.reserved_cnames: list[str] = []
        self.launcher: Launcher = CupyLauncher()
        self._core = ""
        self._launches: dict[torch.device, Launch] = {}

    def add_param(self, ctype: str, cname: str) -> None:
        """Add a parameter.

        Args:
            ctype: ``"const float *"`` for a tensor that is read, ``"float *"`` for one that is written, ``"float &"``
                for a number; likewise ``double``, ``half2`` (two neighbours of a float16 tensor), ``int``, ...
            cname: its name in the kernel and in calls.

        Raises:
            InputError: an unknown type, or a name that is taken, reserved or no identifier.
        """
        _Declared.parse(ctype, cname)
        if cname in self.cparams or cname in self.reserved_cnames:
            why = "is a parameter already" if cname in self.cparams else "has a meaning in every kernel of this kind"
            raise InputError(f"add_param({ctype!r}, {cname!r}): {cname} {why}. Choose another name.")
        if not re.fullmatch(r"[A-Za-z_]\w*", cname, re.ASCII):
            raise InputError(f"add_param({ctype!r}, {cname!r}): expected a C identifier.")
        self.cparams[cname] = ctype
        self._launches.clear()

    def check_attributes(self, **kwargs: object) -> bool:
        """Whether every attribute named has the value given."""
        return all(getattr(self, name) == value for name, value in kwargs.items())

    # ---------------------------------------------------------------- source

    @property
    def core(self) -> str:
        """The CUDA lines of one element (and time step)."""
        return self._core

    @core.setter
    def core(self, codes: str) -> None:
        self._core = codes
        self._launches.clear()

    @property
    def preamble(self) -> str:
        """What stands in front of the kernel: headers that its types need, and functions."""
        headers = {_Declared.parse(ctype, cname).kind.header for cname, ctype in self.cparams.items()} - {""}
        return "".join(f"#include <{header}>\n" for header in sorted(headers))

    @property
    def declaration(self) -> str:
        """The kernel's name and parameters."""
        texts = [_Declared.parse(ctype, cname).text(cname) for cname, ctype in self.cparams.items()]
        return folded(f'extern "C" __global__ void {self.kernel_name}({", ".join(texts)})')

    @property
    def head(self) -> str:
        """What stands between the declaration and the core."""
        return "{\n"

    @property
    def tail(self) -> str:
        """What stands behind the core."""
        return "}\n"

    @property
    def full_codes(self) -> str:
        """The whole CUDA source."""
        return f"{self.preamble}{self.declaration} {self.head}{indented(self.core, self._depth)}{self.tail}"

    _depth = 1

    # ---------------------------------------------------------------- running it

    def __call__(self, grid: Sequence[int], block: Sequence[int], py_dict: Mapping[str, object]) -> None:
        """Run on PyTorch's current stream.

        The source is read and compiled when the kernel first runs on a device, and again after its lines or parameters
        were set anew.

        Args:
            grid: number of blocks, ``(blocks,)``.
            block: threads in a block, ``(threads,)``.
            py_dict: every parameter by name: tensors for pointers, numbers for the others.

        Raises:
            InputError: a parameter is missing or unknown, not contiguous, on another device, or of a wrong size.
            InputTypeError: a wrong dtype or Python type.
            ConfigError: CUDA kernels cannot run here.
        """
        tensors, arguments = self._checked(py_dict)
        if len(grid) != 1 or len(block) != 1:
            raise InputError(f"{self.kernel_name}: grid={tuple(grid)}, block={tuple(block)}; expected one number each.")
        device = next(iter(tensors.values())).device
        if isinstance(self.launcher, CupyLauncher) and (reason := why_not()) is not None:
            raise ConfigError(f"{self.kernel_name} cannot run here: {reason}.")
        if device not in self._launches:
            self._launches[device] = self.launcher.load(self.full_codes, [self.kernel_name], device)[self.kernel_name]
        self._launches[device](int(grid[0]), int(block[0]), arguments)

    def _checked(self, py_dict: Mapping[str, object]) -> tuple[dict[str, Tensor], list[int | np.generic]]:
        """The tensors by name, and all arguments in order."""
        missing = [name for name in self.cparams if name not in py_dict]
        unknown = [name for name in py_dict if name not in self.cparams]
        if missing or unknown:
            wrong = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"unknown: {', '.join(unknown)}"] * bool(
                unknown
            )
            raise InputError(f"{self.kernel_name}: {'; '.join(wrong)}. It takes {', '.join(self.cparams)}.")
        tensors: dict[str, Tensor] = {}
        arguments: list[int | np.generic] = []
        for name, ctype in self.cparams.items():
            declared, value = _Declared.parse(ctype, name), py_dict[name]
            if declared.pointer:
                tensors[name] = self._tensor(name, ctype, declared, value)
                arguments.append(tensors[name].data_ptr())
            else:
                arguments.append(self._number(name, ctype, declared, value))
        if not tensors:
            raise InputError(f"{self.kernel_name}: it has no tensor among its parameters; expected one at least.")
        devices = {str(tensor.device): name for name, tensor in tensors.items()}
        if len(devices) > 1:
            places = ", ".join(f"{name} on {device}" for device, name in devices.items())
            raise InputError(f"{self.kernel_name}: {places}; expected all tensors on one device.")
        return tensors, arguments

    def _tensor(self, name: str, ctype: str, declared: _Declared, value: object) -> Tensor:
        where = f"{self.kernel_name}: {name} ({ctype})"
        if not isinstance(value, Tensor):
            raise InputTypeError(f"{where}: got {type(value).__name__}; expected a tensor.")
        if value.dtype != declared.kind.dtype:
            raise InputTypeError(f"{where}: got {value.dtype}; expected {declared.kind.dtype}.")
        if value.device.type != self._device_type:
            raise InputError(f"{where}: is on {value.device}; expected a {self._device_type.upper()} tensor.")
        if not value.is_contiguous():
            raise InputError(
                f"{where}: is not contiguous (shape {list(value.shape)}, strides {list(value.stride())}). Use "
                ".contiguous()."
            )
        if value.numel() % declared.kind.elements or value.data_ptr() % (value.itemsize * declared.kind.elements):
            raise InputError(
                f"{where}: shape {list(value.shape)} at address {value.data_ptr():#x}; {declared.base} takes pairs, so "
                "an even number of elements from an even place. Pad it."
            )
        return value

    def _number(self, name: str, ctype: str, declared: _Declared, value: object) -> np.generic:
        where = f"{self.kernel_name}: {name} ({ctype})"
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        if not isinstance(value, (int, float, np.generic)):
            raise InputTypeError(f"{where}: got {type(value).__name__}; expected a number.")
        if not (declared.kind.dtype.is_floating_point or float(value) == math.floor(float(value))):
            raise InputTypeError(f"{where}: got {value!r}; expected a whole number.")
        if declared.kind.dtype == torch.bfloat16:
            raise InputTypeError(f"{where}: numbers of type {declared.base} cannot be passed. Declare it as float.")
        packed = np.array([value] * declared.kind.elements).astype(declared.kind.numpy)
        found: np.generic = packed.view(np.int32)[0] if declared.kind.elements == 2 else packed[0]
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_launches": {}}


class CKernel1D(CKernel):
    """A kernel with one thread for each element: ``core`` computes element ``index`` of ``numel``.

    Args:
        kernel_name: of the kernel.

    Examples:
        >>> from jellyfit.kernels.handwritten import CKernel1D
        >>> kernel = CKernel1D("twice")
        >>> kernel.add_param("const float *", "x")
        >>> kernel.add_param("float *", "y")
        >>> kernel.core = "y[index] = 2.0f * x[index];"
        >>> print(kernel.full_codes)
        extern "C" __global__ void twice(const long long numel, const float * x, float * y) {
            const long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
            if (index < numel) {
                y[index] = 2.0f * x[index];
            }
        }
        <BLANKLINE>
    """

    _depth = 2

    def __init__(self, kernel_name: str) -> None:
        super().__init__(kernel_name)
        self.cparams["numel"] = "const long long &"
        self.reserved_cnames.append("index")

    @property
    def head(self) -> str:
        return "{\n" + indented(f"{_INDEX}\nif (index < numel) {{", 1)

    @property
    def tail(self) -> str:
        return f"{_INDENT}}}\n}}\n"

    def simple_call(self, **kwargs: object) -> None:
        """Run over all elements; parameters by name.

        ``numel`` is the size of the tensors, in units of their C type (a ``half2`` is two elements); it has to be given
        where they differ in size.
        """
        if "numel" not in kwargs:
            tensors, _ = self._checked({**kwargs, "numel": 0})
            sizes = {name: tensor.numel() // self._elements(name) for name, tensor in tensors.items()}
            if len(set(sizes.values())) > 1:
                given = ", ".join(f"{name} {size}" for name, size in sizes.items())
                raise InputError(f"{self.kernel_name}: tensors differ in size ({given}); say which with numel=.")
            kwargs["numel"] = next(iter(sizes.values()))
        numel = kwargs["numel"]
        if not isinstance(numel, int) or numel < 0:
            raise InputTypeError(f"{self.kernel_name}: numel={numel!r}; expected a whole number.")
        if numel:
            self((-(-numel // _THREADS),), (_THREADS,), kwargs)

    def _elements(self, name: str) -> int:
        return _Declared.parse(self.cparams[name], name).kind.elements


class CKernel2D(CKernel):
    """A kernel with one thread for each neuron, which goes through time: tensors are ``[T, N]``.

    ``core`` computes element ``t`` of ``numel = T * N``: one neuron at one step. The next step's is ``t + dt`` with
    ``dt = N``; the neuron's number is ``index``.

    Args:
        kernel_name: of the kernel.
        reverse: from the last step to the first.

    Examples:
        >>> from jellyfit.kernels.handwritten import CKernel2D
        >>> kernel = CKernel2D("running_sum")
        >>> kernel.add_param("const float *", "x_seq")
        >>> kernel.add_param("float *", "y_seq")
        >>> kernel.pre_core = "float sum = 0.0f;"
        >>> kernel.core = "sum += x_seq[t]; y_seq[t] = sum;"
        >>> "for (long long t = index; t < numel; t += dt) {" in kernel.full_codes
        True
    """

    _depth = 3

    def __init__(self, kernel_name: str, reverse: bool = False) -> None:
        super().__init__(kernel_name)
        self.reverse = reverse
        self.cparams.update(numel="const long long &", N="const long long &")
        self.reserved_cnames += ["index", "dt", "t"]
        self._pre_core = ""
        self._post_core = ""

    @property
    def pre_core(self) -> str:
        """CUDA lines before the loop over time."""
        return self._pre_core

    @pre_core.setter
    def pre_core(self, codes: str) -> None:
        self._pre_core = codes
        self._launches.clear()

    @property
    def post_core(self) -> str:
        """CUDA lines behind the loop over time."""
        return self._post_core

    @post_core.setter
    def post_core(self, codes: str) -> None:
        self._post_core = codes
        self._launches.clear()

    @property
    def head(self) -> str:
        backwards = "for (long long t = numel - N + index; t >= 0; t -= dt) {"
        loop = backwards if self.reverse else "for (long long t = index; t < numel; t += dt) {"
        inside = indented("const long long dt = N;", 2) + indented(self.pre_core, 2) + indented(loop, 2)
        return "{\n" + indented(f"{_INDEX}\nif (index < N) {{", 1) + inside

    @property
    def tail(self) -> str:
        return f"{_INDENT * 2}}}\n{indented(self.post_core, 2)}{_INDENT}}}\n}}\n"

    def simple_call(self, **kwargs: object) -> None:
        """Run over all neurons and steps; parameters by name.

        ``numel`` and ``N`` are those of the first parameter ``[T, N]``, in units of its C type (a ``half2`` is two
        elements), unless they are given.

        Raises:
            InputError: a tensor of more than two axes, or none of two.
        """
        if not {"numel", "N"} <= kwargs.keys():
            tensors, _ = self._checked({"numel": 0, "N": 0, **kwargs})
            T, N = self._steps_and_neurons(tensors)
            name = next(name for name, tensor in tensors.items() if tensor.ndim == 2)
            units = _Declared.parse(self.cparams[name], name).kind.elements
            kwargs = {"numel": T * N // units, "N": N // units, **kwargs}
        neurons = kwargs["N"]
        if not isinstance(neurons, int) or neurons < 0:
            raise InputTypeError(f"{self.kernel_name}: N={neurons!r}; expected a whole number.")
        if neurons:
            self((-(-neurons // _THREADS),), (_THREADS,), kwargs)

    def _steps_and_neurons(self, tensors: Mapping[str, Tensor]) -> tuple[int, int]:
        """``T`` and ``N`` of the first tensor of two axes; all of them have ``N`` neurons."""
        deep = [f"{name} {list(tensor.shape)}" for name, tensor in tensors.items() if tensor.ndim > 2]
        if deep:
            raise InputError(f"{self.kernel_name}: {', '.join(deep)}; expected [T, N] or [N]. Use .flatten(1).")
        sequences = {name: tensor for name, tensor in tensors.items() if tensor.ndim == 2}
        if not sequences:
            raise InputError(f"{self.kernel_name}: none of its tensors is [T, N]; give numel= and N=.")
        T, N = next(iter(sequences.values())).shape
        for name, tensor in sequences.items():
            if tensor.shape[1] != N:
                raise InputError(f"{self.kernel_name}: {name} is {list(tensor.shape)}; expected [.., {N}].")
            if N % _Declared.parse(self.cparams[name], name).kind.elements:
                raise InputError(
                    f"{self.kernel_name}: {name} is {list(tensor.shape)}; {self.cparams[name]} takes pairs, so an even "
                    "number of neurons. Pad it."
                )
        return T, N


_INDEX = "const long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;"


def indented(codes: str, depth: int) -> str:
    """Lines moved to the right, each ended; nothing for no lines."""
    text = textwrap.dedent(codes).strip("\n")
    return textwrap.indent(text, _INDENT * depth) + "\n" if text.strip() else ""


def folded(declaration: str) -> str:
    """A declaration with line breaks between its parameters."""
    text = re.sub(r"(?<!,) ", "\0", declaration)
    wrapped = textwrap.wrap(text, 112, subsequent_indent=_INDENT * 2, break_long_words=False, break_on_hyphens=False)
    return "\n".join(wrapped).replace("\0", " ")
