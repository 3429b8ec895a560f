"""DVS128 Gesture from AEDAT 3.1 files in a tar archive, cut by tables of labels, split by people."""

from __future__ import annotations

import io
import struct
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from jellyfit.datamodules import DVS128Gesture
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.errors import DataError
from tests.datamodules.published import Published, Truth, draw, spikingjelly_datasets

Event = tuple[int, ...]
SIZE = (128, 128)
TRAIN = [f"user{user:02d}_{light}" for user in (1, 2, 3, 22) for light in ("fluorescent", "led")]
TEST = ["user24_led", "user25_natural"]
LATE = "user03_led"  # its clock passes 2**31 µs
OVERLAP = "user22_led"  # class 9 ends after class 10 has begun


def packet(
    events: list[Event], kind: int = 1, overflow: int = 0, room: int = 0, invalid: tuple[int, ...] = ()
) -> bytes:
    """A packet of AEDAT 3.1: header of 28 bytes, then as many events of 8 bytes as it has room for."""
    capacity = len(events) + room
    body = b"".join(
        struct.pack("<II", (i not in invalid) | p << 1 | y << 2 | x << 17, t & 0x7FFFFFFF)
        for i, (t, x, y, p) in enumerate(events)
    )
    header = struct.pack("<hhiiiiii", kind, 1, 8, 4, overflow, capacity, len(events), len(events) - len(invalid))
    return header + body + b"\xaa" * 8 * room


def aedat(events: list[Event], invalid: bool = True, spare: bool = True) -> bytes:
    """A recording: packets of polarity events, some marked as invalid, some with spare room; and other packets."""
    head = (
        b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: 2016-07-05 11:09:01 (TZ+0000)\r\n"
        b"#!END-HEADER\r\n"
    )
    parts = [head]
    for begin in range(0, len(events), 20):
        some = events[begin : begin + 20]
        for overflow in sorted({t >> 31 for t, *_ in some}):
            part = [event for event in some if event[0] >> 31 == overflow]
            bad = [(part[0][0], 1, 2, 1)] if invalid else []  # marked as invalid
            room = begin // 20 % 3 if spare else 0
            parts.append(packet([*bad, *part], overflow=overflow, room=room, invalid=(0,) if invalid else ()))
        parts.append(packet([(some[0][0], 0, 0, 0)], kind=0))  # a special event
        parts.append(struct.pack("<hhiiiiii", 2, 1, 40, 4, 0, 1, 1, 1) + b"\xff" * 40)  # a picture
    return b"".join(parts)


def recordings() -> dict[str, tuple[list[Event], list[tuple[int, int, int]]]]:
    """Events and trials (class, start, end) of every recording."""
    made = {}
    for i, name in enumerate([*TRAIN, *TEST]):
        events = draw(i, 80, SIZE, first=2**31 - 8_000 if name == LATE else 50_000)
        t = [event[0] for event in events]
        # a start belongs to its trial, an end does not; what lies between two belongs to none
        trials = [(1 + i % 11, t[5], t[25]), (1 + (i + 1) % 11, t[30], t[55])]
        if name == OVERLAP:
            trials = [(9, t[5], t[40]), (10, t[30], t[55])]
        made[name] = (events, trials)
    return made


def table(trials: list[tuple[int, int, int]]) -> bytes:
    rows = ["class,startTime_usec,endTime_usec", *(",".join(map(str, trial)) for trial in trials)]
    return ("\n".join(rows) + "\n").encode()


