"""Every decoder gives the events that stand in the bytes, in C and in NumPy."""

from __future__ import annotations

import struct
import sys
import tracemalloc
import types
import warnings
from pathlib import Path

import h5py
import made_files as made
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from jellyfit import events as ev
from jellyfit.errors import ConfigError, DataError, InputError

ROWS = made.random_rows(500, 128, 128, 300_000)
BIG = made.random_rows(500, 300, 200, 300_000)


@pytest.fixture(params=["C", "NumPy"])
def code(request, monkeypatch):
    """Both ways to decode."""
    monkeypatch.setenv("JELLYFIT_NATIVE", "1" if request.param == "C" else "0")
    return request.param


def read(folder: Path, content: bytes, name: str = "recording", **options) -> list[made.Event]:
    """Events of a file, whose two ways to be read agree."""
    path = folder / name
    path.write_bytes(content)
    whole = ev.read_events(path, **options)
    assert whole.dtype == ev.EVENT_DTYPE
    chunks = list(ev.iter_events(path, chunk=7, **options))
    assert {len(chunk) for chunk in chunks[:-1]} <= {7}
    np.testing.assert_array_equal(np.concatenate([whole[:0], *chunks]), whole)
    summary = ev.summarize(path, **options)
    assert (summary.events, summary.on) == (len(whole), whole["p"].sum())
    return whole.tolist()


def expected(rows) -> list[tuple[int, int, int, bool]]:
    return made.events(rows).tolist()


# ------------------------------------------------------------------------------------------------ AEDAT 1.0 and 2.0


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("chip", ["eu.seebetter.ini.chips.DVS128", "ch.unizh.ini.jaer.chip.retina.Tmpdiff128", None])
def test_aedat2_of_a_dvs128(tmp_path, code, chip, end):
    assert read(tmp_path, made.aedat2_header(chip, end) + made.dvs128(ROWS)) == expected(ROWS)


def test_the_orientations_of_a_dvs128(tmp_path, code):
    content = made.aedat2_header() + struct.pack(">II", 100 << 8 | 3 << 1 | 0, 5)
    assert read(tmp_path, content) == [(5, 124, 27, True)]
    assert read(tmp_path, content, orientation="spikingjelly") == [(5, 27, 124, True)]
    assert read(tmp_path, content, orientation="stored") == [(5, 3, 100, True)]


@pytest.mark.parametrize(("chip", "height", "width"), [("DAVIS240C", 180, 240), ("Davis346red", 260, 346)])
def test_aedat2_of_a_davis(tmp_path, code, chip, height, width):
    rows = made.random_rows(300, width, height, 10_000)
    content = made.aedat2_header(f"eu.seebetter.ini.chips.davis.{chip}") + made.davis(rows, height, width)
    assert read(tmp_path, content) == read(tmp_path, content, orientation="spikingjelly") == expected(rows)
    stored = [(t, width - 1 - x, height - 1 - y, p) for t, x, y, p in rows]
    assert read(tmp_path, content, orientation="stored") == expected(stored)
    assert ev.summarize(tmp_path / "recording").sensor_size == (height, width)


def test_words_that_are_no_events_are_left_out_and_counted(tmp_path, code):
    other = struct.pack(">II", 1 << 31 | 123, 7) + struct.pack(">II", 1 << 10, 7)
    davis = made.aedat2_header("DAVIS240C") + other + made.davis([(8, 1, 2, 1)], 180, 240) + other
    assert read(tmp_path, davis) == [(8, 1, 2, True)]
    assert ev.summarize(tmp_path / "recording").left_out == {"APS, IMU and external words": 4}
    special = struct.pack(">II", 0x8000, 6)
    assert read(tmp_path, made.aedat2_header() + special + made.dvs128([(8, 1, 2, 1)])) == [(8, 1, 2, True)]
    assert ev.summarize(tmp_path / "recording").left_out == {"special words": 1}


def test_times_above_31_bits_are_not_negative_and_go_on_after_32(tmp_path, code):
    rows = [(2**31 - 5, 1, 1, 0), (2**31 + 5, 2, 2, 1), (2**32 - 1, 3, 3, 0), (2**32 + 4, 4, 4, 1)]
    rows += [(rows[-1][0] + gap, 5, 5, 1) for gap in (2**31 - 1, 2**32 - 2, 2**32 + 2**31 - 3)]
    assert read(tmp_path, made.aedat2_header() + made.dvs128(rows)) == expected(rows)


