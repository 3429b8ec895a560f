"""Networks of every family as exported programs."""

from __future__ import annotations

import pytest
import torch

from tests.backbones.families import FAMILIES, frames, made

NAMES = [name for name in FAMILIES if not name.endswith("50")]  # of which there are smaller ones


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_exported_network_gives_the_same_for_other_input(name):
    build, frame = FAMILIES[name]
    net = made(build).eval()
    program = torch.export.export(net, (frames(2, 2, frame),)).module()
    other = frames(2, 2, frame, seed=1)
    expected = net(other)
    for _ in range(2):  # it remembers nothing
        torch.testing.assert_close(program(other), expected, rtol=1e-4, atol=1e-5)
