"""Compile small C functions on the user's machine and load them.

jellyfit ships no compiled code. Where a loop in C is several times faster than NumPy or PyTorch, the C source is kept
as text beside the Python that says the same thing, compiled with the host's own compiler the first time it is needed
and kept on disk for the next time:

    library = native.load("add", "int add(int a, int b) { return a + b; }")
    if library is None:
        ...  # no compiler: the Python path, slower, with the same numbers

Environment variables: ``CC`` (the compiler), ``JELLYFIT_CACHE`` (the folder for what jellyfit keeps, default
``~/.cache/jellyfit``), ``JELLYFIT_NATIVE=0`` (never compile, never warn).
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import secrets
import shlex
import shutil
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = ["NativeStatus", "NativeWarning", "cache_folder", "load", "status", "usable_cores", "write_whole"]

_FLAGS = ("-O3", "-ffp-contract=off", "-shared", "-fPIC")
_COMPILE_SECONDS = 300
_PROBE = "int jellyfit_probe(void) { return 42; }\n"


class NativeWarning(RuntimeWarning):
    """C code could not be compiled or loaded; the slower Python path with the same numbers is used instead."""


class _UnusableError(Exception):
    """Why a library cannot be had; the message is shown to the user."""


@dataclass(frozen=True)
class NativeStatus:
    """What :func:`status` found.

    Attributes:
        usable: Whether C code compiles, loads and runs here.
        compiler: The compiler's command line, None without one.
        version: The first line of what ``compiler --version`` prints, None without a compiler.
        cache: The folder where compiled libraries are kept.
        cache_writable: Whether libraries can be kept there. If not, every process compiles its own.
        reason: Why ``usable`` is False and what to do; empty when it is True.
    """

    usable: bool
    compiler: str | None
    version: str | None
    cache: Path
    cache_writable: bool
    reason: str


_lock = threading.Lock()
_loaded: dict[tuple[str, ...], ctypes.CDLL | None] = {}
_warned: set[str] = set()


def load(name: str, source: str, flags: Sequence[str] = ()) -> ctypes.CDLL | None:
    """Compile C source into a shared library, or take it from the cache, and load it.

    The library is cached for this process and on disk, under the SHA-256 of the source, the flags, the compiler's
    version and the processor, so it is compiled once per machine and never used on a processor that it was not made
    for. Several processes may do this at once. A damaged cache file is rebuilt; where the cache folder cannot be
    written, a temporary folder is used.

    Args:
        name: Short name for the file and for messages: letters, digits, ``_`` and ``-``.
        source: C source with a plain C interface. Set ``argtypes`` and ``restype`` on the functions of the result.
        flags: Further options for the compiler, such as ``"-fopenmp"`` or ``"-lm"``; they stand behind the source.

    Returns:
        The library, the same object for the same arguments, or None where ``JELLYFIT_NATIVE=0`` is set or where it
        cannot be compiled or loaded. The latter gives one :class:`NativeWarning` per reason and process.
    """
    if not _enabled():
        return None
    key = (name, source, *flags, os.environ.get("CC", ""), os.environ.get("JELLYFIT_CACHE", ""))
    with _lock:
        if key in _loaded:
            return _loaded[key]
        _loaded[key] = None  # what a second call gets, should a filter turn the warning below into an error
        try:
            _loaded[key] = _find_or_build(name, source, tuple(flags))
        except _UnusableError as error:
            reason = str(error)
        else:
            return _loaded[key]
    if reason not in _warned:
        _warned.add(reason)
        warnings.warn(f"{reason} Until then a slower path with the same numbers is used.", NativeWarning, stacklevel=2)
    return None


def status() -> NativeStatus:
    """Report whether C code can be compiled and run here; for a ``doctor`` command. Never warns.

    Returns:
        A :class:`NativeStatus`. Finding out compiles a one-line function, unless the cache holds it.
    """
    cache = cache_folder()
    compiler = version = None
    reason = ""
    try:
        compiler = _compiler()
        version = _version(compiler)
        if not _enabled():
            raise _UnusableError("The environment variable JELLYFIT_NATIVE=0 turns C code off; unset it to turn it on.")
        if _find_or_build("probe", _PROBE, ()).jellyfit_probe() != 42:
            raise _UnusableError(f"The compiler {shlex.join(compiler)} makes code that does not run correctly.")
    except _UnusableError as error:
        reason = str(error)
    return NativeStatus(
        usable=not reason,
        compiler=shlex.join(compiler) if compiler else None,
        version=version,
        cache=cache,
        cache_writable=_writable(cache),
        reason=reason,
    )


def usable_cores() -> int:
    """Cores of this machine that this process may use, at least 1.

    Examples:
        >>> from jellyfit import native
        >>> native.usable_cores() >= 1
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_folder() -> Path:
    """The folder of compiled libraries: ``$JELLYFIT_CACHE/native``, by default ``~/.cache/jellyfit/native``."""
    root = os.environ.get("JELLYFIT_CACHE")
    try:
        return (Path(root).expanduser() if root else Path.home() / ".cache" / "jellyfit") / "native"
    except RuntimeError:  # an account without a home folder, usual in containers
        return Path(tempfile.gettempdir()) / f"jellyfit-{os.getuid()}" / "native"