def test_a_small_step_back_is_no_new_start_of_the_counter(tmp_path, code):
    path = tmp_path / "back.aedat"
    path.write_bytes(made.aedat2_header() + made.dvs128([(100, 1, 1, 0), (90, 2, 2, 1), (110, 3, 3, 1)]))
    with pytest.warns(ev.EventWarning, match="1 lie before the event in front"):
        assert ev.read_events(path)["t"].tolist() == [90, 100, 110]
    with pytest.warns(ev.EventWarning, match="1 events lie before the event in front.*in the order of the file"):
        assert [chunk["t"].tolist() for chunk in ev.iter_events(path, chunk=1)] == [[100], [90], [110]]
    with pytest.warns(ev.EventWarning, match="1 of 3 events are earlier than one before and were left out"):
        assert ev.read_events(path, unsorted="drop")["t"].tolist() == [100, 110]
    assert ev.summarize(path).unsorted == 1


def test_only_events_earlier_than_the_last_kept_one_are_dropped(tmp_path):
    path = tmp_path / "jumps.npz"
    t = np.array([5, 9, 7, 8, 9, 10, 1, 11])
    np.savez(path, t=t, x=np.arange(8), y=np.zeros(8, int), p=np.ones(8, int))
    with pytest.warns(ev.EventWarning, match="3 of 8"):
        assert ev.read_events(path, unsorted="drop")["x"].tolist() == [0, 1, 4, 5, 7]


def test_a_record_that_begins_like_a_header_line_is_a_record(tmp_path, code):
    """The DAVIS address 0x23... is "#": only its control characters tell that it is none."""
    rows = [(9, 239, 39, 1), (10, 0, 39, 0), (11, 5, 6, 0)]
    data = made.davis(rows, 180, 240)
    assert data[0] == ord("#")
    assert read(tmp_path, made.aedat2_header("DAVIS240C") + data) == expected(rows)


def test_a_chip_that_is_not_known_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"chip eu.seebetter.ini.chips.cochlea.CochleaAMS1c, whose addresses are not"):
        read(tmp_path, made.aedat2_header("eu.seebetter.ini.chips.cochlea.CochleaAMS1c") + made.dvs128(ROWS))


@pytest.mark.parametrize("chip", [None, "eu.seebetter.ini.chips.davis.DavisNew"])
def test_a_davis_of_unknown_size_is_read_as_stored_only(tmp_path, code, chip):
    content = made.aedat2_header(chip) + made.davis(BIG, 512, 1024)
    with pytest.raises(DataError, match="unknown size.*orientation='stored'"):
        read(tmp_path, content)
    stored = [(t, 1023 - x, 511 - y, p) for t, x, y, p in BIG]
    assert read(tmp_path, content, orientation="stored") == expected(stored)


def test_an_address_outside_the_sensor_is_an_error_that_says_where(tmp_path, code):
    header = made.aedat2_header("DAVIS240C")
    content = header + made.davis(ROWS[:3], 180, 240) + struct.pack(">II", 20 << 22 | 240 << 12, 300_000)
    with pytest.raises(DataError, match=rf"byte {len(header) + 24} of {len(content)}: column 240, row 20 lies outside"):
        read(tmp_path, content)
    assert read(tmp_path, content, orientation="stored")[-1] == (300_000, 240, 20, False)


def test_the_transpose_is_of_the_dvs128_alone(tmp_path):
    content = made.aedat2_header("DAVIS128") + made.davis(ROWS, 128, 128)
    assert read(tmp_path, content, orientation="spikingjelly") == expected(ROWS)


@pytest.mark.parametrize("header", [b"", b"#!AER-DAT1.0\r\n", b"# a comment\r\n"])
def test_aedat1(tmp_path, code, header):
    assert read(tmp_path, header + made.dvs128(ROWS, ">HI"), "a.aedat") == expected(ROWS)


def test_a_file_that_ends_within_its_header_has_no_events(tmp_path):
    assert read(tmp_path, made.HEADER_2[:-7]) == []


# ------------------------------------------------------------------------------------------------ AEDAT 3.1


def aedat3(*packets: bytes) -> bytes:
    return made.HEADER_3 + made.END_3 + b"".join(packets)


@pytest.mark.parametrize("size", [1, 6, 7, 8, 100, 500])
def test_aedat3_packets_of_any_size(tmp_path, code, size):
    packets = [made.packet(made.polarity(ROWS[i : i + size])) for i in range(0, 500, size)]
    assert read(tmp_path, aedat3(*packets)) == expected(ROWS)
    assert ev.summarize(tmp_path / "recording").sensor_size == (128, 128)


