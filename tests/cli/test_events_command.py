"""``jellyfit events info|convert|show``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jellyfit import events
from tests.conftest import Cli


@pytest.fixture
def recording() -> events.EventArray:
    random = np.random.default_rng(0)
    t = np.sort(random.integers(1_000_000, 3_000_000, 400))
    t[0], t[-1] = 1_000_000, 3_000_000
    return events.make_events(t, random.integers(0, 30, 400), random.integers(0, 20, 400), np.arange(400) % 4 == 0)


@pytest.fixture
def files(recording: events.EventArray, tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "a.aedat", tmp_path / "b.npz"
    events.write_events(paths[0], recording, sensor_size=(128, 128))
    events.write_events(paths[1], recording[:0])
    return paths


def test_info_of_one_file_is_a_line_a_fact(cli: Cli, files: tuple[Path, Path]) -> None:
    outcome = cli("events", "info", files[0].name)
    assert (outcome.status, outcome.err) == (0, "")
    facts = dict(line.split(maxsplit=1) for line in outcome.out.splitlines() if "duration" not in line)
    assert facts == {
        "file": "a.aedat", "format": "AEDAT 3.1", "sensor": "128 x 128", "events": "400", "ON": "25.0%",
        "events/s": "200", "first": "µs    1,000,000", "last": "µs     3,000,000", "left": "out    -",
    }  # fmt: skip
    assert "duration s  2.000" in outcome.out


def test_info_of_several_files_is_a_table(cli: Cli, files: tuple[Path, Path]) -> None:
    outcome = cli("events", "info", *files)
    head, first, second = outcome.out.splitlines()
    assert head.split("  ")[0] == "file"
    assert first.index("AEDAT 3.1") == head.index("format") == second.index(".npz", len(str(files[1])))
    assert first.split()[-7:] == ["400", "25.0%", "2.000", "200", "1,000,000", "3,000,000", "-"]
    assert second.split()[-7:] == ["0", "-", "0.000", "-", "-", "-", "-"]


def test_info_shows_what_was_left_out_and_what_is_out_of_order(cli: Cli, tmp_path: Path) -> None:
    record = (1 << 31).to_bytes(4, "big") + bytes(4)
    event = (1 << 22).to_bytes(4, "big")
    content = (
        b"#!AER-DAT2.0\r\n# AEChip: DAVIS240C\r\n"
        + record * 3
        + b"".join(event + time.to_bytes(4, "big") for time in (9, 5, 7))
    )
    (tmp_path / "a.aedat").write_bytes(content)
    assert "3 APS, IMU and external words; (1 events out of order)" in cli("events", "info", "a.aedat").out


def test_a_file_that_cannot_be_read_is_one_line_and_does_not_stop_the_others(
    cli: Cli, files: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "c.bin").write_bytes(b"none")
    for arguments in (["c.bin"], ["missing.npz"]):
        outcome = cli("events", "info", *arguments)
        assert (outcome.status, outcome.out) == (1, "")
        (line,) = outcome.err.splitlines()
        assert line.startswith(f"jellyfit events: error: {arguments[0]}")
    outcome = cli("events", "info", "c.bin", *files, "missing.npz")
    assert outcome.status == 1
    assert len(outcome.err.splitlines()) == 2
    assert len(outcome.out.splitlines()) == 3


@pytest.mark.parametrize("name", ["c.npz", "c.aedat", "c.dat", "c.bin"])
def test_convert_keeps_the_events(cli: Cli, files: tuple[Path, Path], recording: events.EventArray, name: str) -> None:
    outcome = cli("events", "convert", files[0], name)
    assert outcome.status == 0, outcome.err
    assert f"{name}: 400 events, " in outcome.out
    np.testing.assert_array_equal(events.read_events(name), recording)
    if name == "c.dat":
        assert events.summarize(name).sensor_size == (128, 128), "from the header of the source"


def test_convert_takes_a_format_and_a_way_to_read(
    cli: Cli, files: tuple[Path, Path], recording: events.EventArray
) -> None:
    assert cli("events", "convert", files[0], "c.aedat", "--format", "aedat2").status == 0
    assert events.summarize("c.aedat").format == "AEDAT 2.0"
    assert cli("events", "convert", "c.aedat", "d.npz", "--orientation", "stored").status == 0
    np.testing.assert_array_equal(events.read_events("d.npz")["x"], 127 - recording["x"])


def test_convert_that_fails_leaves_no_file(cli: Cli, files: tuple[Path, Path], tmp_path: Path) -> None:
    events.write_events(tmp_path / "wide.npz", events.make_events([1], [999], [1], [1]))
    content = files[0].read_bytes()
    (tmp_path / "cut.aedat").write_bytes(content[:-3])
    for arguments, message in [
        (["wide.npz", "new.bin"], "room for x from 0 to 255"),
        (["wide.npz", "new.txt"], "Events are written as .npz"),
        (["cut.aedat", "new.npz"], "truncated"),
        (["wide.npz", "no/such/new.npz"], "make it first"),
    ]:
        outcome = cli("events", "convert", *arguments)
        assert outcome.status == 1
        (line,) = outcome.err.splitlines()
        assert message in line
    assert not list(tmp_path.rglob("*new*"))
    outcome = cli("events", "convert", "cut.aedat", "new.npz", "--truncated", "warn")
    assert outcome.status == 0
    assert outcome.err.startswith("jellyfit events: warning: cut.aedat is truncated")
    assert len(events.read_events("new.npz")) == 399


def test_long_files_show_progress(
    cli: Cli, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, recording: events.EventArray
) -> None:
    monkeypatch.setattr("jellyfit.events.summary._LONG", 0)
    for arguments in (("info", files[0]), ("convert", files[0], "c.npz")):
        assert "Reading a.aedat (MiB): 0 done in" in cli("events", *arguments).out


def test_show_draws_a_png_of_frames(cli: Cli, files: tuple[Path, Path]) -> None:
    outcome = cli("events", "show", files[0], "--out", "pictures/preview.png", "--frames", "5", "--split-by", "number")
    assert outcome.status == 0, outcome.err
    assert outcome.out == "pictures/preview.png: 5 frames of 128 x 128 pixels, 400 events\n"
    with Image.open("pictures/preview.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape[1] > 400
    assert ((pixels[..., 1] > 150) & (pixels[..., 0] < 60)).any(), "ON events are green"


def test_show_draws_a_gif_that_moves(cli: Cli, files: tuple[Path, Path], recording: events.EventArray) -> None:
    outcome = cli("events", "show", files[0], "--out", "preview.gif", "--frames", "4", "--fps", "5")
    assert outcome.status == 0, outcome.err
    with Image.open("preview.gif") as image:
        assert (image.n_frames, image.size, image.info["duration"]) == (4, (256, 256), 200)
        image.seek(2)
        pixels = np.asarray(image.convert("RGB"))
    frames = events.to_frames(recording, events.FixedNumber(4, "time"), (128, 128))
    np.testing.assert_array_equal(pixels[::2, ::2, 1] > 0, frames[2, 1] > 0)
    np.testing.assert_array_equal(pixels[::2, ::2, 0] > 0, frames[2, 0] > 0)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("show", "a.aedat", "--out", "a.pdf"), 2, "ends in .png or .gif"),
        (("show", "a.aedat", "--out", "a.gif", "--fps", "0"), 2, "--fps 0: expected"),
        (("show", "a.aedat", "--out", "a.gif", "--frames", "0"), 2, "--frames 0: expected at least 1"),
        (("show", "b.npz", "--out", "a.png"), 1, "holds no events"),
        (("info", "a.aedat", "--sample", "1"), 1, "holds one recording"),
        (("info", "--read-as", "aedat5", "a.aedat"), 2, "invalid choice: 'aedat5'"),
        (("info",), 2, "required: FILE"),
        (("shwo",), 2, "invalid choice: 'shwo'"),
        ((), 2, "required: info|convert|show"),
    ],
)
def test_mistakes_end_in_one_line(
    cli: Cli, files: tuple[Path, Path], arguments: tuple[str, ...], status: int, message: str
) -> None:
    outcome = cli("events", *arguments)
    assert outcome.status == status
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert not list(Path().glob("*.p*"))