def write_archive(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"DvsGesture/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def members() -> dict[str, bytes]:
    files = {
        "trials_to_train.txt": "".join(f"{name}.aedat\n" for name in TRAIN).encode() + b"\n",
        "trials_to_test.txt": "\r\n".join(f"{name}.aedat" for name in TEST).encode(),
        "gesture_mapping.csv": b"action,label\nhand_clapping,1\n",
    }
    for name, (events, trials) in recordings().items():
        files |= {f"{name}.aedat": aedat(events), f"{name}_labels.csv": table(trials)}
    return files


class TestDVS128Gesture(Published):
    module = DVS128Gesture
    config = "dvs_gesture.yaml"
    net = ("--model.backbone.channels=2",)
    first_file = "DvsGesture.tar.gz"

    def write(self, root: Path) -> dict[str, Truth]:
        write_archive(root / "DvsGesture.tar.gz", members())
        (root / "gesture_mapping.csv").write_text("action,label\nhand_clapping,1\n")
        return {
            f"{name}-{i:02d}": Truth(
                "train" if name in TRAIN else "test",
                label - 1,
                [event for event in events if start <= event[0] < end],
            )
            for name, (events, trials) in recordings().items()
            for i, (label, start, end) in enumerate(trials)
        }

    def test_people_stand_in_one_part_alone(self, made: tuple[Path, dict[str, Truth]]) -> None:
        data = self.data(made[0], val_fraction=0.25)
        people = {part: {name.split("_")[0] for name, _, _ in data.samples(part)} for part in ("train", "val", "test")}
        assert people["test"] == {"user24", "user25"}
        assert people["train"] | people["val"] == {"user01", "user02", "user03", "user22"}
        assert len(people["val"]) == 1
        assert not people["train"] & people["val"]

    def test_the_two_trials_that_overlap_share_their_events(self, made: tuple[Path, dict[str, Truth]]) -> None:
        """The known bad label of user22_led_labels.csv."""
        data = self.data(made[0], val_fraction=0.0)
        samples = {name: data.read(recording) for name, recording, _ in data.samples("train")}
        ninth, tenth = (samples[f"{OVERLAP}-{i:02d}"] for i in (0, 1))
        assert 0 < len(set(ninth["t"]) & set(tenth["t"])) < len(tenth)

    def test_times_go_on_where_the_packets_clock_overflows(self, made: tuple[Path, dict[str, Truth]]) -> None:
        data = self.data(made[0], val_fraction=0.0)
        late = next(recording for name, recording, _ in data.samples("train") if name == f"{LATE}-00")
        assert data.read(late)["t"][0] < 2**31 < data.read(late)["t"][-1]

    def test_a_recording_is_not_decoded_for_each_of_its_samples(
        self, made: tuple[Path, dict[str, Truth]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from jellyfit import events

        read, read_events = Counter(), events.read_events
        monkeypatch.setattr(events, "read_events", lambda path, **o: read.update([path]) or read_events(path, **o))
        self.data(made[0]).prepare_data()
        assert len(read) == len(TRAIN) + len(TEST)
        assert sum(read.values()) <= len(read) + 2, "once each, after the first few that tell the size"

    def test_a_folder_that_was_unpacked_by_hand_will_do(self, made: tuple[Path, dict[str, Truth]]) -> None:
        root, truth = made
        (root / "DvsGesture.tar.gz").unlink()
        folder = root / "unpacked/DvsGesture"  # as `tar xf` makes it in root/unpacked
        folder.mkdir(parents=True)
        for name, content in members().items():
            (folder / name).write_bytes(content)
        data = self.data(root)
        assert sum(len(list(data.samples(part))) for part in ("train", "val", "test")) == len(truth)

    @pytest.mark.parametrize(
        ("name", "content", "words"),
        [
            ("trials_to_test.txt", None, "holds no trials_to_test.txt, which says who belongs to the test part"),
            ("user24_led.aedat", None, "holds no DvsGesture/user24_led.aedat, which trials_to_test.txt names"),
            (
                "user24_led_labels.csv",
                None,
                "holds no DvsGesture/user24_led_labels.csv, which trials_to_test.txt names",
            ),
            ("user24_led_labels.csv", table([(12, 0, 10)]), "label 11 is outside 0 to 10"),
            ("user24_led_labels.csv", b"class,startTime_usec,endTime_usec\n1,two,3\n", "user24_led_labels.csv"),
            ("user24_led_labels.csv", table([(1, 20, 10)]), "expected class, start, end with start <= end"),
            ("user24_led.aedat", members()["user24_led.aedat"][:-5], "user24_led-00': .*user24_led.aedat is truncated"),
        ],
    )
    def test_what_is_wrong_in_the_archive_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None, words: str
    ) -> None:
        files = members()
        del files[name]
        if content is not None:
            files[name] = content
        write_archive(tmp_path / "DvsGesture.tar.gz", files)
        self.publish(tmp_path, monkeypatch)
        with pytest.raises(DataError, match=words):
            self.data(tmp_path).prepare_data()

    def theirs(self, root: Path, name: str, invalid: bool = False) -> dict[str, np.ndarray]:
        """SpikingJelly reads what stands behind the last event of a packet too: here there are none such."""
        stem, _, number = name.rpartition("-")
        events, trials = recordings()[stem]
        (root / f"{stem}.aedat").write_bytes(aedat(events, invalid, spare=False))
        (root / "labels.csv").write_bytes(table([(1 + i, *trial[1:]) for i, trial in enumerate(trials)]))
        for label in range(11):
            (root / "out" / str(label)).mkdir(parents=True, exist_ok=True)
        theirs = spikingjelly_datasets("dvs128_gesture")
        theirs._split_aedat_files_to_np(stem, root / f"{stem}.aedat", root / "labels.csv", root / "out")
        with np.load(root / "out" / str(int(number)) / f"{stem}_0.npz") as sample:
            return {field: sample[field] for field in "txyp"}

    def test_events_marked_as_invalid_are_left_out_and_spikingjelly_keeps_them(
        self, made: tuple[Path, dict[str, Truth]]
    ) -> None:
        root, truth = made
        assert len(self.theirs(root, "user01_led-00", invalid=True)["t"]) > len(truth["user01_led-00"].events)


def test_published_facts() -> None:
    assert DVS128Gesture.files == (
        SourceFile("DvsGesture.tar.gz", "8a5c71fb11e24e5ca5b11866ca6c00a1"),
        SourceFile("gesture_mapping.csv", "109b2ae64a0e1f3ef535b18ad7367fd1", needed=False),
    )
    assert DVS128Gesture.page == "ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8/folder/50167556794"
    assert DVS128Gesture.expected == {"train": 1176, "test": 288}
    assert DVS128Gesture.sensor_size == SIZE
    assert len(set(DVS128Gesture.classes)) == 11