def test_aedat3_coordinates_have_15_bits(tmp_path, code):
    rows = [(1, 32767, 0, 1), (2, 0, 32767, 0), (2**31 - 1, 300, 200, 1)]
    assert read(tmp_path, aedat3(made.packet(made.polarity(rows)))) == expected(rows)


def test_aedat3_overflows_stand_above_31_bits(tmp_path, code):
    rows = [(t, 1, 2, 1) for t in (2**31 - 1, 2**31, 3 * 2**31 + 7, (2**31 - 1) * 2**31 + 5)]
    packets = [made.packet(made.polarity([row]), overflow=row[0] >> 31) for row in rows]
    assert read(tmp_path, aedat3(*packets)) == expected(rows)


def test_aedat3_invalid_events_unused_room_and_other_packets_are_left_out(tmp_path, code):
    packets = [
        made.special(1),
        made.packet(made.polarity(ROWS[:3], valid=[1, 0, 1]), capacity=10),
        made.packet([bytes(36)] * 2, kind=3),
        made.packet([], kind=1, capacity=4),
        made.packet([bytes(5000)], kind=2),
        made.packet(made.polarity(ROWS[3:5], valid=[0, 0])),
        made.packet(made.polarity(ROWS[5:6])),
    ]
    assert read(tmp_path, aedat3(*packets)) == expected([ROWS[0], ROWS[2], ROWS[5]])
    assert ev.summarize(tmp_path / "recording").left_out == {
        "events marked as invalid": 3, "special events": 1, "IMU events": 2, "frame events": 1,
    }  # fmt: skip


def test_aedat3_time_goes_on_after_a_timestamp_reset(tmp_path, code):
    before, after = [(5, 1, 1, 1), (2**31 + 9, 2, 2, 1)], [(0, 3, 3, 1), (2**31 + 4, 4, 4, 0)]
    packets = [
        *(made.packet(made.polarity([row]), overflow=row[0] >> 31) for row in before),
        made.special(0),  # a timestamp wrap is no reset
        made.special(1),
        *(made.packet(made.polarity([row]), overflow=row[0] >> 31) for row in after),
    ]
    (tmp_path / "reset").write_bytes(aedat3(*packets))
    with pytest.warns(ev.EventWarning, match="clock was set to 0 1 times after the first event"):
        found = ev.read_events(tmp_path / "reset")
    last = before[-1][0]
    assert found.tolist() == expected(before + [(last + t, x, y, p) for t, x, y, p in after])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": 11}, "11 events of 8 bytes"),
        ({"number": -1}, "-1 events"),
        ({"size": 0}, "0 bytes"),
        ({"size": -8}, "-8 bytes"),
        ({"capacity": -1, "number": -1}, "room for -1"),
        ({"overflow": -1}, "packet header"),
        ({"kind": -1}, "kind -1"),
        ({"size": 16}, "polarity events of 16 bytes"),
        ({"offset": 0}, "their time at byte 0"),
    ],
)
def test_aedat3_headers_that_cannot_be_are_errors_that_say_where(tmp_path, change, message):
    fields = {"kind": 1, "source": 1, "size": 8, "offset": 4, "overflow": 0, "capacity": 10, "number": 10, "valid": 10}
    good = made.packet(made.polarity(ROWS[:10]))
    bad = struct.pack("<hhiiiiii", *{**fields, **change}.values()) + good[28:]
    start = len(aedat3(good))
    with pytest.raises(DataError, match=rf"at byte {start} of .*{message}"):
        read(tmp_path, aedat3(good, bad))


def test_aedat3_of_two_cameras_is_an_error(tmp_path):
    packets = [made.packet(made.polarity(ROWS[:2])), made.packet(made.polarity(ROWS[2:4]), source=2)]
    with pytest.raises(DataError, match="source 2 among those from source 1"):
        read(tmp_path, aedat3(*packets))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"#!AER-DAT3.0\r\n#Format: RAW\r\n" + made.END_3, "AER-DAT3.0 with #Format: RAW; known here is AER-DAT3.1"),
        (b"#!AER-DAT3.1\r\n#Format: PNGFrames\r\n" + made.END_3, "#Format: PNGFrames"),
        (b"#!AER-DAT3.1\r\n" + made.END_3, "no line #Format"),
        (made.HEADER_3, "header does not end in #!END-HEADER"),
    ],
)
def test_aedat3_files_of_another_kind_are_errors(tmp_path, header, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, header + made.packet(made.polarity(ROWS)))


# ------------------------------------------------------------------------------------------------ ATIS .bin


