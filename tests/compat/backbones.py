"""Rows of the networks that SpikingJelly's ``model`` names."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from jellyfit.backbones import MSResNet, QKFormer, Spikformer
from jellyfit.neurons import LIFNode
from tests.compat.networks import ABSENT, agree, draw, node, parameters, theirs_by_default
from tests.compat.rows import Row, peer

WHOLE = {"num_classes": 5}
MODEL = ("T", "spiking_neuron")


def absent(*names: str, **more: str) -> dict[str, str]:
    return {name: ABSENT[name] for name in names} | more


def ms_resnet(depth: int = 18, blocks: tuple[int, ...] = (2, 2, 2, 2)) -> None:
    torch.manual_seed(0)
    theirs = peer("model").MSResNet(3, 3, 5, blocks, 8, **theirs_by_default())
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.3)
    agree(MSResNet(depth, 5, base_channels=8, neuron=node()), theirs, draw(3, 2, 3, 32, 32), mean=True)  # type: ignore[arg-type]


def ms_start() -> None:
    """By default the same neurons but for the surrogate, and norms that start alike."""
    ours, theirs = MSResNet(18, 5, base_channels=4), peer("model").MSResNet(4, 3, 5, base_channels=4)
    lif: Any = ours.head_lif
    assert isinstance(lif, LIFNode)
    for name in ("tau", "decay_input", "v_threshold", "v_reset", "detach_reset"):
        assert getattr(lif, name) == getattr(theirs.head_lif, name)
    assert (lif.surrogate_function.alpha, theirs.head_lif.surrogate_function.alpha) == (1.0, 2.0)
    for (name, mine), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        if mine.ndim == 1 and not name.startswith("head."):
            assert torch.equal(mine, other), name


def ms_builder(depth: int) -> None:
    ms_resnet(depth, (2, 2, 2, 2) if depth == 18 else (3, 4, 6, 3))
    ms_start()
    with torch.device("meta"):
        assert parameters(MSResNet(depth)) == parameters(getattr(peer("model"), f"ms_resnet{depth}")())  # type: ignore[arg-type]


def spikformer(patch_size: int = 16) -> None:
    torch.manual_seed(0)
    theirs = peer("model").Spikformer(4, 2, 32, 32, patch_size, 5, 32, 4, 2.0, 2, **theirs_by_default())
    ours = Spikformer(2, patch_size, 5, 32, 4, 2.0, 2, neuron=node())  # type: ignore[arg-type]
    agree(ours, theirs, draw(4, 2, 2, 32, 32), names=False)


def spikformers() -> None:
    for patch_size in (4, 16):
        spikformer(patch_size)
    ours, theirs = Spikformer(num_classes=5), peer("model").Spikformer(num_classes=5)
    assert parameters(ours) == parameters(theirs)
    names = ("tau", "v_threshold", "detach_reset")
    nodes = [[m for m in net.modules() if isinstance(m, kind)] for net, kind in ((ours, LIFNode), (theirs, _lif()))]
    settings = [[tuple(getattr(each, name) for name in names) for each in found] for found in nodes]
    assert settings[0] == settings[1]
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if mine.ndim > 1 and mine.numel() > 1000:
            assert abs(mine.std() - other.std()) < 0.05 * other.std(), name


def _lif() -> type:
    return peer("neuron").LIFNode  # type: ignore[no-any-return]


def spikformer_builder(name: str, options: dict[str, Any]) -> None:
    with torch.device("meta"):
        assert parameters(Spikformer(**options)) == parameters(getattr(peer("model"), name)())
    spikformer(options.get("patch_size", 16))


def qkformer() -> None:
    for qka_type in ("token", "channel"):
        torch.manual_seed(0)
        sizes = (32, (2, 2, 2), (1, 1, 2), 2.0, qka_type)
        theirs = peer("model").QKFormer(4, 2, 5, *sizes, **theirs_by_default())
        agree(QKFormer(2, 5, *sizes, neuron=node()), theirs, draw(4, 2, 2, 32, 32), mean=True, names=False)  # type: ignore[arg-type]
    by_default = peer("model").QKFormer(num_classes=5, embed_dims=32, num_heads=(1, 1, 1))
    assert not by_default.patch_embed1.lif1.detach_reset


def qkformer_builder() -> None:
    with torch.device("meta"):
        assert parameters(QKFormer(num_heads=(6, 6, 6))) == parameters(peer("model").qkformer_10_384())
    qkformer()


ATTENTION = "built from `layers.MultiDimensionalAttention`, convolutions and neurons"
MAX = "no max-pooling variants: build one from `layers`"
ROWS: list[Row] = [
    Row(
        "MSResNet",
        "different",
        partial(ms_builder, 18),
        note="the same numbers, and weights load by name; the surrogate is the paper's `Rect(1.0)`, not `Rect(2.0)`",
        arguments=absent(
            *MODEL,
            layers="`depth`",
            stem_kernel_size="`stem`",
            stem_stride="`stem`",
            stem_pool="`stem`",
            stage_channels="`base_channels`",
        ),
    ),
    *(
        Row(
            f"ms_resnet{depth}",
            "different",
            partial(ms_builder, depth),
            note=f"`MSResNet({depth})`",
            ours="backbones.MSResNet",
            arguments=absent(*MODEL),
        )
        for depth in (18, 34)
    ),
    Row(
        "Spikformer",
        "different",
        spikformers,
        note="the same numbers; weights have the same order and other names; `pool_before_neuron=False` pools spikes, "
        "as the paper does",
        arguments=absent(*MODEL, img_size_h="frames of any size", img_size_w="frames of any size"),
    ),
    Row(
        "spikformer_ti",
        "different",
        partial(spikformer_builder, "spikformer_ti", {}),
        note="`Spikformer()`",
        ours="backbones.Spikformer",
        arguments=absent(*MODEL, img_size_h="frames of any size", img_size_w="frames of any size"),
    ),
    Row(
        "spikformer_s",
        "different",
        partial(spikformer_builder, "spikformer_s", {"embed_dims": 384, "num_heads": 12, "depths": 6}),
        note="`Spikformer(embed_dims=384, num_heads=12, depths=6)`",
        ours="backbones.Spikformer",
        arguments=absent(*MODEL, img_size_h="frames of any size", img_size_w="frames of any size"),
    ),
    Row(
        "spikformer_cifar10",
        "different",
        partial(
            spikformer_builder,
            "spikformer_cifar10",
            {"patch_size": 4, "num_classes": 10, "embed_dims": 384, "num_heads": 12},
        ),
        note="`Spikformer(patch_size=4, num_classes=10, embed_dims=384, num_heads=12)`",
        ours="backbones.Spikformer",
        arguments=absent(*MODEL, num_classes="1000 by default"),
    ),
    Row(
        "QKFormer",
        "different",
        qkformer,
        note="the same numbers; weights have the same order and other names; by default all neurons detach the reset, "
        "as the paper's do, not those of attentions alone",
        arguments=absent(*MODEL),
    ),
    Row(
        "qkformer_10_384",
        "different",
        qkformer_builder,
        note="`QKFormer(num_heads=(6, 6, 6))`",
        ours="backbones.QKFormer",
        arguments=absent(*MODEL),
    ),
    *(
        Row(name, "absent", note=ATTENTION)
        for name in ("MASNN", "AttMSResNet", "att_ms_resnet18", "masnn_dvs128_gesture")
    ),
    *(
        Row(name, "absent", note=MAX)
        for name in ("MaxFormer", "MaxResNet", "max_resnet18", "maxformer_10_384", "maxformer_cifar")
    ),
    *(
        Row(name, "absent", note="its attention is `layers.SpikeDrivenSelfAttention`")
        for name in ("SpikeDrivenTransformer", "sdt_8_384")
    ),
]
