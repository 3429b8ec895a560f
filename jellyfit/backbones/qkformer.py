"""QKFormer: a hierarchical vision transformer of spikes, whose first stages attend in linear time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from jellyfit import layers
from jellyfit.backbones.images import ImageBackbone, check_choice, check_positive
from jellyfit.backbones.resnet import Stem
from jellyfit.backbones.spikformer import TransformerBlock, conv_block, token_mlp, transformer_neuron
from jellyfit.errors import InputError
from jellyfit.neurons import BaseNode

__all__ = ["QKFormer"]


class _PatchEmbedding(nn.Module):
    """Convolutions with neurons, beside a convolution 1x1 with neurons of its own; all outputs are spikes, or 2."""

    def __init__(self, in_channels: int, channels: int, pools: Sequence[bool], neuron: BaseNode | None) -> None:
        super().__init__()
        sizes = [in_channels, *[channels] * len(pools)]
        self.body = nn.Sequential(
            *[
                conv_block(c, out, neuron, pool, bias=True)
                for c, out, pool in zip(sizes, sizes[1:], pools, strict=False)
            ]
        )
        self.shortcut = layers.Sequential(
            layers.Conv2d(in_channels, channels, 1, 2 ** sum(pools)),
            layers.BatchNorm2d(channels),
            transformer_neuron(neuron),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)  # type: ignore[no-any-return]


class QKFormer(ImageBackbone):
    """QKFormer: two stages of Q-K attention and one of spiking self-attention, each behind a patch embedding.

    Input ``[T, N, C, H, W]``, output ``[T, N, num_classes]``: the real values of the linear layer. Frames may have any
    size; stages have a quarter, half and all of ``embed_dims`` channels. Tokens of the first stage are 4x4 pixels, of
    the last 16x16; with ``stem="small"`` 1x1 and 4x4.

    | the paper's | arguments | parameters |
    |---|---|---|
    | HST-10-384 | ``num_heads=(6, 6, 6)`` | 16,472,584 |
    | HST-10-512 | ``embed_dims=512, num_heads=(8, 8, 8)`` | 29,077,864 |
    | HST-10-768 | ``embed_dims=768, num_heads=(12, 12, 12)`` | 64,960,552 |
    | HST-4-384 | ``num_classes=10, num_heads=(8, 8, 8), depths=(1, 1, 2), stem="small"`` | 6,707,146 |

    Args:
        in_channels: channels of a frame, default 3.
        num_classes: number of outputs, default 1000.
        embed_dims: channels of the last stage, a multiple of 8; default 384.
        num_heads: of each stage's attentions, default 3, 6, 6.
        depths: blocks of each stage, default 1, 2, 7.
        mlp_ratio: how much wider the MLPs are inside, default 4.
        qka_type: of the first two stages, ``"token"`` (default) or ``"channel"``; see
            :class:`~jellyfit.layers.QKAttention`.
        stem: ``"imagenet"`` (default) or ``"small"``, for frames of about 32x32.
        neuron: template of every neuron layer; default ``LIFNode(tau=2.0, detach_reset=True)``, in which case the
            neurons inside attentions have the threshold 0.5. (In SpikingJelly only attentions detach the reset.)
        checkpoint_blocks: see :class:`~jellyfit.backbones.ImageBackbone`; patch embeddings are blocks too.
        carry_state: see :class:`~jellyfit.backbones.Backbone`.

    Raises:
        InputError: sizes below 1, another ``stem`` or ``qka_type``, ``embed_dims`` that cannot be shared out, a number
            of stages other than 3; in the forward pass, other frames.

    Source: Zhou et al., "QKFormer: hierarchical spiking transformer using Q-K attention", NeurIPS 2024.

    Examples:
        >>> import torch
        >>> from jellyfit.backbones import QKFormer
        >>> net = QKFormer(num_classes=10, embed_dims=32, num_heads=[2, 2, 2], depths=[1, 1, 1], stem="small")
        >>> net(torch.zeros(4, 2, 3, 16, 16)).shape
        torch.Size([4, 2, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1000,
        embed_dims: int = 384,
        num_heads: tuple[int, int, int] = (3, 6, 6),
        depths: tuple[int, int, int] = (1, 2, 7),
        mlp_ratio: float = 4.0,
        qka_type: Literal["token", "channel"] = "token",
        stem: Stem = "imagenet",
        neuron: BaseNode | None = None,
        checkpoint_blocks: bool = False,
        carry_state: bool = False,
    ) -> None:
        super().__init__(num_classes, in_channels, checkpoint_blocks, carry_state)
        check_choice("QKFormer", "stem", stem, ("imagenet", "small"))
        check_positive("QKFormer", embed_dims=[embed_dims], depths=depths)
        if embed_dims % 8 or len(num_heads) != 3 or len(depths) != 3:
            raise InputError(
                f"QKFormer(embed_dims={embed_dims}, num_heads={list(num_heads)}, depths={list(depths)}): expected a "
                "multiple of 8, and three numbers each of heads and blocks."
            )
        large = stem == "imagenet"
        first = embed_dims // 8
        sizes = [embed_dims // 4, embed_dims // 2, embed_dims]
        shrinking = [True, False] if large else [False, True]
        self.patch_embed1 = nn.Sequential(
            conv_block(in_channels, first, neuron, pool=large, bias=True),
            _PatchEmbedding(first, sizes[0], [True, False] if large else [False], neuron),
        )
        self.patch_embed2 = _PatchEmbedding(sizes[0], sizes[1], shrinking, neuron)
        self.patch_embed3 = _PatchEmbedding(sizes[1], sizes[2], shrinking, neuron)

        def block(i: int) -> TransformerBlock:
            dim, heads = sizes[i], num_heads[i]
            attention: nn.Module
            if i < 2:
                attention = layers.QKAttention(dim, heads, qka_type, neuron)
            else:
                attention = layers.SpikingSelfAttention(dim, heads, neuron)
            return TransformerBlock(attention, token_mlp(dim, mlp_ratio, neuron, bias=True))

        for i, depth in enumerate(depths):
            self.add_module(f"stage{i + 1}", nn.ModuleList(block(i) for _ in range(depth)))
        self.head = layers.Linear(embed_dims, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.set_step_mode("m")

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W] -> [T, N, num_classes]`` (without ``T`` in single-step mode)."""
        self.check_frames(x)
        for i in range(1, 4):
            x = self.run_blocks([self.get_submodule(f"patch_embed{i}")], x)
            places = x.shape[-2:]
            x = self.run_blocks(self.get_submodule(f"stage{i}").children(), x.flatten(-2))
            x = x.reshape(*x.shape[:-1], *places)
        return self.head(x.mean((-2, -1)))  # type: ignore[no-any-return]
