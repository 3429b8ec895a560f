"""Bullying10K from pickled packets of events in ten zip archives."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from jellyfit.datamodules import Bullying10K
from jellyfit.datamodules.bullying10k import read_packets
from jellyfit.errors import DataError
from tests.datamodules.made import write_zip
from tests.datamodules.published import Published, Truth, draw, spikingjelly_datasets

# what the camera's own library gives for a packet, and the authors write down
STORED = np.dtype([("timestamp", "<i8"), ("x", "<i2"), ("y", "<i2"), ("polarity", "i1"), ("_p1", "<i2"), ("_p2", "i1")])
FIRST = 1_650_000_000_000_000  # µs since 1970
ACTIONS = ("handshake", "slapping", "punching", "walking", "fingerguess", "strangling", "greeting", "pushing",
           "hairgrabs", "kicking")  # fmt: skip


def npy(events: list[tuple[int, ...]], packet: int) -> bytes:
    """Packets of ``packet`` events; NumPy stores equally long ones as one plain array, others as pickled objects."""
    packets = [
        np.array([(*event, 7, 7) for event in events[i : i + packet]], STORED) for i in range(0, len(events), packet)
    ]
    if len({len(one) for one in packets}) == 1:
        stored = np.stack(packets)
    else:
        stored = np.empty(len(packets), object)
        stored[:] = packets
    file = io.BytesIO()
    np.save(file, stored, allow_pickle=True)
    return file.getvalue()


def samples() -> dict[str, tuple[str, bytes, Truth]]:
    """File and content of every sample; every fifth is tested, in the order of the classes and of the names."""
    made: dict[str, tuple[str, bytes, Truth]] = {}
    for label, action in enumerate(ACTIONS):
        for name in ("a", "b", "c")[: 2 + label % 2]:
            number = len(made)
            events = draw(number, 60, (260, 346), first=FIRST)
            part = "train" if number % 5 else "test"
            content = npy(events, 20 if number % 3 == 0 else 25)
            made[f"{action}-{name}-x"] = (f"{action}/{name}/x.npy", content, Truth(part, label, events))
    return made


class TestBullying10K(Published):
    module = Bullying10K
    config = "bullying10k.yaml"
    net = ("--model.backbone.channels=[2,2,2,2]", "--model.backbone.hidden=[]")
    first_file = "handshake.zip"
    settings: ClassVar[dict[str, Any]] = {"val_fraction": 0.5}

    def write(self, root: Path) -> dict[str, Truth]:
        made = samples()
        for action in ACTIONS:
            # the order in the archive does not matter
            files = {name: content for name, content, _ in reversed(made.values()) if name.startswith(action)}
            write_zip(root / f"{action}.zip", files)
        return {name: truth for name, (_, _, truth) in made.items()}

    def theirs(self, root: Path, name: str) -> dict[str, np.ndarray]:
        (root / f"{name}.npy").write_bytes(samples()[name][1])
        (root / "0").mkdir(exist_ok=True)
        spikingjelly_datasets("bullying10k")._convert_npy_to_npz(root / f"{name}.npy", root, 0)
        with np.load(root / "0" / f"{name}.npz") as stored:
            return {field: stored[field].astype(int) for field in "txyp"}


class Evil:
    def __reduce__(self) -> Any:
        return print, ("this must not run",)


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = np.empty(1, object)
    stored[:] = [Evil()]
    np.save(tmp_path / "x.npy", stored, allow_pickle=True)
    with pytest.raises(DataError, match=r"it asks for builtins.print, which is no array"):
        read_packets(tmp_path / "x.npy")
    assert "this must not run" not in capsys.readouterr().out


def objects(*content: Any) -> bytes:
    file = io.BytesIO()
    stored = np.empty(len(content), object)
    stored[:] = content
    np.save(file, stored, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is damaged"),
        (npy(draw(0, 50, (9, 9)), 20)[:-40], "is damaged"),
        (npy(draw(0, 40, (9, 9)), 20)[:-40], "is damaged"),
        (objects("text"), "it holds str where a packet of events should be"),
        (objects(np.zeros(3, [("t", "i4"), ("y", "i2"), ("x", "i2"), ("p", "?")])), "its fields are t, y, x, p"),
        (objects(np.zeros(3, [("t", "i4"), ("x", "i2")])), "its fields are t, x; expected timestamp, x, y, polarity"),
        (pickle.dumps([1]), "is damaged"),
    ],
)  # fmt: skip
def test_a_file_that_is_damaged_or_another_one_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match=words) as told:
        read_packets(tmp_path / "x.npy")
    assert str(tmp_path / "x.npy") in str(told.value)


def test_a_recording_without_a_packet_has_no_events(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(objects())
    assert len(read_packets(tmp_path / "x.npy")) == 0


def test_published_facts() -> None:
    theirs = spikingjelly_datasets("bullying10k").Bullying10kClassification.resource_url_md5()
    assert [(file.name, file.urls, file.md5) for file in Bullying10K.files] == [
        (n, (url,), md5) for n, url, md5 in theirs
    ]
    assert Bullying10K.classes == ACTIONS
    assert list(spikingjelly_datasets("bullying10k").BULLYING10K_CATEGORY_LABEL) == list(ACTIONS)
    assert Bullying10K.sensor_size == (260, 346)
