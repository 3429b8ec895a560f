"""Write ``docs/backbones.md`` from the classes themselves.

Run ``python docs/backbones.py`` after a change to them; a test compares the page.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import torch

from jellyfit import backbones

PAGE = Path(__file__).with_suffix(".md")
HEAD = """# Backbones

A backbone takes a sequence `[T, N, *]` and gives a value for every class and time step, `[T, N, num_classes]`. It
starts every sequence from a reset state by itself; tasks, metrics and losses take it from there. In Python and in YAML
alike it is a class with its options; `neuron` is a template, of which every layer gets a copy:

```python
import torch
from jellyfit import backbones, layers, neurons, surrogates

net = backbones.SEWResNet(
    18,
    num_classes=10,
    cnf="ADD",
    stem="small",  # frames of about 32x32; "imagenet": of 224x224
    in_channels=2,
    base_channels=16,
    neuron=neurons.LIFNode(tau=2.0, surrogate_function=surrogates.ATan(), detach_reset=True),
    norm=layers.ThresholdDependentBatchNorm2d,
)
y_seq = net(torch.zeros(4, 2, 2, 32, 32))  # [T, N, C, H, W] -> [T, N, 10]
```

```yaml
backbone:
  class_path: jellyfit.backbones.SEWResNet
  init_args:
    depth: 18
    num_classes: 10
    stem: small
    in_channels: 2
    neuron: {class_path: jellyfit.neurons.LIFNode, init_args: {tau: 2.0, detach_reset: true}}
    norm: jellyfit.layers.ThresholdDependentBatchNorm2d
```

Options that most share: `neuron`, `norm` (a class of batch norms, or a function of the number of channels),
`in_channels`, `base_channels` (all widths follow from it), `checkpoint_blocks` (less memory for more time, the same
numbers), `carry_state` (for streams).

## Weights of networks that are not spiking

`load_ann_state_dict` copies a ResNet or VGG from a checkpoint with torchvision's or timm's names into the spiking one
of that shape, as a start for training:

```python
net = backbones.SpikingResNet(18, num_classes=1000)
ann = net.state_dict()  # torch.load("resnet18.pth")
done = backbones.load_ann_state_dict(net, ann)
print(len(done.loaded), done.missing, done.unused, done.other_shape)
```

With `strict=False` what fits is loaded, where the number of classes or channels differs.

## All of them

Parameters are counted, with 1000 classes where no others are told.

| `backbones.` | what it is | parameters | paper |
|---|---|---|---|
"""

NETWORKS = [
    "SpikingMLP(784, 10, hidden=[100])",
    "SpikingConvNet((2, 34, 34), 10)",
    *[f'PLIFNet("{name}")' for name in ("mnist", "fashion_mnist", "nmnist", "cifar10", "cifar10dvs", "dvsgesture")],
    *[f"SpikingVGG({depth})" for depth in (11, 13, 16, 19)],
    "VGGSNN()",
    *[f"SpikingResNet({depth})" for depth in (18, 34, 50, 101, 152)],
    *[f"SEWResNet({depth})" for depth in (18, 34, 50, 101, 152)],
    "SEW7BNet(11)",
    "SEW7BNet(10, channels=[64] * 4 + [128] * 3)",
    *[f"MSResNet({depth})" for depth in (18, 34, 104)],
    *[f"Spikformer(embed_dims={size}, depths=8)" for size in (384, 512, 768)],
    "Spikformer(patch_size=4, num_classes=10, embed_dims=384, num_heads=12)",
    "QKFormer(num_heads=(6, 6, 6))",
    "QKFormer(embed_dims=512, num_heads=(8, 8, 8))",
    "QKFormer(embed_dims=768, num_heads=(12, 12, 12))",
    'QKFormer(num_classes=10, num_heads=(8, 8, 8), depths=(1, 1, 2), stem="small")',
    "SpikingRecurrentNet()",
    "SpikingRecurrentNet(hidden=[1024, 1024])",
]


def page() -> str:
    """The page of backbones: of every one what its docstring says first, its parameters, and its paper."""
    rows, before = [], None
    for call in NETWORKS:
        with torch.device("meta" if "VGG" in call or "ResNet" in call else "cpu"):
            net = eval(call, vars(backbones).copy())
        count = sum(parameter.numel() for parameter in net.parameters())
        doc = inspect.getdoc(type(net)) or ""
        paper = re.search(r"^Source: (.*?)(?:\n\n|; data:|\Z)", doc, re.MULTILINE | re.DOTALL)
        told = (doc.splitlines()[0].replace("``", "`"), " ".join(paper[1].split()).rstrip(".") if paper else "")
        line, source = ("", "") if type(net) is before else told
        rows.append(f"| `{call}` | {line} | {count:,} | {source} |\n")
        before = type(net)
    return HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