@contextlib.contextmanager
def write_whole(path: Path) -> Iterator[IO[bytes]]:
    """Write a file whole or not at all: into a temporary file in the same folder, renamed when it is complete.

    Whoever opens ``path`` meanwhile sees the old file or none. When the body raises, the temporary file is removed
    and ``path`` stays as it was.

    Args:
        path: The file to write or to replace. Its folder must exist.

    Yields:
        The open temporary file.

    Raises:
        OSError: The folder cannot be written, the disk is full, and so on.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _enabled() -> bool:
    return os.environ.get("JELLYFIT_NATIVE", "1") != "0"


def _find_or_build(name: str, source: str, flags: tuple[str, ...]) -> ctypes.CDLL:
    compiler = _compiler()
    parts = (source, *_FLAGS, *flags, *compiler, _version(compiler), _processor())
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    folder = cache_folder()
    return _from_cache(folder, name, key) or _build(folder, name, key, compiler, source, flags)


def _from_cache(folder: Path, name: str, key: str) -> ctypes.CDLL | None:
    """The cached library. Its file name ends in its own digest, so damage is seen before the loader maps the file."""
    for path in folder.glob(f"{name}-{key}-*.so"):
        try:
            if path.stem.endswith(_digest(path.read_bytes())):
                return ctypes.CDLL(str(path))
        except OSError:
            continue  # removed meanwhile, unreadable or not loadable here: built anew, under the same name
        with contextlib.suppress(OSError):  # in somebody else's cache the damaged file stays, unused
            path.unlink(missing_ok=True)
    return None


def _build(
    folder: Path, name: str, key: str, compiler: tuple[str, ...], source: str, flags: tuple[str, ...]
) -> ctypes.CDLL:
    try:
        with tempfile.TemporaryDirectory(prefix="jellyfit-") as work:
            library = _compile(Path(work), name, compiler, source, flags)
            with contextlib.suppress(OSError):  # a folder that is read-only, full, or barred to programs
                return ctypes.CDLL(str(_keep(library, folder, name, key)))
            try:
                return ctypes.CDLL(str(library))  # stays loaded when the temporary folder goes
            except OSError as error:
                raise _UnusableError(
                    f"The C code {name!r} was compiled with {shlex.join(compiler)} but does not load ({error}). "
                    "Point JELLYFIT_CACHE at a folder from which programs may run."
                ) from error
    except OSError as error:
        raise _UnusableError(
            f"The C code {name!r} cannot be compiled, for want of a temporary folder ({error}). "
            "Point TMPDIR at a folder with free space."
        ) from error


def _compile(work: Path, name: str, compiler: tuple[str, ...], source: str, flags: tuple[str, ...]) -> Path:
    (work / f"{name}.c").write_text(source, encoding="utf-8")
    output = ""
    for march in (("-march=native",), ()):  # some compilers for ARM do not know -march=native
        command = [*compiler, *_FLAGS, *march, f"{name}.c", "-o", f"{name}.so", *flags]
        try:
            done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=_COMPILE_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _UnusableError(f"The C code {name!r} cannot be compiled: {error}. {_advice()}") from error
        if done.returncode == 0:
            return work / f"{name}.so"
        output = output or (done.stderr or done.stdout).strip()
    raise _UnusableError(
        f"The C code {name!r} does not compile with {shlex.join(compiler)}:\n{output[:2000]}\n{_advice()}"
    )


def _keep(library: Path, folder: Path, name: str, key: str) -> Path:
    """Copy a library into the cache folder."""
    binary = library.read_bytes()
    path = folder / f"{name}-{key}-{_digest(binary)}.so"
    folder.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as file:
        file.write(binary)
    return path


def _compiler() -> tuple[str, ...]:
    """The compiler's command: ``$CC`` if set, else the first of cc, gcc and clang that exists."""
    chosen = os.environ.get("CC", "")
    if chosen.strip():
        command = shlex.split(chosen)
        found = shutil.which(command[0])
        if found is None:
            raise _UnusableError(
                f"No C compiler: the environment variable CC names {command[0]!r}, which is not found. "
                "Set CC to a compiler that exists, or unset it."
            )
        return found, *command[1:]
    for candidate in ("cc", "gcc", "clang"):
        found = shutil.which(candidate)
        if found is not None:
            return (found,)
    raise _UnusableError(f"No C compiler was found (cc, gcc, clang). {_advice()}")


@functools.cache
def _version(compiler: tuple[str, ...]) -> str:
    try:
        done = subprocess.run([*compiler, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _UnusableError(f"The C compiler {shlex.join(compiler)} does not run: {error}. {_advice()}") from error
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        raise _UnusableError(f"{shlex.join(compiler)} is not a C compiler: it does not know --version. {_advice()}")
    return lines[0].strip()


@functools.cache
def _processor() -> str:
    """What -march=native depends on: the processor's model and its instruction sets."""
    description = [platform.system(), platform.machine(), platform.processor()]
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if not line.strip():
                break  # the first core says it for all
            if line.split(":")[0].strip() in ("model name", "flags", "Features", "CPU part", "isa"):
                description.append(line)
    except OSError:  # macOS
        with contextlib.suppress(OSError):
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            description.append(subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip())
    return "\n".join(description)


def _advice() -> str:
    if platform.system() == "Darwin":
        return "Install one with: xcode-select --install"
    return "Install one, for example with: apt install gcc, dnf install gcc, or conda install c-compiler."


def _digest(binary: bytes) -> str:
    return hashlib.sha256(binary).hexdigest()[:16]


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
