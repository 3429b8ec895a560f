"""Rows of layers."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jellyfit import functional, layers, neurons
from jellyfit.errors import InputError
from tests.compat import attention_rows as attention
from tests.compat.rows import Row, close, peer

STEPS = 4
STATELESS: dict[str, tuple[list[dict[str, Any]], tuple[int, ...]]] = {  # arguments to try, one step's shape
    "AdaptiveAvgPool1d": ([{"output_size": 3}], (2, 3, 7)),
    "AdaptiveAvgPool2d": ([{"output_size": 1}, {"output_size": (2, None)}], (2, 3, 7, 5)),
    "AdaptiveAvgPool3d": ([{"output_size": (2, 1, 3)}], (2, 3, 4, 5, 6)),
    "AvgPool1d": ([{"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}], (2, 3, 8)),
    "AvgPool2d": ([{"kernel_size": 2}, {"kernel_size": (3, 2), "divisor_override": 5}], (2, 3, 8, 6)),
    "AvgPool3d": ([{"kernel_size": 2}, {"kernel_size": 3, "padding": 1, "count_include_pad": False}], (2, 3, 4, 5, 6)),
    "BatchNorm1d": ([{"num_features": 3}, {"num_features": 3, "affine": False}], (5, 3)),
    "BatchNorm2d": ([{"num_features": 3}, {"num_features": 3, "eps": 0.1, "momentum": 0.3}], (2, 3, 4, 5)),
    "BatchNorm3d": ([{"num_features": 3}, {"num_features": 3, "track_running_stats": False}], (2, 3, 2, 3, 4)),
    "Conv1d": ([{"kernel_size": 3}, {"kernel_size": 3, "stride": 2, "padding": 1, "bias": False}], (2, 4, 9)),
    "Conv2d": ([{"kernel_size": 3}, {"kernel_size": (1, 3), "groups": 2, "padding_mode": "circular"}], (2, 4, 6, 7)),
    "Conv3d": ([{"kernel_size": 3, "padding": "same"}, {"kernel_size": 2, "dilation": 2}], (2, 4, 3, 4, 5)),
    "ConvTranspose1d": ([{"kernel_size": 3}, {"kernel_size": 3, "stride": 2, "output_padding": 1}], (2, 4, 5)),
    "ConvTranspose2d": ([{"kernel_size": 2, "stride": 2}, {"kernel_size": 3, "dilation": 2}], (2, 4, 4, 5)),
    "ConvTranspose3d": ([{"kernel_size": 2}, {"kernel_size": 2, "groups": 2, "bias": False}], (2, 4, 2, 3, 4)),
    "Flatten": ([{}, {"start_dim": 2, "end_dim": 3}], (2, 3, 4, 5)),
    "GroupNorm": ([{"num_groups": 2, "num_channels": 4}], (2, 4, 5, 3)),
    "Linear": ([{"in_features": 4, "out_features": 3}, {"in_features": 4, "out_features": 3, "bias": False}], (5, 4)),
    "MaxPool1d": ([{"kernel_size": 2}, {"kernel_size": 2, "return_indices": True}], (2, 3, 8)),
    "MaxPool2d": (
        [{"kernel_size": 3, "stride": 2, "padding": 1}, {"kernel_size": 2, "return_indices": True}],
        (2, 3, 8, 6),
    ),
    "MaxPool3d": ([{"kernel_size": 2, "ceil_mode": True}, {"kernel_size": 2, "return_indices": True}], (2, 3, 5, 4, 4)),
    "Upsample": ([{"scale_factor": 2.0}, {"size": (9, 5), "mode": "bilinear", "align_corners": True}], (2, 3, 4, 5)),
    "WSConv2d": ([{"kernel_size": 3}, {"kernel_size": 3, "gain": False, "eps": 0.1, "bias": False}], (2, 4, 6, 7)),
    "WSLinear": ([{"in_features": 4, "out_features": 3}, {"in_features": 4, "out_features": 3, "gain": False}], (5, 4)),
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def fire(*shape: int, seed: int = 0) -> Tensor:
    """Spikes."""
    return (draw(*shape, seed=seed) > 0.3).double()


def run(net: nn.Module, x_seq: Tensor, step_mode: str, functional_: Any) -> dict[str, Any]:
    """Everything that a net makes of a sequence: outputs, gradients and buffers."""
    functional_.reset_net(net)
    if step_mode != "as it is":
        functional_.set_step_mode(net, step_mode)
    net.zero_grad()
    torch.manual_seed(3)
    x_seq = x_seq.clone().requires_grad_()
    if step_mode == "s":
        steps = [net(x) for x in x_seq]
        pairs = [step if isinstance(step, tuple) else (step,) for step in steps]
        outputs = [torch.stack(parts) for parts in zip(*pairs, strict=True)]
    else:
        whole = net(x_seq)
        outputs = list(whole if isinstance(whole, tuple) else (whole,))
    (outputs[0] * draw(*outputs[0].shape, seed=1)).sum().backward()
    return {
        **{f"output {i}": output for i, output in enumerate(outputs)},
        "gradient of the input": x_seq.grad,
        **{f"gradient of {name}": p.grad for name, p in net.named_parameters()},
        **{f"buffer {name}": buffer.double() for name, buffer in net.named_buffers()},
    }


def compare(
    ours: nn.Module,
    theirs: nn.Module,
    x_seq: Tensor,
    modes: tuple[str, ...] = ("s", "m"),
    memories: tuple[str, ...] = (),
    trainings: tuple[bool, ...] = (True, False),
) -> None:
    """Both make the same of ``x_seq`` in training and evaluation, from the same parameters."""
    ours.double().load_state_dict(theirs.double().state_dict())  # strict: the same keys
    for training in trainings:
        for mode in modes:
            found = run(ours.train(training), x_seq, mode, functional)
            expected = run(theirs.train(training), x_seq, mode, peer("functional"))
            assert found.keys() == expected.keys()
            for what, value in found.items():
                if value is None or expected[what] is None:
                    assert value is expected[what], f"{what} in {mode}"
                else:
                    close(value, expected[what], f"{type(ours).__name__}, mode {mode}, training {training}: {what}")
            for name in memories:
                close(getattr(ours, name), getattr(theirs, name), name)


def stateless(name: str) -> None:
    choices, shape = STATELESS[name]
    for arguments in choices:
        if "Conv" in name:
            arguments = {"in_channels": 4, "out_channels": 6, **arguments}
        torch.manual_seed(0)
        theirs = getattr(peer("layer"), name)(**arguments)
        for parameter in theirs.parameters():
            nn.init.normal_(parameter)
        compare(getattr(layers, name)(**arguments), theirs, draw(STEPS, *shape))


def unpool(name: str) -> None:
    rank = int(name[-2])
    pool = getattr(layers, f"MaxPool{rank}d")(2, return_indices=True, step_mode="m")
    for size in (None, [5] * rank):
        maxima, indices = pool(draw(STEPS, 2, 3, *(size or [4] * rank)))
        ours, theirs = getattr(layers, name)(2), getattr(peer("layer"), name)(2)
        for step in range(STEPS):
            close(ours(maxima[step], indices[step], size), theirs(maxima[step], indices[step], size))
        ours.step_mode = theirs.step_mode = "m"
        close(ours(maxima, indices, size), theirs(maxima, indices, size))


# ---------------------------------------------------------------- containers


def container(name: str, shapes: list[tuple[int, ...]], with_neuron: bool) -> None:
    for shape in shapes:
        built = []
        for layer, node in ((layers, neurons), (peer("layer"), peer("neuron"))):
            torch.manual_seed(0)
            held = [layer.Linear(3, 4), *([node.LIFNode(v_threshold=0.2)] if with_neuron else [])]
            built.append(getattr(layer, name)(*held))
        compare(*built, draw(*shape), ("as it is",))


TIME_FIRST, TIME_LAST = [(5, 2, 3), (1, 1, 3), (4, 2, 6, 3)], [(2, 3, 5), (1, 3, 1)]


def step_mode_container() -> None:
    layer, neuron = peer("layer"), peer("neuron")
    torch.manual_seed(0)
    ours, theirs = (module.StepModeContainer(False, "s", nn.Linear(3, 4)) for module in (layers, layer))
    compare(ours, theirs, draw(STEPS, 2, 3))
    ours = layers.StepModeContainer(True, "m", nn.Linear(3, 4), neurons.IFNode())
    theirs = layer.StepModeContainer(True, "m", nn.Linear(3, 4), neuron.IFNode())
    compare(ours, theirs, 2.0 * draw(STEPS, 2, 3))


def element_wise() -> None:
    for function in (torch.add, torch.mul, torch.maximum):
        for ours, theirs in ((nn.Identity(), nn.Identity()), (neurons.IFNode(), peer("neuron").IFNode())):
            compare(
                layers.ElementWiseRecurrentContainer(ours, function),
                peer("layer").ElementWiseRecurrentContainer(theirs, function),
                2.0 * draw(STEPS, 2, 3, 5),
                memories=("y",),
            )


def linear_recurrent() -> None:
    for bias in (True, False):
        for build, shape in ((lambda node: node.IFNode(), (2, 3)), (lambda _: nn.Linear(3, 3), (2, 5, 3))):
            torch.manual_seed(0)
            compare(
                layers.LinearRecurrentContainer(build(neurons), 3, 3, bias=bias),
                peer("layer").LinearRecurrentContainer(build(peer("neuron")), 3, 3, bias=bias),
                3.0 * draw(STEPS, *shape),
                memories=("y",),
            )
    torch.manual_seed(0)
    compare(
        layers.LinearRecurrentContainer(nn.Linear(3, 7), 3, 7),
        peer("layer").LinearRecurrentContainer(nn.Linear(3, 7), 3, 7),
        draw(STEPS, 2, 3),
        memories=("y",),
    )


# ---------------------------------------------------------------- norms

SPACE = {1: (6,), 2: (4, 5), 3: (2, 3, 4)}


def threshold_dependent(rank: int) -> None:
    name = f"ThresholdDependentBatchNorm{rank}d"
    for arguments in ((0.5, 2.0, 3), (1.0, 0.3, 3, 0.1, 0.4)):
        ours, theirs = getattr(layers, name)(*arguments), getattr(peer("layer"), name)(*arguments)
        close(ours.weight, theirs.weight)
        assert ours.step_mode == theirs.step_mode == "m"
        compare(ours, theirs, draw(STEPS, 2, 3, *SPACE[rank]), ("m",))
    theirs.reset_parameters()
    ours.reset_parameters()
    assert theirs.weight.tolist() == [1.0] * 3 and ours.weight.tolist() == [0.3] * 3


def temporal_effective(rank: int) -> None:
    name = f"TemporalEffectiveBatchNorm{rank}d"
    ours, theirs = getattr(layers, name)(STEPS, 3, eps=0.1), getattr(peer("layer"), name)(STEPS, 3, eps=0.1)
    close(ours.scale, theirs.scale)
    assert ours.step_mode == theirs.step_mode == "m"
    theirs.scale.data = torch.linspace(0.5, 2.0, STEPS)
    compare(ours, theirs, draw(STEPS, 2, 3, *SPACE[rank]), ("m",))


def through_time(rank: int) -> None:
    name = f"BatchNormThroughTime{rank}d"
    for arguments in ((STEPS, 3), (STEPS + 1, 3, 0.1, 0.4, False)):
        ours, theirs = getattr(layers, name)(*arguments), getattr(peer("layer"), name)(*arguments)
        compare(ours, theirs, draw(STEPS, 2, 3, *SPACE[rank]))
        assert ours.t == theirs.t == STEPS - 1


def neu_norm() -> None:
    for arguments in ({}, {"k": 0.5, "shared_across_channels": True}):
        ours, theirs = layers.NeuNorm(3, 4, 5, **arguments), peer("layer").NeuNorm(3, 4, 5, **arguments)
        compare(ours, theirs, fire(STEPS, 2, 3, 4, 5), memories=("x",))


# ---------------------------------------------------------------- dropout


def dropout(name: str) -> None:
    for p in (None, 0.0, 0.7):
        arguments = {} if p is None else {"p": p}
        ours, theirs = getattr(layers, name)(**arguments), getattr(peer("layer"), name)(**arguments)
        assert ours.p == theirs.p
        compare(ours, theirs, draw(STEPS, 3, 4, 5, 2))  # the same masks from the same seed


def drop_connect() -> None:
    layer = peer("layer")
    for arguments in ({"p": 0.0}, {"p": 0.0, "bias": False, "activation": None}, {"p": 0.0, "invariant": True}):
        torch.manual_seed(0)
        theirs = layer.DropConnectLinear(4, 3, **arguments)
        ours = layers.DropConnectLinear(4, 3, **arguments)
        compare(ours, theirs, draw(STEPS, 2, 4), trainings=(True,))  # theirs cannot evaluate with p = 0
    x = draw(2, 4)
    for bias in (True, False):  # on average, and with the same connections dropped
        torch.manual_seed(0)
        theirs = layer.DropConnectLinear(4, 3, bias=bias, invariant=True).double()
        ours = layers.DropConnectLinear(4, 3, bias=bias, invariant=True).double()
        ours.load_state_dict(theirs.state_dict())
        expected = theirs(x)
        ours.kept_w = (theirs.dropped_w != 0.0).double()
        ours.kept_b = (theirs.dropped_b != 0.0).double() if bias else None
        close(ours(x), expected)
        ours.eval()
        theirs.eval()
        ours.samples_num = theirs.samples_num = 100_000
        torch.testing.assert_close(ours(x), theirs(x), rtol=0.0, atol=0.01)
        assert not torch.equal(theirs(x), theirs(x))
    ours, theirs = (kind(4, 3, activation=None).eval() for kind in (layers.DropConnectLinear, layer.DropConnectLinear))
    x = torch.ones(2, 4)
    assert torch.equal(ours(x), ours(x)) and not torch.equal(theirs(x), theirs(x))
    assert layer.DropConnectLinear(4, 3).activation is layer.DropConnectLinear(4, 3).activation
    assert layers.DropConnectLinear(4, 3).activation is not layers.DropConnectLinear(4, 3).activation


# ---------------------------------------------------------------- synapses, helpers


def synapse_filter() -> None:
    for arguments in ({}, {"tau": 2.0}, {"tau": 5.0, "learnable": True}):
        compare(
            layers.SynapseFilter(**arguments),
            peer("layer").SynapseFilter(**arguments),
            fire(7, 2, 3, 4),
            memories=("out_i",),
        )


def delay() -> None:
    for steps in (0, 1, 4):
        compare(layers.Delay(steps), peer("layer").Delay(steps), draw(5, 2, 3))
        ours, theirs = layers.Delay(steps, step_mode="m"), peer("layer").Delay(steps, step_mode="m")
        for seed in range(4):  # goes on where it was; shorter sequences than the delay
            close(ours(draw(2, 1, 3, seed=seed)), theirs(draw(2, 1, 3, seed=seed)))


def voting() -> None:
    for size, count in ((10, 30), (3, 6)):
        compare(layers.VotingLayer(size), peer("layer").VotingLayer(size), draw(STEPS, 2, count))
    assert peer("layer").VotingLayer(10)(torch.zeros(2, 24)).shape == (2, 2)
    with pytest.raises(InputError, match="no multiple of voting_size = 10"):
        layers.VotingLayer(10)(torch.zeros(2, 24))


def print_shape() -> None:
    x = draw(2, 3)
    said = []
    for module in (layers.PrintShapeModule("here"), peer("layer").PrintShapeModule("here")):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert module(x) is x
        said.append(out.getvalue())
    assert said == ["here [2, 3]\n", ""]


def row(name: str, check: Callable[..., None], *arguments: Any, note: str = "") -> Row:
    return Row(name, "same", partial(check, *arguments), note)


LATER = "online learning rules come with the plasticity package"

OWN = [
    *(row(name, stateless, name) for name in STATELESS),
    *(row(f"MaxUnpool{rank}d", unpool, f"MaxUnpool{rank}d") for rank in (1, 2, 3)),
    row("MultiStepContainer", container, "MultiStepContainer", TIME_FIRST, True, note="also has mode `s`"),
    *(
        row(name, container, name, shapes, False, note="also has mode `s`; refuses neurons")
        for name, shapes in (("SeqToANNContainer", TIME_FIRST), ("TLastSeqToANNContainer", TIME_LAST))
    ),
    row("TLastMultiStepContainer", container, "TLastMultiStepContainer", TIME_LAST, True, note="also has mode `s`"),
    row("StepModeContainer", step_mode_container, note="`step_mode` can be left out before the modules"),
    row("ElementWiseRecurrentContainer", element_wise),
    row("LinearRecurrentContainer", linear_recurrent),
    *(
        row(
            f"ThresholdDependentBatchNorm{rank}d",
            threshold_dependent,
            rank,
            note="also has mode `s`; `reset_parameters()` keeps the weight at `alpha * v_th`, not 1",
        )
        for rank in (1, 2, 3)
    ),
    *(
        row(f"TemporalEffectiveBatchNorm{rank}d", temporal_effective, rank, note="also has mode `s`")
        for rank in (1, 2, 3)
    ),
    *(row(f"BatchNormThroughTime{rank}d", through_time, rank) for rank in (1, 2, 3)),
    row("NeuNorm", neu_norm),
    row("Dropout", dropout, "Dropout"),
    row("Dropout2d", dropout, "Dropout2d"),
    Row(
        "DropConnectLinear",
        "different",
        drop_connect,
        "the same numbers where nothing is drawn, the same distribution where something is; evaluation without an "
        "activation gives the mean itself instead of a draw's",
        arguments={"activation": "`'relu'` makes a new `nn.ReLU()`; there, all layers share one"},
    ),
    row("SynapseFilter", synapse_filter, note="sequences run as one kernel"),
    row("Delay", delay),
    Row(
        "VotingLayer",
        "different",
        voting,
        "a number of features that is no multiple of `voting_size` is an error; there, the features left over are lost",
    ),
    Row("PrintShapeModule", "different", print_shape, "prints; there, nothing is to be seen unless logging is set up"),
    *(
        Row(name, "absent", note=LATER)
        for name in ("GradwithTrace", "OTTTSequential", "ReplaceforGrad", "SpikeTraceOp")
    ),
    Row(
        "SpikeCountToBinary",
        "absent",
        note="for hardware that takes no spike counts: spreads a count over `n` binary steps; in plain PyTorch "
        "`slots = torch.arange(n).view(n, *[1] * (x_seq.ndim - 1))` and then "
        "`(x_seq.unsqueeze(1) > slots).to(x_seq.dtype).flatten(0, 1)`",
    ),
    Row(
        "TemporalBinSum",
        "absent",
        note="the inverse of `SpikeCountToBinary`; in plain PyTorch `x_seq.unflatten(0, (-1, n)).sum(1)`",
    ),
]
ROWS = [*OWN, *attention.ROWS]
