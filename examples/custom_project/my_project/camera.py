from jellyfit import datamodules


class MyCamera(datamodules.EventDataModule):
    """Recordings root/SPLIT/CLASS/*.npz of a 16x16 sensor."""

    sensor_size = (16, 16)
    classes = ("left", "right")

    def samples(self, split):
        for label, name in enumerate(self.classes):
            for path in sorted((self.root / split / name).glob("*.npz")):
                yield f"{name}/{path.stem}", path, label
