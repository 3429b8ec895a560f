"""Parameters that are trained differently: which they are, and what the optimizer makes of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from jellyfit import layers, neurons
from jellyfit.backbones import SEWResNet, Spikformer, SpikingConvNet, SpikingMLP
from jellyfit.errors import ConfigError
from jellyfit.parameter_groups import ParameterGroups
from jellyfit.schedules import WarmupCosine


def by_name(net: nn.Module, groups: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The group of every parameter; each is in one."""
    names = {parameter: name for name, parameter in net.named_parameters()}
    found = {names[parameter]: group for group in groups for parameter in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in groups)
    return found


def network() -> nn.Module:
    threshold = nn.Parameter(torch.ones(3, 1, 1))
    return nn.Sequential(
        layers.Conv2d(2, 3, 3),
        layers.BatchNorm2d(3),
        neurons.ParametricLIFNode(v_threshold=threshold),  # a matrix by its shape
        layers.NeuNorm(3, 4, 4),
        layers.Flatten(),
        layers.Linear(48, 2),
    )


def test_biases_norms_and_neurons_do_not_decay() -> None:
    net = network()
    groups = by_name(net, ParameterGroups().groups(net))
    decaying = {name for name, group in groups.items() if "weight_decay" not in group}
    assert decaying == {"0.weight", "5.weight"}
    assert {"0.bias", "1.weight", "1.bias", "2.w", "2.v_threshold", "3.w", "5.bias"} == set(groups) - decaying


def test_names_that_do_not_decay_either_and_none_that_do_not() -> None:
    net = network()
    named = by_name(net, ParameterGroups(no_decay_names=["0.*"]).groups(net))
    assert {name for name, group in named.items() if "weight_decay" not in group} == {"5.weight"}
    (group,) = ParameterGroups(no_decay=False).groups(net)
    assert "weight_decay" not in group and len(group["params"]) == 9


def test_factors_of_several_patterns_are_multiplied() -> None:
    net = SpikingMLP(4, 2, hidden=[3])
    groups = by_name(net, ParameterGroups(lr_scales={"head.1.*": 0.1, "*.bias": 2.0}).groups(net))
    scales = {name: group["lr_scale"] for name, group in groups.items()}
    expected = {"head.1.weight": 0.1, "head.1.bias": 0.2, "head.3.weight": 1.0, "head.3.bias": 2.0}
    assert scales == pytest.approx(expected)


def test_learning_rates_fall_from_layer_to_layer_towards_the_input() -> None:
    cases = [
        (SpikingConvNet((2, 8, 8), 3, channels=[4, 4]), ["conv.0.0", "conv.0.1", "conv.1.0", "head.1"], [2, 2, 1, 0]),
        (
            SEWResNet(18, num_classes=3, base_channels=4),
            ["conv1", "bn1", "layer1.0.conv1", "layer2.0.conv2", "layer4.1.bn2", "fc"],
            [9, 9, 8, 6, 1, 0],
        ),
        (
            Spikformer(num_classes=3, embed_dims=16, num_heads=2, depths=2),
            ["blocks.0.attn.qkv_conv_bn.0", "blocks.1.attn.qkv_conv_bn.1", "head"],
            [2, 1, 0],
        ),
    ]
    for net, modules, behind in cases:
        groups = by_name(net, ParameterGroups(layer_decay=0.5).groups(net))
        scales = [groups[f"{module}.weight"]["lr_scale"] for module in modules]
        assert scales == pytest.approx([0.5**number for number in behind]), type(net).__name__


def test_the_optimizer_has_the_scaled_rates_and_a_schedule_multiplies_them() -> None:
    net = SpikingMLP(4, 2, hidden=[3])
    rules = ParameterGroups(lr_scales={"head.1.*": 0.1})
    other = nn.Parameter(torch.zeros(1))
    made = rules.optimizer(net, lambda groups: torch.optim.AdamW(groups, lr=0.01, weight_decay=0.05), [other])
    found = {group["name"]: (group["lr"], group["weight_decay"]) for group in made.param_groups}
    assert found == {
        "lr x 0.1": (pytest.approx(0.001), 0.05),
        "lr x 0.1, no decay": (pytest.approx(0.001), 0.0),
        "lr x 1": (0.01, 0.05),
        "lr x 1, no decay": (0.01, 0.0),
        "others": (0.01, 0.05),
    }
    schedule = WarmupCosine(made, total=2)
    made.step()
    schedule.step()
    assert [group["lr"] for group in made.param_groups] == pytest.approx([0.0005, 0.0005, 0.005, 0.005, 0.005])


def test_frozen_parameters_are_in_no_group_and_shared_ones_in_one() -> None:
    net = network()
    net[0].requires_grad_(False)
    net.append(net[5])
    assert {name.split(".")[0] for name in by_name(net, ParameterGroups().groups(net))} == {"1", "2", "3", "5"}


@pytest.mark.parametrize("settings", [{"lr_scales": {"backbone.*": 0.1}}, {"no_decay_names": ["backbone.*"]}])
def test_a_pattern_that_fits_nothing_is_an_error_that_shows_names(settings: dict[str, Any]) -> None:
    words = rf"ParameterGroups\({next(iter(settings))}\): 'backbone\.\*' fits no parameter.*Names are head\.1\.weight"
    with pytest.raises(ConfigError, match=words):
        ParameterGroups(**settings).groups(SpikingMLP(4, 2, hidden=[3]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr_scales": {"*": 0.0}}, r"\{'\*': 0.0\}.*above 0"),
        ({"layer_decay": 0.0}, "layer_decay=0.0"),
        ({"layer_decay": 1.1}, "layer_decay=1.1"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ParameterGroups(**settings)
