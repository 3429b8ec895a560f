"""What holds for every layer, whatever it does: one table, one test a promise."""

from __future__ import annotations

import copy
import doctest
import importlib
import inspect
import pickle
import pkgutil

import pytest
import torch
from torch import nn

from jellyfit import functional, layers
from jellyfit.errors import InputError, StateError
from jellyfit.neurons import IFNode
from jellyfit.neurons.base import MemoryModule, StepModule

T, N = 4, 3
BATCH = [(name, {"num_features": 3}) for name in ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm")]
SPACE = {1: (8,), 2: (6, 8), 3: (4, 4, 6)}
CONV = {"in_channels": 4, "out_channels": 2, "kernel_size": 3}


def by_rank(name, **arguments):
    return [(f"{name}{rank}d", arguments, (arguments.get("in_channels", 3), *SPACE[rank])) for rank in SPACE]


# name, arguments, one sample's shape
TABLE = [
    *by_rank("AdaptiveAvgPool", output_size=2),
    *by_rank("AdaptiveMaxPool", output_size=2),
    *by_rank("AvgPool", kernel_size=2),
    *by_rank("MaxPool", kernel_size=2),
    *by_rank("BatchNorm", num_features=3),
    *by_rank("BatchNormThroughTime", T=T, num_features=3),
    *by_rank("TemporalEffectiveBatchNorm", T=T, num_features=3),
    *by_rank("ThresholdDependentBatchNorm", alpha=1.0, v_th=0.5, num_features=3),
    *by_rank("Conv", padding=1, **CONV),
    *by_rank("ConvTranspose", stride=2, **CONV),
    ("BatchNorm1d", {"num_features": 3}, (3,)),
    ("BatchNormThroughTime1d", {"T": T, "num_features": 3}, (3,)),
    ("TemporalEffectiveBatchNorm1d", {"T": T, "num_features": 3}, (3,)),
    ("ThresholdDependentBatchNorm1d", {"alpha": 1.0, "v_th": 0.5, "num_features": 3}, (3,)),
    ("SyncBatchNorm", {"num_features": 3}, (3, 5)),
    ("GroupNorm", {"num_groups": 2, "num_channels": 4}, (4, 5)),
    ("Linear", {"in_features": 3, "out_features": 2}, (3,)),
    ("Linear", {"in_features": 3, "out_features": 2}, (5, 3)),
    ("WSLinear", {"in_features": 3, "out_features": 2}, (3,)),
    ("WSConv2d", {**CONV, "gain": False}, (4, 6, 8)),
    ("WSConv2d", CONV, (4, 6, 8)),
    ("Flatten", {}, (3, 4, 5)),
    ("Upsample", {"scale_factor": 2.0}, (3, 4, 5)),
    ("Delay", {"delay_steps": 2}, (3, 5)),
    ("Delay", {"delay_steps": 0}, (5,)),
    ("Dropout", {}, (3, 5)),
    ("Dropout2d", {}, (3, 4, 5)),
    ("DropConnectLinear", {"in_features": 3, "out_features": 2}, (3,)),
    ("DropConnectLinear", {"in_features": 3, "out_features": 2, "invariant": True, "activation": None}, (3,)),
    ("ElementWiseRecurrentContainer", {"element_wise_function": torch.add}, (3, 5)),
    ("LinearRecurrentContainer", {"in_features": 3, "out_features": 3}, (3,)),
    ("LinearRecurrentContainer", {"in_features": 3, "out_features": 3, "bias": False}, (5, 3)),
    ("NeuNorm", {"in_channels": 3, "height": 4, "width": 5}, (3, 4, 5)),
    ("PrintShapeModule", {}, (3,)),
    ("SynapseFilter", {"tau": 3.0}, (3, 5)),
    ("SynapseFilter", {"tau": 3.0, "learnable": True}, (3,)),
    ("VotingLayer", {"voting_size": 3}, (6,)),
]
ELSEWHERE = {  # tested in files of their own: they need modules, or several inputs
    *(name for name in layers.__all__ if name.endswith("Container") and "Recurrent" not in name),
    *("MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d", "Sequential", "batch_norm_neuron"),
}
each = pytest.mark.parametrize(
    ("name", "arguments", "shape"), TABLE, ids=[f"{name}-{'x'.join(map(str, shape))}" for name, _, shape in TABLE]
)
OWN_STATISTICS = ("BatchNorm", "SyncBatchNorm", "ThresholdDependent", "TemporalEffective")  # in training, by mode


def build(name, arguments, dtype=torch.float64, training=None):
    torch.manual_seed(0)
    if "Recurrent" in name:
        arguments = {"sub_module": IFNode(backend="torch"), **arguments}
    layer = getattr(layers, name)(**arguments).to(dtype)
    for parameter_name, parameter in layer.named_parameters():
        if parameter_name != "w":
            nn.init.normal_(parameter)
    if training is None:
        training = not name.startswith(OWN_STATISTICS) or "ThroughTime" in name
    return layer.train(training)


def draw(*shape, dtype=torch.float64, seed=0):
    return (2.0 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def run(layer, x_seq, step_mode):
    functional.set_step_mode(layer, step_mode)
    torch.manual_seed(1)
    return layer(x_seq) if step_mode == "m" else torch.stack([layer(x) for x in x_seq])


def test_the_table_holds_every_layer():
    assert {name for name, *_ in TABLE} | ELSEWHERE >= {
        name for name in layers.__all__ if inspect.getmodule(getattr(layers, name)).__name__.split(".")[-1] in OURS
    }
    assert not {name for name, *_ in TABLE} & ELSEWHERE


OURS = ("containers", "dropout", "fused", "norms", "stateless", "synapses")


@each
@pytest.mark.parametrize("steps", [1, T])
@pytest.mark.parametrize("batch", [1, N])
def test_both_step_modes_give_the_same_numbers_and_gradients(name, arguments, shape, steps, batch):
    if "T" in arguments:
        arguments = {**arguments, "T": steps}
    if "ThroughTime" in name and batch == 1:
        layer = build(name, arguments, training=False)  # one sample has no statistics
    else:
        layer = build(name, arguments)
    results = []
    for step_mode in ("s", "m"):
        functional.reset_net(layer)
        layer.zero_grad()
        x_seq = draw(steps, batch, *shape).requires_grad_()
        y_seq = run(layer, x_seq, step_mode)
        if y_seq.requires_grad:  # the first steps of a delay do not depend on the input
            (y_seq * draw(*y_seq.shape, seed=1)).sum().backward()
        results.append((y_seq, x_seq.grad, [p.grad for p in layer.parameters()]))
        assert y_seq.shape[:2] == (steps, batch)
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


@each
def test_a_sequence_in_parts_is_the_sequence(name, arguments, shape):
    if name.startswith("TemporalEffective"):
        pytest.skip("takes whole sequences")
    layer = build(name, arguments)
    x_seq = draw(T, N, *shape)
    whole = run(layer, x_seq, "m")
    if not name.startswith("DropConnect"):  # draws go on
        functional.reset_net(layer)
        torch.testing.assert_close(torch.cat([run(layer, x_seq[:1], "m"), layer(x_seq[1:])]), whole)


@each
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_every_floating_point_dtype_is_kept(name, arguments, shape, dtype):
    if name == "AvgPool3d" and dtype.itemsize == 2:
        pytest.skip("torch has no such pool on the CPU")
    layer = build(name, arguments, dtype)
    x_seq = draw(T, N, *shape, dtype=dtype)
    for step_mode in ("s", "m"):
        functional.reset_net(layer)
        y_seq = run(layer, x_seq, step_mode)
        assert y_seq.dtype == dtype and bool(torch.isfinite(y_seq).all())


@each
def test_an_empty_batch_gives_an_empty_result(name, arguments, shape):
    layer = build(name, arguments, training=False)
    full = run(layer, draw(T, N, *shape), "m")
    for step_mode in ("s", "m"):
        functional.reset_net(layer)
        assert run(layer, draw(T, 0, *shape), step_mode).shape == (T, 0, *full.shape[2:])


@each
def test_copies_and_pickles_go_on_where_the_original_is(name, arguments, shape):
    layer = build(name, arguments)
    functional.set_step_mode(layer, "s")
    first, second = draw(2, N, *shape)
    layer(first.requires_grad_())
    twins = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    torch.manual_seed(1)
    expected = layer(second)
    for twin in twins:
        torch.manual_seed(1)
        assert repr(twin) == repr(layer)
        assert torch.equal(twin(second), expected)


@each
def test_a_reset_forgets_and_the_state_is_no_part_of_the_state_dict(name, arguments, shape):
    layer = build(name, arguments)
    keys = list(layer.state_dict())
    x_seq = draw(T, N, *shape)
    first = run(layer, x_seq, "m")
    assert list(layer.state_dict()) == keys
    functional.reset_net(layer)
    if isinstance(layer, MemoryModule):
        assert list(map(repr, layer.memories())) == list(map(repr, build(name, arguments).memories()))
    if "ThroughTime" not in name:
        assert torch.equal(run(layer, x_seq, "m"), first)


@each
def test_the_state_can_be_cut_from_the_graph(name, arguments, shape):
    layer = build(name, arguments)
    functional.set_step_mode(layer, "s")
    x_seq = draw(2, N, *shape).requires_grad_()
    layer(x_seq[0])
    functional.detach_net(layer)
    y = layer(x_seq[1])
    if y.requires_grad:
        y.sum().backward()
    assert x_seq.grad is None or bool((x_seq.grad[0] == 0.0).all())


@each
def test_an_empty_sequence_is_refused(name, arguments, shape):
    if name == "PrintShapeModule":
        pytest.skip("takes anything")
    layer = build(name, arguments)
    functional.set_step_mode(layer, "m")
    with pytest.raises(InputError, match=r"T >= 1|at least one"):
        layer(draw(0, N, *shape))


REMEMBERING = [
    row
    for row in TABLE
    if row[0] in ("Delay", "Dropout", "Dropout2d", "NeuNorm", "SynapseFilter") or "Recurrent" in row[0]
    if row[1].get("delay_steps") != 0
]
REMEMBERING += [("DropConnectLinear", {"in_features": 3, "out_features": 2, "invariant": True}, (3,))]


@pytest.mark.parametrize(("name", "arguments", "shape"), REMEMBERING)
@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_another_batch_size_without_a_reset_is_an_error_that_teaches(name, arguments, shape, step_mode):
    layer = build(name, arguments)
    run(layer, draw(T, N, *shape), step_mode)
    with pytest.raises(StateError, match=r"its state '\w+' is .*left by an.*reset_net"):
        run(layer, draw(T, N + 1, *shape), step_mode)
    functional.reset_net(layer)
    assert run(layer, draw(T, N + 1, *shape), step_mode).shape[1] == N + 1


@each
def test_layers_tell_their_step_mode(name, arguments, shape):
    layer = build(name, arguments)
    assert isinstance(layer, StepModule)
    assert name == "PrintShapeModule" or f"step_mode={layer.step_mode!r}" in layer.extra_repr()


MODULES = ["jellyfit.layers." + module.name for module in pkgutil.iter_modules(layers.__path__)]


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


@pytest.mark.parametrize("name", [name for name in layers.__all__ if getattr(layers, name).__module__ in MODULES])
def test_every_layer_has_an_example(name):
    assert ">>>" in (getattr(layers, name).__doc__ or "")
