"""Networks built from step-mode layers and neurons."""

from jellyfit.backbones.ann import LoadedWeights, load_ann_state_dict
from jellyfit.backbones.base import Backbone, neuron_from
from jellyfit.backbones.images import ImageBackbone, Parts, fire
from jellyfit.backbones.ms_resnet import MSResNet
from jellyfit.backbones.plif import PLIFNet
from jellyfit.backbones.qkformer import QKFormer
from jellyfit.backbones.recurrent import SpikingRecurrentNet
from jellyfit.backbones.resnet import SpikingResNet
from jellyfit.backbones.sew_resnet import SEW7BNet, SEWResNet
from jellyfit.backbones.small import SpikingConvNet, SpikingMLP
from jellyfit.backbones.spikformer import Spikformer
from jellyfit.backbones.vgg import SpikingVGG
from jellyfit.backbones.vggsnn import VGGSNN

__all__ = [
    "VGGSNN",
    "Backbone",
    "ImageBackbone",
    "LoadedWeights",
    "MSResNet",
    "PLIFNet",
    "Parts",
    "QKFormer",
    "SEW7BNet",
    "SEWResNet",
    "Spikformer",
    "SpikingConvNet",
    "SpikingMLP",
    "SpikingRecurrentNet",
    "SpikingResNet",
    "SpikingVGG",
    "fire",
    "load_ann_state_dict",
    "neuron_from",
]
