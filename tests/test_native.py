import ctypes
import os
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from jellyfit import native

ADD = "int add(int a, int b) { return a + b; }\n"
USE = (
    "from jellyfit import native\n"
    f"library = native.load('add', {ADD!r})\n"
    "print('none' if library is None else library.add(20, 22))\n"
)


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """A cache folder of its own, and a process that has loaded nothing."""
    monkeypatch.setenv("JELLYFIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JELLYFIT_NATIVE", raising=False)
    monkeypatch.setattr(native, "_loaded", {})
    monkeypatch.setattr(native, "_warned", set())
    return tmp_path / "cache" / "native"


needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler here")


def forget(monkeypatch):
    monkeypatch.setattr(native, "_loaded", {})


def run(**environment):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", USE],
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip()


@pytest.fixture
def counting(tmp_path, monkeypatch):
    """A compiler that counts how often it compiles."""
    compiler = tmp_path / "counting-cc"
    log = tmp_path / "log"
    compiler.write_text(f'#!/bin/sh\n[ "$1" = --version ] || echo x >> {log}\nexec cc "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    return lambda: len(log.read_text().splitlines()) if log.exists() else 0


@needs_compiler
def test_code_is_compiled_loaded_and_kept(fresh):
    library = native.load("add", ADD)
    assert isinstance(library, ctypes.CDLL)
    assert library.add(2, 3) == 5
    (kept,) = fresh.iterdir()
    assert kept.name.startswith("add-")
    assert native.load("add", ADD) is library


@needs_compiler
def test_it_is_compiled_once_per_source_flags_and_machine(counting, monkeypatch):
    for _ in range(2):
        assert native.load("add", ADD).add(1, 1) == 2
        forget(monkeypatch)
    assert counting() == 1
    flagged = native.load("add", "int answer(void) { return ANSWER; }", flags=["-DANSWER=7"])
    assert flagged.answer() == 7
    assert native.load("add", "int answer(void) { return ANSWER; }", flags=["-DANSWER=8"]).answer() == 8
    assert counting() == 3
    forget(monkeypatch)
    monkeypatch.setattr(native, "_processor", lambda: "another processor")
    assert native.load("add", ADD).add(1, 1) == 2
    assert counting() == 4


@needs_compiler
def test_products_and_sums_are_not_fused():
    source = "float f(float a, float b, float c) { return a * b + c; }"
    f = native.load("contract", source).f
    f.restype, f.argtypes = ctypes.c_float, [ctypes.c_float] * 3
    a = 1 + 2.0**-12  # a * a = 1 + 2^-11 + 2^-24: rounding the product drops the last term
    assert f(a, a, -(1 + 2.0**-11)) == 0.0


@needs_compiler
@pytest.mark.parametrize("damage", [lambda b: b[:100], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])])
def test_a_damaged_cache_file_is_rebuilt(fresh, damage):
    assert answer(run()) == "42"
    (kept,) = fresh.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    assert answer(run()) == "42"
    (rebuilt,) = fresh.iterdir()
    assert len(rebuilt.read_bytes()) == len(whole)
    assert rebuilt.stem.endswith(native._digest(rebuilt.read_bytes()))


@needs_compiler
def test_a_cached_library_that_does_not_load_is_rebuilt(fresh, counting, monkeypatch):
    assert native.load("add", ADD) is not None
    (kept,) = fresh.iterdir()
    kept.unlink()
    text = b"whole, but no library"
    kept.with_name(f"{kept.stem.rsplit('-', 1)[0]}-{native._digest(text)}.so").write_bytes(text)
    forget(monkeypatch)
    assert native.load("add", ADD).add(1, 2) == 3
    assert counting() == 2


@needs_compiler
def test_two_processes_at_once_both_get_it(fresh):
    processes = [run(), run()]
    assert [answer(process) for process in processes] == ["42", "42"]
    assert all(path.suffix == ".so" for path in fresh.iterdir())