def test_atis(tmp_path, code):
    rows = [(t, x, y, p) for t, x, y, p in BIG if x < 256]
    assert read(tmp_path, made.atis(rows), "a.bin") == expected(rows)
    assert read(tmp_path, made.atis(rows), "no_suffix", format="atis") == expected(rows)


def test_an_atis_overflow_marker_adds_8192_microseconds_to_what_follows(tmp_path, code):
    parts = [made.ATIS_MARKER, made.atis([(8_000_000, 1, 1, 1)]), made.ATIS_MARKER, made.ATIS_MARKER]
    parts += [made.atis([(8_388_607, 2, 239, 0), (8_388_607, 255, 241, 1)]), made.ATIS_MARKER]
    assert read(tmp_path, b"".join(parts), "a.bin", format="atis") == [
        (8_000_000 + 8192, 1, 1, True),
        (8_388_607 + 3 * 8192, 2, 239, False),
        (8_388_607 + 3 * 8192, 255, 241, True),
    ]
    assert ev.summarize(tmp_path / "a.bin", format="atis").left_out == {"overflow markers": 4}


def test_atis_markers_alone_are_no_events(tmp_path, code):
    assert read(tmp_path, made.ATIS_MARKER * 20, "a.bin") == []


# ------------------------------------------------------------------------------------------------ .dat


DAT_HEADER = b"% Data file containing Event2D events.\n% Version VERSION\n% Date 2017-10-31 11:29:21\n"


@pytest.mark.parametrize("kind", [0, 12])
@pytest.mark.parametrize("name", ["a.dat", "no_suffix"])
def test_dat_version_2(tmp_path, code, kind, name):
    rows = [*BIG, (2**32 - 1, 16383, 16383, 1), (2**32 + 5, 0, 0, 0)]
    content = DAT_HEADER.replace(b"VERSION", b"2") + bytes([kind, 8]) + made.dat2(rows)
    assert read(tmp_path, content, name) == expected(rows)
    assert ev.summarize(tmp_path / name).sensor_size is None


def test_dat_version_2_with_a_size(tmp_path):
    content = DAT_HEADER.replace(b"VERSION", b"2") + b"% Width 304\n% Height 240\n" + bytes([12, 8]) + made.dat2(ROWS)
    assert read(tmp_path, content) == expected(ROWS)
    assert ev.summarize(tmp_path / "recording").sensor_size == (240, 304)


@pytest.mark.parametrize("header", [b"", b"% a comment\n\x00\x08", b"% Version 1\n\x00\x08"])
def test_dat_version_1(tmp_path, code, header):
    assert read(tmp_path, header + made.dat1(BIG), "a.dat") == expected(BIG)
    stored = [(t, x, 239 - y, p) for t, x, y, p in BIG]
    assert read(tmp_path, header + made.dat1(BIG), "a.dat", orientation="stored") == expected(stored)
    assert ev.summarize(tmp_path / "a.dat").sensor_size == (240, 304)


def test_a_row_that_the_atis_has_not_is_an_error(tmp_path, code):
    content = made.dat1(ROWS[:2]) + struct.pack("<II", 300_000, 250 << 9)
    with pytest.raises(DataError, match="byte 16 of 24: column 0, row 250 lies outside"):
        read(tmp_path, content, "a.dat")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"% Version 3\n\x00\x08", "version 3; known are versions 1 and 2"),
        (b"% Version 2\n\x0e\x08", "kind 14, 8 bytes each"),
        (b"% Version 2\n\x00\x10", "kind 0, 16 bytes each"),
    ],
)
def test_dat_files_of_another_kind_are_errors(tmp_path, header, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, header + made.dat2(ROWS), "a.dat")


# ------------------------------------------------------------------------------------------------ EVT 2.0 and 3.0


def raw(version: str, words: bytes, header: bytes = made.RAW_HEADER) -> bytes:
    return header.replace(b"VERSION", version.encode()) + words


def rows_of_bars(N: int, last: int, seed: int = 0) -> list[made.Event]:
    """Short horizontal lines, which become vectors."""
    random = np.random.default_rng(seed)
    rows = []
    for t in np.sort(random.integers(0, last, N)).tolist():
        x, y, p = (int(random.integers(n)) for n in (2040, 2048, 2))
        rows += [(t, x + int(i), y, p) for i in np.flatnonzero(random.integers(0, 2, min(40, 2048 - x)))]
    return rows


@pytest.mark.parametrize(
    "header", [made.RAW_HEADER, b"% evt VERSION\n", b"% format EVTVERSION;height=720;width=1280\n"]
)
def test_evt2(tmp_path, code, header):
    rows = rows_of_bars(100, 10**7)
    version = "2" if b"format" in header else "2.0"
    assert read(tmp_path, raw(version, made.evt2(rows), header)) == expected(rows)
    size = ev.summarize(tmp_path / "recording").sensor_size
    assert size == (None if header.startswith(b"% evt") else (720, 1280))


