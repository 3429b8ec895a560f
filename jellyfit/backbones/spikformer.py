"""Spikformer: a vision transformer of spikes."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from jellyfit import layers
from jellyfit.backbones.base import neuron_from
from jellyfit.backbones.images import ImageBackbone, check_choice, check_positive
from jellyfit.errors import InputError
from jellyfit.neurons import BaseNode, LIFNode

__all__ = ["Spikformer"]


def transformer_neuron(neuron: BaseNode | None) -> BaseNode:
    """A new neuron; without a template that of the papers on spiking transformers."""
    return LIFNode(tau=2.0, detach_reset=True) if neuron is None else neuron_from(neuron)


def conv_block(
    in_channels: int,
    channels: int,
    neuron: BaseNode | None,
    pool: bool = False,
    pool_before_neuron: bool = True,
    bias: bool = False,
) -> layers.Sequential:
    """Conv 3x3, batch norm, neuron; with max pool 3x3 of stride 2 before or behind the neuron."""
    conv = layers.Conv2d(in_channels, channels, 3, padding=1, bias=bias)
    last: list[nn.Module] = [transformer_neuron(neuron)]
    if pool:
        last.insert(0 if pool_before_neuron else 1, layers.MaxPool2d(3, 2, 1))
    return layers.Sequential(conv, layers.BatchNorm2d(channels), *last)


def token_mlp(dim: int, ratio: float, neuron: BaseNode | None, bias: bool = False) -> layers.Sequential:
    """Two linear maps of every token ``[T, N, C, L]``, each with a batch norm and a neuron."""
    hidden = int(dim * ratio)
    modules: list[nn.Module] = []
    for c, out in ((dim, hidden), (hidden, dim)):
        conv = layers.Conv1d(c, out, 1, bias=bias)
        modules += [conv, layers.BatchNorm1d(out), transformer_neuron(neuron)]
    return layers.Sequential(*modules)


class TransformerBlock(nn.Module):
    """Attention and MLP over tokens ``[T, N, C, L]``, each added to its input."""

    def __init__(self, attn: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.attn = attn
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, L]`` -> the same."""
        x = x + self.attn(x)
        return x + self.mlp(x)  # type: ignore[no-any-return]


class _PatchSplitting(nn.Module):
    """Spiking patch splitting (SPS): four convolutions with neurons; a fifth one's spikes tell the position."""

    def __init__(
        self, in_channels: int, dim: int, pools: int, neuron: BaseNode | None, pool_before_neuron: bool
    ) -> None:
        super().__init__()
        sizes = [in_channels, dim // 8, dim // 4, dim // 2, dim]
        self.stages = nn.Sequential(
            *[
                conv_block(c, out, neuron, 4 - i <= pools, pool_before_neuron)
                for i, (c, out) in enumerate(pairwise(sizes))
            ]
        )
        self.positional_encoding = conv_block(dim, dim, neuron)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stages(x)
        return y + self.positional_encoding(y)  # type: ignore[no-any-return]


class Spikformer(ImageBackbone):
    """Spikformer: spiking patch splitting, blocks of spiking self-attention and MLP, mean over tokens, linear layer.

    Input ``[T, N, C, H, W]``, output ``[T, N, num_classes]``: the real values of the linear layer. Frames may have any
    size of at least one patch; every ``patch_size x patch_size`` pixels become a token of ``embed_dims`` values.

    | the paper's | arguments | parameters |
    |---|---|---|
    | Spikformer-8-384 | ``embed_dims=384, depths=8`` | 16,797,592 |
    | Spikformer-8-512 | ``embed_dims=512, depths=8`` | 29,664,808 |
    | Spikformer-8-768 | ``embed_dims=768, depths=8`` | 66,301,768 |
    | Spikformer-4-384 | ``patch_size=4, num_classes=10, embed_dims=384, num_heads=12`` | 9,310,906 |
    | Spikformer-2-256 | ``in_channels=2, num_classes=10, num_heads=16, depths=2`` | 2,563,594 |

    Args:
        in_channels: channels of a frame, default 3.
        patch_size: 2, 4, 8 or 16 (default): 1 to 4 of the stem's four convolutions, the last ones, shrink their output.
        num_classes: number of outputs, default 1000.
        embed_dims: channels of a token, a multiple of 8 and of ``num_heads``; default 256.
        num_heads: of every attention, default 8.
        mlp_ratio: how much wider the MLPs are inside, default 4.
        depths: number of blocks, default 4.
        pool_before_neuron: in the stem, pool what comes from the batch norm (default ``True``, as SpikingJelly and
            later work do), or the neuron's spikes as in the paper.
        neuron: template of every neuron layer; default ``LIFNode(tau=2.0, detach_reset=True)``, in which case the
            neurons behind ``Q Kᵀ V`` have the threshold 0.5.
        checkpoint_blocks: see :class:`~jellyfit.backbones.ImageBackbone`; the stem is one of them.
        carry_state: see :class:`~jellyfit.backbones.Backbone`.

    Raises:
        InputError: sizes below 1, another ``patch_size``, ``embed_dims`` that cannot be shared out; in the forward
            pass, other frames.

    Source: Zhou et al., "Spikformer: when spiking neural network meets transformer", ICLR 2023.

    Examples:
        >>> import torch
        >>> from jellyfit.backbones import Spikformer
        >>> net = Spikformer(patch_size=4, num_classes=10, embed_dims=32, num_heads=4, depths=1)
        >>> net(torch.zeros(4, 2, 3, 32, 32)).shape
        torch.Size([4, 2, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        patch_size: Literal[2, 4, 8, 16] = 16,
        num_classes: int = 1000,
        embed_dims: int = 256,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
        depths: int = 4,
        pool_before_neuron: bool = True,
        neuron: BaseNode | None = None,
        checkpoint_blocks: bool = False,
        carry_state: bool = False,
    ) -> None:
        super().__init__(num_classes, in_channels, checkpoint_blocks, carry_state)
        check_choice("Spikformer", "patch_size", patch_size, (2, 4, 8, 16))
        check_positive("Spikformer", embed_dims=[embed_dims], depths=[depths])
        if embed_dims % 8:
            raise InputError(f"Spikformer(embed_dims={embed_dims}): expected a multiple of 8: the stem begins with it.")
        self.min_frame = patch_size
        self.patch_embed = _PatchSplitting(
            in_channels, embed_dims, patch_size.bit_length() - 1, neuron, pool_before_neuron
        )
        self.blocks = nn.ModuleList(
            TransformerBlock(
                layers.SpikingSelfAttention(embed_dims, num_heads, neuron), token_mlp(embed_dims, mlp_ratio, neuron)
            )
            for _ in range(depths)
        )
        self.head = layers.Linear(embed_dims, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.set_step_mode("m")

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W] -> [T, N, num_classes]`` (without ``T`` in single-step mode)."""
        self.check_frames(x)
        tokens = self.run_blocks([self.patch_embed], x).flatten(-2)
        return self.head(self.run_blocks(self.blocks, tokens).mean(-1))  # type: ignore[no-any-return]
