"""Functions on whole networks, on sequences, and neurons and encoders without state of their own.

* networks: reset, detach, step mode, backend, initial weights, merging batch norm into convolutions;
* sequences: running modules over time, in chunks, with truncated back-propagation; delays; order of axes;
* losses and labels of spiking networks;
* neurons as functions: the state goes in and comes out, nothing is remembered;
* encoders as functions: values to spike trains.

Whole-network functions find every module however deep it is nested. Shapes: a sequence is ``[T, N, *]`` (time steps,
batch, features), one step ``[N, *]``.
"""

from jellyfit.functional.encoding import (
    gaussian_tuning_encode,
    latency_encode,
    poisson_encode,
    weighted_phase_encode,
)
from jellyfit.functional.fusion import fuse_conv_bn, fuse_conv_bn_eval_modules
from jellyfit.functional.network import (
    collect_reset_modules,
    detach_net,
    kaiming_normal_conv_linear_weight,
    named_neurons,
    named_stateful,
    reset_collected_modules,
    reset_net,
    set_backend,
    set_step_mode,
    set_threshold_margin,
)
from jellyfit.functional.neuron import (
    eif_multi_step,
    eif_step,
    if_multi_step,
    if_step,
    izhikevich_multi_step,
    izhikevich_step,
    lif_charge,
    lif_multi_step,
    lif_step,
    plif_multi_step,
    plif_step,
    qif_multi_step,
    qif_step,
    voltage_reset,
)
from jellyfit.functional.neuron_steps import (
    clif_step,
    cuba_lif_step,
    ilif_multi_step,
    ilif_step,
    klif_step,
    liaf_step,
    raf_step,
    ternary_if_step,
    ternary_lif_step,
)
from jellyfit.functional.sequence import (
    batch_first,
    chunk_multi_step_forward,
    delay,
    delay_step,
    multi_step_forward,
    seq_to_ann_forward,
    t_last_multi_step_forward,
    t_last_seq_to_ann_forward,
    time_first,
    truncated_bptt,
)
from jellyfit.functional.spikes import (
    first_spike_index,
    kernel_dot_product,
    redundant_one_hot,
    spike_similar_loss,
    temporal_efficient_training_cross_entropy,
)

__all__ = [
    "batch_first",
    "chunk_multi_step_forward",
    "clif_step",
    "collect_reset_modules",
    "cuba_lif_step",
    "delay",
    "delay_step",
    "detach_net",
    "eif_multi_step",
    "eif_step",
    "first_spike_index",
    "fuse_conv_bn",
    "fuse_conv_bn_eval_modules",
    "gaussian_tuning_encode",
    "if_multi_step",
    "if_step",
    "ilif_multi_step",
    "ilif_step",
    "izhikevich_multi_step",
    "izhikevich_step",
    "kaiming_normal_conv_linear_weight",
    "kernel_dot_product",
    "klif_step",
    "latency_encode",
    "liaf_step",
    "lif_charge",
    "lif_multi_step",
    "lif_step",
    "multi_step_forward",
    "named_neurons",
    "named_stateful",
    "plif_multi_step",
    "plif_step",
    "poisson_encode",
    "qif_multi_step",
    "qif_step",
    "raf_step",
    "redundant_one_hot",
    "reset_collected_modules",
    "reset_net",
    "seq_to_ann_forward",
    "set_backend",
    "set_step_mode",
    "set_threshold_margin",
    "spike_similar_loss",
    "t_last_multi_step_forward",
    "t_last_seq_to_ann_forward",
    "temporal_efficient_training_cross_entropy",
    "ternary_if_step",
    "ternary_lif_step",
    "time_first",
    "truncated_bptt",
    "voltage_reset",
    "weighted_phase_encode",
]