@pytest.mark.parametrize(
    "header", [made.RAW_HEADER, b"% evt VERSION\n", b"% format EVTVERSION;height=720;width=1280\n"]
)
@pytest.mark.parametrize("seed", range(3))
def test_evt3(tmp_path, code, header, seed):
    rows = rows_of_bars(100, 10**6, seed)
    version = "3" if b"format" in header else "3.0"
    assert read(tmp_path, raw(version, made.evt3(rows, seed), header)) == expected(rows)


def test_evt2_time_goes_on_after_34_bits(tmp_path, code):
    rows = [
        (t, 1, 2, 1) for t in (2**34 - 100, 2**34 - 1, 2**34, 2**34 + 70, 2**35 - 1, 2**35 + 1, 2**35 + 2**34 - 640)
    ]
    assert read(tmp_path, raw("2.0", made.evt2(rows))) == expected(rows)


def test_evt3_time_goes_on_after_24_bits(tmp_path, code):
    rows = [(t, 1, 2, 1) for t in (2**24 - 5000, 2**24 - 1, 2**24, 2**24 + 5000, 2**25 - 1, 2**25 + 1)]
    assert read(tmp_path, raw("3.0", made.evt3(rows))) == expected(rows)


def test_a_word_of_high_bits_sets_the_low_bits_of_evt3_to_0(tmp_path, code):
    words = np.array([0x8001, 0x6005, 0x0002, 0x2803, 0x8001, 0x2804, 0x6006, 0x2805], "<u2").tobytes()
    path = tmp_path / "low.raw"
    path.write_bytes(raw("3.0", words))
    with pytest.warns(ev.EventWarning, match="1 lie before"):
        assert ev.read_events(path).tolist() == [
            (0x1000, 4, 2, True), (0x1005, 3, 2, True), (0x1006, 5, 2, True),
        ]  # fmt: skip


def test_events_before_the_first_time_are_left_out_and_counted(tmp_path, code):
    words = np.array([0x0002, 0x2803, 0x3005, 0x5003, 0x8001, 0x6001, 0x2803], "<u2").tobytes()
    assert read(tmp_path, raw("3.0", words)) == [(0x1001, 3, 2, True)]
    assert ev.summarize(tmp_path / "recording").left_out == {"events before the first time": 3}
    words = np.array([1 << 28 | 3 << 11, 8 << 28 | 1, 1 << 28 | 4 << 11, 0xA << 28], "<u4").tobytes()
    assert read(tmp_path, raw("2.0", words)) == [(64, 4, 0, True)]
    assert ev.summarize(tmp_path / "recording").left_out == {"events before the first time": 1}


def test_a_column_that_leaves_its_11_bits_is_an_error_that_says_where(tmp_path, code):
    words = np.array([0x8001, 0x37FE, 0x5003, 0x5001], "<u2").tobytes()
    start = len(raw("3.0", b""))
    with pytest.raises(DataError, match=rf"at byte {start + 6} of .*a column of more than 11 bits"):
        read(tmp_path, raw("3.0", words))


