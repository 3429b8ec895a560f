"""NVIDIA's run-time compiler from its Python package: compiles CUDA for a GPU where there is none."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

_INSTALL = "NVRTC is not installed (pip install nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12)"


@functools.cache
def _found() -> tuple[ctypes.CDLL, Path] | None:
    """The library and the folder of CUDA's headers."""
    spec = importlib.util.find_spec("nvidia")
    for root in map(Path, spec.submodule_search_locations or ()) if spec else ():
        for nvrtc, runtime in (("cuda_nvrtc", "cuda_runtime"), ("cu13", "cu13")):
            libraries = sorted(root.glob(f"{nvrtc}/lib/libnvrtc.so.*"))
            headers = root / runtime / "include"
            if libraries and (headers / "cuda_fp16.h").exists():
                return ctypes.CDLL(str(libraries[0])), headers
    return None


def installed() -> bool:
    """Whether it is here."""
    return _found() is not None


def require() -> None:
    """Skip the test where NVRTC is not installed, unless it was promised to be there."""
    if not installed():
        if os.environ.get("JELLYFIT_REQUIRE_NVRTC") == "1":
            pytest.fail(f"JELLYFIT_REQUIRE_NVRTC=1, but {_INSTALL}", pytrace=False)
        pytest.skip(_INSTALL)


def compiled(source: str, architecture: str, options: Sequence[str] = ()) -> tuple[bytes, str]:
    """Compile: a binary for ``sm_..``, PTX text for ``compute_..``; and what the compiler had to say.

    Raises:
        AssertionError: it does not compile.
    """
    found = _found()
    assert found is not None
    library, headers = found
    program = ctypes.c_void_p()
    assert library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None) == 0
    try:
        given = [f"-arch={architecture}", f"-I{headers}", *options]
        status = library.nvrtcCompileProgram(
            program, len(given), (ctypes.c_char_p * len(given))(*map(str.encode, given))
        )
        log = _text(library, program, "ProgramLog").decode().strip()
        said = "\n".join(line for line in log.splitlines() if "Architectures prior to" not in line)
        assert status == 0, f"{architecture}: {said}\n{source}"
        return _text(library, program, "CUBIN" if architecture.startswith("sm_") else "PTX"), said
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _text(library: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    assert getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
    buffer = ctypes.create_string_buffer(size.value)
    assert getattr(library, f"nvrtcGet{what}")(program, buffer) == 0
    return buffer.raw[: size.value].rstrip(b"\0") if what != "CUBIN" else buffer.raw