@needs_compiler
def test_threads_share_one_library(counting):
    libraries = []
    threads = [threading.Thread(target=lambda: libraries.append(native.load("add", ADD))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(libraries) == 4
    assert len(set(map(id, libraries))) == 1
    assert counting() == 1


@needs_compiler
def test_a_cache_folder_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JELLYFIT_CACHE", str(tmp_path / "file"))  # a folder inside a file: not even root can make it
    assert native.load("add", ADD).add(1, 2) == 3
    assert native.status().usable
    assert not native.status().cache_writable


@needs_compiler
def test_a_full_cache_folder_is_done_without(fresh, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(native, "write_whole", full)
    assert native.load("add", ADD).add(1, 2) == 3
    assert list(fresh.iterdir()) == []


@needs_compiler
def test_an_unwritable_temporary_folder_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.warns(native.NativeWarning, match="Point TMPDIR"):
        assert native.load("add", ADD) is None


def test_without_a_compiler_there_is_one_warning_for_all_code(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.warns(native.NativeWarning, match="No C compiler was found.*same numbers") as seen:
        assert native.load("add", ADD) is None
        assert native.load("add", ADD) is None
        assert native.load("other", "int x;") is None
    assert len(seen) == 1
    assert issubclass(native.NativeWarning, RuntimeWarning)


def test_a_compiler_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("CC", "no-such-cc -m64")
    with pytest.warns(native.NativeWarning, match="CC names 'no-such-cc'"):
        assert native.load("add", ADD) is None


def test_something_that_is_no_compiler_is_a_warning(monkeypatch):
    monkeypatch.setenv("CC", "false")
    with pytest.warns(native.NativeWarning, match="is not a C compiler"):
        assert native.load("add", ADD) is None


@needs_compiler
def test_code_that_does_not_compile_shows_the_compilers_words():
    with pytest.warns(native.NativeWarning, match=r"'broken' does not compile[\s\S]*broken.c:1") as seen:
        assert native.load("broken", "int f( {") is None
        assert native.load("broken", "int f( {") is None
    assert len(seen) == 1


@needs_compiler
def test_code_that_does_not_load_is_a_warning():
    with pytest.warns(native.NativeWarning, match="'unresolved' was compiled .* but does not load"):
        assert native.load("unresolved", "int nowhere(void); int f(void) { return nowhere(); }", ["-Wl,-z,now"]) is None


def test_a_warning_turned_into_an_error_is_raised_once(monkeypatch):
    monkeypatch.setenv("CC", "no-such-cc")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(native.NativeWarning):
            native.load("add", ADD)
        assert native.load("add", ADD) is None


@needs_compiler
def test_a_compiler_without_march_native_is_taken_too(tmp_path, monkeypatch):
    compiler = tmp_path / "plain-cc"
    compiler.write_text('#!/bin/sh\ncase "$*" in *-march=native*) exit 1;; esac\nexec cc "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    assert native.load("add", ADD).add(1, 2) == 3


def test_it_can_be_turned_off_silently(monkeypatch):
    monkeypatch.setenv("JELLYFIT_NATIVE", "0")
    assert native.load("add", ADD) is None
    assert "JELLYFIT_NATIVE=0" in native.status().reason
    assert answer(run(JELLYFIT_NATIVE="0")) == "none"


@needs_compiler
def test_status_of_a_machine_with_a_compiler(fresh):
    state = native.status()
    assert state.usable
    assert state.reason == ""
    assert Path(state.compiler.split()[0]).exists()
    assert any(character.isdigit() for character in state.version)
    assert state.cache == fresh
    assert state.cache_writable


def test_status_of_a_machine_without_a_compiler_does_not_warn(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    state = native.status()
    assert (state.usable, state.compiler, state.version) == (False, None, None)
    assert "No C compiler" in state.reason


def test_the_cache_folder_is_in_the_home_folder_by_default(monkeypatch):
    monkeypatch.delenv("JELLYFIT_CACHE")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert native.cache_folder() == Path("/home/somebody/.cache/jellyfit/native")


def test_write_whole_replaces_or_leaves(tmp_path):
    path = tmp_path / "file"
    with native.write_whole(path) as file:
        file.write(b"old")
    with native.write_whole(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    with pytest.raises(ZeroDivisionError), native.write_whole(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"new"
    assert [kept.name for kept in tmp_path.iterdir()] == ["file"]