@settings(max_examples=60, deadline=None)
@given(words=st.lists(st.integers(0, 2**16 - 1), max_size=80), chunk=st.sampled_from([1, 13, 100, 10**6]))
@pytest.mark.parametrize("version", ["2.0", "3.0"])
def test_c_and_numpy_agree_on_any_stream(tmp_path_factory, version, words, chunk):
    path = tmp_path_factory.getbasetemp() / f"any{version}.raw"
    path.write_bytes(raw(version, np.array(words[: len(words) // 2 * 2], "<u2").tobytes()))
    found = []
    for native in "01":
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore", ev.EventWarning)
            patch.setenv("JELLYFIT_NATIVE", native)
            try:
                found.append([event for part in ev.iter_events(path, chunk=chunk) for event in part.tolist()])
            except DataError as error:
                found.append(str(error))
    assert found[0] == found[1]


def test_other_prophesee_streams_are_errors(tmp_path):
    with pytest.raises(DataError, match="no format of events"):
        read(tmp_path, raw("2.1", made.evt2(ROWS)), "a.raw")
    with pytest.raises(DataError, match="big-endian"):
        read(tmp_path, b"% evt 3.0\n% endianness big\n" + made.evt3(ROWS))


# ------------------------------------------------------------------------------------------------ .npz, .mat, .h5


def save_npz(path: Path, rows, dtype, save=np.savez) -> None:
    with path.open("wb") as file:
        save(
            file,
            **{name: np.array(column, dtype) for name, column in zip("txyp", zip(*rows, strict=True), strict=True)},
        )


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_in_chunks(tmp_path, save):
    save_npz(tmp_path / "a.npz", ROWS, np.int64, save)
    assert read(tmp_path, (tmp_path / "a.npz").read_bytes()) == expected(ROWS)


def test_npz_of_two_polarities_as_in_es_imagenet(tmp_path):
    path = tmp_path / "es.npz"
    # rows of (row, column, time)
    np.savez(path, pos=np.array([[1, 2, 8], [3, 4, 1], [255, 0, 1]], np.int16), neg=np.array([[5, 6, 1]], np.int16))
    assert read(tmp_path, path.read_bytes()) == [(1, 4, 3, True), (1, 0, 255, True), (1, 6, 5, False), (8, 2, 1, True)]
    np.savez(path, pos=np.zeros((0, 3), np.int16), neg=np.zeros((0, 3), np.int16))
    assert ev.read_events(path).tolist() == []
    np.savez(path, pos=np.zeros((3, 4), np.int16), neg=np.zeros((0, 3), np.int16))
    with pytest.raises(DataError, match=r"pos must have the shape \[N, 3\].*got \[3, 4\]"):
        ev.read_events(path)


@pytest.mark.parametrize("dtype", [np.uint32, np.int32, np.float64])
@pytest.mark.parametrize("shape", [(-1, 1), (1, -1)])
def test_mat_as_in_asl_dvs(tmp_path, dtype, shape):
    rows = made.random_rows(50, 240, 180, 100_000)
    columns = {
        n: np.array(c, dtype).reshape(shape)
        for n, c in zip(("ts", "x", "y", "pol"), zip(*rows, strict=True), strict=True)
    }
    scipy.io.savemat(tmp_path / "a.mat", columns, do_compression=True)
    content = (tmp_path / "a.mat").read_bytes()
    assert read(tmp_path, content, orientation="stored") == expected(rows)
    assert read(tmp_path, content) == expected([(t, 239 - x, 179 - y, p) for t, x, y, p in rows])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ts": [1], "x": [1]}, "has no y, pol"),
        ({"ts": [1], "x": [240], "y": [0], "pol": [1]}, "1 values of x are outside"),
        ({"ts": [0.5], "x": [0.0], "y": [0.0], "pol": [1.0]}, "whole numbers"),
        ({"ts": [1], "x": [1], "y": [0], "pol": [-1]}, "polarities of -1 and 1"),
        ({"ts": [1, 2], "x": [1], "y": [0], "pol": [1]}, "differ in length"),
    ],
)
def test_mat_that_holds_no_events_is_an_error(tmp_path, arrays, message):
    scipy.io.savemat(tmp_path / "a.mat", {name: np.array(value) for name, value in arrays.items()})
    with pytest.raises(DataError, match=message):
        ev.read_events(tmp_path / "a.mat")


def test_mat_of_version_7_3_says_how_to_convert_it(tmp_path):
    (tmp_path / "a.mat").write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(DataError, match="'-v7'"):
        ev.read_events(tmp_path / "a.mat")


def make_shd(path: Path, recordings, labels=None, time=np.float16) -> None:
    with h5py.File(path, "w") as file:
        for name, dtype, column in (("times", time, 0), ("units", np.uint16, 1)):
            data = file.create_dataset(f"spikes/{name}", (len(recordings),), h5py.vlen_dtype(dtype))
            for i, recording in enumerate(recordings):
                data[i] = np.array([spike[column] for spike in recording], dtype)
        if labels is not None:
            file["labels"] = np.array(labels, np.uint16)


def test_recordings_of_shd(tmp_path):
    path = tmp_path / "shd_train.h5"
    # 1.37 s are 1.3701171875 in float16, whose product with 1e6 would be infinite
    make_shd(path, [[(0.25, 3), (1.37, 699)], [], [(0.5, 0)]], [7, 0, 19])
    assert ev.read_events(path, sample=0).tolist() == [(250_000, 3, 0, True), (1_370_117, 699, 0, True)]
    assert ev.read_events(path, sample=1).tolist() == []
    assert [chunk.tolist() for chunk in ev.iter_events(path, sample=2)] == [[(500_000, 0, 0, True)]]
    assert ev.read_labels(path).tolist() == [7, 0, 19]
    assert ev.summarize(path, sample=0).sensor_size == (1, 700)
    for sample in (None, 3, -1):
        with pytest.raises(InputError, match=rf"holds 3 recordings; give sample from 0 to 2, got {sample}"):
            ev.read_events(path, sample=sample)


def test_hdf5_files_of_another_kind_are_errors(tmp_path):
    path = tmp_path / "a.h5"
    make_shd(path, [[(np.inf, 3)]])
    with pytest.raises(DataError, match="must be finite"):
        ev.read_events(path, sample=0)
    with pytest.raises(DataError, match="no array labels"):
        ev.read_labels(path)
    with h5py.File(path, "w") as file:
        file["other"] = [1]
    with pytest.raises(DataError, match="has no spikes/times and no spikes/units.*It holds other"):
        ev.read_events(path, sample=0)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="truncated or damaged HDF5"):
        ev.read_events(path, sample=0)
    with pytest.raises(DataError, match="truncated or damaged HDF5"):
        ev.read_labels(path)
    with pytest.raises(FileNotFoundError):
        ev.read_labels(tmp_path / "none.h5")


# ------------------------------------------------------------------------------------------------ AEDAT 4


class FakeDecoder:
    """What the package aedat gives, from two cameras."""

    def __init__(self, path: str) -> None:
        if b"broken" in Path(path).read_bytes():
            raise RuntimeError("broken header")
        times = [(0, [1, 5]), (2, [2]), (0, [6, 7, 8])]
        packets = [{"stream_id": stream, "events": self.events(of)} for stream, of in times]
        self.packets = iter([{"stream_id": 1, "imus": None}, *packets])

    @staticmethod
    def events(times):
        events = np.zeros(len(times), [("t", "<u8"), ("x", "<u2"), ("y", "<u2"), ("on", "?")])
        events["t"] = times
        return events

    def id_to_stream(self):
        camera = {"type": "events", "width": 4, "height": 3}
        return {0: camera, 1: {"type": "imus"}, 2: camera}

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.packets)


