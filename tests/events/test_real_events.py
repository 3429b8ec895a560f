"""Real recordings, with the numbers that two independent readers found in each.

They belong to other projects and are no part of this one. The folder is ``$JELLYFIT_REAL_EVENTS``, or
``shared/real_events`` beside the repository; without it these tests are skipped.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from jellyfit import events as ev
from jellyfit.errors import DataError
from tests.conftest import ROOT

FOLDER = Path(os.environ.get("JELLYFIT_REAL_EVENTS", ROOT.parent / "shared/real_events"))

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"no real recordings: {FOLDER} does not exist (set JELLYFIT_REAL_EVENTS)"
)


@pytest.fixture(params=["C", "NumPy"])
def code(request, monkeypatch):
    monkeypatch.setenv("JELLYFIT_NATIVE", "1" if request.param == "C" else "0")
    return request.param


def real(name: str) -> Path:
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"{path} does not exist")
    return path


# name: format, events, duration in µs, extent (height, width)
RECORDINGS = {
    "tonic_nmnist.bin": ("ATIS .bin", 4_325, 310_521, (34, 34)),
    "ncaltech101_car.bin": ("ATIS .bin", 113_549, 302_977, (151, 233)),
    "ncaltech101_chair.bin": ("ATIS .bin", 82_318, 299_494, (173, 127)),
    "dvs128_alex_walking_again.aedat": ("AEDAT 2.0", 19_182, 6_886_550, (128, 128)),
    "dvs128_chave_fenda.aedat": ("AEDAT 2.0", 127_186, 4_767_656, (128, 128)),
    "pyaedattools_IMU_rotDisk.aedat": ("AEDAT 2.0", 374_296, 3_166_759, (180, 240)),
    "tonic_ncars.dat": ("Prophesee .dat", 2_009, 99_952, (42, 78)),
    "expelliarmus_evt2.raw": ("Prophesee EVT 2.0", 539_481, 50_000, (476, 600)),
    "transcoded_aedat31_plain.aedat": ("AEDAT 3.1", 70_304, 9_243_604, (128, 128)),
    "tonic_aedat2_header_only.aedat": ("AEDAT 2.0", 0, 0, (0, 0)),
    "tonic_sample.aedat4": ("AEDAT 4", 111_954, 589_917, (240, 320)),
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recording_has_the_events_that_others_found(code, name):
    path = real(name)
    if name.endswith("aedat4"):
        pytest.importorskip("aedat", reason="AEDAT 4 needs the package aedat: pip install 'jellyfit[sensors]'")
    form, count, duration, extent = RECORDINGS[name]
    found = ev.summarize(path)
    assert (found.format, found.events, found.duration, found.extent) == (form, count, duration, extent)
    assert found.unsorted == 0
    events = ev.read_events(path)
    assert len(events) == count
    assert np.count_nonzero(events["p"]) == found.on


def test_a_davis_recording_equals_what_matlab_read(code):
    events = ev.read_events(real("pyaedattools_IMU_rotDisk.aedat"), orientation="stored")
    oracle = scipy.io.loadmat(
        real("aedattools_rotDisk_matlab_oracle.mat"), squeeze_me=True, struct_as_record=False
    )["output"].data.polarity  # fmt: skip
    for field, name in {"t": "timeStamp", "x": "x", "y": "y", "p": "polarity"}.items():
        np.testing.assert_array_equal(events[field][1:], getattr(oracle, name))  # it leaves out the first event
    camera = ev.read_events(real("pyaedattools_IMU_rotDisk.aedat"))
    np.testing.assert_array_equal(camera["x"], 239 - events["x"])
    np.testing.assert_array_equal(camera["y"], 179 - events["y"])
    left_out = ev.summarize(real("pyaedattools_IMU_rotDisk.aedat")).left_out
    assert left_out == {"APS, IMU and external words": 51_688}


def test_an_aedat31_recording_equals_the_events_it_was_made_of(code):
    events = ev.read_events(real("transcoded_aedat31_plain.aedat"))
    with np.load(real("transcoded_aedat31_plain_truth.npz")) as truth:
        for field in "txyp":
            np.testing.assert_array_equal(events[field], truth[field])


def test_spikes_of_a_cochlea_without_a_header(code):
    events = ev.read_events(real("aerzip_cochlea_mono32_headerless.aedat"), orientation="stored")
    assert len(events) == 49_864
    assert (events["x"].max() + 1, events["y"].max() + 1) == (32, 1)
    assert len(np.unique(events["p"])) == 2


def test_a_broken_recording_is_an_error(code):
    with pytest.raises(DataError, match="truncated: a record of 8 bytes begins at byte 4,273"):
        ev.read_events(real("mibblez_header_128.aedat"))


def test_a_thousand_digits_of_n_mnist(code, tmp_path):
    events = 0
    with zipfile.ZipFile(real("nmnist_train_1000.zip")) as archive:
        names = archive.namelist()[:: 10 if code == "C" else 50]
        for name in names:
            (tmp_path / "digit.bin").write_bytes(archive.read(name))
            digit = ev.read_events(tmp_path / "digit.bin")
            assert digit["x"].max() < 34
            assert digit["y"].max() < 34
            assert 250_000 < digit["t"][-1] < 340_000
            assert len(digit) == archive.getinfo(name).file_size // 5
            events += len(digit)
    assert events > 2_000 * len(names)


@pytest.mark.parametrize("name", ["tonic_nmnist.bin", "dvs128_alex_walking_again.aedat", "tonic_ncars.dat"])
@pytest.mark.parametrize("target", ["a.npz", "a.aedat", "b.aedat", "a.dat", "a.bin"])
def test_real_events_survive_every_format(tmp_path, name, target):
    events = ev.read_events(real(name))
    ev.write_events(tmp_path / target, events, "aedat2" if target == "b.aedat" else None)
    np.testing.assert_array_equal(ev.read_events(tmp_path / target), events)
