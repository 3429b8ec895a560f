"""``docs/clusters.md`` says what is so."""

from __future__ import annotations

import re

import pytest

from jellyfit import backbones
from tests.conftest import ROOT

PAGE = (ROOT / "docs/clusters.md").read_text()
NETS = {
    "Spiking ResNet-18, 11.7 M": lambda: backbones.SpikingResNet(18),
    "SEW ResNet-34, 21.8 M": lambda: backbones.SEWResNet(34),
}


@pytest.mark.parametrize("name", NETS)
def test_times_on_the_link_follow_from_the_number_of_parameters(name: str) -> None:
    parameters = sum(parameter.numel() for parameter in NETS[name]().parameters())
    assert f"{parameters / 1e6:.1f} M" in name
    lines = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith(f"| {name} |")]
    assert [line[1] for line in lines] == ["2", "8", "64"]
    for _, processes, *cells in lines:
        n = int(processes)
        sent = 2 * (n - 1) / n * 4 * parameters
        links = (10e9 / 8, 25e9 / 8, 100e9 / 8, 450e9)
        times = [sent / link * 1e3 for link in links]
        assert cells == [f"{sent / 1e6:.1f} MB", *(f"{ms:.1f} ms" if ms >= 1 else f"{ms:.2f} ms" for ms in times)]


def test_files_that_are_named_are_there() -> None:
    named = set(re.findall(r"(?:examples|benchmarks)/[\w/.]+\w", PAGE))
    assert len(named) >= 3
    for name in named:
        assert (ROOT / name).is_file(), name