def test_aedat4_streams(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "aedat", types.SimpleNamespace(Decoder=FakeDecoder))
    path = tmp_path / "a.aedat4"
    path.write_bytes(b"#!AER-DAT4.0\r\n")
    assert ev.read_events(path, sample=0)["t"].tolist() == [1, 5, 6, 7, 8]
    assert ev.read_events(path, sample=1)["t"].tolist() == [2]
    assert [len(chunk) for chunk in ev.iter_events(path, sample=0, chunk=3)] == [3, 2]
    assert ev.summarize(path, sample=1).sensor_size == (3, 4)
    with pytest.raises(InputError, match="events of 2 cameras; give sample from 0 to 1"):
        ev.read_events(path)
    path.write_bytes(b"#!AER-DAT4.0\r\nbroken")
    with pytest.raises(DataError, match="damaged AEDAT 4 file .broken header"):
        ev.read_events(path, sample=0)


def test_aedat4_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "aedat", None)
    (tmp_path / "a.aedat4").write_bytes(b"#!AER-DAT4.0\r\n")
    with pytest.raises(ConfigError, match=r"pip install 'jellyfit\[sensors\]'"):
        ev.read_events(tmp_path / "a.aedat4")


# ------------------------------------------------------------------------------------------------ all


MADE = {
    "aedat1": ("a.aedat", b"#!AER-DAT1.0\r\n" + made.dvs128(ROWS, ">HI")),
    "aedat2": ("a.aedat", made.aedat2_header() + made.dvs128(ROWS)),
    "aedat3": ("a.aedat", aedat3(made.packet(made.polarity(ROWS[:200])), made.packet(made.polarity(ROWS[200:])))),
    "atis": ("a.bin", made.atis(ROWS)),
    "dat": ("a.dat", b"% Version 2\n\x00\x08" + made.dat2(ROWS)),
    "evt2": ("a.raw", raw("2.0", made.evt2(ROWS))),
    "evt3": ("a.raw", raw("3.0", made.evt3(ROWS))),
}


@pytest.mark.parametrize("name", MADE)
def test_a_file_cut_short_is_an_error_or_a_warning(tmp_path, code, name):
    file, content = MADE[name]
    path = tmp_path / file
    path.write_bytes(content[:-1])
    with pytest.raises(DataError, match=rf"truncated: .* the file ends at {len(content) - 1:,}.*truncated='warn'"):
        ev.read_events(path)
    with pytest.warns(ev.EventWarning, match="truncated: .* The events before that were read"):
        found = ev.read_events(path, truncated="warn")
    assert found.tolist() == expected(ROWS)[: len(found)]
    assert len(found) == len(ROWS) - 1
    with pytest.warns(ev.EventWarning, match="truncated"):
        assert sum(map(len, ev.iter_events(path, chunk=100, truncated="warn"))) == len(ROWS) - 1


