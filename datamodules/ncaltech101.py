"""N-Caltech101: photographs of objects moved in front of an event camera."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy.typing as npt

from jellyfit import events
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.datamodules.recordings import Recording, RecordingsModule
from jellyfit.errors import DataError

__all__ = ["NCaltech101"]


class NCaltech101(RecordingsModule):
    """N-Caltech101: 8,709 photographs of 100 kinds of objects and of other things, moved in front of an ATIS camera.

    The photographs differ in size; the sensor is taken as 180 x 240 pixels, and a recording lasts about 300 ms.
    ``Caltech101.zip`` is put into ``root`` by hand; it need not be unpacked. The publishers give no parts: they are
    drawn from each class by ``seed``.

    Args:
        root: folder of the file.
        frames, batch_size, num_workers, pin_memory, seed, cache, compress, val_fraction, test_fraction, download,
            prepare_workers: see :class:`~jellyfit.datamodules.RecordingsModule`.

    Raises:
        ConfigError: an argument that cannot be.
        DataError: files that are missing or damaged; names them.

    Examples:
        >>> from jellyfit.datamodules import NCaltech101
        >>> data = NCaltech101(root="data/ncaltech101", test_fraction=0.2)
        >>> data.sensor_size, len(data.classes), data.classes[:2]
        ((180, 240), 101, ('BACKGROUND_Google', 'Faces_easy'))

    Source: Orchard, Jayawant, Cohen and Thakor, "Converting static image datasets to spiking neuromorphic datasets
    using saccades", Frontiers in Neuroscience 9 (2015).
    """

    files = (SourceFile("Caltech101.zip", "66201824eabb0239c7ab992480b50ba3"),)
    page = "www.garrickorchard.com/datasets/n-caltech101"
    expected: Mapping[str, int] = {"all": 8_709}
    sensor_size = (180, 240)
    # fmt: off
    classes = (
        "BACKGROUND_Google", "Faces_easy", "Leopards", "Motorbikes", "accordion", "airplanes", "anchor", "ant",
        "barrel", "bass", "beaver", "binocular", "bonsai", "brain", "brontosaurus", "buddha", "butterfly", "camera",
        "cannon", "car_side", "ceiling_fan", "cellphone", "chair", "chandelier", "cougar_body", "cougar_face", "crab",
        "crayfish", "crocodile", "crocodile_head", "cup", "dalmatian", "dollar_bill", "dolphin", "dragonfly",
        "electric_guitar", "elephant", "emu", "euphonium", "ewer", "ferry", "flamingo", "flamingo_head", "garfield",
        "gerenuk", "gramophone", "grand_piano", "hawksbill", "headphone", "hedgehog", "helicopter", "ibis",
        "inline_skate", "joshua_tree", "kangaroo", "ketch", "lamp", "laptop", "llama", "lobster", "lotus", "mandolin",
        "mayfly", "menorah", "metronome", "minaret", "nautilus", "octopus", "okapi", "pagoda", "panda", "pigeon",
        "pizza", "platypus", "pyramid", "revolver", "rhino", "rooster", "saxophone", "schooner", "scissors",
        "scorpion", "sea_horse", "snoopy", "soccer_ball", "stapler", "starfish", "stegosaurus", "stop_sign",
        "strawberry", "sunflower", "tick", "trilobite", "umbrella", "watch", "water_lilly", "wheelchair", "wild_cat",
        "windsor_chair", "wrench", "yin_yang",
    )
    # fmt: on

    def recordings(self) -> Iterable[Recording]:
        labels = {name: label for label, name in enumerate(self.classes)}
        for path in map(PurePosixPath, self.tree("Caltech101.zip").glob("**/*.bin")):
            kind = path.parent.name
            if kind not in labels:
                raise DataError(f"Caltech101.zip: {path} lies in the folder of none of the {len(labels)} classes.")
            yield Recording(f"{kind}-{path.stem}", "Caltech101.zip", str(path), labels[kind])

    def decode(self, path: Path, recording: Recording) -> npt.NDArray[Any]:
        return events.read_events(path, format="atis")
