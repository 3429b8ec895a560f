"""The same events as SpikingJelly's loaders, where those are right; where they are not, ours and theirs beside it."""

from __future__ import annotations

import struct

import made_files as made
import numpy as np
import pytest
import scipy.io

from benchmarks.event_peers import spikingjelly_datasets
from jellyfit import events as ev

ROWS = made.random_rows(300, 128, 128, 300_000)


@pytest.fixture(scope="module")
def theirs():
    """SpikingJelly's modules of data sets, by name."""
    pytest.importorskip("spikingjelly", reason="SpikingJelly is not installed")
    with spikingjelly_datasets("utils", "cifar10_dvs", "nav_gesture", "asl_dvs", "es_imagenet") as modules:
        yield modules


def assert_same(ours, columns) -> None:
    for field in "txyp":
        np.testing.assert_array_equal(ours[field], np.asarray(columns[field]).reshape(-1), err_msg=field)


def test_aedat31(tmp_path, theirs):
    path = tmp_path / "a.aedat"
    packets = [made.packet(made.polarity(ROWS[i : i + 64])) for i in range(0, 300, 64)]
    path.write_bytes(made.HEADER_3 + made.END_3 + b"".join(packets))
    assert_same(ev.read_events(path), theirs["utils"].load_aedat_v3(path))


def test_they_take_invalid_events_of_aedat31(tmp_path, theirs):
    path = tmp_path / "a.aedat"
    path.write_bytes(made.HEADER_3 + made.END_3 + made.packet(made.polarity(ROWS[:4], valid=[1, 0, 1, 0])))
    assert len(theirs["utils"].load_aedat_v3(path)["t"]) == 4
    assert ev.read_events(path).tolist() == made.events([ROWS[0], ROWS[2]]).tolist()


def test_atis(tmp_path, theirs):
    path = tmp_path / "a.bin"
    path.write_bytes(made.atis(ROWS))
    assert_same(ev.read_events(path), theirs["utils"].load_ATIS_bin(path))


def test_they_take_overflow_markers_of_atis_for_events(tmp_path, theirs):
    path = tmp_path / "a.bin"
    path.write_bytes(made.atis([(5, 1, 1, 1)]) + made.ATIS_MARKER + made.atis([(6, 2, 2, 1)]))
    assert theirs["utils"].load_ATIS_bin(path)["y"].tolist() == [1, 240, 2]
    assert ev.read_events(path)["t"].tolist() == [5, 6 + 2**13]


def test_cifar10_dvs(tmp_path, theirs):
    path = tmp_path / "a.aedat"
    path.write_bytes(made.aedat2_header() + made.dvs128(ROWS))
    assert_same(ev.read_events(path, orientation="spikingjelly"), theirs["cifar10_dvs"]._load_origin_data(path))


def test_asl_dvs(tmp_path, theirs):
    rows = made.random_rows(50, 240, 180, 100_000)
    names = ("ts", "x", "y", "pol")
    columns = {
        name: np.array(column, np.int32)[:, None] for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }
    scipy.io.savemat(tmp_path / "a.mat", columns)
    theirs["asl_dvs"]._read_mat_save_to_np(tmp_path / "a.mat", tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as found:
        assert_same(ev.read_events(tmp_path / "a.mat"), found)
    assert_same(ev.read_events(tmp_path / "a.npz"), ev.read_events(tmp_path / "a.mat"))


def test_es_imagenet(tmp_path, theirs):
    random = np.random.default_rng(0)
    times = random.permutation(60)
    rows = np.stack([random.integers(0, 256, 60), random.integers(0, 256, 60), times], 1).astype(np.int16)
    np.savez(tmp_path / "a.npz", pos=rows[:20], neg=rows[20:])
    assert_same(ev.read_events(tmp_path / "a.npz"), theirs["es_imagenet"]._load_events(tmp_path / "a.npz"))


def test_navgesture(tmp_path, theirs):
    path = tmp_path / "a_left.dat"
    path.write_bytes(b"% Data file containing TD events.\n" + bytes([0, 8]) + made.dat1(ROWS))
    t, xy, p = theirs["nav_gesture"]._readATIS_tddat(str(path), orig_at_zero=False)[:3]
    stored = ev.read_events(path, orientation="stored")
    assert_same(stored, {"t": t, "x": xy[:, 0], "y": xy[:, 1], "p": p})
    camera = ev.read_events(path)
    assert_same(camera, {"t": t, "x": xy[:, 0], "y": 239 - xy[:, 1], "p": p})


def test_they_misread_version_2_of_dat(tmp_path, theirs):
    path = tmp_path / "a.dat"
    path.write_bytes(b"% Version 2\n" + bytes([0, 8]) + struct.pack("<II", 5, 1 << 28 | 100 << 14 | 50))
    assert theirs["nav_gesture"]._readATIS_tddat(str(path))[1].tolist() != [[50, 100]]
    assert ev.read_events(path).tolist() == [(5, 50, 100, True)]


def test_they_drop_events_of_navgesture_after_a_late_one(tmp_path, theirs):
    path = tmp_path / "a_left.dat"
    times = [10, 20, 15, 21, 22]
    path.write_bytes(b"% Data file\n" + bytes([0, 8]) + made.dat1([(t, 1, 1, 1) for t in times]))
    assert theirs["nav_gesture"]._readATIS_tddat(str(path), orig_at_zero=False)[0].tolist() != [10, 20, 21, 22]
    with pytest.warns(ev.EventWarning, match="1 of 5 events are earlier"):
        assert ev.read_events(path, unsorted="drop")["t"].tolist() == [10, 20, 21, 22]