def test_a_packet_header_cut_short_is_an_error_or_a_warning(tmp_path):
    path = tmp_path / "a.aedat"
    path.write_bytes(aedat3(made.packet(made.polarity(ROWS))) + bytes(27))
    with pytest.raises(DataError, match="a packet header of 28 bytes begins at byte"):
        ev.read_events(path)
    with pytest.warns(ev.EventWarning, match="truncated"):
        assert len(ev.read_events(path, truncated="warn")) == len(ROWS)


@pytest.mark.parametrize("name", MADE)
def test_the_format_is_told_from_the_content_and_can_be_named(tmp_path, name):
    file, content = MADE[name]
    path = tmp_path / ("recording" if name != "atis" else file)
    path.write_bytes(content)
    told = ev.summarize(path)
    assert told == ev.summarize(path, format=name)
    assert told.events == len(ROWS)


@pytest.mark.parametrize("suffix", [".bin", ".dat", ".aedat"])
def test_a_suffix_alone_does_not_make_an_event_file(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(np.random.default_rng(0).integers(0, 256, 6000, np.uint8).tobytes())
    with pytest.raises(DataError, match="in no format of events that is known"):
        ev.read_events(path)
    path.write_bytes(b"<!DOCTYPE html><html><head><title>404 Not Found</title></head><body>404</body></html>" * 5)
    with pytest.raises(DataError, match="in no format of events that is known"):
        ev.read_events(path)


def test_arguments_are_checked(tmp_path):
    path = tmp_path / "a.aedat"
    path.write_bytes(MADE["aedat2"][1])
    for options, message in [
        ({"format": "aedat5"}, "no format 'aedat5'; did you mean 'aedat4'"),
        ({"orientation": "up"}, "orientation must be one of 'camera', 'spikingjelly', 'stored'; got 'up'"),
        ({"truncated": "ignore"}, "truncated must be one of 'error', 'warn'; got 'ignore'"),
        ({"unsorted": "keep"}, "unsorted must be 'sort' or 'drop'; got 'keep'"),
        ({"sample": 0}, "holds one recording; got sample=0"),
    ]:
        with pytest.raises(InputError, match=message):
            ev.read_events(path, **options)
    for chunk in (0, -1, 2.5, True):
        with pytest.raises(InputError, match="chunk must be a number of events"):
            ev.iter_events(path, chunk=chunk)


def large(folder: Path, name: str, megabytes: int) -> Path:
    """A file that is mostly a hole: zeros, each record of which is an event."""
    path = folder / f"{name}.{'raw' if name.startswith('evt') else 'aedat'}"
    size = megabytes * 2**20
    if name == "aedat3":
        with path.open("wb") as file:
            file.write(aedat3())
            for start in range(0, size, 2**23):
                count = 2**20
                file.seek(len(aedat3()) + start + start // 2**23 * 28)
                file.write(struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, count, count, count))
                file.write(made.polarity([(start, 1, 1, 1)])[0])
            file.truncate(len(aedat3()) + size + size // 2**23 * 28)
    else:
        header = made.aedat2_header(end=True) if name == "aedat2" else raw("2.0", made.evt2([(0, 0, 0, 0)]))
        path.write_bytes(header)
        with path.open("r+b") as file:
            file.truncate(len(header) + size)
    return path


@pytest.mark.parametrize(("name", "count"), [("aedat2", 8 * 2**20), ("evt2", 16 * 2**20 + 1), ("aedat3", 8)])
def test_a_large_file_is_read_in_little_memory(tmp_path, name, count):
    path = large(tmp_path, name, 64)
    next(ev.iter_events(path, chunk=1))  # compiles what has to be compiled
    tracemalloc.start()
    try:
        found = sum(map(len, ev.iter_events(path, chunk=100_000)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == count
    assert peak < 8 * 2**20, f"{peak / 2**20:.1f} MiB for 100,000 events of 13 bytes at a time"


def test_a_large_npz_is_read_in_little_memory(tmp_path):
    N = 500_000
    np.savez_compressed(
        tmp_path / "a.npz", t=np.arange(N), x=np.zeros(N, np.int64), y=np.zeros(N, np.int64), p=np.ones(N, np.int64)
    )
    tracemalloc.start()
    try:
        found = sum(map(len, ev.iter_events(tmp_path / "a.npz", chunk=10_000)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == N
    assert peak < 3 * 2**20  # 16 MB as a whole
