import errno
import io
import re
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jellyfit import events as ev
from jellyfit.errors import DataError, InputError, InputTypeError


def make(N=100):
    random = np.random.default_rng(0)
    t = np.sort(random.integers(0, 10**6, N))
    return ev.make_events(t, random.integers(0, 2**16, N), random.integers(0, 2**16, N), random.integers(0, 2, N))


def names(folder):
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("N", [0, 1, 1000])
def test_what_is_written_is_read(tmp_path, N):
    path = tmp_path / "e.npz"
    ev.write_events(path, make(N))
    back = ev.read_events(str(path))
    assert back.dtype == ev.EVENT_DTYPE
    np.testing.assert_array_equal(back, make(N))
    assert names(tmp_path) == ["e.npz"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-(2**63), 2**63 - 1), *[st.integers(0, 2**16 - 1)] * 2, st.booleans()])))
def test_every_event_survives_the_file(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "every.npz"
    events = ev.sort_events(np.array(rows, ev.EVENT_DTYPE))
    ev.write_events(path, events)
    np.testing.assert_array_equal(ev.read_events(path), events)


def test_the_file_holds_narrow_arrays(tmp_path):
    ev.write_events(tmp_path / "e.npz", make())
    with np.load(tmp_path / "e.npz", allow_pickle=False) as archive:
        kinds = {name: archive[name].dtype.str[1:] for name in archive.files}
    assert kinds == {"t": "i8", "x": "u2", "y": "u2", "p": "b1"}


@pytest.mark.parametrize("dtype", ["i8", "u4", "i2", ">i4", "u1"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("name", ["e.npz", "no_extension", "e.aedat"])
def test_npz_of_other_dtypes_is_read_whatever_its_name(tmp_path, dtype, save, name):
    with (tmp_path / name).open("wb") as file:
        save(
            file,
            t=np.array([1, 2], dtype),
            x=np.array([3, 4], dtype),
            y=np.array([5, 6], dtype),
            p=np.array([0, 1], dtype),
        )
    assert ev.read_events(tmp_path / name).tolist() == [(1, 3, 5, False), (2, 4, 6, True)]


def test_unsorted_files_and_arrays_are_sorted_with_a_warning(tmp_path):
    events = make(10)[::-1]
    np.savez(tmp_path / "e.npz", **{name: events[name] for name in "txyp"})
    with pytest.warns(ev.EventWarning, match="10 events are not sorted"):
        back = ev.read_events(tmp_path / "e.npz")
    with pytest.warns(ev.EventWarning, match="10 events are not sorted"):
        ev.write_events(tmp_path / "f.npz", events)
    np.testing.assert_array_equal(back, ev.read_events(tmp_path / "f.npz"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_cut_anywhere_is_an_error(tmp_path, save):
    buffer = io.BytesIO()
    save(buffer, **{name: make(50)[name] for name in "txyp"})
    whole = buffer.getvalue()
    path = tmp_path / "e.npz"
    for length in [*range(0, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"empty|truncated|no format"):
            ev.read_events(path)
    path.write_bytes(whole)
    assert len(ev.read_events(path)) == 50


def test_a_changed_byte_is_an_error(tmp_path):
    path = tmp_path / "e.npz"
    ev.write_events(path, make(1000))
    damaged = bytearray(path.read_bytes())
    damaged[3000] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="damaged"):
        ev.read_events(path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"t": [1], "x": [1]}, "has no y, p: .* this one holds t, x"),
        ({"t": [1], "x": [-1], "y": [1], "p": [1]}, "holds no events: 1 of 1 values of x are outside"),
        ({"t": [0.5], "x": [1], "y": [1], "p": [1]}, "holds no events: The column t"),
        ({"t": [1, 2], "x": [1], "y": [1], "p": [1]}, "differ in length"),
        ({"t": np.array([{}]), "x": [1], "y": [1], "p": [1]}, "damaged .npz file .*pickle"),
    ],
)
def test_npz_that_holds_no_events_is_an_error(tmp_path, arrays, message):
    np.savez(tmp_path / "e.npz", **arrays)
    with pytest.raises(DataError, match=message):
        ev.read_events(tmp_path / "e.npz")


def test_other_files_are_errors(tmp_path):
    path = tmp_path / "e.npz"
    path.write_bytes(b"not a zip file at all")
    with pytest.raises(DataError, match=r"no format of events that is known here .*; it starts with b'not"):
        ev.read_events(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        ev.read_events(path)
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(DataError, match="has no t, x, y, p"):
        ev.read_events(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("t.npy", b"nonsense")
        for name in "xyp":
            archive.writestr(f"{name}.npy", b"")
    with pytest.raises(DataError, match="holds no events: The column t"):
        ev.read_events(path)


def test_missing_files_and_folders_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(f"its folders exist up to {tmp_path}")):
        ev.read_events(tmp_path / "no" / "such" / "file.npz")
    with pytest.raises(IsADirectoryError, match="this is a folder"):
        ev.read_events(tmp_path)
    with pytest.raises(FileNotFoundError, match="make it first"):
        ev.write_events(tmp_path / "no" / "e.npz", make())


def test_a_full_disk_leaves_no_half_file_and_keeps_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "e.npz"
    ev.write_events(path, make(7))

    def full(file, **arrays):
        file.write(b"PK\x03\x04 half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match=r"No space left on device.*free some space") as caught:
        ev.write_events(path, make(100))
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="free some space"):
        ev.write_events(tmp_path / "new.npz", make(100))
    assert names(tmp_path) == ["e.npz"]
    np.testing.assert_array_equal(ev.read_events(path), make(7))


def test_an_interrupt_leaves_no_half_file(tmp_path, monkeypatch):
    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ev.write_events(tmp_path / "e.npz", make())
    assert names(tmp_path) == []


def test_no_permission_says_what_to_do(tmp_path, monkeypatch):
    def denied(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", denied)
    with pytest.raises(PermissionError, match=r"no permission to write in .*; choose another folder"):
        ev.write_events(tmp_path / "e.npz", make())
    with pytest.raises(PermissionError, match="Permission denied"):
        ev.read_events(tmp_path / "e.npz")


def test_written_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "plain").touch()
    ev.write_events(tmp_path / "e.npz", make())
    assert (tmp_path / "e.npz").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_write_checks_its_arguments(tmp_path):
    with pytest.raises(InputError, match=re.escape("as .npz, .aedat, .dat, .bin; got the name 'e.txt'. Give 'e.npz'")):
        ev.write_events(tmp_path / "e.txt", make())
    with pytest.raises(InputError, match=r"AEDAT 2.0 files end in .aedat; got the name 'e.npz'. Give 'e.aedat'"):
        ev.write_events(tmp_path / "e.npz", make(), "aedat2")
    with pytest.raises(InputError, match=r"EVT 3.0 is read, not written. Formats to write: npz, aedat3, aedat2"):
        ev.write_events(tmp_path / "e.raw", make(), "evt3")
    with pytest.raises(InputError, match="no format 'aedat'"):
        ev.write_events(tmp_path / "e.aedat", make(), "aedat")
    with pytest.raises(InputError, match="outside the sensor"):
        ev.write_events(tmp_path / "e.npz", make(), sensor_size=(128, 128))
    with pytest.raises(InputTypeError, match="make_events"):
        ev.write_events(tmp_path / "e.npz", np.zeros(3))
    assert names(tmp_path) == []
