"""Every config file that the project brings along runs."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import yaml

from jellyfit import backbones
from tests.conftest import CONFIGS, ROOT, Cli
from tests.datamodules.test_cifar import write_cifar10
from tests.datamodules.test_image_folder import write_folders

# what the tests of published data sets run, on files that they make
ELSEWHERE = {
    name
    for path in (ROOT / "tests/datamodules").glob("test_*.py")
    for name in re.findall(r'config = "(\w+\.yaml)"', path.read_text())
}
# the published sizes take long on a CPU: the same networks, narrow
NARROW = {
    "PLIFNet": {"channels": 2},
    "SpikingVGG": {"base_channels": 2, "hidden": "[4]"},
    "SpikingResNet": {"base_channels": 2},
    "SEWResNet": {"base_channels": 2},
    "MSResNet": {"base_channels": 2},
    "Spikformer": {"embed_dims": 48, "depths": 1},
    "QKFormer": {"embed_dims": 192, "depths": "[1,1,1]"},
}
HERE = [path for path in sorted(CONFIGS.glob("**/*.yaml")) if path.name not in ELSEWHERE]


def write_mnist(root: Path, images: int = 80) -> None:
    """Four files in MNIST's format: two zero bytes, type, number of axes, sizes as big-endian int32, values."""
    generator = np.random.default_rng(0)
    root.mkdir(parents=True)
    for part in ("train", "t10k"):
        pixels = generator.integers(0, 256, (images, 28, 28), dtype=np.uint8)
        labels = generator.integers(0, 10, images, dtype=np.uint8)
        content = struct.pack(">BBBBIII", 0, 0, 8, 3, images, 28, 28) + pixels.tobytes()
        (root / f"{part}-images-idx3-ubyte").write_bytes(content)
        content = struct.pack(">BBBBI", 0, 0, 8, 1, images) + labels.tobytes()
        (root / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(content))


@pytest.mark.parametrize("path", HERE, ids=lambda path: path.stem)
def test_config_runs(cli: Cli, tmp_path: Path, digits_root: Path, path: Path) -> None:
    text = path.read_text()
    extra: list[str] = []
    if "jellyfit.datamodules.Digits\n" in text:
        extra = [f"--data.init_args.root={digits_root}"]
    elif "jellyfit.datamodules.MNIST\n" in text:
        write_mnist(tmp_path / "mnist")
        extra = ["--data.init_args.root=mnist", "--data.init_args.val_size=20"]
    elif "jellyfit.datamodules.CIFAR10\n" in text:
        write_cifar10(tmp_path / "cifar10", each=2)
        extra = ["--data.init_args.root=cifar10"]
    elif "jellyfit.datamodules.ImageFolder" in text:
        write_folders(tmp_path / "images", each=2)
        extra = ["--data.init_args.root=images", "--model.backbone.num_classes=3"]
    still = re.search(r"^    T: .*?jellyfit\.backbones\.(\w+)", text, re.MULTILINE | re.DOTALL)
    if still and still[1] in NARROW:
        extra += [f"--model.backbone.{name}={value}" for name, value in NARROW[still[1]].items()]
        extra += ["--model.T=2", "--data.batch_size=4"]
    if path.stem.startswith("rl_"):
        extra = ["--data.steps_per_epoch=100", "--data.episodes=1"]
    under = ["-c", CONFIGS / "rl_hopper.yaml"] * path.stem.startswith(("rl_actor_", "rl_learners"))
    outcome = cli("fit", *under, "-c", path, "--trainer.fast_dev_run=true", *extra)
    assert outcome.status == 0, outcome.err
    assert ("val/return" if path.stem.startswith("rl_") else "train/loss") in outcome.out
    assert not (tmp_path / "runs").exists(), "fast_dev_run writes nothing"


def test_the_networks_of_configs_are_the_published_ones() -> None:
    parameters = {
        "cifar10_plif": 36_720_492,
        "mnist_plif": 13_201_128,
        "fashion_mnist_plif": 13_201_128,
        "imagenet_sew_resnet18": 11_689_512,
        "imagenet_sew_resnet34": 21_797_672,
        "imagenet_sew_resnet50": 25_557_032,
        "imagenet_ms_resnet18": 11_693_736,
        "cifar10_spikformer": 9_310_906,
        "imagenet_spikformer": 29_664_808,
        "cifar10_qkformer": 6_707_146,
        "imagenet_qkformer": 16_472_584,
        "shd_recurrent": 108_841,
    }
    for name, count in parameters.items():
        settings = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["model"]["init_args"]["backbone"]
        arguments = settings["init_args"]
        arguments.pop("neuron", None)  # adds no parameter to these
        net = getattr(backbones, settings["class_path"].rpartition(".")[2])(**arguments)
        assert sum(parameter.numel() for parameter in net.parameters()) == count, name


def test_configs_begin_with_how_to_run_them() -> None:
    for path in CONFIGS.glob("**/*.yaml"):
        name = path.relative_to(CONFIGS.parent).as_posix()
        head = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
        assert f"-c {name}" in head, path


def test_mnist_config_trains_and_tests(cli: Cli, tmp_path: Path) -> None:
    write_mnist(tmp_path / "data/mnist")
    settings = ("-c", CONFIGS / "mnist_fc.yaml", "--model.T=2", "--data.val_size=20", "--trainer.max_epochs=1")
    assert cli("fit", *settings).status == 0
    outcome = cli("test", *settings, "--ckpt_path=best")
    assert outcome.status == 0, outcome.err
    assert "test/accuracy:" in outcome.out


def test_mnist_config_without_its_files_says_where_to_put_them(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("fit", "-c", CONFIGS / "mnist_fc.yaml")
    assert outcome.status == 1
    assert "train-images-idx3-ubyte" in outcome.err
    assert str(tmp_path / "data/mnist") in outcome.err
    assert "Traceback" not in outcome.err
    assert list(tmp_path.rglob("*.*")) == [], "no empty run folder is left"
